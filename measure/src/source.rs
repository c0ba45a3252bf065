//! What makes samples: events of the kernel, and how far apart they are sampled.

use std::fmt;
use std::str::FromStr;

use crate::{Measure, ValueType};

/// An event that can make samples.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// One that has a name of its own: an index into [`NAMED`].
    Named(usize),
    /// A hardware event by its number, as the CPU's manual has it.
    Raw(u64),
    /// A place in the kernel's code that tells when it is passed.
    Tracepoint {
        /// As its folder in tracefs is called.
        group: String,
        /// As its folder in its group is called.
        name: String,
    },
}

/// An event with a name of its own.
#[derive(Debug)]
pub struct Named {
    /// As users write it.
    pub name: &'static str,
    /// In a few words.
    pub meaning: &'static str,
    /// Who counts it.
    pub kind: Kind,
    /// `perf_event_attr::config`, the kernel's number of it.
    pub config: u64,
    /// Its period is ns of CPU time, and its samples count one each.
    is_clock: bool,
}

/// Who counts an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The kernel, by itself.
    Software,
    /// A counter of the machine.
    Hardware,
}

const fn software(name: &'static str, config: u64, meaning: &'static str) -> Named {
    Named { name, meaning, kind: Kind::Software, config, is_clock: false }
}

const fn clock(name: &'static str, config: u64, meaning: &'static str) -> Named {
    Named { is_clock: true, ..software(name, config, meaning) }
}

const fn hardware(name: &'static str, config: u64, meaning: &'static str) -> Named {
    Named { kind: Kind::Hardware, ..software(name, config, meaning) }
}

/// All events with names of their own, numbered as in `linux/perf_event.h`; the first is the default. A new one is a row here.
pub const NAMED: &[Named] = &[
    clock("cpu-clock", 0, "CPU time, ns"),
    clock("task-clock", 1, "CPU time by the scheduler's clock, ns"),
    software("page-faults", 2, "page faults"),
    software("minor-faults", 5, "page faults that needed no I/O"),
    software("major-faults", 6, "page faults that needed I/O"),
    software("context-switches", 3, "a thread leaves its CPU"),
    software("cpu-migrations", 4, "a thread comes to another CPU"),
    hardware("cycles", 0, "CPU cycles"),
    hardware("instructions", 1, "instructions retired"),
    hardware("cache-misses", 3, "last-level cache misses"),
    hardware("branch-misses", 5, "mispredicted branches"),
];

impl Event {
    /// The default.
    pub const CPU_CLOCK: Self = Self::Named(0);

    /// Its row of [`NAMED`], if it has a name of its own.
    #[must_use]
    pub fn named(&self) -> Option<&'static Named> {
        match self {
            Self::Named(index) => NAMED.get(*index),
            _ => None,
        }
    }

    /// Whether it counts CPU time, so that a sample's worth is its period.
    #[must_use]
    pub fn is_clock(&self) -> bool {
        self.named().is_some_and(|named| named.is_clock)
    }

    /// Whether it is a tracepoint.
    #[must_use]
    pub fn is_tracepoint(&self) -> bool {
        matches!(self, Self::Tracepoint { .. })
    }

    /// Whether the kernel counts it by itself, without a counter of the machine.
    fn is_software(&self) -> bool {
        self.named().is_some_and(|named| named.kind == Kind::Software)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(_) => f.write_str(self.named().map_or("", |named| named.name)),
            Self::Raw(config) => write!(f, "r{config:x}"),
            Self::Tracepoint { group, name } => write!(f, "tracepoint:{group}:{name}"),
        }
    }
}

/// A text that names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is no event of this name.
    #[error("there is no event {0:?}")]
    Unknown(String),
    /// What a tracepoint is called is no name.
    #[error("{0:?} names no tracepoint: write it like tracepoint:sched:sched_switch")]
    Tracepoint(String),
    /// What is behind the `@` says no rate.
    #[error("{0:?} is no rate: write EVENT@N for every N events, EVENT@N Hz for N samples a second")]
    Rate(String),
    /// A clock does not tick so often.
    #[error("{0} ns is too short for a clock: 10000 ns at least")]
    Short(u64),
}

/// The names that users may write, for a hint at the nearest.
pub fn event_names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|named| named.name)
}

impl FromStr for Event {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if let Some(index) = NAMED.iter().position(|named| named.name == text) {
            return Ok(Self::Named(index));
        }
        if let Some(rest) = text.strip_prefix("tracepoint:") {
            // The names become a path.
            let sound = |name: &str| {
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
            };
            return match rest.split_once(':') {
                Some((group, name)) if sound(group) && sound(name) => {
                    Ok(Self::Tracepoint { group: group.to_owned(), name: name.to_owned() })
                }
                _ => Err(SourceError::Tracepoint(text.to_owned())),
            };
        }
        let raw = text.strip_prefix('r').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        raw.and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self::Raw)
            .ok_or_else(|| SourceError::Unknown(text.to_owned()))
    }
}

/// How far apart samples are, on each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// So many events; ns of CPU time for a clock.
    Every(u64),
    /// So many samples a second, Hz.
    Frequency(u64),
}

/// Events that stand for one sample at most: what a sample is worth has 48 bits.
const MAX_PERIOD: u64 = (1 << 48) - 1;
/// The kernel's shortest period of a clock, ns.
const MIN_CLOCK_PERIOD: u64 = 10_000;
const SECOND: u64 = 1_000_000_000;

/// An event and how it is sampled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// What makes samples.
    pub event: Event,
    /// How many.
    pub rate: Rate,
}

impl Source {
    /// The default: CPU time, `frequency` samples a second of it.
    #[must_use]
    pub const fn cpu_clock(frequency: u64) -> Self {
        Self { event: Event::CPU_CLOCK, rate: Rate::Frequency(frequency) }
    }

    /// From `EVENT`, `EVENT@N` (every N events) or `EVENT@N Hz` (N times a second); without `@`, `frequency` times a second.
    ///
    /// # Errors
    /// There is no such event, or that is no rate.
    pub fn parse(text: &str, frequency: u64) -> Result<Self, SourceError> {
        let (event, rate) = text.split_once('@').map_or((text, None), |(event, rate)| (event, Some(rate)));
        let event: Event = event.trim().parse()?;
        let Some(text) = rate.map(str::trim) else { return Ok(Self { event, rate: Rate::Frequency(frequency) }) };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let wrong = || SourceError::Rate(text.to_owned());
        let number: u64 = number.parse().ok().filter(|number| (1..=MAX_PERIOD).contains(number)).ok_or_else(wrong)?;
        let rate = match unit.trim() {
            "" if event.is_clock() && number < MIN_CLOCK_PERIOD => return Err(SourceError::Short(number)),
            "" => Rate::Every(number),
            unit if unit.eq_ignore_ascii_case("hz") => Rate::Frequency(number),
            _ => return Err(wrong()),
        };
        Ok(Self { event, rate })
    }

    /// A clock's period, ns.
    #[must_use]
    pub fn clock_period(&self) -> u64 {
        match self.rate {
            Rate::Every(period) => period,
            Rate::Frequency(frequency) => SECOND / frequency.max(1),
        }
    }

    /// What the kernel half needs to count the events by itself, if it is to: events from sample to sample, and ns from sample to sample
    /// if the former is to follow.
    #[must_use]
    pub fn counted(&self) -> Option<[u64; 2]> {
        match self.rate {
            Rate::Every(hits) if self.event.is_tracepoint() => Some([hits, 0]),
            Rate::Frequency(frequency)
                if self.event.is_tracepoint() || self.event.is_software() && !self.event.is_clock() =>
            {
                Some([1, SECOND / frequency.max(1)])
            }
            _ => None,
        }
    }

    /// Whether what samples this can go on as `other`: only a clock has the same event of the kernel's for both kinds of rate.
    #[must_use]
    pub fn changes_live_to(&self, other: &Self) -> bool {
        let kind = |source: &Self| std::mem::discriminant(&source.rate);
        self.event == other.event && (self.event.is_clock() || kind(self) == kind(other))
    }

    /// Samples a second and CPU, where that is known beforehand.
    #[must_use]
    pub fn frequency(&self) -> Option<u64> {
        match self.rate {
            Rate::Frequency(frequency) => Some(frequency),
            Rate::Every(period) => self.event.is_clock().then(|| SECOND / period.max(1)),
        }
    }

    /// The same, sampled `rate` / `of` as often.
    #[must_use]
    pub fn scaled(&self, rate: u64, of: u64) -> Self {
        let (rate, of) = (u128::from(rate.max(1)), u128::from(of.max(1)));
        let part = |value: u64, times: u128, by: u128| {
            u64::try_from((u128::from(value) * times / by).max(1)).unwrap_or(MAX_PERIOD)
        };
        let rate = match self.rate {
            Rate::Every(period) => Rate::Every(part(period, of, rate).min(MAX_PERIOD)),
            Rate::Frequency(frequency) => Rate::Frequency(part(frequency, rate, of)),
        };
        Self { event: self.event.clone(), rate }
    }

    /// The distance between samples like the one whose record has this `value`: 0 if it differs from sample to sample.
    #[must_use]
    pub fn period(&self, value: u64) -> u64 {
        match self.rate {
            _ if self.event.is_clock() => value,
            // A tracepoint's distance from sample to sample is not exact in the moment in which it changes.
            Rate::Every(period) if !self.event.is_tracepoint() || value == period => value,
            _ => 0,
        }
    }

    /// What the sample counts whose record has this `value`: a clock's counts one.
    #[must_use]
    pub fn count(&self, value: u64) -> u64 {
        if self.event.is_clock() { 1 } else { value }
    }

    /// What samples are a sample of that are `period` apart, as [`Self::period`] says.
    #[must_use]
    pub fn measure(&self, period: u64) -> Measure {
        let source = self.event.to_string();
        if self.event.is_clock() {
            return Measure { source, ..Measure::cpu_clock(period) };
        }
        let kind = source.strip_prefix("tracepoint:").unwrap_or(&source);
        let counted = ValueType::new(kind, "count");
        Measure { sample_type: counted.clone(), period_type: counted, period, source }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate {
            Rate::Every(period) => write!(f, "{}@{period}", self.event),
            Rate::Frequency(frequency) => write!(f, "{}@{frequency}Hz", self.event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Source, SourceError> {
        Source::parse(text, 99)
    }

    #[test]
    fn sources_are_read_as_they_are_written() {
        for (text, written) in [
            ("cpu-clock", "cpu-clock@99Hz"),
            ("cpu-clock@49Hz", "cpu-clock@49Hz"),
            ("task-clock@1000000", "task-clock@1000000"),
            ("page-faults@1", "page-faults@1"),
            ("page-faults @ 200 hz", "page-faults@200Hz"),
            ("r01c2@5000", "r1c2@5000"),
            ("tracepoint:sched:sched_switch@7", "tracepoint:sched:sched_switch@7"),
        ] {
            assert_eq!(parsed(text).map(|source| source.to_string()), Ok(written.to_owned()), "{text}");
        }
        for named in NAMED {
            assert_eq!(named.name.parse::<Event>().map(|event| event.to_string()), Ok(named.name.to_owned()));
        }
    }

    #[test]
    fn what_is_no_source_is_told() {
        assert_eq!(parsed("page-fault"), Err(SourceError::Unknown("page-fault".into())));
        assert_eq!(parsed("rxyz"), Err(SourceError::Unknown("rxyz".into())));
        for name in ["tracepoint:sched", "tracepoint:../x:y", "tracepoint::y", "tracepoint:a:b/c"] {
            assert_eq!(parsed(name), Err(SourceError::Tracepoint(name.into())));
        }
        for rate in ["", "0", "-1", "x", "5 ms", "0Hz", "281474976710656", "99999999999999999999"] {
            let wrong = parsed(&format!("page-faults@{rate}"));
            assert_eq!(wrong, Err(SourceError::Rate(rate.trim().into())), "{rate}");
        }
        assert_eq!(parsed("cpu-clock@9999"), Err(SourceError::Short(9999)));
    }

    #[test]
    fn what_a_sample_is_worth_is_its_measure() {
        let of = |text, value| {
            let source = parsed(text).unwrap();
            (source.measure(source.period(value)), source.count(value))
        };
        assert_eq!(of("cpu-clock", 10_101_010), (Measure::cpu_clock(10_101_010), 1));
        let (measure, count) = of("page-faults@5", 5);
        assert_eq!((measure.sample_type.kind.as_str(), measure.period, count), ("page-faults", 5, 5));
        let (measure, count) = of("tracepoint:a:b@9Hz", 17);
        assert_eq!((measure.sample_type.kind.as_str(), measure.period, count), ("a:b", 0, 17));
        assert_eq!(measure.source, "tracepoint:a:b");
    }

    #[test]
    fn a_lower_rate_is_a_lower_rate_of_each() {
        let scaled = |text| parsed(text).unwrap().scaled(33, 99).to_string();
        assert_eq!(scaled("cpu-clock"), "cpu-clock@33Hz");
        assert_eq!(scaled("page-faults@2"), "page-faults@6");
        assert_eq!(scaled("page-faults@1Hz"), "page-faults@1Hz");
    }
}
