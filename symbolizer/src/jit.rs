//! Names of code that JITs make at run time.

use std::path::PathBuf;

/// A process that has JIT code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitProcess {
    /// Process id in our namespace.
    pub pid: u32,
    /// Start time, clock ticks since boot: with the pid, the identity of the process.
    pub start_time: u64,
    /// Its root directory: `/proc/PID/root`.
    pub root: PathBuf,
    /// Its process id in its own (innermost) pid namespace, which is the one in the names of files it writes.
    pub namespace_pid: u32,
}
