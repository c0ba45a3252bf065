//! The trampolines of `-X perf` (from 3.12 on): each function is called through a piece of machine code of its own, so that `perf` sees its
//! name. They are copies of one, in memory that holds nothing else, and have no unwind information.

use crate::maps::{Backing, Mapping};
use crate::memory::Memory;

/// `PYTHON_TRAMPOLINE` and `PYTHON_TRAMPOLINE_FP`.
const CODES: [[u8; 8]; 2] =
    [[0x48, 0x83, 0xec, 0x08, 0xff, 0xd1, 0x48, 0x83], [0x55, 0x48, 0x89, 0xe5, 0xff, 0xd1, 0x5d, 0xc3]];
/// Where the first may begin: behind an `endbr64`, if the program was built for indirect branch tracking.
const PLACES: [usize; 2] = [0, 4];
/// Ranges of memory, of 64 KiB each, that are followed: 256 thousand functions.
const MAX_RANGES: usize = 64;

/// Memory that is full of trampolines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trampolines {
    /// First address, one past the last; by address.
    pub ranges: Vec<(u64, u64)>,
}

impl Trampolines {
    /// Those in `mappings`, by what is at their start.
    pub(super) fn find(mappings: &[Mapping], memory: &dyn Memory) -> Self {
        let mut found = Self::default();
        let is_made = |mapping: &&Mapping| matches!(mapping.backing, Backing::Anonymous | Backing::Replaced(_));
        for mapping in mappings.iter().filter(is_made) {
            let mut first = [0; 16];
            if memory.read(mapping.start.0, &mut first).is_err() {
                continue;
            }
            let is_at = |at: &usize| first.get(*at..).is_some_and(|at| CODES.iter().any(|code| at.starts_with(code)));
            if PLACES.iter().any(is_at) && found.ranges.len() < MAX_RANGES {
                found.ranges.push((mapping.start.0, mapping.end.0));
            }
        }
        found.ranges.sort_unstable();
        found
    }

    /// From the first to behind the last.
    pub(super) fn span(&self) -> (u64, u64) {
        let end = self.ranges.iter().map(|(_, end)| *end).max().unwrap_or(0);
        (self.ranges.first().map_or(0, |(start, _)| *start), end)
    }
}
