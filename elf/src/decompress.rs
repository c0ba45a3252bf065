//! The one decompressor: compressed sections (`SHF_COMPRESSED`, the ELF specification's `Elf64_Chdr`, and the older `.zdebug_*`) and
//! xz (`.gnu_debugdata`).
//!
//! The stated size is a claim: memory grows with what really comes out, and a stream that gives more or less is refused.

use crate::{
    Error,
    le::{u32_in, u64_in},
};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::io::Read;

/// Windows up to this are always granted, bytes: what zstd's highest ordinary level (19) asks for, whatever it packs.
const SMALLEST_WINDOW: u64 = 8 << 20;
const MALFORMED: Error = Error::Malformed("compressed section");

/// Unpacks a `SHF_COMPRESSED` section, its header and a zlib or zstd stream, to at most `limit` bytes.
///
/// # Errors
/// It is longer than that, or not what it claims.
pub fn section(mut section: impl Read, limit: u64) -> Result<Vec<u8>, Error> {
    let mut header = [0; 24];
    section.read_exact(&mut header).map_err(|_| MALFORMED)?;
    let (kind, size) = (u32_in(&header, 0), u64_in(&header, 8));
    match kind {
        1 => exactly(flate2::read::ZlibDecoder::new(section), size, limit),
        2 => {
            // Memory beside the content, taken at once.
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(limit.max(SMALLEST_WINDOW));
            let stream = StreamingDecoder::new_with_decoder(section, decoder).map_err(|_| MALFORMED)?;
            exactly(stream, size, limit)
        }
        _ => Err(MALFORMED),
    }
}

/// Unpacks the content of a `.zdebug_*` section: `ZLIB`, the size as a big-endian word, a zlib stream.
///
/// # Errors
/// It is longer than `limit` bytes, or not what it claims.
pub fn gnu(mut section: impl Read, limit: u64) -> Result<Vec<u8>, Error> {
    let (mut magic, mut size) = ([0; 4], [0; 8]);
    section.read_exact(&mut magic).and_then(|()| section.read_exact(&mut size)).map_err(|_| MALFORMED)?;
    if &magic != b"ZLIB" {
        return Err(MALFORMED);
    }
    exactly(flate2::read::ZlibDecoder::new(section), u64::from_be_bytes(size), limit)
}

/// Unpacks xz to at most `limit` bytes; its dictionary grows as they come.
///
/// # Errors
/// It is longer than that, or damaged.
pub fn xz(stream: impl Read, limit: u64) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    lzma_rust2::XzReader::new(stream, false)
        .take(limit.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|_| Error::Malformed("xz stream"))?;
    if out.len() as u64 > limit {
        return Err(Error::TooLarge { what: "unpacked xz", found: out.len() as u64, limit });
    }
    Ok(out)
}

fn exactly(stream: impl Read, size: u64, limit: u64) -> Result<Vec<u8>, Error> {
    if size > limit {
        return Err(Error::TooLarge { what: "decompressed section", found: size, limit });
    }
    let mut out = Vec::new();
    stream.take(size.saturating_add(1)).read_to_end(&mut out).map_err(|_| MALFORMED)?;
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
        assert_eq!(section(&*zlib(b"hello", 5), 100).unwrap(), b"hello");
        assert!(section(&*zlib(b"hello", 6), 100).is_err() && section(&*zlib(b"hello", 4), 100).is_err());
        assert!(matches!(section(&*zlib(&[0; 1 << 20], 1 << 20), 1000), Err(Error::TooLarge { .. })));
        assert!(section(&[][..], 100).is_err() && section(&[9; 40][..], 100).is_err());
        assert!(xz(&b"not xz at all"[..], 100).is_err());
    }

    #[test]
    fn the_older_form_has_its_size_the_other_way_round() {
        let stream = |size: u64| [b"ZLIB", &size.to_be_bytes()[..], &zlib(b"hello", 5)[24..]].concat();
        assert_eq!(gnu(&*stream(5), 100).unwrap(), b"hello");
        assert!(gnu(&*stream(6), 100).is_err() && gnu(&b"ZLIB"[..], 100).is_err());
    }
}
