//! The bytes of a file, at their places, as far as they are needed.
//!
//! ```text
//! file      │ headers │ .dynsym .. │ .rodata (20 MB) │ .text (60 MB) │ .eh_frame │ .debug_* │ section headers │
//! image     │ read    │ read       │ 0000000000000000│ 00000000000000│ read      │ 00000000 │ read            │
//! ```
//!
//! An image is anonymous memory of the file's size, so that offsets hold, of which only the pieces that were read take memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;

use memmap2::{MmapMut, MmapOptions};

use profiler_address::ElfVaddr;

use super::{Content, Executable, OpenError};
use crate::elf::{ElfImage, Section};
use crate::rows;

/// The largest file that is looked into.
pub const MAX_IMAGE_BYTES: u64 = 1 << 36;
/// Most bytes read of one file.
const MAX_READ_BYTES: u64 = 512 << 20;
/// Most bytes of headers, names and notes.
const MAX_HEADER_BYTES: u64 = 8 << 20;
/// Allocated sections of at most this size are read, whatever they are.
const SMALL_SECTION: u64 = 4 << 20;
/// Code of a static program is read up to this size: what has no unwind information there is recognised by its instructions.
const STATIC_CODE: u64 = 32 << 20;
/// Bytes read around the entry point.
const ENTRY_BYTES: u64 = 4096;

const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const SHT_NOBITS: u32 = 8;
/// Sections that are read whatever their size.
const UNWINDING: [&[u8]; 8] = [
    b".eh_frame",
    b".eh_frame_hdr",
    b".debug_frame",
    b".zdebug_frame",
    b".gopclntab",
    b".data.rel.ro.gopclntab",
    b".go.buildinfo",
    b".note.go.buildid",
];

/// A file's bytes, or those that were read; the others are zero.
#[derive(Debug)]
pub struct ImageBytes {
    bytes: MmapMut,
    read: u64,
}

impl Deref for ImageBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ImageBytes {
    /// An image of `size` zeros.
    fn empty(size: u64) -> io::Result<Self> {
        let length = usize::try_from(size).ok().filter(|_| size <= MAX_IMAGE_BYTES);
        let Some(length) = length else {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{size} bytes are more than are read")));
        };
        // Without a reservation the size of the file costs nothing, however large a hole it claims.
        let bytes = MmapOptions::new().len(length.max(1)).no_reserve_swap().map_anon()?;
        // Huge pages would round small pieces up to 2 MiB each. Where the kernel has none there is nothing to turn off.
        let _ = bytes.advise(memmap2::Advice::NoHugePage);
        Ok(Self { bytes, read: 0 })
    }

    /// Bytes that were read from the file.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Reads `range` of the file to its place, as far as file, image and the bound on all reads go.
    fn fill(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        let end = range.end.min(self.bytes.len() as u64);
        let end = end.min(range.start.saturating_add(MAX_READ_BYTES.saturating_sub(self.read)));
        let (Ok(mut at), Ok(end)) = (usize::try_from(range.start), usize::try_from(end)) else { return Ok(()) };
        while let Some(place) = self.bytes.get_mut(at..end).filter(|place| !place.is_empty()) {
            match file.read_at(place, at as u64) {
                // The file has become shorter: what is missing is zero.
                Ok(0) => break,
                Ok(read) => {
                    at += read;
                    self.read += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The headers of a file of `size` bytes: what [`ElfImage::parse`] looks at, and the notes.
    pub(super) fn headers(file: &File, size: u64) -> io::Result<Self> {
        let mut image = Self::empty(size)?;
        image.fill(file, 0..4096)?;
        for range in image.tables() {
            image.fill(file, range)?;
        }
        if let Some(names) = image.section_names() {
            image.fill(file, names)?;
        }
        let notes: Vec<_> = match ElfImage::parse(&image) {
            Ok(elf) => {
                let named = |s: &&Section<'_>| s.name.starts_with(b".note") && s.kind != SHT_NOBITS;
                elf.sections().iter().filter(named).map(|s| bounded(s.offset.0, s.size)).collect()
            }
            Err(_) => Vec::new(),
        };
        let segments: Vec<_> = image.note_segments();
        for range in notes.into_iter().chain(segments).take(64) {
            image.fill(file, range)?;
        }
        Ok(image)
    }

    fn u16_at(&self, at: usize) -> Option<u64> {
        Some(u64::from(u16::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?)))
    }

    fn u64_at(&self, at: u64) -> Option<u64> {
        Some(u64::from_le_bytes(*self.bytes.get(usize::try_from(at).ok()?..)?.first_chunk()?))
    }

    /// Where the program and section headers are (ELF-64 header, `e_phoff` and following).
    fn tables(&self) -> Vec<Range<u64>> {
        let table = |offset: u64, size: usize, count: usize| {
            let bytes = self.u16_at(size)?.checked_mul(self.u16_at(count)?)?;
            Some(bounded(self.u64_at(offset)?, bytes))
        };
        if self.bytes.get(..5) != Some(b"\x7fELF\x02") {
            return Vec::new();
        }
        [table(0x20, 0x36, 0x38), table(0x28, 0x3a, 0x3c)].into_iter().flatten().collect()
    }

    /// Where the names of the sections are.
    fn section_names(&self) -> Option<Range<u64>> {
        if self.bytes.get(..5) != Some(b"\x7fELF\x02") {
            return None;
        }
        let header = self.u64_at(0x28)?.checked_add(self.u16_at(0x3e)?.checked_mul(64)?)?;
        Some(bounded(self.u64_at(header.checked_add(0x18)?)?, self.u64_at(header.checked_add(0x20)?)?))
    }

    /// `PT_NOTE` and `PT_INTERP`.
    fn note_segments(&self) -> Vec<Range<u64>> {
        let (Some(table), Some(count)) = (self.u64_at(0x20), self.u16_at(0x38)) else { return Vec::new() };
        let headers = (0..count).filter_map(|index| {
            let header = table.checked_add(index * 56)?;
            let kind = self.u64_at(header)? & 0xffff_ffff;
            let range = bounded(self.u64_at(header.checked_add(8)?)?, self.u64_at(header.checked_add(0x20)?)?);
            matches!(kind, 3 | 4).then_some(range)
        });
        if self.bytes.get(..5) == Some(b"\x7fELF\x02") { headers.take(64).collect() } else { Vec::new() }
    }

    /// Adds what rows are made from.
    fn fill_for_unwinding(&mut self, file: &File) -> io::Result<()> {
        let size = self.bytes.len() as u64;
        let Ok(elf) = ElfImage::parse(&self.bytes) else { return self.fill(file, 0..size) };
        let is_static = elf.interpreter().is_none() && elf.entry().0 != 0 && !elf.is_go();
        let may_be_musl =
            is_static || elf.interpreter().is_some_and(|path| path.windows(4).any(|part| part == b"musl"));
        let mut ranges = Vec::new();
        for section in elf.sections() {
            let code = section.flags & SHF_EXECINSTR != 0;
            let limit = if is_static && code { STATIC_CODE } else { SMALL_SECTION };
            let small = section.flags & SHF_ALLOC != 0 && section.size <= limit;
            let wanted = small || UNWINDING.contains(&section.name) || may_be_musl && symbols(section);
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
        if let Some(segment) = entry {
            let offset = segment.offset.0.wrapping_add(elf.entry().0.wrapping_sub(segment.vaddr.0));
            ranges.push(offset..offset.saturating_add(ENTRY_BYTES));
        }
        // Sections of a hostile file may overlap a thousand times: each byte is read once.
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        let mut done = 0;
        for range in ranges {
            self.fill(file, range.start.max(done)..range.end)?;
            done = done.max(range.end);
        }
        self.fill_gaps(file)
    }

    /// Adds what no function covers of a program whose code was too large to be read; its instructions tell how it is unwound.
    fn fill_gaps(&mut self, file: &File) -> io::Result<()> {
        let Ok(elf) = ElfImage::parse(&self.bytes) else { return Ok(()) };
        let left_out = |s: &Section<'_>| s.flags & (SHF_ALLOC | SHF_EXECINSTR) == SHF_ALLOC | SHF_EXECINSTR;
        let large = elf.sections().iter().any(|section| left_out(section) && section.size > SMALL_SECTION);
        if !large || elf.entry().0 == 0 || elf.is_go() {
            return Ok(());
        }
        let offset = |(start, end): (u64, u64)| {
            let segment = elf.segments().iter().find(|segment| segment.contains(ElfVaddr(start)))?;
            let offset = segment.offset.0.checked_add(start - segment.vaddr.0)?;
            Some(offset..offset.saturating_add(end - start))
        };
        let ranges: Vec<_> = rows::uncovered(&elf).into_iter().filter_map(offset).collect();
        for range in ranges {
            self.fill(file, range)?;
        }
        Ok(())
    }
}

/// Function symbols, and the names of symbols: musl says where its functions start by nothing else.
fn symbols(section: &Section<'_>) -> bool {
    section.name == b".symtab" && section.size <= rows::MAX_SYMBOLS_BYTES
        || section.name == b".strtab" && section.size <= rows::MAX_NAMES_BYTES
}

fn bounded(offset: u64, size: u64) -> Range<u64> {
    offset..offset.saturating_add(size.min(MAX_HEADER_BYTES))
}

/// The bytes of an executable that its unwind rows are made from; all of it for the vDSO.
///
/// There are: headers, notes, every allocated section of at most 4 MiB, all unwind information (`.eh_frame`, `.debug_frame`,
/// `.gopclntab`), 4 KiB from the entry point, the code of static programs up to 32 MiB, that of other programs where no function covers
/// it, and the symbols of programs that may contain musl. Larger code and data, other symbols and debug information read as zero.
///
/// # Errors
/// If the file was closed to make room ([`Executables::image`](super::Executables::image) opens it again), is too large or can't be read.
pub fn read_image(executable: &Executable) -> Result<ImageBytes, OpenError> {
    let failed = |source| OpenError::Read { path: executable.path_text().into_owned(), source };
    if let Content::Bytes(bytes) = &executable.content {
        let mut image = ImageBytes::empty(bytes.len() as u64).map_err(failed)?;
        for (to, from) in image.bytes.iter_mut().zip(bytes.iter()) {
            *to = *from;
        }
        return Ok(image);
    }
    let Some(file) = executable.file() else {
        return Err(failed(io::Error::other("the file was closed to make room for others")));
    };
    let mut image = ImageBytes::headers(&file, executable.size).map_err(failed)?;
    image.fill_for_unwinding(&file).map_err(failed)?;
    Ok(image)
}
