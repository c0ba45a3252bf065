//! Perf maps: lines of `START SIZE name`, both hex, appended as a JIT makes code. What comes later in the file is newer and wins.
//!
//! Of a line 16 bytes are kept: what it covers and where it stands in the file, from which its name is read when it is asked for.
//!
//! Lines have no times. What a line covered before a reading that found a newer one there had that meaning up to the reading before:
//! the more often the file is read, the closer that is to when the code changed.
//!
//! Whoever reads a file in the place of another, who is gone, knows up to where that one had read, and when ([`MapRead`]). Which of several
//! lines up to there held at which time before that is not known any more: then nothing is said of the addresses that they share.

use super::source::ReadAt;
use crate::frame::{Frame, Names};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Longest name given; a line may be longer.
const MAX_NAME: usize = 4 << 10;
/// Bytes of a line that are looked at.
const LINE_HEAD: usize = MAX_NAME + 128;
/// Longest line: one without end is skipped.
const MAX_LINE: usize = 64 << 10;
/// Bytes before the place read up to that must be the same when reading goes on.
const OVERLAP: usize = 64;
/// Largest part of a file that is read: positions fit into 32 bits.
pub(super) const MAX_FILE: u64 = 512 << 20;
/// Bytes read at one lookup; the rest at a later one.
const MAX_READ: u64 = 128 << 20;
/// Ranges remembered that newer lines have replaced since they were first read; the oldest go first.
const MAX_PAST: usize = 2048;
/// Stretches of addresses remembered of which several lines spoke before another read on; if there are more, nothing is said of any.
const MAX_SHARED: usize = 64 << 10;
/// For so long after that nobody asks any more what they meant before, ns.
const SHARED_FOR: u64 = 1_800_000_000_000;
/// New ranges gathered before they are merged into those known.
const BATCH: usize = 8 << 10;

/// What a line covers, or what newer ones left of that.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    size: u32,
    /// Where its line begins in the file, which is also its age.
    at: u32,
}

impl Range {
    fn new(start: u64, end: u64, at: u32) -> Self {
        Self { start, size: u32::try_from(end - start).unwrap_or(u32::MAX), at }
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.size))
    }
}

/// Ranges by start: their end, and where their lines begin.
type Batch = BTreeMap<u64, (u64, u32)>;

/// How far the perf map of a process was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapRead {
    /// The file's device and inode.
    pub file: (u64, u64),
    /// Bytes of it that were read.
    pub length: u64,
    /// The last of them.
    pub last: Vec<u8>,
    /// When (`CLOCK_MONOTONIC`, ns).
    pub seen: u64,
    /// What its addresses meant before is not known, as `seen`; 0 if all is.
    pub lost: u64,
}

/// The ranges of one map.
#[derive(Debug)]
pub(crate) struct PerfMap {
    /// By start and disjoint: a newer one cuts off what it overlaps.
    ranges: Vec<Range>,
    /// Most ranges kept.
    max: usize,
    /// Ranges that gave way to newer ones for want of room.
    left_out: u64,
    /// Read up to here; what follows is an unfinished line.
    consumed: u64,
    /// The bytes before that place, and the state of the file then: to see that it was written anew.
    last: Vec<u8>,
    state: (u64, i64),
    /// Within a line that is too long to be one.
    skipping: bool,
    /// What newer lines replaced, and up to when it stood; the oldest first.
    past: VecDeque<(Range, u64)>,
    /// When it was read last, and where that reading began: lines from there on are of one time.
    seen: u64,
    begin: u64,
    /// Up to where another had read it, and when, until that is read again.
    resume: Option<(u64, u64)>,
    /// Before this time nothing is known.
    lost: u64,
    /// What several lines covered before that other was gone, by start and disjoint: before this time it is not known which of them held.
    shared: Vec<(u64, u64)>,
    shared_until: u64,
    /// That something is not known any more was not told yet.
    has_lost: bool,
}

impl PerfMap {
    /// Nothing is read yet; `budget` bytes may be held. While ranges are merged there are, for that moment, twice as many.
    pub fn new(budget: u64) -> Self {
        let max = usize::try_from(budget).unwrap_or(usize::MAX) / size_of::<Range>();
        Self {
            ranges: Vec::new(),
            max,
            left_out: 0,
            consumed: 0,
            last: Vec::new(),
            state: (0, 0),
            skipping: false,
            past: VecDeque::new(),
            seen: 0,
            begin: 0,
            resume: None,
            lost: 0,
            shared: Vec::new(),
            shared_until: 0,
            has_lost: false,
        }
    }

    /// The same, of a file that another, who is gone, had read so far.
    pub fn resumed(budget: u64, source: &(impl ReadAt + ?Sized), file: (u64, u64), read: &MapRead) -> Self {
        let mut last = vec![0; read.last.len().min(OVERLAP)];
        let from = read.length.checked_sub(last.len() as u64);
        let is_same = file == read.file
            && read.length <= source.state().0
            && from.is_some_and(|from| source.read_at(from, &mut last) == last.len())
            && last == read.last;
        let new = Self { lost: read.lost, ..Self::new(budget) };
        if read.seen == 0 {
            new
        } else if is_same {
            Self { resume: Some((read.length, read.seen)), shared_until: read.seen, ..new }
        } else {
            Self { lost: read.lost.max(read.seen), has_lost: true, ..new }
        }
    }

    /// How far it was read.
    pub fn so_far(&self, file: (u64, u64)) -> MapRead {
        match self.resume {
            // What was not read again is as it was, and so is what is not known of it.
            Some((length, seen)) if self.consumed < length => {
                MapRead { file, length: self.consumed, last: self.last.clone(), seen, lost: self.lost.max(seen) }
            }
            _ => MapRead { file, length: self.consumed, last: self.last.clone(), seen: self.seen, lost: self.lost },
        }
    }

    /// Whether it is not known any more what some addresses meant; once.
    pub fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    /// Reads what was added to the file by `now` (CLOCK_MONOTONIC, ns), or all of it if it was written anew; gives the bytes read.
    pub fn read(&mut self, source: &(impl ReadAt + ?Sized), now: u64) -> u64 {
        let read = self.read_more(source);
        // What was cut short goes on at the next reading: its lines are of the same time.
        if read < MAX_READ {
            self.seen = now;
        }
        if self.resume.is_none() && now > self.shared_until.saturating_add(SHARED_FOR) {
            self.shared = Vec::new();
        }
        read
    }

    fn read_more(&mut self, source: &(impl ReadAt + ?Sized)) -> u64 {
        let state = source.state();
        let end = state.0.min(MAX_FILE);
        if state == self.state && (self.consumed >= end || self.last.is_empty()) {
            return 0;
        }
        let anew = state.0 < self.consumed || (state.0 == self.state.0 && state.1 != self.state.1);
        if anew || !self.continues(source) {
            let (left_out, lost, has_lost) = (self.left_out, self.lost.max(self.shared_until), self.has_lost);
            *self = Self { left_out, lost, has_lost, ..Self::new((self.max * size_of::<Range>()) as u64) };
        }
        self.state = state;
        let begin = self.consumed;
        self.begin = begin;
        let mut buffer = vec![0; MAX_LINE * 4];
        loop {
            // To the length at the start: a file that grows as fast as we read must not keep us.
            let end = self.resume.map_or(end, |(length, _)| end.min(length));
            while self.consumed < end && self.consumed - begin < MAX_READ {
                let want = usize::try_from(end - self.consumed).unwrap_or(usize::MAX).min(buffer.len());
                let Some(wanted) = buffer.get_mut(..want) else { break };
                let read = source.read_at(self.consumed, wanted);
                let block = wanted.get(..read).unwrap_or_default();
                let used = self.add_block(block);
                if used == 0 {
                    break;
                }
                let seen = block.get(..used).unwrap_or_default();
                self.last = seen.get(seen.len().saturating_sub(OVERLAP)..).unwrap_or_default().to_vec();
            }
            let is_cut_short = self.consumed - begin >= MAX_READ;
            if self.resume.is_some() {
                self.tidy_shared();
            }
            let Some((_, seen)) = self.resume.take_if(|_| !is_cut_short) else { break };
            // All that the other had read is here; what follows is newer than its last reading.
            (self.seen, self.begin) = (seen, self.consumed);
            self.has_lost |= !self.shared.is_empty() || self.lost > 0;
        }
        self.consumed - begin
    }

    fn continues(&self, source: &(impl ReadAt + ?Sized)) -> bool {
        let mut now = vec![0; self.last.len()];
        let from = self.consumed.saturating_sub(now.len() as u64);
        source.read_at(from, &mut now) == now.len() && now == self.last
    }

    /// Takes the whole lines of a block, the one that follows what was taken before; gives the bytes used.
    pub fn add_block(&mut self, block: &[u8]) -> usize {
        let Some(end) = block.iter().rposition(|byte| *byte == b'\n') else {
            if block.len() < MAX_LINE {
                return 0;
            }
            self.skipping = true;
            self.consumed += block.len() as u64;
            return block.len();
        };
        let lines = block.get(..end).unwrap_or_default();
        let mut batch = Batch::new();
        let mut at = self.consumed;
        for line in lines.split(|byte| *byte == b'\n') {
            if !std::mem::take(&mut self.skipping)
                && let (Some((start, end, _)), Ok(at)) = (parse(line), u32::try_from(at))
            {
                let shared = self.resume.is_some().then_some(&mut self.shared);
                insert(&mut batch, start, (end, at), shared);
            }
            at += line.len() as u64 + 1;
            if batch.len() >= BATCH {
                self.merge(std::mem::take(&mut batch));
            }
        }
        self.merge(batch);
        self.consumed += end as u64 + 1;
        end + 1
    }

    /// Puts newer ranges in place of what they overlap.
    fn merge(&mut self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let mut merged = Vec::with_capacity(self.ranges.len() + 2 * batch.len());
        let mut newer = batch.into_iter().map(|(start, (end, at))| Range::new(start, end, at)).peekable();
        let mut replaced = Vec::new();
        for old in std::mem::take(&mut self.ranges) {
            // What is still to be placed of the old one begins here.
            let (mut start, end) = (old.start, old.end());
            while let Some(new) = newer.next_if(|new| new.start < end && new.end() < end) {
                if new.start > start {
                    merged.push(Range::new(start, new.start, old.at));
                }
                replaced.push(Range::new(start.max(new.start).min(new.end()), new.end(), old.at));
                start = start.max(new.end());
                merged.push(new);
            }
            // One that reaches to its end or beyond may cover the next as well.
            let whole = end;
            let end = newer.peek().map_or(end, |new| end.min(new.start));
            if end < whole {
                replaced.push(Range::new(start.max(end), whole, old.at));
            }
            if end > start {
                merged.push(Range::new(start, end, old.at));
            }
        }
        merged.extend(newer);
        self.ranges = merged;
        if self.resume.is_some() {
            self.shared.extend(replaced.iter().filter(|range| range.size > 0).map(|range| (range.start, range.end())));
            if self.shared.len() > 2 * MAX_SHARED {
                self.tidy_shared();
            }
        } else if self.seen > 0 {
            let old = |range: &Range| range.size > 0 && u64::from(range.at) < self.begin;
            let until = self.seen;
            replaced.retain(old);
            let newest = replaced.split_off(replaced.len().saturating_sub(MAX_PAST));
            let over = (self.past.len() + newest.len()).saturating_sub(MAX_PAST);
            self.past.drain(..over);
            self.past.extend(newest.into_iter().map(|range| (range, until)));
        }
        self.prune();
    }

    /// Joins what overlaps; if it is too much all the same, nothing at all is known of then.
    fn tidy_shared(&mut self) {
        self.shared.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (start, end) in std::mem::take(&mut self.shared) {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        if joined.len() > MAX_SHARED {
            self.lost = self.lost.max(self.shared_until);
        } else {
            self.shared = joined;
        }
    }

    /// Whether it is not known which of several lines held at an address; while they are still read it may be any.
    fn is_shared(&self, address: u64) -> bool {
        if self.resume.is_some() {
            return true;
        }
        let next = self.shared.partition_point(|(start, _)| *start <= address);
        next.checked_sub(1).and_then(|at| self.shared.get(at)).is_some_and(|(_, end)| address < *end)
    }

    /// When it was read last.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Times at which the meaning of an address changed.
    pub fn turns(&self, address: u64) -> impl Iterator<Item = u64> {
        self.past
            .iter()
            .filter(move |(range, _)| (range.start..range.end()).contains(&address))
            .map(|(_, until)| *until)
            .chain((self.lost > 0).then_some(self.lost))
            .chain(self.is_shared(address).then_some(self.shared_until))
    }

    /// Drops the oldest if there are too many, and some more, so that this is seldom.
    fn prune(&mut self) {
        let before = self.ranges.len();
        if before > self.max {
            let mut ages: Vec<u32> = self.ranges.iter().map(|range| range.at).collect();
            let drop = before - (self.max - self.max / 8);
            let oldest_kept = if drop < ages.len() { *ages.select_nth_unstable(drop).1 } else { u32::MAX };
            self.ranges.retain(|range| range.at >= oldest_kept);
            // Newer lines may have cut one into many.
            if self.ranges.len() > self.max {
                self.ranges.retain(|range| range.at > oldest_kept);
            }
            self.left_out += (before - self.ranges.len()) as u64;
        }
        self.ranges.shrink_to_fit();
    }

    /// The code at an address at a time, named by `source`, the file that was read.
    pub fn find(&self, source: &(impl ReadAt + ?Sized), address: u64, time: u64) -> Option<Frame> {
        if time < self.lost || time < self.shared_until && self.is_shared(address) {
            return None;
        }
        let before =
            self.past.iter().find(|(range, until)| time < *until && (range.start..range.end()).contains(&address));
        let range = match before {
            Some((range, _)) => range,
            None => {
                let next = self.ranges.partition_point(|range| range.start <= address);
                self.ranges.get(next.checked_sub(1)?).filter(|range| address < range.end())?
            }
        };
        let mut line = vec![0; LINE_HEAD];
        let read = source.read_at(u64::from(range.at), &mut line);
        let line = line.get(..read)?.split(|byte| *byte == b'\n').next()?;
        // The file may have been written anew since.
        let (_, _, name) = parse(line).filter(|(start, end, _)| (*start..*end).contains(&address))?;
        let name: Arc<str> = String::from_utf8_lossy(name).into();
        Some(Frame::named(Names { system_name: name.clone(), name }))
    }

    /// Ranges that were left out since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Memory held, bytes.
    pub fn bytes(&self) -> u64 {
        let past = self.past.capacity() * size_of::<(Range, u64)>();
        let shared = self.shared.capacity() * size_of::<(u64, u64)>();
        (self.ranges.capacity() * size_of::<Range>() + self.last.capacity() + past + shared) as u64
    }
}

/// Puts a range in place of what it overlaps, which is added to `shared` if that is asked for.
fn insert(batch: &mut Batch, start: u64, range: (u64, u32), mut shared: Option<&mut Vec<(u64, u64)>>) {
    let mut overlaps = |start: u64, end: u64| shared.iter_mut().for_each(|shared| shared.push((start, end)));
    // The one that reaches in from below loses its end, and may go on behind.
    if let Some((_, below)) = batch.range_mut(..start).next_back()
        && below.0 > start
    {
        let whole = *below;
        overlaps(start, whole.0.min(range.0));
        below.0 = start;
        if whole.0 > range.0 {
            batch.insert(range.0, whole);
        }
    }
    // Those that begin within go, but for what the last has behind.
    while let Some((within, old)) = batch.range(start..range.0).next().map(|(start, old)| (*start, *old)) {
        batch.remove(&within);
        overlaps(within, old.0.min(range.0));
        if old.0 > range.0 {
            batch.insert(range.0, old);
        }
    }
    batch.insert(start, range);
}

/// Start, end and name of a line.
fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let line = line.get(..LINE_HEAD).unwrap_or(line);
    let (start, rest) = hex(line)?;
    let (size, name) = hex(rest)?;
    let end = start.checked_add(size.min(u64::from(u32::MAX))).filter(|end| *end > start)?;
    let name = name.trim_ascii();
    (!name.is_empty()).then(|| (start, end, name.get(..MAX_NAME).unwrap_or(name)))
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
        let mut map = PerfMap::new(1 << 20);
        map.add_block(text);
        map
    }

    fn name(map: &PerfMap, text: &[u8], address: u64) -> Option<String> {
        map.find(text, address, u64::MAX).map(|frame| frame.name.to_string())
    }

    #[test]
    fn both_hex_forms_and_names_with_blanks() {
        let text: &[u8] =
            b"7f00 10 LazyCompile:*foo a.js:1:2\n0x00007f20 0x20 void java.lang.A.b(int, long)\n  7F40\t8\tx\r\n";
        let map = map(text);
        assert_eq!(name(&map, text, 0x7f00).as_deref(), Some("LazyCompile:*foo a.js:1:2"));
        assert_eq!(name(&map, text, 0x7f0f).as_deref(), Some("LazyCompile:*foo a.js:1:2"));
        assert_eq!(name(&map, text, 0x7f10), None);
        assert_eq!(name(&map, text, 0x7f3f).as_deref(), Some("void java.lang.A.b(int, long)"));
        assert_eq!(name(&map, text, 0x7f40).as_deref(), Some("x"));
    }

    #[test]
    fn bad_lines_cost_only_themselves() {
        let text = b"\n\nzz 10 a\n10\n10 \n10 20\n10 20 \n10 0 empty\nffffffffffffffff 2 over\n\
                     11111111111111111 1 long\n-5 1 neg\n100 10 g\xffood\n200 10 torn";
        let map = map(text);
        assert_eq!(map.ranges.len(), 1);
        assert_eq!(name(&map, text, 0x105).as_deref(), Some("g\u{fffd}ood"));
    }

    #[test]
    fn the_newest_wins_where_ranges_overlap() {
        let text = b"100 100 old\n140 20 new\n1f0 20 tail\n0f0 11 head\n";
        let map = map(text);
        let names: Vec<_> = [0xef, 0xf0, 0x100, 0x101, 0x13f, 0x140, 0x15f, 0x160, 0x1ef, 0x1f0, 0x20f, 0x210]
            .map(|address| name(&map, text, address).unwrap_or_default())
            .into();
        assert_eq!(names, ["", "head", "head", "old", "old", "new", "new", "old", "old", "tail", "tail", ""]);
    }

    #[test]
    fn a_line_read_later_replaces_an_older_one_from_the_reading_before_on() {
        let first: &[u8] = b"100 100 old\n140 20 same reading\n";
        let all = [first, b"150 20 new\n300 10 late\n"].concat();
        let mut map = PerfMap::new(1 << 20);
        map.read(first, 1_000);
        map.read(first, 2_000);
        map.read(&all[..], 3_000);
        let name = |address, time| map.find(&all[..], address, time).map(|f| f.name.to_string()).unwrap_or_default();
        assert_eq!([name(0x155, 1_999), name(0x155, 2_000), name(0x155, u64::MAX)], ["same reading", "new", "new"]);
        assert_eq!([name(0x165, 1_999), name(0x165, 2_500)], ["old", "new"]);
        // What nobody else was at had its name from the start: code runs before it is written down and read.
        assert_eq!([name(0x305, 0), name(0x145, 0), name(0x1ff, 5)], ["late", "same reading", "old"]);
        assert_eq!(map.turns(0x155).collect::<Vec<_>>(), [2_000]);
        assert_eq!(map.turns(0x145).count() + map.turns(0x305).count(), 0);
    }

    /// As [`MapRead`] goes from one that is gone to the next.
    fn handed_over(map: &PerfMap, text: &[u8]) -> PerfMap {
        PerfMap::resumed(1 << 20, text, (1, 2), &map.so_far((1, 2)))
    }

    #[test]
    fn who_reads_on_for_another_names_nothing_by_lines_that_are_newer() {
        let first: &[u8] = b"100 100 old\n140 20 same reading\n300 10 alone\n";
        let second = [first, b"150 20 new\n".as_slice()].concat();
        let third = [&second[..], b"310 10 late\n300 8 newest\n"].concat();
        let mut gone = PerfMap::new(1 << 20);
        gone.read(first, 1_000);
        gone.read(&second[..], 2_000);
        let mut map = handed_over(&gone, &third);
        map.read(&third[..], 3_000);
        let name = |address, time| map.find(&third[..], address, time).map(|f| f.name.to_string()).unwrap_or_default();
        // Several lines speak of it, and when each held nobody knows any more.
        assert_eq!([name(0x155, 0), name(0x155, 1_999), name(0x155, 2_000)], ["", "", "new"]);
        assert_eq!([name(0x145, 1_999), name(0x145, 2_000)], ["", "same reading"]);
        // One line does.
        assert_eq!([name(0x105, 0), name(0x30c, 0)], ["old", "alone"]);
        // What is newer than the last reading is told apart, as if nobody had gone.
        assert_eq!([name(0x305, 0), name(0x305, 1_999), name(0x305, 2_000)], ["alone", "alone", "newest"]);
        assert_eq!(name(0x315, 0), "late");
        assert_eq!(map.turns(0x145).collect::<Vec<_>>(), [2_000]);
        assert!(map.take_lost() && !map.take_lost());
        // Over and over.
        let mut map = handed_over(&map, &third);
        map.read(&third[..], 4_000);
        let name = |address, time| map.find(&third[..], address, time).map(|f| f.name.to_string()).unwrap_or_default();
        assert_eq!([name(0x305, 2_999), name(0x305, 3_000), name(0x30c, 0)], ["", "newest", "alone"]);
    }

    #[test]
    fn of_another_file_or_content_nothing_is_said_before_it_was_read() {
        let text: &[u8] = b"100 100 old\n";
        let mut gone = PerfMap::new(1 << 20);
        gone.read(text, 1_000);
        for (other, file) in [(&b"100 100 new\n"[..], (1, 2)), (text, (1, 3)), (b"100 80 n\n", (1, 2))] {
            let mut map = PerfMap::resumed(1 << 20, other, file, &gone.so_far((1, 2)));
            map.read(other, 3_000);
            assert_eq!(map.find(other, 0x105, 999), None);
            assert!(map.find(other, 0x105, 1_000).is_some() && map.take_lost());
            assert_eq!(map.turns(0x105).collect::<Vec<_>>(), [1_000]);
        }
        // Nobody had read it: code runs before it is written down.
        let mut map = handed_over(&PerfMap::new(1 << 20), text);
        map.read(text, 3_000);
        assert!(map.find(text, 0x105, 0).is_some() && !map.take_lost());
    }

    #[test]
    fn where_too_many_lines_share_addresses_nothing_is_said_of_any() {
        let line = |at: usize| format!("{:x} 10 a\n{:x} 10 b\n300 10 other\n", at * 64, at * 64);
        let text: String = (0x40..0x40 + MAX_SHARED + 1).map(line).collect();
        let mut gone = PerfMap::new(64 << 20);
        gone.read(text.as_bytes(), 1_000);
        let mut map = PerfMap::resumed(64 << 20, text.as_bytes(), (1, 2), &gone.so_far((1, 2)));
        map.read(text.as_bytes(), 3_000);
        assert_eq!((map.lost, map.shared.len()), (1_000, 0));
    }

    #[test]
    fn a_line_without_end_is_skipped() {
        let mut map = PerfMap::new(1 << 20);
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
            let mut map = PerfMap::new(1 << 20);
            text.split_inclusive('\n').for_each(|line| { map.add_block(line.as_bytes()); });
            for address in 0..100 {
                let last = lines.iter().rposition(|(start, size)| (*start..start + size).contains(&address));
                prop_assert_eq!(name(&map, text.as_bytes(), address), last.map(|i| format!("f{i}")));
            }
            let mut end = 0;
            for range in &map.ranges {
                prop_assert!(range.start >= end && range.end() > range.start);
                end = range.end();
            }
        }

        /// However the text is cut, the same names come out.
        #[test]
        fn any_bytes_in_any_pieces(text in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), Just(b'1'), any::<u8>()], 0..300), cut in 0usize..300) {
            let whole = map(&text);
            let mut pieces = PerfMap::new(1 << 20);
            let cut = cut.min(text.len());
            let used = pieces.add_block(&text[..cut]);
            pieces.add_block(&text[used..]);
            prop_assert_eq!(whole.ranges.len(), pieces.ranges.len());
            let key = |map: &PerfMap| map.ranges.iter().map(|r| (r.start, r.size, r.at)).collect::<Vec<_>>();
            prop_assert_eq!(key(&whole), key(&pieces));
        }
    }
}
