//! Where things are in CPython's structs.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use profiler_address::ElfVaddr;
use profiler_elf::{Elf, le};

use crate::runtime::Symbols;

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub(super) struct Version(pub u8, pub u8);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// By the number that the file has from 3.11 on, else by what it exports.
    pub(super) fn of(elf: &Elf, symbols: &Symbols) -> Result<Self, String> {
        if let Some(symbol) = symbols.get("Py_Version") {
            let number = read(elf, symbol.address.0, 4).map_err(|why| format!("CPython's version: {why}"))?;
            let number = le::u32_in(&number, 0);
            return Ok(Self((number >> 24) as u8, (number >> 16) as u8));
        }
        let has = |name| symbols.get(name).is_some();
        match (has("PyCode_NewWithPosOnlyArgs"), has("PyThreadState_GetID"), has("Py_NewRef")) {
            (true, true, true) => Ok(Self(3, 10)),
            (true, true, false) => Ok(Self(3, 9)),
            (true, false, false) => Ok(Self(3, 8)),
            _ => Err("CPython before 3.8 is not followed".to_owned()),
        }
    }
}

/// Which frame is the last of a run; `enum python_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) enum Entry {
    /// Each.
    Every,
    /// The one that says so in a byte at this offset.
    Flag(u16),
    /// The one before a frame whose owner, at this offset, is larger than any of a function.
    Owner(u16),
}

/// Where a frame is; `enum python_position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) enum Position {
    /// A number: of bytes, or of units of two bytes.
    Number,
    /// The address of an instruction.
    Address,
}

/// Offsets, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Layout {
    /// `PyThreadState`: what `pthread_self` says of it; its innermost frame, or what points there; where in that.
    pub thread_id: u16,
    pub thread_frame: u16,
    pub hop: Option<u16>,
    /// A frame: its code object, the frame that called it, where it is.
    pub frame_code: u16,
    pub frame_previous: u16,
    pub frame_position: u16,
    pub position: Position,
    pub entry: Entry,
    /// Bits of `frame_code` that are no address.
    pub tag: u8,
    /// `PyCodeObject`.
    pub first_line: u16,
    pub file: u16,
    pub name: u16,
    pub qualified: Option<u16>,
    pub lines: u16,
    pub code: u16,
    /// `PyASCIIObject`: bytes before the text; `PyCompactUnicodeObject`: the same.
    pub ascii: u16,
    pub compact: u16,
    pub unicode_length: u16,
    pub unicode_state: u16,
    /// `PyBytesObject`: its length, and where its bytes begin.
    pub bytes_size: u16,
    pub bytes: u16,
}

/// The largest owner of a frame that has a function (`enum _frameowner`): the thread, a generator, a frame object.
pub(super) const LAST_OWNER: u8 = 2;

/// Up to 3.10.
const OLD: Layout = Layout {
    thread_id: 176,
    thread_frame: 24,
    hop: None,
    frame_code: 32,
    frame_previous: 24,
    frame_position: 104,
    position: Position::Number,
    entry: Entry::Every,
    tag: 0,
    first_line: 40,
    file: 104,
    name: 112,
    qualified: None,
    lines: 120,
    code: 0,
    ascii: 48,
    compact: 72,
    unicode_length: 16,
    unicode_state: 32,
    bytes_size: 16,
    bytes: 32,
};

const OF_3_11: Layout = Layout {
    thread_id: 152,
    thread_frame: 56,
    hop: Some(8),
    frame_previous: 48,
    frame_position: 56,
    position: Position::Address,
    entry: Entry::Flag(68),
    first_line: 72,
    file: 112,
    name: 120,
    qualified: Some(128),
    lines: 136,
    code: 184,
    ..OLD
};

const OF_3_12: Layout = Layout {
    thread_id: 136,
    thread_frame: 56,
    hop: Some(0),
    frame_code: 0,
    frame_previous: 8,
    entry: Entry::Owner(70),
    first_line: 68,
    code: 192,
    ascii: 40,
    compact: 56,
    ..OF_3_11
};

impl Layout {
    /// Of the interpreter in `elf`.
    pub(super) fn of(elf: &Elf, symbols: &Symbols, version: Version) -> Result<Self, String> {
        let layout = match version {
            Version(3, 8 | 9) => OLD,
            Version(3, 10) => Self { frame_position: 96, ..OLD },
            Version(3, 11) => OF_3_11,
            Version(3, 12) => OF_3_12,
            Version(3, 13..) => Self::published(elf, symbols, version)?,
            _ => return Err("it is not known".to_owned()),
        };
        layout.check(elf, symbols)?;
        Ok(layout)
    }

    #[cfg(test)]
    pub(super) const fn of_3_12() -> Self {
        OF_3_12
    }

    /// Whether what the file says of its type of code objects agrees: how large they are, which is where their code begins from 3.11 on.
    fn check(&self, elf: &Elf, symbols: &Symbols) -> Result<(), String> {
        /// `PyTypeObject.tp_basicsize`
        const BASIC_SIZE: u64 = 32;
        let code_type = symbols.get("PyCode_Type").ok_or("it has no type of code objects")?;
        let size = le::u64_in(&read(elf, code_type.address.0.saturating_add(BASIC_SIZE), 8)?, 0);
        let fits = if self.code == 0 { size >= u64::from(self.lines) + 8 } else { size == u64::from(self.code) };
        if fits {
            Ok(())
        } else {
            Err(format!("its code objects have {size} bytes, which is not as it should be: is it patched?"))
        }
    }

    /// As the interpreter publishes it, from 3.13 on (`_Py_DebugOffsets`).
    fn published(elf: &Elf, symbols: &Symbols, version: Version) -> Result<Self, String> {
        let runtime = symbols.get("_PyRuntime").ok_or("it has no _PyRuntime")?;
        let table = read(elf, runtime.address.0, (8 * LONGEST) as u64)?;
        if !table.starts_with(b"xdebugpy") {
            return Err("its table of offsets is not there".to_owned());
        }
        let words: Vec<u64> = table.chunks_exact(8).map(|word| le::u64_in(word, 0)).collect();
        let word = |at: usize| words.get(at).copied().unwrap_or(u64::MAX);
        if word(2) != 0 {
            return Err("builds without the global interpreter lock are not followed".to_owned());
        }
        // A version that is not known yet may have kept the form of one that is.
        let own = FORMS.iter().filter(|form| form.version == version.1);
        let others = FORMS.iter().rev().filter(|form| form.version != version.1);
        let found = own.chain(others).find_map(|form| form.take(&word, version));
        found.ok_or_else(|| "the form of its table of offsets is not known".to_owned())
    }
}

/// Words of a table of offsets that are read.
const LONGEST: usize = 100;

/// Where in a version's table the groups are that are needed: places of their first word.
struct Form {
    version: u8,
    /// `thread_state.current_frame` and `thread_id`
    frame: usize,
    thread_id: usize,
    /// `interpreter_frame`, `code_object`, `pyobject`, `bytes_object`, `unicode_object`
    interpreter_frame: usize,
    code_object: usize,
    object: usize,
    bytes: usize,
    unicode: usize,
}

const FORMS: [Form; 3] = [
    Form {
        version: 13,
        frame: 23,
        thread_id: 24,
        interpreter_frame: 28,
        code_object: 34,
        object: 44,
        bytes: 64,
        unicode: 67,
    },
    Form {
        version: 14,
        frame: 26,
        thread_id: 27,
        interpreter_frame: 31,
        code_object: 39,
        object: 50,
        bytes: 74,
        unicode: 77,
    },
    Form {
        version: 15,
        frame: 26,
        thread_id: 30,
        interpreter_frame: 39,
        code_object: 47,
        object: 58,
        bytes: 86,
        unicode: 89,
    },
];

impl Form {
    /// The offsets, if the table has this form: the sizes of what has not changed in ten years are where they should be, and all that is
    /// needed lies within its struct.
    fn take(&self, word: &impl Fn(usize) -> u64, version: Version) -> Option<Layout> {
        let fixed = word(self.object) == 16
            && word(self.object + 1) == 8
            && word(self.bytes + 1) == 16
            && word(self.bytes + 2) == 32
            && word(self.unicode + 2) == 16
            && word(self.unicode + 3) == 40;
        let frame_size = word(self.interpreter_frame);
        let within = |at: usize, size: u64| u16::try_from(word(at)).ok().filter(|&offset| u64::from(offset) < size);
        let frame = |place: usize| within(self.interpreter_frame + place, frame_size.min(128));
        let code_size = word(self.code_object);
        let code = |place: usize| within(self.code_object + place, code_size.min(1024));
        let thread = |at: usize| within(at, 4096);
        if !fixed || frame_size > 4096 {
            return None;
        }
        let layout = Layout {
            thread_id: thread(self.thread_id)?,
            thread_frame: thread(self.frame)?,
            hop: None,
            frame_previous: frame(1)?,
            frame_code: frame(2)?,
            frame_position: frame(3)?,
            entry: Entry::Owner(frame(5)?),
            tag: if version >= Version(3, 14) { 3 } else { 0 },
            file: code(1)?,
            name: code(2)?,
            qualified: Some(code(3)?),
            lines: code(4)?,
            first_line: code(5)?,
            code: code(9)?,
            unicode_state: u16::try_from(word(self.unicode + 1)).ok()?,
            ..OF_3_12
        };
        let span = layout.code_span();
        (layout.frame_bytes() <= 120 && span.1 <= 120).then_some(layout)
    }
}

impl Layout {
    /// Bytes of a frame that are read.
    pub(super) fn frame_bytes(&self) -> u16 {
        let entry = match self.entry {
            Entry::Every => 0,
            Entry::Flag(at) | Entry::Owner(at) => at.saturating_add(1),
        };
        let position = self.frame_position.saturating_add(if self.position == Position::Number { 4 } else { 8 });
        [self.frame_code.saturating_add(8), self.frame_previous.saturating_add(8), position, entry]
            .into_iter()
            .max()
            .unwrap_or(0)
            .checked_next_multiple_of(4)
            .unwrap_or(u16::MAX)
    }

    /// What of a code object tells it from another: the words in which there are the first line and the three objects that it refers to
    /// for good.
    pub(super) fn cookie(&self) -> [u16; 4] {
        [self.first_line / 8 * 8, self.file, self.name, self.lines]
    }

    /// From where on, and how many bytes, the words of the cookie lie.
    pub(super) fn code_span(&self) -> (u16, u16) {
        let words = self.cookie();
        let first = words.into_iter().min().unwrap_or(0);
        let last = words.into_iter().max().unwrap_or(0);
        (first, (last - first).saturating_add(8))
    }
}

/// Bytes of the file at an ELF address.
pub(super) fn read(elf: &Elf, address: u64, length: u64) -> Result<Vec<u8>, String> {
    let offset = elf.file_offset(ElfVaddr(address)).ok_or("an address is not in the file")?;
    elf.bytes.read_vec(offset.0, length).map_err(|error| error.to_string())
}
