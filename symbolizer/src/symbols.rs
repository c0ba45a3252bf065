//! A symbol table as a sorted array of 16 bytes a function. Names stay in the file until they are asked for.

use profiler_address::ElfVaddr;
use profiler_elf::le::{u16_in, u32_in, u64_in};
use profiler_elf::{Bytes, Elf, Error, MACHINE_AARCH64, Paged, Section};
use std::cmp::Reverse;

/// Most symbols taken from one table; Chromium with everything has about two million.
const MAX_SYMBOLS: u64 = 8 << 20;
/// Longest name read, bytes.
const MAX_NAME: u64 = 64 << 10;
const SYMBOL_SIZE: usize = 24;

/// A function symbol. The top bits of `size` say what is known of it; the rest is its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    start: u64,
    size: u32,
    name: u32,
}

const GUESSED: u32 = 1 << 31;
const UNTYPED: u32 = 1 << 30;
const LOCAL: u32 = 1 << 29;
const SIZE: u32 = LOCAL - 1;

impl Entry {
    fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.start).is_some_and(|within| within < u64::from(self.size & SIZE))
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.size & SIZE))
    }
}

/// Where code is, for many questions.
struct CodeSections(Vec<(u64, u64)>);

impl CodeSections {
    fn of(elf: &Elf) -> Self {
        let mut sections: Vec<_> =
            elf.sections().iter().filter(|s| s.is_code()).map(|s| (s.address.0, s.end())).collect();
        sections.sort_unstable();
        Self(sections)
    }

    /// The end of the section that an address is in.
    fn end_of(&self, address: u64) -> Option<u64> {
        let next = self.0.partition_point(|(start, _)| *start <= address);
        let (_, end) = self.0.get(next.checked_sub(1)?)?;
        (address < *end).then_some(*end)
    }
}

/// A symbol that covers an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    /// First address.
    pub start: u64,
    /// The table has no size for it; it was taken to reach to the next symbol.
    pub guessed: bool,
    /// Where its name is.
    pub name: u32,
}

/// The functions of one symbol table.
#[derive(Debug)]
pub(crate) struct SymbolTable {
    entries: Vec<Entry>,
    strings: Paged,
}

impl SymbolTable {
    /// Reads the functions of a `SHT_SYMTAB` or `SHT_DYNSYM` section, into at most `limit` bytes of memory.
    pub fn read(elf: &Elf, table: &Section, limit: u64) -> Result<Self, Error> {
        let count = table.size / SYMBOL_SIZE as u64;
        if count > MAX_SYMBOLS {
            return Err(Error::TooLarge { what: "symbols", found: count, limit: MAX_SYMBOLS });
        }
        let strings = elf.sections().get(table.link as usize).ok_or(Error::Malformed("symbol table link"))?;
        let (table, strings) = if table.is_compressed() || strings.is_compressed() {
            let table = Bytes::Unpacked(elf.data(table, limit)?.into());
            let strings = Bytes::Unpacked(elf.data(strings, limit - table.len())?.into());
            let (table_len, strings_len) = (table.len(), strings.len());
            (Paged::new(table, 0, table_len, 1), Paged::new(strings, 0, strings_len, 1))
        } else {
            (elf.paged(table, 1), elf.paged(strings, 16))
        };
        let code = CodeSections::of(elf);
        let mut entries = Vec::new();
        let unpacked = if table.is_memory() { table.len() + strings.len() } else { 0 };
        let most = usize::try_from((limit - unpacked) / size_of::<Entry>() as u64).unwrap_or(usize::MAX);
        let (mut at, mut batch) = (0, vec![0; SYMBOL_SIZE * 2048]);
        while at < table.len() {
            let len = usize::try_from(table.len() - at).unwrap_or(usize::MAX).min(batch.len());
            let batch = batch.get_mut(..len).unwrap_or_default();
            table.read_exact_at(at, batch).map_err(Error::read("symbols"))?;
            entries
                .extend(batch.chunks_exact(SYMBOL_SIZE).filter_map(|symbol| Self::entry(elf, &code, symbol, &strings)));
            if entries.len() > most {
                return Err(Error::TooLarge {
                    what: "function symbols",
                    found: entries.len() as u64,
                    limit: most as u64,
                });
            }
            at += len as u64;
        }
        Ok(Self { entries: settle(entries, &code), strings })
    }

    /// A table of ready entries: (start, size, offset of the name in `names`).
    pub fn of_stubs(stubs: impl IntoIterator<Item = (u64, u32, u32)>, names: Vec<u8>) -> Self {
        let mut entries: Vec<_> =
            stubs.into_iter().map(|(start, size, name)| Entry { start, size: size.min(SIZE), name }).collect();
        entries.sort_unstable_by_key(|e| e.start);
        let len = names.len() as u64;
        Self { entries, strings: Paged::new(Bytes::Memory(names.into()), 0, len, 0) }
    }

    /// The entry for an `Elf64_Sym` that names code.
    fn entry(elf: &Elf, code: &CodeSections, symbol: &[u8], strings: &Paged) -> Option<Entry> {
        let (name, info, section) = (u32_in(symbol, 0), *symbol.get(4)?, u16_in(symbol, 6));
        let (start, size) = (u64_in(symbol, 8), u64_in(symbol, 16));
        let (kind, binding) = (info & 15, info >> 4);
        // NOTYPE (assembly), FUNC and GNU_IFUNC, defined here.
        if name == 0 || section == 0 || !matches!(kind, 0 | 2 | 10) {
            return None;
        }
        // By its section; a symbol of no section (SHN_ABS, or one of more than 65,000) by its address.
        let here = match elf.sections().get(usize::from(section)) {
            Some(section) => section.is_code() && section.contains(ElfVaddr(start)),
            None => code.end_of(start).is_some(),
        };
        if !here {
            return None;
        }
        // Mapping symbols of arm64 ($x, $d) mark code and data, they do not name it.
        if elf.machine() == MACHINE_AARCH64 && kind == 0 && strings.u8_at(name.into()).is_ok_and(|first| first == b'$')
        {
            return None;
        }
        let mut flags = if size == 0 { GUESSED } else { 0 };
        flags |= if kind == 0 { UNTYPED } else { 0 };
        flags |= if binding == 0 { LOCAL } else { 0 };
        Some(Entry { start, size: flags | u32::try_from(size).unwrap_or(SIZE).min(SIZE), name })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory that the table takes.
    pub fn bytes(&self) -> u64 {
        (self.entries.capacity() * size_of::<Entry>()) as u64 + self.strings.max_bytes()
    }

    /// The innermost symbol that covers `address`: of those that do, the one that starts last; of its aliases, the one that
    /// a person would use.
    pub fn find(&self, address: u64) -> Option<Hit> {
        let next = self.entries.partition_point(|e| e.start <= address);
        let before = self.entries.get(..next)?;
        // A function may lie within another's range, so the last one to start need not be the one that covers.
        let inner = before.iter().rev().take(64).find(|e| e.contains(address))?;
        let aliases = before.iter().rev().skip_while(|e| e.start != inner.start).take_while(|e| e.start == inner.start);
        let aliases = aliases.take(32).filter(|e| e.contains(address));
        let best = aliases.min_by_key(|e| {
            let name = self.strings.string_at(e.name.into(), MAX_NAME).ok().flatten().unwrap_or_default();
            let underscores = name.bytes().take_while(|b| *b == b'_').count();
            (e.size & (GUESSED | UNTYPED), e.size & LOCAL, underscores, Reverse(e.end()), name.len(), name)
        })?;
        Some(Hit { start: best.start, guessed: best.size & GUESSED != 0, name: best.name })
    }

    /// The name of a symbol, without its version.
    pub fn name(&self, hit: Hit) -> Option<String> {
        let mut name = self.strings.string_at(hit.name.into(), MAX_NAME).ok().flatten()?;
        // `memcpy@@GLIBC_2.14`; but `foo@plt` is a name of ours.
        if let Some(version) = name.find('@').filter(|at| *at > 0 && !name.ends_with("@plt")) {
            name.truncate(version);
        }
        (!name.is_empty()).then_some(name)
    }
}

/// Sorts symbols and gives those without a size one: they reach to the next symbol or the end of their section. Labels inside
/// a function whose size is known are dropped.
fn settle(mut entries: Vec<Entry>, code: &CodeSections) -> Vec<Entry> {
    entries.sort_unstable_by_key(|e| (e.start, e.size & GUESSED));
    let mut covered = 0;
    entries.retain(|e| {
        if e.size & GUESSED == 0 {
            covered = covered.max(e.end());
            return true;
        }
        e.start >= covered
    });
    let mut next = u64::MAX;
    let mut following = u64::MAX;
    for entry in entries.iter_mut().rev() {
        if entry.start != following {
            next = following;
            following = entry.start;
        }
        if entry.size & GUESSED != 0 {
            let end = code.end_of(entry.start).unwrap_or(entry.start).min(next);
            let size = u32::try_from(end.saturating_sub(entry.start)).unwrap_or(SIZE).min(SIZE);
            entry.size = (entry.size & !SIZE) | size;
        }
    }
    entries.shrink_to_fit();
    entries
}
