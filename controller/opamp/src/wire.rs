//! Messages as bytes: the header of WebSocket messages, gzip of HTTP bodies, and sizes.

use std::io::{Read, Write};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use prost::Message;

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// More than may be.
    #[error("the message has more than {limit} bytes")]
    TooLarge {
        /// What may be, bytes.
        limit: usize,
    },
    /// The header of a WebSocket message does not end, or is not 0.
    #[error("the message's header is not 0")]
    Header,
    /// Not gzip.
    #[error("the body is not gzip: {0}")]
    Gzip(String),
    /// Not the protobuf message.
    #[error("the message cannot be decoded: {0}")]
    Decode(String),
}

/// `message` as a WebSocket message: a header, 0, and the protobuf bytes.
///
/// # Errors
/// It would have more than `limit` bytes.
pub fn frame(message: &impl Message, limit: usize) -> Result<Vec<u8>, WireError> {
    let length = message.encoded_len().saturating_add(1);
    if length > limit {
        return Err(WireError::TooLarge { limit });
    }
    let mut bytes = Vec::with_capacity(length);
    bytes.push(0);
    // The vector grows as needed: no error can be.
    let _ = message.encode(&mut bytes);
    Ok(bytes)
}

/// The protobuf bytes of a WebSocket message.
///
/// # Errors
/// It has more than `limit` bytes, or its header is not 0. A header may be written longer than needed (0x80 0x00 is 0).
pub fn unframe(bytes: &[u8], limit: usize) -> Result<&[u8], WireError> {
    if bytes.len() > limit {
        return Err(WireError::TooLarge { limit });
    }
    // At most ten bytes, of seven bits each; only the last has no high bit.
    let length = bytes.iter().take(10).position(|byte| byte & 0x80 == 0).ok_or(WireError::Header)? + 1;
    let (header, data) = bytes.split_at(length);
    if header.iter().any(|byte| byte & 0x7f != 0) { Err(WireError::Header) } else { Ok(data) }
}

/// The message that `bytes` are.
///
/// # Errors
/// They are none.
pub fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, WireError> {
    M::decode(bytes).map_err(|error| WireError::Decode(error.to_string()))
}

/// `message` as the body of an HTTP request or answer.
///
/// # Errors
/// It would have more than `limit` bytes.
pub fn body(message: &impl Message, limit: usize) -> Result<Vec<u8>, WireError> {
    if message.encoded_len() > limit { Err(WireError::TooLarge { limit }) } else { Ok(message.encode_to_vec()) }
}

/// `bytes`, compressed.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // A vector takes everything.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// What `bytes` were before they were compressed.
///
/// # Errors
/// They were no gzip, or more than `limit`, of which no more is unpacked.
pub fn gunzip(bytes: &[u8], limit: usize) -> Result<Vec<u8>, WireError> {
    let mut unpacked = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = MultiGzDecoder::new(bytes).take(bound).read_to_end(&mut unpacked);
    read.map_err(|error| WireError::Gzip(error.to_string()))?;
    if unpacked.len() > limit { Err(WireError::TooLarge { limit }) } else { Ok(unpacked) }
}
