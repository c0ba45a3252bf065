//! Values as text: hexadecimal, JSON, and how numbers are spelled.

use std::{borrow::Cow, fmt::Write};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    error::EvalError,
    value::{Id, Map, Value},
};

/// Lower-case hexadecimal.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that `digits` spell.
pub(crate) fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// How JSON is written: the two writers that the language's definition has differ in this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Of a value that is converted: `<`, `>`, `&` are escaped, exponents have two digits.
    Converted,
    /// Of an attribute in a text: neither.
    Plain,
}

/// The shortest spelling of `number` that reads back the same.
pub(crate) fn float(number: f64, style: Style) -> String {
    let size = number.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return format!("{number}");
    }
    exponential(number, None, style == Style::Converted)
}

/// `1.5e+21`, with at least two digits in the exponent if `padded`.
pub(crate) fn exponential(number: f64, digits: Option<usize>, padded: bool) -> String {
    let spelled = match digits {
        Some(digits) => format!("{number:.digits$e}"),
        None => format!("{number:e}"),
    };
    let Some((mantissa, exponent)) = spelled.split_once('e') else { return spelled };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |exponent| ("-", exponent));
    // Only a negative exponent of one digit is spelled with one.
    if padded || sign == "+" {
        format!("{mantissa}e{sign}{exponent:0>2}")
    } else {
        format!("{mantissa}e{sign}{exponent}")
    }
}

/// What an attribute is in a text.
pub(crate) fn attribute(value: &Value<'_>) -> String {
    match value {
        Value::Nil => String::new(),
        Value::Text(text) => text.clone().into_owned(),
        Value::Bytes(bytes) => STANDARD.encode(bytes),
        Value::Float(number) if number.is_nan() => "NaN".to_owned(),
        Value::Float(number) if number.is_infinite() => if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        // A float that JSON has no spelling for leaves nothing of the rest.
        other => json(other, Style::Plain).unwrap_or_default(),
    }
}

/// What a value is converted to where text is needed; nothing for nil.
///
/// # Errors
///
/// A number in it that JSON has no spelling for.
pub(crate) fn converted<'v>(value: &'v Value<'_>) -> Result<Option<Cow<'v, str>>, EvalError> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Text(text) => Cow::Borrowed(text),
        Value::Bytes(bytes) => hex(bytes).into(),
        other => json(other, Style::Converted)?.into(),
    }))
}

/// JSON of `value`, keys in order.
pub(crate) fn json(value: &Value<'_>, style: Style) -> Result<String, EvalError> {
    let mut text = String::new();
    write_json(&mut text, value, style)?;
    Ok(text)
}

fn write_json(text: &mut String, value: &Value<'_>, style: Style) -> Result<(), EvalError> {
    match value {
        Value::Nil => text.push_str("null"),
        Value::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Value::Int(number) | Value::Duration(number) => {
            let _ = write!(text, "{number}");
        }
        Value::Float(number) if number.is_finite() => text.push_str(&float(*number, style)),
        Value::Float(_) => return Err(EvalError::new("JSON has no spelling for NaN and infinities")),
        Value::Text(said) => write_text(text, said, style),
        Value::Bytes(bytes) => {
            let _ = write!(text, "\"{}\"", STANDARD.encode(bytes));
        }
        Value::Time(time) => {
            let _ = write!(text, "\"{}\"", time.rfc3339());
        }
        Value::Id(id @ Id::Profile(_)) => {
            write_list(text, id.bytes().iter().map(|byte| Value::Int(i64::from(*byte))), style)?
        }
        Value::Id(id) => {
            let _ = write!(text, "\"{}\"", hex(id.bytes()));
        }
        Value::Opaque(_) => text.push_str("{}"),
        Value::List(list) => write_list(text, list.iter().map(Value::borrowed), style)?,
        Value::Map(map) => write_map(text, map, style)?,
    }
    Ok(())
}

fn write_list<'v>(text: &mut String, values: impl Iterator<Item = Value<'v>>, style: Style) -> Result<(), EvalError> {
    text.push('[');
    for (at, value) in values.enumerate() {
        if at > 0 {
            text.push(',');
        }
        write_json(text, &value, style)?;
    }
    text.push(']');
    Ok(())
}

fn write_map(text: &mut String, map: &Map, style: Style) -> Result<(), EvalError> {
    // Of equal keys the last is what a plain map of them has.
    let sorted: std::collections::BTreeMap<&str, &Value<'static>> = map.iter().collect();
    text.push('{');
    for (at, (key, value)) in sorted.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        write_text(text, key, style);
        text.push(':');
        write_json(text, value, style)?;
    }
    text.push('}');
    Ok(())
}

fn write_text(text: &mut String, said: &str, style: Style) {
    text.push('"');
    for letter in said.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' if style == Style::Plain => text.push_str("\\b"),
            '\u{c}' if style == Style::Plain => text.push_str("\\f"),
            '<' | '>' | '&' if style == Style::Plain => text.push(letter),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(letter));
            }
            _ => text.push(letter),
        }
    }
    text.push('"');
}
