//! Compressed sections (`SHF_COMPRESSED`, and the older `.zdebug_*`) and xz.

use super::{ElfError, u32_in, u64_in};
use std::io::Read;

const MALFORMED: ElfError = ElfError::Malformed("compressed section");

/// Inflates a `SHF_COMPRESSED` section: an `Elf64_Chdr` and a zlib or zstd stream, to at most `limit` bytes.
pub(crate) fn decompress(section: &[u8], limit: u64) -> Result<Vec<u8>, ElfError> {
    let (kind, size) = (u32_in(section, 0), u64_in(section, 8));
    let stream = section.get(24..).ok_or(MALFORMED)?;
    match kind {
        1 => exactly(flate2::read::ZlibDecoder::new(stream), size, limit),
        2 => exactly(ruzstd::decoding::StreamingDecoder::new(stream).map_err(|_| MALFORMED)?, size, limit),
        _ => Err(MALFORMED),
    }
}

/// Inflates the content of a `.zdebug_*` section: `ZLIB`, the size as a big-endian word, a zlib stream.
pub(crate) fn decompress_gnu(section: &[u8], limit: u64) -> Result<Vec<u8>, ElfError> {
    let stream = section.strip_prefix(b"ZLIB").ok_or(MALFORMED)?;
    let size = stream.first_chunk().map(|size| u64::from_be_bytes(*size)).ok_or(MALFORMED)?;
    exactly(flate2::read::ZlibDecoder::new(stream.get(8..).unwrap_or_default()), size, limit)
}

/// Unpacks xz to at most `limit` bytes.
pub(crate) fn unxz(stream: &[u8], limit: u64) -> Result<Vec<u8>, ElfError> {
    let mut out = Vec::new();
    lzma_rust2::XzReader::new(stream, false)
        .take(limit.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|_| ElfError::Malformed("xz stream"))?;
    if out.len() as u64 > limit {
        return Err(ElfError::TooLarge { what: "unpacked xz", found: out.len() as u64, limit });
    }
    Ok(out)
}

/// `size` bytes of `stream`; a stream that is shorter or fails is an error.
fn exactly(stream: impl Read, size: u64, limit: u64) -> Result<Vec<u8>, ElfError> {
    if size > limit {
        return Err(ElfError::TooLarge { what: "decompressed section", found: size, limit });
    }
    // Grows with what is really there, not with what the header claims.
    let mut out = Vec::new();
    stream.take(size).read_to_end(&mut out).map_err(|_| MALFORMED)?;
    if out.len() as u64 == size { Ok(out) } else { Err(MALFORMED) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn zlib(content: &[u8], claimed: u64) -> Vec<u8> {
        let mut section = [1u32.to_le_bytes(), [0; 4]].concat();
        section.extend(claimed.to_le_bytes());
        section.extend(8u64.to_le_bytes());
        let mut encoder = flate2::write::ZlibEncoder::new(section, flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn size_is_that_of_the_header_and_within_the_limit() {
        assert_eq!(decompress(&zlib(b"hello", 5), 100).unwrap(), b"hello");
        assert!(decompress(&zlib(b"hello", 6), 100).is_err());
        assert!(matches!(decompress(&zlib(&[0; 1 << 20], 1 << 20), 1000), Err(ElfError::TooLarge { .. })));
        assert_eq!(decompress(&zlib(&[0; 1 << 20], 10), 1000).unwrap(), [0; 10]);
        assert!(decompress(&[], 100).is_err() && decompress(&[9; 40], 100).is_err());
        assert!(unxz(b"not xz at all", 100).is_err());
    }
}
