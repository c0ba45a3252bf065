//! Perf maps: lines of `START SIZE name`, both hex, appended as a JIT makes code. What comes later in the file is newer and wins.
//!
//! Of a line 20 bytes are kept: what it covers, where it stands in the file, from which its name is read when it is asked for, and a hash of
//! that name.
//!
//! Lines have no times. What a line covered before a reading that found a newer one there had that meaning up to the reading before:
//! the more often the file is read, the closer that is to when the code changed.
//!
//! A file that is written anew, as a JVM does each time that it is told to dump its map, has lost the names of before. Where both have the
//! same name for an address it had that all the time; where not, nothing is said of the time before. Nor is it where more was replaced than
//! is kept.
//!
//! Whoever reads a file in the place of another, who is gone, knows up to where that one had read, and when ([`MapRead`]). Which of several
//! lines up to there held at which time before that is not known any more: then nothing is said of the addresses that they share.

use super::source::ReadAt;
use crate::frame::{Frame, Names};
use rustc_hash::FxHasher;
use std::{
    collections::{BTreeMap, VecDeque},
    hash::Hasher,
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
/// Ranges remembered that newer lines have replaced since they were first read; the oldest go first, and are not known then.
const MAX_PAST: usize = 2048;
/// Stretches of addresses remembered of which it is not known what they meant before a time; if there are more, nothing is known of any
/// address before the times of those that go first.
const MAX_UNKNOWN: usize = 64 << 10;
/// So many are kept however old they are.
const FEW_UNKNOWN: usize = 8 << 10;
/// After so long only a recording asks what was before, ns.
const UNKNOWN_FOR: u64 = 1_800_000_000_000;
/// New ranges gathered before they are merged into those known.
const BATCH: usize = 8 << 10;

/// Where a line is, and what it says.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Where it begins in the file, which is also its age.
    at: u32,
    /// A hash of its name.
    name: u32,
}

/// What a line covers, or what newer ones left of that. Of four bytes' alignment, since there are very many.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
struct Range {
    start: u64,
    size: u32,
    line: Line,
}

impl Range {
    fn new(start: u64, end: u64, line: Line) -> Self {
        Self { start, size: u32::try_from(end - start).unwrap_or(u32::MAX), line }
    }

    fn has(&self, address: u64) -> bool {
        self.start <= address && address < self.end()
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.size))
    }
}

/// Disjoint ranges by start: their end, and what is said of them.
type Stretches<T> = BTreeMap<u64, (u64, T)>;

/// What a map says of an address at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Its code.
    Named(Frame),
    /// It was code, or may have been, and which one is not known any more.
    NotKnown,
    /// No line is about it.
    Nothing,
}

impl Said {
    /// Its code, if that is known.
    pub fn frame(self) -> Option<Frame> {
        match self {
            Self::Named(frame) => Some(frame),
            Self::NotKnown | Self::Nothing => None,
        }
    }
}

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
    /// Stretches of which it is not known what they meant before a time.
    unknown: Stretches<u64>,
    /// The ranges of the file that this one came in the place of, as they were up to when that was read last: what they were called is known
    /// only where a line of now says the same. Compared and dropped when this one is read whole.
    replaced: Vec<Range>,
    replaced_at: u64,
    /// Whoever reads on knows nothing of the time before this: the lines of then are gone.
    anew: u64,
    /// That something is not known any more was not told yet.
    has_lost: bool,
    /// What was replaced by newer lines was more than is kept.
    has_dropped: bool,
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
            unknown: Stretches::new(),
            replaced: Vec::new(),
            replaced_at: 0,
            anew: 0,
            has_lost: false,
            has_dropped: false,
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
            Self { resume: Some((read.length, read.seen)), ..new }
        } else {
            Self { lost: read.lost.max(read.seen), has_lost: true, ..new }
        }
    }

    /// How far it was read.
    pub fn so_far(&self, file: (u64, u64)) -> MapRead {
        let lost = self.lost.max(self.anew);
        match self.resume {
            // What was not read again is as it was, and so is what is not known of it.
            Some((length, seen)) if self.consumed < length => {
                MapRead { file, length: self.consumed, last: self.last.clone(), seen, lost: lost.max(seen) }
            }
            _ => MapRead { file, length: self.consumed, last: self.last.clone(), seen: self.seen, lost },
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
        // One that is being written has lines that are still to come.
        if read == 0 && self.consumed > 0 {
            self.compare();
        }
        if self.unknown.len() > FEW_UNKNOWN {
            let old = now.saturating_sub(UNKNOWN_FOR);
            self.forget(self.unknown.values().map(|(_, until)| *until).filter(|until| *until < old).max().unwrap_or(0));
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
            let new = Self { left_out: self.left_out, ..Self::new((self.max * size_of::<Range>()) as u64) };
            let old = std::mem::replace(self, new);
            self.follow(old);
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
            let Some((_, seen)) = self.resume.take_if(|_| !is_cut_short) else { break };
            // All that the other had read is here; what follows is newer than its last reading.
            (self.seen, self.begin) = (seen, self.consumed);
            self.has_lost |= !self.unknown.is_empty() || self.lost > 0;
        }
        self.consumed - begin
    }

    fn continues(&self, source: &(impl ReadAt + ?Sized)) -> bool {
        let mut now = vec![0; self.last.len()];
        let from = self.consumed.saturating_sub(now.len() as u64);
        source.read_at(from, &mut now) == now.len() && now == self.last
    }

    /// Comes in the place of another, whose file is not to be read any more: what that knew of the time before.
    pub fn follow(&mut self, mut old: Self) {
        old.compare();
        self.compare();
        self.lost = self.lost.max(old.lost).max(old.resume.map_or(0, |(_, seen)| seen));
        for (start, (end, until)) in old.unknown {
            self.not_known(start, end, until);
        }
        for (range, until) in old.past {
            self.not_known(range.start, range.end(), until);
        }
        (self.replaced, self.replaced_at) = (old.ranges, old.seen);
        self.anew = self.anew.max(old.anew).max(old.seen);
        self.has_lost |= old.has_lost || old.seen > 0 || old.resume.is_some();
    }

    /// Sees which addresses had another name, or one at all, in the file that this one came in the place of.
    pub fn compare(&mut self) {
        let (replaced, until) = (std::mem::take(&mut self.replaced), std::mem::take(&mut self.replaced_at));
        let mut stretches = Vec::new();
        let mut newer = self.ranges.iter().peekable();
        for old in replaced {
            let mut start = old.start;
            while let Some(new) = newer.peek().filter(|new| new.start < old.end()) {
                if new.line.name == old.line.name && new.end() > start {
                    stretches.push((start, new.start.max(start)));
                    start = new.end();
                }
                // One that goes on behind may cover the next as well.
                if new.end() > old.end() {
                    break;
                }
                newer.next();
            }
            stretches.push((start.min(old.end()), old.end()));
        }
        for (start, end) in stretches {
            self.not_known(start, end, until);
        }
    }

    /// Before `until` nobody knows what these addresses meant.
    fn not_known(&mut self, start: u64, end: u64, until: u64) {
        if start >= end || until <= self.lost {
            return;
        }
        // Of what is known later still, that stays.
        let first = self.unknown.range(..=start).next_back().map_or(start, |(start, _)| *start);
        let within = self.unknown.range(first..end).filter(|(_, known)| known.0 > start && known.1 > until);
        let later: Vec<_> = within.map(|(start, known)| (*start, *known)).collect();
        insert(&mut self.unknown, start, (end, until), |_, _| {});
        for (start, known) in later {
            insert(&mut self.unknown, start, known, |_, _| {});
        }
        if self.unknown.len() > MAX_UNKNOWN {
            self.join();
        }
    }

    /// Joins what touches and is not known up to the same time; if it is too much all the same, the older half goes, and with it all that was
    /// known up to then.
    fn join(&mut self) {
        let mut joined: Vec<(u64, (u64, u64))> = Vec::new();
        for (start, (end, until)) in std::mem::take(&mut self.unknown) {
            match joined.last_mut() {
                Some((_, last)) if *last == (start, until) => last.0 = end,
                _ => joined.push((start, (end, until))),
            }
        }
        let mut untils: Vec<u64> = joined.iter().map(|(_, (_, until))| *until).collect();
        self.unknown = joined.into_iter().collect();
        if untils.len() > MAX_UNKNOWN / 2 {
            let middle = untils.len() / 2;
            self.forget(*untils.select_nth_unstable(middle).1);
        }
    }

    /// Nothing is known before `until`, and no stretches need be remembered for that.
    fn forget(&mut self, until: u64) {
        self.lost = self.lost.max(until);
        self.unknown.retain(|_, (_, known)| *known > until);
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
        let mut batch = Stretches::new();
        let mut at = self.consumed;
        let resume = self.resume.map(|(_, seen)| seen);
        for line in lines.split(|byte| *byte == b'\n') {
            if !std::mem::take(&mut self.skipping)
                && let (Some((start, end, name)), Ok(at)) = (parse(line), u32::try_from(at))
            {
                let line = Line { at, name: hash(name) };
                // Which of several lines held is not known to whoever reads on.
                insert(&mut batch, start, (end, line), |start, end| {
                    if let Some(until) = resume {
                        self.not_known(start, end, until);
                    }
                });
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
    fn merge(&mut self, batch: Stretches<Line>) {
        if batch.is_empty() {
            return;
        }
        let mut merged = Vec::with_capacity(self.ranges.len() + 2 * batch.len());
        let mut newer = batch.iter().map(|(start, (end, line))| Range::new(*start, *end, *line)).peekable();
        let mut replaced = Vec::new();
        for old in std::mem::take(&mut self.ranges) {
            // What is still to be placed of the old one begins here.
            let (mut start, end) = (old.start, old.end());
            while let Some(new) = newer.next_if(|new| new.start < end && new.end() < end) {
                if new.start > start {
                    merged.push(Range::new(start, new.start, old.line));
                }
                replaced.push(Range::new(start.max(new.start).min(new.end()), new.end(), old.line));
                start = start.max(new.end());
                merged.push(new);
            }
            // One that reaches to its end or beyond may cover the next as well.
            let whole = end;
            let end = newer.peek().map_or(end, |new| end.min(new.start));
            if end < whole {
                replaced.push(Range::new(start.max(end), whole, old.line));
            }
            if end > start {
                merged.push(Range::new(start, end, old.line));
            }
        }
        merged.extend(newer);
        self.ranges = merged;
        if let Some((_, until)) = self.resume {
            replaced.iter().for_each(|range| self.not_known(range.start, range.end(), until));
        } else if self.seen > 0 && self.left_out > 0 {
            // What was left out may have been there before.
            batch.into_iter().for_each(|(start, (end, _))| self.not_known(start, end, self.seen));
        } else if self.seen > 0 {
            replaced.retain(|range| range.size > 0 && u64::from(range.line.at) < self.begin);
            if !self.replaced.is_empty() {
                // These, and not those that come now, are what was there next.
                replaced.iter().for_each(|range| self.not_known(range.start, range.end(), self.replaced_at));
            }
            self.past.extend(replaced.into_iter().map(|range| (range, self.seen)));
            let over = self.past.len().saturating_sub(MAX_PAST);
            let dropped: Vec<_> = self.past.drain(..over).collect();
            for (range, until) in dropped {
                // Of what is long ago it is told once: a recording may still ask.
                self.has_lost |= !self.has_dropped || self.seen.saturating_sub(until) < UNKNOWN_FOR;
                self.has_dropped = true;
                self.not_known(range.start, range.end(), until);
            }
        }
        self.prune();
    }

    /// Up to when it is not known what an address meant; while lines that another had read are still read it may be any of them.
    fn known_from(&self, address: u64) -> u64 {
        let resume = self.resume.map_or(0, |(_, seen)| seen);
        let stretch = self.unknown.range(..=address).next_back().filter(|(_, (end, _))| address < *end);
        let differs = at(&self.replaced, address)
            .is_some_and(|old| at(&self.ranges, address).is_none_or(|new| new.line.name != old.line.name));
        let replaced = if differs { self.replaced_at } else { 0 };
        stretch.map_or(0, |(_, (_, until))| *until).max(self.lost).max(resume).max(replaced)
    }

    /// When it was read last.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Times at which the meaning of an address changed.
    pub fn turns(&self, address: u64) -> impl Iterator<Item = u64> {
        self.past
            .iter()
            .filter(move |(range, _)| range.has(address))
            .map(|(_, until)| *until)
            .chain(Some(self.known_from(address)).filter(|from| *from > 0))
    }

    /// Drops the oldest if there are too many, and some more, so that this is seldom.
    fn prune(&mut self) {
        let before = self.ranges.len();
        if before > self.max {
            let mut ages: Vec<u32> = self.ranges.iter().map(|range| range.line.at).collect();
            let drop = before - (self.max - self.max / 8);
            let oldest_kept = if drop < ages.len() { *ages.select_nth_unstable(drop).1 } else { u32::MAX };
            self.ranges.retain(|range| range.line.at >= oldest_kept);
            // Newer lines may have cut one into many.
            if self.ranges.len() > self.max {
                self.ranges.retain(|range| range.line.at > oldest_kept);
            }
            self.left_out += (before - self.ranges.len()) as u64;
            // What a newer line says of their addresses is not what they said.
            if let Some((_, seen)) = self.resume {
                self.forget(seen);
            }
        }
        self.ranges.shrink_to_fit();
    }

    /// What `source`, the file that was read, says of an address at a time.
    pub fn find(&self, source: &(impl ReadAt + ?Sized), address: u64, time: u64) -> Said {
        if time < self.known_from(address) {
            return Said::NotKnown;
        }
        let before = self.past.iter().find(|(range, until)| time < *until && range.has(address));
        let Some(range) = before.map(|(range, _)| range).or_else(|| at(&self.ranges, address)) else {
            return Said::Nothing;
        };
        let mut line = vec![0; LINE_HEAD];
        let read = source.read_at(u64::from(range.line.at), &mut line);
        let line = line.get(..read).unwrap_or_default().split(|byte| *byte == b'\n').next().unwrap_or_default();
        // The file may have been written anew since.
        match parse(line)
            .filter(|(start, end, name)| (*start..*end).contains(&address) && hash(name) == range.line.name)
        {
            Some((.., name)) => {
                let name: Arc<str> = String::from_utf8_lossy(name).into();
                Said::Named(Frame::named(Names { system_name: name.clone(), name }))
            }
            None => Said::NotKnown,
        }
    }

    /// Ranges that were left out since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Memory held, bytes.
    pub fn bytes(&self) -> u64 {
        let past = self.past.capacity() * size_of::<(Range, u64)>();
        // The nodes of a tree are two thirds full.
        let unknown = self.unknown.len() * size_of::<(u64, (u64, u64))>() * 3 / 2;
        let ranges = (self.ranges.capacity() + self.replaced.capacity()) * size_of::<Range>();
        (ranges + self.last.capacity() + past + unknown) as u64
    }
}

/// The range of an address, of those that are by start and disjoint.
fn at(ranges: &[Range], address: u64) -> Option<&Range> {
    let next = ranges.partition_point(|range| range.start <= address);
    ranges.get(next.checked_sub(1)?).filter(|range| range.has(address))
}

/// By which names are told apart that are not kept.
fn hash(name: &[u8]) -> u32 {
    let mut hasher = FxHasher::default();
    hasher.write(name);
    u32::try_from(hasher.finish() >> 32).unwrap_or(0)
}

/// Puts a range in place of what it overlaps, of which `overlaps` is told.
fn insert<T: Copy>(of: &mut Stretches<T>, start: u64, range: (u64, T), mut overlaps: impl FnMut(u64, u64)) {
    // The one that reaches in from below loses its end, and may go on behind.
    if let Some((_, below)) = of.range_mut(..start).next_back()
        && below.0 > start
    {
        let whole = *below;
        overlaps(start, whole.0.min(range.0));
        below.0 = start;
        if whole.0 > range.0 {
            of.insert(range.0, whole);
        }
    }
    // Those that begin within go, but for what the last has behind.
    while let Some((within, old)) = of.range(start..range.0).next().map(|(start, old)| (*start, *old)) {
        of.remove(&within);
        overlaps(within, old.0.min(range.0));
        if old.0 > range.0 {
            of.insert(range.0, old);
        }
    }
    of.insert(start, range);
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

    fn name_at(map: &PerfMap, text: &[u8], address: u64, time: u64) -> Option<String> {
        map.find(text, address, time).frame().map(|frame| frame.name.to_string())
    }

    fn name(map: &PerfMap, text: &[u8], address: u64) -> Option<String> {
        name_at(map, text, address, u64::MAX)
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
        let name = |address, time| name_at(&map, &all, address, time).unwrap_or_default();
        assert_eq!([name(0x155, 1_999), name(0x155, 2_000), name(0x155, u64::MAX)], ["same reading", "new", "new"]);
        assert_eq!([name(0x165, 1_999), name(0x165, 2_500)], ["old", "new"]);
        // What nobody else was at had its name from the start: code runs before it is written down and read.
        assert_eq!([name(0x305, 0), name(0x145, 0), name(0x1ff, 5)], ["late", "same reading", "old"]);
        assert_eq!(map.turns(0x155).collect::<Vec<_>>(), [2_000]);
        assert_eq!(map.turns(0x145).count() + map.turns(0x305).count(), 0);
    }

    /// As [`MapRead`] goes from one that is gone to the next.
    fn handed_over(map: &PerfMap, text: &[u8]) -> PerfMap {
        handed_over_of(1 << 20, map, text)
    }

    fn handed_over_of(budget: u64, map: &PerfMap, text: &[u8]) -> PerfMap {
        PerfMap::resumed(budget, text, (1, 2), &map.so_far((1, 2)))
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
        let name = |address, time| name_at(&map, &third, address, time).unwrap_or_default();
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
        let name = |address, time| name_at(&map, &third, address, time).unwrap_or_default();
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
            assert_eq!(map.find(other, 0x105, 999), Said::NotKnown);
            assert!(name_at(&map, other, 0x105, 1_000).is_some() && map.take_lost());
            assert_eq!(map.turns(0x105).collect::<Vec<_>>(), [1_000]);
        }
        // Nobody had read it: code runs before it is written down.
        let mut map = handed_over(&PerfMap::new(1 << 20), text);
        map.read(text, 3_000);
        assert!(name_at(&map, text, 0x105, 0).is_some() && !map.take_lost());
    }

    #[test]
    fn where_too_many_lines_share_addresses_nothing_is_said_of_any() {
        let line = |at: usize| format!("{:x} 10 a\n{:x} 10 b\n300 10 other\n", at * 64, at * 64);
        let text: String = (0x40..0x40 + MAX_UNKNOWN + 1).map(line).collect();
        let mut gone = PerfMap::new(64 << 20);
        gone.read(text.as_bytes(), 1_000);
        let mut map = PerfMap::resumed(64 << 20, text.as_bytes(), (1, 2), &gone.so_far((1, 2)));
        map.read(text.as_bytes(), 3_000);
        assert_eq!((map.lost, map.unknown.len()), (1_000, 0));
    }

    #[test]
    fn what_is_not_known_stays_so_however_late_it_is_asked_for() {
        let stretches = |count: u64| -> String {
            (0..count).map(|at| format!("{:x} 10 old\n{:x} 8 new\n", 0x1000 + at * 64, 0x1000 + at * 64)).collect()
        };
        for count in [2, FEW_UNKNOWN as u64 + 1] {
            let text = stretches(count);
            let text = text.as_bytes();
            let mut gone = PerfMap::new(64 << 20);
            gone.read(text, 1_000);
            let mut map = handed_over_of(64 << 20, &gone, text);
            map.read(text, 2_000);
            map.read(text, 1_001 + UNKNOWN_FOR);
            assert_eq!(
                (name_at(&map, text, 0x1004, 999), name_at(&map, text, 0x1004, 1_000)),
                (None, Some("new".into()))
            );
            // Many are forgotten one by one, and then nothing is known of then.
            assert_eq!(name_at(&map, text, 0x100c, 999).as_deref(), (count == 2).then_some("old"));
            assert_eq!((map.lost, map.unknown.is_empty()), if count == 2 { (0, false) } else { (1_000, true) });
        }
    }

    /// A map whose range at 0x100 was `last` from 2,000 on and another before, and of which so many more were replaced then.
    fn replaced(more: usize) -> (PerfMap, Vec<u8>) {
        let lines =
            |name: &str| -> String { (0..more).map(|at| format!("{:x} 10 {name}{at}\n", 0x1000 + at * 16)).collect() };
        let mut text = format!("100 10 first\n{}", lines("a")).into_bytes();
        let mut map = PerfMap::new(1 << 20);
        map.read(&text[..], 1_000);
        text.extend_from_slice(b"100 10 last\n");
        map.read(&text[..], 2_000);
        assert!(!map.take_lost());
        text.extend_from_slice(lines("b").as_bytes());
        map.read(&text[..], 3_000);
        (map, text)
    }

    #[test]
    fn of_more_replaced_than_is_kept_nothing_is_said_and_that_is_told() {
        let (mut map, text) = replaced(MAX_PAST - 1);
        assert_eq!(name_at(&map, &text, 0x105, 999).as_deref(), Some("first"));
        assert!(!map.take_lost());
        // Before it, and among what comes at once.
        for more in [MAX_PAST, MAX_PAST + 2] {
            let (mut map, text) = replaced(more);
            assert_eq!(map.find(&text[..], 0x105, 999), Said::NotKnown);
            assert_eq!(name_at(&map, &text, 0x105, 1_000).as_deref(), Some("last"));
            let kept = name_at(&map, &text, 0x1005, 1_999);
            assert_eq!(kept.as_deref(), (more == MAX_PAST).then_some("a0"));
            assert_eq!(name_at(&map, &text, 0x1005, 2_000).as_deref(), Some("b0"));
            assert_eq!(map.past.len(), MAX_PAST);
            assert_eq!(map.turns(0x105).collect::<Vec<_>>(), [1_000]);
            assert!(map.take_lost() && !map.take_lost());
        }
    }

    #[test]
    fn where_ranges_were_left_out_newer_lines_say_nothing_of_before() {
        let mut text: Vec<u8> =
            (0..10).flat_map(|at| format!("{:x} 10 old{at}\n", 0x100 + at * 16).into_bytes()).collect();
        let mut map = PerfMap::new(8 * size_of::<Range>() as u64);
        map.read(&text[..], 1_000);
        assert!(map.left_out() > 0 && name(&map, &text, 0x105).is_none());
        text.extend_from_slice(b"100 10 new\n");
        map.read(&text[..], 2_000);
        assert_eq!((map.find(&text[..], 0x105, 999), name(&map, &text, 0x105)), (Said::NotKnown, Some("new".into())));
        // And where another had read them.
        let mut gone = PerfMap::new(1 << 20);
        gone.read(&text[..], 3_000);
        let mut map = handed_over_of(8 * size_of::<Range>() as u64, &gone, &text);
        map.read(&text[..], 4_000);
        assert_eq!((map.find(&text[..], 0x105, 2_999), name(&map, &text, 0x105)), (Said::NotKnown, Some("new".into())));
        assert!(map.lost == 3_000 && map.take_lost());
    }

    /// Text, and a time of its last change.
    struct Written<'a>(&'a [u8], i64);

    impl ReadAt for Written<'_> {
        fn read_at(&self, at: u64, out: &mut [u8]) -> usize {
            self.0.read_at(at, out)
        }

        fn state(&self) -> (u64, i64) {
            (self.0.len() as u64, self.1)
        }
    }

    #[test]
    fn a_map_written_anew_names_what_was_before_only_where_nothing_changed() {
        let first = b"100 10 same\n200 10 changed\n300 20 moved\n400 10 gone\n";
        let second = b"100 10 same\n200 10 other\n310 20 moved\n500 10 late\n";
        for steps in [&[0, 30, second.len()][..], &[30, second.len()], &[second.len(); 3]] {
            let mut map = PerfMap::new(1 << 20);
            map.read(&Written(first, 1), 1_000);
            map.read(&Written(first, 1), 2_000);
            assert!(!map.take_lost());
            // It is read while it is written.
            for (now, end) in (3_000..).zip(steps) {
                map.read(&Written(&second[..*end], 2), now);
            }
            assert!(map.take_lost() && !map.take_lost());
            // And then nothing more comes; what is known stays the same.
            for _ in 0..2 {
                let said = |address, time| map.find(&second[..], address, time);
                let name = |address, time| name_at(&map, second, address, time).unwrap_or_default();
                assert_eq!([name(0x105, 0), name(0x105, 2_000)], ["same", "same"]);
                assert_eq!((said(0x205, 1_999), name(0x205, 2_000)), (Said::NotKnown, "other".into()));
                assert_eq!((said(0x305, 1_999), said(0x305, 2_000)), (Said::NotKnown, Said::Nothing));
                assert_eq!([name(0x315, 0), name(0x325, 0), name(0x505, 0)], ["moved", "moved", "late"]);
                assert_eq!((said(0x405, 1_999), said(0x405, 2_000)), (Said::NotKnown, Said::Nothing));
                assert_eq!(map.turns(0x205).collect::<Vec<_>>(), [2_000]);
                assert_eq!(map.turns(0x105).count(), 0);
                // The lines of before are gone for whoever reads on.
                assert_eq!((map.so_far((1, 2)).lost, map.so_far((1, 2)).seen >= 3_000), (2_000, true));
                map.read(&Written(second, 2), 4_000);
            }
            assert!(map.replaced.is_empty() && !map.take_lost());
        }
    }

    #[test]
    fn a_map_written_anew_again_and_again_loses_no_more_than_what_changed() {
        let text = |round: u64| format!("100 10 same\n200 10 f{round}\n300 10 g{}\n", round.div_ceil(2)).into_bytes();
        let mut map = PerfMap::new(1 << 20);
        for round in 1..=4 {
            map.read(&Written(&text(round), i64::try_from(round).expect("small")), round * 1_000);
        }
        let last = text(4);
        let name = |address, time| name_at(&map, &last, address, time).unwrap_or_default();
        assert_eq!([name(0x105, 0), name(0x205, 2_999), name(0x205, 3_000)], ["same", "", "f4"]);
        // The same in the last two, and another before.
        assert_eq!([name(0x305, 1_999), name(0x305, 2_000)], ["", "g2"]);
        map.read(&Written(&last, 4), 5_000);
        assert_eq!(
            [name_at(&map, &last, 0x105, 0).as_deref(), name_at(&map, &last, 0x205, 2_999).as_deref()],
            [Some("same"), None]
        );
    }

    #[test]
    fn stretches_of_which_more_is_unknown_win() {
        let mut map = PerfMap::new(1 << 20);
        for (start, end, until) in [(10, 30, 5), (20, 25, 9), (0, 40, 7), (22, 50, 2), (0, 0, 99)] {
            map.not_known(start, end, until);
        }
        let until: Vec<u64> = [0, 15, 19, 20, 24, 25, 39, 40, 49, 50].map(|address| map.known_from(address)).into();
        assert_eq!(until, [7, 7, 7, 9, 9, 7, 7, 2, 2, 0]);
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

        /// Whatever is added and written anew between readings: what was there at a time has its name, or is said not to be known; the former
        /// if the file only grew.
        #[test]
        fn nothing_has_the_name_of_another_time(readings in prop::collection::vec((any::<bool>(), prop::collection::vec((0u64..40, 1u64..20, 0u8..3), 0..8)), 1..6)) {
            let mut map = PerfMap::new(1 << 20);
            let (mut text, mut then): (String, Vec<Vec<Option<String>>>) = (String::new(), Vec::new());
            let mut only_grew = true;
            for (at, (anew, lines)) in (1_u8..).zip(&readings) {
                // With other bytes where the one before ended, so that it is seen.
                if *anew && at > 1 {
                    text = format!("{}\n", char::from(b'!' + at).to_string().repeat(text.len() + OVERLAP));
                    only_grew = false;
                }
                lines.iter().for_each(|(start, size, name)| text += &format!("{start:x} {size:x} f{name}\n"));
                map.read(text.as_bytes(), u64::from(at) * 1_000);
                let plain = super::tests::map(text.as_bytes());
                then.push((0..64).map(|address| name(&plain, text.as_bytes(), address)).collect());
            }
            for _ in 0..2 {
                for (at, names) in (0u64..).zip(&then) {
                    for (address, was) in (0u64..).zip(names) {
                        let said = map.find(text.as_bytes(), address, at * 1_000 + 999);
                        match was {
                            Some(was) if only_grew => prop_assert_eq!(said.frame().map(|frame| frame.name.to_string()), Some(was.clone())),
                            Some(was) => prop_assert!(said == Said::NotKnown || said.frame().is_some_and(|frame| *frame.name == **was), "{} at {}", address, at),
                            // Code runs before it is written down.
                            None => {}
                        }
                    }
                }
                map.read(text.as_bytes(), 9_000);
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
            let key = |map: &PerfMap| map.ranges.iter().map(|r| (r.start, r.size, r.line.at, r.line.name)).collect::<Vec<_>>();
            prop_assert_eq!(key(&whole), key(&pieces));
        }
    }
}
