//! Sections by name, where the file has section headers, and `.eh_frame`, which is found without them too.

use std::borrow::Cow;

use profiler_address::{ElfVaddr, FileOffset};

use super::{Cursor, ElfImage, PT_GNU_EH_FRAME, decompress, slice, slice_lossy};

const SHT_NOBITS: u32 = 8;
const SHF_COMPRESSED: u64 = 0x800;

/// One section header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name, without the terminating zero.
    pub name: &'a [u8],
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
}

impl<'a> Section<'a> {
    pub(super) fn read_all(file: &'a [u8], offset: u64, count: usize, names: usize) -> Vec<Self> {
        let Some(table) = slice_lossy(file, offset, count as u64 * 64) else { return Vec::new() };
        let headers: Vec<(usize, Self)> = table.chunks_exact(64).filter_map(Self::read).collect();
        let strings = headers.get(names).and_then(|(_, s)| slice_lossy(file, s.offset.0, s.size)).unwrap_or_default();
        let name = |at: usize| strings.get(at..).and_then(|rest| Cursor::new(rest).c_string(256)).unwrap_or_default();
        headers.into_iter().map(|(at, section)| Self { name: name(at), ..section }).collect()
    }

    fn read(bytes: &[u8]) -> Option<(usize, Self)> {
        let mut header = Cursor::new(bytes);
        let (name, kind) = (header.u32()?, header.u32()?);
        let (flags, address, offset, size) = (header.u64()?, header.u64()?, header.u64()?, header.u64()?);
        let section = Self { name: b"", kind, flags, address: ElfVaddr(address), offset: FileOffset(offset), size };
        Some((usize::try_from(name).ok()?, section))
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

impl<'a> ElfImage<'a> {
    /// All section headers; empty where the file has none.
    #[must_use]
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The first section of this name that has bytes in the file.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name.as_bytes() && s.kind != SHT_NOBITS)
    }

    /// A section's bytes as the file has them, compressed or not.
    #[must_use]
    pub fn section_bytes(&self, section: &Section<'_>) -> Option<&'a [u8]> {
        if section.kind == SHT_NOBITS { None } else { slice(self.bytes, section.offset.0, section.size) }
    }

    /// The content of the section `name` (`.debug_frame`), or of its `.zdebug_` form, decompressed when it must be; `None` when there is
    /// none, or it is damaged, or its content would be larger than `limit` bytes.
    #[must_use]
    pub fn section_content(&self, name: &str, limit: usize) -> Option<Cow<'a, [u8]>> {
        if let Some(section) = self.section(name) {
            let bytes = self.section_bytes(section)?;
            if section.flags & SHF_COMPRESSED != 0 {
                return decompress::section(bytes, limit).map(Cow::Owned);
            }
            return (bytes.len() <= limit).then_some(Cow::Borrowed(bytes));
        }
        let old_name = format!(".z{}", name.strip_prefix('.')?);
        let bytes = self.section_bytes(self.section(&old_name)?)?;
        decompress::gnu(bytes, limit).map(Cow::Owned)
    }

    /// The `.eh_frame` section: by its name, else by the pointer that `PT_GNU_EH_FRAME` starts with.
    #[must_use]
    pub fn eh_frame(&self) -> Option<EhFrame<'a>> {
        if let Some(section) = self.section(".eh_frame") {
            // A damaged size still leaves the frames that are in the file.
            let bytes = slice_lossy(self.bytes, section.offset.0, section.size)?;
            return Some(EhFrame { bytes, address: section.address, exact: true });
        }
        let header = self.headers.iter().find(|h| h.kind == PT_GNU_EH_FRAME)?;
        let bytes = self.bytes_from(header.segment.vaddr)?;
        let mut cursor = Cursor::new(bytes);
        let (version, encoding) = (cursor.u8()?, cursor.u8()?);
        cursor.skip(2)?;
        let at = header.segment.vaddr.0.wrapping_add(4);
        // Linkers write a 4-byte pc-relative pointer; gdb and libgcc accept more, no file has been seen that needs it.
        let address = match (version, encoding) {
            (1, 0x1b) => at.wrapping_add_signed(i64::from(cursor.u32()?.cast_signed())),
            (1, 0x1c | 0x14) => at.wrapping_add(cursor.u64()?),
            (1, 0x03) => u64::from(cursor.u32()?),
            (1, 0x00 | 0x04) => cursor.u64()?,
            _ => return None,
        };
        let address = ElfVaddr(address);
        Some(EhFrame { bytes: self.bytes_from(address)?, address, exact: false })
    }
}
