//! Processes: what is known of each, in the time of the events that tell of it.
//!
//! A [`ProcessTable`] is fed with the kernel's side band in time order and, where that says too little, with what `/proc` says
//! now ([`ProcessTable::scan`]). Between the two it always prefers what is newer, so that an event that was queued while `/proc`
//! was read changes nothing twice. It keeps ended processes and replaced images for a while: samples arrive late.

pub mod cgroup;
pub mod host;
pub mod procfs;
mod table;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use cgroup::Cgroup;
pub use procfs::ScanError;
pub use profiler_measure::Clock;
pub use table::{Changes, ProcessTable, Retired};

use crate::maps::MappingSet;

/// Threads of one process that are looked at.
pub const MAX_THREADS: usize = 1 << 16;

/// A kernel `comm`: the name of a thread, at most 15 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Comm([u8; 16]);

impl Comm {
    /// The first 15 bytes of `name`, up to a NUL or newline that ends it.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let mut comm = [0; 16];
        for (to, &from) in comm.iter_mut().take(15).zip(name.iter().take_while(|&&byte| byte != 0)) {
            *to = from;
        }
        Self(comm)
    }

    /// The name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// The name as text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_text(), f)
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// What tells one image of a process from the next without reading its memory: `mm->start_code` and `mm->start_stack`.
///
/// The BPF program compares them before it trusts a table that user space made. A forked child has those of its parent, and its
/// mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct AddressSpace {
    /// `/proc/PID/stat` field 26: first address of the program's code.
    pub start_code: u64,
    /// `/proc/PID/stat` field 28: bottom of the main stack, random in every exec.
    pub start_stack: u64,
}

/// One image of one process: from fork or exec to the next exec or the end.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process id (thread group id) in the profiler's pid namespace.
    pub pid: u32,
    /// Different for each image that this table has seen: a name for (pid, start, how many execs).
    pub serial: u32,
    /// When the process was forked, ns on `CLOCK_BOOTTIME`; 0 if unknown. Exact to 10 ms where only `/proc` told.
    pub start_time_ns: u64,
    /// The same, ns since the Unix epoch; 0 if unknown.
    pub start_unix_ns: u64,
    /// Name of the main thread.
    pub comm: Comm,
    /// Path of the program as the process's mount namespace names it, without ` (deleted)`; empty if unknown.
    pub exe: Arc<[u8]>,
    /// Executable mappings.
    pub mappings: Arc<MappingSet>,
    /// Goes up with every change of `mappings` in this image.
    pub mappings_version: u32,
    /// The control group, if it was read ([`ProcessTable::scan`]) or inherited from a parent of which it was.
    pub cgroup: Option<Arc<Cgroup>>,
    /// The container that the control group names.
    pub container_id: Option<Arc<str>>,
    /// `cgroup` and `container_id` are those of the parent at the fork, which is mostly right and never checked. Container runtimes
    /// move their first process to its group after the fork: [`ProcessTable::read_container`] makes sure.
    pub container_inherited: bool,
    /// The process's id in its own (innermost) pid namespace; `pid` until read.
    pub namespace_pid: u32,
    /// See [`AddressSpace`]; `None` until read ([`ProcessTable::read_address_space`]).
    pub address_space: Option<AddressSpace>,
    /// Process id of the parent; 0 if unknown or none.
    pub parent: u32,
    /// A thread of the kernel, without user memory.
    pub kthread: bool,
    /// When this image began, ns on `CLOCK_MONOTONIC`; 0 if before the table knew of it.
    pub image_start: u64,
    /// When the process ended or its image was replaced, ns on `CLOCK_MONOTONIC`.
    pub ended: Option<u64>,
    /// When `/proc` was last read for it, ns on `CLOCK_MONOTONIC`; 0 if never.
    pub scanned_at: u64,
    /// Threads alive, where known.
    live_threads: Option<u32>,
    /// `/proc` is to be read (again): events were lost, or never told.
    wants_scan: bool,
    last_event: u64,
}

impl Process {
    /// Whether what is known has a gap that only [`ProcessTable::scan`] can fill.
    #[must_use]
    pub fn wants_scan(&self) -> bool {
        self.wants_scan
    }

    /// The program's path as text.
    #[must_use]
    pub fn exe_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.exe)
    }
}
