//! The bytes of a segment.
//!
//! ```text
//! segment = "PRFSPOOL" version:u32  record*
//! record  = header_crc:u32 payload_crc:u32 payload_length:u32 compression:u8 0:u8 0:u8 0:u8
//!           raw_bytes:u64 samples:u64 start_unix_nanos:u64 end_unix_nanos:u64 state:u8  payload
//! ```
//!
//! Numbers are little-endian, both checksums CRC-32C. `header_crc` covers the header from `payload_crc` to `end_unix_nanos`: what a
//! header says can be trusted before its payload is read. `state` is outside, since it is overwritten in place when the record
//! has been delivered, and either value of one byte is valid at any moment.

use std::{fs::File, os::unix::fs::FileExt};

use bytes::Bytes;
use profiler_formats::wire;

use crate::Compression;

/// First bytes of a segment.
pub(super) const MAGIC: [u8; 12] = *b"PRFSPOOL\x01\0\0\0";
/// Bytes of a record's header.
pub(super) const HEADER: u64 = 49;
/// Where in the header the state is.
pub(super) const STATE: u64 = 48;
/// The state of a record that has been delivered or given up.
pub(super) const DONE: u8 = 1;
/// Records that a segment may have: a bound for memory, far above what fits into one of ours.
const MAX_RECORDS: usize = 1 << 16;
/// Bytes that a segment may have: a bound for time and memory.
pub(super) const MAX_SEGMENT: u64 = 1 << 30;

/// A request as it waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// An `ExportProfilesServiceRequest`, compressed.
    pub bytes: Bytes,
    /// How it is compressed.
    pub compression: Compression,
    /// Bytes of the request before compression.
    pub raw_bytes: u64,
    /// Samples in it.
    pub samples: u64,
    /// Start of its window, ns since the Unix epoch.
    pub start_unix_nanos: u64,
    /// End of its window, ns since the Unix epoch.
    pub end_unix_nanos: u64,
}

/// A header that is what it was when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    payload_crc: u32,
    pub(super) payload_length: u32,
    compression: Compression,
    raw_bytes: u64,
    pub(super) samples: u64,
    start_unix_nanos: u64,
    end_unix_nanos: u64,
}

impl Header {
    /// `None` if the payload is larger than a record can be.
    pub(super) fn of(record: &Record) -> Option<Self> {
        Some(Self {
            payload_crc: crc32c::crc32c(&record.bytes),
            payload_length: u32::try_from(record.bytes.len()).ok()?,
            compression: record.compression,
            raw_bytes: record.raw_bytes,
            samples: record.samples,
            start_unix_nanos: record.start_unix_nanos,
            end_unix_nanos: record.end_unix_nanos,
        })
    }

    /// The header of a record that waits.
    pub(super) fn write(&self) -> Vec<u8> {
        let compression = match self.compression {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Zstd => 2,
        };
        let mut bytes = vec![0; 4];
        bytes.extend(self.payload_crc.to_le_bytes());
        bytes.extend(self.payload_length.to_le_bytes());
        bytes.extend([compression, 0, 0, 0]);
        for number in [self.raw_bytes, self.samples, self.start_unix_nanos, self.end_unix_nanos] {
            bytes.extend(number.to_le_bytes());
        }
        let crc = crc32c::crc32c(bytes.get(4..).unwrap_or_default());
        bytes.splice(..4, crc.to_le_bytes());
        bytes.push(0);
        bytes
    }

    /// The header in `bytes`, and whether its record still waits; `None` if it is damaged.
    fn read(bytes: &[u8; HEADER as usize]) -> Option<(Self, bool)> {
        let (covered, state) = bytes.split_at_checked(STATE as usize)?;
        let (crc, covered) = covered.split_first_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (payload_crc, rest) = covered.split_first_chunk::<4>()?;
        let (payload_length, rest) = rest.split_first_chunk::<4>()?;
        let (compression, rest) = rest.split_first_chunk::<4>()?;
        let compression = match compression {
            [0, 0, 0, 0] => Compression::None,
            [1, 0, 0, 0] => Compression::Gzip,
            [2, 0, 0, 0] => Compression::Zstd,
            _ => return None,
        };
        let mut numbers = rest.chunks_exact(8).map(|chunk| chunk.try_into().map_or(0, u64::from_le_bytes));
        let header = Self {
            payload_crc: u32::from_le_bytes(*payload_crc),
            payload_length: u32::from_le_bytes(*payload_length),
            compression,
            raw_bytes: numbers.next()?,
            samples: numbers.next()?,
            start_unix_nanos: numbers.next()?,
            end_unix_nanos: numbers.next()?,
        };
        // A checksum is no proof against someone who writes it.
        (header.raw_bytes <= wire::MAX_BYTES as u64 && header.samples <= wire::MAX_SAMPLES as u64)
            .then_some((header, state.first() != Some(&DONE)))
    }

    /// The record that has this header and `payload`; `None` if the payload is damaged.
    pub(super) fn record(&self, payload: Vec<u8>) -> Option<Record> {
        (crc32c::crc32c(&payload) == self.payload_crc).then(|| Record {
            bytes: payload.into(),
            compression: self.compression,
            raw_bytes: self.raw_bytes,
            samples: self.samples,
            start_unix_nanos: self.start_unix_nanos,
            end_unix_nanos: self.end_unix_nanos,
        })
    }

    /// Bytes from the start of the header to the end of the payload.
    pub(super) fn span(&self) -> u64 {
        HEADER + u64::from(self.payload_length)
    }
}

/// How the good part of a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With the file.
    Clean,
    /// In a record that is not there in full: writing it was interrupted.
    Torn,
    /// In bytes that nobody wrote here.
    Malformed,
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Scan {
    /// Offset and header of each record that waits.
    pub(super) waiting: Vec<(u64, Header)>,
    /// Bytes that are good, from the start of the file.
    pub(super) good: u64,
    pub(super) end: End,
}

/// Reads the headers of the segment `file`, `length` bytes long.
pub(super) fn scan(file: &File, length: u64) -> Scan {
    let mut scan = Scan { waiting: Vec::new(), good: 0, end: End::Malformed };
    let mut magic = [0; MAGIC.len()];
    if length < MAGIC.len() as u64 {
        scan.end = End::Torn;
        return scan;
    }
    if length > MAX_SEGMENT || file.read_exact_at(&mut magic, 0).is_err() || magic != MAGIC {
        return scan;
    }
    scan.good = MAGIC.len() as u64;
    for _ in 0..MAX_RECORDS {
        let rest = length.saturating_sub(scan.good);
        if rest < HEADER {
            scan.end = if rest == 0 { End::Clean } else { End::Torn };
            return scan;
        }
        let mut bytes = [0; HEADER as usize];
        let read = file.read_exact_at(&mut bytes, scan.good);
        let Some((header, waits)) = read.ok().and_then(|()| Header::read(&bytes)) else { return scan };
        if header.span() > rest {
            scan.end = End::Torn;
            return scan;
        }
        if waits {
            scan.waiting.push((scan.good, header));
        }
        scan.good += header.span();
    }
    scan
}
