//! End-to-end proof of `profiler` on real programs.
//!
//! A test here starts a program that knows the truth about itself ([`programs`], [`truth`]), records it with the `profiler`
//! binary as a user would ([`recording`]), reads the profile back ([`rows`]) and compares: shares of CPU time ([`shares`]),
//! callers frame by frame ([`pattern`]), stacks complete to the process's root ([`completeness`]); and where another tool
//! can record the same run, what that says ([`perf`]).
//!
//! [`made`] are records for measuring what comes after the kernel half.
//!
//! Not here: anything that one crate can test on its own.
#![forbid(unsafe_code)]

pub mod agent;
pub mod children;
pub mod collector;
pub mod completeness;
pub mod environment;
pub mod error;
pub mod java;
pub mod made;
pub mod node;
pub mod opamp_go;
pub mod pattern;
pub mod perf;
pub mod programs;
pub mod proof;
pub mod python;
pub mod receiver;
pub mod recording;
pub mod rows;
pub mod seen;
pub mod shares;
pub mod symbols;
pub mod truth;
pub mod verdict;

pub use error::Error;
