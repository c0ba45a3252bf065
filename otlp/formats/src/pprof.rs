//! pprof: what `go tool pprof`, Pyroscope, Parca and most viewers read.
//!
//! A recording's CPU samples are written as pprof's two CPU sample types, `samples/count` and `cpu/nanoseconds` (count x period), and
//! read back into one; further measures are further sample types (see `columns`). Process, thread, CPU and time are labels, the machine and the losses are comments. Fields 1000 and up of
//! `proto/profile.proto` keep what pprof cannot say (kind of frame, further build ids); other readers skip them.
//!
//! Not kept: `drop_frames`, `keep_frames`, `doc_url` and `is_folded` of other producers' files.

mod columns;
mod comments;
mod decode;
mod encode;

pub use decode::decode;
pub(crate) use decode::decode_raw;
pub use encode::encode;

pub use crate::error::Error;

/// The generated messages.
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/perftools.profiles.rs"));
}

/// Keys of the labels that say where a sample was taken.
mod key {
    /// Process id, number.
    pub const PID: &str = "pid";
    /// Process name, text.
    pub const PROCESS: &str = "process";
    /// Process start, ns since the epoch.
    pub const PROCESS_START: &str = "process_start";
    /// Path of the executable, text.
    pub const EXECUTABLE: &str = "executable";
    /// Container id, text.
    pub const CONTAINER: &str = "container_id";
    /// Thread id, number.
    pub const TID: &str = "tid";
    /// Thread name, text.
    pub const THREAD: &str = "thread";
    /// CPU, text: pprof's own reader drops numbers that are 0 and have no unit.
    pub const CPU: &str = "cpu";
    /// Time, ns since the epoch.
    pub const TIMESTAMP: &str = "timestamp";
    /// Id of the trace that was running, hex.
    pub const TRACE: &str = "trace_id";
    /// Id of the span that was running, hex.
    pub const SPAN: &str = "span_id";
    /// Prefix of the attributes of a process.
    pub const RESOURCE: &str = "resource.";
    /// All of the above but the prefix.
    pub const RESERVED: &[&str] = &[PID, PROCESS, PROCESS_START, EXECUTABLE, CONTAINER, TID, THREAD, CPU, TIMESTAMP];
}
