//! Executables by the index that the kernel half knows them by, and their rows.
//!
//! ```text
//! slot   free ─ mapped by a process ─> not loaded ─ sampled ─> loaded ─ least recently used ─> not loaded
//!          ^                                                     │  or refused, tried again after a while
//!          └────── no process maps it for KEEP_UNUSED ──────────┘
//! ```

use std::sync::Arc;

use profiler_bpf::RowTables;
use profiler_bpf::abi::{self, MAX_EXECUTABLES};
use rustc_hash::FxHashMap;

use super::rowstore::{Placed, Refused, RowStore};
use crate::executable::{Executable, ExecutableId};
use crate::rows::UnwindRows;

/// An executable that no process maps keeps its slot and rows for this long, ns: it may be started again.
const KEEP_UNUSED_NS: u64 = 15_000_000_000;
/// Rows that were used within this time are in use, ns.
const IN_USE_NS: u64 = 2_000_000_000;
/// Rows in use make room at most once in this time, ns: where the budget is too small for what runs, loading the same rows in turn
/// must not be what the time goes to.
const TURN_NS: u64 = 1_000_000_000;
/// What was refused is tried again after this time, ns.
const RETRY_NS: u64 = 2_000_000_000;
/// Looked up and found to have no rows, so that frame pointers are followed.
const EMPTY: abi::Executable = abi::Executable { first_page: u32::MAX, page_count: 1, page_base: 0, pad: 0 };
/// Not loaded: the kernel half asks for it.
const MISSING: abi::Executable = abi::Executable { first_page: 0, page_count: 0, page_base: 0, pad: 0 };

#[derive(Debug)]
enum Rows {
    Missing,
    Loaded(Placed),
    /// It has none, or they cannot be read.
    None,
    /// There was no room, or they were not to be had, at that time, ns.
    Refused(u64),
}

#[derive(Debug)]
struct Slot {
    executable: Arc<Executable>,
    rows: Rows,
    /// Processes that map it.
    processes: u32,
    /// When it was located last, or lost its last process, ns.
    used: u64,
}

/// All slots.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_id: FxHashMap<ExecutableId, u32>,
    pub(super) store: RowStore,
    loaded: usize,
    /// When rows in use made room, ns.
    last_turn: u64,
    /// Executables whose rows made room for others.
    pub(super) evicted: u64,
}

impl Slots {
    pub(super) fn new(row_budget: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: FxHashMap::default(),
            store: RowStore::new(row_budget),
            loaded: 0,
            last_turn: 0,
            evicted: 0,
        }
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Executables with rows.
    pub(super) fn loaded(&self) -> usize {
        self.loaded
    }

    /// The slot of `executable`, a new one if need be; `None` if there is none left.
    pub(super) fn slot_of(&mut self, executable: &Arc<Executable>, now: u64) -> Option<u32> {
        if let Some(&slot) = self.by_id.get(&executable.id) {
            return Some(slot);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < MAX_EXECUTABLES => {
                self.slots.push(None);
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let place = self.slots.get_mut(slot as usize)?;
        *place = Some(Slot { executable: Arc::clone(executable), rows: Rows::Missing, processes: 0, used: now });
        self.by_id.insert(executable.id, slot);
        Some(slot)
    }

    /// The executable in `slot`.
    pub(super) fn executable(&self, slot: u32) -> Option<&Arc<Executable>> {
        self.slots.get(slot as usize)?.as_ref().map(|slot| &slot.executable)
    }

    /// Notes that the executable in `slot` was sampled.
    pub(super) fn locate(&mut self, slot: u32, now: u64) -> Option<&Arc<Executable>> {
        let slot = self.slots.get_mut(slot as usize)?.as_mut()?;
        slot.used = now;
        Some(&slot.executable)
    }

    /// Notes that an executable was sampled.
    pub(super) fn touch(&mut self, id: ExecutableId, now: u64) {
        if let Some(&slot) = self.by_id.get(&id) {
            self.locate(slot, now);
        }
    }

    /// One more process maps the executable in `slot`.
    pub(super) fn hold(&mut self, slot: u32) {
        if let Some(Some(slot)) = self.slots.get_mut(slot as usize) {
            slot.processes = slot.processes.saturating_add(1);
        }
    }

    /// Takes back [`Self::hold`].
    pub(super) fn release(&mut self, slot: u32, now: u64) {
        if let Some(Some(slot)) = self.slots.get_mut(slot as usize) {
            slot.processes = slot.processes.saturating_sub(1);
            if slot.processes == 0 {
                slot.used = slot.used.max(now);
            }
        }
    }

    /// Whether nobody has tried to load the rows in `slot` yet.
    pub(super) fn is_missing(&self, slot: u32) -> bool {
        matches!(self.slots.get(slot as usize), Some(Some(Slot { rows: Rows::Missing, .. })))
    }

    /// The executable in `slot` has no rows.
    pub(super) fn set_none(&mut self, tables: &mut RowTables, slot: u32) {
        self.set(tables, slot, Rows::None, EMPTY);
    }

    /// The rows in `slot` are not to be had now.
    pub(super) fn refuse(&mut self, tables: &mut RowTables, slot: u32, now: u64) {
        self.set(tables, slot, Rows::Refused(now), EMPTY);
    }

    /// Gives the executable in `slot` its rows, for which others may have to make room; false if they do not fit.
    pub(super) fn load(&mut self, tables: &mut RowTables, slot: u32, rows: &UnwindRows, now: u64) -> bool {
        let mut stored = self.store.store(tables, rows);
        // Free places may be too small where rows are many: a second round frees others.
        for _ in 0..4 {
            if !matches!(stored, Err(Refused::Full)) || !self.evict(tables, rows.rows.len() as u64, now) {
                break;
            }
            stored = self.store.store(tables, rows);
        }
        match stored {
            Ok(placed) => {
                let entry = placed.entry;
                self.loaded += 1;
                self.set(tables, slot, Rows::Loaded(placed), entry);
                true
            }
            Err(_) => {
                self.set(tables, slot, Rows::Refused(now), EMPTY);
                false
            }
        }
    }

    fn set(&mut self, tables: &mut RowTables, slot: u32, rows: Rows, entry: abi::Executable) {
        if let Some(Some(known)) = self.slots.get_mut(slot as usize) {
            known.rows = rows;
            if let Err(error) = tables.write_executable(slot as usize, entry) {
                tracing::error!(%error, "An executable's rows cannot be published.");
            }
        }
    }

    /// Frees `rows` rows and more, an eighth of all at least so that it is seldom, of executables that were not used for the
    /// longest time; false if all are in use, and some of those made room a moment ago.
    fn evict(&mut self, tables: &mut RowTables, rows: u64, now: u64) -> bool {
        // In use, mapped, used when: what is neither mapped nor in use goes first.
        let mut candidates: Vec<(bool, bool, u64, u32)> = (0u32..)
            .zip(&self.slots)
            .filter_map(|(index, slot)| {
                let slot = slot.as_ref()?;
                let mapped = slot.processes > 0;
                let in_use = mapped && slot.used.saturating_add(IN_USE_NS) > now;
                matches!(slot.rows, Rows::Loaded(_)).then_some((in_use, mapped, slot.used, index))
            })
            .collect();
        candidates.sort_unstable();
        let in_turn = self.last_turn.saturating_add(TURN_NS) <= now;
        let wanted = rows.max(self.store.capacity() / 8);
        let mut freed = 0;
        let mut victims = Vec::new();
        for (in_use, _, _, index) in candidates {
            // What is in use gives no more than is needed.
            let enough = if in_use { rows } else { wanted };
            if freed >= enough || in_use && !in_turn {
                break;
            }
            if in_use {
                self.last_turn = now;
            }
            if let Some(placed) = self.unload(tables, index, Rows::Missing, MISSING) {
                freed += u64::from(placed.rows);
                victims.push(placed);
            }
        }
        if victims.is_empty() {
            return false;
        }
        self.evicted += victims.len() as u64;
        self.take_back(tables, victims);
        true
    }

    fn unload(&mut self, tables: &mut RowTables, index: u32, rows: Rows, entry: abi::Executable) -> Option<Placed> {
        let slot = self.slots.get_mut(index as usize)?.as_mut()?;
        if !matches!(slot.rows, Rows::Loaded(_)) {
            return None;
        }
        let Rows::Loaded(placed) = std::mem::replace(&mut slot.rows, rows) else { return None };
        self.loaded = self.loaded.saturating_sub(1);
        // Whoever reads the entry from here on asks for the rows anew.
        let _ = tables.write_executable(index as usize, entry);
        Some(placed)
    }

    /// A program of the kernel half may have read an entry just before it changed: its rows are rewritten only after that.
    fn take_back(&mut self, tables: &RowTables, placed: Vec<Placed>) {
        if !placed.is_empty() {
            tables.wait_for_readers();
        }
        for placed in placed {
            self.store.free(placed);
        }
    }

    /// Frees what no process has mapped for a while, and lets what was refused be tried again.
    pub(super) fn tidy(&mut self, tables: &mut RowTables, now: u64) {
        let mut placed = Vec::new();
        for index in 0..self.slots.len() as u32 {
            let Some(Some(slot)) = self.slots.get_mut(index as usize) else { continue };
            if matches!(slot.rows, Rows::Refused(at) if at.saturating_add(RETRY_NS) <= now) {
                slot.rows = Rows::Missing;
                let _ = tables.write_executable(index as usize, MISSING);
            }
            if slot.processes == 0 && slot.used.saturating_add(KEEP_UNUSED_NS) <= now {
                let id = slot.executable.id;
                placed.extend(self.unload(tables, index, Rows::Missing, MISSING));
                let _ = tables.write_executable(index as usize, MISSING);
                if let Some(place) = self.slots.get_mut(index as usize) {
                    *place = None;
                }
                self.by_id.remove(&id);
                self.free.push(index);
            }
        }
        self.take_back(tables, placed);
    }

    /// Whether rows will soon have to make room for others, so that it matters which are used.
    pub(super) fn is_tight(&self) -> bool {
        self.store.used_rows() > self.store.capacity() / 4 * 3
    }
}
