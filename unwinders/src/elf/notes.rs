//! Build ids, and how to tell a Go program.

use super::{Cursor, ElfImage, PT_NOTE};

const NT_GNU_BUILD_ID: u32 = 3;
const NT_GO_BUILD_ID: u32 = 4;
/// Notes in one segment that are looked at; real files have under ten.
const MAX_NOTES: usize = 256;
/// Longest build id accepted, bytes. GNU ids have 20 (sha1) or 16, Go's 83 characters.
const MAX_BUILD_ID: usize = 256;

impl<'a> ElfImage<'a> {
    /// The GNU build id (`ld --build-id`), by segment or by section.
    #[must_use]
    pub fn gnu_build_id(&self) -> Option<&'a [u8]> {
        self.note(b"GNU\0", NT_GNU_BUILD_ID, ".note.gnu.build-id")
    }

    /// Go's build id: four hashes divided by slashes.
    #[must_use]
    pub fn go_build_id(&self) -> Option<&'a [u8]> {
        self.note(b"Go\0\0", NT_GO_BUILD_ID, ".note.go.buildid")
    }

    /// Was it linked by Go's linker? True for stripped programs too.
    #[must_use]
    pub fn is_go(&self) -> bool {
        [".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo"].iter().any(|name| self.section(name).is_some())
            || self.go_build_id().is_some()
    }

    fn note(&self, owner: &[u8], kind: u32, section: &str) -> Option<&'a [u8]> {
        let in_section = self.section(section).and_then(|s| self.section_bytes(s));
        self.header_bytes(PT_NOTE).chain(in_section).find_map(|notes| find(notes, owner, kind))
    }
}

fn find<'a>(notes: &'a [u8], owner: &[u8], wanted: u32) -> Option<&'a [u8]> {
    let mut cursor = Cursor::new(notes);
    for _ in 0..MAX_NOTES {
        let (name_size, size) = (usize::try_from(cursor.u32()?).ok()?, usize::try_from(cursor.u32()?).ok()?);
        let kind = cursor.u32()?;
        let name = cursor.take(name_size)?;
        cursor.skip(padding(name_size))?;
        let content = cursor.take(size)?;
        if kind == wanted && name == owner && !content.is_empty() && size <= MAX_BUILD_ID {
            return Some(content);
        }
        // The last note's padding may be missing.
        cursor.skip(padding(size).min(cursor.len()))?;
    }
    None
}

/// Notes are aligned to four bytes, in 64-bit files too.
const fn padding(size: usize) -> usize {
    size.wrapping_neg() & 3
}
