//! Executables: the files behind mappings, each known once on a host, by what it is and not by what it is called.
//!
//! A mapping leads to an open file by the shortest way that proves to end at the mapped inode ([`Executables::open`]); the file is
//! kept open, so that a program that ran for 20 ms and is gone can still be unwound and named. Two files of the same content
//! (one library in fifty containers) are one [`Executable`].
//!
//! Files are not mapped into memory: who may truncate a mapped file may kill its reader (`SIGBUS`), and those who can are the
//! very processes that are profiled. [`PartBytes`] has the pieces that unwinding needs, read with `pread`.
//!
//! Not here: symbols, debug information, anything that runs.

mod digest;
mod identity;
mod known;
mod open;
mod parts;
mod registry;
mod replaced;
mod restored;
mod vdso;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use profiler_address::{ElfVaddr, FileOffset};

pub use identity::{Identity, htlhash};
pub use known::{Known, Revision};
pub use open::FileKey;
pub use parts::{PartBytes, read_parts};
pub use registry::Executables;

use profiler_bpf::abi::FrameKind;
use profiler_elf::Segment;

use crate::maps::{Backing, Mapping};
use crate::process::Process;
use crate::runtime::Unfollowed;

/// Names an executable within one [`Executables`]; never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutableId(pub u32);

impl fmt::Debug for ExecutableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "executable {}", self.0)
    }
}

/// What kind of file an executable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 64-bit little-endian ELF.
    Elf64,
    /// 32-bit ELF: known by its hash only.
    Elf32,
    /// The kernel's vDSO, a 64-bit ELF image without a file.
    Vdso,
    /// A 64-bit ELF file that may not be read: what a process has mapped of it, without what is not loaded.
    Restored,
    /// Something else that is mapped as code: .NET assemblies, caches of JIT compilers, damaged ELF files.
    Other,
}

/// One file (or the vDSO) that code is mapped from.
#[derive(Debug)]
pub struct Executable {
    /// Its name in this registry.
    pub id: ExecutableId,
    /// What kind of file it is.
    pub format: Format,
    /// Path under which it was first seen, in the mount namespace of the process that mapped it.
    pub path: Arc<[u8]>,
    /// Bytes.
    pub size: u64,
    /// GNU build id, lower-case hexadecimal.
    pub build_id_gnu: Option<String>,
    /// Go build id.
    pub build_id_go: Option<String>,
    /// [`htlhash`] of the content: 32 hexadecimal digits. Of what was restored it is not the file's: [`Self::build_id_htlhash`].
    pub htlhash: String,
    /// `PT_LOAD` segments; empty for what is no 64-bit ELF file.
    pub segments: Vec<Segment>,
    /// Path of the dynamic linker that it asks for.
    pub interpreter: Option<Vec<u8>>,
    /// The runtime that it is, whose frames are more than addresses.
    pub runtime: Option<FrameKind>,
    /// The runtime that it is, if that is known and not followed.
    pub unfollowed: Option<Unfollowed>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// `None` when the budget of open files closed it.
    File(Mutex<Option<Arc<File>>>),
    Bytes(Arc<[u8]>),
    /// Another process has it.
    Elsewhere,
}

/// A process, as far as the files that it maps are reached through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapper<'a> {
    /// Process id.
    pub pid: u32,
    /// It has not ended.
    pub alive: bool,
    /// Path of its program.
    pub exe: &'a [u8],
    /// Process id of the parent, which mostly lives in the same container; 0 if unknown.
    pub parent: u32,
}

impl<'a> Mapper<'a> {
    /// What of `process` matters here.
    #[must_use]
    pub fn of(process: &'a Process) -> Self {
        Self { pid: process.pid, alive: process.ended.is_none(), exe: &process.exe, parent: process.parent }
    }
}

impl Executable {
    /// The path as text.
    #[must_use]
    pub fn path_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }

    /// `process.executable.build_id.htlhash`, if the whole file could be read.
    #[must_use]
    pub fn build_id_htlhash(&self) -> Option<&str> {
        (self.format != Format::Restored).then_some(self.htlhash.as_str())
    }

    /// The open file; `None` for the vDSO, and when it was closed to make room ([`Executables::file`] opens it again).
    #[must_use]
    pub fn file(&self) -> Option<Arc<File>> {
        match &self.content {
            Content::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Content::Bytes(_) | Content::Elsewhere => None,
        }
    }

    /// The bytes of what has no file: the vDSO.
    #[must_use]
    pub fn bytes(&self) -> Option<&Arc<[u8]>> {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::File(_) | Content::Elsewhere => None,
        }
    }

    /// Whether the file holds one of the open-file budget's descriptors.
    fn is_open(&self) -> bool {
        match &self.content {
            Content::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
            Content::Bytes(_) | Content::Elsewhere => false,
        }
    }

    fn set_file(&self, open: Option<Arc<File>>) {
        if let Content::File(file) = &self.content {
            *file.lock().unwrap_or_else(PoisonError::into_inner) = open;
        }
    }

    /// The ELF virtual address that the byte at `offset` of the file is mapped at, by the executable segment where several share
    /// the page. `None` outside all segments.
    #[must_use]
    pub fn vaddr_of(&self, offset: FileOffset) -> Option<ElfVaddr> {
        let holds = |s: &&Segment| offset.0 >= s.offset.0 && offset.0 - s.offset.0 < s.file_size;
        let code = || self.segments.iter().filter(|segment| segment.executable());
        let segment = code()
            .find(holds)
            .or_else(|| code().find(|segment| segment.to_vaddr(offset).is_some()))
            .or_else(|| self.segments.iter().find(holds));
        segment.or_else(|| self.segments.iter().find(|s| s.to_vaddr(offset).is_some()))?.to_vaddr(offset)
    }

    /// Address in the process minus ELF virtual address, where `mapping` is of it, or of code of it that was moved to anonymous memory.
    #[must_use]
    pub fn bias_of(&self, mapping: &Mapping) -> Option<u64> {
        // What was moved lies where it lay before: as its neighbour in the file says.
        let file = match &mapping.backing {
            Backing::Replaced(file) => file,
            _ => mapping,
        };
        Some(file.start.0.wrapping_sub(self.vaddr_of(file.offset)?.0))
    }

    /// Lowest and highest (exclusive) ELF virtual address of its code.
    #[must_use]
    pub fn code_range(&self) -> Option<(ElfVaddr, ElfVaddr)> {
        let code = || self.segments.iter().filter(|segment| segment.executable());
        let start = code().map(|segment| segment.vaddr).min()?;
        let end = code().map(|segment| segment.vaddr.0.saturating_add(segment.memory_size)).max()?;
        Some((start, ElfVaddr(end)))
    }
}

impl OpenError {
    /// Whether the file is there and mapped, and only may not be read.
    const fn leaves_memory(&self) -> bool {
        matches!(self, Self::Unbounded { .. } | Self::Denied { .. } | Self::Read { .. })
    }
}

/// Why the file behind a mapping can't be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The mapping is anonymous memory.
    #[error("{start:#x} maps no file")]
    NoFile {
        /// First address of the mapping.
        start: u64,
    },
    /// Neither the process nor any path leads to the file any more.
    #[error("{path:?} (process {pid}) can no longer be reached: the process or the file is gone")]
    Gone {
        /// The process.
        pid: u32,
        /// The file's path.
        path: String,
    },
    /// What is there now is another file.
    #[error("{path:?} is no longer the file that process {pid} has mapped")]
    Replaced {
        /// The process.
        pid: u32,
        /// The file's path.
        path: String,
    },
    /// A device, pipe, directory or the like.
    #[error("{path:?} is not a regular file")]
    NotRegular {
        /// The file's path.
        path: String,
    },
    /// A file system whose reads a user's process answers, or never answers.
    #[error(
        "{path:?} is on a {filesystem} file system, which an unprivileged process may serve and block; \
         it is left unread (its frames have no names)"
    )]
    Unbounded {
        /// The file's path.
        path: String,
        /// The file system's type.
        filesystem: String,
    },
    /// The kernel refused.
    #[error(
        "not allowed to open {path:?} of process {pid}: run as root or grant CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE"
    )]
    Denied {
        /// The process.
        pid: u32,
        /// The file's path.
        path: String,
    },
    /// Whoever reads for us does not read this for now, or could not.
    #[error("{0}")]
    Elsewhere(String),
    /// Reading failed.
    #[error("cannot read {path:?}")]
    Read {
        /// The file's path.
        path: String,
        /// Why.
        source: io::Error,
    },
}
