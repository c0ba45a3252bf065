//! A few symbols of a file, by name.

use memchr::memmem;
use profiler_address::ElfVaddr;
use profiler_elf::{Elf, SHT_DYNSYM, SHT_SYMTAB, Section, le};
use rustc_hash::FxHashMap;

/// Largest table of symbols or names that is read, bytes.
const MAX_TABLE: u64 = 64 << 20;
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

/// Those that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Symbols(FxHashMap<String, Symbol>);

impl Symbols {
    /// Those of `names` that `elf` exports.
    #[must_use]
    pub fn exported(elf: &Elf, names: &[&str]) -> Self {
        Self::of(elf, names, &[SHT_DYNSYM])
    }

    /// Those of `names` that `elf` defines, exported or not.
    #[must_use]
    pub fn defined(elf: &Elf, names: &[&str]) -> Self {
        Self::of(elf, names, &[SHT_DYNSYM, SHT_SYMTAB])
    }

    /// The symbol of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Symbol> {
        self.0.get(name).copied()
    }

    fn of(elf: &Elf, names: &[&str], kinds: &[u32]) -> Self {
        let mut found = Self::default();
        for kind in kinds {
            for table in elf.sections().iter().filter(|section| section.kind == *kind) {
                found.add(elf, table, names);
            }
            if names.iter().all(|name| found.0.contains_key(*name)) {
                break;
            }
        }
        found
    }

    fn add(&mut self, elf: &Elf, table: &Section, names: &[&str]) {
        let Some(strings) = elf.sections().get(table.link as usize) else { return };
        let Ok(strings) = elf.data(strings, MAX_TABLE) else { return };
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
        let Ok(symbols) = elf.data(table, MAX_TABLE) else { return };
        for symbol in symbols.chunks_exact(SYMBOL) {
            // Elf64_Sym: st_name, st_info, st_other, st_shndx, st_value, st_size
            let Some(name) = wanted.get(&le::u32_in(symbol, 0)) else { continue };
            if le::u16_in(symbol, 6) == 0 {
                continue;
            }
            let kind = symbol.get(4).map_or(0, |info| info & 15);
            let symbol = Symbol {
                address: ElfVaddr(le::u64_in(symbol, 8)),
                size: le::u64_in(symbol, 16),
                thread_local: kind == 6,
            };
            self.0.entry((*name).to_owned()).or_insert(symbol);
        }
    }
}
