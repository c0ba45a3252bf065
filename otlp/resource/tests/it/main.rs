//! What the resource of a process says, against real processes and servers of their own.

mod claims;
mod environment;
mod kubernetes;
mod model;
mod process;
#[path = "../../../formats/tests/it/profiles.rs"]
mod profiles;
mod servers;
