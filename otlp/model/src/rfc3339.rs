//! Times as text (RFC 3339), as `process.creation.time` wants them.

const NANOS: u64 = 1_000_000_000;

/// `nanos` since the Unix epoch as `2026-11-23T12:46:55.123456789Z`; the fraction is left out where it is 0.
pub fn format(nanos: u64) -> String {
    let (seconds, fraction) = (nanos / NANOS, nanos % NANOS);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:09}") };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The ns since the Unix epoch that `text` says; `None` if it is no RFC 3339 time or out of range.
pub fn parse(text: &str) -> Option<u64> {
    if text.len() > 64 || !text.is_ascii() {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is = |index: usize, any: &str| text.get(index..=index).is_some_and(|found| any.contains(found));
    if !(is(4, "-") && is(7, "-") && is(10, "Tt ") && is(13, ":") && is(16, ":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut zone = text.get(19..)?;
    let mut nanos = 0;
    if let Some(rest) = zone.strip_prefix('.') {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, rest) = rest.split_at_checked(end)?;
        zone = rest;
        let nine = format!("{digits:0<9}");
        nanos = nine.get(..9)?.parse::<i128>().ok()?;
    }
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let start = text.len().checked_sub(6)?;
            if zone.len() != 6 || !is(start, "+-") || !is(start + 3, ":") {
                return None;
            }
            let minutes = number(start + 1..start + 3)? * 60 + number(start + 4..start + 6)?;
            if is(start, "-") { -minutes } else { minutes }
        }
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset * 60;
    u64::try_from(i128::from(seconds) * i128::from(NANOS) + nanos).ok()
}

/// Year, month and day of a day number since 1970-01-01, by the proleptic Gregorian calendar: years are counted from March, in
/// eras of 400 years, so that leap days come last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The day number of a date; the inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written() {
        assert_eq!(format(0), "1970-01-01T00:00:00Z");
        assert_eq!(format(951_782_400 * NANOS), "2000-02-29T00:00:00Z");
        assert_eq!(format(1_795_438_015_000_000_001), "2026-11-23T12:46:55.000000001Z");
        assert_eq!(format(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn offsets_and_fractions_are_read() {
        assert_eq!(parse("1970-01-01T01:00:00.5+01:00"), Some(NANOS / 2));
        assert_eq!(parse("1969-12-31T23:00:00-01:00"), Some(0));
        assert_eq!(parse("2000-02-29T00:00:00Z"), Some(951_782_400 * NANOS));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2000-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2000-01-01T00:00:00",
            "é",
            "9999-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_time_reads_back(nanos: u64) {
            proptest::prop_assert_eq!(parse(&format(nanos)), Some(nanos));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}") {
            parse(&text);
        }
    }
}
