//! OTLP profiles (`opentelemetry.proto.profiles.v1development` as of proto 1.10 and 1.11), in protobuf and in JSON.
//!
//! What is written satisfies every receiver that is known: inline attributes, one Resource a process, ELF addresses, the null
//! entry at 0 of every table, no duplicate and no orphan in any of them, timestamps without values where each value is 1.
//! [`check`] holds the rules of OpenTelemetry's `profcheck`, and every test that encodes runs it.

mod check;
mod decode;
mod dictionary;
mod encode;
mod json;
mod messages;
mod resource;
mod schema;
mod scope;
mod shared;
mod split;
mod tables;

pub use check::{Violation, check, check_message};
pub use decode::{decode, decode_json};
pub(crate) use decode::{decode_json_raw, decode_raw};
pub use encode::{encode, encode_json_to, encode_to, request};
pub use messages::{Messages, messages, write_message_json};
/// The request that [`request`] builds, as generated from OpenTelemetry's own definitions.
pub use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
pub use split::{Request, Split, count_profiles, split};

pub use crate::error::Error;
