//! An ELF file from what a process has mapped of it, where the file itself may not be read.
//!
//! What is loaded has no section headers, no full symbol table and no debug information. There is what the dynamic linker and who
//! throws an exception need: segments, notes, exported functions and their names, unwind tables. These come back at their places in
//! the file, with section headers made for them at its end, so that who reads the result reads a file like any other; all else of it
//! is a hole.
//!
//! All of it is the process's to forge: every size is bounded before memory is taken, and nothing is read but what is mapped of the file.

use profiler_address::{ElfVaddr, FileOffset};

use crate::headers::{
    Headers, MAX_NOTE_AREAS, MAX_NOTES, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_INTERP, PT_NOTE, SHF_ALLOC, SHF_EXECINSTR,
    SHT_DYNSYM, SHT_NOBITS, Segment, Source,
};
use crate::le::{u32_in, u64_in};
use crate::{Error, ReadError};

/// Most bytes taken of one file.
const MAX_BYTES: u64 = 16 << 20;
/// Largest file, with its holes.
const MAX_SIZE: u64 = 1 << 46;
/// Bytes from the entry point on.
const ENTRY_BYTES: u64 = 4096;
/// Entries of the dynamic section that are looked at.
const MAX_DYNAMIC: u64 = 512;
/// Segments of code that are looked at.
const MAX_CODE: usize = 64;
/// Bytes read at once.
const CHUNK: u64 = 256 << 10;
/// Bytes of a hash table's chains read at once.
const CHAIN: u64 = 4096;
/// Bytes of a symbol.
const SYMBOL: u64 = 24;

const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_GNU_HASH: u64 = 0x6fff_fef5;

const SHN_ABS: u16 = 0xfff1;

const SHT_PROGBITS: u32 = 1;
const SHT_STRTAB: u32 = 3;
const SHT_HASH: u32 = 5;
const SHT_GNU_HASH: u32 = 0x6fff_fff6;

/// What came back of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Bytes by their offset, in its order; they do not overlap.
    pub pieces: Vec<(u64, Vec<u8>)>,
    /// Bytes in all, holes with them.
    pub size: u64,
}

impl Restored {
    /// Bytes that are no holes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

/// Restores the file of which `mapped` has, by offset in the file, what is mapped; the byte at offset 0 at `start` in the process.
///
/// # Errors
/// It is no 64-bit little-endian ELF file, some of it cannot be read, or is larger than is taken (16 MiB).
pub fn restore(mapped: &(impl Source + ?Sized), start: u64) -> Result<Restored, Error> {
    let headers = Headers::read(mapped)?;
    let first = headers.segments().iter().find(|segment| segment.to_vaddr(FileOffset(0)).is_some());
    let first = first.and_then(|segment| segment.to_vaddr(FileOffset(0)));
    let bias = start.wrapping_sub(first.ok_or(Error::Malformed("program headers: none maps the start of the file"))?.0);
    let mut file = File { mapped, headers: &headers, bias, pieces: Vec::new(), left: MAX_BYTES, sections: Vec::new() };
    file.add_headers()?;
    file.add_frames()?;
    file.add_symbols()?;
    file.add_code();
    file.finish()
}

/// A section header to be.
#[derive(Debug)]
struct Made {
    name: &'static str,
    kind: u32,
    offset: u64,
    size: u64,
    address: u64,
    link: u32,
    entry: u64,
    flags: u64,
}

struct File<'a, S: ?Sized> {
    mapped: &'a S,
    headers: &'a Headers,
    bias: u64,
    pieces: Vec<(u64, Vec<u8>)>,
    /// Bytes that may still be taken.
    left: u64,
    sections: Vec<Made>,
}

impl<S: Source + ?Sized> File<'_, S> {
    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let failed = Error::read("what is mapped of the file");
        let bytes = match self.mapped.read_up_to(offset, length) {
            Ok(bytes) => bytes,
            Err(error) => return Err(failed(error)),
        };
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        Err(failed(ReadError::OutOfBounds { at: offset, wanted: length, len: self.mapped.size() }))
    }

    /// Takes `length` bytes at `offset`.
    fn add(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        let too_large = Error::TooLarge { what: "mapped ELF file", found: MAX_BYTES + 1, limit: MAX_BYTES };
        self.left = self.left.checked_sub(length).ok_or(too_large)?;
        let bytes = self.read(offset, length)?;
        self.pieces.push((offset, bytes));
        Ok(())
    }

    /// Takes what of a segment is mapped, if it is.
    fn add_segment(&mut self, segment: &Segment, limit: u64) -> Result<(), Error> {
        self.add(segment.offset.0, segment.file_size.min(limit))
    }

    fn add_headers(&mut self) -> Result<(), Error> {
        let start = self.read(0, 64)?;
        let header: &[u8; 64] = start.first_chunk().ok_or(Error::Malformed("ELF header"))?;
        let programs = u64_in(header, 32);
        let size = 56 * self.headers.program_count() as u64;
        self.add(0, 64)?;
        self.add(programs, size)?;
        let headers = self.headers;
        let small = headers.programs_of(PT_NOTE).take(MAX_NOTE_AREAS).chain(headers.programs_of(PT_INTERP).take(1));
        for segment in small {
            // What is not loaded is not mapped.
            let _ = self.add_segment(segment, MAX_NOTES);
        }
        // What starts a program is recognised by its instructions.
        let entry = headers.entry();
        if entry.0 != 0
            && let Some(segment) = headers.segments().iter().find(|segment| segment.file_offset(entry).is_some())
        {
            let left = segment.file_end().saturating_sub(entry.0);
            self.add(segment.offset.0 + (entry.0 - segment.vaddr.0), ENTRY_BYTES.min(left))?;
        }
        Ok(())
    }

    /// `.eh_frame_hdr`, and `.eh_frame` up to its terminator.
    fn add_frames(&mut self) -> Result<(), Error> {
        let Some(header) = self.headers.programs_of(PT_GNU_EH_FRAME).next().copied() else { return Ok(()) };
        self.add_segment(&header, MAX_BYTES)?;
        self.make(".eh_frame_hdr", SHT_PROGBITS, header.offset.0, header.file_size, header.vaddr.0);
        let (_, pointer) = self.pieces.last().ok_or(Error::Malformed(".eh_frame_hdr"))?;
        let start = crate::parts::eh_frame_of(pointer, header.vaddr).ok_or(Error::Malformed(".eh_frame_hdr"))?;
        let segment = self.headers.segments().iter().find(|segment| segment.file_offset(start).is_some());
        let (offset, end) = segment
            .and_then(|s| Some((s.file_offset(start)?.0, s.offset.0.saturating_add(s.file_size))))
            .ok_or(Error::Malformed(".eh_frame_hdr: it leads out of the file"))?;
        let frames = self.frames(offset, end)?;
        let size = frames.len() as u64;
        self.left -= size.min(self.left);
        self.pieces.push((offset, frames));
        self.make(".eh_frame", SHT_PROGBITS, offset, size, start.0);
        Ok(())
    }

    /// The records from `offset` on, to the one that ends them or to `end`.
    fn frames(&self, offset: u64, end: u64) -> Result<Vec<u8>, Error> {
        let (mut bytes, mut at) = (Vec::new(), 0_u64);
        let limit = end.saturating_sub(offset).min(self.left);
        loop {
            // The next record's length, and the longer form of it.
            while (bytes.len() as u64) < at.saturating_add(12).min(limit) {
                let from = bytes.len() as u64;
                bytes.extend(self.read(offset + from, CHUNK.min(limit - from))?);
            }
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            let length = match rest.first_chunk::<4>().map(|length| u32::from_le_bytes(*length)) {
                Some(0) => 4,
                Some(u32::MAX) if rest.len() >= 12 => u64_in(rest, 4).saturating_add(12),
                Some(length) if length != u32::MAX => u64::from(length) + 4,
                _ => 0,
            };
            let next = at.saturating_add(length);
            if length <= 4 || next > limit {
                // A record that is cut short is no record.
                let used = if length == 4 { next } else { at };
                bytes.truncate(usize::try_from(used).unwrap_or(0));
                return Ok(bytes);
            }
            while (bytes.len() as u64) < next {
                let from = bytes.len() as u64;
                bytes.extend(self.read(offset + from, CHUNK.min(limit - from))?);
            }
            at = next;
        }
    }

    /// Exported functions with their names, and the table by which they are looked up.
    fn add_symbols(&mut self) -> Result<(), Error> {
        let Some(dynamic) = self.headers.programs_of(PT_DYNAMIC).next().copied() else { return Ok(()) };
        let entries = self.read(dynamic.offset.0, (dynamic.file_size / 16).min(MAX_DYNAMIC) * 16)?;
        let value = |tag: u64| {
            let mut entries = entries.chunks_exact(16).take_while(|entry| u64_in(entry, 0) != 0);
            entries.find(|entry| u64_in(entry, 0) == tag).map(|entry| u64_in(entry, 8))
        };
        let place = |tag: u64| self.place(value(tag)?);
        let (Some(symbols), Some(names), Some(names_size)) = (place(DT_SYMTAB), place(DT_STRTAB), value(DT_STRSZ))
        else {
            return Ok(());
        };
        let (gnu, hash) = (place(DT_GNU_HASH), place(DT_HASH));
        let table = match (gnu, hash) {
            (Some(gnu), _) => Some((gnu, ".gnu.hash", SHT_GNU_HASH, self.gnu_hash(gnu.0)?)),
            (None, Some(hash)) => Some((hash, ".hash", SHT_HASH, self.hash(hash.0)?)),
            // Linkers put the names behind the symbols.
            (None, None) => None,
        };
        let counted = table.as_ref().map(|(.., (count, _))| *count);
        let count = counted.unwrap_or_else(|| names.0.saturating_sub(symbols.0) / SYMBOL);
        let size = count.saturating_mul(SYMBOL);
        self.add(names.0, names_size)?;
        self.add(symbols.0, size)?;
        if let Some((_, symbols)) = self.pieces.last_mut() {
            // The sections that they name are gone; their addresses tell enough.
            for section in symbols.chunks_exact_mut(SYMBOL as usize).filter_map(|symbol| symbol.get_mut(6..8)) {
                if *section != [0, 0] {
                    section.copy_from_slice(&SHN_ABS.to_le_bytes());
                }
            }
        }
        self.make(".dynstr", SHT_STRTAB, names.0, names_size, names.1);
        let link = self.sections.len() as u32;
        self.sections.push(Made {
            name: ".dynsym",
            kind: SHT_DYNSYM,
            offset: symbols.0,
            size,
            address: symbols.1,
            link,
            entry: SYMBOL,
            flags: SHF_ALLOC,
        });
        let link = link + 1;
        if let Some(((offset, address), name, kind, (_, size))) = table {
            self.add(offset, size)?;
            self.sections.push(Made { name, kind, offset, size, address, link, entry: 0, flags: SHF_ALLOC });
        }
        Ok(())
    }

    /// Says where code is, without its bytes, as separate debug files do.
    fn add_code(&mut self) {
        for segment in self.headers.segments().iter().filter(|segment| segment.executable()).take(MAX_CODE) {
            let Segment { vaddr, offset, file_size, .. } = *segment;
            self.make(".text", SHT_NOBITS, offset.0, file_size, vaddr.0);
            if let Some(made) = self.sections.last_mut() {
                made.flags |= SHF_EXECINSTR;
            }
        }
    }

    /// Where in the file, and at which ELF address, what a dynamic entry points to is: dynamic linkers replace ELF addresses by addresses.
    fn place(&self, pointer: u64) -> Option<(u64, u64)> {
        let at = |address: u64| Some((self.headers.file_offset(ElfVaddr(address))?.0, address));
        at(pointer).or_else(|| at(pointer.wrapping_sub(self.bias)))
    }

    /// How many symbols a `DT_GNU_HASH` table covers, and its bytes.
    fn gnu_hash(&self, at: u64) -> Result<(u64, u64), Error> {
        let head = self.read(at, 16)?;
        let [buckets, first, bloom] = [0, 4, 8].map(|field| u64::from(u32_in(&head, field)));
        let chains = 16 + bloom * 8 + buckets * 4;
        let too_large = |found| Error::TooLarge { what: "hash table", found, limit: MAX_BYTES };
        if chains > self.left {
            return Err(too_large(chains));
        }
        let table = self.read(at + 16 + bloom * 8, buckets * 4)?;
        let last = table.chunks_exact(4).map(|bucket| u64::from(u32_in(bucket, 0))).max().unwrap_or(0);
        if last < first {
            // No symbol is exported; those that are imported are nobody's functions.
            return Ok((first, chains));
        }
        let mut chain = last - first;
        loop {
            let size = chains.saturating_add(chain.saturating_add(1).saturating_mul(4));
            if size > self.left {
                return Err(too_large(size));
            }
            let links = self.mapped.read_up_to(at + chains + chain * 4, CHAIN).map_err(Error::read("a hash table"))?;
            let links = links.chunks_exact(4);
            let count = links.len() as u64;
            match links.map(|link| u32_in(link, 0)).position(|link| link & 1 == 1) {
                Some(end) => {
                    chain += end as u64 + 1;
                    return Ok((first + chain, chains + chain * 4));
                }
                None if count == 0 => return Err(Error::Malformed("hash table: a chain has no end")),
                None => chain += count,
            }
        }
    }

    /// The same of a `DT_HASH` table.
    fn hash(&self, at: u64) -> Result<(u64, u64), Error> {
        let head = self.read(at, 8)?;
        let [buckets, chains] = [0, 4].map(|field| u64::from(u32_in(&head, field)));
        Ok((chains, 8 + (buckets + chains) * 4))
    }

    fn make(&mut self, name: &'static str, kind: u32, offset: u64, size: u64, address: u64) {
        self.sections.push(Made { name, kind, offset, size, address, link: 0, entry: 0, flags: SHF_ALLOC });
    }

    /// Puts the section headers behind all segments, and says in the ELF header that they are there.
    fn finish(mut self) -> Result<Restored, Error> {
        let ends = self.headers.segments().iter().map(|segment| segment.offset.0.saturating_add(segment.file_size));
        let end = self.pieces.iter().map(|(at, bytes)| at + bytes.len() as u64).chain(ends).max().unwrap_or(0);
        let end = end.checked_next_multiple_of(8).filter(|end| *end <= MAX_SIZE);
        let end = end.ok_or(Error::Malformed("program headers: they name more than a file can have"))?;
        let mut names = vec![0];
        let mut table = vec![0; 64];
        for section in &self.sections {
            header(&mut table, names.len() as u32, section);
            names.extend(section.name.bytes().chain([0]));
        }
        let own =
            Made { name: ".shstrtab", kind: SHT_STRTAB, offset: end, size: 0, address: 0, link: 0, entry: 0, flags: 0 };
        let at = names.len() as u32;
        names.extend(own.name.bytes().chain([0]));
        header(&mut table, at, &Made { size: names.len() as u64, ..own });
        names.resize(names.len().next_multiple_of(8), 0);
        let (table_at, count) = (end + names.len() as u64, (table.len() / 64) as u16);
        let first = self.pieces.iter_mut().find(|(at, bytes)| *at == 0 && bytes.len() == 64);
        let (_, first) = first.ok_or(Error::Malformed("ELF header"))?;
        for (at, bytes) in [
            (40, &table_at.to_le_bytes()[..]),
            (58, &64_u16.to_le_bytes()),
            (60, &count.to_le_bytes()),
            (62, &(count - 1).to_le_bytes()),
        ] {
            if let Some(field) = first.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        }
        let (names_at, size) = (end, table_at + table.len() as u64);
        self.pieces.push((names_at, names));
        self.pieces.push((table_at, table));
        Ok(Restored { pieces: apart(self.pieces), size })
    }
}

/// Pieces in their order; what two of them have is that one's which begins first, and of two that begin together the older one's.
fn apart(mut pieces: Vec<(u64, Vec<u8>)>) -> Vec<(u64, Vec<u8>)> {
    // Stable: the ELF header came first.
    pieces.sort_by_key(|(at, _)| *at);
    let mut end = 0;
    pieces.retain_mut(|(at, bytes)| {
        let double = usize::try_from(end.max(*at) - *at).unwrap_or(usize::MAX).min(bytes.len());
        bytes.drain(..double);
        *at += double as u64;
        end = end.max(*at + bytes.len() as u64);
        !bytes.is_empty()
    });
    pieces
}

fn header(table: &mut Vec<u8>, name: u32, section: &Made) {
    table.extend(name.to_le_bytes());
    table.extend(section.kind.to_le_bytes());
    for word in [section.flags, section.address, section.offset, section.size] {
        table.extend(word.to_le_bytes());
    }
    table.extend(section.link.to_le_bytes());
    table.extend(0_u32.to_le_bytes());
    table.extend(8_u64.to_le_bytes());
    table.extend(section.entry.to_le_bytes());
}
