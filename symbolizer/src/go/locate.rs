//! Finding the line table in a file, and what only the module data knows: where code and the inline trees start.

use super::{Header, Layout};
use profiler_address::ElfVaddr;
use profiler_elf::{Elf, Paged, SHF_WRITE, SHT_NOBITS, SHT_RELA, Section};

/// Most bytes searched for a table or for module data.
const MAX_SEARCH: u64 = 512 << 20;
const SLOTS: usize = 96;

pub(super) struct Located {
    pub table: Paged,
    pub header: Header,
    pub text: u64,
    pub trees: u64,
}

pub(super) fn locate(elf: &Elf) -> Option<Located> {
    let named = elf.sections().iter().find(|s| s.kind != SHT_NOBITS && s.name.ends_with(".gopclntab"));
    let (address, table) = match named {
        Some(section) => (section.address.0, elf.paged(section, SLOTS)),
        // Programs of C are not searched: they are many, and a search reads the whole file.
        None if elf.sections().is_empty() || elf.section(".go.buildinfo").is_some() => search(elf)?,
        None => return None,
    };
    let header = Header::read(&table)?;
    let module = ModuleData::find(elf, address, &header);
    let text = module.as_ref().and_then(|m| m.text(elf)).or(Some(header.text).filter(|text| *text != 0));
    // Without module data: code starts at .text where Go's own linker made the file.
    let text = text.or_else(|| elf.section(".text").map(|s| s.address.0)).unwrap_or(0);
    let trees = module.and_then(|m| m.trees(elf, &header)).unwrap_or(0);
    Some(Located { table, header, text, trees })
}

/// Looks for a header in the loaded segments of a file without section names.
fn search(elf: &Elf) -> Option<(u64, Paged)> {
    let mut searched = 0;
    for segment in elf.segments() {
        let mut at = 0;
        while at < segment.file_size && searched < MAX_SEARCH {
            let len = (segment.file_size - at).min(1 << 20);
            let block = elf.bytes.read_vec(segment.offset.0.saturating_add(at), len).ok()?;
            for (index, start) in block.chunks_exact(8).enumerate() {
                // Magic, two zeros, quantum, pointer size; the linker aligns tables to 32 bytes.
                if !matches!(start, [0xf0 | 0xf1 | 0xfa, 0xff, 0xff, 0xff, 0, 0, 1 | 2 | 4, 8]) {
                    continue;
                }
                let from = at + index as u64 * 8;
                let offset = segment.offset.0.saturating_add(from);
                let table = Paged::new(elf.bytes.clone(), offset, segment.file_size - from, SLOTS);
                if Header::read(&table).is_some() {
                    return Some((segment.vaddr.0.saturating_add(from), table));
                }
            }
            at += len;
            searched += len;
        }
    }
    None
}

/// `runtime.firstmoduledata`: begins with pointers to the line table and to the names within it.
struct ModuleData {
    address: u64,
    /// In a position-independent file its pointers are in relocations: (address, value).
    relocated: Vec<(u64, u64)>,
}

/// Bytes of it that are of use.
const MODULE_DATA: u64 = 512;

impl ModuleData {
    fn find(elf: &Elf, table: u64, header: &Header) -> Option<Self> {
        let names = table.wrapping_add(header.names);
        Self::find_in_relocations(elf, table, names).or_else(|| Self::find_in_data(elf, table, names))
    }

    fn find_in_data(elf: &Elf, table: u64, names: u64) -> Option<Self> {
        let writable = |s: &&Section| s.flags & SHF_WRITE != 0 && s.kind != SHT_NOBITS;
        // From 1.26 it has a section of its own.
        let own = elf.sections().iter().filter(|s| &*s.name == ".go.module");
        let mut areas: Vec<_> =
            own.chain(elf.sections().iter().filter(writable)).map(|s| (s.address.0, s.offset.0, s.size)).collect();
        if elf.sections().is_empty() {
            areas = elf.segments().iter().map(|s| (s.vaddr.0, s.offset.0, s.file_size)).collect();
        }
        let wanted = [table.to_le_bytes(), names.to_le_bytes()].concat();
        let mut searched = 0;
        for (address, offset, size) in areas {
            let mut at = 0;
            while at < size && searched < MAX_SEARCH {
                // Blocks overlap by a word, for a pair that lies across.
                let len = (size - at).min((1 << 20) + 8);
                let Ok(block) = elf.bytes.read_vec(offset.saturating_add(at), len) else { break };
                let pairs = (0..block.len().saturating_sub(15)).step_by(8);
                for index in pairs {
                    if block.get(index..index + 16) == Some(&*wanted) {
                        return Some(Self { address: address + at + index as u64, relocated: Vec::new() });
                    }
                }
                at += 1 << 20;
                searched += len;
            }
        }
        None
    }

    fn find_in_relocations(elf: &Elf, table: u64, names: u64) -> Option<Self> {
        let mut candidates = Vec::new();
        each_relative(elf, |at, value| {
            if value == table && candidates.len() < 64 {
                candidates.push(at);
            }
        });
        candidates.into_iter().find_map(|address| {
            let mut relocated = Vec::new();
            each_relative(elf, |at, value| {
                if at.checked_sub(address).is_some_and(|within| within < MODULE_DATA) && relocated.len() < 128 {
                    relocated.push((at, value));
                }
            });
            relocated.contains(&(address + 8, names)).then_some(Self { address, relocated })
        })
    }

    fn word(&self, elf: &Elf, offset: u64) -> Option<u64> {
        let address = self.address.wrapping_add(offset);
        if let Some((_, value)) = self.relocated.iter().find(|(at, _)| *at == address) {
            return Some(*value);
        }
        let mut word = [0; 8];
        elf.bytes.read_exact_at(elf.file_offset(ElfVaddr(address))?.0, &mut word).ok()?;
        Some(u64::from_le_bytes(word))
    }

    /// First address of code.
    fn text(&self, elf: &Elf) -> Option<u64> {
        // After the pointer to the header, six slices, findfunctab, minpc and maxpc.
        self.word(elf, 8 + 6 * 24 + 3 * 8).filter(|text| *text != 0)
    }

    /// Address that the offsets of inline trees count from (`go:func.*`).
    fn trees(&self, elf: &Elf, header: &Header) -> Option<u64> {
        // Behind text it goes by pairs: noptrdata, data, bss, noptrbss, (1.20: covctrs,) then end, gcdata, gcbss, types,
        // etypes, rodata.
        let pairs = match header.layout {
            Layout::Go116 => return None,
            Layout::Go118 => 5,
            Layout::Go120 => 6,
        };
        self.word(elf, 8 + 6 * 24 + 3 * 8 + pairs * 16 + 6 * 8).filter(|trees| *trees != 0)
    }
}

/// Gives (place, value) of each relocation that adds the load address: R_X86_64_RELATIVE, R_AARCH64_RELATIVE.
fn each_relative(elf: &Elf, mut f: impl FnMut(u64, u64)) {
    for section in elf.sections().iter().filter(|s| s.kind == SHT_RELA).take(8) {
        let mut at = 0;
        while at < section.size.min(MAX_SEARCH) {
            let len = (section.size - at).min(24 * 8192);
            let Ok(batch) = elf.bytes.read_vec(section.offset.0.saturating_add(at), len) else { break };
            for relocation in batch.chunks_exact(24) {
                let word = |at: usize| {
                    relocation.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
                };
                if matches!(word(8), 8 | 1027) {
                    f(word(0), word(16));
                }
            }
            at += len;
        }
    }
}
