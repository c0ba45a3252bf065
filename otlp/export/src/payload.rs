//! Compression of requests.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::{read::MultiGzDecoder, write::GzEncoder};
use profiler_formats::otlp::Request;

use super::options::Compression;
use crate::spool::Record;

/// `raw`, compressed.
pub(super) fn compress(raw: &Bytes, compression: Compression) -> Bytes {
    match compression {
        Compression::None => raw.clone(),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(raw.len() / 6), flate2::Compression::default());
            // A vector takes whatever is written.
            let _ = encoder.write_all(raw);
            encoder.finish().unwrap_or_default().into()
        }
        Compression::Zstd => {
            ruzstd::encoding::compress_to_vec(raw.as_ref(), ruzstd::encoding::CompressionLevel::Fastest).into()
        }
    }
}

/// What `record` holds, not compressed. It may come from a disk, so its size is held against what its header says.
pub(super) fn decompress(record: &Record) -> io::Result<Bytes> {
    let limit = record.raw_bytes;
    let mut raw = Vec::new();
    match record.compression {
        Compression::None => return Ok(record.bytes.clone()),
        Compression::Gzip => {
            MultiGzDecoder::new(record.bytes.as_ref()).take(limit.saturating_add(1)).read_to_end(&mut raw)?
        }
        Compression::Zstd => ruzstd::decoding::StreamingDecoder::new(record.bytes.as_ref())
            .map_err(io::Error::other)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut raw)?,
    };
    if raw.len() as u64 == limit { Ok(raw.into()) } else { Err(io::Error::other("its size is not what it says")) }
}

/// `request`, ready for the wire.
pub(super) fn pack(request: &Request, compression: Compression) -> Record {
    Record {
        bytes: compress(&request.bytes, compression),
        compression,
        raw_bytes: request.bytes.len() as u64,
        samples: request.samples,
        start_unix_nanos: request.start_unix_nanos,
        end_unix_nanos: request.end_unix_nanos,
    }
}

/// `record` in `compression`; unchanged if it is so already.
pub(super) fn recompressed(record: &Record, compression: Compression) -> io::Result<Record> {
    if record.compression == compression {
        return Ok(record.clone());
    }
    let raw = decompress(record)?;
    Ok(Record { bytes: compress(&raw, compression), compression, ..record.clone() })
}
