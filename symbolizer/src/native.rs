//! One ELF file's names: its symbol tables, best first.

use crate::{
    bytes::Bytes,
    elf::{Elf, ElfError, SHT_DYNSYM, SHT_SYMTAB, plt, symbols::SymbolTable},
    frame::{Frame, Language, Names, Symbolized},
    object::Object,
};
use profiler_address::ElfVaddr;
use rustc_hash::FxHashMap;

/// What is known of one file.
#[derive(Debug, Default)]
pub(crate) struct Native {
    tables: Vec<SymbolTable>,
    /// (table, offset of the name in it) -> names.
    names: FxHashMap<(u8, u32), Names>,
    names_bytes: u64,
}

impl Native {
    pub fn load(object: &Object) -> Result<Self, ElfError> {
        let bytes = Bytes::of_file(object.file.clone()).map_err(ElfError::read("the file"))?;
        let elf = Elf::parse(bytes)?;
        let mut tables = Vec::new();
        let symbols = read_table(&elf, SHT_SYMTAB);
        let dynamic = read_table(&elf, SHT_DYNSYM);
        tables.extend(symbols);
        tables.extend(dynamic);
        tables.extend(plt::stubs(&elf));
        Ok(Self { tables, ..Self::default() })
    }

    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(SymbolTable::bytes).sum::<u64>() + self.names_bytes
    }

    pub fn symbolize(&mut self, address: ElfVaddr) -> Symbolized {
        let Some(names) = self.symbol(address) else { return Symbolized::unknown(Language::Native) };
        Symbolized { frames: vec![Frame::named(names)], language: Language::Native, module: None }
    }

    /// Names of the symbol that covers an address. A symbol with a size beats one without, then the first table wins.
    fn symbol(&mut self, address: ElfVaddr) -> Option<Names> {
        let hits = (0u8..).zip(&self.tables).filter_map(|(index, table)| Some((index, table, table.find(address.0)?)));
        let (index, table, hit) = hits.min_by_key(|(index, _, hit)| (hit.guessed, *index))?;
        if let Some(names) = self.names.get(&(index, hit.name)) {
            return Some(names.clone());
        }
        let names = Names::demangled(&table.name(hit)?);
        self.names_bytes += names.bytes() + 64;
        self.names.insert((index, hit.name), names.clone());
        Some(names)
    }
}

fn read_table(elf: &Elf, kind: u32) -> Option<SymbolTable> {
    let section = elf.sections.iter().find(|s| s.kind == kind && s.size > 0)?;
    match SymbolTable::read(elf, section) {
        Ok(table) => (table.len() > 0).then_some(table),
        Err(error) => {
            tracing::debug!(%error, section = &*section.name, "symbol table not read");
            None
        }
    }
}
