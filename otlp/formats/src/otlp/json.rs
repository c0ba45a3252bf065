//! OTLP's JSON: protobuf's own mapping, but for ids, which are in hexadecimal
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).
//!
//! Read and written field by field over [`schema`], from and to the bytes of protobuf: what JSON says is bounded and
//! checked as those are. A file may hold one request after the other, as the Collector's `file` exporter writes them.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Write},
};

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::schema::{Field, Kind, Message, REQUEST};
use crate::{
    error::Error,
    wire::{Value, fields, put_bytes, put_varint},
};

/// Reads requests in JSON, one after the other, and hands the protobuf bytes of each to `each`.
pub(super) fn read(json: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let refused = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let mut request = Vec::new();
    let mut is_one = false;
    loop {
        request.clear();
        let one = MessageSeed { message: &REQUEST, out: &mut request, refused: &refused };
        if let Err(error) = one.deserialize(&mut deserializer) {
            return Err(refused.take().unwrap_or_else(|| Error::malformed("OTLP JSON", error)));
        }
        // A request of nothing between others is one of nothing.
        is_one |= !request.is_empty();
        each(&request)?;
        // `end` passes over white space; an error of it says that there is more.
        if deserializer.end().is_ok() {
            return if is_one { Ok(()) } else { Err(Error::Unrecognized) };
        }
    }
}

/// Reads an object as a message.
struct MessageSeed<'a> {
    message: &'static Message,
    out: &'a mut Vec<u8>,
    /// Why a message was refused; serde's own errors are texts.
    refused: &'a RefCell<Option<Error>>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object, {}", self.message.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let Some(field) = self.message.named(&name) else {
                let name: String = name.chars().take(100).collect();
                if let Some(error) = self.message.unknown(&format!("{name:?}")) {
                    let text = error.to_string();
                    self.refused.replace(Some(error));
                    return Err(A::Error::custom(text));
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            map.next_value_seed(ValueSeed { field, place: Place::Field, out: self.out, refused: self.refused })?;
        }
        Ok(())
    }
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Behind the name of its field.
    Field,
    /// In a list of messages or texts, each of which is a field in protobuf.
    Entry,
    /// In a list of numbers, which is one field.
    Packed,
}

/// Reads a value of a field.
struct ValueSeed<'a> {
    field: &'static Field,
    place: Place,
    out: &'a mut Vec<u8>,
    refused: &'a RefCell<Option<Error>>,
}

impl ValueSeed<'_> {
    /// Puts a number: an integer, or the bits of one that has eight bytes.
    fn number(self, number: u64) {
        let is_fixed = matches!(self.field.kind, Kind::Fixed64 | Kind::Double);
        if self.place != Place::Packed {
            put_varint(self.out, u64::from(self.field.number) << 3 | u64::from(is_fixed));
        }
        if is_fixed { self.out.extend_from_slice(&number.to_le_bytes()) } else { put_varint(self.out, number) }
    }

    /// Puts an integer, if the field can hold it.
    fn integer<E: serde::de::Error>(self, number: i128) -> Result<(), E> {
        let out_of_range = || E::custom(format!("{}: {number} is out of range", self.field.name));
        let bits = match self.field.kind {
            // Negative numbers of 32 bits are widened.
            Kind::Int32 => i32::try_from(number).map(|number| i64::from(number) as u64),
            Kind::Uint32 => u32::try_from(number).map(u64::from),
            Kind::Int64 => i64::try_from(number).map(|number| number as u64),
            Kind::Uint64 | Kind::Fixed64 => u64::try_from(number),
            Kind::Double => return self.double(number as f64),
            _ => return Err(self.unexpected()),
        };
        let bits = bits.map_err(|_| out_of_range())?;
        self.number(bits);
        Ok(())
    }

    fn double<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        let whole = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        match self.field.kind {
            Kind::Double => {
                self.number(number.to_bits());
                Ok(())
            }
            Kind::Int32 | Kind::Uint32 | Kind::Int64 | Kind::Uint64 | Kind::Fixed64 if whole => {
                self.integer(number as i128)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn unexpected<E: serde::de::Error>(&self) -> E {
        E::custom(format!("{}: not a value of this field", self.field.name))
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of {}", self.field.name)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        // Absent; there is no such entry of a list.
        if self.place == Place::Field { Ok(()) } else { Err(self.unexpected()) }
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool => {
                self.number(value.into());
                Ok(())
            }
            _ => Err(self.unexpected()),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.double(value)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let bytes = match self.field.kind {
            Kind::Text => {
                put_bytes(self.out, self.field.number, text.as_bytes());
                return Ok(());
            }
            Kind::Hex => hex(text),
            Kind::Bytes => base64(text),
            Kind::Message(_) | Kind::Bool => None,
            _ => {
                return match (text.parse::<i128>(), text.parse::<f64>()) {
                    (Ok(number), _) => self.integer(number),
                    // `NaN` and `Infinity` are written so.
                    (_, Ok(number)) => self.double(number),
                    _ => Err(self.unexpected()),
                };
            }
        };
        let bytes = bytes.ok_or_else(|| self.unexpected())?;
        put_bytes(self.out, self.field.number, &bytes);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Kind::Message(message) = self.field.kind else { return Err(self.unexpected()) };
        let mut inner = Vec::new();
        MessageSeed { message, out: &mut inner, refused: self.refused }.visit_map(map)?;
        put_bytes(self.out, self.field.number, &inner);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { field, place, out, refused } = self;
        if !field.is_list || place != Place::Field {
            return Err(A::Error::custom(format!("{}: a list where there should be none", field.name)));
        }
        if matches!(field.kind, Kind::Message(_) | Kind::Text | Kind::Hex | Kind::Bytes) {
            let place = Place::Entry;
            while list.next_element_seed(ValueSeed { field, place, out: &mut *out, refused })?.is_some() {}
            return Ok(());
        }
        let mut packed = Vec::new();
        let place = Place::Packed;
        while list.next_element_seed(ValueSeed { field, place, out: &mut packed, refused })?.is_some() {}
        put_bytes(out, field.number, &packed);
        Ok(())
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// Either alphabet, with or without padding, as protobuf's JSON allows.
fn base64(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    BASE64_STANDARD_NO_PAD.decode(bare).or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(bare)).ok()
}

/// Writes `bytes`, a `message` as this project writes it, as an object.
pub(super) fn write(message: &Message, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    write!(out, "{{")?;
    let mut open: Option<&Field> = None;
    for found in fields(bytes, "OTLP profiles") {
        let (key, value) = found.map_err(io::Error::other)?;
        let Some(field) = message.field(key) else { continue };
        // Entries of a list of messages or texts follow each other.
        let is_next = open.is_some_and(|open| open.number == field.number && field.is_list);
        if !is_next {
            if let Some(before) = open {
                write!(out, "{},", if before.is_list { "]" } else { "" })?;
            }
            write!(out, "\"{}\":{}", field.name, if field.is_list { "[" } else { "" })?;
        } else {
            write!(out, ",")?;
        }
        open = Some(field);
        match (&field.kind, value) {
            (Kind::Message(inner), Value::Bytes(bytes)) => write(inner, bytes, out)?,
            (Kind::Text, Value::Bytes(bytes)) => serde_json::to_writer(&mut *out, &String::from_utf8_lossy(bytes))?,
            (Kind::Hex, Value::Bytes(bytes)) => {
                write!(out, "\"")?;
                bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
                write!(out, "\"")?;
            }
            (Kind::Bytes, Value::Bytes(bytes)) => write!(out, "\"{}\"", BASE64_STANDARD.encode(bytes))?,
            (kind, Value::Bytes(packed)) => numbers(kind, packed, out)?,
            (kind, Value::Varint(bits) | Value::Fixed64(bits)) => number(kind, bits, out)?,
            (_, Value::Fixed32) => {}
        }
    }
    write!(out, "{}}}", if open.is_some_and(|open| open.is_list) { "]" } else { "" })
}

/// The numbers of a packed list.
fn numbers(kind: &Kind, packed: &[u8], out: &mut impl Write) -> io::Result<()> {
    let mut comma = "";
    let mut rest = packed;
    while !rest.is_empty() {
        let bits = match kind {
            Kind::Fixed64 | Kind::Double => {
                let (head, tail) = rest.split_first_chunk().ok_or_else(cut_short)?;
                rest = tail;
                u64::from_le_bytes(*head)
            }
            _ => crate::wire::take_varint(&mut rest).ok_or_else(cut_short)?,
        };
        write!(out, "{comma}")?;
        number(kind, bits, out)?;
        comma = ",";
    }
    Ok(())
}

fn cut_short() -> io::Error {
    io::Error::other("a list of numbers is cut short")
}

/// Integers of 64 bits are texts in JSON, for the sake of readers that have only floating point.
fn number(kind: &Kind, bits: u64, out: &mut impl Write) -> io::Result<()> {
    match kind {
        Kind::Bool => write!(out, "{}", bits != 0),
        Kind::Int32 => write!(out, "{}", bits as i32),
        Kind::Uint32 => write!(out, "{}", bits as u32),
        Kind::Int64 => write!(out, "\"{}\"", bits as i64),
        Kind::Double => match f64::from_bits(bits) {
            number if number.is_finite() => Ok(serde_json::to_writer(out, &number)?),
            number if number.is_nan() => write!(out, "\"NaN\""),
            number => write!(out, "\"{}Infinity\"", if number < 0.0 { "-" } else { "" }),
        },
        _ => write!(out, "\"{bits}\""),
    }
}
