//! Profiles as series of shares.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use profiler_formats::format;
use profiler_model::frames::Frames;
use profiler_model::{AttributeValue, Measured, Process, Profiles, Sample, attribute, counts_samples};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Options, open};
use crate::{exit, shown};

/// Larger files are refused, as `convert` does.
const MAX_INPUT: u64 = 2 << 30;
/// Counts of one series in one period, of all files together: 16 bytes each.
const MAX_COUNTS: usize = 50_000_000;

/// What shares are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Functions, by the samples in them alone.
    Function,
    /// Functions, by the samples in them and in what they call.
    Total,
    /// Processes, by name.
    Process,
    /// Services (service.name, else the process).
    Service,
}

/// The samples of a period.
#[derive(Debug, Default)]
pub struct Period {
    /// Its end, ns since the Unix epoch.
    pub time: u64,
    pub total: u64,
    /// By id of the series.
    pub counts: Vec<(u32, u64)>,
}

/// All profiles that were read, as counts.
pub struct Shares<'a> {
    options: &'a Options,
    names: Vec<String>,
    ids: FxHashMap<String, u32>,
    /// By the end of the period.
    periods: BTreeMap<u64, (u64, FxHashMap<u32, u64>)>,
    entries: usize,
    files: usize,
}

impl<'a> Shares<'a> {
    pub fn new(options: &'a Options) -> Self {
        Self { options, names: Vec::new(), ids: FxHashMap::default(), periods: BTreeMap::new(), entries: 0, files: 0 }
    }

    /// Whether no profile was read.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Adds the samples of a profile.
    pub fn read(&mut self, path: &Path) -> anyhow::Result<()> {
        self.files += 1;
        let cannot = || format!("cannot read {}", shown::path(path));
        let mut bytes = Vec::new();
        open(path, MAX_INPUT + 1)?.read_to_end(&mut bytes).with_context(cannot)?;
        anyhow::ensure!(bytes.len() as u64 <= MAX_INPUT, "{}: it has more than 2 GiB", cannot());
        let profile = format::read(&bytes).with_context(|| format!("{}; series in text are *.csv", cannot()))?;
        drop(bytes);
        let measured = counted(&profile, self.options.sample_type.as_deref()).with_context(cannot)?;
        self.add(&profile, &measured).with_context(cannot)
    }

    fn add(&mut self, profile: &Profiles, measured: &Measured<'_>) -> anyhow::Result<()> {
        let mut series = Series::new(profile, self.options.by, self.options.of.as_deref());
        let every = u64::try_from(self.options.every.as_nanos()).unwrap_or(u64::MAX).max(1);
        for (part, index) in measured.parts() {
            let Some(worth) = per_sample(part, index) else { continue };
            let end = part.start_unix_nanos.saturating_add(part.duration_nanos);
            for sample in &part.samples {
                let count = sample.value(index) / worth;
                if count == 0 {
                    continue;
                }
                let time = match sample.time_unix_nanos {
                    Some(time) => (time / every).saturating_add(1).saturating_mul(every),
                    None => end,
                };
                anyhow::ensure!(time > 0, "it does not say when it was made, and a series needs times");
                let Some(names) = series.of(sample) else { continue };
                let (total, counts) = self.periods.entry(time).or_default();
                *total = total.saturating_add(count);
                for name in names {
                    let id = match self.ids.get(name.as_str()) {
                        Some(id) => *id,
                        None => {
                            let id = self.names.len() as u32;
                            self.names.push(name.clone());
                            self.ids.insert(name.clone(), id);
                            id
                        }
                    };
                    let sum = counts.entry(id).or_insert_with(|| {
                        self.entries += 1;
                        0
                    });
                    *sum = sum.saturating_add(count);
                }
                anyhow::ensure!(
                    self.entries <= MAX_COUNTS,
                    "with it there are more than {MAX_COUNTS} shares; choose a longer --every, --by service, or --of a service"
                );
            }
        }
        Ok(())
    }

    /// The names of all series, and the periods in order of time.
    pub fn finish(self) -> (Vec<String>, impl Iterator<Item = Period>) {
        let periods = self.periods.into_iter().map(|(time, (total, counts))| Period {
            time,
            total,
            counts: counts.into_iter().collect(),
        });
        (self.names, periods)
    }
}

/// Samples that can be counted: only of a count the sampling error is known.
pub fn counted<'p>(profile: &'p Profiles, sample_type: Option<&str>) -> anyhow::Result<Measured<'p>> {
    let measured = match sample_type {
        Some(name) => profile.shown(Some(name)).map_err(exit::usage)?,
        None => {
            let counted =
                profile.measured().into_iter().find(|measured| measured.parts().any(|part| is_counted(part.0, part.1)));
            counted.map_or_else(|| profile.shown(None), Ok)?
        }
    };
    if measured.parts().all(|(profile, index)| per_sample(profile, index).is_some()) {
        return Ok(measured);
    }
    let known: Vec<String> = profile.measured().iter().map(|measured| measured.name().to_owned()).collect();
    Err(exit::usage(format!(
        "{:?} does not count samples, so that its error is not known; choose with --sample-type among {}",
        measured.name(),
        known.join(", ")
    ))
    .into())
}

/// The samples of a whole profile.
#[derive(Debug, Default)]
pub struct Counts {
    /// How many there are.
    pub samples: u64,
    /// As many as would have the same errors if all were worth the same: fewer, where the rate has changed meanwhile.
    pub effective: f64,
    /// The part of them that is in each series, of 1.
    pub shares: FxHashMap<String, f64>,
}

/// The samples of a whole profile by series, each weighed by its period.
pub fn counts(profile: &Profiles, measured: &Measured<'_>, by: By, of: Option<&str>) -> Counts {
    let mut series = Series::new(profile, by, of);
    let mut counts = Counts::default();
    let (mut sum, mut squares) = (0.0, 0.0);
    for (part, index) in measured.parts() {
        let Some(worth) = per_sample(part, index) else { continue };
        let weight = part.period.max(1) as f64;
        for sample in &part.samples {
            let count = sample.value(index) / worth;
            let Some(names) = series.of(sample).filter(|_| count > 0) else { continue };
            counts.samples = counts.samples.saturating_add(count);
            let weighed = weight * count as f64;
            sum += weighed;
            squares += weight * weighed;
            for name in names {
                match counts.shares.get_mut(name) {
                    Some(share) => *share += weighed,
                    None => drop(counts.shares.insert(name.clone(), weighed)),
                }
            }
        }
    }
    if sum > 0.0 {
        counts.effective = sum * sum / squares;
        counts.shares.values_mut().for_each(|share| *share /= sum);
    }
    counts
}

fn is_counted(profile: &profiler_model::Profile, index: usize) -> bool {
    profile.sample_types.get(index).is_none_or(counts_samples)
}

/// What a sample is worth in the values at `index`; none if that is not known.
fn per_sample(profile: &profiler_model::Profile, index: usize) -> Option<u64> {
    if is_counted(profile, index) {
        return Some(1);
    }
    let kind = profile.sample_types.get(index)?;
    let is_period =
        profile.period > 0 && kind.unit == profile.period_type.unit && kind.kind == profile.period_type.kind;
    // An event is a sample of itself.
    let each = if kind.unit == "count" { Some(1) } else { None };
    if is_period { u64::try_from(profile.period).ok() } else { each }
}

/// From samples to the names of their series.
struct Series<'p> {
    profile: &'p Profiles,
    frames: Frames<'p>,
    by: By,
    of: Option<&'p str>,
    /// By stack.
    functions: FxHashMap<u32, Vec<String>>,
    /// By process: names, and whether its samples are chosen.
    processes: FxHashMap<Option<u32>, (Vec<String>, bool)>,
}

impl<'p> Series<'p> {
    fn new(profile: &'p Profiles, by: By, of: Option<&'p str>) -> Self {
        Self {
            profile,
            frames: Frames::new(profile),
            by,
            of,
            functions: FxHashMap::default(),
            processes: FxHashMap::default(),
        }
    }

    /// The series that `sample` is of; none if it is not chosen.
    fn of(&mut self, sample: &Sample) -> Option<&[String]> {
        let process = self.profile.process_of(sample);
        let (profile, by, of) = (self.profile, self.by, self.of);
        let (names, is_chosen) = self.processes.entry(process).or_insert_with(|| {
            let process = process.and_then(|id| profile.process(id));
            let label = process.map_or("", |process| profile.process_label(process));
            let service = service(profile, process).unwrap_or(label);
            let name = if by == By::Service { service } else { label };
            let name = if name.is_empty() { "[unknown]" } else { name };
            (vec![name.to_owned()], of.is_none_or(|of| of == label || of == service))
        });
        if !*is_chosen {
            return None;
        }
        if matches!(by, By::Process | By::Service) {
            return Some(names);
        }
        let frames = &self.frames;
        let functions = self.functions.entry(sample.stack).or_insert_with(|| match by {
            By::Total => {
                let mut seen = FxHashSet::default();
                let all = frames.stack(sample.stack).filter(|frame| seen.insert(frame.name));
                all.map(|frame| frames.name(frame).to_owned()).collect()
            }
            _ => vec![frames.leaf(sample.stack).map_or("[unknown]", |frame| frames.name(frame)).to_owned()],
        });
        Some(functions)
    }
}

fn service<'p>(profile: &'p Profiles, process: Option<&'p Process>) -> Option<&'p str> {
    let own = process.map_or(&[][..], |process| &process.attributes);
    let mut attributes = own.iter().chain(&profile.resource_attributes);
    attributes.find_map(|(key, value)| match value {
        AttributeValue::Text(id) if profile.string(*key) == attribute::SERVICE_NAME => Some(profile.string(*id)),
        _ => None,
    })
}
