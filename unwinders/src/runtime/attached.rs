//! The sampling side of all runtimes that are read elsewhere: what was found out of a process is checked, and published to the kernel
//! half.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use profiler_address::UserAddr;
use profiler_bpf::InstanceTable;
use profiler_bpf::abi::{FrameKind, INSTANCE_BYTES, Instance as Bytes, MAX_INSTANCES};
use rustc_hash::FxHasher;

use super::{AttachError, Attached, Instance, Loader, MAX_OPAQUE, MAX_PIECES, Piece, RuntimeError};
use crate::executable::{Executable, Mapper};
use crate::maps::{Backing, Mapping};
use crate::process::Process;
use crate::ranges::Ranges;
use crate::reading::Reading;

/// A sample that saw an instance before it was given up has long left the kernel half after this time, ns.
const REUSE_AFTER_NS: u64 = 1_000_000_000;

/// Owner of the kernel half's table of runtimes; clones share it.
#[derive(Clone, Debug)]
pub struct Runtimes(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    table: InstanceTable,
    places: Ranges,
    attached: u64,
}

impl Runtimes {
    /// Fills `table`.
    #[must_use]
    pub fn new(table: InstanceTable) -> Self {
        Self(Arc::new(Mutex::new(Shared { table, places: Ranges::new(MAX_INSTANCES as u32), attached: 0 })))
    }

    /// Times that a runtime was attached to a process.
    #[must_use]
    pub fn attached(&self) -> u64 {
        self.lock().attached
    }

    /// Processes' runtimes that the kernel half knows, those included that rest before their places are used again.
    #[must_use]
    pub fn in_use(&self) -> usize {
        MAX_INSTANCES - self.lock().places.available() as usize
    }

    /// What attaches the runtime of this kind.
    pub(super) fn loader(&self, kind: FrameKind) -> ReadLoader {
        ReadLoader { runtimes: self.clone(), kind }
    }

    /// Gives `look` the table.
    pub(crate) fn with_table<T>(&self, look: impl FnOnce(&InstanceTable) -> T) -> T {
        look(&self.lock().table)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, instance: &[u8], now: u64) -> Result<u32, RuntimeError> {
        let mut bytes = Bytes([0; INSTANCE_BYTES]);
        for (to, from) in bytes.0.iter_mut().zip(instance) {
            *to = *from;
        }
        let mut shared = self.lock();
        shared.places.free_before(now.saturating_sub(REUSE_AFTER_NS));
        let place = shared.places.allocate(1).ok_or(RuntimeError::TableFull("runtime"))?;
        shared.table.write(place, &bytes).map_err(|_| RuntimeError::TableFull("runtime"))?;
        shared.attached += 1;
        Ok(place)
    }

    fn release(&self, place: u32, now: u64) {
        self.lock().places.release(place, 1, now);
    }
}

/// The sampling side of one of them.
#[derive(Debug)]
pub(super) struct ReadLoader {
    runtimes: Runtimes,
    kind: FrameKind,
}

impl Loader for ReadLoader {
    fn kind(&self) -> FrameKind {
        self.kind
    }

    fn attach(
        &mut self,
        executable: &Arc<Executable>,
        process: &Process,
        reading: &mut dyn Reading,
        now: u64,
    ) -> Result<Option<Box<dyn Instance>>, RuntimeError> {
        if executable.runtime != Some(self.kind) {
            return Ok(None);
        }
        let attached = ask(executable, process, reading)?;
        tracing::debug!(pid = process.pid, about = %attached.about, "A runtime is attached.");
        let place = self.runtimes.publish(&attached.instance, now)?;
        let runtimes = self.runtimes.clone();
        let executable = Arc::clone(executable);
        Ok(Some(Box::new(ReadInstance { runtimes, executable, place, attached, seen: None })))
    }

    fn tidy(&mut self, now: u64) {
        self.runtimes.lock().places.free_before(now.saturating_sub(REUSE_AFTER_NS));
    }
}

/// Asks for what is to be published; it comes from who reads targets, and is checked.
fn ask(executable: &Executable, process: &Process, reading: &mut dyn Reading) -> Result<Attached, RuntimeError> {
    let mappings: Vec<&Mapping> = process.mappings.iter().collect();
    let attached = reading.attach(&Mapper::of(process), executable, &mappings).map_err(|error| match error {
        AttachError::NotReady(why, pause) => RuntimeError::NotReady(why, pause),
        AttachError::Unsupported(why) => RuntimeError::Unsupported(why),
    })?;
    let is_sane = attached.instance.len() <= INSTANCE_BYTES
        && attached.pieces.len() <= MAX_PIECES
        && attached.opaque.len() <= MAX_OPAQUE;
    if is_sane { Ok(attached) } else { Err(RuntimeError::Unsupported("what was told of it is too long".to_owned())) }
}

/// A runtime in a process.
#[derive(Debug)]
struct ReadInstance {
    runtimes: Runtimes,
    executable: Arc<Executable>,
    place: u32,
    attached: Attached,
    /// What its pieces may be in, as it was when they were told; none: they were not asked for yet.
    seen: Option<u64>,
}

/// Tells mappings from others by those in which a runtime of `own` may have code: its executable's, and what no file holds.
fn code_of(process: &Process, own: &[&Mapping]) -> u64 {
    let file_of = |mapping: &Mapping| mapping.file().map(|(file, _)| file);
    let files: Vec<_> = own.iter().filter_map(|mapping| file_of(mapping)).collect();
    let mut hasher = FxHasher::default();
    for mapping in process.mappings.iter() {
        let file = file_of(mapping);
        let is_made = matches!(mapping.backing, Backing::Anonymous | Backing::Replaced(_));
        if is_made || file.is_some_and(|file| files.contains(&file)) {
            (mapping.start, mapping.end, mapping.offset, file).hash(&mut hasher);
        }
    }
    hasher.finish()
}

impl ReadInstance {
    /// Takes over what `ask` says where what its pieces may be in is other than it was. Without an answer it is asked again at the next look.
    fn renew(
        &mut self,
        code: Option<u64>,
        now: u64,
        ask: impl FnOnce(&Executable) -> Result<Attached, RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let has_changed = self.seen.is_some() && self.seen != code;
        if has_changed {
            let attached = ask(&self.executable)?;
            if attached.instance != self.attached.instance {
                // Nothing published is rewritten while it may be read.
                let place = self.runtimes.publish(&attached.instance, now)?;
                self.runtimes.release(self.place, now);
                self.place = place;
            }
            self.attached = attached;
        }
        self.seen = code;
        Ok(())
    }
}

impl Instance for ReadInstance {
    fn pieces(&mut self, process: &Process, own: &[&Mapping], reading: &mut dyn Reading, now: u64) -> Vec<Piece> {
        // Nobody is asked for what another library's mapping does not change.
        let code = self.attached.grows.then(|| code_of(process, own));
        if let Err(error) = self.renew(code, now, |executable| ask(executable, process, reading)) {
            tracing::debug!(pid = process.pid, %error, "A runtime stays as it was.");
        }
        let piece = |&(start, end): &(u64, u64)| Piece {
            start: UserAddr(start),
            end: UserAddr(end),
            rows: None,
            instance: self.place,
        };
        self.attached.pieces.iter().map(piece).collect()
    }

    fn opaque(&self) -> Option<&[u8]> {
        Some(&self.attached.opaque)
    }

    fn memory_bytes(&self) -> usize {
        let Attached { instance, pieces, opaque, about, .. } = &self.attached;
        size_of::<Self>()
            + instance.capacity()
            + pieces.capacity() * size_of::<(u64, u64)>()
            + opaque.capacity()
            + about.capacity()
    }

    fn detach(self: Box<Self>, now: u64) {
        self.runtimes.release(self.place, now);
    }
}

#[cfg(test)]
mod tests {
    use profiler_address::FileOffset;

    use super::*;
    use crate::maps::FileId;
    use crate::process::{Clock, ProcessTable};

    #[test]
    fn a_runtime_that_gave_no_answer_is_asked_again_at_the_next_look() {
        let mut processes = ProcessTable::new();
        processes.scan(std::process::id(), Clock::monotonic_now()).unwrap();
        let process = processes.get(std::process::id()).unwrap();
        let mut executables = crate::executable::Executables::new();
        let opened =
            process.mappings.iter().find_map(|mapping| executables.open_of(&Mapper::of(process), mapping).ok());
        let runtimes = Runtimes::new(profiler_bpf::Tables::in_memory().unwrap().instances);
        let told = |instance: u8, end| Attached {
            instance: vec![instance],
            pieces: vec![(0x1000, end)],
            opaque: Vec::new(),
            about: String::new(),
            grows: true,
        };
        let mut instance = ReadInstance {
            runtimes: runtimes.clone(),
            executable: opened.expect("its own program"),
            place: runtimes.publish(&[1], 0).unwrap(),
            attached: told(1, 0x2000),
            seen: None,
        };
        let never = |_: &Executable| unreachable!("nothing has changed");
        let later = |_: &Executable| Err(RuntimeError::NotReady("set aside".to_owned(), crate::runtime::LATER));
        instance.renew(Some(1), 0, never).unwrap();
        instance.renew(Some(1), 0, never).unwrap();
        assert!(instance.renew(Some(2), 0, later).is_err());
        assert_eq!(instance.attached.pieces, [(0x1000, 0x2000)], "it stays as it was");
        instance.renew(Some(2), 0, |_| Ok(told(1, 0x3000))).unwrap();
        assert_eq!(instance.attached.pieces, [(0x1000, 0x3000)]);
        instance.renew(Some(2), 0, never).unwrap();

        // Where the table has no room for what was told, either.
        let place = instance.place;
        while runtimes.publish(&[0], 0).is_ok() {}
        assert!(instance.renew(Some(3), 0, |_| Ok(told(2, 0x4000))).is_err());
        assert_eq!((instance.place, instance.attached.instance[0]), (place, 1));
        runtimes.release(place + 1, 0);
        instance.renew(Some(3), 2 * REUSE_AFTER_NS, |_| Ok(told(2, 0x4000))).unwrap();
        assert_eq!((instance.place, instance.attached.instance[0]), (place + 1, 2));
    }

    #[test]
    fn only_what_may_hold_a_runtimes_code_makes_it_be_asked_again() {
        let mut processes = ProcessTable::new();
        processes.scan(std::process::id(), Clock::monotonic_now()).unwrap();
        let process = processes.get(std::process::id()).unwrap();
        let mapping = |start: u64, backing| Mapping {
            start: UserAddr(start),
            end: UserAddr(start + 0x1000),
            offset: FileOffset(0),
            backing,
        };
        let file = |inode| Backing::File(FileId { major: 1, minor: 2, inode }, Arc::from(b"/opt/program".as_slice()));
        let own = mapping(0x1000, file(7));
        let code = |more: &[Mapping]| {
            let mut process = process.clone();
            for more in more {
                Arc::make_mut(&mut process.mappings).insert(more.clone());
            }
            code_of(&process, &[&own])
        };
        let none = code(&[]);
        assert_eq!(code(&[mapping(0x8000, file(8))]), none, "a library");
        assert_ne!(code(&[mapping(0x8000, file(7))]), none, "another piece of its own");
        let anonymous = code(&[mapping(0x8000, Backing::Anonymous)]);
        assert_ne!(anonymous, none, "what a compiler may write to");
        assert_ne!(code(&[mapping(0x9000, Backing::Anonymous)]), anonymous);
    }
}
