//! Jitdump: a binary log of the code that a JIT made, with times, so that an address that held one function after another is
//! named by the one that was there when the sample was taken.
//!
//! Written from the format's public description (`tools/perf/Documentation/jitdump-specification.txt`): a header of 40 bytes, then
//! records of { id, total size, time }.
//!
//! Kept is where each function stood, and when; names and lines stay in the file until they are asked for.

use super::source::ReadAt;
use crate::frame::{Frame, Names};
use profiler_measure::Clock;
use std::{collections::BTreeMap, sync::Arc};

/// Longest name given.
const MAX_NAME: u64 = 4 << 10;
/// Largest record of lines that is read, and bytes of such records in all for one set of addresses: hostile ones cost time.
const MAX_DEBUG_RECORD: u64 = 1 << 20;
pub(super) const MAX_DEBUG_BYTES: u64 = 16 << 20;
/// Records read at one lookup; the rest at the next.
const MAX_RECORDS: u64 = 1 << 20;
/// Largest function that lines are believed of, bytes.
const MAX_CODE_SIZE: u64 = 64 << 20;
/// Memory of a function: itself, its place in `order`, and in `live` where B-tree nodes are as empty as they get.
const CODE_BYTES: usize = size_of::<Code>() + 4 + 36;
const HEADER: u64 = 40;
const MAGIC: u32 = 0x4a69_5444;
/// Times are of the CPU's counter, not of CLOCK_MONOTONIC.
const ARCH_TIMESTAMP: u64 = 1;

/// Why a dump is not read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum JitDumpError {
    #[error("not a jitdump: magic {0:#x}")]
    Magic(u32),
    #[error("a jitdump of a machine of the other byte order")]
    ByteOrder,
    #[error("a jitdump of version {0}, where 1 is known")]
    Version(u32),
}

/// A function for as long as it stood at one place.
#[derive(Clone, Debug)]
struct Code {
    start: u64,
    /// Time of its record, ns; and of the one that took its place.
    from: u64,
    until: u64,
    /// Where in the file its JIT_CODE_LOAD has its content.
    at: u64,
    size: u32,
    /// How far before that the content of its JIT_CODE_DEBUG_INFO is; 0 for none.
    lines: u32,
}

impl Code {
    fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.size))
    }
}

/// What one dump has said so far.
#[derive(Debug)]
pub(crate) struct JitDump {
    consumed: u64,
    ignore_times: bool,
    /// In the order of their records.
    codes: Vec<Code>,
    /// Those of `codes` that stand now, by start: disjoint.
    live: BTreeMap<u64, u32>,
    /// All of `codes` by start; made anew when codes are added.
    order: Vec<u32>,
    /// Size of the largest.
    largest: u32,
    /// Most functions kept, and those that gave way to newer ones.
    max: usize,
    left_out: u64,
    /// Lines said of code that is to come: its address, and where.
    announced: Option<(u64, u64)>,
}

impl JitDump {
    /// Nothing is read yet; `budget` bytes may be held.
    pub fn new(budget: u64) -> Self {
        Self {
            consumed: 0,
            ignore_times: false,
            codes: Vec::new(),
            live: BTreeMap::new(),
            order: Vec::new(),
            largest: 0,
            max: (usize::try_from(budget).unwrap_or(usize::MAX) / CODE_BYTES).clamp(16, u32::MAX as usize),
            left_out: 0,
            announced: None,
        }
    }

    /// Reads the records added since, and gives their number. A record that is not whole yet is left for the next time.
    pub fn read(&mut self, source: &(impl ReadAt + ?Sized)) -> Result<u64, JitDumpError> {
        let (len, _) = source.state();
        if self.consumed == 0 {
            let mut header = [0; HEADER as usize];
            if source.read_at(0, &mut header) < header.len() {
                return Ok(0);
            }
            match (u32_in(&header, 0), u32_in(&header, 4)) {
                (MAGIC, 1) => {}
                (MAGIC, version) => return Err(JitDumpError::Version(version)),
                (magic, _) if magic.swap_bytes() == MAGIC => return Err(JitDumpError::ByteOrder),
                (magic, _) => return Err(JitDumpError::Magic(magic)),
            }
            // Times are of CLOCK_MONOTONIC by the specification, as the samples' are; a header from the future is of another clock.
            let other_clock = u64_in(&header, 24) > Clock::monotonic_now().saturating_add(1_000_000_000);
            self.ignore_times = u64_in(&header, 32) & ARCH_TIMESTAMP != 0 || other_clock;
            self.consumed = u64::from(u32_in(&header, 8)).max(HEADER);
        }
        let mut changed = false;
        let mut records = 0;
        while records < MAX_RECORDS {
            let mut prefix = [0; 16];
            if source.read_at(self.consumed, &mut prefix) < prefix.len() {
                break;
            }
            let (id, size, time) = (u32_in(&prefix, 0), u64::from(u32_in(&prefix, 4)), u64_in(&prefix, 8));
            let Some(end) = self.consumed.checked_add(size).filter(|end| *end <= len && size >= 16) else { break };
            let at = self.consumed + 16;
            match id {
                0 => changed |= self.load(source, at, end, time),
                1 => changed |= self.moved(source, at, time),
                2 => self.debug(source, at, end),
                _ => {}
            }
            self.consumed = end;
            records += 1;
            if id == 3 {
                break;
            }
        }
        if changed {
            self.sort();
        }
        Ok(records)
    }

    /// JIT_CODE_LOAD: pid, tid, vma, address, size, index, name, code.
    fn load(&mut self, source: &(impl ReadAt + ?Sized), at: u64, end: u64, time: u64) -> bool {
        let mut record = [0; 40];
        if end - at < 40 || source.read_at(at, &mut record) < record.len() {
            return false;
        }
        let (start, size) = (u64_in(&record, 16), u64_in(&record, 24));
        let lines = self.announced.take().filter(|(of, _)| *of == start);
        let lines = lines.and_then(|(_, lines)| u32::try_from(at.checked_sub(lines)?).ok()).unwrap_or(0);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.add(Code { start, from: time, until: u64::MAX, at, size, lines })
    }

    /// JIT_CODE_MOVE: pid, tid, vma, old address, new address, size, index.
    fn moved(&mut self, source: &(impl ReadAt + ?Sized), at: u64, time: u64) -> bool {
        let mut record = [0; 48];
        if source.read_at(at, &mut record) < record.len() {
            return false;
        }
        let (old, new) = (u64_in(&record, 16), u64_in(&record, 24));
        let Some(code) = self.live.get(&old).and_then(|code| self.codes.get_mut(*code as usize)) else { return false };
        let mut index = [0; 8];
        if source.read_at(code.at + 32, &mut index) < 8 || u64_in(&index, 0) != u64_in(&record, 40) {
            return false;
        }
        code.until = time;
        let moved = Code { start: new, from: time, until: u64::MAX, ..code.clone() };
        self.live.remove(&old);
        self.add(moved)
    }

    /// JIT_CODE_DEBUG_INFO, before the load that it is of: address, count, then { address, line, discriminator, file }.
    fn debug(&mut self, source: &(impl ReadAt + ?Sized), at: u64, end: u64) {
        let mut start = [0; 8];
        if (16..=MAX_DEBUG_RECORD).contains(&(end - at)) && source.read_at(at, &mut start) == start.len() {
            self.announced = Some((u64_in(&start, 0), at));
        }
    }

    /// Adds code, which ends what stood there; says whether it did.
    fn add(&mut self, code: Code) -> bool {
        if code.start >= code.end() {
            return false;
        }
        self.make_room();
        let below = self
            .live
            .range(..code.start)
            .next_back()
            .filter(|(_, below)| self.codes.get(**below as usize).is_some_and(|c| c.end() > code.start));
        let ended: Vec<u64> =
            below.into_iter().chain(self.live.range(code.start..code.end())).map(|(start, _)| *start).collect();
        for start in ended {
            if let Some(old) = self.live.remove(&start).and_then(|old| self.codes.get_mut(old as usize)) {
                old.until = code.from;
            }
        }
        self.live.insert(code.start, self.codes.len() as u32);
        self.largest = self.largest.max(code.size);
        self.codes.push(code);
        true
    }

    /// Keeps room for one more: what stands no more goes first if it is a good part, else the oldest do.
    fn make_room(&mut self) {
        let before = self.codes.len();
        if before >= self.max {
            let part = self.max / 8 + 1;
            if before - self.live.len().min(before) >= part {
                let live = &self.live;
                let mut index = 0;
                self.codes.retain(|code| {
                    index += 1;
                    live.get(&code.start) == Some(&(index - 1))
                });
            } else {
                self.codes.drain(..part.min(before));
            }
            self.live.clear();
            let standing = (0u32..).zip(&self.codes).filter(|(_, code)| code.until == u64::MAX);
            self.live.extend(standing.map(|(index, code)| (code.start, index)));
            self.left_out += (before - self.codes.len()) as u64;
        }
        if self.codes.len() == self.codes.capacity() {
            let more = (self.codes.len() / 4).max(64).min(self.max.saturating_sub(self.codes.len())).max(1);
            self.codes.reserve_exact(more);
        }
    }

    fn sort(&mut self) {
        let codes = &self.codes;
        self.order.clear();
        self.order.reserve_exact(codes.len());
        self.order.extend(0..codes.len() as u32);
        self.order.sort_unstable_by_key(|index| (codes.get(*index as usize).map_or(0, |code| code.start), *index));
    }

    /// The code at an address at a time: what stood there; else, as a JIT may run code before it logs it, what came next. Names are
    /// read from `source`, the file that was read; of lines no more than `lines_left` bytes.
    pub fn find(
        &self,
        source: &(impl ReadAt + ?Sized),
        address: u64,
        time: u64,
        lines_left: &mut u64,
    ) -> Option<Frame> {
        let codes = self.codes_at(address);
        let code = if self.ignore_times {
            codes.max_by_key(|code| code.from)
        } else {
            codes.filter(|code| time < code.until).min_by_key(|code| code.from)
        }?;
        let name: Arc<str> = String::from_utf8_lossy(&name_at(source, code.at)?).into();
        let mut frame = Frame::named(Names { system_name: name.clone(), name });
        if code.lines > 0
            && let Some((line, file)) =
                line_at(source, code.at - u64::from(code.lines), address - code.start, lines_left)
        {
            frame.line = line;
            frame.file = Some(file).filter(|file| !file.is_empty());
        }
        Some(frame)
    }

    /// Times at which the meaning of an address changed.
    pub fn turns(&self, address: u64) -> Vec<u64> {
        if self.ignore_times {
            return Vec::new();
        }
        self.codes_at(address).map(|code| code.until).filter(|until| *until != u64::MAX).collect()
    }

    fn codes_at(&self, address: u64) -> impl Iterator<Item = &Code> {
        let start_of = |index: &u32| self.codes.get(*index as usize).map_or(0, |code| code.start);
        let next = self.order.partition_point(|index| start_of(index) <= address);
        let before = self.order.get(..next).unwrap_or_default();
        let before = before.iter().rev().filter_map(|index| self.codes.get(*index as usize));
        let near = before.take_while(move |code| address - code.start < u64::from(self.largest)).take(4096);
        near.filter(move |code| address < code.end())
    }

    /// Functions that were left out since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Memory held, bytes.
    pub fn bytes(&self) -> u64 {
        (self.codes.capacity() * size_of::<Code>() + self.order.capacity() * 4 + self.live.len() * 36) as u64
    }
}

/// The name in a JIT_CODE_LOAD whose content is at `at`.
fn name_at(source: &(impl ReadAt + ?Sized), at: u64) -> Option<Vec<u8>> {
    let size = size_at(source, at, 0)?.checked_sub(40)?;
    let mut name = vec![0; size.min(MAX_NAME) as usize];
    let read = source.read_at(at + 40, &mut name);
    name.truncate(read);
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    Some(name)
}

/// Size of the content at `at`, of a record that must be of this kind.
fn size_at(source: &(impl ReadAt + ?Sized), at: u64, id: u32) -> Option<u64> {
    let mut prefix = [0; 16];
    let read = source.read_at(at.checked_sub(16)?, &mut prefix);
    (read == prefix.len() && u32_in(&prefix, 0) == id).then(|| u64::from(u32_in(&prefix, 4)).checked_sub(16))?
}

/// Line and file at an offset into a function, by the JIT_CODE_DEBUG_INFO whose content is at `at`.
fn line_at(source: &(impl ReadAt + ?Sized), at: u64, offset: u64, left: &mut u64) -> Option<(u32, Arc<str>)> {
    let size = size_at(source, at, 2).filter(|size| *size <= MAX_DEBUG_RECORD)?;
    *left = left.checked_sub(size)?;
    let mut record = vec![0; size as usize];
    if source.read_at(at, &mut record) < record.len() {
        return None;
    }
    let (start, count) = (u64_in(&record, 0), u64_in(&record, 8));
    let mut rest = record.get(16..).unwrap_or_default();
    let mut file: &[u8] = b"";
    let (mut seen, mut lines) = (0, Vec::new());
    while seen < count {
        let Some(name) = rest.get(16..) else { break };
        let Some(len) = name.iter().position(|byte| *byte == 0) else { break };
        // Each entry has the file's name; or, in place of the one before, a byte of 0xff.
        let name = name.get(..len).unwrap_or_default();
        if name != b"\xff" {
            file = name.get(..MAX_NAME as usize).unwrap_or(name);
        }
        lines.push((u64_in(rest, 0).wrapping_sub(start), u32_in(rest, 8), file));
        rest = rest.get(16 + len + 1..).unwrap_or_default();
        seen += 1;
    }
    // Node writes records whose file names are garbage, and all that follows them with it. What does not come out even is not
    // believed, lest a profile show wrong lines.
    if rest.len() >= 8 || seen != count || lines.iter().any(|(offset, line, _)| *line == 0 || *offset > MAX_CODE_SIZE) {
        return None;
    }
    lines.sort_by_key(|(offset, _, _)| *offset);
    // V8 adds the size of an ELF header to each address, for perf to take off again.
    let shift = if lines.first().is_some_and(|(offset, _, _)| *offset == 0x40) { 0x40 } else { 0 };
    let next = lines.partition_point(|(at, _, _)| at.saturating_sub(shift) <= offset);
    let (_, line, file) = lines.get(next.checked_sub(1)?)?;
    Some((*line, String::from_utf8_lossy(file).into()))
}

fn u32_in(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_in(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(flags: u64) -> Vec<u8> {
        let words = [MAGIC, 1, 40, 62, 0, 4242];
        let mut out: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        out.extend([0u64, flags].iter().flat_map(|word| word.to_le_bytes()));
        out
    }

    fn record(id: u32, time: u64, content: &[u8]) -> Vec<u8> {
        let mut out = [id.to_le_bytes(), (16 + content.len() as u32).to_le_bytes()].concat();
        out.extend(time.to_le_bytes());
        out.extend(content);
        out
    }

    fn load(time: u64, start: u64, size: u64, index: u64, name: &str) -> Vec<u8> {
        let mut content = [1u32.to_le_bytes(), 1u32.to_le_bytes()].concat();
        content.extend([start, start, size, index].iter().flat_map(|word| word.to_le_bytes()));
        content.extend(name.as_bytes());
        content.push(0);
        content.extend(vec![0x90; size as usize]);
        record(0, time, &content)
    }

    fn moved(time: u64, old: u64, new: u64, size: u64, index: u64) -> Vec<u8> {
        let mut content = [1u32.to_le_bytes(), 1u32.to_le_bytes()].concat();
        content.extend([new, old, new, size, index].iter().flat_map(|word| word.to_le_bytes()));
        record(1, time, &content)
    }

    fn debug(start: u64, lines: &[(u64, u32, &str)]) -> Vec<u8> {
        let mut content = [start.to_le_bytes(), (lines.len() as u64).to_le_bytes()].concat();
        for (address, line, file) in lines {
            content.extend(address.to_le_bytes());
            content.extend([line.to_le_bytes(), 0u32.to_le_bytes()].concat());
            content.extend(if file.is_empty() { b"\xff" } else { file.as_bytes() });
            content.push(0);
        }
        record(2, 0, &content)
    }

    fn name(dump: &JitDump, file: &[u8], address: u64, time: u64) -> String {
        dump.find(file, address, time, &mut (1 << 20)).map(|frame| frame.name.to_string()).unwrap_or_default()
    }

    #[test]
    fn code_is_named_as_of_the_time() {
        let file = [
            header(0),
            load(100, 0x1000, 0x100, 1, "first"),
            load(200, 0x2000, 0x10, 2, "other"),
            load(300, 0x1080, 0x100, 3, "second"),
            moved(400, 0x2000, 0x3000, 0x10, 2),
        ]
        .concat();
        let mut dump = JitDump::new(1 << 20);
        dump.read(&file[..]).unwrap();
        assert_eq!(name(&dump, &file, 0x1090, 150), "first");
        assert_eq!(name(&dump, &file, 0x1010, 150), "first");
        assert_eq!(name(&dump, &file, 0x1090, 350), "second");
        // Replaced as a whole, even where the new code does not reach.
        assert_eq!(name(&dump, &file, 0x1010, 350), "");
        // A sample from before the record: the JIT ran the code before it logged it.
        assert_eq!(name(&dump, &file, 0x1090, 50), "first");
        assert_eq!(name(&dump, &file, 0x2001, 250), "other");
        assert_eq!(name(&dump, &file, 0x2001, 450), "");
        assert_eq!(name(&dump, &file, 0x3001, 450), "other");
        assert_eq!(name(&dump, &file, 0x4000, 450), "");
    }

    #[test]
    fn lines_of_the_code_that_follows() {
        let lines = [(0x1000, 10, "a.js"), (0x1010, 11, ""), (0x1020, 5, "b.js")];
        let file =
            [header(1), debug(0x1000, &lines), load(1, 0x1000, 0x40, 1, "f"), load(2, 0x2000, 0x40, 2, "g")].concat();
        let mut dump = JitDump::new(1 << 20);
        dump.read(&file[..]).unwrap();
        let at = |address| {
            dump.find(&file[..], address, 0, &mut (1 << 20))
                .map(|f| (f.file.map(|file| file.to_string()), f.line))
                .unwrap()
        };
        assert_eq!(at(0x100f), (Some("a.js".into()), 10));
        assert_eq!(at(0x1010), (Some("a.js".into()), 11));
        assert_eq!(at(0x103f), (Some("b.js".into()), 5));
        assert_eq!(at(0x2000), (None, 0));
    }

    #[test]
    fn lines_that_make_no_sense_are_not_believed() {
        let mut torn = debug(0x1000, &[(0x1000, 10, "a.js"), (0x1010, 11, "b.js")]);
        // Cuts the first name short, so that all behind it is out of step.
        torn[16 + 16 + 16 + 1] = 0;
        let v8 = debug(0x2000, &[(0x2040, 10, "a.js"), (0x2050, 11, "")]);
        let far = debug(0x3000, &[(0x97bd_371d_0000_0000, 10, "a.js")]);
        let file = [header(0), torn, load(1, 0x1000, 0x40, 1, "f"), v8, load(1, 0x2000, 0x40, 1, "g")].concat();
        let file = [file, far, load(1, 0x3000, 0x40, 1, "h")].concat();
        let mut dump = JitDump::new(1 << 20);
        dump.read(&file[..]).unwrap();
        let line = |address| dump.find(&file[..], address, 0, &mut (1 << 20)).unwrap().line;
        assert_eq!((line(0x1010), line(0x2000), line(0x2010), line(0x3000)), (0, 10, 11, 0));
    }

    #[test]
    fn a_torn_record_waits_for_its_rest() {
        let whole = [header(0), load(1, 0x1000, 0x40, 1, "f"), load(2, 0x2000, 0x40, 2, "g")].concat();
        let mut dump = JitDump::new(1 << 20);
        for len in 0..=whole.len() {
            dump.read(&whole[..len]).unwrap();
        }
        assert_eq!((name(&dump, &whole, 0x1000, 9), name(&dump, &whole, 0x2000, 9)), ("f".into(), "g".into()));
        assert_eq!(dump.codes.len(), 2);
    }

    #[test]
    fn refusals_say_why() {
        let mut swapped = header(0);
        swapped[..4].reverse();
        assert_eq!(JitDump::new(1 << 20).read(&swapped[..]), Err(JitDumpError::ByteOrder));
        let mut version = header(0);
        version[4] = 2;
        assert_eq!(JitDump::new(1 << 20).read(&version[..]), Err(JitDumpError::Version(2)));
        assert_eq!(JitDump::new(1 << 20).read(&[0; 64][..]), Err(JitDumpError::Magic(0)));
    }

    #[test]
    fn too_many_functions_stay_within_the_budget_and_the_newest_are_kept() {
        let loads = (0..20_000u64).map(|i| load(i, 0x1000 + i * 16, 8, i, &format!("f{i}")));
        let file = [header(0)].into_iter().chain(loads).collect::<Vec<_>>().concat();
        let mut dump = JitDump::new(256 << 10);
        dump.read(&file[..]).unwrap();
        assert!(dump.bytes() <= 256 << 10, "{} bytes", dump.bytes());
        assert_eq!(dump.left_out() + dump.codes.len() as u64, 20_000);
        assert_eq!(name(&dump, &file, 0x1000 + 19_999 * 16, 30_000), "f19999");
        assert_eq!(name(&dump, &file, 0x1000, 30_000), "");
    }

    proptest! {
        #[test]
        fn any_bytes(tail in prop::collection::vec(any::<u8>(), 0..400), id in 0u32..5, address in any::<u64>()) {
            let mut dump = JitDump::new(1 << 20);
            let file = [header(0), record(id, 5, &tail), load(6, 0x1000, 0x40, 1, "f"), tail.clone()].concat();
            dump.read(&file[..]).unwrap();
            let _ = dump.find(&file[..], address, 7, &mut (1 << 20));
            let _ = JitDump::new(1 << 20).read(&tail[..]);
        }
    }
}
