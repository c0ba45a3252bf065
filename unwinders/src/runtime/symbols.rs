//! A few symbols of a file, by name.
//!
//! Exported ones are looked up as the dynamic linker does, by the hash of their names: a few small reads, however large the tables of the
//! file are. Only what has no such hash, and what is not exported, is looked for in whole tables.

mod hashed;

use memchr::memmem;
use profiler_address::ElfVaddr;
use profiler_elf::{Elf, SHT_DYNSYM, SHT_SYMTAB, Section, le};
use rustc_hash::FxHashMap;

use self::hashed::Hashed;

/// Largest table of symbols that are not exported, or of their names, that is read, bytes.
const MAX_TABLE: u64 = 64 << 20;
/// The same of those that are exported, where there is no hash of their names.
const MAX_EXPORTED: u64 = 4 << 20;
/// Bytes of a symbol.
const SYMBOL: usize = 24;
/// Places at which a name may end in another's: more are not looked at.
const MAX_PLACES: usize = 64;

/// A symbol that is defined in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Where it is; of thread-local variables, where in their block.
    pub address: ElfVaddr,
    /// Bytes.
    pub size: u64,
    /// It is a thread's own.
    pub thread_local: bool,
}

impl Symbol {
    /// Of an `Elf64_Sym`; none if it is only referred to.
    fn of(bytes: &[u8]) -> Option<Self> {
        // st_name, st_info, st_other, st_shndx, st_value, st_size
        if le::u16_in(bytes, 6) == 0 {
            return None;
        }
        let kind = bytes.get(4).map_or(0, |info| info & 15);
        Some(Self { address: ElfVaddr(le::u64_in(bytes, 8)), size: le::u64_in(bytes, 16), thread_local: kind == 6 })
    }
}

/// Those that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Symbols(FxHashMap<String, Symbol>);

impl Symbols {
    /// Those of `names` that `elf` exports.
    #[must_use]
    pub fn exported(elf: &Elf, names: &[&str]) -> Self {
        let mut found = Self::default();
        found.add_exported(elf, names);
        found
    }

    /// Those of `names` that `elf` defines, exported or not.
    #[must_use]
    pub fn defined(elf: &Elf, names: &[&str]) -> Self {
        let mut found = Self::default();
        found.add_exported(elf, names);
        if names.iter().any(|name| !found.0.contains_key(*name)) {
            found.add_all(elf, SHT_SYMTAB, names, MAX_TABLE);
        }
        found
    }

    /// The symbol of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Symbol> {
        self.0.get(name).copied()
    }

    fn add_exported(&mut self, elf: &Elf, names: &[&str]) {
        match Hashed::of(elf) {
            Some(hashed) => {
                let found = names.iter().filter_map(|name| Some(((*name).to_owned(), hashed.find(name)?)));
                self.0.extend(found);
            }
            None => self.add_all(elf, SHT_DYNSYM, names, MAX_EXPORTED),
        }
    }

    fn add_all(&mut self, elf: &Elf, kind: u32, names: &[&str], limit: u64) {
        for table in elf.sections().iter().filter(|section| section.kind == kind) {
            self.add(elf, table, names, limit);
        }
    }

    fn add(&mut self, elf: &Elf, table: &Section, names: &[&str], limit: u64) {
        let Some(strings) = elf.sections().get(table.link as usize) else { return };
        let Ok(strings) = elf.data(strings, limit) else { return };
        let mut wanted: FxHashMap<u32, &str> = FxHashMap::default();
        for name in names.iter().filter(|name| !self.0.contains_key(**name)) {
            let text = [name.as_bytes(), &[0]].concat();
            for at in memmem::find_iter(&strings, &text).take(MAX_PLACES) {
                if let Ok(at) = u32::try_from(at) {
                    wanted.insert(at, name);
                }
            }
        }
        if wanted.is_empty() {
            return;
        }
        let Ok(symbols) = elf.data(table, limit) else { return };
        for symbol in symbols.chunks_exact(SYMBOL) {
            let Some(name) = wanted.get(&le::u32_in(symbol, 0)) else { continue };
            let Some(symbol) = Symbol::of(symbol) else { continue };
            self.0.entry((*name).to_owned()).or_insert(symbol);
        }
    }
}
