//! Places compiled rows in the slabs, and takes the places back: a page's rows never straddle two slabs.
//!
//! ```text
//! slab 0  │ libc pages 0-2 │ free │ sshd page 0 │ sshd page 1 │ libLLVM pages 0-4 ..│
//! slab 1  │ .. libLLVM pages 5-9 (a further extent)           │ free               │
//! ```

use profiler_bpf::RowTables;
use profiler_bpf::abi::{Executable, MAX_ROW_PAGES, MAX_SLABS, RowPage, SLAB_ROWS};

use crate::ranges::Ranges;
use crate::rows::UnwindRows;

/// Bytes of a slab.
const SLAB_BYTES: usize = SLAB_ROWS as usize * 4;
/// Free slabs that are kept ready, 2 MiB: as many as the rows of a large program and its libraries need (Node.js: six).
const SPARE_SLABS: usize = 8;

/// The free places of all slabs and of the row pages.
#[derive(Debug)]
pub(super) struct RowStore {
    budget_slabs: usize,
    slabs: Vec<Ranges>,
    pages: Ranges,
}

/// Where an executable's rows are.
#[derive(Debug)]
pub(super) struct Placed {
    /// As the kernel half is told.
    pub(super) entry: Executable,
    pub(super) rows: u32,
    extents: Vec<Extent>,
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    slab: usize,
    first: u32,
    rows: u32,
}

/// Why rows were not placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There would be room if others gave theirs back.
    Full,
    /// There will never be room.
    TooLarge,
}

impl RowStore {
    /// A store that makes at most `budget` bytes of slabs.
    pub(super) fn new(budget: usize) -> Self {
        let budget_slabs = (budget / SLAB_BYTES).clamp(1, MAX_SLABS);
        Self { budget_slabs, slabs: Vec::new(), pages: Ranges::new(MAX_ROW_PAGES as u32) }
    }

    /// Bytes of the slabs that there are.
    pub(super) fn bytes(&self) -> usize {
        self.slabs.len() * SLAB_BYTES
    }

    /// Slabs that there are.
    pub(super) fn slab_count(&self) -> usize {
        self.slabs.len()
    }

    /// Rows that the budget allows.
    pub(super) fn capacity(&self) -> u64 {
        self.budget_slabs as u64 * u64::from(SLAB_ROWS)
    }

    /// Rows that are placed.
    pub(super) fn used_rows(&self) -> u64 {
        self.slabs.len() as u64 * u64::from(SLAB_ROWS) - self.free_rows()
    }

    /// Row pages that are in use.
    pub(super) fn used_pages(&self) -> usize {
        MAX_ROW_PAGES - self.pages.available() as usize
    }

    fn free_rows(&self) -> u64 {
        self.slabs.iter().map(|slab| u64::from(slab.available())).sum()
    }

    /// Writes the rows and their pages.
    pub(super) fn store(&mut self, tables: &mut RowTables, rows: &UnwindRows) -> Result<Placed, Refused> {
        let stored = self.write(tables, rows);
        self.order(tables);
        stored
    }

    fn write(&mut self, tables: &mut RowTables, rows: &UnwindRows) -> Result<Placed, Refused> {
        let page_count = u32::try_from(rows.page_starts.len().saturating_sub(1)).map_err(|_| Refused::TooLarge)?;
        let first_page = u32::try_from(rows.first_page).map_err(|_| Refused::TooLarge)?;
        let total = rows.rows.len() as u64;
        if page_count == 0 || page_count as usize > MAX_ROW_PAGES || total > self.capacity() {
            return Err(Refused::TooLarge);
        }
        let page_base = self.pages.allocate(page_count).ok_or(Refused::Full)?;
        let mut placed = Placed {
            entry: Executable { first_page, page_count, page_base, pad: 0 },
            rows: rows.rows.len() as u32,
            extents: Vec::new(),
        };
        let stored = self.place(tables, rows, &mut placed.extents);
        let stored =
            stored.and_then(|pages| tables.write_row_pages(page_base as usize, &pages).map_err(|_| Refused::TooLarge));
        match stored {
            Ok(()) => Ok(placed),
            Err(refused) => {
                self.free(placed);
                Err(refused)
            }
        }
    }

    /// As many pages at once as fit one slab, fewer where only smaller places are free.
    fn place(
        &mut self,
        tables: &mut RowTables,
        rows: &UnwindRows,
        extents: &mut Vec<Extent>,
    ) -> Result<Vec<RowPage>, Refused> {
        self.make_room(tables, rows.rows.len() as u64)?;
        let mut pages = Vec::with_capacity(rows.page_starts.len());
        let mut starts = rows.page_starts.as_slice();
        while let [first, rest @ ..] = starts
            && !rest.is_empty()
        {
            let mut group = rest.partition_point(|end| end - first <= SLAB_ROWS);
            let extent = loop {
                let count = group.checked_sub(1).and_then(|last| rest.get(last)).ok_or(Refused::TooLarge)? - first;
                if let Some((slab, place)) = self.allocate(count) {
                    break Extent { slab, first: place, rows: count };
                }
                if group == 1 {
                    self.add_slabs(tables, u64::from(SLAB_ROWS))?;
                } else {
                    group /= 2;
                }
            };
            extents.push(extent);
            let end = first + extent.rows;
            let piece = rows.rows.get(*first as usize..end as usize).ok_or(Refused::TooLarge)?;
            tables.write_rows(extent.slab, extent.first as usize, piece).map_err(|_| Refused::TooLarge)?;
            for page in starts.windows(2).take(group) {
                let (from, to) = (page.first().copied().unwrap_or(end), page.last().copied().unwrap_or(end));
                // A page without rows may be named behind the slab's last.
                let at = (extent.first + (from - first)).min(SLAB_ROWS - 1);
                pages.push(RowPage { first: (extent.slab as u32) << 16 | at, count: to - from });
            }
            starts = starts.get(group..).unwrap_or_default();
        }
        Ok(pages)
    }

    fn allocate(&mut self, rows: u32) -> Option<(usize, u32)> {
        self.slabs.iter_mut().enumerate().find_map(|(slab, ranges)| Some((slab, ranges.allocate(rows)?)))
    }

    /// Room for `rows` more: what is free, what was ordered, and what has to be made now.
    fn make_room(&mut self, tables: &mut RowTables, rows: u64) -> Result<(), Refused> {
        // What could not be made ahead may not be needed; if it is, whoever makes it now is told why it cannot be.
        let _ = self.take_ordered(tables, false);
        if self.free_rows() < rows {
            let _ = self.take_ordered(tables, true);
        }
        self.add_slabs(tables, rows.saturating_sub(self.free_rows()))
    }

    /// Adds slabs for `rows` more, as far as the budget goes.
    fn add_slabs(&mut self, tables: &mut RowTables, rows: u64) -> Result<(), Refused> {
        let count = usize::try_from(rows.div_ceil(u64::from(SLAB_ROWS))).map_err(|_| Refused::TooLarge)?;
        if count == 0 {
            return Ok(());
        }
        let wanted = self.slabs.len() + count;
        let _ = self.take_ordered(tables, true);
        if self.slabs.len() >= wanted {
            return Ok(());
        }
        if self.slabs.len() + count > self.budget_slabs {
            return Err(Refused::Full);
        }
        tables.add_slabs(count).map_err(|_| Refused::Full)?;
        self.note_slabs(tables);
        Ok(())
    }

    /// Has slabs made ahead, within the budget, so that the next executable's rows need not wait for them.
    pub(super) fn order(&mut self, tables: &mut RowTables) {
        // What was refused is tried again by whoever needs it.
        if self.take_ordered(tables, false).is_ok_and(|pending| !pending) {
            let free = self.free_rows() / u64::from(SLAB_ROWS);
            let spare = SPARE_SLABS.saturating_sub(usize::try_from(free).unwrap_or(usize::MAX));
            tables.order_slabs(spare.min(self.budget_slabs.saturating_sub(self.slabs.len())));
        }
    }

    fn take_ordered(&mut self, tables: &mut RowTables, wait: bool) -> Result<bool, Refused> {
        let pending = tables.take_ordered(wait).map_err(|_| Refused::Full)?;
        self.note_slabs(tables);
        Ok(pending)
    }

    fn note_slabs(&mut self, tables: &RowTables) {
        self.slabs.resize_with(tables.slab_count(), || Ranges::new(SLAB_ROWS));
    }

    /// Takes a place back, which nothing may be reading any more.
    pub(super) fn free(&mut self, placed: Placed) {
        for extent in placed.extents {
            if let Some(slab) = self.slabs.get_mut(extent.slab) {
                slab.free(extent.first, extent.rows);
            }
        }
        self.pages.free(placed.entry.page_base, placed.entry.page_count);
    }
}

#[cfg(test)]
mod tests {
    use profiler_bpf::abi::Row;

    use super::*;

    /// `pages` pages of `each` rows, which name `rule`.
    fn rows(pages: u32, each: u32, rule: u16) -> UnwindRows {
        UnwindRows {
            first_page: 0x400,
            page_starts: (0..=pages).map(|page| page * each).collect(),
            rows: (0..pages).flat_map(|_| (0..each).map(move |row| Row::new(row as u16, rule))).collect(),
            stats: Default::default(),
        }
    }

    fn assert_reads_back(tables: &RowTables, placed: &Placed, pages: u32, each: u32, rule: u16) {
        for page in 0..pages {
            let entry = tables.row_page((placed.entry.page_base + page) as usize).unwrap();
            assert_eq!(entry.count, each);
            for row in 0..each {
                let (slab, index) = (entry.first >> 16, (entry.first & 0xffff) + row);
                assert!(index < SLAB_ROWS);
                assert_eq!(tables.row(slab as usize, index as usize), Some(Row::new(row as u16, rule)));
            }
        }
    }

    #[test]
    fn places_that_are_given_back_are_used_again_and_nothing_is_overwritten() {
        let mut tables = profiler_bpf::Tables::in_memory().unwrap().rows;
        let mut store = RowStore::new(4 * SLAB_BYTES);
        let mut live: Vec<(Placed, u32, u32, u16)> = Vec::new();
        let (mut random, mut refused) = (7u32, 0);
        for round in 0..300u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (pages, each, rule) = (1 + (random >> 8) % 12, 1 + (random >> 16) % 9000, round as u16);
            match store.store(&mut tables, &rows(pages, each, rule)) {
                Ok(placed) => live.push((placed, pages, each, rule)),
                Err(Refused::Full) => {
                    refused += 1;
                    let (placed, ..) = live.swap_remove((random >> 4) as usize % live.len());
                    store.free(placed);
                }
                Err(Refused::TooLarge) => panic!("{pages} pages of {each} rows fit"),
            }
            if round % 50 == 49 {
                for (placed, pages, each, rule) in &live {
                    assert_reads_back(&tables, placed, *pages, *each, *rule);
                }
            }
            assert_eq!(store.used_rows(), live.iter().map(|(placed, ..)| u64::from(placed.rows)).sum::<u64>());
            assert_eq!(store.used_pages(), live.iter().map(|(_, pages, ..)| *pages as usize).sum::<usize>());
        }
        assert!(refused > 10 && store.slab_count() == 4, "{refused} refused, {} slabs", store.slab_count());
        for (placed, ..) in live {
            store.free(placed);
        }
        assert_eq!((store.used_rows(), store.used_pages()), (0, 0));
    }

    #[test]
    fn slabs_are_made_ahead_within_the_budget() {
        let mut tables = profiler_bpf::Tables::in_memory().unwrap().rows;
        let mut store = RowStore::new((SPARE_SLABS + 3) * SLAB_BYTES);
        store.order(&mut tables);
        let placed = store.store(&mut tables, &rows(2, SLAB_ROWS, 1)).unwrap();
        assert_eq!(store.slab_count(), SPARE_SLABS, "made before they were needed, and taken in");
        let more = store.store(&mut tables, &rows(1, 10, 2)).unwrap();
        assert_eq!(store.slab_count(), SPARE_SLABS + 2, "as many as were used");
        store.order(&mut tables);
        store.order(&mut tables);
        assert_eq!(store.slab_count(), SPARE_SLABS + 3, "as many as there may be");
        store.free(placed);
        assert_reads_back(&tables, &more, 1, 10, 2);
        assert_eq!(tables.waited(), 0);
    }

    #[test]
    fn what_could_not_be_made_ahead_refuses_nothing_that_there_is_room_for() {
        let mut tables = profiler_bpf::Tables::in_memory().unwrap().rows;
        let mut store = RowStore::new(2 * SLAB_BYTES);
        // As the kernel refuses them without memory.
        tables.order_slabs(MAX_SLABS + 1);
        store.write(&mut tables, &rows(1, 10, 1)).unwrap();
        assert_eq!(store.slab_count(), 1, "made when it was needed");
        tables.order_slabs(MAX_SLABS + 1);
        store.write(&mut tables, &rows(1, 10, 2)).unwrap();
        assert_eq!(store.slab_count(), 1, "there was room");
        tables.order_slabs(MAX_SLABS + 1);
        tables.add_slabs(1).unwrap();
        assert_eq!(tables.slab_count(), 2);
    }

    #[test]
    fn full_slabs_empty_pages_and_what_never_fits() {
        let mut tables = profiler_bpf::Tables::in_memory().unwrap().rows;
        let mut store = RowStore::new(2 * SLAB_BYTES);
        let whole = store.store(&mut tables, &rows(2, SLAB_ROWS, 3)).unwrap();
        assert_reads_back(&tables, &whole, 2, SLAB_ROWS, 3);
        assert_eq!(store.store(&mut tables, &rows(1, 1, 4)).unwrap_err(), Refused::Full);
        assert_eq!(store.store(&mut tables, &rows(3, SLAB_ROWS, 4)).unwrap_err(), Refused::TooLarge);
        assert_eq!(store.store(&mut tables, &rows(0, 1, 4)).unwrap_err(), Refused::TooLarge);
        store.free(whole);
        let mut gaps = rows(4, SLAB_ROWS / 2, 5);
        gaps.page_starts.insert(3, SLAB_ROWS);
        let placed = store.store(&mut tables, &gaps).unwrap();
        assert_eq!(tables.row_page(placed.entry.page_base as usize + 2).unwrap().count, 0);
        assert_eq!(tables.row_page(placed.entry.page_base as usize + 3).unwrap().count, SLAB_ROWS / 2);
    }
}
