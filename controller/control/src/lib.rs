//! The control server of a fleet of agents: who they are and how, by OpAMP; configurations as revisions; rollouts that take a revision to
//! more and more of them as long as their gates hold; an audit log. People and programs have it by REST.
//!
//! ```text
//!  agents ── OpAMP ──► transport::Server ──► Registry ◄── offers ── Core ◄── REST ── people
//!                          (profiler-opamp)     └── events ──────► │  └─ Rollout (no I/O)
//!                                                                  └──── Store (SQLite)
//! ```
//!
//! [`serve()`] is the process. What is decided is on disk before an agent hears of it: a server that is killed goes on where it was.
//!
//! Absent: knowledge of what a configuration says. Agents judge that, each for itself, and say FAILED.
#![forbid(unsafe_code)]

pub mod api;
pub mod client;
pub mod core;
pub mod fleet;
pub mod labels;
mod metrics;
mod problem;
pub mod rollout;
mod serve;
pub mod store;
pub mod token;

pub use problem::Problem;
pub use serve::{Options, ServeError, serve};
