//! Rows in their final form: sorted, merged, in self-contained 64 KiB pages.

use profiler_bpf::abi::{ROW_PAGE_SHIFT, Row};

/// Pages that one executable can span: 4 GiB of addresses, twice what the x86-64 code models reach.
pub(super) const MAX_PAGES: u64 = 65_536;
/// Rows of one executable, 256 MiB of them; the largest known programs have under a tenth.
const MAX_ROWS: usize = 1 << 26;

/// Takes (address, rule) in the order of addresses.
#[derive(Debug, Default)]
pub(super) struct Pages {
    first_page: u64,
    starts: Vec<u32>,
    rows: Vec<Row>,
    /// The rule in force after the last row.
    rule: u16,
    last: u64,
    /// One past the last address of the page of `last`.
    page_end: u64,
    /// Rows refused: out of order, or beyond [`MAX_PAGES`] or [`MAX_ROWS`].
    refused: u64,
}

impl Pages {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { rows: Vec::with_capacity(rows.min(MAX_ROWS)), ..Self::default() }
    }

    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// From `address` on, `rule` holds. A second rule for one address replaces the first.
    #[inline]
    pub(super) fn set(&mut self, address: u64, rule: u16) {
        if address <= self.last || address >= self.page_end {
            return self.set_elsewhere(address, rule);
        }
        self.last = address;
        if rule != self.rule {
            self.rule = rule;
            self.rows.push(Row::new(address as u16, rule));
        }
    }

    /// As [`Self::set`], for an address that is not beyond the last one in the same page.
    fn set_elsewhere(&mut self, address: u64, rule: u16) {
        let page = address >> ROW_PAGE_SHIFT;
        if self.starts.is_empty() {
            if rule == 0 {
                return;
            }
            self.first_page = page;
            self.starts.push(0);
            self.last = address;
        }
        if address < self.last || page - self.first_page >= MAX_PAGES || self.rows.len() >= MAX_ROWS {
            self.refused += 1;
            return;
        }
        self.last = address;
        let low = address as u16;
        if page != self.page() {
            self.turn_to(page, low);
        } else if self.rows.last().is_some_and(|row| row.address_low() == low) && !self.page_is_empty() {
            self.rows.pop();
        }
        // An empty page starts with rule 0, whatever the page before it ended with: `turn_to` has repeated that.
        let in_force = if self.page_is_empty() { 0 } else { self.rows.last().map_or(0, |row| row.rule()) };
        if rule != in_force {
            self.rows.push(Row::new(low, rule));
        }
        self.rule = rule;
        self.page_end = (page + 1) << ROW_PAGE_SHIFT;
    }

    fn page(&self) -> u64 {
        self.first_page + self.starts.len() as u64 - 1
    }

    fn page_is_empty(&self) -> bool {
        self.starts.last().is_none_or(|&start| start as usize == self.rows.len())
    }

    /// Ends the page, and those up to `page`; each repeats the rule that covers its start, but the last one only if the row to
    /// come doesn't stand there itself.
    fn turn_to(&mut self, page: u64, low: u16) {
        while self.page() < page {
            self.starts.push(self.rows.len() as u32);
            if self.rule != 0 && (self.page() < page || low != 0) {
                self.rows.push(Row::new(0, self.rule));
            }
        }
    }

    /// The first page, where each page's rows start (one entry more than pages), and the rows.
    pub(super) fn finish(mut self) -> (u64, Vec<u32>, Vec<Row>) {
        self.starts.push(self.rows.len() as u32);
        self.rows.shrink_to_fit();
        (self.first_page, self.starts, self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(rows: &[(u64, u16)]) -> (u64, Vec<u32>, Vec<(u16, u16)>) {
        let mut pages = Pages::default();
        for &(address, rule) in rows {
            pages.set(address, rule);
        }
        let (first, starts, rows) = pages.finish();
        (first, starts, rows.iter().map(|row| (row.address_low(), row.rule())).collect())
    }

    #[test]
    fn every_page_repeats_the_rule_that_covers_its_start() {
        assert_eq!(
            build(&[(0x1_fff0, 5), (0x4_0010, 6), (0x5_0000, 7)]),
            (1, vec![0, 1, 2, 3, 5, 6], vec![(0xfff0, 5), (0, 5), (0, 5), (0, 5), (0x10, 6), (0, 7)])
        );
    }

    #[test]
    fn rule_zero_needs_no_row_at_the_start_of_a_page() {
        assert_eq!(
            build(&[(0x10, 5), (0x20, 0), (0x2_0000, 0), (0x2_0008, 3)]),
            (0, vec![0, 2, 2, 3], vec![(0x10, 5), (0x20, 0), (8, 3)])
        );
    }

    #[test]
    fn equal_rows_merge_and_the_last_of_one_address_wins() {
        assert_eq!(
            build(&[(0, 1), (4, 1), (8, 2), (8, 1), (12, 3), (12, 4), (12, 3)]),
            (0, vec![0, 2], vec![(0, 1), (12, 3)])
        );
        assert_eq!(build(&[(0, 1), (0, 2), (4, 2)]), (0, vec![0, 1], vec![(0, 2)]));
        assert_eq!(build(&[(0, 1), (0x1_0000, 2), (0x1_0000, 1)]).2, [(0, 1), (0, 1)]);
        assert_eq!(build(&[(0, 1), (0x1_0000, 0), (0x1_0000, 1)]).2, [(0, 1), (0, 1)]);
    }

    #[test]
    fn what_is_out_of_order_or_too_far_is_refused_and_counted() {
        let mut pages = Pages::default();
        pages.set(0x2_0000, 1);
        pages.set(0x1_0000, 1);
        pages.set(u64::MAX, 1);
        assert_eq!(pages.refused(), 2);
        assert_eq!(pages.finish(), (2, vec![0, 1], vec![Row::new(0, 1)]));
        assert_eq!(build(&[]), (0, vec![0], vec![]));
    }
}
