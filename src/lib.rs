//! The profiler as a library: the pipeline from samples to a profile, and the commands built on it.
//!
//! Wiring only; the mechanisms are in the crates of the workspace. See `docs/ARCHITECTURE.md`.
#![forbid(unsafe_code)]

mod agent;
pub mod cli;
mod confinement;
mod convert;
mod detect;
mod diff;
mod doctor;
mod events;
mod exit;
mod launch;
mod output;
pub mod pipeline;
mod print;
mod record;
mod rules;
mod shown;
pub mod telemetry;
mod terminal;
