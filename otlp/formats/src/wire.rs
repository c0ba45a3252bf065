//! The protobuf wire format, one level at a time.
//!
//! A profile's outer messages hold millions of inner ones. Walking the outer ones by hand and decoding each inner one as it
//! comes keeps memory near the size of the result, and lets counts be checked before anything is allocated
//! (<https://protobuf.dev/programming-guides/encoding/>).

use std::{borrow::Cow, io::Read};

use crate::error::Error;

/// Bytes that a profile may have once decompressed.
pub const MAX_BYTES: usize = 512 << 20;
/// Samples that a profile may have.
pub const MAX_SAMPLES: usize = 32 << 20;
/// Entries that each table of a profile may have.
pub(crate) const MAX_ENTRIES: usize = 8 << 20;
/// Frames that a stack may have, far above what any profiler records.
pub(crate) const MAX_FRAMES: usize = 1 << 16;

/// Labels or attributes that a sample may have; they are compared with one another.
pub(crate) const MAX_LABELS: usize = 256;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A variable-length integer.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32,
    /// A message, a string or a packed list.
    Bytes(&'a [u8]),
}

/// The fields of one message, in the order of the bytes.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

/// The fields of `message`; `what` names it in errors.
pub(crate) fn fields<'a>(message: &'a [u8], what: &'static str) -> Fields<'a> {
    Fields { rest: message, what }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        take_varint(&mut self.rest)
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(head)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            // Groups, which no message here has, and two values that do not exist.
            _ => return None,
        };
        (key >> 3 != 0).then_some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or_else(|| Error::malformed(self.what, "a field is cut short or not protobuf")))
    }
}

/// The variable-length integer that `rest` begins with, which is taken away; `None` if there is none.
pub(crate) fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A protobuf message of type `M`.
pub(crate) fn message<M: prost::Message + Default>(bytes: &[u8], what: &'static str) -> Result<M, Error> {
    M::decode(bytes).map_err(|error| Error::malformed(what, error))
}

/// Refuses a table or list that has `count` entries already and gets one more.
pub(crate) fn check_count(count: usize, limit: usize, what: &'static str) -> Result<(), Error> {
    if count < limit { Ok(()) } else { Err(Error::TooLarge { what, limit }) }
}

/// `bytes`, decompressed if they are gzip, at most [`MAX_BYTES`].
pub(crate) fn decompressed(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    decompressed_within(bytes, MAX_BYTES)
}

fn decompressed_within(bytes: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, Error> {
    let too_large = Error::TooLarge { what: "bytes", limit };
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return if bytes.len() <= limit { Ok(bytes.into()) } else { Err(too_large) };
    }
    let mut raw = Vec::new();
    let within = (limit as u64).saturating_add(1);
    flate2::read::MultiGzDecoder::new(bytes).take(within).read_to_end(&mut raw).map_err(Error::Gzip)?;
    if raw.len() > limit { Err(too_large) } else { Ok(raw.into()) }
}

/// Appends `value` to `buffer`.
pub(crate) fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

/// Appends the key and the length of a field `number` of `length` bytes that are appended next.
pub(crate) fn put_length(buffer: &mut Vec<u8>, number: u32, length: usize) {
    put_varint(buffer, u64::from(number) << 3 | 2);
    put_varint(buffer, length as u64);
}

/// Appends `message` as field `number`.
pub(crate) fn put_message(buffer: &mut Vec<u8>, number: u32, message: &impl prost::Message) {
    put_length(buffer, number, message.encoded_len());
    message.encode_raw(buffer);
}

/// Appends `bytes` as field `number`.
pub(crate) fn put_bytes(buffer: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_length(buffer, number, bytes.len());
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_wire_type_are_walked() {
        let bytes = [0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 2, b'h', b'i', 0x25, 0, 0, 0, 0];
        let all: Vec<_> = fields(&bytes, "test").map(Result::unwrap).collect();
        let expected =
            vec![(1, Value::Varint(150)), (2, Value::Fixed64(1)), (3, Value::Bytes(b"hi")), (4, Value::Fixed32)];
        assert_eq!(all, expected);
    }

    #[test]
    fn what_is_cut_short_or_no_protobuf_is_an_error() {
        for bytes in
            [&[0x0a, 5, 1][..], &[0x08], &[0x0b], &[0x00, 0], &[0xff; 11], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff]]
        {
            assert!(fields(bytes, "test").any(|field| field.is_err()), "{bytes:?}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &[0; 2 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert!(bomb.len() < 32 << 10);
        assert_eq!(decompressed_within(&bomb, 2 << 20).unwrap().len(), 2 << 20);
        assert!(matches!(decompressed_within(&bomb, 1 << 20), Err(Error::TooLarge { .. })));
        assert!(matches!(decompressed_within(&bomb[..100], 1 << 20), Err(Error::Gzip(_))));
    }
}
