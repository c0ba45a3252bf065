//! What a sample is a sample of.
//!
//! A [`Measure`] goes with samples all the way from the event that made them to the file that shows them. Nothing merges samples
//! of two measures, and no format writes those of one under another's name.
//!
//! A [`Source`](source::Source) is what makes them: an event and its rate, as users write them. A [`Clock`] says when.
//!
//! Not here: samples, the kernel, formats.
#![forbid(unsafe_code)]

mod clock;
pub mod source;

pub use clock::Clock;

/// A quantity: its kind and its unit, as pprof spells them (`cpu`, `nanoseconds`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueType {
    /// `samples`, `cpu`, `alloc_space`, ...
    pub kind: String,
    /// `count`, `nanoseconds`, `bytes`, ...
    pub unit: String,
}

impl ValueType {
    /// The quantity `kind`, counted in `unit`.
    #[must_use]
    pub fn new(kind: &str, unit: &str) -> Self {
        Self { kind: kind.to_owned(), unit: unit.to_owned() }
    }
}

/// One kind of measurement: which source made the samples, what a sample's value counts, and how far apart samples are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Measure {
    /// The event that makes samples, as users write it: `cpu-clock`, `page-faults`, `tracepoint:sched:sched_switch`; "" where a
    /// file does not say.
    pub source: String,
    /// What a sample's value counts.
    pub sample_type: ValueType,
    /// What [`Self::period`] counts.
    pub period_type: ValueType,
    /// Distance between samples in units of [`Self::period_type`]; 0 if it is unknown, or differs from sample to sample (their
    /// values then say what each is worth).
    pub period: u64,
}

impl Measure {
    /// Samples of CPU time, each worth one, `period` ns of CPU time apart.
    #[must_use]
    pub fn cpu_clock(period: u64) -> Self {
        Self {
            source: "cpu-clock".to_owned(),
            sample_type: ValueType::new("samples", "count"),
            period_type: ValueType::new("cpu", "nanoseconds"),
            period,
        }
    }
}
