//! Times, sizes and shares as people write them.

use std::time::Duration;

use super::errors::quoted;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

/// In seconds.
const TIMES: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("min", 60.0), ("h", 3600.0)];
const SIZES: [(&str, u64); 5] = [("B", 1), ("KiB", KIB), ("MiB", MIB), ("GiB", GIB), ("TiB", TIB)];

/// The number and the unit behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number = number.parse::<f64>().ok().filter(|number| number.is_finite())?;
    Some((number, unit.trim()))
}

/// The grammar of times, which configuration and command line share, as JSON Schema has it.
pub(super) const TIME_PATTERN: &str = r"^([0-9]+(\.[0-9]+)? *(h|min|m|s|ms) *)+$";

/// Reads a time: `500ms`, `10s`, `1.5m`, `2min`, `1h`, or several of them, the larger unit first: `1m30s`.
///
/// # Errors
/// Says what is wrong, and what a right one looks like.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    const RIGHT: &str = "write it with ms, s, m or min, and h, like 500ms, 10s, 2min or 1m30s";
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(format!("{} is no time: {RIGHT}", quoted(text)));
    }
    // Zero is zero in every unit.
    if rest.starts_with('0') && rest.chars().all(|c| matches!(c, '0' | '.')) && rest.parse::<f64>().is_ok() {
        return Ok(Duration::ZERO);
    }
    let mut millis = 0.0;
    let mut last = f64::INFINITY;
    while !rest.is_empty() {
        let (part, behind) = first_part(rest);
        let Some((number, unit)) = split(part) else {
            return Err(format!("{} is no time: {RIGHT}", quoted(text)));
        };
        let before = text.get(..text.len() - rest.len()).unwrap_or_default();
        if unit.is_empty() {
            return Err(format!("{} has no unit: {RIGHT}; perhaps {before}{number}s", quoted(part)));
        }
        let Some((_, seconds)) = TIMES.iter().find(|(name, _)| *name == unit) else {
            let guess = match unit.to_ascii_lowercase().as_str() {
                "sec" | "secs" | "second" | "seconds" => Some("s"),
                "mins" | "minute" | "minutes" => Some("m"),
                "hour" | "hours" | "hr" | "hrs" => Some("h"),
                "msec" | "millis" | "milliseconds" => Some("ms"),
                _ => None,
            };
            let guess = guess.map_or_else(String::new, |unit| format!("; perhaps {before}{number}{unit}"));
            return Err(format!("{} is no unit of time: {RIGHT}{guess}", quoted(unit)));
        };
        if *seconds >= last {
            return Err(format!("{} has {unit} behind a unit that is not larger: {RIGHT}", quoted(text)));
        }
        last = *seconds;
        millis += number * seconds * 1000.0;
        rest = behind;
    }
    // To the millisecond: nothing here needs finer times, and what is shown is what is used. A thousand years at most.
    if millis > 3.2e13 {
        Err(format!("{} is too long", quoted(text)))
    } else {
        Ok(Duration::from_millis(millis.round() as u64))
    }
}

/// The first number with its unit, and what is behind it.
fn first_part(text: &str) -> (&str, &str) {
    let digit = |c: char| c.is_ascii_digit() || c == '.';
    let unit = text.find(|c: char| !digit(c)).unwrap_or(text.len());
    let end = text.get(unit..).and_then(|rest| rest.find(digit)).map_or(text.len(), |at| unit + at);
    text.split_at(end)
}

/// The text that [`parse_time`] reads back.
pub(super) fn show_time(time: &Duration) -> String {
    let millis = time.as_millis();
    if millis == 0 {
        "0s".to_owned()
    } else if !millis.is_multiple_of(1000) {
        format!("{millis}ms")
    } else if !millis.is_multiple_of(60_000) {
        format!("{}s", millis / 1000)
    } else if !millis.is_multiple_of(3_600_000) {
        format!("{}m", millis / 60_000)
    } else {
        format!("{}h", millis / 3_600_000)
    }
}

/// `4MiB`, `512KiB`, `1.5GiB`, `100B`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    const RIGHT: &str = "write it with B, KiB, MiB, GiB or TiB, like 4MiB or 512KiB";
    let Some((number, unit)) = split(text) else {
        return Err(format!("{} is no size: {RIGHT}", quoted(text)));
    };
    if unit.is_empty() {
        if number == 0.0 {
            return Ok(0);
        }
        return Err(format!("{} has no unit: {RIGHT}; perhaps {number}B", quoted(text)));
    }
    let Some((_, bytes)) = SIZES.iter().find(|(name, _)| *name == unit) else {
        let letter = unit.chars().next().map(|c| c.to_ascii_uppercase());
        let guess = match letter {
            Some(letter @ ('K' | 'M' | 'G' | 'T')) => format!("; perhaps {number}{letter}iB"),
            _ => String::new(),
        };
        return Err(format!("{} is no unit of size: {RIGHT}{guess}", quoted(unit)));
    };
    // f64 holds whole bytes exactly up to 8 PiB.
    let bytes = number * *bytes as f64;
    if bytes > (8 * 1024 * TIB) as f64 { Err(format!("{} is too large", quoted(text))) } else { Ok(bytes as u64) }
}

/// The text that [`parse_size`] reads back.
pub(super) fn show_size(bytes: &u64) -> String {
    let unit = SIZES.iter().rev().find(|(_, unit)| *bytes >= *unit && bytes.is_multiple_of(*unit));
    let (name, unit) = unit.copied().unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

/// `2%`.
pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    match split(text) {
        Some((number, "%")) => Ok(number),
        Some((number, "")) => Err(format!("{} has no unit: write it like {number}%", quoted(text))),
        _ => Err(format!("{} is no share: write it like 2%", quoted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_time("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("500 ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("0"), Ok(Duration::ZERO));
        assert_eq!(parse_time("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_time("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time(" 1h 2min 3.5s 6ms "), Ok(Duration::from_millis(3_723_506)));
        for (wrong, hint) in [
            ("10", "perhaps 10s"),
            ("10 sec", "perhaps 10s"),
            ("2mins", "perhaps 2m"),
            ("1d", "and h"),
            ("", "no time"),
            ("1m30", "perhaps 1m30s"),
            ("1m 30 secs", "perhaps 1m 30s"),
            ("30s1m", "not larger"),
            ("1m2min", "not larger"),
            ("s", "no time"),
            ("1..5s", "no time"),
        ] {
            let error = parse_time(wrong).expect_err("refused");
            assert!(error.contains(hint), "{wrong}: {error}");
        }
        assert!(parse_time("-1s").is_err());
        assert!(parse_time("99999999999999999999999h").is_err());
        assert!(parse_time("1e5s").is_err());
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("4MiB"), Ok(4 << 20));
        assert_eq!(parse_size("512 KiB"), Ok(512 << 10));
        assert_eq!(parse_size("1.5GiB"), Ok(3 << 29));
        for (wrong, hint) in [
            ("4MB", "perhaps 4MiB"),
            ("4M", "perhaps 4MiB"),
            ("100", "perhaps 100B"),
            ("4mib", "perhaps 4MiB"),
            ("x", "no size"),
        ] {
            let error = parse_size(wrong).expect_err("refused");
            assert!(error.contains(hint), "{wrong}: {error}");
        }
        assert!(parse_size("9999999999TiB").is_err());
    }

    #[test]
    fn shares_have_a_percent_sign() {
        assert_eq!(parse_percent("2%"), Ok(2.0));
        assert_eq!(parse_percent("0.5 %"), Ok(0.5));
        assert!(parse_percent("0.02").expect_err("refused").contains("0.02%"));
        assert!(parse_percent("two").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(millis in 0_u64..1_000_000_000, bytes in 0_u64..1 << 50) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(parse_time(&show_time(&time)), Ok(time));
            let (minutes, seconds, rest) = (millis / 60_000, millis / 1000 % 60, millis % 1000);
            prop_assert_eq!(parse_time(&format!("{minutes}min {seconds}s{rest}ms")), Ok(time));
            prop_assert_eq!(parse_size(&show_size(&bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_them_panic(text in ".{0,20}") {
            let _ = (parse_time(&text), parse_size(&text), parse_percent(&text));
        }
    }
}
