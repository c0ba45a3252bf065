//! What can go wrong between user space and the kernel half.

use std::io;
use std::path::PathBuf;

/// An error of the kernel half, with the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The BPF object could not be opened, loaded or attached.
    #[error("cannot {action} the BPF programs: {source}{hint}")]
    Bpf {
        /// `open`, `load`, `attach`.
        action: &'static str,
        /// libbpf's word.
        source: libbpf_rs::Error,
        /// What to do about it; starts with a separator or is empty.
        hint: String,
    },
    /// `perf_event_open` was refused.
    #[error("cannot open a perf event on CPU {cpu}: {source}{hint}")]
    PerfEvent {
        /// The CPU.
        cpu: u32,
        /// The kernel's word.
        source: io::Error,
        /// What to do about it; starts with a separator or is empty.
        hint: String,
    },
    /// A CPU went offline before its event was opened.
    #[error("CPU {cpu} has gone offline")]
    CpuGone {
        /// The CPU.
        cpu: u32,
    },
    /// An event cannot be sampled here.
    #[error("cannot sample {event} on CPU {cpu}: {source}{hint}")]
    Event {
        /// As users write it.
        event: String,
        /// The CPU.
        cpu: u32,
        /// The kernel's word.
        source: io::Error,
        /// What to do about it; starts with a separator or is empty.
        hint: String,
    },
    /// A tracepoint is not to be found.
    #[error("cannot sample tracepoint:{group}:{name}: {hint}")]
    Tracepoint {
        /// Its group.
        group: String,
        /// Its name.
        name: String,
        /// Why, and what to do about it.
        hint: String,
    },
    /// There are no sources, or too many.
    #[error("{count} events cannot be sampled at once: 1 to {limit} can")]
    Sources {
        /// As asked.
        count: usize,
        /// At most.
        limit: usize,
    },
    /// One event is to be sampled in two ways.
    #[error("{event} is given twice: an event has one rate")]
    SourceTwice {
        /// Which.
        event: String,
    },
    /// Events cannot be changed while they are sampled, only their rates.
    #[error("the events that are sampled cannot be changed live, only their rates")]
    OtherEvents,
    /// A map, ring or file could not be set up.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done, to what.
        action: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// The rate is outside of what the kernel allows.
    #[error("{frequency} Hz is not a rate this kernel allows: choose 1 to {limit} (kernel.perf_event_max_sample_rate)")]
    Frequency {
        /// As asked, Hz.
        frequency: u64,
        /// The kernel's limit, Hz.
        limit: u64,
    },
    /// A file given as the kernel's BTF is something else.
    #[error("{path} is no BTF: give the running kernel's, a raw BTF file or an ELF file with a .BTF section", path = path.display())]
    NotBtf {
        /// As given.
        path: PathBuf,
    },
    /// A table of the kernel half is full.
    #[error("the kernel half's {table} table is full ({capacity} entries)")]
    TableFull {
        /// Which.
        table: &'static str,
        /// Its capacity.
        capacity: usize,
    },
}

impl Error {
    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action: action.into(), source }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
