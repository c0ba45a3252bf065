//! What a table says of functions.

use super::{Header, Layout, TableBytes};
use crate::ReadError;
use crate::le::u32_in;
use std::borrow::Cow;

/// Functions that have a word of flags say with this one that they are assembly (`abi.FuncFlagAsm`).
const ASSEMBLY: u8 = 4;
/// Indices of tables that a function's record lists (`internal/abi/symtab.go`), from 1.16 on.
const PCDATA_INLINE_INDEX: u64 = 2;
const FUNCDATA_INLINE_TREE: u64 = 3;

/// Go's line table, read as it is asked.
#[derive(Debug)]
pub struct Table<B> {
    bytes: B,
    header: Header,
    /// What offsets of functions count from; 0 where they have addresses.
    text: u64,
}

/// A function's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its first address.
    pub start: u64,
    /// Offset of its name among the names.
    pub name: u32,
    /// The line that it starts on; 0 before 1.20, which doesn't tell.
    pub start_line: u32,
    /// `abi.FuncFlag`; 0 before 1.17.
    pub flags: u8,
    /// Offset of the record in the table.
    record: u64,
    stack_deltas: u32,
    file_deltas: u32,
    line_deltas: u32,
    pcdata: u32,
    unit: u32,
    funcdata: u8,
}

impl Function {
    /// Whether it was written in assembly.
    #[must_use]
    pub const fn is_assembly(&self) -> bool {
        self.flags & ASSEMBLY != 0
    }
}

/// A call that was inlined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InlinedCall {
    /// Offset of the callee's name among the names.
    pub name: u32,
    /// Offset in the function of an instruction that stands at the call.
    pub parent: u32,
    /// The line that the callee starts on; 0 before 1.20.
    pub start_line: u32,
}

impl<B: TableBytes> Table<B> {
    /// The table in `bytes`, whose header was read; `text` is the first address of code.
    pub const fn new(bytes: B, header: Header, text: u64) -> Self {
        let text = if matches!(header.layout, Layout::Go12 | Layout::Go116) { 0 } else { text };
        Self { bytes, header, text }
    }

    /// Where it is read from.
    pub const fn bytes(&self) -> &B {
        &self.bytes
    }

    /// How many functions there are.
    pub const fn len(&self) -> u32 {
        self.header.functions
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Address of function number `index`; of the one after the last, the end of Go's code.
    ///
    /// # Errors
    /// It is not there, or too much was read.
    #[inline]
    pub fn start(&self, index: u32) -> Result<u64, ReadError> {
        let at = self.pair(index);
        Ok(match self.header.layout {
            Layout::Go12 | Layout::Go116 => self.bytes.u64_at(at)?,
            _ => self.text.wrapping_add(self.bytes.u32_at(at)?.into()),
        })
    }

    const fn pair(&self, index: u32) -> u64 {
        self.header.pairs.saturating_add(index as u64 * self.header.layout.pair_size())
    }

    /// Function number `index`.
    ///
    /// # Errors
    /// Its record is not there, or too much was read.
    pub fn function(&self, index: u32) -> Result<Function, ReadError> {
        let (layout, at) = (self.header.layout, self.pair(index));
        let offset = match layout {
            Layout::Go12 | Layout::Go116 => self.bytes.u64_at(at.saturating_add(8))?,
            _ => self.bytes.u32_at(at.saturating_add(4))?.into(),
        };
        let record = self.header.records.saturating_add(offset);
        // The entry: the whole address, later 32 bits of offset.
        let first = layout.pair_size() / 2;
        let field = |index: u64| self.bytes.u32_at(record.saturating_add(first + index * 4));
        let tail = record.saturating_add(self.record_len() - 4);
        let flags = if layout == Layout::Go12 { 0 } else { self.bytes.u8_at(tail.saturating_add(1))? };
        Ok(Function {
            start: self.start(index)?,
            name: field(0)?,
            start_line: if layout >= Layout::Go120 { field(8)? } else { 0 },
            flags,
            record,
            stack_deltas: field(3)?,
            file_deltas: field(4)?,
            line_deltas: field(5)?,
            pcdata: field(6)?,
            unit: if layout == Layout::Go12 { 0 } else { field(7)? },
            funcdata: self.bytes.u8_at(tail.saturating_add(3))?,
        })
    }

    /// The function that covers an address.
    ///
    /// # Errors
    /// The table is cut short, or too much was read.
    pub fn function_at(&self, address: u64) -> Result<Option<Function>, ReadError> {
        let (mut low, mut high) = (0, self.len());
        // The pair after the last function is the end of code.
        if high == 0 || address < self.start(0)? || address >= self.start(high)? {
            return Ok(None);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.start(middle)? <= address { low = middle } else { high = middle }
        }
        self.function(low).map(Some)
    }

    /// Bytes of a record without the offsets that follow it.
    const fn record_len(&self) -> u64 {
        match self.header.layout {
            Layout::Go12 | Layout::Go118 => 40,
            Layout::Go116 | Layout::Go120 => 44,
        }
    }

    /// The name at this offset among names; none if it is longer than `limit` bytes.
    ///
    /// # Errors
    /// It is not there, or too much was read.
    pub fn name(&self, name: u32, limit: u64) -> Result<Option<Cow<'_, [u8]>>, ReadError> {
        self.bytes.text_at(self.header.names.saturating_add(name.into()), limit)
    }

    /// Bytes that sp is below its value at entry, for runs of code.
    pub fn stack_deltas(&self, of: &Function) -> Deltas<'_, B> {
        self.deltas(of.stack_deltas)
    }

    fn deltas(&self, table: u32) -> Deltas<'_, B> {
        let at = if table == 0 { None } else { Some(self.header.deltas.saturating_add(table.into())) };
        Deltas { table: self, at, value: -1, first: true }
    }

    fn value_at(&self, table: u32, function: &Function, address: u64) -> Result<Option<u32>, ReadError> {
        let mut pc = function.start;
        for run in self.deltas(table) {
            let (value, length) = run?;
            pc = pc.wrapping_add(length);
            if address < pc {
                return Ok(u32::try_from(value).ok());
            }
        }
        Ok(None)
    }

    /// The line of an address in a function.
    ///
    /// # Errors
    /// The table is cut short, or too much was read.
    pub fn line_at(&self, function: &Function, address: u64) -> Result<Option<u32>, ReadError> {
        self.value_at(function.line_deltas, function, address)
    }

    /// The file of an address in a function: what [`Self::file`] takes.
    ///
    /// # Errors
    /// The table is cut short, or too much was read.
    pub fn file_at(&self, function: &Function, address: u64) -> Result<Option<u32>, ReadError> {
        let Some(number) = self.value_at(function.file_deltas, function, address)? else { return Ok(None) };
        let number = u64::from(function.unit) + u64::from(number);
        let at = self.bytes.u32_at(self.header.file_numbers.saturating_add(number * 4))?;
        Ok((at != u32::MAX).then_some(at))
    }

    /// The path of a file; none if it is longer than `limit` bytes.
    ///
    /// # Errors
    /// It is not there, or too much was read.
    pub fn file(&self, file: u32, limit: u64) -> Result<Option<Cow<'_, [u8]>>, ReadError> {
        self.bytes.text_at(self.header.files.saturating_add(file.into()), limit)
    }

    /// Address of a function's inline tree, `trees` being that which offsets of trees count from; 0 if it is not known.
    ///
    /// # Errors
    /// The table is cut short, or too much was read.
    pub fn inline_tree(&self, function: &Function, trees: u64) -> Result<Option<u64>, ReadError> {
        let has =
            u64::from(function.pcdata) > PCDATA_INLINE_INDEX && u64::from(function.funcdata) > FUNCDATA_INLINE_TREE;
        // Before 1.16 the indices were others in each release.
        if self.header.layout == Layout::Go12 || !has {
            return Ok(None);
        }
        let end = function.record.saturating_add(self.record_len() + u64::from(function.pcdata) * 4);
        if self.header.layout == Layout::Go116 {
            // Pointers, aligned.
            let at = end.checked_next_multiple_of(8).unwrap_or(end).saturating_add(FUNCDATA_INLINE_TREE * 8);
            return Ok(Some(self.bytes.u64_at(at)?).filter(|tree| *tree != 0));
        }
        let offset = self.bytes.u32_at(end.saturating_add(FUNCDATA_INLINE_TREE * 4))?;
        Ok((offset != u32::MAX && trees != 0).then(|| trees.wrapping_add(offset.into())))
    }

    /// Where in a function's inline tree the innermost call at an address is; none if nothing was inlined there.
    ///
    /// # Errors
    /// The table is cut short, or too much was read.
    pub fn inline_index(&self, function: &Function, address: u64) -> Result<Option<u32>, ReadError> {
        let at = function.record.saturating_add(self.record_len() + PCDATA_INLINE_INDEX * 4);
        self.value_at(self.bytes.u32_at(at)?, function, address)
    }

    /// Bytes of a call in an inline tree.
    pub const fn inlined_call_len(&self) -> u64 {
        if matches!(self.header.layout, Layout::Go120) { 16 } else { 20 }
    }

    /// A call, from so many bytes of an inline tree.
    pub fn inlined_call(&self, bytes: &[u8]) -> InlinedCall {
        // { funcID, 3 bytes, name, parent, start line }; before 1.20 { parent, funcID, file, line, name, parent pc }.
        if self.header.layout >= Layout::Go120 {
            InlinedCall { name: u32_in(bytes, 4), parent: u32_in(bytes, 8), start_line: u32_in(bytes, 12) }
        } else {
            InlinedCall { name: u32_in(bytes, 12), parent: u32_in(bytes, 16), start_line: 0 }
        }
    }
}

/// Runs of code with one value, in order: the value, and the bytes of code. In the table they are pairs of a signed difference of the
/// value and a distance in code, as varints.
#[derive(Debug)]
pub struct Deltas<'t, B> {
    table: &'t Table<B>,
    /// None when there is no more.
    at: Option<u64>,
    value: i32,
    first: bool,
}

impl<B: TableBytes> Deltas<'_, B> {
    fn varint(&mut self) -> Result<u32, ReadError> {
        let (mut value, mut shift) = (0u32, 0);
        loop {
            let at = self.at.unwrap_or(u64::MAX);
            let byte = self.table.bytes.u8_at(at)?;
            self.at = Some(at.saturating_add(1));
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte & 0x80 == 0 || shift >= 35 {
                return Ok(value);
            }
        }
    }

    fn run(&mut self) -> Result<Option<(i32, u64)>, ReadError> {
        let step = self.varint()?;
        if step == 0 && !self.first {
            return Ok(None);
        }
        self.first = false;
        // Zigzag: the sign is the lowest bit.
        let change = (step >> 1).cast_signed() ^ -((step & 1).cast_signed());
        self.value = self.value.wrapping_add(change);
        let length = u64::from(self.varint()?) * u64::from(self.table.header.quantum);
        Ok(Some((self.value, length)))
    }
}

impl<B: TableBytes> Iterator for Deltas<'_, B> {
    type Item = Result<(i32, u64), ReadError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.at?;
        let run = self.run().transpose();
        if !matches!(run, Some(Ok(_))) {
            self.at = None;
        }
        run
    }
}
