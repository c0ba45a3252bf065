//! Places compiled rows in the slabs: a page's rows never straddle two.

use profiler_bpf::Tables;
use profiler_bpf::abi::{Executable, MAX_ROW_PAGES, MAX_SLABS, RowPage, SLAB_ROWS};

use crate::rows::UnwindRows;

/// The next free row and row page.
#[derive(Debug)]
pub(super) struct RowStore {
    budget_slabs: usize,
    slab: usize,
    used: usize,
    pages: usize,
}

impl RowStore {
    /// A store that makes at most `budget` bytes of slabs.
    pub(super) fn new(budget: usize) -> Self {
        let budget_slabs = (budget / (SLAB_ROWS as usize * 4)).clamp(1, MAX_SLABS);
        Self { budget_slabs, slab: 0, used: 0, pages: 0 }
    }

    /// Writes the rows and their pages; `None` if there is no room.
    pub(super) fn store(&mut self, tables: &mut Tables, rows: &UnwindRows) -> Option<Executable> {
        let page_count = rows.page_starts.len().saturating_sub(1);
        if page_count == 0 || self.pages + page_count > MAX_ROW_PAGES {
            return None;
        }
        let capacity = SLAB_ROWS as usize;
        let (mut slab, mut used) = (self.slab, self.used);
        let mut pages = Vec::with_capacity(page_count);
        let mut pieces = Vec::new();
        for window in rows.page_starts.windows(2) {
            let piece = rows.rows.get(window[0] as usize..window[1] as usize)?;
            if piece.len() > capacity {
                return None;
            }
            if used + piece.len() > capacity {
                slab += 1;
                used = 0;
            }
            pages.push(RowPage { first: (slab as u32) << 16 | used as u32, count: piece.len() as u32 });
            pieces.push((slab, used, piece));
            used += piece.len();
            // A full slab has no row at which a next page could start.
            if used == capacity {
                slab += 1;
                used = 0;
            }
        }
        if slab >= self.budget_slabs {
            return None;
        }
        let missing = (slab + 1).saturating_sub(tables.slab_count());
        if missing > 0 {
            tables.add_slabs(missing).ok()?;
        }
        for (slab, index, piece) in pieces {
            tables.write_rows(slab, index, piece).ok()?;
        }
        tables.write_row_pages(self.pages, &pages).ok()?;
        let executable = Executable {
            first_page: u32::try_from(rows.first_page).ok()?,
            page_count: page_count as u32,
            page_base: self.pages as u32,
            pad: 0,
        };
        (self.slab, self.used) = (slab, used);
        self.pages += page_count;
        Some(executable)
    }
}
