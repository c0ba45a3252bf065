//! Samples by what they count: what formats show that have room for one sample type.
//!
//! A document may hold samples of several measures, and of one measure with several periods (the rate was changed). What counts
//! the same belongs together; what does not is never added up. Where periods differ, each sample is worth its own profile's
//! period, so that sums stay true.

use std::iter;

use profiler_measure::ValueType;
use rustc_hash::FxHashMap;

use crate::{Profile, Profiles, Sample, headline::CPU_PROFILE};

/// All samples of a document that count the same thing.
#[derive(Clone, Debug)]
pub struct Measured<'a> {
    parts: Vec<Part<'a>>,
    /// Periods differ: a value is worth its period.
    scaled: bool,
    name: String,
}

/// A profile, and which value of its samples it is about.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    profile: &'a Profile,
    index: usize,
    /// As [`Profiles::profiles`].
    position: usize,
}

/// A sample type that is asked for and is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no sample type {name:?} in this profile; it has {known}")]
pub struct UnknownSampleType {
    /// As asked for.
    pub name: String,
    /// What is there, with commas.
    pub known: String,
}

/// Whether values of `kind` are numbers of samples, each worth a period.
#[must_use]
pub fn counts_samples(kind: &ValueType) -> bool {
    kind.unit == "count" && (kind.kind == "samples" || kind.kind == "sample")
}

impl<'a> Part<'a> {
    fn kind(&self) -> ValueType {
        // A file that does not say what it counts counts samples.
        self.profile.sample_types.get(self.index).cloned().unwrap_or_else(|| ValueType::new("samples", "count"))
    }

    /// The period, where a value is a number of samples and each is known to be worth one.
    fn worth(&self) -> Option<i64> {
        let known = self.profile.period > 0 && !self.profile.period_type.unit.is_empty();
        (known && counts_samples(&self.kind())).then_some(self.profile.period)
    }

    /// What it counts: parts that agree in this belong together.
    fn counted(&self) -> (ValueType, &'a str, Option<&'a ValueType>, bool) {
        let kind = self.kind();
        let every = counts_samples(&kind).then_some(&self.profile.period_type);
        (kind, &self.profile.source, every, self.worth().is_some())
    }
}

impl Profiles {
    /// What the document counts, in order of first appearance; at least one entry, though it may be without samples.
    #[must_use]
    pub fn measured(&self) -> Vec<Measured<'_>> {
        static NOTHING: Profile = Profile::NOTHING;
        let mut all: Vec<Measured<'_>> = Vec::new();
        let mut known = FxHashMap::default();
        let profiles = self.profiles.iter().enumerate();
        for (position, profile) in
            profiles.chain(iter::once((usize::MAX, &NOTHING)).filter(|_| self.profiles.is_empty()))
        {
            for index in 0..profile.sample_types.len().max(1) {
                let part = Part { profile, index, position };
                let next = all.len();
                match all.get_mut(*known.entry(part.counted()).or_insert(next)) {
                    Some(known) => known.parts.push(part),
                    None => all.push(Measured { parts: vec![part], scaled: false, name: String::new() }),
                }
            }
        }
        for measured in &mut all {
            let first = measured.parts.first().map_or(0, |part| part.profile.period);
            measured.scaled = measured.parts.iter().any(|part| part.worth().is_some() && part.profile.period != first);
        }
        let kinds: Vec<String> = all.iter().map(|measured| measured.sample_type().kind).collect();
        let mut names: Vec<String> = Vec::with_capacity(all.len());
        for (measured, own) in all.iter().zip(&kinds) {
            let (source, every) = (measured.source().to_owned(), measured.period_type().kind.clone());
            let is_alone = kinds.iter().filter(|kind| *kind == own).count() == 1;
            let first = if is_alone || source.is_empty() { own.clone() } else { source };
            let is_free = |name: &String| !names.contains(name);
            // People choose by name: no two are called the same.
            let name = [first, every].into_iter().find(|name| is_free(name));
            let mut numbered = (2_u32..).map(|number| format!("{own}_{number}"));
            names.push(name.or_else(|| numbered.find(is_free)).unwrap_or_default());
        }
        for (measured, name) in all.iter_mut().zip(names) {
            measured.name = name;
        }
        all
    }

    /// The index, among [`Self::measured`], of what is shown first: what the file says, else the last type of its first profile, as
    /// `go tool pprof` has it.
    #[must_use]
    pub fn shown_first(&self) -> usize {
        let said = self.profiles.iter().position(|profile| profile.default_sample_type.is_some());
        let position = said.unwrap_or(0);
        let Some(profile) = self.profiles.get(position) else { return 0 };
        let index = profile.default_sample_type.unwrap_or(profile.sample_types.len().saturating_sub(1));
        let is_it = |part: &Part<'_>| part.position == position && part.index == index;
        self.measured().iter().position(|measured| measured.parts.iter().any(is_it)).unwrap_or(0)
    }

    /// What is shown where there is room for one: what `name` names (a sample type, a source, or what a period counts), else what
    /// is shown first.
    ///
    /// # Errors
    ///
    /// The document has nothing of this name.
    pub fn shown(&self, name: Option<&str>) -> Result<Measured<'_>, UnknownSampleType> {
        let mut all = self.measured();
        let Some(name) = name else { return Ok(all.swap_remove(self.shown_first().min(all.len() - 1))) };
        let by = |of: fn(&Measured<'_>) -> String| all.iter().position(|measured| of(measured) == name);
        let found = by(|measured| measured.name.clone())
            .or_else(|| by(|measured| measured.sample_type().kind))
            .or_else(|| by(|measured| measured.source().to_owned()))
            .or_else(|| by(|measured| measured.period_type().kind.clone()));
        match found {
            Some(position) => Ok(all.swap_remove(position)),
            None => {
                let known: Vec<&str> = all.iter().map(|measured| measured.name.as_str()).collect();
                Err(UnknownSampleType { name: name.to_owned(), known: known.join(", ") })
            }
        }
    }
}

impl<'a> Measured<'a> {
    /// Its name, for a choice among all of a document.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The event that made the samples; "" if unknown.
    #[must_use]
    pub fn source(&self) -> &'a str {
        self.parts.first().map_or("", |part| part.profile.source.as_str())
    }

    /// What the values of [`Self::samples`] count.
    #[must_use]
    pub fn sample_type(&self) -> ValueType {
        match self.parts.first() {
            Some(part) if self.scaled => part.profile.period_type.clone(),
            Some(part) => part.kind(),
            None => ValueType::default(),
        }
    }

    /// What a period counts.
    #[must_use]
    pub fn period_type(&self) -> &'a ValueType {
        static NONE: ValueType = ValueType { kind: String::new(), unit: String::new() };
        self.parts.first().map_or(&NONE, |part| &part.profile.period_type)
    }

    /// The period; 0 if it is unknown or not one.
    #[must_use]
    pub fn period(&self) -> i64 {
        let mut periods = self.parts.iter().map(|part| part.profile.period);
        let first = periods.next().unwrap_or(0);
        if periods.all(|period| period == first) { first } else { 0 }
    }

    /// The profiles that it is in, each with the index of its sample type.
    pub fn parts(&self) -> impl Iterator<Item = (&'a Profile, usize)> + Clone + '_ {
        self.parts.iter().map(|part| (part.profile, part.index))
    }

    /// What one of the values of profile `position` (as [`Profiles::profiles`]) is worth here.
    #[must_use]
    pub fn scale(&self, position: usize) -> u64 {
        let part = self.parts.iter().find(|part| part.position == position);
        let worth = part.filter(|_| self.scaled).and_then(Part::worth);
        worth.and_then(|worth| u64::try_from(worth).ok()).unwrap_or(1)
    }

    /// Positions of the profiles that it is in, as [`Profiles::profiles`], each with the index of its sample type.
    pub fn positions(&self) -> impl Iterator<Item = (usize, usize)> + Clone + '_ {
        self.parts.iter().map(|part| (part.position, part.index))
    }

    /// Its samples and their values; what is below zero, as files of differences have it, is 0.
    pub fn samples(&self) -> impl Iterator<Item = (&'a Sample, u64)> + Clone + '_ {
        self.parts.iter().flat_map(|part| {
            let scale = part.worth().filter(|_| self.scaled).and_then(|worth| u64::try_from(worth).ok()).unwrap_or(1);
            let index = part.index;
            part.profile.samples.iter().map(move |sample| (sample, sample.value(index).saturating_mul(scale)))
        })
    }

    /// What one unit of a value weighs, and in which unit: a count of samples weighs the period (for CPU samples ns), anything else
    /// itself.
    #[must_use]
    pub fn weight(&self) -> (i64, &'a str) {
        match self.parts.first() {
            Some(part) if self.scaled => (1, &part.profile.period_type.unit),
            Some(part) => match (part.worth(), part.profile.sample_types.get(part.index)) {
                (Some(worth), _) => (worth, &part.profile.period_type.unit),
                (None, Some(kind)) => (1, &kind.unit),
                (None, None) => (1, "count"),
            },
            None => (1, "count"),
        }
    }

    /// The sum of all values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.samples().fold(0, |sum, (_, value)| sum.saturating_add(value))
    }

    /// What it is, in words: `CPU profile`, `page faults`, `inuse space`.
    #[must_use]
    pub fn title(&self) -> String {
        let kind = self.sample_type();
        let of_cpu = self.period_type().kind == "cpu" || kind.kind == "cpu";
        let words = |name: &str| name.replace(['_', '-'], " ");
        match self.source() {
            _ if of_cpu && (counts_samples(&kind) || kind.kind == "cpu") => CPU_PROFILE.to_owned(),
            "" if counts_samples(&kind) && !self.period_type().kind.is_empty() => words(&self.period_type().kind),
            "" if kind.kind.is_empty() => "profile".to_owned(),
            "" => words(&kind.kind),
            source if source.contains(':') => source.to_owned(),
            source => words(source),
        }
    }
}
