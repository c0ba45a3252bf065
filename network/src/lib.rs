//! A process of its own for each receiver that is spoken to.
//!
//! ```text
//!  a thread of the agent                             sender (the same binary, `__network`)
//!  Link::ask ── begin: what to be ── socket ───────> serve: reads its files, gives up all rights, answers what is in force
//!       │    ── body, rest ────────────────────────> names, TCP, TLS, HTTP: the other side's bytes
//!       │    <─ body, checked by who asked ─────────
//!       └ no answer in time, or none that is one: killed, never waited for; the next request starts another
//! ```
//!
//! What a receiver, a name server or anybody on the way sends is parsed by who has nothing to lose: no capability, no file of the host but
//! what the name service reads, no port but its receiver's, no system call beyond sockets ([`rights`]). What it is handed and what waits
//! stays with who asks, so that its end loses nothing.
//!
//! This crate knows no receiver and no protocol: what `begin`, bodies and answers mean is the caller's, on both sides. Answers are foreign input:
//! their length is bounded here, their content there.
#![forbid(unsafe_code)]

mod frame;
mod link;
mod role;
mod rooms;

pub use frame::{MAX_BODY, MAX_REST};
pub use link::{Failed, Link, Member, Network, Stats};
pub use role::{SUBCOMMAND, Served, serve};
pub use rooms::{name_service, rights, thread_rights};
