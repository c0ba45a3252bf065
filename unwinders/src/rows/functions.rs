//! The functions of an executable, from whatever source described each, in the order of their addresses.

use crate::elf::ElfImage;

use super::RowStats;

/// Functions of one executable; the largest known programs have under a million. 32 bytes each.
const MAX_FUNCTIONS: usize = 1 << 22;

/// Who says how a function is unwound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Call frame instructions: offsets `from..to` of section number `section`, under CIE number `cie` of that section.
    Cfi { section: u8, cie: u32, from: u32, to: u32 },
}

/// A range of addresses that one source describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) source: Source,
}

/// All functions; those outside of code are refused on entry.
#[derive(Debug, Default)]
pub(super) struct Functions {
    list: Vec<Function>,
    /// Disjoint, sorted (start, end) of the executable segments.
    code: Vec<(u64, u64)>,
    last_hit: (u64, u64),
}

impl Functions {
    pub(super) fn new(image: &ElfImage<'_>) -> Self {
        let executable = image.segments().iter().filter(|s| s.executable());
        let mut ranges: Vec<_> = executable.map(|s| (s.vaddr.0, s.vaddr.0.saturating_add(s.memory_size))).collect();
        ranges.sort_unstable();
        let mut code: Vec<(u64, u64)> = Vec::new();
        for (start, end) in ranges {
            match code.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => code.push((start, end)),
            }
        }
        Self { list: Vec::new(), code, last_hit: (0, 0) }
    }

    /// Adds `length` bytes of code at `start`, unless they are empty or no code.
    #[inline]
    pub(super) fn add(&mut self, start: u64, length: u64, source: Source, stats: &mut RowStats) {
        let Some((_, limit)) = self.segment_of(start) else {
            stats.outside_code += 1;
            return;
        };
        if self.list.len() >= MAX_FUNCTIONS {
            stats.over_limit += 1;
            return;
        }
        if length != 0 {
            self.list.push(Function { start, end: start.saturating_add(length).min(limit), source });
        }
    }

    #[inline]
    fn segment_of(&mut self, address: u64) -> Option<(u64, u64)> {
        let (start, end) = self.last_hit;
        if address < start || address >= end {
            let after = self.code.partition_point(|range| range.0 <= address);
            self.last_hit = *self.code.get(after.checked_sub(1)?)?;
        }
        (address < self.last_hit.1).then_some(self.last_hit)
    }

    /// Sorts by address. Of functions with one start, the first added stays; where one starts inside another, the outer one ends.
    pub(super) fn sort(&mut self, stats: &mut RowStats) {
        if !self.list.is_sorted_by_key(|function| function.start) {
            self.list.sort_by_key(|function| function.start);
        }
        let before = self.list.len();
        self.list.dedup_by_key(|function| function.start);
        stats.overlapping += (before - self.list.len()) as u64;
        let mut next_start = u64::MAX;
        for function in self.list.iter_mut().rev() {
            if function.end > next_start {
                function.end = next_start;
                stats.overlapping += 1;
            }
            next_start = function.start;
        }
    }

    pub(super) fn list(&self) -> &[Function] {
        &self.list
    }
}
