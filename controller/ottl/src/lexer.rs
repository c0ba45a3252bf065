//! Text to tokens.
//!
//! The rules are tried in the order of the language's definition, and the first that matches wins: `0x1f` is bytes, `1.` a float, and `nil` in the
//! middle of a longer word is part of that word. Numbers have no sign.

use std::ops::Range;

use crate::error::CompileError;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bytes,
    Float,
    Int,
    Text,
    Nil,
    Not,
    Or,
    And,
    Compare,
    Arrow,
    AddSub,
    MulDiv,
    Bool,
    Equal,
    Open,
    Close,
    OpenBrace,
    CloseBrace,
    Colon,
    Comma,
    Dot,
    OpenBracket,
    CloseBracket,
    Upper,
    Lower,
    Underscore,
    End,
}

/// A token and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub kind: Kind,
    pub place: Range<usize>,
}

/// The tokens of `text`; the last is [`Kind::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, CompileError> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let blank = rest.bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)).count();
        if blank > 0 {
            at += blank;
            continue;
        }
        let Some((kind, length)) = next(rest.as_bytes()) else {
            let what = rest.chars().next().unwrap_or_default();
            let message = match what {
                '"' => "this string has no closing quote".to_owned(),
                '\'' => "a string is written in double quotes, \"like this\"".to_owned(),
                '#' => "the language has no comments".to_owned(),
                _ => format!("unexpected character {what:?}"),
            };
            return Err(CompileError::new(text, at..at + what.len_utf8(), message));
        };
        all.push(Token { kind, place: at..at + length });
        at += length;
    }
    all.push(Token { kind: Kind::End, place: text.len()..text.len() });
    Ok(all)
}

fn next(rest: &[u8]) -> Option<(Kind, usize)> {
    let count = |from: usize, accept: fn(&u8) -> bool| rest.iter().skip(from).take_while(|byte| accept(byte)).count();
    let first = *rest.first()?;
    let second = rest.get(1).copied().unwrap_or_default();
    if first == b'0' && second == b'x' {
        let digits = count(2, u8::is_ascii_hexdigit);
        if digits > 0 {
            return Some((Kind::Bytes, 2 + digits));
        }
    }
    if let Some(length) = float(rest) {
        return Some((Kind::Float, length));
    }
    if first.is_ascii_digit() {
        return Some((Kind::Int, count(0, u8::is_ascii_digit)));
    }
    if first == b'"' {
        let mut at = 1;
        loop {
            match rest.get(at)? {
                b'"' => return Some((Kind::Text, at + 1)),
                // What is escaped is no newline, by the definition's `.`.
                b'\\' => match rest.get(at + 1)? {
                    b'\n' => return None,
                    _ => at += 2,
                },
                _ => at += 1,
            }
        }
    }
    for (word, kind) in [
        ("nil", Kind::Nil),
        ("not", Kind::Not),
        ("or", Kind::Or),
        ("and", Kind::And),
        ("true", Kind::Bool),
        ("false", Kind::Bool),
        ("_", Kind::Underscore),
    ] {
        let ends = rest.get(word.len()).is_none_or(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
        if rest.starts_with(word.as_bytes()) && ends {
            return Some((kind, word.len()));
        }
    }
    let two = match (first, second) {
        (b'=' | b'!' | b'>' | b'<', b'=') => Some(Kind::Compare),
        (b'=', b'>') => Some(Kind::Arrow),
        _ => None,
    };
    if let Some(kind) = two {
        return Some((kind, 2));
    }
    let one = match first {
        b'>' | b'<' => Kind::Compare,
        b'+' | b'-' => Kind::AddSub,
        b'*' | b'/' => Kind::MulDiv,
        b'=' => Kind::Equal,
        b'(' => Kind::Open,
        b')' => Kind::Close,
        b'{' => Kind::OpenBrace,
        b'}' => Kind::CloseBrace,
        b':' => Kind::Colon,
        b',' => Kind::Comma,
        b'.' => Kind::Dot,
        b'[' => Kind::OpenBracket,
        b']' => Kind::CloseBracket,
        b'A'..=b'Z' => {
            return Some((
                Kind::Upper,
                count(0, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_'),
            ));
        }
        b'a'..=b'z' => {
            return Some((
                Kind::Lower,
                count(0, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_'),
            ));
        }
        _ => return None,
    };
    Some((one, 1))
}

/// The length of a float: digits with a point before, between or after them, and an exponent.
fn float(rest: &[u8]) -> Option<usize> {
    let digits = |from: usize| rest.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(0);
    if rest.get(whole) != Some(&b'.') {
        return None;
    }
    let fraction = digits(whole + 1);
    if whole + fraction == 0 {
        return None;
    }
    let mut length = whole + 1 + fraction;
    if matches!(rest.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    Some(length)
}

/// What the string literal `quoted` says, quotes included in the argument.
///
/// # Errors
///
/// The escape that is none, as bytes of `quoted`.
pub(crate) fn unquote(quoted: &str) -> Result<String, Range<usize>> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut text = String::with_capacity(inner.len());
    let mut at = 0;
    while let Some(letter) = inner.get(at..).and_then(|rest| rest.chars().next()) {
        if letter != '\\' {
            text.push(letter);
            at += letter.len_utf8();
            continue;
        }
        let (value, length) =
            escape(inner.get(at + 1..).unwrap_or_default()).ok_or(at + 1..(at + 3).min(quoted.len()))?;
        text.push(value);
        at += 1 + length;
    }
    Ok(text)
}

/// The character of an escape, and how long it is behind its backslash.
fn escape(rest: &str) -> Option<(char, usize)> {
    let hexadecimal = |length: usize| {
        let digits = rest.get(1..1 + length).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, 1 + length))
    };
    Some(match rest.bytes().next()? {
        b'a' => ('\u{7}', 1),
        b'b' => ('\u{8}', 1),
        b'f' => ('\u{c}', 1),
        b'n' => ('\n', 1),
        b'r' => ('\r', 1),
        b't' => ('\t', 1),
        b'v' => ('\u{b}', 1),
        b'\\' => ('\\', 1),
        b'"' => ('"', 1),
        b'x' => return hexadecimal(2),
        b'u' => return hexadecimal(4),
        b'U' => return hexadecimal(8),
        b'0'..=b'7' => {
            let digits = rest.get(..3).filter(|digits| digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')))?;
            (char::from(u8::from_str_radix(digits, 8).ok()?), 3)
        }
        _ => return None,
    })
}
