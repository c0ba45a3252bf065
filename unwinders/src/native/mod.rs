//! The native unwinder's tables: which mappings of which process lead to which executable's rows.
//!
//! ```text
//!  process ── mappings (sorted range) ── executable slot ── row pages ── slab rows ── rules
//!     │ published on its first sample         │ loaded on the first sample that needs it
//! ```
//!
//! The kernel half reads all this while it changes, so nothing that is published is ever rewritten: a process whose mappings
//! change gets a new range, and the old one is used again only after a second.

mod ranges;
mod rowstore;

use std::sync::Arc;

use profiler_address::{ElfVaddr, UserAddr};
use profiler_bpf::abi::{self, NO_EXECUTABLE};
use profiler_bpf::native::Walk;
use profiler_bpf::record::{Continuation, UnwindEnd, UserFrame};
use profiler_bpf::{Error, Tables};
use rustc_hash::FxHashMap;

use self::ranges::Ranges;
use self::rowstore::RowStore;
use crate::elf::ElfImage;
use crate::executable::{Executable, ExecutableId, Executables};
use crate::maps::{Backing, Mapping};
use crate::process::Process;
use crate::rows;

/// A sample that saw a range before it was replaced has long left the kernel half after this time, ns.
const REUSE_AFTER_NS: u64 = 1_000_000_000;

/// User addresses are below this, with five-level page tables too.
const USER_END: u64 = 1 << 56;

/// What the native unwinder has done and could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Executables whose rows are loaded.
    pub loaded: u64,
    /// Rows of all of them.
    pub rows: u64,
    /// Executables that could not be opened, read or understood; their code is unwound by frame pointer.
    pub failed: u64,
    /// Executables left out because the rows' byte budget or a table was full.
    pub over_budget: u64,
    /// Processes whose mappings did not fit the kernel half's tables; they are unwound in user space.
    pub unpublished: u64,
}

#[derive(Debug)]
struct Slot {
    executable: Arc<Executable>,
    loaded: bool,
}

#[derive(Debug)]
struct Published {
    serial: u32,
    version: u32,
    first: u32,
    /// What the kernel half has, for walks on this side.
    mappings: Vec<abi::Mapping>,
    /// Whether the kernel half has it.
    in_kernel: bool,
}

/// Owner of the kernel half's unwind tables.
#[derive(Debug)]
pub struct NativeUnwinder {
    tables: Tables,
    rules: rows::RuleDictionary,
    rules_written: usize,
    rows: RowStore,
    slots: Vec<Slot>,
    slot_of: FxHashMap<ExecutableId, u32>,
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
            rows: RowStore::new(row_budget),
            slots: Vec::new(),
            slot_of: FxHashMap::default(),
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
        self.stats
    }

    /// Makes what is known of `process` the kernel half's knowledge; nothing happens if it has that already.
    pub fn publish(&mut self, process: &Process, executables: &mut Executables, now: u64) {
        if let Some(published) = self.processes.get(&process.pid)
            && published.serial == process.serial
            && published.version == process.mappings_version
            && (published.in_kernel || process.address_space.is_none())
        {
            return;
        }
        let mappings: Vec<_> = process
            .mappings
            .iter()
            // The vsyscall page is an address of the kernel, which the unwinder's search takes for negative.
            .filter(|mapping| mapping.end.0 <= USER_END)
            .map(|mapping| self.resolve(process, mapping, executables))
            .collect();
        self.withdraw(process.pid, now);
        let mut published = Published {
            serial: process.serial,
            version: process.mappings_version,
            first: 0,
            mappings,
            in_kernel: false,
        };
        if process.address_space.is_some() && process.ended.is_none() {
            self.ranges.free_before(now.saturating_sub(REUSE_AFTER_NS));
            match self.write_process(process, &published.mappings) {
                Ok(first) => {
                    published.first = first;
                    published.in_kernel = true;
                }
                Err(error) => {
                    self.stats.unpublished += 1;
                    tracing::debug!(pid = process.pid, %error, "A process is unwound in user space.");
                }
            }
        }
        self.processes.insert(process.pid, published);
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
        if let Some(old) = self.processes.remove(&pid)
            && old.in_kernel
        {
            self.ranges.release(old.first, old.mappings.len() as u32, now);
        }
    }

    /// The mapping as the unwinder wants it: with the executable's slot and the bias to its ELF addresses.
    fn resolve(&mut self, process: &Process, mapping: &Mapping, executables: &mut Executables) -> abi::Mapping {
        let mut entry =
            abi::Mapping { start: mapping.start.0, end: mapping.end.0, bias: 0, executable: NO_EXECUTABLE, pad: 0 };
        if matches!(mapping.backing, Backing::Anonymous | Backing::Vsyscall) {
            return entry;
        }
        match executables.open(process, mapping) {
            Ok(executable) => {
                if let Some(vaddr) = executable.vaddr_of(mapping.offset)
                    && let Some(slot) = self.slot(&executable)
                {
                    entry.bias = mapping.start.0.wrapping_sub(vaddr.0);
                    entry.executable = slot;
                }
            }
            Err(error) => {
                self.stats.failed += 1;
                tracing::debug!(pid = process.pid, ?mapping, %error, "A mapped file cannot be opened.");
            }
        }
        entry
    }

    fn slot(&mut self, executable: &Arc<Executable>) -> Option<u32> {
        if let Some(&slot) = self.slot_of.get(&executable.id) {
            return Some(slot);
        }
        if self.slots.len() >= abi::MAX_EXECUTABLES {
            self.stats.over_budget += 1;
            return None;
        }
        let slot = self.slots.len() as u32;
        self.slots.push(Slot { executable: Arc::clone(executable), loaded: false });
        self.slot_of.insert(executable.id, slot);
        Some(slot)
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
        let Some(entry) = self.slots.get_mut(slot as usize) else { return false };
        if entry.loaded {
            return false;
        }
        entry.loaded = true;
        let executable = Arc::clone(&entry.executable);
        let published = match self.compile(&executable, executables) {
            Ok(published) => {
                self.stats.loaded += 1;
                published
            }
            Err(reason) => {
                match reason {
                    LoadError::OverBudget => self.stats.over_budget += 1,
                    _ => self.stats.failed += 1,
                }
                tracing::debug!(path = %executable.path_text(), %reason, "An executable has no unwind rows.");
                // One empty page: looked up and found to have no rows, so that frame pointers are followed.
                abi::Executable { first_page: u32::MAX, page_count: 1, page_base: 0, pad: 0 }
            }
        };
        let written = self.tables.write_executable(slot as usize, published);
        if let Err(error) = written {
            tracing::error!(%error, "An executable's rows cannot be published.");
            return false;
        }
        true
    }

    fn compile(
        &mut self,
        executable: &Executable,
        executables: &mut Executables,
    ) -> Result<abi::Executable, LoadError> {
        let bytes = executables.image(executable).map_err(|error| LoadError::Read(error.to_string()))?;
        let image = ElfImage::parse(&bytes).map_err(|error| LoadError::Parse(error.to_string()))?;
        let compiled = rows::compile(&image, &mut self.rules).map_err(|error| LoadError::Parse(error.to_string()))?;
        self.write_rules().map_err(|error| LoadError::Parse(error.to_string()))?;
        let published = self.rows.store(&mut self.tables, &compiled).ok_or(LoadError::OverBudget)?;
        self.stats.rows += compiled.rows.len() as u64;
        Ok(published)
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

    /// The executable and ELF address of `address` in a process that is published.
    #[must_use]
    pub fn locate(&self, pid: u32, address: UserAddr) -> Located {
        let Some(published) = self.processes.get(&pid) else { return Located::Nowhere };
        let Some(mapping) = find(&published.mappings, address) else { return Located::Nowhere };
        match self.slots.get(mapping.executable as usize) {
            Some(slot) => {
                Located::Executable(Arc::clone(&slot.executable), ElfVaddr(address.0.wrapping_sub(mapping.bias)))
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
    #[error("the row tables are full")]
    OverBudget,
}

fn find(mappings: &[abi::Mapping], address: UserAddr) -> Option<abi::Mapping> {
    let after = mappings.partition_point(|mapping| mapping.start <= address.0);
    let mapping = *mappings.get(after.checked_sub(1)?)?;
    (address.0 < mapping.end).then_some(mapping)
}
