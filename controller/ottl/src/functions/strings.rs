//! Converters of text.

use std::borrow::Cow;

use super::{
    Args, Function, Prepared, Takes, converter,
    editors::{regex, regex_second},
    may, needs,
};
use crate::{
    error::EvalError,
    sprintf::sprintf,
    value::{Map, Value},
};

const TARGET: super::Parameter = needs("target", Takes::Text);

pub(super) const ALL: &[Function] = &[
    converter(
        "Concat",
        &[needs("vals", Takes::TextLikes), needs("delimiter", Takes::Text)],
        "string",
        "Joins values, nil as `<nil>`",
        concat,
    ),
    converter(
        "ConvertCase",
        &[TARGET, needs("to_case", Takes::LiteralText)],
        "string",
        "Text in `lower`, `upper`, `snake` or `camel` case",
        convert_case,
    )
    .prepared(|literals| match literals.text(1) {
        Some("lower" | "upper" | "snake" | "camel") => Ok(Prepared::Nothing),
        other => Err((1, format!("a case is lower, upper, snake or camel, not {:?}", other.unwrap_or_default()))),
    }),
    converter(
        "ExtractPatterns",
        &[TARGET, needs("pattern", Takes::Text)],
        "map",
        "What the named groups of a regular expression match; an empty map if it does not match",
        extract_patterns,
    )
    .prepared(regex_second),
    converter(
        "Format",
        &[needs("format", Takes::LiteralText), needs("vals", Takes::Values)],
        "string",
        "Go's `Sprintf`",
        |args| sprintf(&args.text(0)?, &args.items(1)?).map(Value::text),
    ),
    converter("HasPrefix", &[TARGET, needs("prefix", Takes::Text)], "bool", "Whether text begins so", |args| {
        Ok(Value::Bool(args.text(0)?.starts_with(&*args.text(1)?)))
    }),
    converter("HasSuffix", &[TARGET, needs("suffix", Takes::Text)], "bool", "Whether text ends so", |args| {
        Ok(Value::Bool(args.text(0)?.ends_with(&*args.text(1)?)))
    }),
    converter(
        "IsMatch",
        &[needs("target", Takes::TextLike), needs("pattern", Takes::Text)],
        "bool",
        "Whether a regular expression matches text anywhere; false for nil",
        |args| {
            if let Prepared::Regex(regex) = args.prepared {
                return Ok(Value::Bool(args.text_like(0)?.is_some_and(|text| regex.is_match(&text))));
            }
            let regex = regex(args, 1)?;
            Ok(Value::Bool(args.text_like(0)?.is_some_and(|text| regex.is_match(&text))))
        },
    )
    .prepared(regex_second),
    converter(
        "Split",
        &[TARGET, needs("delimiter", Takes::Text)],
        "list",
        "The parts of text between delimiters; its characters if that is empty",
        split,
    ),
    converter(
        "Substring",
        &[TARGET, needs("start", Takes::Int), needs("length", Takes::Int), may("utf8_safe", Takes::LiteralBool)],
        "string",
        "So many bytes of text from a byte on; with `utf8_safe` no character is cut",
        substring,
    ),
    converter("ToCamelCase", &[TARGET], "string", "Text as `CamelCase`", |args| Ok(Value::text(camel(&args.text(0)?)))),
    converter("ToLowerCase", &[TARGET], "string", "Text in small letters", |args| {
        Ok(Value::text(lower(&args.text(0)?)))
    }),
    converter("ToSnakeCase", &[TARGET], "string", "Text as `snake_case`", |args| {
        Ok(Value::text(snake(&args.text(0)?)))
    }),
    converter("ToUpperCase", &[TARGET], "string", "Text in capital letters", |args| {
        Ok(Value::text(upper(&args.text(0)?)))
    }),
    converter(
        "Trim",
        &[TARGET, may("replacement", Takes::LiteralText)],
        "string",
        "Text without the characters of `replacement`, or spaces, at its ends",
        |args| {
            let cut = args.text_or(1, " ")?;
            Ok(match args.text(0)? {
                Cow::Borrowed(text) => Value::from(text.trim_matches(|letter| cut.contains(letter))),
                Cow::Owned(text) => Value::text(text.trim_matches(|letter| cut.contains(letter))),
            })
        },
    ),
    converter(
        "TrimPrefix",
        &[TARGET, needs("prefix", Takes::Text)],
        "string",
        "Text without what it begins with",
        |args| {
            let (text, prefix) = (args.text(0)?, args.text(1)?);
            Ok(Value::text(text.strip_prefix(&*prefix).unwrap_or(&text)))
        },
    ),
    converter(
        "TrimSuffix",
        &[TARGET, needs("suffix", Takes::Text)],
        "string",
        "Text without what it ends with",
        |args| {
            let (text, suffix) = (args.text(0)?, args.text(1)?);
            Ok(Value::text(text.strip_suffix(&*suffix).unwrap_or(&text)))
        },
    ),
];

type Converted<'a> = Result<Value<'a>, EvalError>;

/// A text of at most so many bytes.
pub(super) fn bounded(text: String) -> Converted<'static> {
    if text.len() > crate::MAX_TEXT {
        return Err(EvalError::new(format!("a text of more than {} bytes", crate::MAX_TEXT)));
    }
    Ok(Value::text(text))
}

fn concat<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let delimiter = args.text(1)?;
    let mut joined = String::new();
    for (at, value) in args.items(0)?.into_iter().enumerate() {
        if at > 0 {
            joined.push_str(&delimiter);
        }
        match super::converted(value)? {
            Some(text) => joined.push_str(&text),
            None => joined.push_str("<nil>"),
        }
        if joined.len() > crate::MAX_TEXT {
            break;
        }
    }
    bounded(joined)
}

fn convert_case<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let text = args.text(0)?;
    Ok(Value::text(match &*args.text(1)? {
        "lower" => lower(&text),
        "upper" => upper(&text),
        "snake" => snake(&text),
        _ => camel(&text),
    }))
}

/// Small letters, each by itself: no letter becomes two, and none looks at its neighbours.
fn lower(text: &str) -> String {
    text.chars().map(|letter| single(letter, letter.to_lowercase())).collect()
}

fn upper(text: &str) -> String {
    text.chars().map(|letter| single(letter, letter.to_uppercase())).collect()
}

fn single(letter: char, mut cased: impl Iterator<Item = char>) -> char {
    match (cased.next(), cased.next()) {
        (Some(only), None) => only,
        // A dotted capital I loses its dot.
        (Some(first), Some(_)) if letter == 'İ' => first,
        _ => letter,
    }
}

fn is_space(letter: char) -> bool {
    letter.is_whitespace()
}

pub(super) fn camel(text: &str) -> String {
    let mut out = Vec::new();
    let (mut capital, mut after_capital) = (true, false);
    for byte in text.trim_matches(is_space).bytes() {
        let is_capital = byte.is_ascii_uppercase();
        let cased = if capital {
            byte.to_ascii_uppercase()
        } else if after_capital && is_capital {
            byte.to_ascii_lowercase()
        } else {
            byte
        };
        after_capital = is_capital;
        if byte.is_ascii_alphanumeric() {
            out.push(cased);
            capital = byte.is_ascii_digit();
        } else {
            capital = matches!(byte, b'_' | b' ' | b'-' | b'.');
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn snake(text: &str) -> String {
    let bytes = text.trim_matches(is_space).as_bytes();
    let mut out = Vec::with_capacity(bytes.len() + 2);
    for (at, &byte) in bytes.iter().enumerate() {
        let (capital, small, digit) = (byte.is_ascii_uppercase(), byte.is_ascii_lowercase(), byte.is_ascii_digit());
        let lowered = byte.to_ascii_lowercase();
        if let Some(&next) = bytes.get(at + 1) {
            let (next_capital, next_small, next_digit) =
                (next.is_ascii_uppercase(), next.is_ascii_lowercase(), next.is_ascii_digit());
            let changes = (capital && (next_small || next_digit))
                || (small && (next_capital || next_digit))
                || (digit && (next_capital || next_small));
            if changes {
                if capital && next_small && at > 0 && bytes[at - 1].is_ascii_uppercase() {
                    out.push(b'_');
                }
                out.push(lowered);
                if small || digit || next_digit {
                    out.push(b'_');
                }
                continue;
            }
        }
        out.push(if matches!(byte, b' ' | b'_' | b'-' | b'.') { b'_' } else { lowered });
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn extract_patterns<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let regex = regex(args, 1)?;
    if regex.capture_names().flatten().next().is_none() {
        return Err(EvalError::new("the regular expression needs a named group"));
    }
    let text = args.text(0)?;
    let mut map = Map::new();
    if let Some(captures) = regex.captures(&text) {
        for (name, found) in regex.capture_names().zip(captures.iter()) {
            if let Some(name) = name {
                map.insert(name, Value::text(found.map_or("", |found| found.as_str())));
            }
        }
    }
    Ok(Value::map(map))
}

fn split<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let (text, delimiter) = (args.text(0)?, args.text(1)?);
    let owned = |part: &str| Value::text(part);
    Ok(Value::list(if delimiter.is_empty() {
        text.chars().map(|letter| Value::text(letter.to_string())).collect()
    } else {
        text.split(&*delimiter).map(owned).collect()
    }))
}

fn substring<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let (start, length) = (args.int(1)?, args.int(2)?);
    if start < 0 || length <= 0 {
        return Err(EvalError::new(format!("a start of {start} and a length of {length} are not positive")));
    }
    let text = args.text(0)?;
    let (Ok(start), Ok(length)) = (usize::try_from(start), usize::try_from(length)) else {
        return Err(EvalError::new("out of range"));
    };
    if start > text.len() || length > text.len() - start {
        return Err(EvalError::new(format!(
            "{length} bytes from {start} on are more than a text of {} has",
            text.len()
        )));
    }
    let (mut from, mut to) = (start, start + length);
    if args.bool_or(3, false)? {
        while from < text.len() && !text.is_char_boundary(from) {
            from += 1;
        }
        while from < to && !text.is_char_boundary(to) {
            to -= 1;
        }
        to = to.max(from);
    }
    Ok(Value::text(String::from_utf8_lossy(text.as_bytes().get(from..to).unwrap_or_default())))
}
