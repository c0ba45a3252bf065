//! Compressed debug sections: `SHF_COMPRESSED` (the ELF specification's `Elf64_Chdr`) and the older `.zdebug_` form.

use std::io::Read;

use super::Cursor;

/// Content of a section with `SHF_COMPRESSED`, at most `limit` bytes.
pub(super) fn section(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut header = Cursor::new(bytes);
    let kind = header.u32()?;
    header.skip(4)?;
    let size = usize::try_from(header.u64()?).ok()?;
    header.skip(8)?;
    match kind {
        1 => read_exactly(flate2::read::ZlibDecoder::new(header.rest()), size, limit),
        2 => read_exactly(ruzstd::decoding::StreamingDecoder::new(header.rest()).ok()?, size, limit),
        _ => None,
    }
}

/// Content of a `.zdebug_` section: "ZLIB", the size as eight big-endian bytes, the stream.
pub(super) fn gnu(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut header = Cursor::new(bytes.strip_prefix(b"ZLIB")?);
    let size = usize::try_from(header.u64()?.swap_bytes()).ok()?;
    read_exactly(flate2::read::ZlibDecoder::new(header.rest()), size, limit)
}

/// The stated size is a claim: memory grows with what really comes out, and a stream that gives more or less is refused.
fn read_exactly(stream: impl Read, size: usize, limit: usize) -> Option<Vec<u8>> {
    if size > limit {
        return None;
    }
    let mut content = Vec::new();
    stream.take(size as u64 + 1).read_to_end(&mut content).ok()?;
    (content.len() == size).then_some(content)
}
