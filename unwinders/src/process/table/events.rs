//! What each event of the side band does to the table.

use std::sync::Arc;

use profiler_address::UserAddr;
use profiler_bpf::sideband::{Event, Kind, Mmap};

use super::{Changes, MAX_MAPPINGS_WHEN_CROWDED, ProcessTable, SAME_START_NS, Slot};
use crate::maps::{Backing, FileId, Mapping};
use crate::process::{Comm, Process};

impl ProcessTable {
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
        child.container_inherited = true;
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
            current.kthread = false;
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
        // Samples bring their threads' names with them.
        if event.tid == event.pid && event.time >= process.scanned_at {
            process.comm = comm;
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
        let mapping = Mapping { start: mmap.start, end: UserAddr(end), offset, backing };
        let crowded = self.crowded;
        let Some(process) = self.living(event, changes) else { return };
        // The scan is newer, but a mapping may have come and gone before it: what it says nothing of is still worth knowing.
        if event.time < process.scanned_at && process.mappings.overlaps(mapping.start, mapping.end) {
            return;
        }
        if crowded && process.mappings.len() >= MAX_MAPPINGS_WHEN_CROWDED {
            self.refused_mappings += 1;
            return;
        }
        let mut mapping = mapping;
        if mapping.backing == Backing::Anonymous
            && let Some(old) = process.mappings.find(mapping.start)
            && old.file().is_some()
            && mapping.end <= old.end
        {
            mapping.backing = Backing::Replaced(Arc::new(old.clone()));
        }
        // The first file that an exec maps is the program, the second its loader (load_elf_binary in fs/binfmt_elf.c).
        if process.exe.is_empty()
            && let Backing::File(_, path) = &mapping.backing
        {
            process.exe = Arc::clone(path);
        }
        let refused = process.mappings.refused();
        if Arc::make_mut(&mut process.mappings).insert(mapping) {
            process.mappings_version = process.mappings_version.wrapping_add(1);
            changes.mappings = true;
            self.mapped_since_count += 1;
        } else {
            self.refused_mappings += process.mappings.refused() - refused;
        }
    }

    fn exited(&mut self, event: &Event, changes: &mut Changes) {
        let Some(slot) = self.slots.get_mut(&event.pid) else { return };
        let process = &mut slot.current;
        if process.ended.is_some() || event.time < process.image_start {
            return;
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
}
