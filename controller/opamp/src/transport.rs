//! The two transports: WebSocket and plain HTTP, for both sides.

mod http_client;
mod run;
mod serve;
mod websocket;

pub use run::{Events, Handle, TransportOptions, start};
pub use serve::{Application, Denial, Elsewhere, Server, ServerOptions};
