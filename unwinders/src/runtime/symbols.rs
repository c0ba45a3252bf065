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

/// Largest table of symbols that are not exported, or of their names, that is looked through, bytes.
const MAX_TABLE: u64 = 64 << 20;
/// The same of those that are exported, where there is no hash of their names.
const MAX_EXPORTED: u64 = 4 << 20;
/// Bytes of a symbol.
const SYMBOL: usize = 24;
/// Bytes of a table that are looked through at once: those of Node.js have 14 MB.
const PIECE: usize = 256 << 10;
/// Places at which names may end in others': more are not looked at.
const MAX_PLACES: usize = 1024;

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
        self.add_by_pieces(elf, table, names, (limit, PIECE));
    }

    /// Looks through a table of names of at most `limit` bytes, then through that of their symbols, `piece` bytes at a time.
    fn add_by_pieces(&mut self, elf: &Elf, table: &Section, names: &[&str], (limit, piece): (u64, usize)) {
        let Some(strings) = elf.sections().get(table.link as usize) else { return };
        if strings.size > limit || table.size > limit {
            return;
        }
        let mut missing: Vec<&str> = names.iter().copied().filter(|name| !self.0.contains_key(*name)).collect();
        let ended = |name: &&str| [name.as_bytes(), &[0]].concat();
        let texts: Vec<Vec<u8>> = missing.iter().map(ended).collect();
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let finders: Vec<memmem::Finder<'_>> = texts.iter().map(memmem::Finder::new).collect();
        let mut wanted: FxHashMap<u32, &str> = FxHashMap::default();
        for at in (0..strings.size).step_by(piece) {
            // What begins in a piece may end in the next.
            let length = (strings.size - at).min((piece + longest) as u64);
            let Ok(bytes) = elf.bytes.read_vec(strings.offset.0.saturating_add(at), length) else { return };
            for (finder, name) in finders.iter().zip(&missing) {
                for place in finder.find_iter(&bytes) {
                    if wanted.len() >= MAX_PLACES {
                        break;
                    }
                    if let Ok(place) = u32::try_from(at + place as u64) {
                        wanted.insert(place, name);
                    }
                }
            }
        }
        if wanted.is_empty() {
            return;
        }
        let piece = (piece / SYMBOL).max(1) * SYMBOL;
        for at in (0..table.size).step_by(piece) {
            let length = (table.size - at).min(piece as u64);
            let Ok(symbols) = elf.bytes.read_vec(table.offset.0.saturating_add(at), length) else { return };
            for symbol in symbols.chunks_exact(SYMBOL) {
                let Some(name) = wanted.get(&le::u32_in(symbol, 0)).copied() else { continue };
                let Some(symbol) = Symbol::of(symbol) else { continue };
                self.0.entry(name.to_owned()).or_insert(symbol);
                missing.retain(|missing| *missing != name);
            }
            if missing.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use profiler_elf::Bytes;

    use super::*;

    #[test]
    fn symbols_are_found_wherever_pieces_of_their_tables_begin() {
        let file = Arc::new(File::open("/proc/self/exe").unwrap());
        let len = file.metadata().unwrap().len();
        let elf = Elf::parse(Bytes::File { file, len }).unwrap();
        let names = ["main", "_start", "rust_eh_personality", "there is none of this name"];
        let table = elf.sections().iter().find(|section| section.kind == SHT_SYMTAB).unwrap();
        let by_pieces = |piece| {
            let mut found = Symbols::default();
            found.add_by_pieces(&elf, table, &names, (MAX_TABLE, piece));
            names.map(|name| found.get(name))
        };
        let whole = by_pieces(MAX_TABLE as usize);
        assert_eq!(whole.map(|symbol| symbol.is_some()), [true, true, true, false]);
        assert!(whole[..3].iter().flatten().all(|symbol| symbol.address.0 != 0));
        for piece in [1009, PIECE] {
            assert_eq!(by_pieces(piece), whole, "{piece}");
        }
        let mut found = Symbols::default();
        found.add_by_pieces(&elf, table, &names, (table.size - 1, PIECE));
        assert_eq!(found.get("main"), None, "a table that is too large is not read");
    }
}
