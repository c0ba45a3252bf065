//! The table of processes, moved through time by events.
//!
//! ```text
//! pid 17:  past ───────────────────────────────┐┌ current ──────────────────
//!          serial 3: sh      serial 4: env      serial 5: python3
//!          fork ──── exec ─ ─ ─ ─ ─ ─ exec ─ ─ ─ ─ ─ exit      grace   retired
//!          image_start        image_start          image_start   ended
//! ```

mod events;
mod paths;
mod scan;

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::procfs;
use super::{Cgroup, Clock, Comm, Process};
use crate::maps::{Mapping, MappingSet};
use paths::PathInterner;

/// Images (living, ended and replaced) kept by default: 13 MiB of them with eight mappings each.
const MAX_IMAGES: usize = 16_384;
/// `/proc` cuts start times to 10 ms, and a fork's event is a little later than the start that the kernel notes. A pid is not
/// used again within this time: the kernel takes all others first.
const SAME_START_NS: u64 = 250_000_000;
/// Earlier images kept of one pid: who executes in a loop must not push out the past of others.
const MAX_PAST: usize = 16;
/// Mappings of all images together. Beyond it, processes with more than [`MAX_MAPPINGS_WHEN_CROWDED`] get no more.
const MAX_ALL_MAPPINGS: usize = 1 << 18;
/// Counting walks over all images.
const COUNT_EVERY_NS: u64 = 1_000_000_000;
/// See [`MAX_ALL_MAPPINGS`].
const MAX_MAPPINGS_WHEN_CROWDED: usize = 1024;
/// Ended processes and replaced images are kept this long by default: the longest that a sample may be late, ns.
const GRACE_NS: u64 = 5_000_000_000;

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
    evicted: Vec<Retired>,
    to_scan: VecDeque<u32>,
    queued: FxHashSet<u32>,
    paths: PathInterner,
    cgroups: FxHashMap<Arc<str>, Arc<Cgroup>>,
    /// There are more mappings than [`MAX_ALL_MAPPINGS`]; [`Self::retire`] counts them anew, at most once a second.
    crowded: bool,
    mapped_since_count: usize,
    counted_at: u64,
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
            evicted: Vec::new(),
            to_scan: VecDeque::new(),
            queued: FxHashSet::default(),
            paths: PathInterner::default(),
            cgroups: FxHashMap::default(),
            crowded: false,
            mapped_since_count: 0,
            counted_at: 0,
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
        self.images * size_of::<Process>()
            + self.slots.capacity() * (size_of::<Slot>() - size_of::<Process>() + 8)
            + self.count_mappings() * size_of::<Mapping>()
            + self.paths.bytes
            + self.graves.capacity() * size_of::<(u64, Retired)>()
            + self.cgroups.keys().map(|path| 2 * path.len() + size_of::<Cgroup>()).sum::<usize>()
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

    /// Forgets images that ended, or were replaced, longer than the grace before `now` (`CLOCK_MONOTONIC`, ns), and names all that
    /// are gone since the last call.
    pub fn retire(&mut self, now: u64) -> Vec<Retired> {
        while let Some(&(time, retired)) = self.graves.front()
            && time.saturating_add(self.grace) <= now
        {
            self.graves.pop_front();
            self.forget(retired);
        }
        let much = self.crowded || self.mapped_since_count >= MAX_ALL_MAPPINGS / 16;
        if much && now.saturating_sub(self.counted_at) >= COUNT_EVERY_NS {
            self.crowded = self.count_mappings() > MAX_ALL_MAPPINGS;
            self.mapped_since_count = 0;
            self.counted_at = now;
        }
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
            container_inherited: true,
            namespace_pid: 0,
            address_space: None,
            parent: 0,
            kthread: false,
            image_start: 0,
            ended: None,
            scanned_at: 0,
            live_threads: None,
            wants_scan: false,
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
