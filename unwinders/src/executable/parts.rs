//! The pieces of a file that unwind rows are made from.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use profiler_address::ElfVaddr;
use profiler_elf::{Bytes, Elf, ElfParts, Headers, Pieces, ReadError, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, Section};

use super::{Content, Executable, OpenError};
use crate::rows;

/// Most bytes read of one file.
const MAX_READ_BYTES: u64 = 512 << 20;
/// Allocated sections of at most this size are read, whatever they are.
const SMALL_SECTION: u64 = 4 << 20;
/// Code of a static program is read up to this size: what has no unwind information there is recognised by its instructions.
const STATIC_CODE: u64 = 32 << 20;
/// Bytes read around the entry point.
const ENTRY_BYTES: u64 = 4096;

/// Sections that are read whatever their size.
const UNWINDING: [&str; 8] = [
    ".eh_frame",
    ".eh_frame_hdr",
    ".debug_frame",
    ".zdebug_frame",
    ".gopclntab",
    ".data.rel.ro.gopclntab",
    ".go.buildinfo",
    ".note.go.buildid",
];

/// An executable's headers, and the parts of it that were read.
#[derive(Debug)]
pub struct PartBytes {
    elf: Elf,
    pieces: Pieces,
}

impl PartBytes {
    /// What there is, to make rows from.
    #[must_use]
    pub fn parts(&self) -> ElfParts<'_> {
        ElfParts::of_pieces(&self.elf, &self.pieces)
    }

    /// The parts that were read.
    #[must_use]
    pub const fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    fn read(bytes: Bytes) -> Result<Self, profiler_elf::Error> {
        let mut pieces = Pieces::of(bytes.len());
        let elf = Elf::parse(bytes)?;
        let read = profiler_elf::Error::read("its unwind information");
        match add(&elf, &mut pieces) {
            Ok(()) => Ok(Self { elf, pieces }),
            Err(error) => Err(read(error)),
        }
    }
}

/// Reads what rows are made from.
fn add(elf: &Elf, pieces: &mut Pieces) -> Result<(), ReadError> {
    pieces.add(&elf.bytes, wanted(elf), MAX_READ_BYTES)?;
    // What no function covers of a program whose code was too large to be read: its instructions tell how it is unwound.
    let code = SHF_ALLOC | SHF_EXECINSTR;
    let left_out = |s: &Section| s.flags & code == code && s.kind != SHT_NOBITS;
    let large = elf.sections().iter().any(|section| left_out(section) && section.size > SMALL_SECTION);
    if !large || elf.entry().0 == 0 || elf.is_go() {
        return Ok(());
    }
    let range = |(start, end): (u64, u64)| {
        let offset = elf.segments().iter().find(|s| s.contains(ElfVaddr(start)))?.file_offset(ElfVaddr(start))?;
        Some(offset.0..offset.0.saturating_add(end - start))
    };
    let gaps = rows::uncovered(&ElfParts::of_pieces(elf, pieces)).into_iter().filter_map(range).collect();
    pieces.add(&elf.bytes, gaps, MAX_READ_BYTES)
}

fn wanted(elf: &Headers) -> Vec<Range<u64>> {
    let is_static = elf.interpreter().is_none() && elf.entry().0 != 0 && !elf.is_go();
    let may_be_musl = is_static || elf.interpreter().is_some_and(|path| path.windows(4).any(|part| part == b"musl"));
    let mut ranges = Vec::new();
    for section in elf.sections() {
        let limit = if is_static && section.is_code() { STATIC_CODE } else { SMALL_SECTION };
        let small = section.flags & SHF_ALLOC != 0 && section.size <= limit;
        let wanted = small || UNWINDING.contains(&&*section.name) || may_be_musl && symbols(section);
        if section.kind != SHT_NOBITS && wanted {
            ranges.push(section.offset.0..section.offset.0.saturating_add(section.size));
        }
    }
    if elf.sections().iter().all(|section| section.flags & SHF_ALLOC == 0) {
        // Stripped of its section headers: anything may be what is needed.
        let segments = elf.segments().iter();
        ranges.extend(segments.map(|s| s.offset.0..s.offset.0.saturating_add(s.file_size)));
    }
    let entry = elf.segments().iter().find(|segment| segment.contains(elf.entry()));
    if let Some(offset) = entry.and_then(|segment| segment.file_offset(elf.entry())) {
        ranges.push(offset.0..offset.0.saturating_add(ENTRY_BYTES));
    }
    ranges
}

/// Function symbols, and the names of symbols: musl says where its functions start by nothing else.
fn symbols(section: &Section) -> bool {
    &*section.name == ".symtab" && section.size <= rows::MAX_SYMBOLS_BYTES
        || &*section.name == ".strtab" && section.size <= rows::MAX_NAMES_BYTES
}

/// The bytes of an executable that its unwind rows are made from.
///
/// There are: every allocated section of at most 4 MiB, all unwind information (`.eh_frame`, `.debug_frame`, `.gopclntab`), 4 KiB
/// from the entry point, the code of static programs up to 32 MiB, that of other programs where no function covers it, and the
/// symbols of programs that may contain musl. Larger code and data, other symbols and debug information are not there.
///
/// # Errors
/// If the file was closed to make room ([`Executables::parts`](super::Executables::parts) opens it again), is no ELF file or can't be
/// read.
pub fn read_parts(executable: &Executable) -> Result<PartBytes, OpenError> {
    let failed = |source| OpenError::Read { path: executable.path_text().into_owned(), source };
    let bytes = match &executable.content {
        Content::Bytes(bytes) => Bytes::Memory(Arc::clone(bytes)),
        Content::File(_) => {
            let closed = || failed(io::Error::other("the file was closed to make room for others"));
            let file: Arc<File> = executable.file().ok_or_else(closed)?;
            Bytes::File { file, len: executable.size }
        }
        Content::Elsewhere => return Err(failed(io::Error::other("another process has the file"))),
    };
    PartBytes::read(bytes).map_err(|error| failed(io::Error::other(error)))
}
