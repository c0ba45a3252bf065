//! Points in time and where they are told from.

use std::sync::Arc;

pub(crate) mod layout;
pub(crate) mod strptime;

const DAY: i64 = 86_400;
const NANOS: i128 = 1_000_000_000;

/// A point in time, told in a place.
#[derive(Clone, Debug)]
pub struct Time {
    nanos: i128,
    place: Place,
}

/// Where a time is told.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// UTC.
    Utc,
    /// So many seconds east of it, under a name that may be empty.
    Fixed(i32, Arc<str>),
    /// A zone of the time zone database.
    #[cfg(feature = "zones")]
    Zone(jiff::tz::TimeZone),
}

impl Place {
    /// The zone of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        if name.is_empty() || name == "UTC" {
            return Some(Self::Utc);
        }
        #[cfg(feature = "zones")]
        return jiff::tz::TimeZone::get(name).ok().map(Self::Zone);
        #[cfg(not(feature = "zones"))]
        None
    }

    /// The zone of this machine.
    pub(crate) fn local() -> Self {
        #[cfg(feature = "zones")]
        return match jiff::tz::TimeZone::try_system() {
            Ok(zone) if zone.iana_name().is_some_and(|name| !matches!(name, "UTC" | "Etc/UTC")) => Self::Zone(zone),
            _ => Self::Utc,
        };
        #[cfg(not(feature = "zones"))]
        Self::Utc
    }

    /// Seconds east of UTC at `nanos`, and what the zone is called then.
    fn at(&self, nanos: i128) -> (i32, Arc<str>) {
        let _ = nanos;
        match self {
            Self::Utc => (0, "UTC".into()),
            Self::Fixed(seconds, name) => (*seconds, Arc::clone(name)),
            #[cfg(feature = "zones")]
            Self::Zone(zone) => {
                let limit = i128::from(jiff::Timestamp::MAX.as_second()) * NANOS;
                let timestamp = jiff::Timestamp::from_nanosecond(nanos.clamp(-limit, limit)).unwrap_or_default();
                let told = zone.to_offset_info(timestamp);
                (told.offset().seconds(), told.abbreviation().into())
            }
        }
    }

    /// The time at which a clock there shows `civil`, in ns as if it were UTC.
    pub(crate) fn when(&self, civil: i128) -> i128 {
        // By the offset of then, unless that leads to another one.
        let first = civil - i128::from(self.at(civil).0) * NANOS;
        let second = civil - i128::from(self.at(first).0) * NANOS;
        if self.at(second).0 == self.at(first).0 { second } else { first }
    }

    /// Seconds east of UTC where the zone is called `name`, at about `nanos`.
    pub(crate) fn by_name(&self, name: &str, nanos: i128) -> Option<i32> {
        [0, 182, -182]
            .into_iter()
            .map(|days: i64| self.at(nanos + i128::from(days * DAY) * NANOS))
            .find(|(_, known)| &**known == name)
            .map(|found| found.0)
    }
}

/// A date and time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub nano: i64,
    /// From Sunday.
    pub weekday: i64,
}

impl Civil {
    /// Nanoseconds since 1970, if this were told in UTC.
    pub(crate) fn nanos(&self) -> i128 {
        let seconds = days(self.year, self.month, self.day) * DAY + self.hour * 3600 + self.minute * 60 + self.second;
        i128::from(seconds) * NANOS + i128::from(self.nano)
    }
}

/// Days since 1970 of a date of the Gregorian calendar, by Hinnant's `days_from_civil`.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Its inverse.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

pub(crate) fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Time {
    /// The time `nanos` ns after 1970 began, told in UTC.
    #[must_use]
    pub fn from_nanos(nanos: i128) -> Self {
        Self { nanos, place: Place::Utc }
    }

    pub(crate) fn told_in(nanos: i128, place: Place) -> Self {
        Self { nanos, place }
    }

    /// Nanoseconds since 1970 began, in UTC.
    #[must_use]
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// The time `nanos` later.
    #[must_use]
    pub(crate) fn plus(&self, nanos: i128) -> Self {
        Self { nanos: self.nanos.saturating_add(nanos), place: self.place.clone() }
    }

    /// Whole units of `unit` ns since 1970, rounded down, in 64 bits.
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn since_epoch(&self, unit: i128) -> i64 {
        self.nanos.div_euclid(unit) as i64
    }

    /// The time rounded down to a multiple of `nanos` since the year 1.
    pub(crate) fn truncated(&self, nanos: i64) -> Self {
        if nanos <= 0 {
            return self.clone();
        }
        let since_year_one = self.nanos - i128::from(days(1, 1, 1) * DAY) * NANOS;
        self.plus(-since_year_one.rem_euclid(i128::from(nanos)))
    }

    /// Seconds east of UTC, and the zone's name.
    pub(crate) fn zone(&self) -> (i32, Arc<str>) {
        self.place.at(self.nanos)
    }

    pub(crate) fn civil(&self) -> Civil {
        let local = self.nanos + i128::from(self.zone().0) * NANOS;
        let seconds = i64::try_from(local.div_euclid(NANOS)).unwrap_or_default();
        let nano = i64::try_from(local.rem_euclid(NANOS)).unwrap_or_default();
        let (whole, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = date(whole);
        Civil {
            year,
            month,
            day,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            nano,
            weekday: (whole + 4).rem_euclid(7),
        }
    }

    /// As RFC 3339 has it, with what is left of nanoseconds.
    pub(crate) fn rfc3339(&self) -> String {
        layout::format("2006-01-02T15:04:05.999999999Z07:00", self)
    }
}

/// A duration as Go spells it, in ns: `1h15m30.5s`, `-2ms`, `0`.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i128 = if whole == 0 { 0 } else { rest.get(..whole)?.parse::<i64>().ok()?.into() };
        rest = rest.get(whole..)?;
        let mut fraction = "";
        if let Some(behind) = rest.strip_prefix('.') {
            let length = behind.bytes().take_while(u8::is_ascii_digit).count();
            fraction = behind.get(..length)?;
            rest = behind.get(length..)?;
        }
        if whole == 0 && fraction.is_empty() {
            return None;
        }
        let unit = rest.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(rest.len());
        let scale: i128 = match rest.get(..unit)? {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        rest = rest.get(unit..)?;
        total += number * scale;
        // Digits beyond 18 are less than a nanosecond of any unit.
        let kept = fraction.get(..fraction.len().min(18))?;
        if !kept.is_empty() {
            total += kept.parse::<i128>().ok()? * scale / 10_i128.pow(u32::try_from(kept.len()).ok()?);
        }
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return None;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}
