//! Names, lines and inlined functions of Go programs from their own line table ([`profiler_elf::go`]).

use crate::frame::{Frame, Language, Names, Symbolized, Texts};
use profiler_address::ElfVaddr;
use profiler_elf::{
    Bytes, Elf, Paged, ReadError, Segment,
    go::{Function, Header, Program, Table},
};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Reads allowed for one lookup. The longest tables take some ten thousand.
const LOOKUP_WORK: u64 = 4 << 20;
/// Pieces of the table kept, 16 KiB each.
const SLOTS: usize = 96;
const MAX_NAME: u64 = 64 << 10;
const MAX_INLINED: usize = 256;

/// The line table of a Go program.
pub(crate) struct Go {
    bytes: Bytes,
    segments: Vec<Segment>,
    table: Table<Paged>,
    /// Address of the inline trees; 0 if not found.
    trees: u64,
    names: FxHashMap<u32, Names>,
    files: FxHashMap<u32, Arc<str>>,
    texts_bytes: u64,
    /// Room for texts that were not given before.
    pub texts: Texts,
}

impl Go {
    /// The line table of a file, if it is of a Go program.
    pub fn open(elf: &Elf) -> Option<Self> {
        let program = Program::find(elf, &elf.bytes)?;
        let table = program.paged(SLOTS);
        let header = Header::read(&table)?;
        let (text, trees) = (program.text(), program.inline_trees());
        tracing::debug!(?header, text, trees, "Go line table");
        Some(Self {
            bytes: elf.bytes.clone(),
            segments: elf.segments().to_vec(),
            table: Table::new(table, header, text),
            trees,
            names: FxHashMap::default(),
            files: FxHashMap::default(),
            texts_bytes: 0,
            texts: Texts::default(),
        })
    }

    pub fn memory(&self) -> u64 {
        self.table.bytes().max_bytes() + self.texts_bytes
    }

    /// The functions at an address; none if it is not Go code. An error counts as that.
    pub fn symbolize(&mut self, address: u64) -> Option<Symbolized> {
        self.table.bytes().set_work(LOOKUP_WORK);
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
        let Some(function) = self.table.function_at(address)? else { return Ok(None) };
        let tree = self.table.inline_tree(&function, self.trees)?;
        let mut frames = Vec::new();
        let mut address = address;
        // From the innermost inlined call outwards: each names the address in the function at which its caller stands.
        while let (Some(tree), true) = (tree, frames.len() < MAX_INLINED) {
            let Some(index) = self.table.inline_index(&function, address)? else { break };
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
                let Some(text) = self.table.name(name, MAX_NAME)? else { return Ok(None) };
                let names = readable(&String::from_utf8_lossy(&text));
                if self.texts.take(names.bytes() + 48).is_err() {
                    return Ok(None);
                }
                self.texts_bytes += names.bytes() + 48;
                self.names.insert(name, names.clone());
                names
            }
        };
        let mut frame = Frame::named(names);
        frame.line = self.table.line_at(function, address)?.unwrap_or(0);
        frame.file = self.file_at(function, address)?;
        frame.start_line = start_line;
        Ok(Some(frame))
    }

    fn file_at(&mut self, function: &Function, address: u64) -> Result<Option<Arc<str>>, ReadError> {
        let Some(file) = self.table.file_at(function, address)? else { return Ok(None) };
        if let Some(known) = self.files.get(&file) {
            return Ok(Some(known.clone()));
        }
        let Some(path) = self.table.file(file, MAX_NAME)? else { return Ok(None) };
        let path: Arc<str> = String::from_utf8_lossy(&path).into();
        if self.texts.take(path.len() as u64 + 64).is_err() {
            return Ok(None);
        }
        self.texts_bytes += path.len() as u64 + 64;
        self.files.insert(file, path.clone());
        Ok(Some(path))
    }

    fn inlined_call(&self, tree: u64, index: u32) -> Result<profiler_elf::go::InlinedCall, ReadError> {
        let size = self.table.inlined_call_len();
        let address = tree.wrapping_add(u64::from(index) * size);
        let mut call = [0; 20];
        let call = call.get_mut(..size as usize).unwrap_or_default();
        let at = self.segments.iter().find_map(|segment| segment.file_offset(ElfVaddr(address)));
        let at = at.ok_or(ReadError::OutOfBounds { at: address, wanted: size, len: self.bytes.len() })?;
        self.bytes.read_exact_at(at.0, call)?;
        Ok(self.table.inlined_call(call))
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
