//! Converters of what text is in: JSON, CSV, pairs, base64, severities.

use std::borrow::Cow;

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{Args, Function, Literals, Prepared, Takes, converter, may, needs};
use crate::{
    error::EvalError,
    text::attribute,
    value::{Map, Value},
};

mod csv;

const TARGET: super::Parameter = needs("target", Takes::Text);

pub(super) const ALL: &[Function] = &[
    converter(
        "Base64Encode",
        &[TARGET, may("variant", Takes::Text)],
        "string",
        "Base64 of text: `base64`, `base64-raw` (without padding), `base64-url` or `base64-raw-url`",
        |args| {
            let text = args.text(0)?;
            let variant = args.text_or(1, "base64")?;
            let engine = engine(&variant).ok_or_else(|| EvalError::new(format!("{variant:?} is no variant of base64")))?;
            super::strings::bounded(engine.encode(text.as_bytes()))
        },
    ),
    converter(
        "Decode",
        &[needs("target", Takes::Any), needs("encoding", Takes::Text)],
        "string",
        "Text of bytes or text in an encoding: a variant of base64, or a character set by its name",
        decode,
    )
    .prepared(|literals| match literals.text(1) {
        Some(name) if engine(name).is_none() && !known_charset(name) => Err((1, format!("{name:?} is no encoding"))),
        _ => Ok(Prepared::Nothing),
    }),
    converter("IsValidLuhn", &[needs("target", Takes::TextLike)], "bool", "Whether digits end with their check digit by Luhn's algorithm", luhn),
    converter(
        "ParseCSV",
        &[
            TARGET,
            needs("header", Takes::Text),
            may("delimiter", Takes::LiteralText),
            may("header_delimiter", Takes::LiteralText),
            may("mode", Takes::LiteralText),
        ],
        "map",
        "The fields of a row under the names in a header; modes are `strict`, `lazyQuotes` and `ignoreQuotes`",
        parse_csv,
    )
    .prepared(csv_fits),
    converter("ParseJSON", &[TARGET], "map or list", "What a JSON object or array has; numbers are floats", parse_json),
    converter(
        "ParseKeyValue",
        &[TARGET, may("delimiter", Takes::LiteralText), may("pair_delimiter", Takes::LiteralText)],
        "map",
        "A map of `key=value` with spaces between, or of other delimiters; quotes keep a value together",
        parse_key_value,
    )
    .prepared(delimiters_differ),
    converter(
        "ParseSeverity",
        &[needs("target", Takes::Any), needs("mapping", Takes::Map)],
        "string",
        "The level whose criteria a value meets: `{\"error\": [{\"equals\": [\"err\"]}, {\"range\": {\"min\": 3, \"max\": 4}}, {\"range\": \"5xx\"}]}`",
        parse_severity,
    )
    .prepared(|literals| {
        Ok(Prepared::Severity(match literals.get(1) {
            Some(Value::Map(map)) => levels(map),
            _ => Err("the mapping must be written out".to_owned()),
        }))
    }),
];

type Converted<'a> = Result<Value<'a>, EvalError>;

fn engine(variant: &str) -> Option<GeneralPurpose> {
    let (alphabet, padded) = match variant {
        "base64" => (STANDARD, true),
        "base64-raw" => (STANDARD, false),
        "base64-url" => (URL_SAFE, true),
        "base64-raw-url" => (URL_SAFE, false),
        _ => return None,
    };
    let mode = if padded { DecodePaddingMode::RequireCanonical } else { DecodePaddingMode::RequireNone };
    let config = GeneralPurposeConfig::new()
        .with_encode_padding(padded)
        .with_decode_padding_mode(mode)
        .with_decode_allow_trailing_bits(true);
    Some(GeneralPurpose::new(&alphabet, config))
}

fn decode<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let value = args.value(0)?;
    let encoding = args.text(1)?;
    let bytes: Cow<'_, [u8]> = match &value {
        Value::Bytes(bytes) => Cow::Borrowed(&**bytes),
        Value::Text(text) => Cow::Borrowed(text.as_bytes()),
        other => return Err(EvalError::new(format!("target must be a string or bytes, not {}", other.kind()))),
    };
    if let Some(engine) = engine(&encoding) {
        // Line breaks within are passed over.
        let packed: Vec<u8> = bytes.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        let decoded = engine.decode(packed).map_err(|error| EvalError::new(format!("not {encoding}: {error}")))?;
        return Ok(Value::text(String::from_utf8_lossy(&decoded)));
    }
    charset(&encoding, &bytes).map(Value::text).ok_or_else(|| EvalError::new(format!("{encoding:?} is no encoding")))
}

fn known_charset(name: &str) -> bool {
    charset(name, b"").is_some()
}

/// `bytes` of a character set.
fn charset(name: &str, bytes: &[u8]) -> Option<String> {
    match name.to_ascii_lowercase().as_str() {
        "" | "utf-8" | "utf8" | "ascii" | "us-ascii" | "utf-8-raw" | "utf8-raw" | "nop" => {
            return Some(String::from_utf8_lossy(bytes).into_owned());
        }
        "utf-16" | "utf16" => {
            let units: Vec<u16> = bytes
                .chunks(2)
                .map(|pair| u16::from(pair[0]) | u16::from(pair.get(1).copied().unwrap_or(0xfd)) << 8)
                .collect();
            return Some(String::from_utf16_lossy(&units));
        }
        _ => {}
    }
    #[cfg(feature = "encodings")]
    return encoding_rs::Encoding::for_label(name.as_bytes())
        .map(|encoding| encoding.decode_without_bom_handling(bytes).0.into_owned());
    #[cfg(not(feature = "encodings"))]
    None
}

fn luhn<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let text = args.text_like(0)?.ok_or_else(|| EvalError::new("nil has no check digit"))?;
    let digits = text.bytes().filter(|byte| *byte != b' ');
    let digits: Vec<u32> = digits
        .map(|byte| {
            char::from(byte)
                .to_digit(10)
                .ok_or_else(|| EvalError::new("what has a check digit has digits and spaces alone"))
        })
        .collect::<Result<_, _>>()?;
    let Some((check, rest)) = digits.split_last() else { return Ok(Value::Bool(false)) };
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 =
        rest.iter().rev().enumerate().map(|(at, digit)| if at % 2 == 0 { doubled(*digit) } else { *digit }).sum();
    Ok(Value::Bool((10 - sum % 10) % 10 == *check))
}

fn csv_fits(literals: &Literals<'_>) -> Result<Prepared, (usize, String)> {
    for at in [2, 3] {
        if literals.text(at).is_some_and(|text| text.chars().count() != 1) {
            return Err((at, "a delimiter is one character".to_owned()));
        }
    }
    match literals.text(4) {
        None | Some("strict" | "lazyQuotes" | "ignoreQuotes") => Ok(Prepared::Nothing),
        Some(other) => Err((4, format!("a mode is strict, lazyQuotes or ignoreQuotes, not {other:?}"))),
    }
}

fn parse_csv<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let (row, header) = (args.text(0)?, args.text(1)?);
    if header.is_empty() {
        return Err(EvalError::new("the header must not be empty"));
    }
    let delimiter = args.text_or(2, ",")?;
    let between = if args.given(3) { args.text(3)? } else { delimiter.clone() };
    let mode = args.text_or(4, "strict")?;
    let comma = delimiter.chars().next().unwrap_or(',');
    let fields = match &*mode {
        "ignoreQuotes" => row.split(comma).map(str::to_owned).collect(),
        mode => csv::row(&row, comma, mode == "lazyQuotes").map_err(EvalError::new)?,
    };
    let names: Vec<&str> = header.split(&*between).collect();
    if names.len() != fields.len() {
        return Err(EvalError::new(format!("{} fields do not fit {} names", fields.len(), names.len())));
    }
    Ok(Value::map(names.into_iter().map(str::to_owned).zip(fields.into_iter().map(Value::text)).collect()))
}

fn parse_json<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let parsed: serde_json::Value =
        serde_json::from_str(&args.text(0)?).map_err(|error| EvalError::new(format!("not JSON: {error}")))?;
    match json(parsed) {
        value @ (Value::Map(_) | Value::List(_)) => Ok(value),
        other => Err(EvalError::new(format!("the JSON must be an object or array, not {}", other.kind()))),
    }
}

fn json(parsed: serde_json::Value) -> Value<'static> {
    match parsed {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Value::text(text),
        serde_json::Value::Array(values) => Value::list(values.into_iter().map(json).collect()),
        serde_json::Value::Object(entries) => {
            Value::map(entries.into_iter().map(|(key, value)| (key, json(value))).collect())
        }
    }
}

/// Whether the delimiters at 1 and 2 are two.
pub(super) fn delimiters_differ(literals: &Literals<'_>) -> Result<Prepared, (usize, String)> {
    let (delimiter, pairs) = (literals.text(1).unwrap_or("="), literals.text(2).unwrap_or(" "));
    match () {
        () if delimiter.is_empty() => Err((1, "a delimiter may not be empty".to_owned())),
        () if pairs.is_empty() => Err((2, "a delimiter may not be empty".to_owned())),
        () if delimiter == pairs => Err((2, format!("both delimiters are {delimiter:?}"))),
        () => Ok(Prepared::Nothing),
    }
}

fn parse_key_value<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let text = args.text(0)?;
    let (delimiter, pairs) = (args.text_or(1, "=")?, args.text_or(2, " ")?);
    if text.is_empty() {
        return Err(EvalError::new("an empty string has no pairs"));
    }
    let mut map = Map::new();
    for pair in split_quoted(&text, &pairs)? {
        let (key, value) =
            pair.split_once(&*delimiter).ok_or_else(|| EvalError::new(format!("{pair:?} has no {delimiter:?}")))?;
        map.insert(key.trim(), Value::text(value.trim()));
    }
    Ok(Value::map(map))
}

/// The parts of `text` between delimiters that are not in quotes; empty ones are left out, and quotes too.
fn split_quoted(text: &str, delimiter: &str) -> Result<Vec<String>, EvalError> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let (mut quote, mut escaped) = (None, false);
    let mut at = 0;
    while let Some(letter) = text.get(at..).and_then(|rest| rest.chars().next()) {
        if quote.is_none() && text.get(at..).is_some_and(|rest| rest.starts_with(delimiter)) {
            at += delimiter.len();
            if !part.is_empty() {
                parts.push(std::mem::take(&mut part));
            }
            continue;
        }
        at += letter.len_utf8();
        if escaped {
            escaped = false;
        } else {
            match quote {
                None if matches!(letter, '"' | '\'') => {
                    quote = Some(letter);
                    continue;
                }
                Some(open) if open == letter => {
                    quote = None;
                    continue;
                }
                _ => escaped = letter == '\\',
            }
        }
        part.push(letter);
    }
    if quote.is_some() {
        return Err(EvalError::new("a quote is not closed"));
    }
    if !part.is_empty() {
        parts.push(part);
    }
    Ok(parts)
}

/// A level and what meets it.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    name: String,
    criteria: Vec<Criterion>,
}

#[derive(Clone, Debug, Default)]
struct Criterion {
    equals: Vec<String>,
    range: Option<(i64, i64)>,
}

fn levels(map: &Map) -> Result<Vec<Level>, String> {
    map.iter()
        .map(|(name, criteria)| {
            let Value::List(criteria) = criteria else {
                return Err("the criteria of a level must be a list".to_owned());
            };
            let criteria = criteria.iter().map(criterion).collect::<Result<_, _>>()?;
            Ok(Level { name: name.to_owned(), criteria })
        })
        .collect()
}

fn criterion(value: &Value<'static>) -> Result<Criterion, String> {
    let Value::Map(map) = value else { return Err("a criterion must be a map".to_owned()) };
    let mut made = Criterion::default();
    match map.get("equals") {
        None => {}
        Some(Value::List(list)) => {
            for value in list.iter() {
                let Value::Text(text) = value else { return Err("`equals` must have strings".to_owned()) };
                made.equals.push(text.clone().into_owned());
            }
        }
        Some(_) => return Err("`equals` must be a list".to_owned()),
    }
    made.range = match map.get("range") {
        None => None,
        Some(Value::Map(range)) => match (range.get("min"), range.get("max")) {
            (Some(Value::Int(least)), Some(Value::Int(most))) => Some((*least, *most)),
            _ => return Err("a range must have `min` and `max`, which are ints".to_owned()),
        },
        Some(Value::Text(name)) => match &**name {
            "2xx" => Some((200, 299)),
            "3xx" => Some((300, 399)),
            "4xx" => Some((400, 499)),
            "5xx" => Some((500, 599)),
            _ => return Err(format!("a range is 2xx, 3xx, 4xx or 5xx, not {name:?}")),
        },
        Some(_) => return Err("a range must be a map or a name".to_owned()),
    };
    Ok(made)
}

fn parse_severity<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let Prepared::Severity(levels) = args.prepared else { return Err(EvalError::new("no mapping")) };
    let levels = levels.as_ref().map_err(|message| EvalError::new(message.clone()))?;
    let value = args.value(0)?;
    let meets = |criterion: &Criterion| match &value {
        Value::Text(text) => criterion.equals.iter().any(|known| known == text),
        Value::Int(number) => criterion.range.is_some_and(|(least, most)| (least..=most).contains(number)),
        _ => false,
    };
    if !matches!(value, Value::Text(_) | Value::Int(_)) && levels.iter().any(|level| !level.criteria.is_empty()) {
        return Err(EvalError::new(format!("a severity is a string or an int, not {}", value.kind())));
    }
    let level = levels.iter().find(|level| level.criteria.iter().any(meets));
    level
        .map(|level| Value::text(level.name.as_str()))
        .ok_or_else(|| EvalError::new(format!("no level has {:?}", attribute(&value))))
}
