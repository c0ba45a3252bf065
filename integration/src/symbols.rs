//! Names of a stripped program's functions, from its twin that was not stripped.

use std::fs;
use std::path::Path;

use object::{Object, ObjectSymbol, SymbolKind};

use crate::Error;
use crate::rows::{Frame, Row};

/// The functions of one executable by ELF address.
#[derive(Debug)]
pub struct Symbols {
    /// Start, one past the end, name; sorted.
    functions: Vec<(u64, u64, String)>,
    entry: u64,
}

impl Symbols {
    /// Reads the symbol table of `path`.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(Error::file("read", path))?;
        let file = object::File::parse(bytes.as_slice())
            .map_err(|error| Error::Symbols { path: path.into(), problem: error.to_string() })?;
        let mut functions: Vec<_> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
            .filter_map(|symbol| {
                // Assembly entry points may have no size.
                let end = symbol.address().checked_add(symbol.size().max(48))?;
                Some((symbol.address(), end, symbol.name().ok()?.to_owned()))
            })
            .collect();
        functions.sort_unstable();
        Ok(Self { functions, entry: file.entry() })
    }

    /// The function at `address`.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|&(start, ..)| start <= address);
        let (_, end, name) = self.functions.get(after.checked_sub(1)?)?;
        (address < *end).then_some(name)
    }

    /// True if `address` is in the code that the kernel or the loader starts.
    #[must_use]
    pub fn is_entry(&self, address: u64) -> bool {
        (self.entry..self.entry.saturating_add(0x40)).contains(&address)
    }

    /// Names the frames of `rows` that lie in `file` (compared by file name) and have no name.
    pub fn name_frames(&self, rows: &mut [Row], file: &Path) {
        for frame in rows.iter_mut().flat_map(|row| &mut row.frames) {
            if frame.functions.is_empty() && is_in(frame, file) {
                frame.functions.extend(self.name(frame.address).map(str::to_owned));
            }
        }
    }
}

/// True if `frame`'s code is from `file`, compared by file name.
#[must_use]
pub fn is_in(frame: &Frame, file: &Path) -> bool {
    Path::new(&frame.file).file_name().is_some_and(|name| Some(name) == file.file_name())
}
