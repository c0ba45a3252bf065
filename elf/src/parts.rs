//! An ELF file in memory, or those pieces of it that matter.
//!
//! What unwinding needs: segments, sections by name, bytes by virtual address. Nothing is copied but the headers.

use std::borrow::Cow;
use std::ops::Deref;

use profiler_address::ElfVaddr;

use crate::headers::{Headers, SHT_NOBITS, Section, Source};
use crate::{Cursor, Error, Pieces, ReadError, decompress};

/// An ELF file, as far as it is in memory: what was not read is not there.
#[derive(Clone, Debug)]
pub struct ElfParts<'a> {
    headers: Cow<'a, Headers>,
    bytes: Content<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Content<'a> {
    Whole(&'a [u8]),
    Pieces(&'a Pieces),
}

impl<'a> Content<'a> {
    /// What there is of `length` bytes at `offset`.
    fn up_to(self, offset: u64, length: u64) -> Option<&'a [u8]> {
        let rest = match self {
            Self::Whole(bytes) => bytes.get(usize::try_from(offset).ok()?..)?,
            Self::Pieces(pieces) => pieces.from(offset)?,
        };
        Some(usize::try_from(length).ok().and_then(|length| rest.get(..length)).unwrap_or(rest))
    }
}

/// What is not there reads as the end of the file.
impl Source for ElfParts<'_> {
    fn size(&self) -> u64 {
        match self.bytes {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::Pieces(pieces) => pieces.size(),
        }
    }

    fn read_some(&self, at: u64, out: &mut [u8]) -> Result<usize, ReadError> {
        self.file_bytes(at, out.len() as u64).unwrap_or_default().read_some(0, out)
    }
}

impl Deref for ElfParts<'_> {
    type Target = Headers;
    fn deref(&self) -> &Headers {
        &self.headers
    }
}

/// The exception-handling frames of a file.
#[derive(Clone, Copy, Debug)]
pub struct EhFrame<'a> {
    /// The section's bytes; when it was found through `PT_GNU_EH_FRAME`, all bytes from its start to the end of its segment.
    pub bytes: &'a [u8],
    /// Where the first byte is loaded.
    pub address: ElfVaddr,
    /// Is `bytes` exactly the section? If not, it ends at its zero terminator.
    pub exact: bool,
}

impl<'a> ElfParts<'a> {
    /// Reads the headers of the ELF file whose whole content is `bytes`.
    ///
    /// # Errors
    /// When it isn't a 64-bit little-endian ELF file, or its program headers lie outside it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        Ok(Self { headers: Cow::Owned(Headers::read(bytes)?), bytes: Content::Whole(bytes) })
    }

    /// The file with these headers, of which there are these pieces.
    #[must_use]
    pub const fn of_pieces(headers: &'a Headers, pieces: &'a Pieces) -> Self {
        Self { headers: Cow::Borrowed(headers), bytes: Content::Pieces(pieces) }
    }

    /// The `length` bytes at `offset` of the file, or as many as are there; none if the first is not.
    #[must_use]
    pub fn file_bytes(&self, offset: u64, length: u64) -> Option<&'a [u8]> {
        self.bytes.up_to(offset, length)
    }

    /// The file's bytes from `address` to the end of its segment, or as far as they are there.
    #[must_use]
    pub fn bytes_from(&self, address: ElfVaddr) -> Option<&'a [u8]> {
        self.segments().iter().find_map(|segment| {
            let offset = segment.file_offset(address)?;
            self.bytes.up_to(offset.0, segment.file_end() - address.0)
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

    /// The parts of `start..end`, a range of addresses within one segment, whose bytes are there.
    #[must_use]
    pub fn present(&self, (start, end): (u64, u64)) -> Vec<(u64, u64)> {
        let Content::Pieces(pieces) = self.bytes else { return vec![(start, end)] };
        let Some(offset) = self.file_offset(ElfVaddr(start)) else { return Vec::new() };
        let part = |(at, bytes): (u64, &[u8])| {
            let address = |of: u64| start.saturating_add(of.saturating_sub(offset.0));
            let part = (address(at), address(at.saturating_add(bytes.len() as u64)).min(end));
            (part.0 < part.1).then_some(part)
        };
        pieces.iter().filter_map(part).collect()
    }

    /// A section's bytes as the file has them, compressed or not.
    #[must_use]
    pub fn section_bytes(&self, section: &Section) -> Option<&'a [u8]> {
        let bytes = if section.kind == SHT_NOBITS { None } else { self.bytes.up_to(section.offset.0, section.size) };
        bytes.filter(|bytes| bytes.len() as u64 == section.size)
    }

    /// The content of the section `name` (`.debug_frame`), or of its `.zdebug_` form, unpacked when it must be; `None` when there is
    /// none, or it is damaged, or its content would be larger than `limit` bytes.
    #[must_use]
    pub fn section_content(&self, name: &str, limit: u64) -> Option<Cow<'a, [u8]>> {
        if let Some(section) = self.section(name) {
            let bytes = self.section_bytes(section)?;
            if section.is_compressed() {
                return decompress::section(bytes, limit).ok().map(Cow::Owned);
            }
            return (bytes.len() as u64 <= limit).then_some(Cow::Borrowed(bytes));
        }
        let old_name = format!(".z{}", name.strip_prefix('.')?);
        let bytes = self.section_bytes(self.section(&old_name)?)?;
        decompress::gnu(bytes, limit).ok().map(Cow::Owned)
    }

    /// The `.eh_frame` section: by its name, else by the pointer that `PT_GNU_EH_FRAME` starts with.
    #[must_use]
    pub fn eh_frame(&self) -> Option<EhFrame<'a>> {
        if let Some(section) = self.section(".eh_frame") {
            // A damaged size still leaves the frames that are in the file.
            let bytes = self.bytes.up_to(section.offset.0, section.size)?;
            return Some(EhFrame { bytes, address: section.address, exact: true });
        }
        let header = self.eh_frame_header()?;
        let address = eh_frame_of(self.bytes_from(header)?, header)?;
        Some(EhFrame { bytes: self.bytes_from(address)?, address, exact: false })
    }
}

/// Where `.eh_frame` is loaded, as `.eh_frame_hdr` says, which is loaded at `address`.
pub(crate) fn eh_frame_of(header: &[u8], address: ElfVaddr) -> Option<ElfVaddr> {
    let mut cursor = Cursor::new(header);
    let (version, encoding) = (cursor.u8()?, cursor.u8()?);
    cursor.skip(2)?;
    let at = address.0.wrapping_add(4);
    // Linkers write a 4-byte pc-relative pointer; gdb and libgcc accept more, no file has been seen that needs it.
    let frames = match (version, encoding) {
        (1, 0x1b) => at.wrapping_add_signed(i64::from(cursor.u32()?.cast_signed())),
        (1, 0x1c | 0x14) => at.wrapping_add(cursor.u64()?),
        (1, 0x03) => u64::from(cursor.u32()?),
        (1, 0x00 | 0x04) => cursor.u64()?,
        _ => return None,
    };
    Some(ElfVaddr(frames))
}
