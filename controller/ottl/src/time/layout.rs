//! Go's layouts: a time is written as the reference time, Mon Jan 2 15:04:05 MST 2006, would be.

use std::fmt::Write;

use super::{Civil, Place, Time, days_in};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// What a piece of a layout stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    LongMonth,
    Month,
    NumMonth,
    ZeroMonth,
    LongWeekday,
    Weekday,
    Day,
    UnderDay,
    ZeroDay,
    Hour,
    Hour12,
    ZeroHour12,
    Minute,
    ZeroMinute,
    Second,
    ZeroSecond,
    LongYear,
    Year,
    Upper,
    Lower,
    Zone,
    /// An offset: whether `Z` stands for UTC, and its form.
    Offset(bool, Form),
    /// A fraction of a second: whether zeros at its end go, and how many digits.
    Fraction(bool, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Hours,
    Minutes,
    ColonMinutes,
    Seconds,
    ColonSeconds,
}

/// The pieces by what they look like; of two that begin alike the longer is first.
const PIECES: &[(&str, Piece)] = &[
    ("January", Piece::LongMonth),
    ("Monday", Piece::LongWeekday),
    ("2006", Piece::LongYear),
    ("01", Piece::ZeroMonth),
    ("02", Piece::ZeroDay),
    ("03", Piece::ZeroHour12),
    ("04", Piece::ZeroMinute),
    ("05", Piece::ZeroSecond),
    ("06", Piece::Year),
    ("15", Piece::Hour),
    ("1", Piece::NumMonth),
    ("2", Piece::Day),
    ("3", Piece::Hour12),
    ("4", Piece::Minute),
    ("5", Piece::Second),
    ("_2", Piece::UnderDay),
    ("PM", Piece::Upper),
    ("pm", Piece::Lower),
    ("MST", Piece::Zone),
    ("-070000", Piece::Offset(false, Form::Seconds)),
    ("-07:00:00", Piece::Offset(false, Form::ColonSeconds)),
    ("-0700", Piece::Offset(false, Form::Minutes)),
    ("-07:00", Piece::Offset(false, Form::ColonMinutes)),
    ("-07", Piece::Offset(false, Form::Hours)),
    ("Z070000", Piece::Offset(true, Form::Seconds)),
    ("Z07:00:00", Piece::Offset(true, Form::ColonSeconds)),
    ("Z0700", Piece::Offset(true, Form::Minutes)),
    ("Z07:00", Piece::Offset(true, Form::ColonMinutes)),
    ("Z07", Piece::Offset(true, Form::Hours)),
];

/// The text before the first piece of `layout`, the piece with its text, and what follows.
fn split(layout: &str) -> Option<(&str, Piece, &str, &str)> {
    for (at, _) in layout.char_indices() {
        let rest = layout.get(at..)?;
        let cut =
            |length: usize, piece: Piece| Some((layout.get(..at)?, piece, rest.get(..length)?, rest.get(length..)?));
        // An underscore before a year is one, and no space before a day.
        if rest.starts_with("_2006") {
            return Some((layout.get(..at + 1)?, Piece::LongYear, rest.get(1..5)?, rest.get(5..)?));
        }
        if let Some((text, piece)) = PIECES.iter().find(|(text, _)| rest.starts_with(text)) {
            return cut(text.len(), *piece);
        }
        // Short names, unless they begin a longer word.
        for (text, piece) in [("Jan", Piece::Month), ("Mon", Piece::Weekday)] {
            if rest.starts_with(text) && !rest.as_bytes().get(3).is_some_and(u8::is_ascii_lowercase) {
                return cut(3, piece);
            }
        }
        if let Some(digits) = rest.strip_prefix(['.', ',']) {
            let digit = digits.bytes().next().filter(|digit| matches!(digit, b'0' | b'9'));
            if let Some(digit) = digit {
                let count = digits.bytes().take_while(|byte| *byte == digit).count();
                if !digits.as_bytes().get(count).is_some_and(u8::is_ascii_digit) {
                    return cut(1 + count, Piece::Fraction(digit == b'9', count));
                }
            }
        }
    }
    None
}

/// `time` in `layout`.
pub(crate) fn format(layout: &str, time: &Time) -> String {
    let mut text = String::new();
    let civil = time.civil();
    let mut rest = layout;
    while let Some((before, piece, shown, behind)) = split(rest) {
        text.push_str(before);
        write_piece(&mut text, piece, shown, time, &civil);
        rest = behind;
    }
    text.push_str(rest);
    text
}

fn write_piece(text: &mut String, piece: Piece, shown: &str, time: &Time, civil: &Civil) {
    let name = |names: &'static [&'static str], at: i64| {
        usize::try_from(at).ok().and_then(|at| names.get(at)).copied().unwrap_or_default()
    };
    let hour12 = if civil.hour % 12 == 0 { 12 } else { civil.hour % 12 };
    let _ = match piece {
        Piece::LongMonth => write!(text, "{}", name(&MONTHS, civil.month - 1)),
        Piece::Month => write!(text, "{:.3}", name(&MONTHS, civil.month - 1)),
        Piece::NumMonth => write!(text, "{}", civil.month),
        Piece::ZeroMonth => write!(text, "{:02}", civil.month),
        Piece::LongWeekday => write!(text, "{}", name(&DAYS, civil.weekday)),
        Piece::Weekday => write!(text, "{:.3}", name(&DAYS, civil.weekday)),
        Piece::Day => write!(text, "{}", civil.day),
        Piece::UnderDay => write!(text, "{:2}", civil.day),
        Piece::ZeroDay => write!(text, "{:02}", civil.day),
        Piece::Hour => write!(text, "{:02}", civil.hour),
        Piece::Hour12 => write!(text, "{hour12}"),
        Piece::ZeroHour12 => write!(text, "{hour12:02}"),
        Piece::Minute => write!(text, "{}", civil.minute),
        Piece::ZeroMinute => write!(text, "{:02}", civil.minute),
        Piece::Second => write!(text, "{}", civil.second),
        Piece::ZeroSecond => write!(text, "{:02}", civil.second),
        Piece::LongYear if civil.year < 0 => write!(text, "-{:04}", -civil.year),
        Piece::LongYear => write!(text, "{:04}", civil.year),
        Piece::Year => write!(text, "{:02}", civil.year.rem_euclid(100)),
        Piece::Upper => write!(text, "{}", if civil.hour >= 12 { "PM" } else { "AM" }),
        Piece::Lower => write!(text, "{}", if civil.hour >= 12 { "pm" } else { "am" }),
        Piece::Zone => match time.zone() {
            (offset, zone) if zone.is_empty() => {
                let minutes = offset / 60;
                write!(
                    text,
                    "{}{:02}{}",
                    if minutes < 0 { '-' } else { '+' },
                    minutes.abs() / 60,
                    minutes_of_hour(minutes)
                )
            }
            (_, zone) => write!(text, "{zone}"),
        },
        Piece::Offset(zulu, form) => {
            let seconds = time.zone().0;
            if zulu && seconds == 0 { write!(text, "Z") } else { write!(text, "{}", offset(seconds, form)) }
        }
        Piece::Fraction(trimmed, digits) => {
            let fraction = format!("{:09}", civil.nano);
            let mut fraction = fraction.get(..digits.min(9)).unwrap_or_default().to_owned();
            if trimmed {
                fraction.truncate(fraction.trim_end_matches('0').len());
            }
            if fraction.is_empty() { Ok(()) } else { write!(text, "{}{fraction}", shown.get(..1).unwrap_or_default()) }
        }
    };
}

fn minutes_of_hour(minutes: i32) -> String {
    match minutes.abs() % 60 {
        0 => String::from("00"),
        minutes => format!("{minutes:02}"),
    }
}

fn offset(seconds: i32, form: Form) -> String {
    // The sign is that of whole minutes.
    let sign = if seconds / 60 < 0 { '-' } else { '+' };
    let (hours, minutes, rest) = (seconds.abs() / 3600, seconds.abs() / 60 % 60, seconds.abs() % 60);
    match form {
        Form::Hours => format!("{sign}{hours:02}"),
        Form::Minutes => format!("{sign}{hours:02}{minutes:02}"),
        Form::ColonMinutes => format!("{sign}{hours:02}:{minutes:02}"),
        Form::Seconds => format!("{sign}{hours:02}{minutes:02}{rest:02}"),
        Form::ColonSeconds => format!("{sign}{hours:02}:{minutes:02}:{rest:02}"),
    }
}

/// Why a text does not fit a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The piece, or the text between pieces, that does not fit.
    pub element: String,
    /// What stands there.
    pub found: String,
    pub message: String,
}

fn misfit<T>(element: &str, found: &str, message: &str) -> Result<T, Misfit> {
    let message = if message.is_empty() { format!("{found:?} does not fit {element:?}") } else { message.to_owned() };
    Err(Misfit { element: element.to_owned(), found: found.to_owned(), message })
}

/// What has been read so far.
struct Read {
    civil: Civil,
    month: Option<i64>,
    day: Option<i64>,
    pm: bool,
    am: bool,
    utc: bool,
    offset: Option<i32>,
    zone: String,
}

/// The time that `text` is in `layout`, told in `place` if it does not say where.
pub(crate) fn parse(layout: &str, text: &str, place: &Place) -> Result<Time, Misfit> {
    let civil = Civil { year: 0, month: 1, day: 1, hour: 0, minute: 0, second: 0, nano: 0, weekday: 0 };
    let mut read =
        Read { civil, month: None, day: None, pm: false, am: false, utc: false, offset: None, zone: String::new() };
    let (mut layout, mut value) = (layout, text);
    loop {
        let (before, piece) = match split(layout) {
            Some((before, piece, shown, behind)) => (before, Some((piece, shown, behind))),
            None => (layout, None),
        };
        value = skip(value, before).or_else(|()| misfit(before, value, ""))?;
        let Some((piece, shown, behind)) = piece else {
            if !value.is_empty() {
                return misfit("", value, &format!("{value:?} is left over"));
            }
            break;
        };
        layout = behind;
        let held = value;
        value = match read_piece(&mut read, piece, shown, value, layout) {
            Ok(rest) => rest,
            Err(Wrong::Form) => return misfit(shown, held, ""),
            Err(Wrong::Range(rest)) => return misfit(shown, rest, &format!("{held:?} is out of range for {shown:?}")),
        };
    }
    finish(read, text, place)
}

enum Wrong<'t> {
    Form,
    Range(&'t str),
}

fn skip<'t>(mut value: &'t str, mut prefix: &str) -> Result<&'t str, ()> {
    while let Some(letter) = prefix.chars().next() {
        if letter == ' ' {
            if !value.is_empty() && !value.starts_with(' ') {
                return Err(());
            }
            prefix = prefix.trim_start_matches(' ');
            value = value.trim_start_matches(' ');
            continue;
        }
        value = value.strip_prefix(letter).ok_or(())?;
        prefix = prefix.get(letter.len_utf8()..).unwrap_or_default();
    }
    Ok(value)
}

fn digit(text: &str, at: usize) -> Option<i64> {
    text.as_bytes().get(at).filter(|byte| byte.is_ascii_digit()).map(|byte| i64::from(byte - b'0'))
}

/// One or two digits; exactly two if `fixed`.
fn two(text: &str, fixed: bool) -> Result<(i64, &str), Wrong<'static>> {
    let first = digit(text, 0).ok_or(Wrong::Form)?;
    match digit(text, 1) {
        Some(second) => Ok((first * 10 + second, text.get(2..).unwrap_or_default())),
        None if fixed => Err(Wrong::Form),
        None => Ok((first, text.get(1..).unwrap_or_default())),
    }
}

fn ranged<'t>(text: &'t str, fixed: bool, range: std::ops::RangeInclusive<i64>) -> Result<(i64, &'t str), Wrong<'t>> {
    let (number, rest) = two(text, fixed)?;
    if range.contains(&number) { Ok((number, rest)) } else { Err(Wrong::Range(rest)) }
}

/// Which of `names`, or of their first `length` letters, `text` begins with, whatever their case.
fn named<'t>(names: &[&str], length: usize, text: &'t str) -> Result<(i64, &'t str), Wrong<'t>> {
    for (at, name) in (0_i64..).zip(names) {
        let name = name.get(..length.min(name.len())).unwrap_or(name);
        if text.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name)) {
            return Ok((at, text.get(name.len()..).unwrap_or_default()));
        }
    }
    Err(Wrong::Form)
}

fn read_piece<'t>(
    read: &mut Read,
    piece: Piece,
    shown: &str,
    value: &'t str,
    layout: &str,
) -> Result<&'t str, Wrong<'t>> {
    let (number, rest) = match piece {
        Piece::Year => {
            let (Some(first), Some(second)) = (digit(value, 0), digit(value, 1)) else { return Err(Wrong::Form) };
            let year = first * 10 + second;
            (if year >= 69 { 1900 + year } else { 2000 + year }, value.get(2..).unwrap_or_default())
        }
        Piece::LongYear => {
            let digits =
                value.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())).ok_or(Wrong::Form)?;
            (digits.parse().map_err(|_| Wrong::Form)?, value.get(4..).unwrap_or_default())
        }
        Piece::Month => named(&MONTHS, 3, value).map(|(at, rest)| (at + 1, rest))?,
        Piece::LongMonth => named(&MONTHS, 9, value).map(|(at, rest)| (at + 1, rest))?,
        Piece::NumMonth | Piece::ZeroMonth => ranged(value, piece == Piece::ZeroMonth, 1..=12)?,
        Piece::Weekday => named(&DAYS, 3, value)?,
        Piece::LongWeekday => named(&DAYS, 9, value)?,
        Piece::UnderDay => two(value.strip_prefix(' ').unwrap_or(value), false)?,
        Piece::Day | Piece::ZeroDay => two(value, piece == Piece::ZeroDay)?,
        Piece::Hour => ranged(value, false, 0..=23)?,
        Piece::Hour12 | Piece::ZeroHour12 => ranged(value, piece == Piece::ZeroHour12, 0..=12)?,
        Piece::Minute | Piece::ZeroMinute => ranged(value, piece == Piece::ZeroMinute, 0..=59)?,
        Piece::Second | Piece::ZeroSecond => ranged(value, piece == Piece::ZeroSecond, 0..=59)?,
        Piece::Upper | Piece::Lower => {
            let (pm, am) = if piece == Piece::Upper { ("PM", "AM") } else { ("pm", "am") };
            match value.get(..2) {
                Some(half) if half == pm => read.pm = true,
                Some(half) if half == am => read.am = true,
                _ => return Err(Wrong::Form),
            }
            (0, value.get(2..).unwrap_or_default())
        }
        Piece::Fraction(true, _) => (0, read_fraction(read, value).unwrap_or(value)),
        Piece::Fraction(false, digits) => {
            let rest = value.get(1 + digits..).filter(|_| value.starts_with(['.', ','])).ok_or(Wrong::Form)?;
            read.civil.nano = nanos(value.get(1..=digits).unwrap_or_default()).ok_or(Wrong::Form)?;
            (0, rest)
        }
        Piece::Zone => (0, read_zone(read, value)?),
        Piece::Offset(zulu, form) => (0, read_offset(read, zulu, form, value)?),
    };
    match piece {
        Piece::Year | Piece::LongYear => read.civil.year = number,
        Piece::Month | Piece::LongMonth | Piece::NumMonth | Piece::ZeroMonth => read.month = Some(number),
        Piece::Day | Piece::UnderDay | Piece::ZeroDay => read.day = Some(number),
        Piece::Hour | Piece::Hour12 | Piece::ZeroHour12 => read.civil.hour = number,
        Piece::Minute | Piece::ZeroMinute => read.civil.minute = number,
        Piece::Second | Piece::ZeroSecond => {
            read.civil.second = number;
            // A fraction may follow that the layout has no piece for.
            if !split(layout).is_some_and(|(_, next, ..)| matches!(next, Piece::Fraction(..))) {
                return Ok(read_fraction(read, rest).unwrap_or(rest));
            }
        }
        _ => {}
    }
    let _ = shown;
    Ok(rest)
}

fn read_fraction<'t>(read: &mut Read, value: &'t str) -> Option<&'t str> {
    let digits = value.strip_prefix(['.', ','])?;
    let count = digits.bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 {
        return None;
    }
    read.civil.nano = nanos(digits.get(..count)?)?;
    digits.get(count..)
}

fn nanos(digits: &str) -> Option<i64> {
    let digits = digits.get(..digits.len().min(9))?;
    format!("{digits:0<9}").parse().ok()
}

fn read_zone<'t>(read: &mut Read, value: &'t str) -> Result<&'t str, Wrong<'t>> {
    if let Some(rest) = value.strip_prefix("UTC") {
        read.utc = true;
        return Ok(rest);
    }
    let length = zone_length(value).ok_or(Wrong::Form)?;
    value.get(..length).unwrap_or_default().clone_into(&mut read.zone);
    Ok(value.get(length..).unwrap_or_default())
}

fn zone_length(value: &str) -> Option<usize> {
    if value.len() < 3 {
        return None;
    }
    if value.starts_with("ChST") || value.starts_with("MeST") {
        return Some(4);
    }
    if let Some(rest) = value.strip_prefix("GMT") {
        return Some(3 + if rest.is_empty() { 0 } else { signed_length(rest) });
    }
    if value.starts_with(['+', '-']) {
        return Some(signed_length(value)).filter(|length| *length > 0);
    }
    let letters = value.bytes().take(6).take_while(u8::is_ascii_uppercase).count();
    match letters {
        5 if value.as_bytes().get(4) == Some(&b'T') => Some(5),
        4 if value.as_bytes().get(3) == Some(&b'T') || value.starts_with("WITA") => Some(4),
        3 => Some(3),
        _ => None,
    }
}

/// How long `+3` or `-11` is, hours from -23 to 23.
fn signed_length(value: &str) -> usize {
    let Some(digits) = value.strip_prefix(['+', '-']) else { return 0 };
    let count = digits.bytes().take_while(u8::is_ascii_digit).count();
    match digits.get(..count).and_then(|digits| digits.parse::<u32>().ok()) {
        Some(hours) if hours <= 23 => 1 + count,
        _ => 0,
    }
}

fn read_offset<'t>(read: &mut Read, zulu: bool, form: Form, value: &'t str) -> Result<&'t str, Wrong<'t>> {
    if zulu && let Some(rest) = value.strip_prefix('Z') {
        read.utc = true;
        return Ok(rest);
    }
    let shape: &str = match form {
        Form::Hours => "+hh",
        Form::Minutes => "+hhmm",
        Form::ColonMinutes => "+hh:mm",
        Form::Seconds => "+hhmmss",
        Form::ColonSeconds => "+hh:mm:ss",
    };
    let spelled = value.get(..shape.len()).ok_or(Wrong::Form)?;
    let mut parts = [0_i64; 3];
    let mut negative = false;
    for (kind, letter) in shape.bytes().zip(spelled.bytes()) {
        let digit = i64::from(letter.wrapping_sub(b'0'));
        let place = match kind {
            b'+' => {
                negative = letter == b'-';
                if !matches!(letter, b'+' | b'-') {
                    return Err(Wrong::Form);
                }
                continue;
            }
            b':' if letter == b':' => continue,
            b':' => return Err(Wrong::Form),
            b'h' => 0,
            b'm' => 1,
            _ => 2,
        };
        if !letter.is_ascii_digit() {
            return Err(Wrong::Form);
        }
        parts[place] = parts[place] * 10 + digit;
    }
    let rest = value.get(shape.len()..).unwrap_or_default();
    if parts[0] > 24 || parts[1] > 60 || parts[2] > 60 {
        return Err(Wrong::Range(rest));
    }
    let seconds = i32::try_from((parts[0] * 60 + parts[1]) * 60 + parts[2]).unwrap_or_default();
    read.offset = Some(if negative { -seconds } else { seconds });
    Ok(rest)
}

fn finish(read: Read, text: &str, place: &Place) -> Result<Time, Misfit> {
    let mut civil = read.civil;
    if read.pm && civil.hour < 12 {
        civil.hour += 12;
    } else if read.am && civil.hour == 12 {
        civil.hour = 0;
    }
    civil.month = read.month.unwrap_or(1);
    civil.day = read.day.unwrap_or(1);
    if civil.day < 1 || civil.day > days_in(civil.year, civil.month) {
        return misfit("", text, &format!("{text:?} has a day that its month has not"));
    }
    let civil = civil.nanos();
    let second = super::NANOS;
    if read.utc {
        return Ok(Time::told_in(civil, Place::Utc));
    }
    if let Some(offset) = read.offset {
        let nanos = civil - i128::from(offset) * second;
        let (local, name) = place.at(nanos);
        if local == offset && (read.zone.is_empty() || *name == *read.zone) {
            return Ok(Time::told_in(nanos, place.clone()));
        }
        return Ok(Time::told_in(nanos, Place::Fixed(offset, read.zone.into())));
    }
    if !read.zone.is_empty() {
        if let Some(offset) = place.by_name(&read.zone, civil) {
            return Ok(Time::told_in(civil - i128::from(offset) * second, place.clone()));
        }
        let hours = read.zone.strip_prefix("GMT").and_then(|hours| hours.parse::<i32>().ok()).unwrap_or_default();
        return Ok(Time::told_in(civil, Place::Fixed(hours * 3600, read.zone.into())));
    }
    Ok(Time::told_in(place.when(civil), place.clone()))
}
