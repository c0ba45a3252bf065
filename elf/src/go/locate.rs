//! Finding the line table in a file, and what only the module data knows: where code and the inline trees start.

use super::{Header, Layout, TableBytes};
use crate::headers::{Headers, SHF_WRITE, SHT_NOBITS, SHT_RELA, Section, Source};
use crate::le::u64_in;
use crate::{Bytes, Paged};
use profiler_address::{ElfVaddr, FileOffset};
use std::cell::{Cell, OnceCell};

/// Bytes of a relocation.
const RELOCATION: u64 = 24;
/// Most bytes read of one program to find its table and its module data, all searches together: eight million relocations. The largest
/// programs have a few million.
const MAX_SEARCH: u64 = RELOCATION << 23;
/// What looks like a header costs this many of those bytes, since it is read in many small pieces.
const HEADER_COST: u64 = 4 << 10;
/// Places taken for module data at most: a pointer to the table is in few others.
const MAX_CANDIDATES: usize = 4;
const BLOCK: u64 = 1 << 20;

/// Bytes that may still be read of one program to search it. What is left out is not found.
#[derive(Debug)]
struct SearchLeft(Cell<u64>);

impl SearchLeft {
    /// Takes up to `bytes`; gives how many there were.
    fn take(&self, bytes: u64) -> u64 {
        let taken = bytes.min(self.0.get());
        self.0.set(self.0.get() - taken);
        taken
    }
}

/// A Go program: its headers, where its bytes are read, and where the line table is.
#[derive(Debug)]
pub struct Program<'h, S: ?Sized> {
    headers: &'h Headers,
    source: &'h S,
    /// Where the table is loaded.
    address: u64,
    /// Where it is in the file.
    offset: FileOffset,
    len: u64,
    header: Header,
    module: OnceCell<Option<ModuleData>>,
    left: SearchLeft,
}

impl<'h, S: Source + ?Sized> Program<'h, S> {
    /// Finds the table of a file; none if it is not of a Go program.
    pub fn find(headers: &'h Headers, source: &'h S) -> Option<Self> {
        let left = SearchLeft(Cell::new(MAX_SEARCH));
        let mut named = headers.sections().iter().filter(|s| s.kind != SHT_NOBITS && s.name.ends_with(".gopclntab"));
        let (address, offset, len) = match named.next() {
            Some(section) => (section.address.0, section.offset.0, section.size),
            // Programs of C are not searched: they are many, and a search reads the whole file.
            None if headers.sections().is_empty() || headers.section(".go.buildinfo").is_some() => {
                search(headers, source, &left)?
            }
            None => return None,
        };
        let len = len.min(source.size().saturating_sub(offset));
        let header = Header::read(&Part { source, offset, len })?;
        Some(Self { headers, source, address, offset: FileOffset(offset), len, header, module: OnceCell::new(), left })
    }

    /// What its header says.
    #[must_use]
    pub const fn header(&self) -> Header {
        self.header
    }

    /// Where the table is in the file, and how long it is, bytes.
    #[must_use]
    pub const fn place(&self) -> (FileOffset, u64) {
        (self.offset, self.len)
    }

    /// First address of code, from which functions of 1.18 and later count.
    #[must_use]
    pub fn text(&self) -> u64 {
        let code =
            |address: &u64| self.headers.segments().iter().any(|s| s.executable() && s.contains(ElfVaddr(*address)));
        // The header has zero where the linker left it to relocation, and from 1.26 on.
        let told = Some(self.header.text).filter(|text| *text != 0).filter(code);
        let told = told.or_else(|| self.module().and_then(|module| module.text(self)).filter(code));
        // Without module data: code starts at .text where Go's own linker made the file.
        told.or_else(|| self.headers.section(".text").map(|text| text.address.0)).unwrap_or(0)
    }

    /// Address that the offsets of inline trees count from (`go:func.*`); 0 if it is not known.
    #[must_use]
    pub fn inline_trees(&self) -> u64 {
        self.module().and_then(|module| module.trees(self)).unwrap_or(0)
    }

    fn module(&self) -> Option<&ModuleData> {
        self.module.get_or_init(|| ModuleData::find(self)).as_ref()
    }

    fn read(&self, at: u64, len: u64) -> Vec<u8> {
        self.source.read_up_to(at, len).unwrap_or_default()
    }
}

/// A table that is read where its file is, for the header only.
struct Part<'s, S: ?Sized> {
    source: &'s S,
    offset: u64,
    len: u64,
}

impl<S: Source + ?Sized> Part<'_, S> {
    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], crate::ReadError> {
        let mut out = [0; N];
        let out_of_bounds = || crate::ReadError::OutOfBounds { at, wanted: N as u64, len: self.len };
        let from = self.offset.checked_add(at).filter(|_| at.saturating_add(N as u64) <= self.len);
        let got = self.source.read_some(from.ok_or_else(out_of_bounds)?, &mut out)?;
        if got == N { Ok(out) } else { Err(out_of_bounds()) }
    }
}

impl<S: Source + ?Sized> TableBytes for Part<'_, S> {
    fn len(&self) -> u64 {
        self.len
    }

    fn u8_at(&self, at: u64) -> Result<u8, crate::ReadError> {
        self.array(at).map(|[byte]| byte)
    }

    fn u32_at(&self, at: u64) -> Result<u32, crate::ReadError> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64_at(&self, at: u64) -> Result<u64, crate::ReadError> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn text_at(&self, _: u64, _: u64) -> Result<Option<std::borrow::Cow<'_, [u8]>>, crate::ReadError> {
        Ok(None)
    }
}

/// Looks for a header in the loaded segments of a file without section names: its address, its offset, and the bytes behind it.
fn search<S: Source + ?Sized>(headers: &Headers, source: &S, left: &SearchLeft) -> Option<(u64, u64, u64)> {
    for segment in headers.segments() {
        let size = segment.file_size.min(source.size().saturating_sub(segment.offset.0));
        let mut at = 0;
        while at < size {
            let len = left.take((size - at).min(BLOCK));
            if len == 0 {
                return None;
            }
            let block = source.read_up_to(segment.offset.0.saturating_add(at), len).ok()?;
            for (index, start) in block.chunks_exact(8).enumerate() {
                // Magic, two zeros, quantum, pointer size; the linker aligns tables to 32 bytes.
                if !matches!(start, [0xf0 | 0xf1 | 0xfa | 0xfb, 0xff, 0xff, 0xff, 0, 0, 1 | 2 | 4, 8]) {
                    continue;
                }
                if left.take(HEADER_COST) < HEADER_COST {
                    return None;
                }
                let from = at + index as u64 * 8;
                let offset = segment.offset.0.saturating_add(from);
                if Header::read(&Part { source, offset, len: size - from }).is_some() {
                    return Some((segment.vaddr.0.saturating_add(from), offset, size - from));
                }
            }
            at += len;
        }
    }
    None
}

/// `runtime.firstmoduledata`: begins with pointers to the line table and to the names within it.
#[derive(Debug)]
struct ModuleData {
    address: u64,
    /// In a position-independent file its pointers are in relocations: (address, value).
    relocated: Vec<(u64, u64)>,
}

/// Bytes of it that are of use.
const MODULE_DATA: u64 = 512;
/// After the pointer to the header, six slices, findfunctab, minpc and maxpc. The same from 1.16 to 1.26.
const TEXT: u64 = 8 + 6 * 24 + 3 * 8;

impl ModuleData {
    fn find<S: Source + ?Sized>(of: &Program<'_, S>) -> Option<Self> {
        let names = of.address.wrapping_add(of.header.names);
        if of.header.layout == Layout::Go12 {
            return None;
        }
        Self::find_in_relocations(of, names).or_else(|| Self::find_in_data(of, names))
    }

    fn find_in_data<S: Source + ?Sized>(of: &Program<'_, S>, names: u64) -> Option<Self> {
        let sections = of.headers.sections();
        let writable = |s: &&Section| s.flags & SHF_WRITE != 0 && s.kind != SHT_NOBITS;
        // From 1.26 it has a section of its own.
        let own = sections.iter().filter(|s| &*s.name == ".go.module");
        let mut areas: Vec<_> =
            own.chain(sections.iter().filter(writable)).map(|s| (s.address.0, s.offset.0, s.size)).collect();
        if sections.is_empty() {
            areas = of.headers.segments().iter().map(|s| (s.vaddr.0, s.offset.0, s.file_size)).collect();
        }
        let wanted = [of.address.to_le_bytes(), names.to_le_bytes()].concat();
        for (address, offset, size) in areas {
            let size = size.min(of.source.size().saturating_sub(offset));
            let mut at = 0;
            while at < size {
                // Blocks overlap by a word, for a pair that lies across.
                let len = of.left.take((size - at).min(BLOCK + 8));
                if len == 0 {
                    return None;
                }
                let block = of.read(offset.saturating_add(at), len);
                let mut pairs = (0..block.len().saturating_sub(15)).step_by(8);
                if let Some(index) = pairs.find(|index| block.get(*index..index + 16) == Some(&*wanted)) {
                    let address = address.wrapping_add(at + index as u64);
                    return Some(Self { address, relocated: Vec::new() });
                }
                at += BLOCK;
            }
        }
        None
    }

    fn find_in_relocations<S: Source + ?Sized>(of: &Program<'_, S>, names: u64) -> Option<Self> {
        let mut candidates: Vec<Self> = Vec::new();
        each_relative(of, |at, value| {
            if value == of.address && candidates.len() < MAX_CANDIDATES {
                candidates.push(Self { address: at, relocated: Vec::new() });
            }
        });
        if candidates.is_empty() {
            return None;
        }
        // Relocations are in no order: what is in each is known after one more walk.
        each_relative(of, |at, value| {
            for Self { address, relocated } in &mut candidates {
                if at.checked_sub(*address).is_some_and(|within| within < MODULE_DATA) && relocated.len() < 128 {
                    relocated.push((at, value));
                }
            }
        });
        candidates.into_iter().find(|found| found.relocated.contains(&(found.address.wrapping_add(8), names)))
    }

    fn word<S: Source + ?Sized>(&self, of: &Program<'_, S>, offset: u64) -> Option<u64> {
        let address = self.address.wrapping_add(offset);
        if let Some((_, value)) = self.relocated.iter().find(|(at, _)| *at == address) {
            return Some(*value);
        }
        let word = of.read(of.headers.file_offset(ElfVaddr(address))?.0, 8);
        word.first_chunk().copied().map(u64::from_le_bytes)
    }

    fn text<S: Source + ?Sized>(&self, of: &Program<'_, S>) -> Option<u64> {
        self.word(of, TEXT).filter(|text| *text != 0)
    }

    fn trees<S: Source + ?Sized>(&self, of: &Program<'_, S>) -> Option<u64> {
        // Behind text it goes by pairs: noptrdata, data, bss, noptrbss, (1.20: covctrs,) then end, gcdata, gcbss, types,
        // etypes, rodata.
        let pairs = match of.header.layout {
            Layout::Go12 | Layout::Go116 => return None,
            Layout::Go118 => 5,
            Layout::Go120 => 6,
        };
        self.word(of, TEXT + pairs * 16 + 6 * 8).filter(|trees| *trees != 0)
    }
}

/// Gives (place, value) of each relocation that adds the load address: R_X86_64_RELATIVE, R_AARCH64_RELATIVE.
fn each_relative<S: Source + ?Sized>(of: &Program<'_, S>, mut f: impl FnMut(u64, u64)) {
    for section in of.headers.sections().iter().filter(|s| s.kind == SHT_RELA).take(8) {
        let size = section.size.min(of.source.size().saturating_sub(section.offset.0));
        let mut at = 0;
        while at < size {
            let len = of.left.take((size - at).min(RELOCATION * 8192));
            if len == 0 {
                return;
            }
            for relocation in of.read(section.offset.0.saturating_add(at), len).chunks_exact(RELOCATION as usize) {
                if matches!(u64_in(relocation, 8), 8 | 1027) {
                    f(u64_in(relocation, 0), u64_in(relocation, 16));
                }
            }
            at += len;
        }
    }
}

impl Program<'_, Bytes> {
    /// The table, read from its file; at most `slots` pieces of 16 KiB of it are kept.
    #[must_use]
    pub fn paged(&self, slots: usize) -> Paged {
        Paged::new(self.source.clone(), self.offset.0, self.len, slots)
    }
}
