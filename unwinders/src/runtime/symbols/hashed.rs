//! Exported symbols by the hash of their names: `DT_GNU_HASH`, or the older `DT_HASH` (System V ABI, "Hash Table").

use profiler_elf::{Elf, Section, le};

use super::{SYMBOL, Symbol};

/// `SHT_HASH`, `SHT_GNU_HASH`
const SHT_HASH: u32 = 5;
const SHT_GNU_HASH: u32 = 0x6fff_fff6;
/// Names of one bucket that are looked at; linkers aim at a few.
const MAX_CHAIN: u64 = 256;

/// The table of a file.
pub(super) struct Hashed<'a> {
    elf: &'a Elf,
    table: &'a Section,
    symbols: &'a Section,
    names: &'a Section,
}

impl<'a> Hashed<'a> {
    /// The better of those that `elf` has.
    pub(super) fn of(elf: &'a Elf) -> Option<Self> {
        let sections = elf.sections();
        let of_kind = |kind| sections.iter().find(|section| section.kind == kind);
        let table = of_kind(SHT_GNU_HASH).or_else(|| of_kind(SHT_HASH))?;
        let symbols = sections.get(table.link as usize)?;
        let names = sections.get(symbols.link as usize)?;
        Some(Self { elf, table, symbols, names })
    }

    /// The symbol of this name, if the file defines it.
    pub(super) fn find(&self, name: &str) -> Option<Symbol> {
        if self.table.kind == SHT_GNU_HASH { self.find_gnu(name) } else { self.find_old(name) }
    }

    fn find_gnu(&self, name: &str) -> Option<Symbol> {
        let head = self.bytes(self.table, 0, 16)?;
        let [buckets, first, words, shift] = [0, 4, 8, 12].map(|at| le::u32_in(&head, at));
        if buckets == 0 || words == 0 {
            return None;
        }
        let hash = gnu(name);
        // Most names that are not there are told by two bits.
        let word = self.bytes(self.table, 16 + u64::from(hash / 64 % words) * 8, 8)?;
        let bit = |hash: u32| le::u64_in(&word, 0) >> (hash % 64) & 1;
        if bit(hash) & bit(hash.checked_shr(shift).unwrap_or(0)) == 0 {
            return None;
        }
        let bucket_at = 16 + u64::from(words) * 8;
        let chain_at = bucket_at + u64::from(buckets) * 4;
        let index = self.half(self.table, bucket_at + u64::from(hash % buckets) * 4)?;
        let from = chain_at + u64::from(index.checked_sub(first)?) * 4;
        let length = self.table.size.checked_sub(from)?.min(MAX_CHAIN * 4);
        let chain = self.bytes(self.table, from, length)?;
        for (further, other) in (0..).zip(chain.chunks_exact(4)) {
            let other = le::u32_in(other, 0);
            if other | 1 == hash | 1
                && let Some(symbol) = self.symbol(u64::from(index) + further, name)
            {
                return Some(symbol);
            }
            // The last of its bucket.
            if other & 1 == 1 {
                break;
            }
        }
        None
    }

    fn find_old(&self, name: &str) -> Option<Symbol> {
        let buckets = self.half(self.table, 0)?;
        let bucket = u64::from(old(name).checked_rem(buckets)?);
        let mut index = self.half(self.table, 8 + bucket * 4)?;
        for _ in 0..MAX_CHAIN {
            if index == 0 {
                break;
            }
            if let Some(symbol) = self.symbol(index.into(), name) {
                return Some(symbol);
            }
            index = self.half(self.table, 8 + (u64::from(buckets) + u64::from(index)) * 4)?;
        }
        None
    }

    /// The symbol at a place of the table, if it has this name and is defined.
    fn symbol(&self, index: u64, name: &str) -> Option<Symbol> {
        let symbol = self.bytes(self.symbols, index.checked_mul(SYMBOL as u64)?, SYMBOL as u64)?;
        let found = self.bytes(self.names, le::u32_in(&symbol, 0).into(), name.len() as u64 + 1)?;
        (found.split_last() == Some((&0, name.as_bytes()))).then(|| Symbol::of(&symbol))?
    }

    fn half(&self, section: &Section, at: u64) -> Option<u32> {
        Some(le::u32_in(&self.bytes(section, at, 4)?, 0))
    }

    fn bytes(&self, section: &Section, at: u64, length: u64) -> Option<Vec<u8>> {
        if at.checked_add(length)? > section.size {
            return None;
        }
        self.elf.bytes.read_vec(section.offset.0.checked_add(at)?, length).ok()
    }
}

/// As `DT_GNU_HASH` has it.
fn gnu(name: &str) -> u32 {
    name.bytes().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(byte.into()))
}

/// As `DT_HASH` has it.
fn old(name: &str) -> u32 {
    name.bytes().fold(0, |hash: u32, byte| {
        let hash = (hash << 4).wrapping_add(byte.into());
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    })
}
