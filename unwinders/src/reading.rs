//! What is read of targets, behind one trait.
//!
//! Files and `/proc` texts of targets are in the hands of who may want to do harm: opening or reading one can take as long as a
//! target likes, for ever and unkillably so (a file system that a user serves), and parsing one takes memory. Whoever must
//! not wait asks a [`Reading`] in another process, which is given up when it does not answer. [`Executables`] is the one in this
//! process, and what that other process runs.

use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use profiler_bpf::abi::{FrameKind, Rule};
use profiler_bpf::record::RuntimeFrame;
use profiler_elf::contain;
use rustc_hash::FxHashMap;

use crate::executable::{Executable, ExecutableId, Executables, Mapper, OpenError};
use crate::maps::{Backing, Mapping};
use crate::memory::{Memory, ProcessMemory};
use crate::process::ScanError;
use crate::process::procfs::{Place, Scan, Stat};
use crate::rows::{self, RuleDictionary, UnwindRows};
use crate::runtime::{self, AttachError, Attached, LATER, Named, Target};

/// Reads what belongs to targets.
pub trait Reading: fmt::Debug + Send {
    /// Everything that `/proc` says of a process.
    ///
    /// # Errors
    /// It has ended, or is not read (for now).
    fn scan(&mut self, pid: u32) -> Result<Scan, ScanError>;

    /// `/proc/PID/stat`.
    ///
    /// # Errors
    /// As [`Self::scan`].
    fn stat(&mut self, pid: u32) -> Result<Stat, ScanError>;

    /// Control group and pid in its own namespace.
    ///
    /// # Errors
    /// As [`Self::scan`].
    fn place(&mut self, pid: u32) -> Result<Place, ScanError>;

    /// What `mappings` of one process map, in their order.
    fn open(&mut self, process: &Mapper<'_>, mappings: &[&Mapping]) -> Opened;

    /// Whether `mapping` is memory that the program wrote its code to, though it has the name of a file; see
    /// [`Executables::is_made_code`].
    fn is_made_code(&mut self, process: &Mapper<'_>, mapping: &Mapping) -> bool;

    /// The unwind rows of an executable, at most `limit` of them.
    ///
    /// # Errors
    /// There are none, or not now.
    fn rows(&mut self, executable: &Executable, limit: usize) -> Result<Compiled, RowsError>;

    /// Up to `length` bytes of an executable's file from `offset`, for the loader of a runtime; 1 MiB at most.
    ///
    /// # Errors
    /// The file cannot be opened or read (for now).
    fn bytes(&mut self, executable: &Executable, offset: u64, length: usize) -> Result<Vec<u8>, OpenError>;

    /// What is to be published of the runtime that `executable` is, in a process that has `mappings`.
    ///
    /// # Errors
    /// It is not ready yet, or none that can be used.
    fn attach(
        &mut self,
        process: &Mapper<'_>,
        executable: &Executable,
        mappings: &[&Mapping],
    ) -> Result<Attached, AttachError>;

    /// The names of `frames`, of the runtime `kind` in the process `pid`, of which [`Self::attach`] told `opaque`; as many as there
    /// are frames.
    fn names(&mut self, pid: u32, kind: FrameKind, opaque: &[u8], frames: &[RuntimeFrame]) -> Vec<Named>;

    /// `length` bytes of the memory of `pid` from `address` on, 64 KiB at most; none if it cannot be read.
    fn memory(&mut self, pid: u32, address: u64, length: usize) -> Option<Vec<u8>>;

    /// The files of `wanted`, for who names their frames; without those that are gone. They stay open for the time of some calls.
    fn lend(&mut self, wanted: &[Arc<Executable>]) -> FxHashMap<ExecutableId, Lent>;

    /// [`Executables::close_orphans`].
    fn close_orphans(&mut self, living: &dyn Fn(u32) -> bool, needed: &dyn Fn(ExecutableId) -> bool) -> usize;

    /// What it has in hand.
    fn in_hand(&self) -> InHand;

    /// What went wrong, since the start.
    fn troubles(&self) -> Troubles {
        Troubles::default()
    }
}

/// Most that [`Reading::memory`] gives at once.
pub const MAX_MEMORY: usize = 1 << 16;

/// A file that a process holds open. Only who may wait for its file system has a descriptor of it: closing one may last, too.
#[derive(Clone, Debug)]
pub struct Lent {
    /// The process.
    pub pid: u32,
    /// Its number there.
    pub descriptor: i32,
    /// Device and inode, by which it is known to be that file.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// The root directory of a process that runs it as its program, or has run it until lately, where that is not the reader's own.
    pub root: Option<LentRoot>,
    /// Whose processes map it; the first of them, if they are many; empty if that is not known.
    pub users: Arc<[u32]>,
    /// The file, if the process is this one.
    pub file: Option<Arc<File>>,
}

/// A directory that the process of a [`Lent`] holds open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LentRoot {
    /// Its number there.
    pub descriptor: i32,
    /// Device and inode, by which it is known to be that directory.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
}

impl Lent {
    /// An open file of this process.
    ///
    /// # Errors
    /// The kernel says nothing of it.
    pub fn of(file: Arc<File>) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self {
            pid: std::process::id(),
            descriptor: file.as_raw_fd(),
            device,
            inode,
            root: None,
            users: Arc::default(),
            file: Some(file),
        })
    }
}

/// Most that [`Reading::bytes`] gives at once.
pub const MAX_BYTES: usize = 1 << 20;

/// The answer to [`Reading::open`].
#[derive(Debug, Default)]
pub struct Opened {
    /// What each mapping maps.
    pub executables: Vec<Result<Arc<Executable>, OpenError>>,
    /// Some of it was not tried: ask again then (`CLOCK_MONOTONIC`, ns).
    pub again_at: Option<u64>,
}

/// What is in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InHand {
    /// Executables known.
    pub executables: usize,
    /// Files that are open for them.
    pub open_files: usize,
    /// Bytes of what is known in this process, to within some per cent.
    pub memory_bytes: usize,
}

/// What went wrong with those who read, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Readers given up, because they stood still at a target or would not come to an end.
    pub given_up: u64,
    /// Readers that died, of what they read or by somebody's hand.
    pub died: u64,
    /// Readings left out, because their target is set aside for now.
    pub refused: u64,
}

impl Troubles {
    /// Those since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            given_up: self.given_up.saturating_sub(before.given_up),
            died: self.died.saturating_sub(before.died),
            refused: self.refused.saturating_sub(before.refused),
        }
    }

    /// Adds `more`.
    pub fn add(&mut self, more: &Self) {
        self.given_up += more.given_up;
        self.died += more.died;
        self.refused += more.refused;
    }
}

/// Rows with the rules that they name: a dictionary of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The rows.
    pub rows: UnwindRows,
    /// Rules by the number that the rows name them by; the first is [`Rule::NONE`].
    pub rules: Vec<Rule>,
}

/// Why there are no rows.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// There are none: the file cannot be read, or says nothing.
    #[error("{0}")]
    None(String),
    /// Not now.
    #[error("not for now: {0}")]
    NotNow(String),
}

impl Reading for Executables {
    fn scan(&mut self, pid: u32) -> Result<Scan, ScanError> {
        Scan::read(pid)
    }

    fn stat(&mut self, pid: u32) -> Result<Stat, ScanError> {
        Stat::read(pid)
    }

    fn place(&mut self, pid: u32) -> Result<Place, ScanError> {
        Place::read(pid)
    }

    fn open(&mut self, process: &Mapper<'_>, mappings: &[&Mapping]) -> Opened {
        let executables = mappings.iter().map(|mapping| self.open_of(process, mapping)).collect();
        Opened { executables, again_at: None }
    }

    fn is_made_code(&mut self, process: &Mapper<'_>, mapping: &Mapping) -> bool {
        Self::is_made_code(self, process, mapping)
    }

    fn rows(&mut self, executable: &Executable, limit: usize) -> Result<Compiled, RowsError> {
        let panicked = || RowsError::None("its parser panicked".to_owned());
        let bytes = contain::contain(|| self.parts(executable))
            .ok_or_else(panicked)?
            .map_err(|error| RowsError::None(format!("cannot be read: {error}")))?;
        let mut rules = RuleDictionary::new();
        let rows = contain::contain(|| rows::compile(&bytes.parts(), &mut rules))
            .ok_or_else(panicked)?
            .map_err(|error| RowsError::None(error.to_string()))?;
        if rows.page_starts.len() < 2 {
            return Err(RowsError::None("it has no unwind information".to_owned()));
        }
        if rows.rows.len() > limit {
            return Err(RowsError::None(format!("{} rows are more than the budget has room for", rows.rows.len())));
        }
        Ok(Compiled { rows, rules: rules.rules().to_vec() })
    }

    fn bytes(&mut self, executable: &Executable, offset: u64, length: usize) -> Result<Vec<u8>, OpenError> {
        let length = length.min(MAX_BYTES);
        if let Some(bytes) = executable.bytes() {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            return Ok(bytes.iter().skip(from).take(length).copied().collect());
        }
        let file = self.file(executable)?;
        let mut bytes = vec![0; length];
        let read = file
            .read_at(&mut bytes, offset)
            .map_err(|source| OpenError::Read { path: executable.path_text().into_owned(), source })?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn attach(
        &mut self,
        process: &Mapper<'_>,
        executable: &Executable,
        mappings: &[&Mapping],
    ) -> Result<Attached, AttachError> {
        let data = self.runtime(executable)?;
        let unsupported = |why: &str| AttachError::Unsupported(why.to_owned());
        let later = |why: String| AttachError::NotReady(why, LATER);
        let executable = self.get(executable.id).map(Arc::clone).ok_or_else(|| later("it was forgotten".to_owned()))?;
        let memory =
            ProcessMemory::open(process.pid).map_err(|error| later(format!("its memory cannot be read: {error}")))?;
        let mappings: Vec<Mapping> = mappings.iter().map(|mapping| (*mapping).clone()).collect();
        let own = |mapping: &&Mapping| {
            matches!(mapping.backing, Backing::File(..))
                && self.open_of(process, mapping).is_ok_and(|found| found.id == executable.id)
        };
        let bias = mappings.iter().find(own).and_then(|mapping| executable.bias_of(mapping));
        let bias = bias.ok_or_else(|| later("it is not mapped as code".to_owned()))?;
        let mut target = Target {
            process: *process,
            mappings: &mappings,
            executable: &executable,
            bias,
            executables: self,
            memory: &memory,
        };
        contain::contain(|| data.attach(&mut target)).unwrap_or_else(|| Err(unsupported("its reader panicked")))
    }

    fn names(&mut self, pid: u32, kind: FrameKind, opaque: &[u8], frames: &[RuntimeFrame]) -> Vec<Named> {
        let nobody = |why: &str| vec![Err(Arc::from(why)); frames.len()];
        let Some(runtime) = runtime::of_kind(kind) else { return nobody("runtime: not known") };
        let Ok(memory) = ProcessMemory::open(pid) else { return nobody("runtime: process gone") };
        let names = contain::contain(|| runtime.names(opaque, &memory, frames));
        names.filter(|names| names.len() == frames.len()).unwrap_or_else(|| nobody("runtime: names not readable"))
    }

    fn memory(&mut self, pid: u32, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length.min(MAX_MEMORY)];
        ProcessMemory::open(pid).ok()?.read(address, &mut bytes).ok()?;
        Some(bytes)
    }

    fn lend(&mut self, wanted: &[Arc<Executable>]) -> FxHashMap<ExecutableId, Lent> {
        let with_file = wanted.iter().filter(|executable| executable.bytes().is_none());
        with_file.filter_map(|executable| Some((executable.id, Lent::of(self.file(executable).ok()?).ok()?))).collect()
    }

    fn close_orphans(&mut self, living: &dyn Fn(u32) -> bool, needed: &dyn Fn(ExecutableId) -> bool) -> usize {
        Self::close_orphans(self, living, needed)
    }

    fn in_hand(&self) -> InHand {
        InHand { executables: self.len(), open_files: self.open_files(), memory_bytes: self.memory_bytes() }
    }
}
