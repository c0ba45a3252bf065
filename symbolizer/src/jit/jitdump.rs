//! Jitdump: a binary log of the code that a JIT made, with times, so that an address that held one function after another is
//! named by the one that was there when the sample was taken.
//!
//! Written from the format's public description (`tools/perf/Documentation/jitdump-specification.txt`): a header of 40 bytes, then
//! records of { id, total size, time }.

use super::source::Source;
use crate::frame::{Frame, Names};
use std::sync::Arc;

/// Most functions, lines and bytes of text kept.
const MAX_CODES: usize = 2 << 20;
const MAX_LINES: usize = 8 << 20;
const MAX_TEXT: usize = 128 << 20;
const MAX_NAME: u64 = 4 << 10;
/// Largest record of lines that is read.
const MAX_DEBUG_RECORD: u64 = 16 << 20;
/// Records read at one lookup; the rest at the next.
const MAX_RECORDS: usize = 1 << 20;
/// Largest function that lines are believed of, bytes.
const MAX_CODE_SIZE: u32 = 64 << 20;
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

/// Where a dump is read from.
pub(crate) trait ReadAt {
    /// Fills as much of `out` as there is at `at`.
    fn read_at(&self, at: u64, out: &mut [u8]) -> usize;
    /// Bytes that there are now.
    fn len(&self) -> u64;
}

impl ReadAt for Source {
    fn read_at(&self, at: u64, out: &mut [u8]) -> usize {
        Source::read_at(self, at, out).unwrap_or(0)
    }

    fn len(&self) -> u64 {
        self.state().0
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, at: u64, out: &mut [u8]) -> usize {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(out.len());
        if let (Some(out), Some(rest)) = (out.get_mut(..len), rest.get(..len)) {
            out.copy_from_slice(rest);
        }
        len
    }

    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }
}

/// A function for as long as it stood at one place.
#[derive(Clone, Debug)]
struct Code {
    start: u64,
    end: u64,
    /// Time of its record, ns; and of the one that took its place.
    from: u64,
    until: u64,
    name: (u32, u16),
    /// Its lines.
    lines: (u32, u32),
    index: u64,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// Bytes from the start of the function.
    offset: u32,
    line: u32,
    file: (u32, u16),
}

/// What one dump has said so far.
#[derive(Debug, Default)]
pub(crate) struct JitDump {
    consumed: u64,
    ignore_times: bool,
    codes: Vec<Code>,
    /// Those of `codes` that stand now, by start: disjoint.
    live: std::collections::BTreeMap<u64, usize>,
    /// All of `codes` by start, each with the largest end so far; made anew when codes are added.
    order: Vec<(u64, u64, u32)>,
    lines: Vec<Line>,
    text: String,
    /// Lines said of code that is to come: its address, then their range in `lines`.
    announced: Option<(u64, (u32, u32))>,
}

impl JitDump {
    /// Reads the records added since. A record that is not whole yet is left for the next time.
    pub fn read(&mut self, source: &(impl ReadAt + ?Sized)) -> Result<(), JitDumpError> {
        let len = source.len();
        if self.consumed == 0 {
            let mut header = [0; HEADER as usize];
            if source.read_at(0, &mut header) < header.len() {
                return Ok(());
            }
            match (u32_in(&header, 0), u32_in(&header, 4)) {
                (MAGIC, 1) => {}
                (MAGIC, version) => return Err(JitDumpError::Version(version)),
                (magic, _) if magic.swap_bytes() == MAGIC => return Err(JitDumpError::ByteOrder),
                (magic, _) => return Err(JitDumpError::Magic(magic)),
            }
            self.ignore_times = u64_in(&header, 32) & ARCH_TIMESTAMP != 0;
            self.consumed = u64::from(u32_in(&header, 8)).max(HEADER);
        }
        let codes = self.codes.len();
        for _ in 0..MAX_RECORDS {
            let mut prefix = [0; 16];
            if source.read_at(self.consumed, &mut prefix) < prefix.len() {
                break;
            }
            let (id, size, time) = (u32_in(&prefix, 0), u64::from(u32_in(&prefix, 4)), u64_in(&prefix, 8));
            let Some(end) = self.consumed.checked_add(size).filter(|end| *end <= len && size >= 16) else { break };
            let at = self.consumed + 16;
            match id {
                0 => self.load(source, at, end, time),
                1 => self.moved(source, at, time),
                2 => self.debug(source, at, end),
                _ => {}
            }
            self.consumed = end;
            if id == 3 {
                break;
            }
        }
        if self.codes.len() != codes {
            self.sort();
        }
        Ok(())
    }

    /// JIT_CODE_LOAD: pid, tid, vma, address, size, index, name, code.
    fn load(&mut self, source: &(impl ReadAt + ?Sized), at: u64, end: u64, time: u64) {
        let mut record = [0; 40];
        if end - at < 40 || source.read_at(at, &mut record) < record.len() {
            return;
        }
        let (start, size, index) = (u64_in(&record, 16), u64_in(&record, 24), u64_in(&record, 32));
        let mut name = vec![0; (end - at - 40).min(MAX_NAME) as usize];
        let read = source.read_at(at + 40, &mut name);
        name.truncate(read);
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        let lines = match self.announced.take() {
            Some((of, lines)) if of == start => lines,
            _ => (0, 0),
        };
        let Some(name) = self.keep(&name) else { return };
        self.add(Code { start, end: start.saturating_add(size), from: time, until: u64::MAX, name, lines, index });
    }

    /// JIT_CODE_MOVE: pid, tid, vma, old address, new address, size, index.
    fn moved(&mut self, source: &(impl ReadAt + ?Sized), at: u64, time: u64) {
        let mut record = [0; 48];
        if source.read_at(at, &mut record) < record.len() {
            return;
        }
        let (old, new, index) = (u64_in(&record, 16), u64_in(&record, 24), u64_in(&record, 40));
        let Some(code) =
            self.live.get(&old).and_then(|code| self.codes.get_mut(*code)).filter(|code| code.index == index)
        else {
            return;
        };
        code.until = time;
        let size = code.end.saturating_sub(code.start);
        let moved = Code { start: new, end: new.saturating_add(size), from: time, until: u64::MAX, ..code.clone() };
        self.live.remove(&old);
        self.add(moved);
    }

    /// JIT_CODE_DEBUG_INFO, before the load that it is of: address, count, then { address, line, discriminator, file }.
    fn debug(&mut self, source: &(impl ReadAt + ?Sized), at: u64, end: u64) {
        if end - at < 16 || end - at > MAX_DEBUG_RECORD {
            return;
        }
        let mut record = vec![0; (end - at) as usize];
        if source.read_at(at, &mut record) < record.len() {
            return;
        }
        let start = u64_in(&record, 0);
        let first = self.lines.len() as u32;
        let (mut file, mut rest) = ((0, 0), record.get(16..).unwrap_or_default());
        let mut seen = 0;
        while seen < u64_in(&record, 8) {
            let Some(name) = rest.get(16..) else { break };
            let Some(len) = name.iter().position(|byte| *byte == 0) else { break };
            // Each entry has the file's name; or, in place of the one before, a byte of 0xff.
            let name = name.get(..len).unwrap_or_default();
            if name != b"\xff"
                && self.text.get(file.0 as usize..file.0 as usize + usize::from(file.1)).map(str::as_bytes)
                    != Some(name)
            {
                let Some(kept) = self.keep(name) else { break };
                file = kept;
            }
            let offset = u32::try_from(u64_in(rest, 0).wrapping_sub(start)).unwrap_or(u32::MAX);
            if self.lines.len() < MAX_LINES {
                self.lines.push(Line { offset, line: u32_in(rest, 8), file });
            }
            rest = rest.get(16 + len + 1..).unwrap_or_default();
            seen += 1;
        }
        // Node writes records whose file names are garbage, and all that follows them with it. What does not come out even is not
        // believed, lest a profile show wrong lines.
        let even = rest.len() < 8 && seen == u64_in(&record, 8);
        let added = self.lines.get_mut(first as usize..).unwrap_or_default();
        if !even || added.iter().any(|line| line.line == 0 || line.offset > MAX_CODE_SIZE) {
            self.lines.truncate(first as usize);
            return;
        }
        added.sort_by_key(|line| line.offset);
        // V8 adds the size of an ELF header to each address, for perf to take off again.
        if added.first().is_some_and(|line| line.offset == 0x40) {
            added.iter_mut().for_each(|line| line.offset = line.offset.saturating_sub(0x40));
        }
        self.announced = Some((start, (first, added.len() as u32)));
    }

    /// Keeps text; none once there is too much of it.
    fn keep(&mut self, text: &[u8]) -> Option<(u32, u16)> {
        if self.text.len() >= MAX_TEXT {
            return None;
        }
        let text = String::from_utf8_lossy(text.get(..MAX_NAME as usize).unwrap_or(text));
        let at = self.text.len() as u32;
        self.text.push_str(&text);
        Some((at, u16::try_from(text.len()).unwrap_or(u16::MAX)))
    }

    /// Adds code, which ends what stood there.
    fn add(&mut self, code: Code) {
        if code.start >= code.end || self.codes.len() >= MAX_CODES {
            return;
        }
        let below = self
            .live
            .range(..code.start)
            .next_back()
            .filter(|(_, below)| self.codes.get(**below).is_some_and(|c| c.end > code.start));
        let ended: Vec<u64> =
            below.into_iter().chain(self.live.range(code.start..code.end)).map(|(start, _)| *start).collect();
        for start in ended {
            if let Some(old) = self.live.remove(&start).and_then(|old| self.codes.get_mut(old)) {
                old.until = code.from;
            }
        }
        self.live.insert(code.start, self.codes.len());
        self.codes.push(code);
    }

    fn sort(&mut self) {
        self.order = (0u32..).zip(&self.codes).map(|(index, code)| (code.start, code.end, index)).collect();
        self.order.sort_unstable();
        let mut reach = 0;
        for (_, end, _) in &mut self.order {
            reach = reach.max(*end);
            *end = reach;
        }
    }

    /// The code at an address at a time: what stood there; else, as a JIT may run code before it logs it, what came next.
    pub fn find(&self, address: u64, time: u64) -> Option<Frame> {
        let next = self.order.partition_point(|(start, _, _)| *start <= address);
        let before = self.order.get(..next)?.iter().rev().take_while(|(_, reach, _)| *reach > address).take(4096);
        let codes =
            before.filter_map(|(_, _, index)| self.codes.get(*index as usize)).filter(|code| address < code.end);
        let code = if self.ignore_times {
            codes.max_by_key(|code| code.from)
        } else {
            codes.filter(|code| time < code.until).min_by_key(|code| code.from)
        }?;
        let name: Arc<str> = self.text(code.name)?.into();
        let mut frame = Frame::named(Names { system_name: name.clone(), name });
        let (first, len) = (code.lines.0 as usize, code.lines.1 as usize);
        let lines = self.lines.get(first..first.saturating_add(len)).unwrap_or_default();
        let offset = address - code.start;
        let line = lines.partition_point(|line| u64::from(line.offset) <= offset).checked_sub(1);
        if let Some(line) = line.and_then(|line| lines.get(line)) {
            frame.line = line.line;
            frame.file = self.text(line.file).filter(|file| !file.is_empty()).map(Arc::from);
        }
        Some(frame)
    }

    fn text(&self, (at, len): (u32, u16)) -> Option<&str> {
        self.text.get(at as usize..at as usize + usize::from(len))
    }

    /// Memory held, bytes, estimated.
    pub fn bytes(&self) -> u64 {
        let (code, line) = (size_of::<Code>(), size_of::<Line>());
        let tables = self.codes.capacity() * code + self.order.capacity() * 24 + self.lines.capacity() * line;
        (tables + self.live.len() * 24 + self.text.capacity()) as u64
    }
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

    fn name(dump: &JitDump, address: u64, time: u64) -> String {
        dump.find(address, time).map(|frame| frame.name.to_string()).unwrap_or_default()
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
        let mut dump = JitDump::default();
        dump.read(&file[..]).unwrap();
        assert_eq!(name(&dump, 0x1090, 150), "first");
        assert_eq!(name(&dump, 0x1010, 150), "first");
        assert_eq!(name(&dump, 0x1090, 350), "second");
        // Replaced as a whole, even where the new code does not reach.
        assert_eq!(name(&dump, 0x1010, 350), "");
        // A sample from before the record: the JIT ran the code before it logged it.
        assert_eq!(name(&dump, 0x1090, 50), "first");
        assert_eq!(name(&dump, 0x2001, 250), "other");
        assert_eq!(name(&dump, 0x2001, 450), "");
        assert_eq!(name(&dump, 0x3001, 450), "other");
        assert_eq!(name(&dump, 0x4000, 450), "");
    }

    #[test]
    fn lines_of_the_code_that_follows() {
        let lines = [(0x1000, 10, "a.js"), (0x1010, 11, ""), (0x1020, 5, "b.js")];
        let file =
            [header(1), debug(0x1000, &lines), load(1, 0x1000, 0x40, 1, "f"), load(2, 0x2000, 0x40, 2, "g")].concat();
        let mut dump = JitDump::default();
        dump.read(&file[..]).unwrap();
        let at = |address| dump.find(address, 0).map(|f| (f.file.map(|file| file.to_string()), f.line)).unwrap();
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
        let mut dump = JitDump::default();
        dump.read(&file[..]).unwrap();
        let line = |address| dump.find(address, 0).unwrap().line;
        assert_eq!((line(0x1010), line(0x2000), line(0x2010), line(0x3000)), (0, 10, 11, 0));
    }

    #[test]
    fn a_torn_record_waits_for_its_rest() {
        let whole = [header(0), load(1, 0x1000, 0x40, 1, "f"), load(2, 0x2000, 0x40, 2, "g")].concat();
        let mut dump = JitDump::default();
        for len in 0..=whole.len() {
            dump.read(&whole[..len]).unwrap();
        }
        assert_eq!((name(&dump, 0x1000, 9), name(&dump, 0x2000, 9)), ("f".into(), "g".into()));
        assert_eq!(dump.codes.len(), 2);
    }

    #[test]
    fn refusals_say_why() {
        let mut swapped = header(0);
        swapped[..4].reverse();
        assert_eq!(JitDump::default().read(&swapped[..]), Err(JitDumpError::ByteOrder));
        let mut version = header(0);
        version[4] = 2;
        assert_eq!(JitDump::default().read(&version[..]), Err(JitDumpError::Version(2)));
        assert_eq!(JitDump::default().read(&[0; 64][..]), Err(JitDumpError::Magic(0)));
    }

    proptest! {
        #[test]
        fn any_bytes(tail in prop::collection::vec(any::<u8>(), 0..400), id in 0u32..5, address in any::<u64>()) {
            let mut dump = JitDump::default();
            let file = [header(0), record(id, 5, &tail), load(6, 0x1000, 0x40, 1, "f"), tail.clone()].concat();
            dump.read(&file[..]).unwrap();
            let _ = dump.find(address, 7);
            let _ = JitDump::default().read(&tail[..]);
        }
    }
}
