//! Go's `Sprintf`, for the values of the language.

use std::fmt::Write;

use crate::{
    error::EvalError,
    text,
    value::{Id, Value},
};

/// The widest that a value is padded, and the most digits it is written with.
const MAX_WIDTH: usize = 10_000;

/// How a value is written.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
struct Verb {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `format` with `values` in it.
///
/// # Errors
///
/// A width or precision beyond bounds.
pub(crate) fn sprintf(format: &str, values: &[Value<'_>]) -> Result<String, EvalError> {
    let letters: Vec<char> = format.chars().collect();
    let mut out = String::new();
    let (mut at, mut next, mut reordered) = (0, 0, false);
    while let Some(&letter) = letters.get(at) {
        at += 1;
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut verb = Verb::default();
        let mut good = true;
        while let Some(flag) = letters.get(at) {
            match flag {
                '-' => (verb.minus, verb.zero) = (true, false),
                '+' => verb.plus = true,
                '#' => verb.sharp = true,
                ' ' => verb.space = true,
                '0' => verb.zero = !verb.minus,
                _ => break,
            }
            at += 1;
        }
        index(&letters, &mut at, &mut next, &mut good, &mut reordered, values.len());
        if letters.get(at) == Some(&'*') {
            at += 1;
            match starred(values.get(next)) {
                Some(width) => {
                    verb.minus |= width < 0;
                    verb.zero &= !verb.minus;
                    verb.width = usize::try_from(width.unsigned_abs()).ok();
                }
                None => out.push_str("%!(BADWIDTH)"),
            }
            next += usize::from(next < values.len());
        } else {
            verb.width = number(&letters, &mut at)?;
        }
        if letters.get(at) == Some(&'.') {
            at += 1;
            index(&letters, &mut at, &mut next, &mut good, &mut reordered, values.len());
            if letters.get(at) == Some(&'*') {
                at += 1;
                match starred(values.get(next)) {
                    Some(precision) => verb.precision = usize::try_from(precision).ok(),
                    None => out.push_str("%!(BADPREC)"),
                }
                next += usize::from(next < values.len());
            } else {
                verb.precision = Some(number(&letters, &mut at)?.unwrap_or_default());
            }
        }
        index(&letters, &mut at, &mut next, &mut good, &mut reordered, values.len());
        let Some(&kind) = letters.get(at) else {
            out.push_str("%!(NOVERB)");
            break;
        };
        at += 1;
        match values.get(next) {
            _ if kind == '%' => out.push('%'),
            _ if !good => {
                let _ = write!(out, "%!{kind}(BADINDEX)");
            }
            None => {
                let _ = write!(out, "%!{kind}(MISSING)");
            }
            Some(value) => {
                verb.print(&mut out, kind, value, 0);
                next += 1;
            }
        }
        if out.len() > crate::MAX_TEXT {
            return Err(EvalError::new(format!("a text of more than {} bytes", crate::MAX_TEXT)));
        }
    }
    if !reordered && next < values.len() {
        out.push_str("%!(EXTRA ");
        for (at, value) in values[next..].iter().enumerate() {
            if at > 0 {
                out.push_str(", ");
            }
            match value {
                Value::Nil => out.push_str("<nil>"),
                value => {
                    let _ = write!(out, "{}=", go_type(value));
                    Verb::default().print(&mut out, 'v', value, 0);
                }
            }
        }
        out.push(')');
    }
    Ok(out)
}

fn starred(value: Option<&Value<'_>>) -> Option<i64> {
    match value {
        Some(Value::Int(number)) if number.unsigned_abs() <= MAX_WIDTH as u64 => Some(*number),
        _ => None,
    }
}

fn number(letters: &[char], at: &mut usize) -> Result<Option<usize>, EvalError> {
    let digits: String = letters[*at..].iter().take_while(|letter| letter.is_ascii_digit()).collect();
    *at += digits.len();
    if digits.is_empty() {
        return Ok(None);
    }
    let number = digits.parse().ok().filter(|number| *number <= MAX_WIDTH);
    number.map(Some).ok_or_else(|| EvalError::new(format!("a width or precision of more than {MAX_WIDTH}")))
}

/// `[2]` in front of a verb: which value is meant.
fn index(letters: &[char], at: &mut usize, next: &mut usize, good: &mut bool, reordered: &mut bool, count: usize) {
    if letters.get(*at) != Some(&'[') {
        return;
    }
    *reordered = true;
    let Some(end) = letters[*at..].iter().position(|letter| *letter == ']') else {
        *good = false;
        *at += 1;
        return;
    };
    let inner: String = letters[*at + 1..*at + end].iter().collect();
    *at += end + 1;
    match inner.parse::<usize>() {
        Ok(number) if number >= 1 && number <= count => *next = number - 1,
        _ => *good = false,
    }
}

/// What Go calls the type of `value`.
fn go_type(value: &Value<'_>) -> &'static str {
    match value {
        Value::Nil => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::Bytes(_) => "[]uint8",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "pcommon.Map",
        Value::Time(_) => "time.Time",
        Value::Duration(_) => "time.Duration",
        Value::Id(Id::Profile(_)) => "pprofile.ProfileID",
        Value::Id(Id::Trace(_)) => "pcommon.TraceID",
        Value::Id(Id::Span(_)) => "pcommon.SpanID",
        Value::Opaque(opaque) => opaque.kind,
    }
}

impl Verb {
    fn pad(&self, out: &mut String, text: &str) {
        let missing = self.width.unwrap_or_default().saturating_sub(text.chars().count());
        if self.minus {
            out.push_str(text);
            out.extend(std::iter::repeat_n(' ', missing));
        } else {
            out.extend(std::iter::repeat_n(if self.zero { '0' } else { ' ' }, missing));
            out.push_str(text);
        }
    }

    fn bad(&self, out: &mut String, kind: char, value: &Value<'_>) {
        let _ = write!(out, "%!{kind}(");
        match value {
            Value::Nil => out.push_str("<nil>"),
            value => {
                let _ = write!(out, "{}=", go_type(value));
                Self::default().print(out, 'v', value, 0);
            }
        }
        out.push(')');
    }

    fn print(&self, out: &mut String, kind: char, value: &Value<'_>, depth: usize) {
        if kind == 'T' {
            return Self { zero: false, ..*self }.text(out, 's', go_type(value));
        }
        match value {
            Value::Nil if kind == 'v' => self.pad(out, "<nil>"),
            Value::Nil => self.bad(out, kind, value),
            Value::Bool(truth) if matches!(kind, 't' | 'v') => self.pad(out, if *truth { "true" } else { "false" }),
            Value::Int(number) => self.int(out, kind, *number, value),
            Value::Float(number) => self.float(out, kind, *number, value),
            Value::Text(text) => match kind {
                'v' if self.sharp => self.pad(out, &quote(text)),
                'v' | 's' => self.text(out, kind, text),
                'q' => self.pad(out, &quote(self.cut(text))),
                'x' | 'X' => self.hexadecimal(out, kind, text.as_bytes()),
                _ => self.bad(out, kind, value),
            },
            Value::Bytes(bytes) => match kind {
                's' => self.text(out, kind, &String::from_utf8_lossy(bytes)),
                'q' => self.pad(out, &quote(self.cut(&String::from_utf8_lossy(bytes)))),
                'x' | 'X' => self.hexadecimal(out, kind, bytes),
                _ => self.sequence(out, kind, bytes.iter().map(|byte| Value::Int(i64::from(*byte))), depth),
            },
            Value::List(list) if depth < 64 => self.sequence(out, kind, list.iter().map(Value::borrowed), depth),
            // Go prints addresses here; what the map has is of more use.
            Value::Map(_) => self.text(out, 's', &text::attribute(value)),
            Value::Duration(nanos) if matches!(kind, 'v' | 's') => self.text(out, 's', &spelled(*nanos)),
            Value::Duration(nanos) => self.int(out, kind, *nanos, value),
            Value::Time(time) if matches!(kind, 'v' | 's') => {
                self.text(out, 's', &crate::time::layout::format("2006-01-02 15:04:05.999999999 -0700 MST", time));
            }
            Value::Id(id) if matches!(kind, 'v' | 's') => self.text(out, 's', &text::hex(id.bytes())),
            Value::Id(id) if matches!(kind, 'x' | 'X') => self.hexadecimal(out, kind, id.bytes()),
            _ => self.bad(out, kind, value),
        }
    }

    fn sequence<'v>(&self, out: &mut String, kind: char, values: impl Iterator<Item = Value<'v>>, depth: usize) {
        out.push('[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                out.push(' ');
            }
            self.print(out, kind, &value, depth + 1);
        }
        out.push(']');
    }

    fn cut<'t>(&self, text: &'t str) -> &'t str {
        let Some(precision) = self.precision else { return text };
        text.char_indices().nth(precision).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
    }

    fn text(&self, out: &mut String, _: char, text: &str) {
        self.pad(out, self.cut(text));
    }

    fn hexadecimal(&self, out: &mut String, kind: char, bytes: &[u8]) {
        let bytes = bytes.get(..self.precision.unwrap_or(bytes.len()).min(bytes.len())).unwrap_or(bytes);
        let mut digits = if self.space {
            bytes
                .iter()
                .map(|byte| format!("{}{byte:02x}", if self.sharp { "0x" } else { "" }))
                .collect::<Vec<_>>()
                .join(" ")
        } else {
            format!("{}{}", if self.sharp && !bytes.is_empty() { "0x" } else { "" }, text::hex(bytes))
        };
        if kind == 'X' {
            digits = digits.to_uppercase();
        }
        self.pad(out, &digits);
    }

    fn int(&self, out: &mut String, kind: char, number: i64, value: &Value<'_>) {
        let size = number.unsigned_abs();
        let (digits, prefix) = match kind {
            'd' | 'v' => (size.to_string(), ""),
            'b' => (format!("{size:b}"), if self.sharp { "0b" } else { "" }),
            'o' => (format!("{size:o}"), if self.sharp { "0" } else { "" }),
            'O' => (format!("{size:o}"), "0o"),
            'x' => (format!("{size:x}"), if self.sharp { "0x" } else { "" }),
            'X' => (format!("{size:X}"), if self.sharp { "0X" } else { "" }),
            'c' | 'q' | 'U' => {
                let letter = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                let shown = match kind {
                    'c' => letter.to_string(),
                    'q' => format!("{letter:?}"),
                    _ => format!("U+{size:04X}"),
                };
                return self.pad(out, &shown);
            }
            _ => return self.bad(out, kind, value),
        };
        if self.precision == Some(0) && number == 0 {
            return Self { zero: false, ..*self }.pad(out, "");
        }
        let sign = if number < 0 {
            "-"
        } else if self.plus {
            "+"
        } else if self.space {
            " "
        } else {
            ""
        };
        let least = match (self.precision, self.width) {
            (Some(precision), _) => precision,
            (None, Some(width)) if self.zero && !self.minus => width.saturating_sub(sign.len()),
            _ => 0,
        };
        Self { zero: false, ..*self }.pad(out, &format!("{sign}{prefix}{digits:0>least$}"));
    }

    fn float(&self, out: &mut String, kind: char, number: f64, value: &Value<'_>) {
        let size = number.abs();
        let body = if !number.is_finite() {
            if number.is_nan() { "NaN".to_owned() } else { "Inf".to_owned() }
        } else {
            match kind {
                'f' | 'F' => format!("{size:.*}", self.precision.unwrap_or(6)),
                'e' | 'E' => text::exponential(size, Some(self.precision.unwrap_or(6)), true),
                'g' | 'G' | 'v' => general(size, self.precision, if kind == 'v' { 21 } else { 0 }),
                _ => return self.bad(out, kind, value),
            }
        };
        if !number.is_finite() && !matches!(kind, 'f' | 'F' | 'e' | 'E' | 'g' | 'G' | 'v') {
            return self.bad(out, kind, value);
        }
        let body = if matches!(kind, 'E' | 'G') { body.to_uppercase() } else { body };
        let sign = if number.is_sign_negative() && !number.is_nan() {
            "-"
        } else if self.plus {
            "+"
        } else if self.space {
            " "
        } else {
            ""
        };
        let infinite = if number.is_infinite() && sign.is_empty() { "+" } else { sign };
        if self.zero && !self.minus && number.is_finite() {
            let width = self.width.unwrap_or_default().saturating_sub(sign.len());
            let _ = write!(out, "{sign}{body:0>width$}");
            return;
        }
        Self { zero: false, ..*self }.pad(out, &format!("{infinite}{body}"));
    }
}

/// `%g`: the shortest spelling, or `precision` digits, in the form that suits its size.
fn general(size: f64, precision: Option<usize>, shortest_limit: i32) -> String {
    if size == 0.0 {
        return "0".to_owned();
    }
    let spelled = match precision {
        Some(precision) => format!("{size:.*e}", precision.max(1) - 1),
        None => format!("{size:e}"),
    };
    let Some((mantissa, exponent)) = spelled.split_once('e') else { return spelled };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let digits = mantissa.trim_end_matches('0').trim_end_matches('.');
    let count = i32::try_from(mantissa.bytes().filter(u8::is_ascii_digit).count()).unwrap_or(21);
    let limit = match precision {
        Some(precision) => i32::try_from(precision.max(1)).unwrap_or(i32::MAX).max(if count > 0 { 1 } else { 0 }),
        None if shortest_limit > 0 => shortest_limit,
        None => 21,
    };
    if exponent < -4 || exponent >= limit {
        let digits = if precision.is_some() { digits } else { mantissa };
        let (sign, size) = if exponent < 0 { ('-', -exponent) } else { ('+', exponent) };
        return format!("{digits}e{sign}{size:02}");
    }
    match precision {
        None => format!("{size}"),
        Some(precision) => {
            let after =
                usize::try_from(i32::try_from(precision.max(1)).unwrap_or(i32::MAX) - 1 - exponent).unwrap_or_default();
            let fixed = format!("{size:.after$}");
            if fixed.contains('.') { fixed.trim_end_matches('0').trim_end_matches('.').to_owned() } else { fixed }
        }
    }
}

/// A duration as Go spells it.
pub(crate) fn spelled(nanos: i64) -> String {
    let size = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let trimmed = |whole: u64, fraction: u64, digits: usize| {
        let text = format!("{whole}.{fraction:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match size {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", trimmed(size / 1_000, size % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", trimmed(size / 1_000_000, size % 1_000_000, 6)),
        _ => {
            let (seconds, rest) = (size / 1_000_000_000, size % 1_000_000_000);
            let tail = format!("{}s", trimmed(seconds % 60, rest, 9));
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{sign}{tail}"),
                (0, minutes) => format!("{sign}{minutes}m{tail}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{tail}"),
            }
        }
    }
}

/// A string literal of Go.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            control if control.is_ascii_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
