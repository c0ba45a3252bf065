//! OpAMP v0.20.0: both ends of the Open Agent Management Protocol, as state machines without I/O and with two transports.
//!
//! - [`messages`]: what goes over the wire, and the bits of capabilities.
//! - [`client::Client`]: an agent's side. It is told what happens (a state changed, bytes came, a connection broke, time passed) and
//!   says what to do next ([`client::Step`]). Time and randomness are given to it.
//! - [`server::Registry`]: a server's side: what is known of every agent, and what each is answered.
//! - [`transport`]: the two over WebSocket and plain HTTP, with TLS. [`transport::start`] runs a client, [`transport::Server`] a server
//!   that takes both transports on one port.
//!
//! ```
//! use std::time::Instant;
//! use profiler_opamp::{client::{Client, Options, Step}, Endpoint, InstanceUid, Settings};
//!
//! let endpoint = Endpoint::parse("ws://127.0.0.1:4320/v1/opamp")?;
//! let mut client = Client::new(Options::default(), InstanceUid::new([7; 16]), Settings::new(endpoint));
//! let now = Instant::now();
//! assert!(matches!(client.poll(now), Step::Connect(_)));
//! client.connected(now);
//! // The first message is a status report.
//! let Step::Send(report) = client.poll(now) else { panic!() };
//! assert!(!report.bytes.is_empty());
//! # Ok::<(), profiler_opamp::EndpointError>(())
//! ```
//!
//! What the other side sends is hostile: it is read within [`Limits`], also after decompression; what it may make this side do in a
//! loop is slowed down; redirects are few, never lead from TLS to plain text, and take no credentials to another host.
//!
//! Absent: what an agent makes of a configuration, of packages, of certificates: these are handed to it as [`client::Event`]s.
//! `docs/opamp.md` has the list of what the specification demands, with the test of each line.
#![forbid(unsafe_code)]

mod backoff;
pub mod client;
mod endpoint;
mod instance;
mod limits;
pub mod messages;
mod random;
mod report;
mod retry_after;
pub mod server;
pub mod transport;
pub mod wire;

pub use backoff::BackoffOptions;
pub use endpoint::{Endpoint, EndpointError, Settings, Transport};
pub use instance::{InstanceUid, WrongUid};
pub use limits::Limits;
pub use random::{Random, SystemRandom};
pub use report::Part;
pub use retry_after::retry_after;

/// Text of the other side as one short line without control characters, for logs.
#[must_use]
pub fn shown(text: &str) -> String {
    profiler_http::excerpt(text.as_bytes())
}
