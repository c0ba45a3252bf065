//! The native unwinder's tables: which mappings of which process lead to which executable's rows.
//!
//! ```text
//!  process ── mappings (sorted range) ── executable slot ── row pages ── slab rows ── rules
//!     │ published on its first sample         │ loaded on the first sample that needs it
//! ```
//!
//! The kernel half reads all this while it changes, so nothing that is published is rewritten while it may be read: a process whose
//! mappings change gets a new range, and the old one is used again only after a second; rows make room for others only when nothing
//! leads to them any more and every program that may have been reading them has ended.

mod ranges;
mod rowstore;
mod slots;

use std::sync::Arc;

use profiler_address::{ElfVaddr, UserAddr};
use profiler_bpf::abi::{self, NO_EXECUTABLE};
use profiler_bpf::native::Walk;
use profiler_bpf::record::{Continuation, UnwindEnd, UserFrame};
use profiler_bpf::{Error, Tables};
use rustc_hash::FxHashMap;

use self::ranges::Ranges;
use self::slots::Slots;
use crate::executable::{Executable, ExecutableId, Executables};
use crate::maps::{Backing, FileId, Mapping};
use crate::process::{AddressSpace, Clock, Process};
use crate::rows;

/// A sample that saw a range before it was replaced has long left the kernel half after this time, ns.
const REUSE_AFTER_NS: u64 = 1_000_000_000;

/// User addresses are below this, with five-level page tables too.
const USER_END: u64 = 1 << 56;

/// Of one process, the kernel half gets this many mappings at most; what is in no other is unwound in user space.
const MAX_PUBLISHED: usize = abi::MAX_MAPPINGS / 4;
/// Processes with more mappings than this have those joined that differ in nothing but a gap.
const JOIN_ABOVE: usize = 1024;

/// What the native unwinder has done and could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Executables whose rows were loaded; again, if they had made room for others.
    pub loaded: u64,
    /// Rows of all of them.
    pub rows: u64,
    /// Executables whose rows made room for others.
    pub evicted: u64,
    /// Executables that could not be opened, read or understood; their code is unwound by frame pointer.
    pub failed: u64,
    /// Times that rows were left out because the byte budget or a table was full of what is in use.
    pub over_budget: u64,
    /// Times that a process's mappings did not all fit the kernel half's tables; what is in the others is unwound in user space.
    pub unpublished: u64,
}

/// How many entries of the kernel half's tables are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableUse {
    /// Processes, counted in the kernel.
    pub processes: usize,
    /// Mappings, those included that rest before they are used again.
    pub mappings: usize,
    /// Executables that are mapped, or were a moment ago.
    pub executables: usize,
    /// Those of them that have rows.
    pub loaded: usize,
    /// 64 KiB pages of ELF address space.
    pub row_pages: usize,
    /// Rows.
    pub rows: u64,
    /// Slabs of 65,536 rows, which stay once they were needed.
    pub slabs: usize,
    /// Rules, which stay too.
    pub rules: usize,
}

#[derive(Debug)]
struct Published {
    serial: u32,
    version: u32,
    space: Option<AddressSpace>,
    /// For walks on this side; the kernel half may have fewer.
    mappings: Vec<abi::Mapping>,
    /// First and number of those that the kernel half has; none if it does not know the process.
    range: Option<(u32, u32)>,
}

/// Owner of the kernel half's unwind tables.
#[derive(Debug)]
pub struct NativeUnwinder {
    tables: Tables,
    rules: rows::RuleDictionary,
    rules_written: usize,
    slots: Slots,
    processes: FxHashMap<u32, Published>,
    ranges: Ranges,
    next_serial: u32,
    stats: Stats,
}

impl NativeUnwinder {
    /// Fills `tables`, with at most `row_budget` bytes of rows.
    ///
    /// # Errors
    /// The tables cannot be written.
    pub fn new(tables: Tables, row_budget: usize) -> Result<Self, Error> {
        let mut unwinder = Self {
            tables,
            rules: rows::RuleDictionary::new(),
            rules_written: 0,
            slots: Slots::new(row_budget),
            processes: FxHashMap::default(),
            ranges: Ranges::new(abi::MAX_MAPPINGS as u32),
            next_serial: 1,
            stats: Stats::default(),
        };
        unwinder.write_rules()?;
        Ok(unwinder)
    }

    /// What was done and what was not.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        Stats { evicted: self.slots.evicted, ..self.stats }
    }

    /// How full the tables are.
    #[must_use]
    pub fn table_use(&self) -> TableUse {
        TableUse {
            processes: self.tables.process_count(),
            mappings: abi::MAX_MAPPINGS - self.ranges.available() as usize,
            executables: self.slots.len(),
            loaded: self.slots.loaded(),
            row_pages: self.slots.store.used_pages(),
            rows: self.slots.store.used_rows(),
            slabs: self.slots.store.slab_count(),
            rules: self.rules.len(),
        }
    }

    /// Bytes of rows, in memory that is shared with the kernel half.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.slots.store.bytes()
    }

    /// Bytes of what this side keeps, to within some per cent.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let mappings: usize = self.processes.values().map(|published| published.mappings.capacity()).sum();
        mappings * size_of::<abi::Mapping>()
            + self.processes.capacity() * (size_of::<(u32, Published)>() + 1)
            + self.rules.len() * 2 * size_of::<abi::Rule>()
            + self.slots.len() * 128
    }

    /// Gives back what is no longer needed; to be called about once a second.
    pub fn tidy(&mut self, now: u64) {
        self.ranges.free_before(now.saturating_sub(REUSE_AFTER_NS));
        self.slots.tidy(&mut self.tables, now);
    }

    /// Whether rows will soon have to make room for others; then [`Self::touch`] what is sampled.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.slots.is_tight()
    }

    /// Notes that an executable was sampled, where [`Self::locate`] was not asked.
    pub fn touch(&mut self, executable: ExecutableId, now: u64) {
        self.slots.touch(executable, now);
    }

    /// Makes what is known of `process` the kernel half's knowledge; nothing happens if it has that already.
    pub fn publish(&mut self, process: &Process, executables: &mut Executables, now: u64) {
        if let Some(published) = self.processes.get(&process.pid)
            && published.serial == process.serial
            && published.version == process.mappings_version
            && published.space == process.address_space
        {
            return;
        }
        let mappings = self.resolve_all(process, executables, now);
        self.slots.hold(&mappings);
        self.withdraw(process.pid, now);
        let mut published = Published {
            serial: process.serial,
            version: process.mappings_version,
            space: process.address_space,
            range: None,
            mappings,
        };
        if process.address_space.is_some() && process.ended.is_none() {
            self.ranges.free_before(now.saturating_sub(REUSE_AFTER_NS));
            let most = self.most_useful(&published.mappings);
            self.stats.unpublished += u64::from(most.is_some());
            let mappings = most.as_deref().unwrap_or(&published.mappings);
            match self.write_process(process, mappings) {
                Ok(first) => published.range = Some((first, mappings.len() as u32)),
                Err(error) => {
                    // What is known of it there is at a range that others will get.
                    self.tables.remove_process(process.pid);
                    self.stats.unpublished += 1;
                    tracing::debug!(pid = process.pid, %error, "A process is unwound in user space.");
                }
            }
        }
        self.processes.insert(process.pid, published);
    }

    /// If there are more mappings than the kernel half gets: those that hold code, and the larger of them first.
    fn most_useful(&self, mappings: &[abi::Mapping]) -> Option<Vec<abi::Mapping>> {
        if mappings.len() <= MAX_PUBLISHED {
            return None;
        }
        let is_code = |mapping: &abi::Mapping| {
            let range = self.slots.executable(mapping.executable).and_then(|executable| executable.code_range());
            let start = mapping.start.wrapping_sub(mapping.bias);
            range.is_some_and(|(first, end)| {
                start < end.0 && start.saturating_add(mapping.end - mapping.start) > first.0
            })
        };
        let mut most = mappings.to_vec();
        most.sort_by_cached_key(|mapping| std::cmp::Reverse((is_code(mapping), mapping.end - mapping.start)));
        most.truncate(MAX_PUBLISHED);
        most.sort_unstable_by_key(|mapping| mapping.start);
        Some(most)
    }

    fn write_process(&mut self, process: &Process, mappings: &[abi::Mapping]) -> Result<u32, Error> {
        let count = mappings.len() as u32;
        let full = Error::TableFull { table: "mapping", capacity: abi::MAX_MAPPINGS };
        let first = self.ranges.allocate(count).ok_or(full)?;
        let serial = self.next_serial;
        self.next_serial = self.next_serial.checked_add(1).unwrap_or(1);
        let space = process.address_space.unwrap_or_default();
        let entry =
            abi::Process { start_code: space.start_code, start_stack: space.start_stack, serial, first, count, pad: 0 };
        let written = self.tables.write_mappings(first as usize, mappings);
        written.and_then(|()| self.tables.set_process(process.pid, &entry)).inspect_err(|_| {
            self.ranges.release(first, count, 0);
        })?;
        Ok(first)
    }

    /// Forgets a process that has ended.
    pub fn forget(&mut self, pid: u32, now: u64) {
        self.withdraw(pid, now);
        self.tables.remove_process(pid);
    }

    fn withdraw(&mut self, pid: u32, now: u64) {
        if let Some(old) = self.processes.remove(&pid) {
            self.slots.release(&old.mappings, now);
            if let Some((first, count)) = old.range {
                self.ranges.release(first, count, now);
            }
        }
    }

    /// All mappings as the unwinder wants them.
    fn resolve_all(&mut self, process: &Process, executables: &mut Executables, now: u64) -> Vec<abi::Mapping> {
        let many = process.mappings.len() > JOIN_ABOVE;
        let mut all: Vec<abi::Mapping> = Vec::new();
        // Looking at a file takes a system call, and neighbours often map the same.
        let mut last: Option<(FileId, Arc<Executable>)> = None;
        // The vsyscall page is an address of the kernel, which the unwinder's search takes for negative.
        for mapping in process.mappings.iter().filter(|mapping| mapping.end.0 <= USER_END) {
            let file = mapping.file().map(|(file, _)| file);
            let known = last.as_ref().filter(|(known, _)| Some(*known) == file).map(|(_, known)| Arc::clone(known));
            let executable = known.or_else(|| self.open(process, mapping, executables));
            last = file.zip(executable.clone());
            let entry = self.resolve(mapping, executable.as_ref(), now);
            // In a gap nothing is executed, so nothing is looked up.
            let joins = |before: &&mut abi::Mapping| (before.executable, before.bias) == (entry.executable, entry.bias);
            match all.last_mut().filter(joins).filter(|_| many) {
                Some(before) => before.end = entry.end,
                None => all.push(entry),
            }
        }
        all
    }

    fn open(&mut self, process: &Process, mapping: &Mapping, executables: &mut Executables) -> Option<Arc<Executable>> {
        if matches!(mapping.backing, Backing::Anonymous | Backing::Vsyscall) {
            return None;
        }
        executables
            .open(process, mapping)
            .inspect_err(|error| {
                self.stats.failed += 1;
                tracing::debug!(pid = process.pid, ?mapping, %error, "A mapped file cannot be opened.");
            })
            .ok()
    }

    /// The mapping as the unwinder wants it: with the executable's slot and the bias to its ELF addresses.
    fn resolve(&mut self, mapping: &Mapping, executable: Option<&Arc<Executable>>, now: u64) -> abi::Mapping {
        let mut entry =
            abi::Mapping { start: mapping.start.0, end: mapping.end.0, bias: 0, executable: NO_EXECUTABLE, pad: 0 };
        if let Some(executable) = executable
            && let Some(vaddr) = executable.vaddr_of(mapping.offset)
        {
            match self.slots.slot_of(executable, now) {
                Some(slot) => {
                    entry.bias = mapping.start.0.wrapping_sub(vaddr.0);
                    entry.executable = slot;
                }
                None => self.stats.over_budget += 1,
            }
        }
        entry
    }

    /// Walks on from where the kernel half stopped, over its copy of the stack, and appends to `frames`. Rows that are missing
    /// are loaded, here and for the kernel half. [`UnwindEnd::NoMapping`] leaves `walk` at the frame that is nowhere, so
    /// that it can be tried again when more is known.
    pub fn walk(
        &mut self,
        process: &Process,
        executables: &mut Executables,
        walk: &mut Walk,
        (from, stack): (&Continuation, &[u8]),
        frames: &mut Vec<UserFrame>,
    ) -> UnwindEnd {
        let Some(published) = self.processes.remove(&process.pid) else { return UnwindEnd::UnknownProcess };
        let end = loop {
            let end = walk.run(&self.tables, &published.mappings, from.sp, stack, frames);
            if end != UnwindEnd::NotLoaded {
                break end;
            }
            let address = walk.frame().lookup_address();
            let Some(mapping) = find(&published.mappings, address) else { break UnwindEnd::NoMapping };
            if !self.load(mapping.executable, executables) {
                break end;
            }
        };
        self.processes.insert(process.pid, published);
        end
    }

    /// Loads the rows of the executable in `slot`; false if that had been done before, so that nothing would change.
    fn load(&mut self, slot: u32, executables: &mut Executables) -> bool {
        if !self.slots.is_missing(slot) {
            return false;
        }
        let Some(executable) = self.slots.executable(slot).map(Arc::clone) else { return false };
        match self.compile(&executable, executables) {
            Ok(compiled) => {
                if self.slots.load(&mut self.tables, slot, &compiled, Clock::monotonic_now()) {
                    self.stats.loaded += 1;
                    self.stats.rows += compiled.rows.len() as u64;
                } else {
                    self.stats.over_budget += 1;
                    tracing::debug!(path = %executable.path_text(), rows = compiled.rows.len(), "Unwind rows have no room.");
                }
            }
            Err(reason) => {
                self.stats.failed += 1;
                tracing::debug!(path = %executable.path_text(), %reason, "An executable has no unwind rows.");
                self.slots.set_none(&mut self.tables, slot);
            }
        }
        true
    }

    fn compile(
        &mut self,
        executable: &Executable,
        executables: &mut Executables,
    ) -> Result<rows::UnwindRows, LoadError> {
        let bytes = executables.image(executable).map_err(|error| LoadError::Read(error.to_string()))?;
        let compiled =
            rows::compile(&bytes.image(), &mut self.rules).map_err(|error| LoadError::Parse(error.to_string()))?;
        self.write_rules().map_err(|error| LoadError::Parse(error.to_string()))?;
        if compiled.page_starts.len() < 2 {
            return Err(LoadError::Parse("it has no unwind information".to_owned()));
        }
        Ok(compiled)
    }

    fn write_rules(&mut self) -> Result<(), Error> {
        let rules = self.rules.rules();
        if let Some(new) = rules.get(self.rules_written..) {
            self.tables.write_rules(self.rules_written, new)?;
            self.rules_written = rules.len();
        }
        Ok(())
    }

    /// Loads the rows of everything that `pid` maps and is published, so that its first sample finds them.
    pub fn preload(&mut self, pid: u32, executables: &mut Executables) {
        let Some(published) = self.processes.get(&pid) else { return };
        let slots: Vec<u32> = published.mappings.iter().map(|mapping| mapping.executable).collect();
        for slot in slots {
            self.load(slot, executables);
        }
    }

    /// Whether anything is published of this pid.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// The executable and ELF address of `address` in a process that is published; its rows count as used.
    #[must_use]
    pub fn locate(&mut self, pid: u32, address: UserAddr, now: u64) -> Located {
        let Some(published) = self.processes.get(&pid) else { return Located::Nowhere };
        let Some(mapping) = find(&published.mappings, address) else { return Located::Nowhere };
        match self.slots.locate(mapping.executable, now) {
            Some(executable) => {
                Located::Executable(Arc::clone(executable), ElfVaddr(address.0.wrapping_sub(mapping.bias)))
            }
            None => Located::Other,
        }
    }
}

/// What lies at an address of a process.
#[derive(Clone, Debug)]
pub enum Located {
    /// Code of a file, at an ELF address.
    Executable(Arc<Executable>, ElfVaddr),
    /// Executable memory that is anonymous, made by a JIT most likely, or of a file that could not be opened.
    Other,
    /// No executable mapping that we know.
    Nowhere,
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot be read: {0}")]
    Read(String),
    #[error("{0}")]
    Parse(String),
}

fn find(mappings: &[abi::Mapping], address: UserAddr) -> Option<abi::Mapping> {
    let after = mappings.partition_point(|mapping| mapping.start <= address.0);
    let mapping = *mappings.get(after.checked_sub(1)?)?;
    (address.0 < mapping.end).then_some(mapping)
}
