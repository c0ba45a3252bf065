//! A bounded view of an ELF file that nobody vouches for.
//!
//! What unwinding and naming need of an executable: its segments, the sections by name where section headers exist, its build
//! ids, and bytes by virtual address. Only 64-bit little-endian files are read; everything is checked against the length of the file,
//! nothing is copied but the headers, and a damaged file gives an [`Error`] or `None`, never a panic.
//!
//! Not here: symbols, DWARF, relocation.

mod cursor;
mod decompress;
mod notes;
mod section;

use profiler_address::{ElfVaddr, FileOffset};

pub(crate) use cursor::Cursor;
pub use section::{EhFrame, Section};

/// `e_machine` of x86-64.
pub const MACHINE_X86_64: u16 = 62;
/// `e_machine` of 64-bit Arm.
pub const MACHINE_AARCH64: u16 = 183;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
/// The kernel maps no more than 64 KiB of program headers: 1,170 of them.
const MAX_PROGRAM_HEADERS: usize = 1_170;
/// `e_shnum` is 16 bits wide; files with more sections (by the escape in section 0) are object files, not executables.
const MAX_SECTIONS: usize = 65_535;
const PAGE: u64 = 4096;

/// Why a file can't be read as an executable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The magic number is missing.
    #[error("not an ELF file: it starts with {0:02x?} where 7f 45 4c 46 was expected")]
    NotElf(Vec<u8>),
    /// An ELF file of another class or byte order.
    #[error("ELF class {class} and data encoding {data} are not supported: only 64-bit little-endian files are read")]
    Unsupported {
        /// `EI_CLASS`
        class: u8,
        /// `EI_DATA`
        data: u8,
    },
    /// A header lies outside the file.
    #[error("ELF file cut short: {what} at offset {offset:#x} lies outside its {size} bytes")]
    Truncated {
        /// Which structure.
        what: &'static str,
        /// Where it should have been.
        offset: u64,
        /// Size of the file in bytes.
        size: usize,
    },
}

/// One `PT_LOAD` segment: what the kernel or the dynamic linker maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First virtual address.
    pub vaddr: ElfVaddr,
    /// Where its bytes are in the file.
    pub offset: FileOffset,
    /// Bytes that come from the file.
    pub file_size: u64,
    /// Bytes in memory; what exceeds `file_size` is zero.
    pub memory_size: u64,
    /// `PF_X` 1, `PF_W` 2, `PF_R` 4.
    pub flags: u32,
}

impl Segment {
    /// May it be executed?
    #[must_use]
    pub const fn executable(&self) -> bool {
        self.flags & 1 != 0
    }

    /// One past the last address that the file has bytes for.
    #[must_use]
    pub const fn file_end(&self) -> u64 {
        self.vaddr.0.saturating_add(self.file_size)
    }

    /// Does the segment, as mapped, hold this address?
    #[must_use]
    pub const fn contains(&self, address: ElfVaddr) -> bool {
        address.0 >= self.vaddr.0 && address.0 - self.vaddr.0 < self.memory_size
    }

    /// The address at which the byte at `offset` of the file is mapped by this segment.
    ///
    /// Mappings are whole pages, so the bytes that share the segment's first and last page are mapped too.
    #[must_use]
    pub const fn to_vaddr(&self, offset: FileOffset) -> Option<ElfVaddr> {
        let first = self.offset.0 & !(PAGE - 1);
        let end = self.offset.0.saturating_add(self.file_size).saturating_add(PAGE - 1) & !(PAGE - 1);
        if offset.0 < first || offset.0 >= end {
            return None;
        }
        Some(ElfVaddr(self.vaddr.0.wrapping_add(offset.0.wrapping_sub(self.offset.0))))
    }
}

#[derive(Clone, Copy, Debug)]
struct ProgramHeader {
    kind: u32,
    segment: Segment,
}

/// An ELF file in memory.
#[derive(Clone, Debug)]
pub struct ElfImage<'a> {
    bytes: &'a [u8],
    kind: u16,
    machine: u16,
    entry: ElfVaddr,
    headers: Vec<ProgramHeader>,
    segments: Vec<Segment>,
    sections: Vec<Section<'a>>,
}

impl<'a> ElfImage<'a> {
    /// Reads the headers of the ELF file whose content is `bytes`.
    ///
    /// Program headers must be whole, since nothing works without them. Section headers are a bonus: where they are missing or
    /// damaged the image has none.
    ///
    /// # Errors
    /// When it isn't a 64-bit little-endian ELF file, or its headers lie outside it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let truncated = |what, offset| Error::Truncated { what, offset, size: bytes.len() };
        let magic = bytes.get(..4).unwrap_or(bytes);
        if magic != b"\x7fELF" {
            return Err(Error::NotElf(magic.to_vec()));
        }
        let mut header = Cursor::new(bytes.get(4..64).ok_or_else(|| truncated("the ELF header", 0))?);
        let mut read = || -> Option<_> {
            let (class, data) = (header.u8()?, header.u8()?);
            header.skip(10)?;
            let (kind, machine) = (header.u16()?, header.u16()?);
            header.skip(4)?;
            let (entry, phoff, shoff) = (header.u64()?, header.u64()?, header.u64()?);
            header.skip(6)?;
            let (phentsize, phnum) = (header.u16()?, header.u16()?);
            let (shentsize, shnum, shstrndx) = (header.u16()?, header.u16()?, header.u16()?);
            Some((class, data, kind, machine, entry, (phoff, phentsize, phnum), (shoff, shentsize, shnum, shstrndx)))
        };
        let (class, data, kind, machine, entry, programs, sections) =
            read().ok_or_else(|| truncated("the ELF header", 0))?;
        if class != 2 || data != 1 {
            return Err(Error::Unsupported { class, data });
        }
        let (phoff, phentsize, phnum) = programs;
        let mut headers = Vec::new();
        if phnum != 0 && phentsize == 56 {
            let count = usize::from(phnum).min(MAX_PROGRAM_HEADERS);
            let table =
                slice(bytes, phoff, count as u64 * 56).ok_or_else(|| truncated("the program headers", phoff))?;
            headers.extend(table.chunks_exact(56).filter_map(ProgramHeader::read));
        }
        let segments = headers.iter().filter(|h| h.kind == PT_LOAD).map(|h| h.segment).collect();
        let (shoff, shentsize, shnum, shstrndx) = sections;
        let sections = match shentsize {
            64 => Section::read_all(bytes, shoff, usize::from(shnum).min(MAX_SECTIONS), usize::from(shstrndx)),
            _ => Vec::new(),
        };
        Ok(Self { bytes, kind, machine, entry: ElfVaddr(entry), headers, segments, sections })
    }

    /// The whole file.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// `e_machine`; see [`MACHINE_X86_64`].
    #[must_use]
    pub const fn machine(&self) -> u16 {
        self.machine
    }

    /// Is it position independent (`ET_DYN`)?
    #[must_use]
    pub const fn position_independent(&self) -> bool {
        self.kind == 3
    }

    /// Where execution starts; 0 where the file has no entry point.
    #[must_use]
    pub const fn entry(&self) -> ElfVaddr {
        self.entry
    }

    /// The `PT_LOAD` segments, in the order of the file.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Path of the dynamic linker that the program asks for.
    #[must_use]
    pub fn interpreter(&self) -> Option<&'a [u8]> {
        let path = self.header_bytes(PT_INTERP).next()?;
        Some(path.split(|&byte| byte == 0).next().unwrap_or(path))
    }

    /// The address at which the byte at `offset` of the file is mapped: by the executable segment where several map its page.
    #[must_use]
    pub fn to_vaddr(&self, offset: FileOffset) -> Option<ElfVaddr> {
        let exact = |s: &&Segment| offset.0 >= s.offset.0 && offset.0 - s.offset.0 < s.file_size;
        let found = self
            .segments
            .iter()
            .filter(exact)
            .find(|s| s.executable())
            .or_else(|| self.segments.iter().find(exact))
            .and_then(|s| s.to_vaddr(offset));
        found.or_else(|| self.segments.iter().find_map(|s| s.to_vaddr(offset)))
    }

    /// The file's bytes from `address` to the end of its segment.
    #[must_use]
    pub fn bytes_from(&self, address: ElfVaddr) -> Option<&'a [u8]> {
        self.segments.iter().find_map(|s| {
            let skip = address.0.checked_sub(s.vaddr.0).filter(|&skip| skip < s.file_size)?;
            slice_lossy(self.bytes, s.offset.0.checked_add(skip)?, s.file_size - skip)
        })
    }

    /// The `length` bytes at `address`.
    #[must_use]
    pub fn bytes_at(&self, address: ElfVaddr, length: usize) -> Option<&'a [u8]> {
        self.bytes_from(address)?.get(..length)
    }

    /// The 64-bit word at `address`, as the file has it (before relocation).
    #[must_use]
    pub fn u64_at(&self, address: ElfVaddr) -> Option<u64> {
        Cursor::new(self.bytes_from(address)?).u64()
    }

    fn header_bytes(&self, kind: u32) -> impl Iterator<Item = &'a [u8]> + '_ {
        let of_kind = self.headers.iter().filter(move |h| h.kind == kind);
        of_kind.filter_map(|h| slice_lossy(self.bytes, h.segment.offset.0, h.segment.file_size))
    }
}

impl ProgramHeader {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut header = Cursor::new(bytes);
        let (kind, flags) = (header.u32()?, header.u32()?);
        let (offset, vaddr, _physical) = (header.u64()?, header.u64()?, header.u64()?);
        let (file_size, memory_size) = (header.u64()?, header.u64()?);
        let segment = Segment { vaddr: ElfVaddr(vaddr), offset: FileOffset(offset), file_size, memory_size, flags };
        Some(Self { kind, segment })
    }
}

/// `length` bytes at `offset`, all of them.
fn slice(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// What there is of `length` bytes at `offset`: a truncated file still has its beginning.
fn slice_lossy(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    Some(rest.get(..usize::try_from(length).ok()?).unwrap_or(rest))
}

#[cfg(test)]
mod tests;
