//! As much of the ELF format as naming needs: 64-bit little-endian files, their sections and segments.
//!
//! Every count and size in a file is checked against the file or a constant before memory is taken for it.

pub(crate) mod compressed;
pub(crate) mod plt;
pub(crate) mod symbols;

use crate::bytes::{Bytes, Paged, ReadError};

const MAX_SECTIONS: u64 = 100_000;
const MAX_SEGMENTS: u64 = 4_096;
const MAX_SECTION_NAMES: u64 = 4 << 20;

/// Why an ELF file, or a part of it, is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElfError {
    #[error("cannot read {what}: {source}")]
    Read { what: &'static str, source: ReadError },
    #[error("not a 64-bit little-endian ELF file")]
    NotElf,
    #[error("{what}: {found} where at most {limit} is taken")]
    TooLarge { what: &'static str, found: u64, limit: u64 },
    #[error("malformed {0}")]
    Malformed(&'static str),
}

impl ElfError {
    pub fn read(what: &'static str) -> impl FnOnce(ReadError) -> Self {
        move |source| Self::Read { what, source }
    }
}

/// Instruction set of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    Aarch64,
    Other,
}

pub(crate) const SHT_SYMTAB: u32 = 2;
pub(crate) const SHT_RELA: u32 = 4;
pub(crate) const SHT_NOTE: u32 = 7;
pub(crate) const SHT_NOBITS: u32 = 8;
pub(crate) const SHT_DYNSYM: u32 = 11;
const SHF_EXECINSTR: u64 = 4;
const SHF_COMPRESSED: u64 = 0x800;
pub(crate) const PT_LOAD: u32 = 1;

/// A section header.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub name: Box<str>,
    pub kind: u32,
    pub flags: u64,
    pub address: u64,
    pub offset: u64,
    pub size: u64,
    pub link: u32,
}

impl Section {
    pub fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR != 0
    }

    pub fn is_compressed(&self) -> bool {
        self.flags & SHF_COMPRESSED != 0
    }

    pub fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|within| within < self.size)
    }

    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

/// A program header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub kind: u32,
    pub offset: u64,
    pub address: u64,
    pub file_size: u64,
}

/// An open ELF file.
#[derive(Debug)]
pub(crate) struct Elf {
    pub bytes: Bytes,
    pub machine: Machine,
    pub sections: Vec<Section>,
    pub segments: Vec<Segment>,
}

fn u16_in(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_in(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_in(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

impl Elf {
    /// Reads the headers.
    pub fn parse(bytes: Bytes) -> Result<Self, ElfError> {
        let mut header = [0; 64];
        if bytes.len() < 64 {
            return Err(ElfError::NotElf);
        }
        bytes.read_exact_at(0, &mut header).map_err(ElfError::read("the ELF header"))?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return Err(ElfError::NotElf);
        }
        let machine = match u16_in(&header, 18) {
            62 => Machine::X86_64,
            183 => Machine::Aarch64,
            _ => Machine::Other,
        };
        let segments = Self::segments(&bytes, u64_in(&header, 32), u16_in(&header, 54), u16_in(&header, 56))?;
        // A file may lack sections, or have lost them to truncation; its segments still serve.
        let names = u16_in(&header, 62);
        let sections = Self::sections(&bytes, u64_in(&header, 40), u16_in(&header, 58), u16_in(&header, 60), names)
            .unwrap_or_default();
        Ok(Self { bytes, machine, sections, segments })
    }

    fn segments(bytes: &Bytes, offset: u64, size: u16, count: u16) -> Result<Vec<Segment>, ElfError> {
        let count = u64::from(count);
        if count == 0 || size != 56 {
            return Ok(Vec::new());
        }
        if count > MAX_SEGMENTS {
            return Err(ElfError::TooLarge { what: "program headers", found: count, limit: MAX_SEGMENTS });
        }
        let table = bytes.read_vec(offset, count * 56).map_err(ElfError::read("program headers"))?;
        let segments = table.chunks_exact(56).map(|h| Segment {
            kind: u32_in(h, 0),
            offset: u64_in(h, 8),
            address: u64_in(h, 16),
            file_size: u64_in(h, 32),
        });
        Ok(segments.collect())
    }

    fn sections(bytes: &Bytes, offset: u64, size: u16, count: u16, names: u16) -> Result<Vec<Section>, ElfError> {
        if offset == 0 || size != 64 {
            return Ok(Vec::new());
        }
        let first = bytes.read_vec(offset, 64).map_err(ElfError::read("section headers"))?;
        // More than 0xff00 sections: the numbers are in the first header.
        let count = if count == 0 { u64_in(&first, 32) } else { count.into() };
        let names = if names == 0xffff { u32_in(&first, 40) } else { names.into() };
        if count > MAX_SECTIONS {
            return Err(ElfError::TooLarge { what: "section headers", found: count, limit: MAX_SECTIONS });
        }
        let table = bytes.read_vec(offset, count * 64).map_err(ElfError::read("section headers"))?;
        let name_table = table.chunks_exact(64).nth(names as usize).map(|h| (u64_in(h, 24), u64_in(h, 32)));
        let strings = match name_table {
            Some((offset, size)) if size <= MAX_SECTION_NAMES => bytes.read_vec(offset, size).unwrap_or_default(),
            _ => Vec::new(),
        };
        let name_at = |at: u32| {
            let rest = strings.get(at as usize..).unwrap_or_default();
            let name = rest.split(|b| *b == 0).next().unwrap_or_default();
            Box::from(std::str::from_utf8(name.get(..64.min(name.len())).unwrap_or_default()).unwrap_or_default())
        };
        let sections = table.chunks_exact(64).map(|h| Section {
            name: name_at(u32_in(h, 0)),
            kind: u32_in(h, 4),
            flags: u64_in(h, 8),
            address: u64_in(h, 16),
            offset: u64_in(h, 24),
            size: u64_in(h, 32),
            link: u32_in(h, 40),
        });
        Ok(sections.collect())
    }

    /// The section of that name, if it has content.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| &*s.name == name && s.kind != SHT_NOBITS && s.size > 0)
    }

    /// The content of a section that is not compressed, for many small reads.
    pub fn paged(&self, section: &Section, slots: usize) -> Paged {
        if section.kind == SHT_NOBITS {
            return Paged::empty();
        }
        Paged::new(self.bytes.clone(), section.offset, section.size, slots)
    }

    /// The content of a section, decompressed if need be, if it is no longer than `limit` bytes.
    pub fn data(&self, section: &Section, limit: u64) -> Result<Vec<u8>, ElfError> {
        if section.size > limit {
            return Err(ElfError::TooLarge { what: "section", found: section.size, limit });
        }
        let raw = self.bytes.read_vec(section.offset, section.size).map_err(ElfError::read("section"))?;
        if section.is_compressed() { compressed::decompress(&raw, limit) } else { Ok(raw) }
    }

    /// File offset of the byte at an address, if a loaded segment has it in the file.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().filter(|s| s.kind == PT_LOAD).find_map(|s| {
            let within = address.checked_sub(s.address).filter(|within| *within < s.file_size)?;
            s.offset.checked_add(within)
        })
    }

    /// The GNU build id, lower-case hex.
    pub fn build_id(&self) -> Option<String> {
        let notes = self.sections.iter().filter(|s| s.kind == SHT_NOTE && s.size <= 1 << 16);
        notes.take(64).filter_map(|s| self.bytes.read_vec(s.offset, s.size).ok()).find_map(|notes| build_id_in(&notes))
    }
}

/// The build id among notes, as hex.
fn build_id_in(mut notes: &[u8]) -> Option<String> {
    while notes.len() >= 12 {
        let (name_len, len, kind) = (u32_in(notes, 0) as usize, u32_in(notes, 4) as usize, u32_in(notes, 8));
        let padded = |n: usize| n.checked_add(3).map(|n| n & !3);
        let content = 12usize.checked_add(padded(name_len)?)?;
        let end = content.checked_add(len)?;
        if kind == 3 && notes.get(12..16) == Some(b"GNU\0") && (1..=64).contains(&len) {
            return Some(notes.get(content..end)?.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(content.checked_add(padded(len)?)?..)?;
    }
    None
}
