//! The kernel half of the profiler: BPF programs, their loader, perf events, and the layouts both sides share.
//!
//! This is the only crate that talks to `bpf(2)` and `perf_event_open(2)`, and the only one with `unsafe` code. It moves
//! data and knows nothing of processes, files or names.
//!
//! ```text
//!  event of a source ── sample_event ── kernel stack ── unwind_frame × n ── the source's ring ── SampleRing::take ── Sample
//!                                  ▲ Tables: processes ─ mappings ─ executables ─ row pages ─ rows ─ rules
//!  side band ── Sideband::drain ── Event
//! ```
//!
//! Not here: building unwind rows, reading `/proc`, symbols, aggregation.

pub mod abi;
pub mod counter;
mod cpus;
mod error;
#[cfg(feature = "feed")]
pub mod feed;
mod frame;
pub mod memory;
pub mod native;
mod perf;
pub mod prog_test;
pub mod record;
pub mod resolver;
mod ring;
mod run_time;
mod sampler;
pub mod sideband;
mod skeleton;
mod tables;

pub use counter::{Counter, Counters};
pub use cpus::online_cpus;
pub use error::{Error, Result};
pub use perf::{max_frequency, paranoid, probe, probe_clock};
pub use profiler_measure::source::{Event, Rate, Source};
pub use ring::{Batch, SampleRing};
pub use run_time::RunTime;
pub use sampler::{MAX_SOURCES, Options, Sampler, Targets};
pub use tables::{InstanceTable, ProcessTables, RowTables, Tables};

/// The programs compiled for arm64, which this crate does not load: an ELF object for libbpf.
#[cfg(feature = "arm64-object")]
pub const OBJECT_ARM64: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/profiler_arm64.o"));
