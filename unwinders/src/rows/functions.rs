//! The functions of an executable, from whatever source described each, in the order of their addresses.

use profiler_bpf::abi::ROW_PAGE_SHIFT;

use profiler_elf::ElfParts;

use super::RowStats;
use super::pages::MAX_PAGES;

/// Functions of one executable; the largest known programs have under a million. 8 bytes each.
const MAX_FUNCTIONS: usize = 1 << 24;
/// Bytes of address space that functions may span: as many as rows can.
const MAX_SPAN: u64 = MAX_PAGES << ROW_PAGE_SHIFT;

/// Where functions start, and who describes them. Those outside of code are refused on entry.
///
/// Each is one word, which sorts by address and then by source: the distance of its start from `base`, and its ticket, a number that
/// its source understands. All sources share one space of tickets; where two describe the same start the lower ticket wins.
#[derive(Debug, Default)]
pub(super) struct Functions {
    words: Vec<u64>,
    base: u64,
    /// Disjoint, sorted (start, end) of the executable segments.
    code: Vec<(u64, u64)>,
    last_hit: (u64, u64),
}

impl Functions {
    pub(super) fn new(parts: &ElfParts<'_>) -> Self {
        let executable = parts.segments().iter().filter(|s| s.executable());
        let mut ranges: Vec<_> = executable.map(|s| (s.vaddr.0, s.vaddr.0.saturating_add(s.memory_size))).collect();
        ranges.sort_unstable();
        let mut code: Vec<(u64, u64)> = Vec::new();
        for (start, end) in ranges {
            match code.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => code.push((start, end)),
            }
        }
        let base = code.first().map_or(0, |range| range.0);
        Self { words: Vec::new(), base, code, last_hit: (0, 0) }
    }

    /// Makes room for as many more.
    pub(super) fn reserve(&mut self, more: usize) {
        self.words.reserve(more.min(MAX_FUNCTIONS));
    }

    /// Adds the function that starts at `start`, unless there is no code.
    #[inline]
    pub(super) fn add(&mut self, start: u64, ticket: u32, stats: &mut RowStats) {
        if self.segment_end(start).is_none() {
            stats.outside_code += 1;
            return;
        }
        let distance = start - self.base;
        if distance >= MAX_SPAN || self.words.len() >= MAX_FUNCTIONS {
            stats.over_limit += 1;
            return;
        }
        self.words.push(distance << 32 | u64::from(ticket));
    }

    /// End of the executable segment that holds `address`.
    #[inline]
    pub(super) fn segment_end(&mut self, address: u64) -> Option<u64> {
        let (start, end) = self.last_hit;
        if address < start || address >= end {
            let after = self.code.partition_point(|range| range.0 <= address);
            self.last_hit = *self.code.get(after.checked_sub(1)?)?;
        }
        (address < self.last_hit.1).then_some(self.last_hit.1)
    }

    /// The executable segments: disjoint (start, end), by address.
    pub(super) fn code(&self) -> &[(u64, u64)] {
        &self.code
    }

    /// Sorts by address. Of functions with one start, the one with the lowest ticket stays.
    pub(super) fn sort(&mut self, stats: &mut RowStats) {
        if !self.words.is_sorted() {
            self.words.sort_unstable();
        }
        let before = self.words.len();
        self.words.dedup_by_key(|word| *word >> 32);
        stats.overlapping += (before - self.words.len()) as u64;
    }

    pub(super) const fn len(&self) -> usize {
        self.words.len()
    }

    /// Start and ticket of a function, by its place in the order.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<(u64, u32)> {
        let word = *self.words.get(index)?;
        Some((self.base + (word >> 32), word as u32))
    }
}
