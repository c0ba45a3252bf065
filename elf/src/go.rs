//! The one reader of Go's line table (pclntab): functions, names, lines and stack deltas of programs that Go's linker made. `strip`
//! leaves it in place.
//!
//! ```text
//!  header ─┬─ pairs: start of each function, sorted ──> record: name, tables of (pc -> stack delta), (pc -> file), (pc -> line),
//!          ├─ names                                                        (pc -> index in the inline tree)
//!          ├─ file numbers of each compilation unit ──> file names
//!          └─ delta-coded tables
//!  module data ──> start of code, start of the inline trees
//! ```
//!
//! The layout is that of `runtime/symtab.go`, `runtime/runtime2.go` and `debug/gosym/pclntab.go` of each release of Go: one for 1.2 to 1.15,
//! one for 1.16 and 1.17, one for 1.18 and 1.19, one from 1.20 on.
//!
//! Nothing here allocates by what the table claims, and every loop reads: what bounds reads ([`Paged::set_work`]) bounds all of it.

mod locate;
mod table;

use crate::{Paged, ReadError};
use std::borrow::Cow;

pub use locate::Program;
pub use table::{Deltas, Function, InlinedCall, Table};

/// The layouts, by the magic number that each starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layout {
    /// Go 1.2 to 1.15: offsets count from the start of the table, functions have addresses.
    Go12,
    /// Go 1.16 and 1.17: the table has parts.
    Go116,
    /// Go 1.18 and 1.19: functions have offsets from the start of code.
    Go118,
    /// Go 1.20 and later: functions say on which line they start.
    Go120,
}

impl Layout {
    const fn of(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fffb => Some(Self::Go12),
            0xffff_fffa => Some(Self::Go116),
            0xffff_fff0 => Some(Self::Go118),
            0xffff_fff1 => Some(Self::Go120),
            _ => None,
        }
    }

    /// Bytes of a pair of function and record: two words, from 1.18 on two halves.
    const fn pair_size(self) -> u64 {
        if matches!(self, Self::Go12 | Self::Go116) { 16 } else { 8 }
    }
}

/// Where the parts of a table are, as its header says: offsets from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    layout: Layout,
    /// Instructions start at multiples of it: bytes.
    quantum: u8,
    /// How many there are, of which the pairs are there.
    functions: u32,
    /// First address of code; 0 where the header doesn't tell.
    text: u64,
    names: u64,
    /// Of 1.2 to 1.15, where there is one list of all files, it is known when that is read.
    file_numbers: u64,
    files: u64,
    deltas: u64,
    pairs: u64,
    /// What offsets of records count from.
    records: u64,
}

impl Header {
    /// Reads a header; none if it is not one, of 32-bit code, or of a layout that is not known.
    #[must_use]
    pub fn read(table: &impl TableBytes) -> Option<Self> {
        let layout = Layout::of(table.u32_at(0).ok()?)?;
        let [zero, zero_too, quantum, pointer] = table.u32_at(4).ok()?.to_le_bytes();
        if (zero, zero_too) != (0, 0) || !matches!(quantum, 1 | 2 | 4) || pointer != 8 {
            return None;
        }
        let word = |index: u64| table.u64_at(8 + index * 8).ok();
        let claimed = word(0)?;
        let fitting = |pairs: u64| {
            // One more pair than functions, of which the first half is the end of the last function.
            let fit = (table.len() - pairs).saturating_sub(layout.pair_size() / 2) / layout.pair_size();
            u32::try_from(claimed.min(fit)).ok().filter(|functions| *functions > 0)
        };
        if layout == Layout::Go12 {
            let functions = table.len().checked_sub(16).and_then(|_| fitting(16))?;
            let file_numbers = 16 + u64::from(functions) * 16 + 8;
            let file_numbers = table.u32_at(file_numbers).map_or(u64::MAX, u64::from);
            let zero = Self::at_start(layout, quantum, functions);
            return Some(Self { pairs: 16, file_numbers, ..zero });
        }
        // From 1.18 to 1.25 the start of code stands before the offsets; from 1.26 a zero does.
        let first = if layout == Layout::Go116 { 2 } else { 3 };
        let offset = |index: u64| word(first + index).filter(|offset| *offset < table.len());
        let pairs = offset(4)?;
        Some(Self {
            text: if layout == Layout::Go116 { 0 } else { word(2)? },
            names: offset(0)?,
            file_numbers: offset(1)?,
            files: offset(2)?,
            deltas: offset(3)?,
            pairs,
            records: pairs,
            ..Self::at_start(layout, quantum, fitting(pairs)?)
        })
    }

    const fn at_start(layout: Layout, quantum: u8, functions: u32) -> Self {
        let (text, names, file_numbers, files, deltas, pairs, records) = (0, 0, 0, 0, 0, 0, 0);
        Self { layout, quantum, functions, text, names, file_numbers, files, deltas, pairs, records }
    }

    /// Bytes of which instructions are multiples: 1 on x86-64, 4 on arm64.
    #[must_use]
    pub const fn quantum(&self) -> u8 {
        self.quantum
    }
}

/// What a table is read from: a slice, or a part of a file.
pub trait TableBytes {
    /// Bytes in all.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One byte.
    ///
    /// # Errors
    /// It is not there, can't be read, or too much was read.
    fn u8_at(&self, at: u64) -> Result<u8, ReadError>;

    /// The 32-bit number at `at`.
    ///
    /// # Errors
    /// As [`Self::u8_at`].
    fn u32_at(&self, at: u64) -> Result<u32, ReadError>;

    /// The 64-bit number at `at`.
    ///
    /// # Errors
    /// As [`Self::u8_at`].
    fn u64_at(&self, at: u64) -> Result<u64, ReadError>;

    /// The bytes at `at` up to the next zero; none if that is not within `limit` bytes.
    ///
    /// # Errors
    /// As [`Self::u8_at`].
    fn text_at(&self, at: u64, limit: u64) -> Result<Option<Cow<'_, [u8]>>, ReadError>;
}

fn array_at<const N: usize>(bytes: &[u8], at: u64) -> Result<[u8; N], ReadError> {
    let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).and_then(|rest| rest.first_chunk());
    rest.copied().ok_or(ReadError::OutOfBounds { at, wanted: N as u64, len: bytes.len() as u64 })
}

impl TableBytes for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    #[inline]
    fn u8_at(&self, at: u64) -> Result<u8, ReadError> {
        array_at(self, at).map(|[byte]| byte)
    }

    #[inline]
    fn u32_at(&self, at: u64) -> Result<u32, ReadError> {
        array_at(self, at).map(u32::from_le_bytes)
    }

    #[inline]
    fn u64_at(&self, at: u64) -> Result<u64, ReadError> {
        array_at(self, at).map(u64::from_le_bytes)
    }

    fn text_at(&self, at: u64, limit: u64) -> Result<Option<Cow<'_, [u8]>>, ReadError> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let rest = usize::try_from(limit).ok().and_then(|limit| rest.get(..limit)).unwrap_or(rest);
        let len = rest.iter().position(|byte| *byte == 0);
        Ok(len.and_then(|len| rest.get(..len)).map(Cow::Borrowed))
    }
}

impl TableBytes for Paged {
    fn len(&self) -> u64 {
        Self::len(self)
    }

    fn u8_at(&self, at: u64) -> Result<u8, ReadError> {
        Self::u8_at(self, at)
    }

    fn u32_at(&self, at: u64) -> Result<u32, ReadError> {
        Self::u32_at(self, at)
    }

    fn u64_at(&self, at: u64) -> Result<u64, ReadError> {
        Self::u64_at(self, at)
    }

    fn text_at(&self, at: u64, limit: u64) -> Result<Option<Cow<'_, [u8]>>, ReadError> {
        let Some(len) = self.find(at, 0, limit)? else { return Ok(None) };
        let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read_exact_at(at, &mut text)?;
        Ok(Some(Cow::Owned(text)))
    }
}
