//! Memory mappings of a process: the parser of `/proc/PID/maps`, and the sorted set that addresses are looked up in.
//!
//! Everything here is bytes chosen by somebody else: paths need not be UTF-8, a line may be cut by a mapping that goes away
//! while the kernel prints, and a process may have as many mappings as `vm.max_map_count` lets it. Lines, their length and the
//! number of mappings kept are bounded; what cannot be read is counted and skipped.

mod parser;
mod set;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

use profiler_address::{FileOffset, UserAddr};

pub use parser::{Keep, MAX_LINE_BYTES, MAX_LINES, Parsed, parse, parse_line, parse_with};
pub use set::{MAX_MAPPINGS, MappingSet};

/// The inode that is mapped, as `/proc/PID/maps` and `PERF_RECORD_MMAP2` print it.
///
/// The device is the superblock's. On btrfs and on stacked file systems (overlayfs) it differs from what `stat` says of the same
/// file, so two `FileId`s tell mappings of one process apart but are not by themselves the identity of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileId {
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
    /// Inode number.
    pub inode: u64,
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}/{}", self.major, self.minor, self.inode)
    }
}

/// What is behind a mapping.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Backing {
    /// A file, with the path that the kernel printed, without its ` (deleted)`.
    File(FileId, Arc<[u8]>),
    /// The kernel's virtual shared object.
    Vdso,
    /// The legacy page at the top of the address space, emulated by the kernel.
    Vsyscall,
    /// Memory without a file: heap, stack, JIT code, named anonymous memory.
    Anonymous,
    /// Memory without a file that lies where code of a file was, or should be: a program may have moved its own code to huge pages, or
    /// a JIT compiler may have got the place of a library that is gone.
    Replaced(Arc<Mapping>),
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(id, path) => write!(f, "File({id:?}, {:?})", String::from_utf8_lossy(path)),
            Self::Vdso => f.write_str("Vdso"),
            Self::Vsyscall => f.write_str("Vsyscall"),
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Replaced(of) => write!(f, "Replaced({of:?})"),
        }
    }
}

impl Backing {
    /// Tells by inode and name, as `/proc/PID/maps` and the perf side band print them, what a mapping is.
    ///
    /// `intern` makes the shared copy of a path; callers that see the same paths often pass one that remembers.
    pub fn from_name(id: FileId, name: &[u8], intern: &mut dyn FnMut(&[u8]) -> Arc<[u8]>) -> Self {
        match name {
            b"[vdso]" => Self::Vdso,
            b"[vsyscall]" => Self::Vsyscall,
            // `//anon`, `//toolong` and `//enomem` are what the side band prints for no path.
            [b'/', b'/', ..] => Self::Anonymous,
            [b'/', ..] if id.inode != 0 => Self::File(id, intern(without_deleted(name))),
            _ => Self::Anonymous,
        }
    }
}

/// `path` without the ` (deleted)` that the kernel appends to the path of an unlinked file.
#[must_use]
pub fn without_deleted(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

/// One contiguous piece of a process's memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// First address.
    pub start: UserAddr,
    /// One past the last address.
    pub end: UserAddr,
    /// Offset in the file of `start`; 0 for what is no file.
    pub offset: FileOffset,
    /// What is mapped.
    pub backing: Backing,
}

impl Mapping {
    /// Of the file at `path`, which nobody has mapped yet: without addresses.
    ///
    /// # Errors
    /// There is none, or it is no regular file.
    pub fn expected(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let metadata = path.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let device = metadata.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let backing = Backing::File(FileId { major, minor, inode: metadata.ino() }, path.as_os_str().as_bytes().into());
        Ok(Self { start: UserAddr(0), end: UserAddr(0), offset: FileOffset(0), backing })
    }

    /// Whether `address` is inside.
    #[must_use]
    pub fn contains(&self, address: UserAddr) -> bool {
        self.start <= address && address < self.end
    }

    /// The offset in the file of the byte that `address` maps; for `[vdso]` the offset in the vDSO.
    #[must_use]
    pub fn file_offset(&self, address: UserAddr) -> Option<FileOffset> {
        if !self.contains(address) {
            return None;
        }
        match self.backing {
            Backing::File(..) | Backing::Vdso => Some(self.offset.plus(address.0 - self.start.0)),
            Backing::Vsyscall | Backing::Anonymous | Backing::Replaced(_) => None,
        }
    }

    /// The file's identity and path, if a file is mapped.
    #[must_use]
    pub fn file(&self) -> Option<(FileId, &Arc<[u8]>)> {
        match &self.backing {
            Backing::File(id, path) => Some((*id, path)),
            _ => None,
        }
    }
}
