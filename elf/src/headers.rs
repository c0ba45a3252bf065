//! Headers of an ELF file: 64-bit little-endian, checked against the file before memory is taken for them.

use crate::{
    bytes::{Bytes, ReadError},
    le::{u16_in, u32_in, u64_in},
    notes,
};
use profiler_address::{ElfVaddr, FileOffset};

/// `e_machine` of x86-64.
pub const MACHINE_X86_64: u16 = 62;
/// `e_machine` of 64-bit Arm.
pub const MACHINE_AARCH64: u16 = 183;

/// `sh_type` of a full symbol table.
pub const SHT_SYMTAB: u32 = 2;
/// `sh_type` of relocations with addends.
pub const SHT_RELA: u32 = 4;
/// `sh_type` of notes.
pub const SHT_NOTE: u32 = 7;
/// `sh_type` of what has no bytes in the file.
pub const SHT_NOBITS: u32 = 8;
/// `sh_type` of the dynamic linker's symbol table.
pub const SHT_DYNSYM: u32 = 11;
/// `sh_flags`: written at run time.
pub const SHF_WRITE: u64 = 1;
/// `sh_flags`: loaded at run time.
pub const SHF_ALLOC: u64 = 2;
/// `sh_flags`: code.
pub const SHF_EXECINSTR: u64 = 4;
/// `sh_flags`: content is compressed.
pub const SHF_COMPRESSED: u64 = 0x800;

const PT_LOAD: u32 = 1;
pub(crate) const PT_DYNAMIC: u32 = 2;
pub(crate) const PT_INTERP: u32 = 3;
pub(crate) const PT_NOTE: u32 = 4;
pub(crate) const PT_GNU_EH_FRAME: u32 = 0x6474_e550;

/// The kernel maps no more than 64 KiB of program headers: 1,170 of them.
const MAX_PROGRAM_HEADERS: u64 = 1_170;
const MAX_SECTIONS: u64 = 100_000;
/// Bytes of section names read, and of one name.
const MAX_SECTION_NAMES: u64 = 4 << 20;
const MAX_SECTION_NAME: usize = 64;
/// Areas of notes looked at, and bytes of each.
pub(crate) const MAX_NOTE_AREAS: usize = 64;
pub(crate) const MAX_NOTES: u64 = 64 << 10;
/// Longest path of a dynamic linker (`PATH_MAX`).
const MAX_INTERPRETER: u64 = 4096;
const PAGE: u64 = 4096;

/// Why an ELF file, or a part of it, is of no use.
#[derive(Debug, thiserror::Error)]
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
        /// Size of the file, bytes.
        size: u64,
    },
    /// Reading failed.
    #[error("cannot read {what}: {source}")]
    Read {
        /// Which part.
        what: &'static str,
        /// Why.
        source: ReadError,
    },
    /// There is more of it than is taken.
    #[error("{what}: {found} where at most {limit} is taken")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much is taken.
        limit: u64,
    },
    /// It breaks its own format.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

impl Error {
    /// What a failed read becomes.
    pub fn read(what: &'static str) -> impl FnOnce(ReadError) -> Self {
        move |source| Self::Read { what, source }
    }
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

    /// Where in the file the byte at `address` is.
    #[must_use]
    pub fn file_offset(&self, address: ElfVaddr) -> Option<FileOffset> {
        let within = address.0.checked_sub(self.vaddr.0).filter(|within| *within < self.file_size)?;
        self.offset.0.checked_add(within).map(FileOffset)
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

/// Any program header.
#[derive(Clone, Copy, Debug)]
pub struct ProgramHeader {
    /// `p_type`
    pub kind: u32,
    /// The rest of it.
    pub segment: Segment,
}

/// A section header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name; empty where it has none, or one that is not UTF-8.
    pub name: Box<str>,
    /// `sh_type`
    pub kind: u32,
    /// `sh_flags`
    pub flags: u64,
    /// Where it is loaded; 0 when it isn't.
    pub address: ElfVaddr,
    /// Where its bytes are in the file.
    pub offset: FileOffset,
    /// Bytes.
    pub size: u64,
    /// `sh_link`
    pub link: u32,
}

impl Section {
    /// Is it loaded as code?
    #[must_use]
    pub const fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR != 0
    }

    /// Is its content compressed?
    #[must_use]
    pub const fn is_compressed(&self) -> bool {
        self.flags & SHF_COMPRESSED != 0
    }

    /// Does it hold this address?
    #[must_use]
    pub fn contains(&self, address: ElfVaddr) -> bool {
        address.0.checked_sub(self.address.0).is_some_and(|within| within < self.size)
    }

    /// One past its last address.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.address.0.saturating_add(self.size)
    }
}

/// What the headers and notes of a file say.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    kind: u16,
    machine: u16,
    entry: ElfVaddr,
    programs: Vec<ProgramHeader>,
    segments: Vec<Segment>,
    sections: Vec<Section>,
    interpreter: Option<Box<[u8]>>,
    gnu_build_id: Option<Box<[u8]>>,
    go_build_id: Option<Box<[u8]>>,
}

impl Headers {
    /// Reads the headers and notes of a file.
    ///
    /// Program headers must be whole, since nothing works without them. Section headers are a bonus: where they are missing or
    /// damaged there are none.
    ///
    /// # Errors
    /// When it isn't a 64-bit little-endian ELF file, its program headers lie outside it, or it can't be read.
    pub fn read(bytes: &(impl Source + ?Sized)) -> Result<Self, Error> {
        let mut start = [0; 64];
        let got = bytes.read_some(0, &mut start).map_err(Error::read("the ELF header"))?;
        let start = start.get(..got).unwrap_or_default();
        let truncated = |what, offset| Error::Truncated { what, offset, size: bytes.size() };
        let magic = start.get(..4).unwrap_or(start);
        if magic != b"\x7fELF" {
            return Err(Error::NotElf(magic.to_vec()));
        }
        if let [_, _, _, _, class, data, ..] = *start
            && (class != 2 || data != 1)
        {
            return Err(Error::Unsupported { class, data });
        }
        let header: &[u8; 64] = start.first_chunk().ok_or_else(|| truncated("the ELF header", 0))?;
        let (phoff, shoff) = (u64_in(header, 32), u64_in(header, 40));
        let (phentsize, phnum) = (u16_in(header, 54), u64::from(u16_in(header, 56)));
        let mut programs = Vec::new();
        if phnum != 0 && phentsize == 56 {
            let size = phnum.min(MAX_PROGRAM_HEADERS) * 56;
            let table = bytes.read_up_to(phoff, size).map_err(Error::read("the program headers"))?;
            if table.len() as u64 != size {
                return Err(truncated("the program headers", phoff));
            }
            programs.extend(table.chunks_exact(56).map(program_header));
        }
        let segments = programs.iter().filter(|header| header.kind == PT_LOAD).map(|header| header.segment).collect();
        let sections = match u16_in(header, 58) {
            64 => sections(bytes, shoff, u16_in(header, 60), u16_in(header, 62)).unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut headers = Self {
            kind: u16_in(header, 16),
            machine: u16_in(header, 18),
            entry: ElfVaddr(u64_in(header, 24)),
            programs,
            segments,
            sections,
            ..Self::default()
        };
        headers.read_notes(bytes);
        Ok(headers)
    }

    fn read_notes(&mut self, bytes: &(impl Source + ?Sized)) {
        let read = |offset: FileOffset, size: u64| bytes.read_up_to(offset.0, size.min(MAX_NOTES)).unwrap_or_default();
        let sections = self.sections.iter().filter(|section| section.kind == SHT_NOTE);
        let mut areas: Vec<_> = sections.map(|section| (section.offset, section.size)).take(MAX_NOTE_AREAS).collect();
        // Of a separate debug file the sections are the ones that are right; a stripped one has segments only.
        areas.extend(self.programs_of(PT_NOTE).map(|segment| (segment.offset, segment.file_size)).take(MAX_NOTE_AREAS));
        let (mut gnu, mut go) = (None, None);
        for (offset, size) in areas {
            if gnu.is_some() && go.is_some() {
                break;
            }
            let area = read(offset, size);
            gnu = gnu.or_else(|| notes::gnu_build_id(&area));
            go = go.or_else(|| notes::go_build_id(&area));
        }
        let path = self.programs_of(PT_INTERP).next().copied();
        self.interpreter = path.map(|segment| {
            let path = read(segment.offset, segment.file_size.min(MAX_INTERPRETER));
            path.split(|byte| *byte == 0).next().unwrap_or_default().into()
        });
        (self.gnu_build_id, self.go_build_id) = (gnu, go);
    }

    pub(crate) fn programs_of(&self, kind: u32) -> impl Iterator<Item = &Segment> {
        self.programs.iter().filter(move |header| header.kind == kind).map(|header| &header.segment)
    }

    /// How many program headers there are.
    pub(crate) const fn program_count(&self) -> usize {
        self.programs.len()
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

    /// Where the kernel or its dynamic linker enters the program. Linkers gave libraries the start of their code for an entry point: only
    /// what can be run has one, and that says its interpreter (libc does too), or is no library.
    #[must_use]
    pub fn entry_point(&self) -> Option<ElfVaddr> {
        let is_start_of_code = || self.section(".text").is_none_or(|text| text.address == self.entry);
        let runs = !self.position_independent() || self.interpreter().is_some() || !is_start_of_code();
        (runs && self.entry.0 != 0).then_some(self.entry)
    }

    /// The `PT_LOAD` segments, in the order of the file.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// All section headers; empty where the file has none.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The first section of this name that has bytes in the file.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| &*section.name == name && section.kind != SHT_NOBITS)
    }

    /// Path of the dynamic linker that the program asks for.
    #[must_use]
    pub fn interpreter(&self) -> Option<&[u8]> {
        self.interpreter.as_deref()
    }

    /// The GNU build id (`ld --build-id`).
    #[must_use]
    pub fn gnu_build_id(&self) -> Option<&[u8]> {
        self.gnu_build_id.as_deref()
    }

    /// Go's build id: four hashes divided by slashes.
    #[must_use]
    pub fn go_build_id(&self) -> Option<&[u8]> {
        self.go_build_id.as_deref()
    }

    /// Was it linked by Go's linker? True for stripped programs too.
    #[must_use]
    pub fn is_go(&self) -> bool {
        [".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo"].iter().any(|name| self.section(name).is_some())
            || self.go_build_id.is_some()
    }

    /// Where `.eh_frame_hdr` is loaded, by its segment.
    pub(crate) fn eh_frame_header(&self) -> Option<ElfVaddr> {
        self.programs_of(PT_GNU_EH_FRAME).next().map(|segment| segment.vaddr)
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

    /// Where in the file the byte at `address` is, if a loaded segment has it there.
    #[must_use]
    pub fn file_offset(&self, address: ElfVaddr) -> Option<FileOffset> {
        self.segments.iter().find_map(|segment| segment.file_offset(address))
    }
}

fn program_header(bytes: &[u8]) -> ProgramHeader {
    let segment = Segment {
        vaddr: ElfVaddr(u64_in(bytes, 16)),
        offset: FileOffset(u64_in(bytes, 8)),
        file_size: u64_in(bytes, 32),
        memory_size: u64_in(bytes, 40),
        flags: u32_in(bytes, 4),
    };
    ProgramHeader { kind: u32_in(bytes, 0), segment }
}

fn sections(bytes: &(impl Source + ?Sized), offset: u64, count: u16, names: u16) -> Result<Vec<Section>, ReadError> {
    if offset == 0 {
        return Ok(Vec::new());
    }
    let first = bytes.read_up_to(offset, 64)?;
    // More than 0xff00 sections: the numbers are in the first header.
    let count = if count == 0 { u64_in(&first, 32) } else { count.into() };
    let names = if names == 0xffff { u32_in(&first, 40) } else { names.into() };
    if count > MAX_SECTIONS {
        return Ok(Vec::new());
    }
    let table = bytes.read_up_to(offset, count * 64)?;
    let name_table = table.chunks_exact(64).nth(names as usize).map(|h| (u64_in(h, 24), u64_in(h, 32)));
    let strings = match name_table {
        Some((offset, size)) => bytes.read_up_to(offset, size.min(MAX_SECTION_NAMES))?,
        None => Vec::new(),
    };
    let name_at = |at: u32| {
        let rest = strings.get(at as usize..).unwrap_or_default();
        let rest = rest.get(..MAX_SECTION_NAME).unwrap_or(rest);
        Box::from(std::str::from_utf8(rest.split(|b| *b == 0).next().unwrap_or_default()).unwrap_or_default())
    };
    let sections = table.chunks_exact(64).map(|h| Section {
        name: name_at(u32_in(h, 0)),
        kind: u32_in(h, 4),
        flags: u64_in(h, 8),
        address: ElfVaddr(u64_in(h, 16)),
        offset: FileOffset(u64_in(h, 24)),
        size: u64_in(h, 32),
        link: u32_in(h, 40),
    });
    Ok(sections.collect())
}

/// What headers are read from: a file, or memory.
pub trait Source {
    /// Bytes in all.
    fn size(&self) -> u64;

    /// Fills as much of `out` as there is at `at`; gives how much that is.
    ///
    /// # Errors
    /// If reading fails.
    fn read_some(&self, at: u64, out: &mut [u8]) -> Result<usize, ReadError>;

    /// What there is of `len` bytes at `at`: a truncated file still has its beginning.
    ///
    /// # Errors
    /// If reading fails.
    fn read_up_to(&self, at: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        // Before memory is taken: a header may claim any size.
        let len = len.min(self.size().saturating_sub(at));
        let mut out = vec![0; usize::try_from(len).unwrap_or(0)];
        let got = self.read_some(at, &mut out)?;
        out.truncate(got);
        Ok(out)
    }
}

impl Source for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_some(&self, at: u64, out: &mut [u8]) -> Result<usize, ReadError> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(out.len());
        if let (Some(out), Some(rest)) = (out.get_mut(..len), rest.get(..len)) {
            out.copy_from_slice(rest);
        }
        Ok(len)
    }
}

impl Source for Bytes {
    fn size(&self) -> u64 {
        self.len()
    }

    fn read_some(&self, at: u64, out: &mut [u8]) -> Result<usize, ReadError> {
        self.read_up_to_end(at, out)
    }
}
