//! Executables whose file may not be read: what a process has mapped of them stands in for it.
//!
//! A file system that a user serves (FUSE: `AppImage`, rootless containers) may not be opened by anybody else, or lets who reads
//! wait for ever. The process has the file mapped all the same, and its memory may be read; a page of it that nobody has touched yet
//! is still asked of the file system, so this is done where somebody may be given up for it, and only while [`Mapper::restore`] says so.
//! What comes back is put into memory at once ([`profiler_elf::restore`]) and is never asked of the process again.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use profiler_elf::{ReadError, Restored, Source, contain, restore};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::identity::Identity;
use super::open::FileKey;
use super::registry::Candidate;
use super::{Content, Executable, ExecutableId, Executables, Format, Mapper};
use crate::maps::{self, FileId, Keep, Mapping};
use crate::memory::{Memory, ProcessMemory};

/// Bytes by which a file is known again.
const HEAD: u64 = 4096;
/// Most bytes of all that were restored and are open.
const MAX_OPEN_BYTES: u64 = 256 << 20;

/// Pieces of a file that are in a process's memory.
#[derive(Debug)]
struct Mapped {
    memory: ProcessMemory,
    /// Offset in the file, address, bytes; by address.
    pieces: Vec<(u64, u64, u64)>,
}

impl Mapped {
    /// What `pid` has mapped of the file `id`, with what is mapped at `address`.
    fn find(pid: u32, id: FileId, address: u64) -> io::Result<Self> {
        let maps = BufReader::new(File::open(format!("/proc/{pid}/maps"))?);
        let parsed = maps::parse(maps, Keep::All)?;
        let of_file = parsed.mappings.iter().filter(|mapping| mapping.file().is_some_and(|(file, _)| file == id));
        let mut pieces: Vec<_> = of_file.map(|m| (m.offset.0, m.start.0, m.end.0 - m.start.0)).collect();
        // A file may be loaded more than once: each time begins with its first page.
        let begins = |(offset, start, _): &(u64, u64, u64)| *offset == 0 && *start <= address;
        let first = pieces.iter().rposition(begins);
        let first = first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the file's start is not mapped"))?;
        pieces.drain(..first);
        let next = pieces.iter().skip(1).position(|(offset, ..)| *offset == 0);
        pieces.truncate(next.map_or(pieces.len(), |next| next + 1));
        Ok(Self { memory: ProcessMemory::open(pid)?, pieces })
    }

    /// Hash of the file's first page, in which are its headers and, as a rule, its build id.
    fn head(&self) -> io::Result<Digest> {
        Ok(Sha256::digest(self.read_up_to(0, HEAD).map_err(io::Error::other)?).into())
    }

    fn restore(&self) -> io::Result<(File, u64, Digest)> {
        let start = self.pieces.first().map_or(0, |(_, start, _)| *start);
        let restored =
            contain::contain(|| restore(self, start)).ok_or_else(|| io::Error::other("its parser panicked"))?;
        let restored = restored.map_err(io::Error::other)?;
        Ok((written(&restored)?, restored.size, digest(&restored)))
    }
}

impl Source for Mapped {
    fn size(&self) -> u64 {
        self.pieces.iter().map(|(offset, _, length)| offset.saturating_add(*length)).max().unwrap_or(0)
    }

    fn read_some(&self, at: u64, out: &mut [u8]) -> Result<usize, ReadError> {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = at.saturating_add(done as u64);
            let holds = |(offset, _, length): &&(u64, u64, u64)| at >= *offset && at - offset < *length;
            let Some((offset, start, length)) = self.pieces.iter().find(holds) else { break };
            let within = at - offset;
            let length = usize::try_from(length - within).unwrap_or(usize::MAX).min(rest.len());
            let piece = rest.get_mut(..length).unwrap_or_default();
            self.memory.read(start.saturating_add(within), piece)?;
            done += length;
        }
        Ok(done)
    }
}

/// As a file that nobody else can change, with holes for what is not there.
fn written(restored: &Restored) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create("restored", rustix::fs::MemfdFlags::CLOEXEC)?);
    for (at, bytes) in &restored.pieces {
        file.write_all_at(bytes, *at)?;
    }
    Ok(file)
}

fn digest(restored: &Restored) -> Digest {
    let mut hash = Sha256::new();
    for (at, bytes) in &restored.pieces {
        hash.update(at.to_le_bytes());
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hash.finalize().into()
}

/// What a restored file is known by: as maps print it. It has no times.
pub(super) const fn key(id: FileId, size: u64) -> FileKey {
    FileKey { device: (id.major, id.minor), inode: id.inode, size, modified: (0, 0), changed: (0, 0) }
}

impl Executables {
    /// The executable that `mapping` of `process` maps, from what is mapped of it.
    pub(super) fn open_restored(
        &mut self,
        process: &Mapper<'_>,
        mapping: &Mapping,
        (id, path): (FileId, &Arc<[u8]>),
    ) -> io::Result<Arc<Executable>> {
        let mapped = Mapped::find(process.pid, id, mapping.start.0)?;
        let head = mapped.head()?;
        let mapper = (process.pid, mapping.start, mapping.end);
        if let Some(known) = self.restored.get(&(id, head)).copied()
            && let Some(executable) = self.reuse(known, mapper, None)
        {
            return Ok(executable);
        }
        self.room_for_restored()?;
        let (file, size, digest) = mapped.restore()?;
        let file = Arc::new(file);
        let identity = Identity { format: Format::Restored, ..Identity::read(&file, size)? };
        let key = key(id, size);
        let content = Candidate::new(&key, &identity);
        self.make_room();
        let file = Content::File(Mutex::new(Some(file)));
        let executable = self.enter(Arc::clone(path), key, identity, content, file, Some(digest), mapper);
        self.restored.insert((id, head), executable.id);
        self.close_some();
        Ok(executable)
    }

    /// The same file again, for an executable whose file was closed to make room.
    pub(super) fn restore_again(&mut self, id: ExecutableId) -> io::Result<Arc<File>> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "nobody who maps it is left");
        self.room_for_restored()?;
        let entry = self.entries.get(&id).ok_or_else(gone)?;
        let key = entry.keys.first().ok_or_else(gone)?;
        let file = FileId { major: key.device.0, minor: key.device.1, inode: key.inode };
        let found = entry.mappers.iter().rev().find_map(|(pid, start, _)| {
            let (restored, _, digest) = Mapped::find(*pid, file, start.0).and_then(|mapped| mapped.restore()).ok()?;
            (Some(digest) == entry.digest).then_some(restored)
        });
        found.map(Arc::new).ok_or_else(gone)
    }

    fn room_for_restored(&self) -> io::Result<()> {
        let open = self.entries.values().map(|entry| &entry.executable).filter(|e| e.format == Format::Restored);
        let bytes: u64 = open.filter_map(|executable| executable.file()?.metadata().ok()).map(|m| allocated(&m)).sum();
        if bytes < MAX_OPEN_BYTES {
            return Ok(());
        }
        Err(io::Error::other(format!("{bytes} bytes of files that were read from memory are open already")))
    }
}

fn allocated(metadata: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.blocks() * 512
}
