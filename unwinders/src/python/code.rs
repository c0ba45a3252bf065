//! Code objects: read, checked, named.

use std::io;
use std::sync::Arc;

use profiler_bpf::record::RuntimeFrame;
use profiler_elf::le;
use rustc_hash::FxHashMap;

use super::Naming;
use super::layout::Version;
use super::lines::{self, Format};
use crate::memory::Memory;
use crate::runtime::{FrameName, MAX_NAME, Named};

/// Characters of a text that are read; what is longer is cut.
const MAX_CHARACTERS: u64 = 1024;
/// Largest line table that is read, bytes.
const MAX_LINES: u64 = 1 << 20;
/// Bytes of line tables that are kept for one request: what is beyond has no lines. The largest of the standard library has 60 kB.
const MAX_KEPT_LINES: usize = 16 << 20;
/// Bytes of them that are gone through for one request.
const MAX_LINE_WORK: usize = 256 << 20;
/// Bytes of a code object that are read: what is needed lies in its first few hundred.
const MAX_HEAD: usize = 256;
/// The position of the frame that stands for those of before the interpreter was known: `PYTHON_TOO_EARLY`.
pub(super) const TOO_EARLY: u32 = 3;

/// Reads the code objects of one process, for one request.
pub(super) struct Reader<'a> {
    naming: &'a Naming,
    memory: &'a dyn Memory,
    /// Frames of a recursion are many, their code is one.
    known: FxHashMap<(u64, u32), Result<Arc<Code>, Arc<str>>>,
    texts: FxHashMap<u64, Arc<str>>,
    lines_left: usize,
    work_left: usize,
}

struct Code {
    function: Arc<str>,
    file: Arc<str>,
    first_line: u32,
    lines: Vec<u8>,
}

/// One round of the cookie's hash; its twin is `python_mix` of `python.h`.
const fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 29
}

impl<'a> Reader<'a> {
    pub(super) fn new(naming: &'a Naming, memory: &'a dyn Memory) -> Self {
        Self {
            naming,
            memory,
            known: FxHashMap::default(),
            texts: FxHashMap::default(),
            lines_left: MAX_KEPT_LINES,
            work_left: MAX_LINE_WORK,
        }
    }

    /// What `frame` stands for, or why that cannot be told.
    pub(super) fn name(&mut self, frame: &RuntimeFrame) -> Named {
        if frame.object.0 == 0 {
            return Err(Arc::from(match frame.position {
                1 => "python: thread state not found",
                2 => "python: frame not readable",
                TOO_EARLY => "python: sampled before its interpreter was known",
                _ => "python: frame missing",
            }));
        }
        let key = (frame.object.0, frame.cookie);
        if !self.known.contains_key(&key) {
            let code = self.read(frame).map(Arc::new);
            self.known.insert(key, code);
        }
        let gone = || Arc::from("python: code object gone");
        let code = self.known.get(&key).cloned().unwrap_or_else(|| Err(gone()))?;
        let line = self.line(&code, frame.position);
        Ok(vec![FrameName {
            tier: None,
            function: Arc::clone(&code.function),
            file: Arc::clone(&code.file),
            line: line.unwrap_or(0),
            start_line: code.first_line,
        }])
    }

    fn read(&mut self, frame: &RuntimeFrame) -> Result<Code, Arc<str>> {
        let layout = &self.naming.layout;
        let gone = || Arc::<str>::from("python: code object gone");
        let mut head = [0; MAX_HEAD];
        let (first, bytes) = layout.code_span();
        let length = first.saturating_add(bytes).max(layout.qualified.unwrap_or(0).saturating_add(8));
        let head = head.get_mut(..usize::from(length)).ok_or_else(gone)?;
        self.memory.read(frame.object.0, head).map_err(|_| gone())?;
        let head: &[u8] = head;
        let word = |at: u16| le::u64_in(head, usize::from(at));
        // Every object says what it is, before all else.
        if word(8) != self.naming.code_type {
            return Err(gone());
        }
        let cookie = layout.cookie().into_iter().fold(frame.object.0, |hash, at| mix(hash, word(at)));
        // What the kernel half could not read has none, and may have been another then.
        if frame.cookie == 0 {
            return Err(Arc::from("python: code object not readable when sampled"));
        }
        if frame.cookie != (cookie >> 32) as u32 | 1 {
            return Err(gone());
        }
        let unreadable = |_| Arc::<str>::from("python: name not readable");
        let function = self.text(word(layout.qualified.unwrap_or(layout.name))).map_err(unreadable)?;
        let file = self.text(word(layout.file)).map_err(unreadable)?;
        let lines = self.bytes(word(layout.lines)).unwrap_or_default();
        let first_line = le::u32_in(head, usize::from(layout.first_line));
        Ok(Code { function, file, first_line: u32::try_from(first_line as i32).unwrap_or(0), lines })
    }

    /// The line of a position as the kernel half sends it.
    fn line(&mut self, code: &Code, position: u32) -> Option<u32> {
        self.work_left = self.work_left.checked_sub(code.lines.len())?;
        // Not begun: -1.
        let position = u32::try_from((position as i32).max(0)).ok()?;
        let (format, position) = match self.naming.version {
            Version(3, ..=9) => (Format::Lnotab, position),
            Version(3, 10) => (Format::Ranges, position.checked_mul(2)?),
            _ => (Format::Locations, position.checked_mul(2)?),
        };
        lines::line(format, &code.lines, code.first_line, position)
    }

    /// A `bytes` object.
    fn bytes(&mut self, object: u64) -> io::Result<Vec<u8>> {
        let layout = &self.naming.layout;
        let size = self.memory.word(object.wrapping_add(layout.bytes_size.into()))?;
        if size > MAX_LINES {
            return Err(io::Error::other("a line table is too long"));
        }
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let left = self.lines_left.checked_sub(size);
        self.lines_left = left.ok_or_else(|| io::Error::other("the line tables are too long"))?;
        let mut bytes = vec![0; size];
        self.memory.read(object.wrapping_add(layout.bytes.into()), &mut bytes)?;
        Ok(bytes)
    }

    /// A `str` object in one piece.
    fn text(&mut self, object: u64) -> io::Result<Arc<str>> {
        if let Some(known) = self.texts.get(&object) {
            return Ok(Arc::clone(known));
        }
        let layout = &self.naming.layout;
        let length = self.memory.word(object.wrapping_add(layout.unicode_length.into()))?;
        let state = self.memory.half(object.wrapping_add(layout.unicode_state.into()))?;
        // Interned: 2 bits, or 16, which are at most 3; then kind: 3, compact: 1, ascii: 1. What follows may be anything.
        let state = if state >> 2 & 7 != 0 { state >> 2 } else { state >> 16 };
        let (width, is_compact, is_ascii) = (state & 7, state & 8 != 0, state & 16 != 0);
        if !is_compact || !matches!(width, 1 | 2 | 4) {
            return Err(io::Error::other("a text is not in one piece"));
        }
        let start = object.wrapping_add(if is_ascii { layout.ascii } else { layout.compact }.into());
        let characters = length.min(MAX_CHARACTERS);
        let mut bytes = vec![0; usize::try_from(characters * u64::from(width)).map_err(io::Error::other)?];
        self.memory.read(start, &mut bytes)?;
        let character = |code: u32| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        let mut text: String = match width {
            1 => bytes.iter().map(|&byte| char::from(byte)).collect(),
            2 => bytes.as_chunks().0.iter().map(|half| character(u16::from_le_bytes(*half).into())).collect(),
            _ => bytes.as_chunks().0.iter().map(|word| character(u32::from_le_bytes(*word))).collect(),
        };
        let end = (0..=MAX_NAME.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
        text.truncate(end);
        let text: Arc<str> = Arc::from(text);
        self.texts.insert(object, Arc::clone(&text));
        Ok(text)
    }
}

/// Names of frames in memory that is `bytes`, wherever it is read.
pub(super) fn fuzz(bytes: &[u8]) {
    use profiler_address::UserAddr;
    use profiler_bpf::abi::FrameKind;

    #[derive(Debug)]
    struct Bytes<'a>(&'a [u8]);

    impl Memory for Bytes<'_> {
        fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
            let from = usize::try_from(address).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
            let from = from.get(..bytes.len()).ok_or_else(|| io::Error::other("not there"))?;
            bytes.copy_from_slice(from);
            Ok(())
        }
    }

    // The first bytes are what naming needs, unless they are none.
    let Some((opaque, rest)) = bytes.split_at_checked(64) else { return };
    let mut opaque = opaque;
    let Ok(naming) = borsh::BorshDeserialize::deserialize(&mut opaque) else { return };
    let naming: Naming = naming;
    let memory = Bytes(rest);
    let mut reader = Reader::new(&naming, &memory);
    for object in (0..rest.len().min(512) as u64).step_by(8) {
        let frame =
            RuntimeFrame { kind: FrameKind::CPYTHON, object: UserAddr(object), position: object as u32, cookie: 0 };
        let _ = reader.name(&frame);
    }
}

#[cfg(test)]
mod tests {
    use profiler_address::UserAddr;
    use profiler_bpf::abi::FrameKind;

    use super::super::layout::Layout;
    use super::*;

    const CODE_TYPE: u64 = 0x77;
    const TEXT: u64 = 1 << 32;
    const LINES: u64 = 2 << 32;

    /// Every address from 8,192 on is a code object, of tables as long as they may be.
    #[derive(Debug)]
    struct Endless;

    impl Memory for Endless {
        fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
            bytes.fill(0);
            let layout = Layout::of_3_12();
            let mut put = |at: u64, word: u64| {
                for (place, byte) in (at..).zip(word.to_le_bytes()) {
                    let place = usize::try_from(place.wrapping_sub(address)).unwrap_or(usize::MAX);
                    if let Some(to) = bytes.get_mut(place) {
                        *to = byte;
                    }
                }
            };
            match address {
                LINES.. => put(LINES + u64::from(layout.bytes_size), MAX_LINES),
                TEXT.. => {
                    put(TEXT + u64::from(layout.unicode_length), 1);
                    put(TEXT + u64::from(layout.unicode_state), 0b110_0100);
                }
                _ => {
                    put(address + 8, CODE_TYPE);
                    put(address + u64::from(layout.file), TEXT);
                    put(address + u64::from(layout.qualified.unwrap_or(0)), TEXT);
                    put(address + u64::from(layout.lines), LINES);
                }
            }
            Ok(())
        }
    }

    fn naming() -> Naming {
        Naming { version: Version(3, 12), layout: Layout::of_3_12(), code_type: CODE_TYPE }
    }

    /// A frame of the code object at `object` as the kernel half tells it.
    fn frame(object: u64) -> RuntimeFrame {
        let layout = Layout::of_3_12();
        let word = |at: u16| match at {
            at if at == layout.file => TEXT,
            at if at == layout.lines => LINES,
            _ => 0,
        };
        let cookie = layout.cookie().into_iter().fold(object, |hash, at| mix(hash, word(at)));
        let cookie = (cookie >> 32) as u32 | 1;
        RuntimeFrame { kind: FrameKind::CPYTHON, object: UserAddr(object), position: 1, cookie }
    }

    #[test]
    fn line_tables_of_one_request_are_bounded_and_the_names_stay() {
        let naming = naming();
        let mut reader = Reader::new(&naming, &Endless);
        for number in 1..=100_u64 {
            let named = reader.name(&frame(number << 13)).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(named.len(), 1);
        }
        let kept = |code: &Result<Arc<Code>, _>| code.as_ref().map_or(0, |code| code.lines.capacity());
        let kept: usize = reader.known.values().map(kept).sum();
        assert!(kept > 0 && kept <= MAX_KEPT_LINES, "{kept}");
    }

    #[test]
    fn a_code_object_that_was_not_read_when_sampled_is_not_believed() {
        let naming = naming();
        let mut reader = Reader::new(&naming, &Endless);
        let whole = frame(1 << 13);
        assert!(reader.name(&whole).is_ok());
        let why = |cookie| reader_says(&naming, &RuntimeFrame { cookie, ..whole });
        assert_eq!(why(0), "python: code object not readable when sampled");
        assert_eq!(why(whole.cookie ^ 2), "python: code object gone");
    }

    fn reader_says(naming: &Naming, frame: &RuntimeFrame) -> String {
        Reader::new(naming, &Endless).name(frame).expect_err("it has no name").to_string()
    }
}
