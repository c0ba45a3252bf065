//! The kernel half of the profiler: BPF programs, their loader, perf events, and the layouts both sides share.
//!
//! This is the only crate that talks to `bpf(2)` and `perf_event_open(2)`, and the only one with `unsafe` code. It moves
//! data and knows nothing of processes, files or names.
//!
//! ```text
//!  clock tick ── sample_cpu ── kernel stack ── unwind_frame × n ── ring ── SampleRing::take ── Sample
//!                                  ▲ Tables: processes ─ mappings ─ executables ─ row pages ─ rows ─ rules
//!  side band ── Sideband::drain ── Event
//! ```
//!
//! Not here: building unwind rows, reading `/proc`, symbols, aggregation.

pub mod abi;
mod error;
#[cfg(feature = "feed")]
pub mod feed;
pub mod memory;
pub mod native;
mod perf;
pub mod prog_test;
pub mod record;
pub mod resolver;
mod run_time;
mod sampler;
pub mod sideband;
mod skeleton;
mod tables;

pub use error::{Error, Result};
pub use perf::{max_frequency, online_cpus, paranoid, probe_clock};
pub use run_time::RunTime;
pub use sampler::{Batch, Counters, Options, SampleRing, Sampler, Targets};
pub use tables::Tables;

/// The programs compiled for arm64, which this crate does not load: an ELF object for libbpf.
#[cfg(feature = "arm64-object")]
pub const OBJECT_ARM64: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/profiler_arm64.o"));
