//! The native unwinder: which rows of which executable the kernel half has.
//!
//! ```text
//!  mapping ── executable slot ── row pages ── slab rows ── rules
//!                   │ loaded on the first sample that needs it
//! ```
//!
//! It is the first of the runtimes, and the one that all others go back to: its loader takes every ELF file, its instance holds, for a
//! process, the slot under which the kernel half knows the executable.
//!
//! The kernel half reads the tables while they change: rows make room for others only when nothing leads to them any more and every
//! program that may have been reading them has ended.

mod pages;
mod rowstore;
mod slots;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use profiler_address::UserAddr;
use profiler_bpf::abi::{self, FrameKind};
use profiler_bpf::native::{self, Walk};
use profiler_bpf::record::{Continuation, UnwindEnd, UserFrame};
use profiler_bpf::{Error, RowTables};

use self::slots::Slots;
use crate::executable::{Executable, ExecutableId};
use crate::maps::Mapping;
use crate::process::{Clock, Process};
use crate::reading::{Reading, RowsError};
use crate::rows;
use crate::runtime::{self, Instance, Loader, Piece, RowsAt, RuntimeError, Runtimes};

/// What the native unwinder has done and could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Executables whose rows were loaded; again, if they had made room for others.
    pub loaded: u64,
    /// Rows of all of them.
    pub rows: u64,
    /// Executables whose rows made room for others.
    pub evicted: u64,
    /// Executables that could not be read or understood; their code is unwound by frame pointer.
    pub failed: u64,
    /// Times that rows were left out because the byte budget or a table was full of what is in use.
    pub over_budget: u64,
    /// Times that rows waited for memory that the kernel half can read; samples wait then, too.
    pub waited: u64,
}

/// How many entries of the native unwinder's tables are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowUse {
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

/// Owner of the row tables; clones share them.
#[derive(Clone, Debug)]
pub struct Native(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    tables: RowTables,
    rules: rows::RuleDictionary,
    rules_written: usize,
    slots: Slots,
    stats: Stats,
}

impl Native {
    /// Fills `tables`, with at most `row_budget` bytes of rows.
    ///
    /// # Errors
    /// The tables cannot be written.
    pub fn new(tables: RowTables, row_budget: usize) -> Result<Self, Error> {
        let mut shared = Shared {
            tables,
            rules: rows::RuleDictionary::new(),
            rules_written: 0,
            slots: Slots::new(row_budget),
            stats: Stats::default(),
        };
        shared.write_rules()?;
        shared.slots.store.order(&mut shared.tables);
        Ok(Self(Arc::new(Mutex::new(shared))))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done and what was not.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = self.lock();
        Stats { evicted: shared.slots.evicted, waited: shared.tables.waited(), ..shared.stats }
    }

    /// How full the tables are.
    #[must_use]
    pub fn table_use(&self) -> RowUse {
        let shared = self.lock();
        RowUse {
            executables: shared.slots.len(),
            loaded: shared.slots.loaded(),
            row_pages: shared.slots.store.used_pages(),
            rows: shared.slots.store.used_rows(),
            slabs: shared.slots.store.slab_count(),
            rules: shared.rules.len(),
        }
    }

    /// Bytes of rows, in memory that is shared with the kernel half.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.lock().slots.store.bytes()
    }

    /// Bytes of what this side keeps, to within some per cent.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let shared = self.lock();
        shared.rules.len() * 2 * size_of::<abi::Rule>() + shared.slots.len() * 128
    }

    /// Whether rows will soon have to make room for others; then [`Self::touch`] what is sampled.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.lock().slots.is_tight()
    }

    /// Notes that an executable was sampled, where [`Self::locate`] was not asked.
    pub fn touch(&self, executable: ExecutableId, now: u64) {
        self.lock().slots.touch(executable, now);
    }

    /// The executable in `slot`; its rows count as used.
    #[must_use]
    pub fn locate(&self, slot: u32, now: u64) -> Option<Arc<Executable>> {
        self.lock().slots.locate(slot, now).map(Arc::clone)
    }

    /// Loads the rows of what these mappings name, so that the first sample finds them.
    pub fn preload(&self, mappings: &[abi::Mapping], reading: &mut dyn Reading) {
        let mut shared = self.lock();
        for mapping in mappings {
            shared.load(mapping.executable, reading);
        }
    }

    /// Loads the rows of an executable that a process is about to map.
    pub fn expect(&self, executable: &Arc<Executable>, reading: &mut dyn Reading, now: u64) {
        let mut shared = self.lock();
        if !executable.segments.is_empty()
            && let Some(slot) = shared.slots.slot_of(executable, now)
        {
            shared.load(slot, reading);
        }
    }

    /// Whether any of the executable's code is in `mapping`.
    #[must_use]
    pub fn has_code(&self, mapping: &abi::Mapping) -> bool {
        let shared = self.lock();
        let range = shared.slots.executable(mapping.executable).and_then(|executable| executable.code_range());
        let start = mapping.start.wrapping_sub(mapping.bias);
        range.is_some_and(|(first, end)| start < end.0 && start.saturating_add(mapping.end - mapping.start) > first.0)
    }

    /// Walks on from where the kernel half stopped, over its copy of the stack, and appends to `frames`. Rows that are missing
    /// are loaded, here and for the kernel half. [`UnwindEnd::NoMapping`] leaves `walk` at the frame that is nowhere, so
    /// that it can be tried again when more is known. The frames of `runtimes` are followed through the memory of `pid` as it is now;
    /// those of an [`EvalLoop`](runtime::EvalLoop) are not.
    pub fn walk(
        &self,
        (pid, mappings, runtimes): (u32, &[abi::Mapping], &Runtimes),
        reading: &mut dyn Reading,
        walk: &mut Walk,
        (from, stack): (&Continuation, &[u8]),
        frames: &mut Vec<UserFrame>,
    ) -> UnwindEnd {
        let mut shared = self.lock();
        let mappings: Vec<abi::Mapping> = mappings.iter().map(without_loops).collect();
        let mappings = mappings.as_slice();
        let mut pages = mappings.iter().any(|mapping| mapping.unwinder != 0).then(|| pages::Pages::new(pid));
        loop {
            let tables = &shared.tables;
            let end = runtimes.with_table(|instances| {
                let mut read =
                    |address, bytes: &mut [u8]| pages.as_mut().is_some_and(|pages| pages.read(reading, address, bytes));
                let runtimes = native::Runtimes { instances, read: &mut read };
                walk.run(tables, mappings, from.sp, stack, Some(runtimes), frames)
            });
            if end != UnwindEnd::NotLoaded {
                return end;
            }
            let Some(mapping) = find(mappings, walk.lookup_address()) else { return UnwindEnd::NoMapping };
            if !shared.load(mapping.executable, reading) {
                return end;
            }
        }
    }
}

impl Shared {
    /// Loads the rows of the executable in `slot`; false if that had been done before, so that nothing would change.
    fn load(&mut self, slot: u32, reading: &mut dyn Reading) -> bool {
        if !self.slots.is_missing(slot) {
            return false;
        }
        let Some(executable) = self.slots.executable(slot).map(Arc::clone) else { return false };
        match self.compile(&executable, reading) {
            Ok(compiled) => {
                if self.slots.load(&mut self.tables, slot, &compiled, Clock::monotonic_now()) {
                    self.stats.loaded += 1;
                    self.stats.rows += compiled.rows.len() as u64;
                } else {
                    self.stats.over_budget += 1;
                    tracing::debug!(path = %executable.path_text(), rows = compiled.rows.len(), "Unwind rows have no room.");
                }
            }
            Err(RowsError::NotNow(reason)) => {
                tracing::debug!(path = %executable.path_text(), %reason, "An executable's unwind rows have to wait.");
                self.slots.refuse(&mut self.tables, slot, Clock::monotonic_now());
            }
            Err(RowsError::None(reason)) => {
                self.stats.failed += 1;
                tracing::debug!(path = %executable.path_text(), %reason, "An executable has no unwind rows.");
                self.slots.set_none(&mut self.tables, slot);
            }
        }
        true
    }

    fn compile(&mut self, executable: &Executable, reading: &mut dyn Reading) -> Result<rows::UnwindRows, RowsError> {
        let limit = usize::try_from(self.slots.store.capacity()).unwrap_or(usize::MAX);
        let compiled = reading.rows(executable, limit)?;
        let rows = compiled.adopt(&mut self.rules).map_err(|error| RowsError::None(error.to_string()))?;
        self.write_rules().map_err(|error| RowsError::None(error.to_string()))?;
        Ok(rows)
    }

    fn write_rules(&mut self) -> Result<(), Error> {
        let rules = self.rules.rules();
        if let Some(new) = rules.get(self.rules_written..) {
            self.tables.write_rules(self.rules_written, new)?;
            self.rules_written = rules.len();
        }
        Ok(())
    }
}

impl Loader for Native {
    fn kind(&self) -> FrameKind {
        FrameKind::NATIVE
    }

    /// Every 64-bit ELF file; its rows are compiled when a sample needs them.
    fn attach(
        &mut self,
        executable: &Arc<Executable>,
        _: &Process,
        _: &mut dyn Reading,
        now: u64,
    ) -> Result<Option<Box<dyn Instance>>, RuntimeError> {
        if executable.segments.is_empty() {
            return Ok(None);
        }
        let mut shared = self.lock();
        let Some(slot) = shared.slots.slot_of(executable, now) else {
            shared.stats.over_budget += 1;
            return Err(RuntimeError::TableFull("executable"));
        };
        shared.slots.hold(slot);
        drop(shared);
        Ok(Some(Box::new(NativeInstance { native: self.clone(), executable: Arc::clone(executable), slot })))
    }

    /// Frees what no process has mapped for a while.
    fn tidy(&mut self, now: u64) {
        let mut shared = self.lock();
        let Shared { slots, tables, .. } = &mut *shared;
        slots.tidy(tables, now);
        slots.store.order(tables);
    }
}

/// A process that maps the executable, which has a slot.
#[derive(Debug)]
struct NativeInstance {
    native: Native,
    executable: Arc<Executable>,
    slot: u32,
}

impl Instance for NativeInstance {
    fn pieces(&mut self, _: &Process, own: &[&Mapping], _: &mut dyn Reading, _: u64) -> Vec<Piece> {
        let piece = |mapping: &&Mapping| {
            let bias = self.executable.bias_of(mapping)?;
            let rows = RowsAt { slot: self.slot, bias };
            Some(Piece { start: mapping.start, end: mapping.end, rows: Some(rows), instance: 0 })
        };
        own.iter().filter_map(piece).collect()
    }

    /// Its frames are addresses, which are named by symbols.
    fn opaque(&self) -> Option<&[u8]> {
        None
    }

    fn detach(self: Box<Self>, now: u64) {
        self.native.lock().slots.release(self.slot, now);
    }
}

/// A mapping, as of native code if an interpreter's loop is there.
fn without_loops(mapping: &abi::Mapping) -> abi::Mapping {
    let is_loop = loop_of(mapping).is_some();
    abi::Mapping { unwinder: if is_loop { 0 } else { mapping.unwinder }, ..*mapping }
}

/// The interpreter whose loop a mapping is; what it has made itself is none.
pub(crate) fn loop_of(mapping: &abi::Mapping) -> Option<runtime::EvalLoop> {
    runtime::eval_loop(kind_of(mapping)).filter(|_| mapping.executable != abi::NO_EXECUTABLE)
}

/// Whose code a mapping is.
pub(crate) fn kind_of(mapping: &abi::Mapping) -> FrameKind {
    FrameKind::new((mapping.unwinder & 0xff) as u8).unwrap_or(FrameKind::NATIVE)
}

/// The mapping that `address` is in.
pub(crate) fn find(mappings: &[abi::Mapping], address: UserAddr) -> Option<abi::Mapping> {
    let after = mappings.partition_point(|mapping| mapping.start <= address.0);
    let mapping = *mappings.get(after.checked_sub(1)?)?;
    (address.0 < mapping.end).then_some(mapping)
}
