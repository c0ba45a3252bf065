//! All executables of the host, and how many of them are open.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use profiler_address::UserAddr;
use rustc_hash::FxHashMap;

use super::digest::{Digest, Digests};
use super::identity::Identity;
use super::known::{Known, Revision};
use super::open::{self, FileKey};
use super::replaced;
use super::{Content, Executable, ExecutableId, Format, Mapper, OpenError, PartBytes, read_parts, vdso};
use crate::maps::{Backing, FileId, Mapping};
use crate::process::Process;
use crate::runtime::{self, AttachError, Data, LATER};
use profiler_elf::{Bytes, Elf, Segment, contain};

/// Executables known by default.
const MAX_EXECUTABLES: usize = 8192;
/// Files kept open by default: half of what a process may open unless told otherwise.
const MAX_OPEN_FILES: usize = 512;
/// Processes remembered for each executable, through which its file can be opened again.
const MAX_MAPPERS: usize = 4;
/// Files of one content remembered: copies, and states of a file that is linked and renamed.
const MAX_KEYS: usize = 64;
/// Executables that a file is compared with, of those that claim to be the same.
const MAX_CANDIDATES: usize = 8;

/// The registry of executables.
#[derive(Debug)]
pub struct Executables {
    pub(super) entries: FxHashMap<ExecutableId, Entry>,
    by_key: FxHashMap<FileKey, ExecutableId>,
    by_content: FxHashMap<Candidate, Vec<ExecutableId>>,
    digests: Digests,
    /// Only files of which maps and stat print the same identity: of those an open file proves which one it is.
    by_file: FxHashMap<FileId, ExecutableId>,
    /// Devices, as maps prints them, that were found to be of a file system that answers reads. While a file on it is open, the
    /// kernel gives its number to no other.
    safe_devices: FxHashMap<(u32, u32), ExecutableId>,
    vdso: Option<Arc<Executable>>,
    /// Those whose file may not be read, by what maps print of it.
    pub(super) restored: FxHashMap<FileId, Vec<ExecutableId>>,
    /// Until then the memory of processes may be read in the place of files that may not.
    pub(super) restore_until: Option<Instant>,
    /// A file was not restored for now, since that time was over or there was none.
    pub(super) is_put_off: bool,
    /// What is known of those that are runtimes.
    runtimes: FxHashMap<ExecutableId, Result<Arc<dyn Data>, AttachError>>,
    max_executables: usize,
    max_open_files: usize,
    open_files: usize,
    last_id: u32,
    uses: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) executable: Arc<Executable>,
    pub(super) keys: Vec<FileKey>,
    content: Candidate,
    /// Of all its bytes, once they were compared with another file's.
    pub(super) digest: Option<Digest>,
    pub(super) last_use: u64,
    /// Where the file was seen mapped: pid, start, end.
    pub(super) mappers: Vec<(u32, UserAddr, UserAddr)>,
}

/// Files that agree in all of this may have the same content: whether they do, [`Digests`] tells. All of it is claimed, or covers the
/// ends of a file only; a build id is whatever its linker was told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    size: u64,
    htlhash: String,
    build_id_gnu: Option<String>,
    build_id_go: Option<String>,
}

impl Candidate {
    pub(super) fn new(key: &FileKey, identity: &Identity) -> Self {
        Self {
            size: key.size,
            htlhash: identity.htlhash.clone(),
            build_id_gnu: identity.build_id_gnu.clone(),
            build_id_go: identity.build_id_go.clone(),
        }
    }
}

impl Default for Executables {
    fn default() -> Self {
        Self::new()
    }
}

impl Executables {
    /// An empty registry with the bounds that fit a host.
    #[must_use]
    pub fn new() -> Self {
        Self::with_bounds(MAX_EXECUTABLES, MAX_OPEN_FILES)
    }

    /// An empty registry of at most `executables`, of which at most `open_files` are open.
    #[must_use]
    pub fn with_bounds(executables: usize, open_files: usize) -> Self {
        Self {
            entries: FxHashMap::default(),
            by_key: FxHashMap::default(),
            by_content: FxHashMap::default(),
            digests: Digests::default(),
            by_file: FxHashMap::default(),
            safe_devices: FxHashMap::default(),
            vdso: None,
            restored: FxHashMap::default(),
            restore_until: None,
            is_put_off: false,
            runtimes: FxHashMap::default(),
            max_executables: executables.max(1),
            max_open_files: open_files.max(1),
            open_files: 0,
            last_id: 0,
            uses: 0,
        }
    }

    /// Executables known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that the registry takes, to within some per cent.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let entry = |entry: &Entry| {
            let executable = &entry.executable;
            let texts = executable.build_id_gnu.as_ref().map_or(0, String::capacity)
                + executable.build_id_go.as_ref().map_or(0, String::capacity)
                + executable.htlhash.capacity();
            let keys = entry.keys.capacity() + 2 * entry.keys.len();
            size_of::<Executable>()
                + size_of::<(ExecutableId, Entry)>()
                + size_of::<(Candidate, Vec<ExecutableId>)>()
                + size_of::<(FileId, ExecutableId)>()
                // The content's key has its own copy of the texts.
                + 2 * texts
                + keys * size_of::<FileKey>()
                + executable.segments.capacity() * size_of::<Segment>()
                + entry.mappers.capacity() * size_of::<(u32, UserAddr, UserAddr)>()
        };
        self.entries.values().map(entry).sum::<usize>() + usize::try_from(self.restored_bytes()).unwrap_or(usize::MAX)
    }

    /// Files that are open now.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.open_files
    }

    /// The executable of this id, unless it was evicted.
    #[must_use]
    pub fn get(&self, id: ExecutableId) -> Option<&Arc<Executable>> {
        match &self.vdso {
            Some(vdso) if vdso.id == id => Some(vdso),
            _ => self.entries.get(&id).map(|entry| &entry.executable),
        }
    }

    /// The executable that `mapping` of `process` maps; opened, proven to be the mapped file, read and kept open on first sight.
    ///
    /// # Errors
    /// If it maps no file or the file can't be had; a later attempt may succeed only where another process has it mapped.
    pub fn open(&mut self, process: &Process, mapping: &Mapping) -> Result<Arc<Executable>, OpenError> {
        self.open_of(&Mapper::of(process), mapping)
    }

    /// [`Self::open`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_of(&mut self, process: &Mapper<'_>, mapping: &Mapping) -> Result<Arc<Executable>, OpenError> {
        self.uses += 1;
        let (id, path) = match &mapping.backing {
            Backing::File(id, path) => (*id, path),
            Backing::Vdso => return self.vdso(),
            Backing::Replaced(file) => return self.open_replaced(process, mapping, file),
            _ => return Err(OpenError::NoFile { start: mapping.start.0 }),
        };
        let mapper = (process.pid, mapping.start, mapping.end);
        if let Some(known) = self.known_file(id, mapper) {
            return Ok(known);
        }
        let safe = self.safe_devices.get(&(id.major, id.minor)).and_then(|known| self.entries.get(known));
        let safe = safe.is_some_and(|entry| entry.executable.is_open());
        let (file, key) = match open::open_mapped(process, mapping, safe) {
            Ok(found) => found,
            Err(error) if process.alive && error.leaves_memory() => {
                let restored = if self.may_restore() {
                    self.open_restored(process, mapping, (id, path)).map_err(|_| error)
                } else {
                    Err(error)
                };
                self.is_put_off |= restored.is_err() && !self.may_restore();
                return restored;
            }
            Err(error) => return Err(error),
        };
        let file = Arc::new(file);
        if let Some(&known) = self.by_key.get(&key)
            && let Some(executable) = self.reuse(known, mapper, Some(Arc::clone(&file)))
        {
            self.note_file(id, &key, known);
            return Ok(executable);
        }
        let failed = |source| OpenError::Read { path: String::from_utf8_lossy(path).into_owned(), source };
        let identity = profiler_elf::contain::contain(|| Identity::read(&file, key.size))
            .unwrap_or_else(|| Err(io::Error::other("its parser panicked")))
            .map_err(failed)?;
        let content = Candidate::new(&key, &identity);
        let mut digest = None;
        if let Some(known) = self.same_content(&content, &file, &key, &mut digest)
            && let Some(executable) = self.reuse(known, mapper, Some(Arc::clone(&file)))
        {
            self.note_key(known, key);
            self.note_file(id, &key, known);
            return Ok(executable);
        }
        let digest = digest.or_else(|| self.digests.at_leisure(&file, &key));
        self.make_room();
        let file = Content::File(Mutex::new(Some(file)));
        let executable = self.enter(Arc::clone(path), key, identity, content.clone(), file, digest, mapper);
        self.by_key.insert(key, executable.id);
        self.by_content.entry(content).or_default().push(executable.id);
        self.note_file(id, &key, executable.id);
        if id.major == 0 {
            self.safe_devices.insert((id.major, id.minor), executable.id);
        }
        self.close_some();
        Ok(executable)
    }

    /// Makes an entry with an open file.
    #[allow(clippy::too_many_arguments)] // the fields of one entry
    pub(super) fn enter(
        &mut self,
        path: Arc<[u8]>,
        key: FileKey,
        identity: Identity,
        content: Candidate,
        file: Content,
        digest: Option<Digest>,
        mapper: (u32, UserAddr, UserAddr),
    ) -> Arc<Executable> {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let executable = Arc::new(new_executable(ExecutableId(self.last_id), path, key.size, identity, file));
        self.open_files += 1;
        let entry = Entry {
            executable: Arc::clone(&executable),
            keys: vec![key],
            content,
            digest,
            last_use: self.uses,
            mappers: vec![mapper],
        };
        self.entries.insert(executable.id, entry);
        executable
    }

    /// The executable whose code anonymous memory is a copy of, in the place of `file`.
    fn open_replaced(
        &mut self,
        process: &Mapper<'_>,
        mapping: &Mapping,
        file: &Mapping,
    ) -> Result<Arc<Executable>, OpenError> {
        let executable = self.open_of(process, file)?;
        match replaced::bias_of_copy(process.pid, mapping, file, &executable, self) {
            Some(_) => Ok(executable),
            None => Err(OpenError::NoFile { start: mapping.start.0 }),
        }
    }

    /// Whether `mapping` of `process` is memory that the program wrote its code to, though it has the name of a file: a memfd, shared
    /// anonymous memory, huge pages, or a file that has no name any more and is no ELF file.
    pub fn is_made_code(&mut self, process: &Mapper<'_>, mapping: &Mapping) -> bool {
        // As mm/shmem.c, fs/hugetlbfs/inode.c and ipc/shm.c name them.
        const MEMORY: [&[u8]; 4] = [b"/memfd:", b"/dev/zero", b"/anon_hugepage", b"/SYSV"];
        let Some((_, path)) = mapping.file() else { return false };
        match self.open_of(process, mapping) {
            Ok(executable) if executable.format == Format::Other => {
                let links = executable.file().and_then(|file| file.metadata().ok()).map(|metadata| metadata.nlink());
                links == Some(0) || MEMORY.iter().any(|memory| path.starts_with(memory))
            }
            Ok(_) => false,
            Err(_) => MEMORY.iter().any(|memory| path.starts_with(memory)),
        }
    }

    /// The kernel's vDSO.
    ///
    /// # Errors
    /// If this process has none.
    pub fn vdso(&mut self) -> Result<Arc<Executable>, OpenError> {
        if let Some(vdso) = &self.vdso {
            return Ok(Arc::clone(vdso));
        }
        let path: Arc<[u8]> = Arc::from(&b"[vdso]"[..]);
        let bytes = vdso::read().map_err(|source| OpenError::Read { path: "[vdso]".to_owned(), source })?;
        let identity = Identity { format: Format::Vdso, ..Identity::of_bytes(&bytes) };
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let (id, size) = (ExecutableId(self.last_id), bytes.len() as u64);
        let vdso = Arc::new(new_executable(id, path, size, identity, Content::Bytes(Arc::from(bytes))));
        self.vdso = Some(Arc::clone(&vdso));
        Ok(vdso)
    }

    /// The open file of an executable, opened again if it was closed to make room.
    ///
    /// # Errors
    /// If nothing leads to it any more, or it was changed.
    pub fn file(&mut self, executable: &Executable) -> Result<Arc<File>, OpenError> {
        self.uses += 1;
        let path = || executable.path_text().into_owned();
        if let Some(file) = executable.file() {
            if let Some(entry) = self.entries.get_mut(&executable.id) {
                entry.last_use = self.uses;
            }
            return Ok(file);
        }
        let Some(entry) = self.entries.get_mut(&executable.id) else {
            let source = io::Error::new(io::ErrorKind::NotFound, "it has no file, or was forgotten");
            return Err(OpenError::Read { path: path(), source });
        };
        if executable.format == Format::Restored {
            entry.last_use = self.uses;
            let failed = |source| OpenError::Read { path: path(), source };
            let file = self.restore_again(executable.id).map_err(failed)?;
            executable.set_file(Some(Arc::clone(&file)));
            self.open_files += 1;
            self.close_some();
            return Ok(file);
        }
        let keys = &entry.keys;
        let (digest, digests) = (entry.digest, &mut self.digests);
        let mut right =
            |(file, key): (File, FileKey)| is_content(keys, digest, digests, &file, &key).then_some((file, key));
        let found = entry.mappers.iter().rev().find_map(|(pid, start, end)| {
            open::open_link(&format!("/proc/{pid}/map_files/{:x}-{:x}", start.0, end.0))
                .and_then(&mut right)
                .or_else(|| open::open_in_root(*pid, &executable.path).and_then(&mut right))
        });
        let found = found.or_else(|| open::open_path(&executable.path).and_then(&mut right));
        let Some(found) = found else { return Err(OpenError::Gone { pid: 0, path: path() }) };
        let (file, key) = (Arc::new(found.0), found.1);
        entry.last_use = self.uses;
        self.note_key(executable.id, key);
        executable.set_file(Some(Arc::clone(&file)));
        self.open_files += 1;
        self.close_some();
        Ok(file)
    }

    /// What is known of the runtime that `executable` is; read of its file on first sight.
    ///
    /// # Errors
    /// It is none that can be used, or cannot be read.
    pub fn runtime(&mut self, executable: &Executable) -> Result<Arc<dyn Data>, AttachError> {
        if let Some(known) = self.runtimes.get(&executable.id) {
            return known.clone();
        }
        let unsupported = |why: String| AttachError::Unsupported(why);
        let runtime = executable.runtime.and_then(runtime::of_kind);
        let runtime = runtime.ok_or_else(|| unsupported("it is no runtime that is known".to_owned()))?;
        // One that cannot be opened now may be later.
        let later = |error: OpenError| AttachError::NotReady(error.to_string(), LATER);
        let file = self.file(executable).map_err(later)?;
        let loaded = contain::contain(|| {
            let elf = Elf::parse(Bytes::File { file, len: executable.size });
            runtime.load(&elf.map_err(|error| unsupported(error.to_string()))?)
        });
        let loaded = loaded.unwrap_or_else(|| Err(unsupported("its parser panicked".to_owned())));
        if self.runtimes.len() >= self.max_executables {
            self.runtimes.clear();
        }
        self.runtimes.insert(executable.id, loaded.clone());
        loaded
    }

    /// [`read_parts`], with the file opened again if need be.
    ///
    /// # Errors
    /// As [`Self::file`] and [`read_parts`].
    pub fn parts(&mut self, executable: &Executable) -> Result<PartBytes, OpenError> {
        if executable.bytes().is_none() {
            self.file(executable)?;
        }
        read_parts(executable)
    }

    /// What is known of the executable `id`, for another registry to go on from.
    #[must_use]
    pub fn known(&self, id: ExecutableId) -> Option<Known> {
        if let Some(vdso) = self.vdso.as_ref().filter(|vdso| vdso.id == id) {
            return Some(Known::of(vdso));
        }
        let entry = self.entries.get(&id)?;
        let mappers = entry.mappers.iter().map(|(pid, start, end)| (*pid, start.0, end.0)).collect();
        Some(Known { keys: entry.keys.clone(), digest: entry.digest, mappers, ..Known::of(&entry.executable) })
    }

    /// What changes when [`Self::known`] does, the processes that map the executable aside.
    #[must_use]
    pub fn revision(&self, id: ExecutableId) -> Revision {
        self.entries.get(&id).map(|entry| Revision::new(&entry.keys, entry.digest)).unwrap_or_default()
    }

    /// Goes on from what another registry knew of an executable, under the same id, and gives no id up to that one to any other.
    /// Its file is opened when it is needed, and believed only if it is the same. False if that knowledge is none.
    pub fn adopt(&mut self, known: Known) -> bool {
        let Some(executable) = known.executable() else { return false };
        let id = executable.id;
        self.last_id = self.last_id.max(id.0);
        if executable.bytes().is_some() {
            self.vdso = Some(Arc::new(executable));
            return true;
        }
        if self.entries.contains_key(&id) || known.keys.is_empty() {
            return self.entries.contains_key(&id);
        }
        self.make_room();
        let content = Candidate {
            size: executable.size,
            htlhash: executable.htlhash.clone(),
            build_id_gnu: executable.build_id_gnu.clone(),
            build_id_go: executable.build_id_go.clone(),
        };
        let keys: Vec<FileKey> = known.keys.into_iter().take(MAX_KEYS).collect();
        if executable.format == Format::Restored {
            keys.iter().take(1).for_each(|key| self.restored.entry(key.file_id()).or_default().push(id));
        } else {
            self.by_content.entry(content.clone()).or_default().push(id);
            self.by_key.extend(keys.iter().map(|key| (*key, id)));
        }
        let mappers = known.mappers.into_iter().take(MAX_MAPPERS);
        let entry = Entry {
            executable: Arc::new(Executable { content: Content::File(Mutex::new(None)), ..executable }),
            keys,
            content,
            digest: known.digest,
            last_use: self.uses,
            mappers: mappers.map(|(pid, start, end)| (pid, UserAddr(start), UserAddr(end))).collect(),
        };
        self.entries.insert(id, entry);
        true
    }

    /// Gives no id up to `last` to what is new.
    pub fn begin_after(&mut self, last: ExecutableId) {
        self.last_id = self.last_id.max(last.0);
    }

    /// Closes the file of `id`; it is opened again when it is needed.
    pub fn close_file(&mut self, id: ExecutableId) {
        if self.entries.get(&id).is_some_and(|entry| entry.executable.is_open()) {
            self.close(id);
        }
    }

    /// Without opening anything: an open file that is the mapped inode and unchanged is the answer.
    fn known_file(&mut self, id: FileId, mapper: (u32, UserAddr, UserAddr)) -> Option<Arc<Executable>> {
        let known = *self.by_file.get(&id)?;
        let entry = self.entries.get(&known)?;
        let file = entry.executable.file()?;
        let key = FileKey::of(&file).ok().filter(|key| key.is(id))?;
        if !is_content(&entry.keys, entry.digest, &mut self.digests, &file, &key) {
            return None;
        }
        self.note_key(known, key);
        self.reuse(known, mapper, None)
    }

    /// Remembers a state of a file that is known to have this content, so that it is not hashed again.
    fn note_key(&mut self, id: ExecutableId, key: FileKey) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.digest.is_none() || entry.keys.contains(&key) {
            return;
        }
        if entry.keys.len() >= MAX_KEYS {
            self.by_key.remove(&entry.keys.remove(0));
        }
        entry.keys.push(key);
        self.by_key.insert(key, id);
    }

    /// The executable that has the content of `file`, byte for byte. What is only claimed to be the same, or too large to be compared
    /// now, stays apart: it costs its rows twice, never its names.
    fn same_content(
        &mut self,
        candidate: &Candidate,
        file: &File,
        key: &FileKey,
        digest: &mut Option<Digest>,
    ) -> Option<ExecutableId> {
        let candidates = self.by_content.get(candidate)?;
        // Of one content there is one, unless it was too large; of forged ones there may be any number.
        for id in candidates.iter().take(MAX_CANDIDATES) {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if entry.digest.is_none()
                && let Some(known) = entry.executable.file()
                && let Ok(now) = FileKey::of(&known)
                && entry.keys.contains(&now)
            {
                entry.digest = self.digests.of(&known, &now);
            }
            let Some(theirs) = entry.digest else { continue };
            if digest.is_none() {
                *digest = self.digests.of(file, key);
            }
            if *digest == Some(theirs) {
                return Some(*id);
            }
        }
        None
    }

    /// Notes another use, and takes the file where the known one was closed.
    pub(super) fn reuse(
        &mut self,
        id: ExecutableId,
        mapper: (u32, UserAddr, UserAddr),
        file: Option<Arc<File>>,
    ) -> Option<Arc<Executable>> {
        let entry = self.entries.get_mut(&id)?;
        entry.last_use = self.uses;
        if !entry.mappers.contains(&mapper) {
            if entry.mappers.len() >= MAX_MAPPERS {
                entry.mappers.remove(0);
            }
            entry.mappers.push(mapper);
        }
        let executable = Arc::clone(&entry.executable);
        if let Some(file) = file
            && !executable.is_open()
        {
            executable.set_file(Some(file));
            self.open_files += 1;
            self.close_some();
        }
        Some(executable)
    }

    fn note_file(&mut self, id: FileId, key: &FileKey, executable: ExecutableId) {
        if key.is(id) {
            self.by_file.insert(id, executable);
        }
    }

    /// Closes the least recently used files while there are too many; an eighth at once, so that it is seldom.
    pub(super) fn close_some(&mut self) {
        if self.open_files <= self.max_open_files {
            return;
        }
        let mut open: Vec<(u64, ExecutableId)> =
            self.entries.values().filter(|e| e.executable.is_open()).map(|e| (e.last_use, e.executable.id)).collect();
        open.sort_unstable();
        let keep = self.max_open_files - self.max_open_files / 8;
        let close = open.len().saturating_sub(keep);
        for (_, id) in open.into_iter().take(close) {
            self.close(id);
        }
    }

    /// Closes the files of executables that no living process was seen to map, and returns how many. An open file keeps its file
    /// system from being unmounted, which a mapping does too but ends with its process; so call it now and then, when the samples
    /// of ended processes have got their names; those that still need theirs are to be kept by `needed`.
    pub fn close_orphans(&mut self, living: impl Fn(u32) -> bool, needed: impl Fn(ExecutableId) -> bool) -> usize {
        let orphan = |entry: &&Entry| {
            entry.executable.is_open()
                && !entry.mappers.iter().any(|(pid, ..)| living(*pid))
                && !needed(entry.executable.id)
        };
        let orphans: Vec<ExecutableId> = self.entries.values().filter(orphan).map(|e| e.executable.id).collect();
        for &id in &orphans {
            self.close(id);
        }
        orphans.len()
    }

    pub(super) fn close(&mut self, id: ExecutableId) {
        if let Some(entry) = self.entries.get(&id) {
            entry.executable.set_file(None);
            self.open_files = self.open_files.saturating_sub(1);
            self.safe_devices.retain(|_, known| *known != id);
        }
    }

    /// Forgets the least recently used executables that nobody else holds while there are too many.
    pub(super) fn make_room(&mut self) {
        if self.entries.len() < self.max_executables {
            return;
        }
        let mut unused: Vec<(u64, ExecutableId)> = self
            .entries
            .values()
            .filter(|entry| Arc::strong_count(&entry.executable) == 1)
            .map(|entry| (entry.last_use, entry.executable.id))
            .collect();
        unused.sort_unstable();
        for (_, id) in unused.into_iter().take((self.max_executables / 8).max(1)) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ExecutableId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.open_files -= usize::from(entry.executable.is_open()).min(self.open_files);
        if let Some(same) = self.by_content.get_mut(&entry.content) {
            same.retain(|known| *known != id);
            if same.is_empty() {
                self.by_content.remove(&entry.content);
            }
        }
        self.safe_devices.retain(|_, known| *known != id);
        if entry.executable.format == Format::Restored {
            self.restored.retain(|_, known| {
                known.retain(|known| *known != id);
                !known.is_empty()
            });
            return;
        }
        for key in entry.keys {
            self.by_key.remove(&key);
            let file = key.file_id();
            if self.by_file.get(&file) == Some(&id) {
                self.by_file.remove(&file);
            }
        }
    }
}

/// Whether a file still is the content of an executable.
///
/// Its time of change is another after a new name or link, and after a write that hides behind an older time. Then its digest counts;
/// without one the executable is of this inode alone, and who lies of it lies of nobody else.
fn is_content(keys: &[FileKey], digest: Option<Digest>, digests: &mut Digests, file: &File, key: &FileKey) -> bool {
    keys.contains(key)
        || match digest {
            Some(_) => digests.of(file, key) == digest,
            None => keys.iter().any(|known| known.same_inode(key)),
        }
}

fn new_executable(id: ExecutableId, path: Arc<[u8]>, size: u64, identity: Identity, content: Content) -> Executable {
    Executable {
        id,
        format: identity.format,
        path,
        size,
        build_id_gnu: identity.build_id_gnu,
        build_id_go: identity.build_id_go,
        htlhash: identity.htlhash,
        segments: identity.segments,
        interpreter: identity.interpreter,
        runtime: identity.runtime,
        unfollowed: identity.unfollowed,
        content,
    }
}
