//! The profiler's one HTTP client, for receivers of OTLP (HTTP/1.1, and HTTP/2 for gRPC) and for Kubernetes.
//!
//! [`Url`] says where, [`Destination`] with which HTTP and certificates, [`Connection`] is one connection that carries one request
//! at a time, [`Body`] an answer that is read within bounds. [`Destination::stream`] is a connection for what only begins as HTTP. What the other side sends is hostile: whatever of it is kept has a limit,
//! and so has what it sends beside answers; whatever of it is shown is an [`excerpt`].
//!
//! Absent: a pool, redirects, cookies, retries. Whether a request that failed may go out again only its sender knows;
//! [`CallError::was_sent`] says what is known here.
#![forbid(unsafe_code)]

mod body;
mod connection;
mod metered;
mod peer;
mod text;
mod tls;
mod url;
mod watched;

pub use body::{Body, BodyError};
pub use connection::{CallError, Connection, Destination, Stream, Version};
pub use text::{chain, excerpt, line};
pub use tls::TlsError;
pub use url::Url;
pub use watched::{Watched, read};
