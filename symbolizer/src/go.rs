//! Names, lines and inlined functions of Go programs from their own line table (pclntab), which `strip` leaves in place.
//!
//! ```text
//!  header ─┬─ function table: start of each function, sorted ──> _func: name, tables of (pc -> file), (pc -> line),
//!          ├─ names                                                     (pc -> index in the inline tree)
//!          ├─ file numbers of each compilation unit ──> file names
//!          └─ delta-coded tables
//!  module data ──> start of code, start of the inline trees
//! ```
//!
//! The layout is that of `runtime/symtab.go` and `runtime/runtime2.go` of each Go release: one for 1.16 and 1.17, one for 1.18
//! and 1.19, one from 1.20 on.

mod locate;

use crate::frame::{Frame, Language, Names, Symbolized};
use profiler_address::ElfVaddr;
use profiler_elf::{Bytes, Elf, Paged, ReadError, Segment};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Reads allowed for one lookup. The longest tables take some ten thousand.
const LOOKUP_WORK: u64 = 4 << 20;
const MAX_NAME: u64 = 64 << 10;
const MAX_INLINED: usize = 256;
const PCDATA_INLINE_INDEX: u64 = 2;
const FUNCDATA_INLINE_TREE: u64 = 3;

/// Release of Go that the layout is of; later ones have it until the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layout {
    Go116,
    Go118,
    Go120,
}

/// Where the parts of a table are, as the header says: offsets from its start.
#[derive(Clone, Copy, Debug)]
struct Header {
    layout: Layout,
    /// Instructions start at multiples of it: bytes.
    quantum: u8,
    functions: u64,
    text: u64,
    names: u64,
    file_numbers: u64,
    files: u64,
    deltas: u64,
    table: u64,
}

impl Header {
    /// Reads a header; none if it is not one, or one that we do not know.
    fn read(table: &Paged) -> Option<Self> {
        let layout = match table.u32_at(0).ok()? {
            0xffff_fffa => Layout::Go116,
            0xffff_fff0 => Layout::Go118,
            0xffff_fff1 => Layout::Go120,
            _ => return None,
        };
        let (quantum, pointer) = (table.u8_at(6).ok()?, table.u8_at(7).ok()?);
        if table.u16_at(4).ok()? != 0 || !matches!(quantum, 1 | 2 | 4) || pointer != 8 {
            return None;
        }
        let word = |index: u64| table.u64_at(8 + index * 8).ok();
        // From 1.18 to 1.25 the start of code stands before the offsets; from 1.26 a zero does.
        let first = if layout == Layout::Go116 { 2 } else { 3 };
        let text = if layout == Layout::Go116 { 0 } else { word(2)? };
        let offset = |index: u64| word(first + index).filter(|offset| *offset < table.len());
        Some(Self {
            layout,
            quantum,
            functions: word(0).filter(|n| *n > 0 && *n < table.len() / 8)?,
            text,
            names: offset(0)?,
            file_numbers: offset(1)?,
            files: offset(2)?,
            deltas: offset(3)?,
            table: offset(4)?,
        })
    }
}

/// A function's record.
#[derive(Clone, Copy, Debug)]
struct Function {
    /// Its first address.
    start: u64,
    /// Offset of the record in the table.
    record: u64,
    name: u32,
    file_deltas: u32,
    line_deltas: u32,
    pcdata: u32,
    unit: u32,
    start_line: u32,
    funcdata: u8,
}

/// The line table of a Go program.
pub(crate) struct Go {
    bytes: Bytes,
    segments: Vec<Segment>,
    table: Paged,
    header: Header,
    text: u64,
    /// Address of the inline trees; 0 if not found.
    trees: u64,
    names: FxHashMap<u32, Names>,
    files: FxHashMap<u32, Arc<str>>,
    texts_bytes: u64,
}

impl Go {
    /// The line table of a file, if it is of a Go program.
    pub fn open(elf: &Elf) -> Option<Self> {
        let found = locate::locate(elf)?;
        tracing::debug!(header = ?found.header, text = found.text, trees = found.trees, "Go line table");
        Some(Self {
            bytes: elf.bytes.clone(),
            segments: elf.segments().to_vec(),
            table: found.table,
            header: found.header,
            text: found.text,
            trees: found.trees,
            names: FxHashMap::default(),
            files: FxHashMap::default(),
            texts_bytes: 0,
        })
    }

    pub fn memory(&self) -> u64 {
        self.table.max_bytes() + self.texts_bytes
    }

    /// The functions at an address; none if it is not Go code. An error counts as that.
    pub fn symbolize(&mut self, address: u64) -> Option<Symbolized> {
        self.table.set_work(LOOKUP_WORK);
        let frames = match self.frames(address) {
            Ok(frames) => frames?,
            Err(error) => {
                tracing::debug!(%error, address, "Go line table not read");
                return None;
            }
        };
        Some(Symbolized { frames, language: Language::Go, module: None })
    }

    fn frames(&mut self, address: u64) -> Result<Option<Vec<Frame>>, ReadError> {
        let Some(function) = self.function_at(address)? else { return Ok(None) };
        let tree = self.inline_tree(&function)?;
        let mut frames = Vec::new();
        let mut address = address;
        // From the innermost inlined call outwards: each names the address in the function at which its caller stands.
        while let (Some(tree), true) = (tree, frames.len() < MAX_INLINED) {
            let deltas = self.table.u32_at(function.record + self.record_len() + PCDATA_INLINE_INDEX * 4)?;
            let index = self.value_at(deltas, &function, address)?;
            let Ok(index) = u64::try_from(index.unwrap_or(-1)) else { break };
            let call = self.inlined_call(tree, index)?;
            frames.extend(self.frame(call.name, call.start_line, &function, address)?);
            let caller = function.start.wrapping_add(call.parent.into());
            if caller == address && frames.len() > 64 {
                break;
            }
            address = caller;
        }
        frames.extend(self.frame(function.name, function.start_line, &function, address)?);
        Ok((!frames.is_empty()).then_some(frames))
    }

    fn frame(
        &mut self,
        name: u32,
        start_line: u32,
        function: &Function,
        address: u64,
    ) -> Result<Option<Frame>, ReadError> {
        let names = match self.names.get(&name) {
            Some(names) => names.clone(),
            None => {
                let Some(text) = self.table.string_at(self.header.names + u64::from(name), MAX_NAME)? else {
                    return Ok(None);
                };
                let names = readable(&text);
                self.texts_bytes += names.bytes() + 48;
                self.names.insert(name, names.clone());
                names
            }
        };
        let line = self.value_at(function.line_deltas, function, address)?;
        let mut frame = Frame::named(names);
        frame.line = line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
        frame.file = self.file_at(function, address)?;
        frame.start_line = start_line;
        Ok(Some(frame))
    }

    fn file_at(&mut self, function: &Function, address: u64) -> Result<Option<Arc<str>>, ReadError> {
        let number = self.value_at(function.file_deltas, function, address)?;
        let Some(number) = number.and_then(|number| u64::try_from(number).ok()) else { return Ok(None) };
        let at = self.table.u32_at(self.header.file_numbers + (u64::from(function.unit) + number) * 4)?;
        if at == u32::MAX {
            return Ok(None);
        }
        if let Some(known) = self.files.get(&at) {
            return Ok(Some(known.clone()));
        }
        let Some(path) = self.table.string_at(self.header.files + u64::from(at), MAX_NAME)? else { return Ok(None) };
        let path: Arc<str> = path.into();
        self.texts_bytes += path.len() as u64 + 64;
        self.files.insert(at, path.clone());
        Ok(Some(path))
    }

    /// The function that covers an address.
    fn function_at(&self, address: u64) -> Result<Option<Function>, ReadError> {
        let entry = |index: u64| -> Result<(u64, u64), ReadError> {
            if self.header.layout == Layout::Go116 {
                let at = self.header.table + index * 16;
                return Ok((self.table.u64_at(at)?, self.table.u64_at(at + 8)?));
            }
            let at = self.header.table + index * 8;
            Ok((self.text.wrapping_add(self.table.u32_at(at)?.into()), self.table.u32_at(at + 4)?.into()))
        };
        // The entry after the last function is the end of code.
        let (mut low, mut high) = (0, self.header.functions);
        if address < entry(0)?.0 || address >= entry(high)?.0 {
            return Ok(None);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if entry(middle)?.0 <= address { low = middle } else { high = middle }
        }
        let (start, offset) = entry(low)?;
        self.record(start, self.header.table.saturating_add(offset)).map(Some)
    }

    fn record(&self, start: u64, record: u64) -> Result<Function, ReadError> {
        // 1.16 has the whole address where later ones have 32 bits of offset.
        let first = if self.header.layout == Layout::Go116 { 8 } else { 4 };
        let field = |index: u64| self.table.u32_at(record.saturating_add(first + index * 4));
        Ok(Function {
            start,
            record,
            name: field(0)?,
            file_deltas: field(4)?,
            line_deltas: field(5)?,
            pcdata: field(6)?,
            unit: field(7)?,
            start_line: if self.header.layout >= Layout::Go120 { field(8)? } else { 0 },
            funcdata: self.table.u8_at(record.saturating_add(self.record_len() - 1))?,
        })
    }

    /// Bytes of a record without the offsets that follow it.
    fn record_len(&self) -> u64 {
        if self.header.layout == Layout::Go118 { 40 } else { 44 }
    }

    /// Address of a function's inline tree.
    fn inline_tree(&self, function: &Function) -> Result<Option<u64>, ReadError> {
        if u64::from(function.pcdata) <= PCDATA_INLINE_INDEX || u64::from(function.funcdata) <= FUNCDATA_INLINE_TREE {
            return Ok(None);
        }
        let end = function.record.saturating_add(self.record_len() + u64::from(function.pcdata) * 4);
        if self.header.layout == Layout::Go116 {
            // Pointers, aligned.
            let at = end.next_multiple_of(8) + FUNCDATA_INLINE_TREE * 8;
            return Ok(Some(self.table.u64_at(at)?).filter(|tree| *tree != 0));
        }
        let offset = self.table.u32_at(end + FUNCDATA_INLINE_TREE * 4)?;
        Ok((offset != u32::MAX && self.trees != 0).then(|| self.trees.wrapping_add(offset.into())))
    }

    fn inlined_call(&self, tree: u64, index: u64) -> Result<InlinedCall, ReadError> {
        // { funcID, 3 bytes, name, parent, start line }; before 1.20 { parent, funcID, file, line, name, parent pc }.
        let size = if self.header.layout >= Layout::Go120 { 16 } else { 20 };
        let address = tree.wrapping_add(index.wrapping_mul(size));
        let mut call = [0; 20];
        let call = call.get_mut(..size as usize).unwrap_or_default();
        let at = self.segments.iter().find_map(|segment| segment.file_offset(ElfVaddr(address)));
        let at = at.ok_or(ReadError::OutOfBounds { at: address, wanted: size, len: self.bytes.len() })?;
        self.bytes.read_exact_at(at.0, call)?;
        let field = |at: usize| call.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        Ok(if self.header.layout >= Layout::Go120 {
            InlinedCall { name: field(4), parent: field(8), start_line: field(12) }
        } else {
            InlinedCall { name: field(12), parent: field(16), start_line: 0 }
        })
    }

    /// Value at an address of a delta-coded table: pairs of a signed difference of the value and a distance in code, as varints.
    fn value_at(&self, table: u32, function: &Function, address: u64) -> Result<Option<i64>, ReadError> {
        if table == 0 {
            return Ok(None);
        }
        let mut at = self.header.deltas + u64::from(table);
        let (mut value, mut pc, mut first) = (-1i64, function.start, true);
        loop {
            let difference = self.varint(&mut at)?;
            if difference == 0 && !first {
                return Ok(None);
            }
            first = false;
            let signed = i64::from((difference >> 1) as i32);
            value = value.wrapping_add(if difference & 1 != 0 { !signed } else { signed });
            pc = pc.wrapping_add(u64::from(self.varint(&mut at)?) * u64::from(self.header.quantum));
            if address < pc {
                return Ok(Some(value));
            }
        }
    }

    fn varint(&self, at: &mut u64) -> Result<u32, ReadError> {
        let (mut value, mut shift) = (0u32, 0);
        loop {
            let byte = self.table.u8_at(*at)?;
            *at += 1;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte & 0x80 == 0 || shift > 35 {
                return Ok(value);
            }
        }
    }
}

/// The name as Go's own tools print it: type arguments, which are spelt out in full, as `[...]`.
fn readable(name: &str) -> Names {
    let plain = Names::plain(name);
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => {
            let (before, after) = (name.get(..open).unwrap_or_default(), name.get(close + 1..).unwrap_or_default());
            Names { name: format!("{before}[...]{after}").into(), ..plain }
        }
        _ => plain,
    }
}

struct InlinedCall {
    name: u32,
    /// Offset in the function of an instruction that stands at the call.
    parent: u32,
    start_line: u32,
}
