//! OpAMP against its specification: the two state machines by themselves, and both transports against each other and against hostile peers.

mod client_answers;
mod client_link;
mod client_reports;
mod client_settings;
mod crowded;
mod documented;
mod hostile;
mod kept;
mod opamp_go;
mod server;
mod simulated;
mod tls;
mod transports;
mod wire;
