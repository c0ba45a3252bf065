//! Build ids among notes.

use crate::Cursor;

const NT_GNU_BUILD_ID: u32 = 3;
const NT_GO_BUILD_ID: u32 = 4;
/// Notes in one area that are looked at; real files have under ten.
const MAX_NOTES: usize = 256;
/// Longest build id accepted, bytes. GNU ids have 20 (sha1) or 16, Go's 83 characters.
const MAX_BUILD_ID: usize = 256;

pub(crate) fn gnu_build_id(notes: &[u8]) -> Option<Box<[u8]>> {
    find(notes, b"GNU\0", NT_GNU_BUILD_ID)
}

pub(crate) fn go_build_id(notes: &[u8]) -> Option<Box<[u8]>> {
    find(notes, b"Go\0\0", NT_GO_BUILD_ID)
}

fn find(notes: &[u8], owner: &[u8], wanted: u32) -> Option<Box<[u8]>> {
    let mut cursor = Cursor::new(notes);
    for _ in 0..MAX_NOTES {
        let (name_size, size) = (usize::try_from(cursor.u32()?).ok()?, usize::try_from(cursor.u32()?).ok()?);
        let kind = cursor.u32()?;
        let name = cursor.take(name_size)?;
        cursor.skip(padding(name_size))?;
        let content = cursor.take(size)?;
        if kind == wanted && name == owner && !content.is_empty() && size <= MAX_BUILD_ID {
            return Some(content.into());
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
