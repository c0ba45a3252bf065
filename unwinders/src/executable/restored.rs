//! Executables whose file may not be read: what a process has mapped of them stands in for it.
//!
//! A file system that a user serves (FUSE: `AppImage`, rootless containers) may not be opened by anybody else, or lets who reads
//! wait for ever. The process has the file mapped all the same, and its memory may be read; a page of it that nobody has touched yet
//! is still asked of the file system, so this is done where somebody may be given up for it, when that one says so, and for so long
//! ([`Executables::restore_for`]). What comes back ([`profiler_elf::restore`]) is kept in memory, within a budget.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use profiler_bpf::memory::read_of;
use profiler_elf::{ReadError, Restored, Source, contain, restore};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::identity::Identity;
use super::open::FileKey;
use super::registry::Candidate;
use super::{Content, Executable, ExecutableId, Executables, Format, Mapper};
use crate::maps::{self, FileId, Keep, Mapping};

/// Most bytes of all that were restored and are open; beyond it those go that were not used for longest. They are in no limit of the
/// allocator's.
const MAX_OPEN_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 32 << 20 };
/// Bytes read at once.
const READ: usize = 64 << 10;
/// Pieces of one file in one process; linkers make five.
const MAX_PIECES: usize = 1024;

/// Pieces of a file that are in a process's memory.
#[derive(Debug)]
struct Mapped {
    pid: u32,
    /// Nothing is read after that.
    until: Instant,
    /// Offset in the file, address, bytes; by address.
    pieces: Vec<(u64, u64, u64)>,
}

impl Mapped {
    /// What `pid` has mapped of the file `id`, with what is mapped at `address`.
    fn find(pid: u32, id: FileId, address: u64, until: Instant) -> io::Result<Self> {
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
        if pieces.len() > MAX_PIECES {
            return Err(io::Error::other(format!("{} pieces of it are mapped", pieces.len())));
        }
        Ok(Self { pid, until, pieces })
    }

    fn restore(&self) -> io::Result<(Restored, Digest)> {
        let start = self.pieces.first().map_or(0, |(_, start, _)| *start);
        let restored =
            contain::contain(|| restore(self, start)).ok_or_else(|| io::Error::other("its parser panicked"))?;
        let restored = restored.map_err(io::Error::other)?;
        let digest = digest(&restored);
        Ok((restored, digest))
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
            // By pages, since each may be a wait.
            for (page, piece) in piece.chunks_mut(READ).enumerate() {
                if Instant::now() >= self.until {
                    return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                }
                read_of(self.pid, start.saturating_add(within).saturating_add((page * READ) as u64), piece)?;
            }
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
    /// For so long, from now on, the memory of processes may be read in the place of files that may not. That can take as long as who
    /// serves the file likes; not at all unless this is called.
    pub fn restore_for(&mut self, time: Duration) {
        self.restore_until = Some(Instant::now() + time).filter(|_| !time.is_zero());
    }

    /// Whether a file was not restored since the last call because there was no time for it: it may be asked for again.
    pub fn take_put_off(&mut self) -> bool {
        std::mem::take(&mut self.is_put_off)
    }

    pub(super) fn may_restore(&self) -> bool {
        self.restore_until.is_some_and(|until| Instant::now() < until)
    }

    /// The executable that `mapping` of `process` maps, from what is mapped of it.
    pub(super) fn open_restored(
        &mut self,
        process: &Mapper<'_>,
        mapping: &Mapping,
        (id, path): (FileId, &Arc<[u8]>),
    ) -> io::Result<Arc<Executable>> {
        let mapper = (process.pid, mapping.start, mapping.end);
        let of_file = self.restored.get(&id).cloned().unwrap_or_default();
        let is_known = |known: &&ExecutableId| self.entries.get(*known).is_some_and(|e| e.mappers.contains(&mapper));
        if let Some(known) = of_file.iter().find(is_known).copied()
            && let Some(executable) = self.reuse(known, mapper, None)
        {
            return Ok(executable);
        }
        // Device numbers are given again, and who serves a file may serve everybody another one: only its content tells what it is.
        let (restored, digest) = Mapped::find(process.pid, id, mapping.start.0, self.until()?)?.restore()?;
        let is_same = |known: &&ExecutableId| self.entries.get(*known).is_some_and(|e| e.digest == Some(digest));
        if let Some(known) = of_file.iter().find(is_same).copied()
            && let Some(executable) = self.reuse(known, mapper, None)
        {
            return Ok(executable);
        }
        let file = Arc::new(self.hold(&restored)?);
        let identity = contain::contain(|| Identity::read(&file, restored.size));
        let identity = identity.unwrap_or_else(|| Err(io::Error::other("its parser panicked")))?;
        let identity = Identity { format: Format::Restored, ..identity };
        let key = key(id, restored.size);
        let content = Candidate::new(&key, &identity);
        self.make_room();
        let file = Content::File(Mutex::new(Some(file)));
        let executable = self.enter(Arc::clone(path), key, identity, content, file, Some(digest), mapper);
        self.restored.entry(id).or_default().push(executable.id);
        self.close_some();
        Ok(executable)
    }

    /// The same file again, for an executable whose file was closed to make room.
    pub(super) fn restore_again(&mut self, id: ExecutableId) -> io::Result<Arc<File>> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "nobody who maps it is left");
        let until = self.until()?;
        let entry = self.entries.get(&id).ok_or_else(gone)?;
        let file = entry.keys.first().ok_or_else(gone)?.file_id();
        let found = entry.mappers.iter().rev().find_map(|(pid, start, _)| {
            let (restored, digest) =
                Mapped::find(*pid, file, start.0, until).and_then(|mapped| mapped.restore()).ok()?;
            (Some(digest) == entry.digest).then_some(restored)
        });
        self.hold(&found.ok_or_else(gone)?).map(Arc::new)
    }

    fn until(&self) -> io::Result<Instant> {
        let not_now = || io::Error::other("its file may not be read, and the memory of who maps it not for now");
        self.restore_until.ok_or_else(not_now)
    }

    /// Bytes of all that were restored and are open.
    pub(super) fn restored_bytes(&self) -> u64 {
        self.open_restored_files().map(|(_, _, bytes)| bytes).sum()
    }

    /// Those that are open, with their last use and how many bytes they have.
    fn open_restored_files(&self) -> impl Iterator<Item = (u64, ExecutableId, u64)> {
        self.restored.values().flatten().filter_map(|id| {
            let entry = self.entries.get(id)?;
            let bytes = entry.executable.file()?.metadata().ok()?.blocks() * 512;
            Some((entry.last_use, *id, bytes))
        })
    }

    /// Puts what was restored into memory; what was not used for longest makes room for it.
    fn hold(&mut self, restored: &Restored) -> io::Result<File> {
        let mut open: Vec<_> = self.open_restored_files().collect();
        open.sort_unstable();
        let mut bytes = open.iter().map(|(_, _, bytes)| bytes).sum::<u64>() + restored.bytes();
        for (_, id, size) in open {
            if bytes <= MAX_OPEN_BYTES {
                break;
            }
            self.close(id);
            bytes -= size;
        }
        written(restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process's mappings of code of files, and what is restored of each.
    fn own(executables: &mut Executables) -> Vec<(Mapping, Arc<Executable>)> {
        let maps = BufReader::new(File::open("/proc/self/maps").unwrap());
        let mappings = maps::parse(maps, Keep::Executable).unwrap().mappings;
        let mappings = mappings.into_iter().filter(|mapping| mapping.file().is_some());
        mappings.map(|mapping| (mapping.clone(), open(executables, &mapping).unwrap())).collect()
    }

    fn open(executables: &mut Executables, mapping: &Mapping) -> io::Result<Arc<Executable>> {
        let process = Mapper { pid: std::process::id(), alive: true, exe: b"", parent: 0 };
        executables.open_restored(&process, mapping, mapping.file().unwrap())
    }

    fn patient() -> Executables {
        let mut executables = Executables::new();
        executables.restore_for(Duration::from_secs(600));
        executables
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room_and_comes_back() {
        let mut executables = patient();
        let own = own(&mut executables);
        assert!(own.len() >= 3, "a program, libc and the loader");
        let open = own.iter().filter(|(_, executable)| executable.is_open()).count();
        // The program alone is larger than what is kept.
        assert!(open >= 1 && open < own.len(), "{open} of {}", own.len());
        for (_, executable) in &own {
            assert_eq!(executable.format, Format::Restored);
            let file = executables.file(executable).unwrap().metadata().unwrap();
            assert_eq!(file.len(), executable.size);
            assert!(executables.restored_bytes() <= MAX_OPEN_BYTES.max(file.blocks() * 512));
            assert_eq!(executables.open_files(), own.iter().filter(|(_, executable)| executable.is_open()).count());
        }
    }

    #[test]
    fn only_who_is_known_to_map_it_or_has_the_same_content_is_the_same() {
        let mut executables = patient();
        let own = own(&mut executables);
        let (mapping, first) = own.last().unwrap();
        assert_eq!(open(&mut executables, mapping).unwrap().id, first.id);
        let forget = |executables: &mut Executables, digest| {
            let entry = executables.entries.get_mut(&first.id).unwrap();
            entry.mappers.clear();
            entry.digest = digest;
        };
        let digest = executables.entries[&first.id].digest;
        forget(&mut executables, digest);
        assert_eq!(open(&mut executables, mapping).unwrap().id, first.id, "the same content");
        forget(&mut executables, Some([0; 32]));
        assert_ne!(open(&mut executables, mapping).unwrap().id, first.id, "the same number of another file");
    }

    #[test]
    fn nothing_is_read_without_leave_or_beyond_its_time() {
        let mut executables = patient();
        let own = own(&mut executables);
        let (mapping, closed) = own.iter().find(|(_, executable)| !executable.is_open()).unwrap();
        for time in [Duration::ZERO, Duration::from_nanos(1)] {
            executables.restore_for(time);
            assert!(executables.file(closed).is_err());
            executables.entries.get_mut(&closed.id).unwrap().mappers.clear();
            assert!(open(&mut executables, mapping).is_err());
        }
        executables.restore_for(Duration::from_secs(600));
        assert_eq!(open(&mut executables, mapping).unwrap().id, closed.id);
        assert!(executables.file(closed).is_ok());
    }
}
