//! One ELF file's names: from its symbol tables, Go's tables or debug info, in the file or beside it.

use crate::{
    debug_files::{self, Place},
    dwarf::{Dwarf, DwarfError},
    frame::{Frame, Language, LeftOut, Names, Symbolized, Texts},
    go::Go,
    object::Object,
    plt,
    symbolizer::{Options, Stats},
    symbols::SymbolTable,
};
use profiler_address::ElfVaddr;
use profiler_elf::{Bytes, Elf, Error, SHT_DYNSYM, SHT_SYMTAB};
use rustc_hash::FxHashMap;
use std::{path::PathBuf, sync::Arc};

/// A symbol table may take half of the budget, or this if that is more, bytes: a million functions.
const LEAST_SYMBOLS: u64 = 16 << 20;
/// The same for a symbol table that is packed whole, of which there is a quarter.
const LEAST_MINI: u64 = 16 << 20;
/// The same for names that are given at one call, of which there is an eighth.
const LEAST_TEXTS: u64 = 2 << 20;

/// What is known of one file.
#[derive(Default)]
pub(crate) struct Native {
    /// Best first.
    tables: Vec<SymbolTable>,
    /// (table, offset of the name in it) -> names.
    names: FxHashMap<(u8, u32), Names>,
    names_bytes: u64,
    texts: Texts,
    lines: Lines,
    go: Option<Box<Go>>,
}

/// A file with debug info, and where others that belong to it are looked for.
pub(crate) struct Debug {
    pub elf: Elf,
    /// Where `elf` is; none for a file in memory.
    pub place: Option<(Place, PathBuf)>,
}

/// Debug info, opened at the first address that could use it.
#[derive(Default)]
enum Lines {
    In(Box<Debug>),
    Open(Box<Dwarf>),
    #[default]
    None,
}

impl Native {
    pub fn load(object: &Object, options: &Options, stats: &mut Stats) -> Result<Self, Error> {
        let bytes = Bytes::of_file(object.file.clone()).map_err(Error::read("the file"))?;
        Ok(Self::load_elf(Elf::parse(bytes)?, Some(object), options, stats))
    }

    /// Loads a file that is in memory.
    pub fn load_bytes(bytes: Arc<[u8]>, options: &Options, stats: &mut Stats) -> Result<Self, Error> {
        Ok(Self::load_elf(Elf::parse(Bytes::Memory(bytes))?, None, options, stats))
    }

    fn load_elf(elf: Elf, object: Option<&Object>, options: &Options, stats: &mut Stats) -> Self {
        let go = Go::open(&elf).map(Box::new);
        let mut tables = Vec::new();
        let mut lines = Lines::None;
        let limit = options.share(2, LEAST_SYMBOLS);
        let symbols = read_table(&elf, SHT_SYMTAB, limit, stats);
        let has_lines = elf.section(".debug_info").or_else(|| elf.section(".zdebug_info")).is_some();
        let mut separate = None;
        let place = object.map(|object| Place::of(object, &options.debug_dirs));
        if symbols.is_none() || (options.source_lines && !has_lines) {
            separate = place.as_ref().and_then(|place| debug_files::find(place, &elf));
        }
        if symbols.is_none() {
            tables.extend(separate.as_ref().and_then(|(elf, _)| read_table(elf, SHT_SYMTAB, limit, stats)));
        }
        tables.extend(symbols);
        if tables.is_empty() {
            tables.extend(mini_symbols(&elf, options, stats));
        }
        let dynamic = read_table(&elf, SHT_DYNSYM, limit, stats);
        // A full symbol table has all dynamic symbols in it; mini debug info has none of them.
        let enough = tables.iter().map(SymbolTable::len).max().unwrap_or(0);
        tables.extend(dynamic.filter(|dynamic| enough < dynamic.len() || elf.section(".gnu_debugdata").is_some()));
        tables.extend(plt::stubs(&elf));
        if options.source_lines {
            lines = match separate {
                _ if has_lines => {
                    let place = place.map(|place| (place.clone(), place.path));
                    Lines::In(Box::new(Debug { elf, place }))
                }
                Some((elf, path)) => Lines::In(Box::new(Debug { elf, place: place.map(|place| (place, path)) })),
                None => Lines::None,
            };
        }
        Self { tables, lines, go, ..Self::default() }
    }

    pub fn bytes(&self) -> u64 {
        let lines = match &self.lines {
            Lines::Open(dwarf) => dwarf.bytes(),
            _ => 0,
        };
        self.tables.iter().map(SymbolTable::bytes).sum::<u64>()
            + self.names_bytes
            + lines
            + self.go.as_ref().map_or(0, |go| go.memory())
    }

    /// What follows are names for one call.
    pub fn begin(&mut self, options: &Options) {
        let bytes = options.share(8, LEAST_TEXTS);
        self.each_texts(|texts| texts.renew(bytes));
    }

    /// Names and paths that were left out since the last call, for want of room.
    pub fn take_left_out(&mut self) -> u64 {
        let mut left_out = 0;
        self.each_texts(|texts| left_out += std::mem::take(&mut texts.left_out));
        left_out
    }

    fn each_texts(&mut self, mut f: impl FnMut(&mut Texts)) {
        f(&mut self.texts);
        if let Some(go) = &mut self.go {
            f(&mut go.texts);
        }
        if let Lines::Open(dwarf) = &mut self.lines {
            f(&mut dwarf.texts);
        }
    }

    pub fn symbolize(&mut self, address: ElfVaddr, options: &Options, stats: &mut Stats) -> Symbolized {
        if let Some(found) = self.go.as_mut().and_then(|go| go.symbolize(address.0)) {
            return found;
        }
        let symbol = self.symbol(address);
        let known = symbol.as_ref().map(Option::as_ref).map_err(|left_out| *left_out);
        let mut frames = self.source_frames(address, known, options, stats);
        if frames.is_empty() {
            frames.extend(symbol.ok().flatten().map(Frame::named));
        }
        Symbolized { frames, language: Language::Native, module: None }
    }

    /// Frames with lines; empty if there are none for the address.
    fn source_frames(
        &mut self,
        address: ElfVaddr,
        symbol: Result<Option<&Names>, LeftOut>,
        options: &Options,
        stats: &mut Stats,
    ) -> Vec<Frame> {
        if let Lines::In(debug) = &self.lines {
            self.lines = match Dwarf::open(debug, stats, options) {
                Ok(mut dwarf) => {
                    dwarf.texts.renew(options.share(8, LEAST_TEXTS));
                    Lines::Open(Box::new(dwarf))
                }
                Err(error) => {
                    count(&error, stats);
                    Lines::None
                }
            };
        }
        let Lines::Open(dwarf) = &mut self.lines else { return Vec::new() };
        match dwarf.frames(address.0, symbol, stats) {
            Ok(frames) => frames,
            Err(error) => {
                count(&error, stats);
                if matches!(error, DwarfError::TooMuchWork) {
                    self.lines = Lines::None;
                }
                Vec::new()
            }
        }
    }

    /// Names of the symbol that covers an address. A symbol with a size beats one without, then the first table wins.
    fn symbol(&mut self, address: ElfVaddr) -> Result<Option<Names>, LeftOut> {
        let hits = (0u8..).zip(&self.tables).filter_map(|(index, table)| Some((index, table, table.find(address.0)?)));
        let Some((index, table, hit)) = hits.min_by_key(|(index, _, hit)| (hit.guessed, *index)) else {
            return Ok(None);
        };
        if let Some(names) = self.names.get(&(index, hit.name)) {
            return Ok(Some(names.clone()));
        }
        let Some(name) = table.name(hit) else { return Ok(None) };
        let names = Names::demangled(&name);
        self.texts.take(names.bytes() + 64)?;
        self.names_bytes += names.bytes() + 64;
        self.names.insert((index, hit.name), names.clone());
        Ok(Some(names))
    }
}

fn count(error: &DwarfError, stats: &mut Stats) {
    match error {
        DwarfError::Missing => return,
        error if error.is_too_large() => stats.dwarf_too_large += 1,
        _ => stats.dwarf_failures += 1,
    }
    tracing::debug!(%error, "no lines");
}

fn read_table(elf: &Elf, kind: u32, limit: u64, stats: &mut Stats) -> Option<SymbolTable> {
    let section = elf.sections().iter().find(|s| s.kind == kind && s.size > 0)?;
    match SymbolTable::read(elf, section, limit) {
        Ok(table) => (table.len() > 0).then_some(table),
        Err(error) => {
            stats.symbols_too_large += u64::from(matches!(error, Error::TooLarge { .. }));
            tracing::debug!(%error, section = &*section.name, "symbol table not read");
            None
        }
    }
}

fn mini_symbols(elf: &Elf, options: &Options, stats: &mut Stats) -> Option<SymbolTable> {
    let limit = options.share(4, LEAST_MINI);
    match debug_files::mini_debug_info(elf, limit)? {
        Ok(mini) => read_table(&mini, SHT_SYMTAB, limit, stats),
        Err(error) => {
            stats.symbols_too_large += u64::from(matches!(error, Error::TooLarge { .. }));
            tracing::debug!(%error, "mini debug info not read");
            None
        }
    }
}
