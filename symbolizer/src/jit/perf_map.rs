//! Perf maps: lines of `START SIZE name`, both hex, appended as a JIT makes code. What comes later in the file is newer and wins.

use super::source::Source;
use crate::frame::{Frame, Names};
use std::{collections::BTreeMap, sync::Arc};

/// Most ranges kept, and bytes of names; what comes after is left out.
const MAX_RANGES: usize = 2 << 20;
const MAX_NAMES: usize = 128 << 20;
/// Longest name kept; a line may be longer.
const MAX_NAME: usize = 4 << 10;
/// Longest line: one without end is skipped.
const MAX_LINE: usize = 64 << 10;
/// Bytes before the place read up to that must be the same when reading goes on.
const OVERLAP: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Range {
    end: u64,
    name: u32,
    name_len: u16,
}

/// The ranges of one map, disjoint: a newer one cuts off what it overlaps.
#[derive(Debug, Default)]
pub(crate) struct PerfMap {
    ranges: BTreeMap<u64, Range>,
    names: String,
    /// Read up to here; what follows is an unfinished line.
    consumed: u64,
    /// The bytes before that place, and the state of the file then: to see that it was written anew.
    last: Vec<u8>,
    state: (u64, i64),
    /// Within a line that is too long to be one.
    skipping: bool,
}

impl PerfMap {
    /// Reads what was added to the file, or all of it if it was written anew.
    pub(super) fn read(&mut self, source: &Source) {
        let state = source.state();
        if state == self.state {
            return;
        }
        if state.0 < self.consumed || (state.0 == self.state.0 && state.1 != self.state.1) || !self.continues(source) {
            *self = Self::default();
        }
        self.state = state;
        let mut buffer = vec![0; MAX_LINE * 4];
        // To the length at the start: a file that grows as fast as we read must not keep us.
        while self.consumed < state.0 {
            let want = usize::try_from(state.0 - self.consumed).unwrap_or(usize::MAX).min(buffer.len());
            let Some(wanted) = buffer.get_mut(..want) else { return };
            let Ok(read) = source.read_at(self.consumed, wanted) else { return };
            let block = wanted.get(..read).unwrap_or_default();
            let used = self.add_block(block);
            if used == 0 {
                return;
            }
            let seen = block.get(..used).unwrap_or_default();
            self.last = seen.get(seen.len().saturating_sub(OVERLAP)..).unwrap_or_default().to_vec();
            self.consumed += used as u64;
        }
    }

    fn continues(&self, source: &Source) -> bool {
        let mut now = vec![0; self.last.len()];
        let from = self.consumed.saturating_sub(now.len() as u64);
        source.read_at(from, &mut now).is_ok_and(|read| read == now.len()) && now == self.last
    }

    /// Takes the whole lines of a block; gives the bytes used.
    pub fn add_block(&mut self, block: &[u8]) -> usize {
        let Some(end) = block.iter().rposition(|byte| *byte == b'\n') else {
            if block.len() < MAX_LINE {
                return 0;
            }
            self.skipping = true;
            return block.len();
        };
        let lines = block.get(..end).unwrap_or_default();
        for line in lines.split(|byte| *byte == b'\n') {
            if !std::mem::take(&mut self.skipping) {
                self.add_line(line);
            }
        }
        end + 1
    }

    fn add_line(&mut self, line: &[u8]) {
        if self.ranges.len() >= MAX_RANGES || self.names.len() >= MAX_NAMES {
            return;
        }
        let Some((start, rest)) = hex(line) else { return };
        let Some((size, name)) = hex(rest) else { return };
        let Some(end) = start.checked_add(size).filter(|end| *end > start) else { return };
        let name = name.trim_ascii();
        if name.is_empty() {
            return;
        }
        let name = String::from_utf8_lossy(name.get(..MAX_NAME).unwrap_or(name));
        let range =
            Range { end, name: self.names.len() as u32, name_len: name.len().min(usize::from(u16::MAX)) as u16 };
        self.names.push_str(&name);
        self.insert(start, range);
    }

    /// Puts a range in place of what it overlaps.
    fn insert(&mut self, start: u64, range: Range) {
        // The one that reaches in from below loses its end, and may go on behind.
        if let Some((_, below)) = self.ranges.range_mut(..start).next_back()
            && below.end > start
        {
            let whole = *below;
            below.end = start;
            if whole.end > range.end {
                self.ranges.insert(range.end, whole);
            }
        }
        // Those that begin within go, but for what the last has behind.
        while let Some((within, old)) = self.ranges.range(start..range.end).next().map(|(start, old)| (*start, *old)) {
            self.ranges.remove(&within);
            if old.end > range.end {
                self.ranges.insert(range.end, old);
            }
        }
        self.ranges.insert(start, range);
    }

    /// The newest code at an address.
    pub fn find(&self, address: u64) -> Option<Frame> {
        let (_, range) = self.ranges.range(..=address).next_back().filter(|(_, range)| address < range.end)?;
        let from = range.name as usize;
        let name = self.names.get(from..from + usize::from(range.name_len))?;
        let name: Arc<str> = name.into();
        Some(Frame::named(Names { system_name: name.clone(), name }))
    }

    /// Memory held, bytes, estimated.
    pub fn bytes(&self) -> u64 {
        (self.ranges.len() * 40 + self.names.capacity()) as u64
    }
}

/// A hex number with or without `0x`, and what follows the blank behind it.
fn hex(text: &[u8]) -> Option<(u64, &[u8])> {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X")).unwrap_or(text);
    let len = text.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(len)?;
    if !rest.first().is_some_and(u8::is_ascii_whitespace) {
        return None;
    }
    Some((u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(text: &[u8]) -> PerfMap {
        let mut map = PerfMap::default();
        map.add_block(text);
        map
    }

    fn name(map: &PerfMap, address: u64) -> Option<String> {
        map.find(address).map(|frame| frame.name.to_string())
    }

    #[test]
    fn both_hex_forms_and_names_with_blanks() {
        let map =
            map(b"7f00 10 LazyCompile:*foo a.js:1:2\n0x00007f20 0x20 void java.lang.A.b(int, long)\n  7F40\t8\tx\r\n");
        assert_eq!(name(&map, 0x7f00).as_deref(), Some("LazyCompile:*foo a.js:1:2"));
        assert_eq!(name(&map, 0x7f0f).as_deref(), Some("LazyCompile:*foo a.js:1:2"));
        assert_eq!(name(&map, 0x7f10), None);
        assert_eq!(name(&map, 0x7f3f).as_deref(), Some("void java.lang.A.b(int, long)"));
        assert_eq!(name(&map, 0x7f40).as_deref(), Some("x"));
    }

    #[test]
    fn bad_lines_cost_only_themselves() {
        let text = b"\n\nzz 10 a\n10\n10 \n10 20\n10 20 \n10 0 empty\nffffffffffffffff 2 over\n\
                     11111111111111111 1 long\n-5 1 neg\n100 10 g\xffood\n200 10 torn";
        let map = map(text);
        assert_eq!(map.ranges.len(), 1);
        assert_eq!(name(&map, 0x105).as_deref(), Some("g\u{fffd}ood"));
    }

    #[test]
    fn the_newest_wins_where_ranges_overlap() {
        let map = map(b"100 100 old\n140 20 new\n1f0 20 tail\n0f0 11 head\n");
        let names: Vec<_> = [0xef, 0xf0, 0x100, 0x101, 0x13f, 0x140, 0x15f, 0x160, 0x1ef, 0x1f0, 0x20f, 0x210]
            .map(|address| name(&map, address).unwrap_or_default())
            .into();
        assert_eq!(names, ["", "head", "head", "old", "old", "new", "new", "old", "old", "tail", "tail", ""]);
    }

    #[test]
    fn a_line_without_end_is_skipped() {
        let mut map = PerfMap::default();
        let long = vec![b'a'; MAX_LINE];
        assert_eq!(map.add_block(&long), MAX_LINE);
        assert_eq!(map.add_block(b"the end\n100 10 good\n"), 20);
        assert_eq!(map.ranges.len(), 1);
    }

    proptest! {
        /// Against the plain reading of the rule: the last line that covers an address names it.
        #[test]
        fn as_the_last_line_that_covers(lines in prop::collection::vec((0u64..60, 1u64..30), 0..40)) {
            let text: String = lines.iter().enumerate().map(|(i, (start, size))| format!("{start:x} {size:#x} f{i}\n")).collect();
            let map = map(text.as_bytes());
            for address in 0..100 {
                let last = lines.iter().rposition(|(start, size)| (*start..start + size).contains(&address));
                prop_assert_eq!(name(&map, address), last.map(|i| format!("f{i}")));
            }
            let mut end = 0;
            for (start, range) in &map.ranges {
                prop_assert!(*start >= end && range.end > *start);
                end = range.end;
            }
        }

        /// However the text is cut, the same names come out.
        #[test]
        fn any_bytes_in_any_pieces(text in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), Just(b'1'), any::<u8>()], 0..300), cut in 0usize..300) {
            let whole = map(&text);
            let mut pieces = PerfMap::default();
            let cut = cut.min(text.len());
            let used = pieces.add_block(&text[..cut]);
            pieces.add_block(&text[used..]);
            prop_assert_eq!(whole.ranges.len(), pieces.ranges.len());
            prop_assert_eq!(whole.names, pieces.names);
        }
    }
}
