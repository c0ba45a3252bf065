//! What the kernel's perf side band says about processes: forks, execs, mappings, names, exits, in time order.

mod ring;

use profiler_address::{FileOffset, UserAddr};
pub use ring::Sideband;

/// One change in the life of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns: the clock of the samples.
    pub time: u64,
    /// Thread group id ("pid") in the root namespace of the profiler.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// What happened.
    pub kind: Kind,
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A thread (`pid == parent_pid`) or a process was forked.
    Fork {
        /// Thread group id of the parent.
        parent_pid: u32,
    },
    /// A thread ended; the process has ended with its last thread.
    Exit,
    /// `execve` replaced the process's image: all mappings are gone.
    Exec {
        /// The new name, at most 15 bytes, as the kernel keeps it.
        comm: Vec<u8>,
    },
    /// A thread gave itself a name.
    Comm {
        /// The new name, at most 15 bytes.
        comm: Vec<u8>,
    },
    /// An executable mapping was made, or an existing one became executable.
    Mmap(Mmap),
    /// The kernel dropped `lost` events of this side band, because user space was too slow.
    Lost {
        /// How many.
        lost: u64,
    },
}

/// One executable mapping (`PERF_RECORD_MMAP2`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mmap {
    /// First address.
    pub start: UserAddr,
    /// Length in bytes.
    pub len: u64,
    /// Offset of `start` in the file.
    pub offset: FileOffset,
    /// Device of the file's inode: major, minor.
    pub dev: (u32, u32),
    /// The file's inode; 0 for anonymous memory.
    pub inode: u64,
    /// Inode generation.
    pub inode_generation: u64,
    /// Path as the kernel prints it in the process's mount namespace; `//anon`, `[vdso]` and the like for what is no file.
    pub path: Vec<u8>,
}
