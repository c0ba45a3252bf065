//! Converters between types, and questions about them.

use std::borrow::Cow;

use super::{Args, Function, Takes, converter, needs};
use crate::{error::EvalError, text::hex, value::Value};

const ANY: super::Parameter = needs("target", Takes::Any);

pub(super) const ALL: &[Function] = &[
    converter(
        "Bool",
        &[needs("target", Takes::BoolLike)],
        "bool or nil",
        "True for `1`, `t`, `true` and numbers other than 0",
        |args| Ok(args.bool_like(0)?.map_or(Value::Nil, Value::Bool)),
    ),
    converter("Coalesce", &[needs("values", Takes::Values)], "any", "The first value that is not nil", |args| {
        Ok(args.find_item(0, |value| !matches!(value, Value::Nil))?.unwrap_or_default())
    })
    .prepared(|literals| match literals.list(0) {
        Some(list) if list.is_empty() => Err((0, "needs at least one value".to_owned())),
        _ => Ok(super::Prepared::Nothing),
    }),
    converter("Double", &[needs("target", Takes::FloatLike)], "float or nil", "A number with a fraction", |args| {
        Ok(args.float_like(0)?.map_or(Value::Nil, Value::Float))
    }),
    converter(
        "Hex",
        &[needs("target", Takes::BytesLike)],
        "string",
        "Hexadecimal of bytes, or of the eight of a number",
        |args| Ok(Value::text(hex(&args.bytes_like(0)?.unwrap_or_default()))),
    ),
    converter(
        "Int",
        &[needs("target", Takes::IntLike)],
        "int or nil",
        "A whole number; fractions are cut off",
        |args| Ok(args.int_like(0)?.map_or(Value::Nil, Value::Int)),
    ),
    converter("IsBool", &[ANY], "bool", "Whether it is a bool", |args| {
        Ok(Value::Bool(matches!(args.value(0)?, Value::Bool(_))))
    }),
    converter("IsDouble", &[ANY], "bool", "Whether it is a float", |args| {
        Ok(Value::Bool(matches!(args.value(0)?, Value::Float(_))))
    }),
    converter("IsEmpty", &[ANY], "bool", "Whether it is nil, empty, 0 or false", |args| {
        Ok(Value::Bool(match args.value(0)? {
            Value::Nil => true,
            Value::Bool(truth) => !truth,
            Value::Int(number) | Value::Duration(number) => number == 0,
            Value::Float(number) => number.to_bits() == 0,
            Value::Text(text) => text.is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Id(id) => id.bytes().iter().all(|byte| *byte == 0),
            Value::Time(_) | Value::Opaque(_) => false,
        }))
    }),
    converter("IsInt", &[ANY], "bool", "Whether it is an int", |args| {
        Ok(Value::Bool(matches!(args.value(0)?, Value::Int(_))))
    }),
    converter("IsList", &[ANY], "bool", "Whether it is a list", |args| {
        Ok(Value::Bool(matches!(args.value(0)?, Value::List(_))))
    }),
    converter("IsMap", &[ANY], "bool", "Whether it is a map", |args| {
        Ok(Value::Bool(matches!(args.value(0)?, Value::Map(_))))
    }),
    converter("IsString", &[ANY], "bool", "Whether it is a string", |args| {
        Ok(Value::Bool(matches!(args.value(0)?, Value::Text(_))))
    }),
    converter("Len", &[ANY], "int", "Bytes of a string, entries of a list or map", len),
    converter(
        "Log",
        &[needs("target", Takes::FloatLike)],
        "float",
        "The natural logarithm of a positive number",
        |args| match args.float_like(0)? {
            Some(number) if number > 0.0 || number.is_nan() => Ok(Value::Float(number.ln())),
            Some(number) => Err(EvalError::new(format!("{number} has no logarithm"))),
            None => Err(EvalError::new("nil has no logarithm")),
        },
    ),
    converter(
        "ParseInt",
        &[needs("target", Takes::Text), needs("base", Takes::Int)],
        "int",
        "The number that digits of base 2 to 36 spell; of base 0 as Go writes it",
        |args| parse_int(&args.text(0)?, args.int(1)?).map(Value::Int),
    ),
    converter(
        "String",
        &[needs("target", Takes::TextLike)],
        "string or nil",
        "Text: bytes in hexadecimal, all else as JSON",
        |args| Ok(args.text_like(0)?.map_or(Value::Nil, Value::Text)),
    ),
];

fn len<'a>(args: &Args<'_, 'a>) -> Result<Value<'a>, EvalError> {
    let length = match args.value(0)? {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        other => return Err(EvalError::new(format!("target must be a string, list or map, not {}", other.kind()))),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn unconvertible(value: &Value<'_>, to: &str) -> EvalError {
    EvalError::new(format!("{} does not convert to {to}", value.kind()))
}

#[allow(clippy::cast_possible_truncation)]
pub(super) fn to_int(value: &Value<'_>) -> Result<Option<i64>, EvalError> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Int(number) => *number,
        Value::Float(number) if number.is_nan() || *number >= 9.3e18 || *number <= -9.3e18 => i64::MIN,
        Value::Float(number) => *number as i64,
        Value::Bool(truth) => i64::from(*truth),
        Value::Text(text) => decimal(text).ok_or_else(|| EvalError::new(format!("{text:?} is no whole number")))?,
        other => return Err(unconvertible(other, "an int")),
    }))
}

/// Digits with a sign, or none.
pub(super) fn decimal(text: &str) -> Option<i64> {
    text.parse().ok()
}

#[allow(clippy::cast_precision_loss)]
pub(super) fn to_float(value: &Value<'_>) -> Result<Option<f64>, EvalError> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Bool(truth) => f64::from(u8::from(*truth)),
        Value::Text(text) => float(text).ok_or_else(|| EvalError::new(format!("{text:?} is no number")))?,
        other => return Err(unconvertible(other, "a float")),
    }))
}

/// What Go's `ParseFloat` reads, but for hexadecimal and underscores.
pub(super) fn float(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    let spelled = text.bytes().any(|byte| matches!(byte, b'n' | b'N'));
    // What is too large is an error; infinity must be spelled.
    (number.is_finite() || spelled).then_some(number)
}

pub(super) fn to_bool(value: &Value<'_>) -> Result<Option<bool>, EvalError> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Bool(truth) => *truth,
        Value::Int(number) => *number != 0,
        Value::Float(number) => *number != 0.0,
        Value::Text(text) => {
            boolean(text).ok_or_else(|| EvalError::new(format!("{text:?} is neither true nor false")))?
        }
        other => return Err(unconvertible(other, "a bool")),
    }))
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

pub(super) fn to_bytes(value: Value<'_>) -> Result<Option<Cow<'_, [u8]>>, EvalError> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Bytes(bytes) => bytes,
        Value::Text(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Value::Text(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        Value::Int(number) => Cow::Owned(number.to_be_bytes().to_vec()),
        Value::Float(number) => Cow::Owned(number.to_be_bytes().to_vec()),
        Value::Bool(truth) => Cow::Owned(vec![u8::from(truth)]),
        other => return Err(unconvertible(&other, "bytes")),
    }))
}

fn parse_int(text: &str, base: i64) -> Result<i64, EvalError> {
    let wrong = || EvalError::new(format!("{text:?} is no number of base {base}"));
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    let (radix, spelled) = match base {
        2..=36 => (u32::try_from(base).unwrap_or(10), digits.to_owned()),
        0 => prefixed(digits).ok_or_else(wrong)?,
        _ => return Err(EvalError::new(format!("a base is 0 or from 2 to 36, not {base}"))),
    };
    if spelled.starts_with(['+', '-']) {
        return Err(wrong());
    }
    i64::from_str_radix(&format!("{}{spelled}", if negative { "-" } else { "" }), radix).map_err(|_| wrong())
}

/// The base and digits of a number as Go writes it.
fn prefixed(digits: &str) -> Option<(u32, String)> {
    let lower = digits.to_ascii_lowercase();
    let (radix, rest) = match lower.get(..2) {
        Some("0x") => (16, lower.get(2..)?),
        Some("0b") => (2, lower.get(2..)?),
        Some("0o") => (8, lower.get(2..)?),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    // An underscore stands between digits, or between the prefix and one.
    let plain = !lower.starts_with('_') && !lower.ends_with('_') && !lower.contains("__");
    plain.then(|| (radix, rest.replace('_', "")))
}
