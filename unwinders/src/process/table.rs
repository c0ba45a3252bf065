//! The table of processes, moved through time by events.
//!
//! ```text
//! pid 17:  past ───────────────────────────────┐┌ current ──────────────────
//!          serial 3: sh      serial 4: env      serial 5: python3
//!          fork ──── exec ─ ─ ─ ─ ─ ─ exec ─ ─ ─ ─ ─ exit      grace   retired
//!          image_start        image_start          image_start   ended
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use profiler_bpf::sideband::{Event, Kind, Mmap};
use rustc_hash::{FxHashMap, FxHashSet};

use super::procfs::{self, ScanError, Stat};
use super::{AddressSpace, Cgroup, Clock, Comm, Process, Thread};
use crate::maps::{Backing, FileId, Mapping, MappingSet};

/// Images (living, ended and replaced) kept by default: 13 MiB of them with eight mappings each.
const MAX_IMAGES: usize = 16_384;
/// Earlier images kept of one pid: who executes in a loop must not push out the past of others.
const MAX_PAST: usize = 16;
/// Mappings of all images together. Beyond it, processes with more than [`MAX_MAPPINGS_WHEN_CROWDED`] get no more.
const MAX_ALL_MAPPINGS: usize = 1 << 18;
/// See [`MAX_ALL_MAPPINGS`].
const MAX_MAPPINGS_WHEN_CROWDED: usize = 1024;
/// Bytes of paths kept. A path beyond it is empty, and its file reached only through the process.
const MAX_PATH_BYTES: usize = 8 << 20;
/// Ended processes and replaced images are kept this long by default: the longest that a sample may be late, ns.
const GRACE_NS: u64 = 5_000_000_000;
/// `/proc` cuts start times to 10 ms, and a fork's event is a little later than the start that the kernel notes. A pid is not
/// used again within this time: the kernel takes all others first.
const SAME_START_NS: u64 = 250_000_000;
/// Different texts of `/proc/PID/cgroup` remembered.
const MAX_CGROUPS: usize = 4096;

/// What an event or a scan changed, for those who hold copies (kernel tables above all).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The process.
    pub pid: u32,
    /// It was not known before, or the pid is now another process.
    pub created: bool,
    /// The process has a new image and with it a new serial; always so with `created`.
    pub new_image: bool,
    /// Its mappings are others than before.
    pub mappings: bool,
    /// It, or one of its threads, has another name.
    pub name: bool,
    /// It has ended.
    pub ended: bool,
    /// What is known has gaps: [`ProcessTable::next_to_scan`] will name it.
    pub wants_scan: bool,
    /// Events were lost: every process wants a scan, and there may be ones that nobody told of.
    pub lost: bool,
}

/// An image that has left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Process id.
    pub pid: u32,
    /// [`Process::serial`] of the image.
    pub serial: u32,
}

#[derive(Debug)]
struct Slot {
    current: Process,
    /// Earlier images and earlier owners of the pid, oldest first.
    past: VecDeque<Process>,
    /// The scan saw that the image is a new one; the event that says since when is still to come.
    split_by_scan: bool,
}

/// Every process that is known, by pid.
#[derive(Debug)]
pub struct ProcessTable {
    slots: FxHashMap<u32, Slot>,
    images: usize,
    max_images: usize,
    grace: u64,
    last_serial: u32,
    clock: Clock,
    /// Ended images in the order of their ends.
    graves: VecDeque<(u64, Retired)>,
    ended_threads: VecDeque<(u64, u32, u32)>,
    evicted: Vec<Retired>,
    to_scan: VecDeque<u32>,
    queued: FxHashSet<u32>,
    paths: PathInterner,
    cgroups: FxHashMap<Box<[u8]>, Option<Arc<Cgroup>>>,
    /// There are more mappings than [`MAX_ALL_MAPPINGS`]; counted anew in every [`Self::retire`].
    crowded: bool,
    refused_mappings: u64,
}

impl Default for ProcessTable {
    fn default() -> Self {
        Self::new()
    }
}

impl ProcessTable {
    /// An empty table with the bounds that fit a host.
    #[must_use]
    pub fn new() -> Self {
        Self::with_bounds(Clock::read(), MAX_IMAGES, GRACE_NS)
    }

    /// An empty table of at most `max_images` images, which keeps ended ones for `grace` ns.
    #[must_use]
    pub fn with_bounds(clock: Clock, max_images: usize, grace: u64) -> Self {
        Self {
            slots: FxHashMap::default(),
            images: 0,
            max_images: max_images.max(1),
            grace,
            last_serial: 0,
            clock,
            graves: VecDeque::new(),
            ended_threads: VecDeque::new(),
            evicted: Vec::new(),
            to_scan: VecDeque::new(),
            queued: FxHashSet::default(),
            paths: PathInterner::default(),
            cgroups: FxHashMap::default(),
            crowded: false,
            refused_mappings: 0,
        }
    }

    /// The clock that turns event times into Unix times.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Replaces the clock, for processes that start from now on.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Processes in the table, ended ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no process is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Images in the table: living, ended and replaced.
    #[must_use]
    pub fn images(&self) -> usize {
        self.images
    }

    /// Mappings that were not taken because the table had too many.
    #[must_use]
    pub fn refused_mappings(&self) -> u64 {
        self.refused_mappings
    }

    /// Bytes that the table takes, to within a few per cent; takes a walk over all of it.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let images = || self.slots.values().flat_map(|slot| slot.past.iter().chain([&slot.current]));
        let threads: usize = images().map(|image| image.threads.capacity() * size_of::<(u32, Thread)>()).sum();
        self.images * size_of::<Process>()
            + self.slots.capacity() * (size_of::<Slot>() - size_of::<Process>() + 8)
            + threads
            + self.count_mappings() * size_of::<Mapping>()
            + self.paths.bytes
            + self.graves.capacity() * size_of::<(u64, Retired)>()
            + self.cgroups.keys().map(|text| 3 * text.len()).sum::<usize>()
    }

    /// Mappings of all images; those that images share count once.
    fn count_mappings(&self) -> usize {
        let images = self.slots.values().flat_map(|slot| slot.past.iter().chain([&slot.current]));
        let mut seen = FxHashSet::default();
        images.filter(|image| seen.insert(Arc::as_ptr(&image.mappings))).map(|image| image.mappings.len()).sum()
    }

    /// The newest image of the process that has, or had last, this pid.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.slots.get(&pid).map(|slot| &slot.current)
    }

    /// The image that ran under this pid at `time` (`CLOCK_MONOTONIC`, ns): for samples that come later than events.
    #[must_use]
    pub fn get_at(&self, pid: u32, time: u64) -> Option<&Process> {
        let slot = self.slots.get(&pid)?;
        if slot.current.image_start <= time {
            return Some(&slot.current);
        }
        let running = |image: &&Process| image.image_start <= time && image.ended.is_none_or(|ended| time <= ended);
        slot.past.iter().rev().find(running)
    }

    /// All processes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.slots.values().map(|slot| &slot.current)
    }

    /// Ids of all processes that exist now, rising.
    #[must_use]
    pub fn existing_pids() -> Vec<u32> {
        procfs::existing_pids()
    }

    /// Asks for a scan of every process that exists and is not known, e.g. at the start and after lost events.
    pub fn queue_unknown(&mut self) {
        for pid in procfs::existing_pids() {
            if self.slots.get(&pid).is_none_or(|slot| slot.current.ended.is_some()) {
                self.queue(pid);
            }
        }
    }

    /// Asks for a scan of `pid`.
    pub fn queue(&mut self, pid: u32) {
        if self.queued.insert(pid) {
            self.to_scan.push_back(pid);
        }
    }

    /// The process that has waited longest for a [`Self::scan`]; the caller sets the pace.
    pub fn next_to_scan(&mut self) -> Option<u32> {
        let pid = self.to_scan.pop_front()?;
        self.queued.remove(&pid);
        Some(pid)
    }

    /// How many processes wait for a scan.
    #[must_use]
    pub fn waiting_for_scan(&self) -> usize {
        self.to_scan.len()
    }

    /// Moves the table on by one event; events come in the order of their times.
    pub fn apply(&mut self, event: &Event) -> Changes {
        let mut changes = Changes { pid: event.pid, ..Changes::default() };
        match &event.kind {
            Kind::Fork { parent_pid } if *parent_pid == event.pid => self.thread_forked(event, &mut changes),
            Kind::Fork { parent_pid } => self.forked(event, *parent_pid, &mut changes),
            Kind::Exec { comm } => self.executed(event, Comm::new(comm), &mut changes),
            Kind::Comm { comm } => self.named(event, Comm::new(comm), &mut changes),
            Kind::Mmap(mmap) => self.mapped(event, mmap, &mut changes),
            Kind::Exit => self.exited(event, &mut changes),
            Kind::Lost { .. } => {
                changes.lost = true;
                let living = |slot: &&mut Slot| slot.current.ended.is_none() && !slot.current.kthread;
                for slot in self.slots.values_mut().filter(living) {
                    slot.current.wants_scan = true;
                    if self.queued.insert(slot.current.pid) {
                        self.to_scan.push_back(slot.current.pid);
                    }
                }
            }
        }
        if let Some(slot) = self.slots.get_mut(&event.pid) {
            slot.current.last_event = slot.current.last_event.max(event.time);
            changes.wants_scan = slot.current.wants_scan;
        }
        changes
    }

    fn thread_forked(&mut self, event: &Event, changes: &mut Changes) {
        let Some(process) = self.living(event, changes) else { return };
        if event.time >= process.scanned_at {
            process.live_threads = process.live_threads.map(|threads| threads.saturating_add(1));
            // The id may have been another thread's.
            process.threads.remove(&event.tid);
        }
    }

    fn forked(&mut self, event: &Event, parent_pid: u32, changes: &mut Changes) {
        let start_time_ns = self.clock.boot_from_monotonic(event.time);
        if let Some(slot) = self.slots.get_mut(&event.pid)
            && event.time < slot.current.scanned_at
            && slot.current.start_time_ns.abs_diff(start_time_ns) < SAME_START_NS
        {
            // Scanned already: only where the process came from is news.
            slot.current.parent = parent_pid;
            return;
        }
        let mut child = match self.get_at(parent_pid, event.time).or_else(|| self.get(parent_pid)) {
            Some(parent) => Process {
                threads: FxHashMap::default(),
                mappings_version: u32::from(!parent.mappings.is_empty()),
                wants_scan: parent.wants_scan,
                ..parent.clone()
            },
            None => Process { wants_scan: true, ..self.blank() },
        };
        child.pid = event.pid;
        child.namespace_pid = event.pid;
        child.parent = parent_pid;
        child.start_time_ns = start_time_ns;
        child.start_unix_ns = self.clock.unix_from_monotonic(event.time);
        child.image_start = event.time;
        child.ended = None;
        child.scanned_at = 0;
        child.live_threads = Some(1);
        child.last_event = event.time;
        changes.created = true;
        changes.mappings = !child.mappings.is_empty();
        self.install(child, event.time, changes);
    }

    fn executed(&mut self, event: &Event, comm: Comm, changes: &mut Changes) {
        // A process whose main thread was seen to end and that then executes had other threads that nobody had told of.
        if let Some(slot) = self.slots.get_mut(&event.pid) {
            slot.current.ended = None;
        }
        let serial = self.next_serial();
        if let Some(process) = self.living(event, changes)
            && changes.created
        {
            process.comm = comm;
            process.live_threads = Some(1);
            return;
        }
        let Some(slot) = self.slots.get_mut(&event.pid) else { return };
        let current = &mut slot.current;
        let scanned_since = event.time < current.scanned_at;
        if scanned_since && (slot.split_by_scan || current.image_start == 0) {
            if slot.split_by_scan
                && let Some(before) = slot.past.back_mut()
            {
                before.ended = Some(event.time);
            }
            slot.split_by_scan = false;
            current.image_start = event.time;
            return;
        }
        let mut before = current.clone();
        before.ended = Some(event.time);
        current.serial = serial;
        current.image_start = event.time;
        if !scanned_since {
            current.comm = comm;
            current.exe = self.paths.intern(b"");
            current.mappings = Arc::default();
            current.mappings_version = 0;
            current.address_space = None;
            current.is_32bit = false;
            current.kthread = false;
            current.threads.clear();
            current.live_threads = Some(1);
            // From here on the events tell everything but the control group.
            current.wants_scan &= current.cgroup.is_none();
        }
        changes.new_image = true;
        changes.mappings = true;
        changes.name = true;
        self.bury(before, event.time);
    }

    fn named(&mut self, event: &Event, comm: Comm, changes: &mut Changes) {
        let Some(process) = self.living(event, changes) else { return };
        if event.tid != event.pid || event.time >= process.scanned_at {
            process.name_thread(event.tid, comm);
            changes.name = true;
        }
    }

    fn mapped(&mut self, event: &Event, mmap: &Mmap, changes: &mut Changes) {
        let Some(end) = mmap.start.0.checked_add(mmap.len) else { return };
        let id = FileId { major: mmap.dev.0, minor: mmap.dev.1, inode: mmap.inode };
        let backing = Backing::from_name(id, &mmap.path, &mut |path| self.paths.intern(path));
        let offset = match backing {
            Backing::File(..) => mmap.offset,
            _ => Default::default(),
        };
        let mapping = Mapping { start: mmap.start, end: profiler_address::UserAddr(end), offset, backing };
        let crowded = self.crowded;
        let Some(process) = self.living(event, changes) else { return };
        if event.time < process.scanned_at {
            return;
        }
        if crowded && process.mappings.len() >= MAX_MAPPINGS_WHEN_CROWDED {
            self.refused_mappings += 1;
            return;
        }
        // The first file that an exec maps is the program, the second its loader (load_elf_binary in fs/binfmt_elf.c).
        if process.exe.is_empty()
            && let Backing::File(_, path) = &mapping.backing
        {
            process.exe = Arc::clone(path);
        }
        if Arc::make_mut(&mut process.mappings).insert(mapping) {
            process.mappings_version = process.mappings_version.wrapping_add(1);
            changes.mappings = true;
        }
    }

    fn exited(&mut self, event: &Event, changes: &mut Changes) {
        let Some(slot) = self.slots.get_mut(&event.pid) else { return };
        let process = &mut slot.current;
        if process.ended.is_some() || event.time < process.image_start {
            return;
        }
        if let Some(thread) = process.threads.get_mut(&event.tid) {
            thread.ended = true;
            self.ended_threads.push_back((event.time, event.pid, event.tid));
        }
        if event.time < process.scanned_at {
            return;
        }
        // Without a count, a process is taken to end with its main thread.
        let left = match process.live_threads {
            Some(threads) => threads.saturating_sub(1),
            None => u32::from(event.tid != event.pid),
        };
        process.live_threads = process.live_threads.map(|_| left);
        if left == 0 {
            self.end(event.pid, event.time);
            changes.ended = true;
        }
    }

    /// Reads what `/proc` says of `pid` now, at `now` (`CLOCK_MONOTONIC`, ns; taken before the call). Events that are older change
    /// nothing any more.
    ///
    /// # Errors
    /// If the process has ended (then it has ended in the table too) or may not be read.
    pub fn scan(&mut self, pid: u32, now: u64) -> Result<Changes, ScanError> {
        match self.read_all(pid) {
            Ok(read) => Ok(self.scanned(pid, now, read)),
            Err(error) => {
                if let Some(slot) = self.slots.get_mut(&pid) {
                    slot.current.wants_scan = false;
                    if matches!(error, ScanError::Gone { .. }) && slot.current.ended.is_none() {
                        self.end(pid, now);
                    }
                }
                Err(error)
            }
        }
    }

    fn read_all(&mut self, pid: u32) -> Result<Scan, ScanError> {
        let mut stat = Stat::read(pid)?;
        let mut scan =
            Scan { stat, mappings: Arc::default(), exe: self.paths.intern(b""), cgroup: None, namespace_pid: pid };
        scan.cgroup = self.read_cgroup(pid)?;
        if stat.kthread {
            return Ok(scan);
        }
        scan.namespace_pid = procfs::namespace_pid(pid)?;
        // Mappings and image must belong together; a process that executes meanwhile is read again, though not for ever.
        for _ in 0..3 {
            let mut parsed = procfs::read_mappings(pid, &stat, &mut |path| self.paths.intern(path))?;
            if self.crowded && parsed.mappings.len() > MAX_MAPPINGS_WHEN_CROWDED {
                self.refused_mappings += (parsed.mappings.len() - MAX_MAPPINGS_WHEN_CROWDED) as u64;
                parsed.mappings.truncate(MAX_MAPPINGS_WHEN_CROWDED);
            }
            let exe = procfs::exe_path(pid).unwrap_or_default();
            let again = Stat::read(pid)?;
            scan.mappings = Arc::new(parsed.mappings.into_iter().collect());
            scan.exe = self.paths.intern(&exe);
            scan.stat = again;
            if again.address_space == stat.address_space {
                break;
            }
            stat = again;
        }
        Ok(scan)
    }

    fn scanned(&mut self, pid: u32, now: u64, scan: Scan) -> Changes {
        let mut changes = Changes { pid, ..Changes::default() };
        let Scan { stat, mappings, exe, cgroup, namespace_pid } = scan;
        let dead = stat.is_zombie() && stat.threads <= 1;
        let space = stat.image();
        let known = self.slots.get(&pid).is_some_and(|slot| {
            let known = slot.current.start_time_ns;
            known == 0 || known.abs_diff(stat.start_time_ns) < SAME_START_NS
        });
        if !known {
            let mut process = self.blank();
            process.pid = pid;
            process.start_time_ns = stat.start_time_ns;
            process.start_unix_ns = self.clock.unix_from_boot(stat.start_time_ns);
            changes.created = true;
            self.install(process, now, &mut changes);
        }
        let fresh_serial = self.next_serial();
        let start_unix_ns = self.clock.unix_from_boot(stat.start_time_ns);
        let Some(slot) = self.slots.get_mut(&pid) else { return changes };
        let other_image = match (slot.current.address_space, space) {
            (Some(old), Some(new)) => old != new,
            (None, Some(_)) => !slot.current.exe.is_empty() && !exe.is_empty() && slot.current.exe != exe,
            _ => false,
        };
        let mut before = None;
        if other_image {
            before = Some(Process { ended: Some(now), ..slot.current.clone() });
            slot.split_by_scan = true;
            slot.current.serial = fresh_serial;
            slot.current.image_start = now;
            slot.current.mappings_version = 0;
            slot.current.threads.clear();
            changes.new_image = true;
        }
        let process = &mut slot.current;
        if process.start_time_ns == 0 {
            process.start_time_ns = stat.start_time_ns;
            process.start_unix_ns = start_unix_ns;
        }
        if process.comm != stat.comm {
            process.comm = stat.comm;
            changes.name = true;
        }
        process.parent = stat.parent;
        process.kthread = stat.kthread;
        process.container_id = cgroup.as_ref().and_then(|cgroup| cgroup.container_id.clone());
        process.cgroup = cgroup;
        process.namespace_pid = namespace_pid;
        process.live_threads = Some(stat.threads);
        process.scanned_at = now;
        process.wants_scan = false;
        if let Some(space) = space {
            process.set_address_space(space);
        }
        // A zombie has no memory any more, but its last samples are still to be resolved.
        if !dead {
            process.ended = None;
            if !exe.is_empty() {
                process.exe = exe;
            }
            if other_image || *process.mappings != *mappings {
                process.mappings = mappings;
                process.mappings_version = process.mappings_version.wrapping_add(1);
                changes.mappings = true;
            }
        }
        if let Some(before) = before {
            self.bury(before, now);
        }
        if dead && self.get(pid).is_some_and(|process| process.ended.is_none()) {
            self.end(pid, now);
            changes.ended = true;
        }
        changes
    }

    /// Reads only what identifies the image in memory, after an exec that events told of: far cheaper than a scan.
    ///
    /// # Errors
    /// If the process is not known, has ended or may not be read.
    pub fn read_address_space(&mut self, pid: u32) -> Result<AddressSpace, ScanError> {
        let stat = Stat::read(pid)?;
        let start_unix_ns = self.clock.unix_from_boot(stat.start_time_ns);
        let process = match self.slots.get_mut(&pid) {
            Some(slot) if slot.current.ended.is_none() && !stat.is_zombie() => &mut slot.current,
            _ => return Err(ScanError::Gone { pid }),
        };
        if process.start_time_ns == 0 {
            process.start_time_ns = stat.start_time_ns;
            process.start_unix_ns = start_unix_ns;
        } else if process.start_time_ns.abs_diff(stat.start_time_ns) >= SAME_START_NS {
            process.wants_scan = true;
            self.queue(pid);
            return Err(ScanError::Gone { pid });
        }
        let space = stat.image().ok_or(ScanError::Executing { pid })?;
        process.set_address_space(space);
        Ok(space)
    }

    /// Notes what identifies the image in memory when another source than `/proc` told it (a sample's own record).
    pub fn set_address_space(&mut self, pid: u32, space: AddressSpace) {
        if let Some(slot) = self.slots.get_mut(&pid) {
            slot.current.set_address_space(space);
        }
    }

    /// Reads the control group and the pid in its own namespace of a process that only events have told of.
    ///
    /// # Errors
    /// If the process has ended or may not be read; what it inherited from its parent stays.
    pub fn read_container(&mut self, pid: u32) -> Result<(), ScanError> {
        let cgroup = self.read_cgroup(pid)?;
        let namespace_pid = procfs::namespace_pid(pid)?;
        if let Some(slot) = self.slots.get_mut(&pid).filter(|slot| slot.current.ended.is_none()) {
            slot.current.container_id = cgroup.as_ref().and_then(|cgroup| cgroup.container_id.clone());
            slot.current.cgroup = cgroup;
            slot.current.namespace_pid = namespace_pid;
        }
        Ok(())
    }

    fn read_cgroup(&mut self, pid: u32) -> Result<Option<Arc<Cgroup>>, ScanError> {
        let text = procfs::cgroup_text(pid)?;
        if let Some(known) = self.cgroups.get(&*text) {
            return Ok(known.clone());
        }
        if self.cgroups.len() >= MAX_CGROUPS {
            self.cgroups.clear();
        }
        let cgroup = Cgroup::parse(&text).map(Arc::new);
        self.cgroups.insert(text.into_boxed_slice(), cgroup.clone());
        Ok(cgroup)
    }

    /// The name of a thread now, read from `/proc` once where no event has told it; the process's own name if the thread is gone.
    pub fn thread_comm(&mut self, pid: u32, tid: u32) -> Comm {
        let Some(slot) = self.slots.get_mut(&pid) else { return Comm::default() };
        if let Some(comm) = slot.current.thread(tid) {
            return comm;
        }
        let comm = match slot.current.ended {
            None => procfs::thread_comm(pid, tid).unwrap_or(slot.current.comm),
            Some(_) => slot.current.comm,
        };
        slot.current.name_thread(tid, comm);
        comm
    }

    /// Forgets images that ended, or were replaced, longer than the grace before `now` (`CLOCK_MONOTONIC`, ns), and names all that
    /// are gone since the last call.
    pub fn retire(&mut self, now: u64) -> Vec<Retired> {
        while let Some(&(time, retired)) = self.graves.front()
            && time.saturating_add(self.grace) <= now
        {
            self.graves.pop_front();
            self.forget(retired);
        }
        while let Some(&(time, pid, tid)) = self.ended_threads.front()
            && time.saturating_add(self.grace) <= now
        {
            self.ended_threads.pop_front();
            if let Some(slot) = self.slots.get_mut(&pid)
                && slot.current.threads.get(&tid).is_some_and(|thread| thread.ended)
            {
                slot.current.threads.remove(&tid);
            }
        }
        self.crowded = self.count_mappings() > MAX_ALL_MAPPINGS;
        std::mem::take(&mut self.evicted)
    }

    /// Marks as ended every process that is gone without an event that said so; for use after lost events, with
    /// [`Self::queue_unknown`]. Returns their pids.
    pub fn end_missing(&mut self, now: u64) -> Vec<u32> {
        let existing = procfs::existing_pids();
        let missing = |process: &&Process| process.ended.is_none() && existing.binary_search(&process.pid).is_err();
        let pids: Vec<u32> = self.iter().filter(missing).map(|process| process.pid).collect();
        for &pid in &pids {
            self.end(pid, now);
        }
        pids
    }

    /// The living process that `event` is about, made if nobody told of it.
    fn living(&mut self, event: &Event, changes: &mut Changes) -> Option<&mut Process> {
        let living = self.slots.get(&event.pid).is_some_and(|slot| slot.current.ended.is_none());
        if !living {
            let mut process = self.blank();
            process.pid = event.pid;
            process.namespace_pid = event.pid;
            process.image_start = event.time;
            process.wants_scan = true;
            changes.created = true;
            self.install(process, event.time, changes);
        }
        self.slots.get_mut(&event.pid).map(|slot| &mut slot.current)
    }

    fn blank(&mut self) -> Process {
        Process {
            pid: 0,
            serial: 0,
            start_time_ns: 0,
            start_unix_ns: 0,
            comm: Comm::default(),
            exe: self.paths.intern(b""),
            mappings: Arc::new(MappingSet::default()),
            mappings_version: 0,
            cgroup: None,
            container_id: None,
            namespace_pid: 0,
            is_32bit: false,
            address_space: None,
            parent: 0,
            kthread: false,
            image_start: 0,
            ended: None,
            scanned_at: 0,
            live_threads: None,
            wants_scan: false,
            threads: FxHashMap::default(),
            last_event: 0,
        }
    }

    fn next_serial(&mut self) -> u32 {
        self.last_serial = self.last_serial.wrapping_add(1).max(1);
        self.last_serial
    }

    /// Makes `process` the current owner of its pid.
    fn install(&mut self, mut process: Process, now: u64, changes: &mut Changes) {
        process.serial = self.next_serial();
        changes.new_image = true;
        changes.name = true;
        let pid = process.pid;
        if process.wants_scan {
            self.queue(pid);
        }
        self.make_room();
        self.images += 1;
        let Some(slot) = self.slots.get_mut(&pid) else {
            self.slots.insert(pid, Slot::new(process));
            return;
        };
        slot.split_by_scan = false;
        let mut before = std::mem::replace(&mut slot.current, process);
        if before.ended.is_some() {
            // It is in its grave already.
            slot.past.push_back(before);
        } else {
            before.ended = Some(now);
            self.images -= 1;
            self.bury(before, now);
        }
    }

    /// Keeps an image that was replaced for as long as samples of it may come.
    fn bury(&mut self, image: Process, now: u64) {
        self.make_room();
        if let Some(slot) = self.slots.get_mut(&image.pid) {
            if slot.past.len() >= MAX_PAST
                && let Some(oldest) = slot.past.pop_front()
            {
                self.images = self.images.saturating_sub(1);
                self.evicted.push(Retired { pid: oldest.pid, serial: oldest.serial });
            }
            self.images += 1;
            self.graves.push_back((now, Retired { pid: image.pid, serial: image.serial }));
            slot.past.push_back(image);
        }
    }

    fn end(&mut self, pid: u32, time: u64) {
        if let Some(slot) = self.slots.get_mut(&pid) {
            slot.current.ended = Some(time);
            slot.current.wants_scan = false;
            self.graves.push_back((time, Retired { pid, serial: slot.current.serial }));
        }
    }

    fn forget(&mut self, retired: Retired) {
        let Some(slot) = self.slots.get_mut(&retired.pid) else { return };
        if slot.current.serial == retired.serial {
            // It may have been found alive since.
            if slot.current.ended.is_some()
                && let Some(slot) = self.slots.remove(&retired.pid)
            {
                self.images = self.images.saturating_sub(1 + slot.past.len());
                self.evicted.extend(slot.past.iter().map(|p| Retired { pid: p.pid, serial: p.serial }));
                self.evicted.push(retired);
            }
        } else if let Some(index) = slot.past.iter().position(|image| image.serial == retired.serial) {
            slot.past.remove(index);
            self.images = self.images.saturating_sub(1);
            self.evicted.push(retired);
        }
    }

    /// Drops the longest ended image while the table is full, and a batch of the quietest processes if none has ended.
    fn make_room(&mut self) {
        while self.images >= self.max_images {
            if let Some((_, retired)) = self.graves.pop_front() {
                self.forget(retired);
                continue;
            }
            let mut quiet: Vec<(u64, u32)> = self.iter().map(|p| (p.last_event.max(p.scanned_at), p.pid)).collect();
            quiet.sort_unstable();
            let batch = (self.max_images / 16).max(1);
            for (_, pid) in quiet.into_iter().take(batch) {
                if let Some(slot) = self.slots.get_mut(&pid) {
                    slot.current.ended = Some(slot.current.last_event);
                    let serial = slot.current.serial;
                    self.forget(Retired { pid, serial });
                }
            }
            if self.slots.is_empty() {
                self.images = 0;
            }
        }
    }
}

impl Slot {
    fn new(current: Process) -> Self {
        Self { current, past: VecDeque::new(), split_by_scan: false }
    }
}

struct Scan {
    stat: Stat,
    mappings: Arc<MappingSet>,
    exe: Arc<[u8]>,
    cgroup: Option<Arc<Cgroup>>,
    namespace_pid: u32,
}

/// One copy of each path: all processes of a host map the same few hundred files.
#[derive(Debug, Default)]
struct PathInterner {
    paths: FxHashSet<Arc<[u8]>>,
    bytes: usize,
    sweep_at: usize,
}

impl PathInterner {
    fn intern(&mut self, path: &[u8]) -> Arc<[u8]> {
        // The set's own slot, and the two counts before the bytes.
        const OVERHEAD: usize = 40;
        if let Some(known) = self.paths.get(path) {
            return Arc::clone(known);
        }
        if self.bytes >= self.sweep_at {
            self.paths.retain(|path| Arc::strong_count(path) > 1);
            self.bytes = self.paths.iter().map(|path| path.len() + OVERHEAD).sum();
            // Never so soon again that sweeping would be what the time goes to.
            self.sweep_at = (2 * self.bytes).clamp(64 << 10, MAX_PATH_BYTES).max(self.bytes + (64 << 10));
        }
        let path = if self.bytes > MAX_PATH_BYTES { b"" } else { path };
        if let Some(known) = self.paths.get(path) {
            return Arc::clone(known);
        }
        let path: Arc<[u8]> = Arc::from(path);
        self.bytes += path.len() + OVERHEAD;
        self.paths.insert(Arc::clone(&path));
        path
    }
}
