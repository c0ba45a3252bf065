//! `profiler detect`: detectors over series in files, so that people can tune before they trust.

mod csv;
mod pace;
mod plot;
pub mod profiles;
pub mod report;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use profiler_detectors::{Bank, Config, MAX_NAME, METHODS, Observation, SeriesEvent, keys};
use profiler_formats::format::Format;

use self::pace::Pace;
use self::plot::Plot;
use crate::output::{Named, Target, human_bytes};
use crate::print::{print, until_enough};
use crate::{exit, shown};

pub use self::profiles::By;

/// Memory of all series' detectors.
const BUDGET: usize = 512 << 20;
/// With `--exit-code`: something changed.
pub const CHANGED: u8 = 3;

/// What is asked for.
#[derive(Debug)]
pub struct Options {
    /// CSV, profiles, or folders of profiles.
    pub inputs: Vec<PathBuf>,
    /// As `NAME[,KEY=VALUE...]`.
    pub detectors: Vec<String>,
    /// What profiles are shares of.
    pub by: By,
    /// Of profiles, only samples of the service or process of this name.
    pub of: Option<String>,
    /// Of profiles whose samples have times: the time of one observation.
    pub every: Duration,
    /// Which samples of profiles.
    pub sample_type: Option<String>,
    /// Events as JSON lines.
    pub json: bool,
    /// Where the plot goes.
    pub output: Option<PathBuf>,
    /// Whether a change is told by the exit code, too.
    pub exit_code: bool,
}

/// Prints what each detector is and its keys.
pub fn print_help() -> anyhow::Result<()> {
    let mut text = String::from("A detector is NAME[,KEY=VALUE...]. Keys, with their defaults:\n");
    for name in METHODS {
        let config = Config::new(name).map_err(exit::usage)?;
        text += &format!("\n{name}\n");
        for key in keys(&config) {
            text += &format!("  {:<12} {:<10} {} ({})\n", key.name, key.text(&config), key.meaning, key.bounds());
        }
    }
    Ok(print(&text)?)
}

/// Runs the detectors over all inputs, and writes a line for each event to `out`.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let configs: Vec<Config> = match options.detectors.as_slice() {
        [] => vec![Config::default()],
        texts => texts.iter().map(|text| text.parse().map_err(exit::usage)).collect::<Result<_, _>>()?,
    };
    let output = match &options.output {
        Some(path) if path != Path::new("-") && Format::from_path(path) != Ok(Format::Svg) => {
            let path = shown::path(path);
            return Err(exit::usage(format!("the plot is SVG: name {path} *.svg")).into());
        }
        Some(path) => Some(Target::prepare(path, Named::ByUser)?),
        None => None,
    };
    let mut run = Run {
        out,
        bank: Bank::new(&configs, BUDGET).map_err(exit::usage)?,
        plot: Plot::default(),
        pace: Pace::default(),
        configs,
        json: options.json,
        changes: 0,
        points: 0,
    };
    let mut profiles = profiles::Shares::new(options);
    let mut skipped = Vec::new();
    for input in &options.inputs {
        let input = if input == Path::new("-") { Path::new("/dev/stdin") } else { input };
        let cannot = || format!("cannot read {}", shown::path(input));
        if fs::metadata(input).with_context(cannot)?.is_dir() {
            for file in files(input).with_context(cannot)? {
                match Format::from_path(&file) {
                    Ok(format) if format.is_readable() => profiles.read(&file)?,
                    _ => skipped.push(file),
                }
            }
        } else if is_csv(input) {
            run.csv(input)?;
        } else {
            profiles.read(input)?;
        }
    }
    if let (Some(first), true) = (skipped.first(), profiles.is_empty() && run.points == 0) {
        anyhow::bail!(
            "no profile is among the {} files of the folder (the first: {}); profiles are called *.pb.gz, *.pprof, *.pb, *.otlp, *.otlp.json",
            skipped.len(),
            shown::path(first)
        );
    }
    run.shares(profiles)?;
    run.finish(output)?;
    Ok(if options.exit_code && run.changes > 0 { ExitCode::from(CHANGED) } else { ExitCode::SUCCESS })
}

fn is_csv(path: &Path) -> bool {
    let has = |ending: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending));
    has("csv") || has("tsv") || has("txt") || path == Path::new("/dev/stdin")
}

/// The regular files in `folder`, by name.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // What links lead to counts; pipes and devices, which may never end, do not.
        if fs::metadata(&path).is_ok_and(|found| found.is_file()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The name of a series, as much of it as is kept.
fn cut(name: &str) -> &str {
    let end = (0..=MAX_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..end).unwrap_or_default()
}

/// Opens what is read once; no more than `most` bytes come out.
fn open(path: &Path, most: u64) -> anyhow::Result<io::Take<File>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", shown::path(path)))?;
    Ok(file.take(most))
}

struct Run<'a> {
    out: &'a mut dyn Write,
    bank: Bank,
    plot: Plot,
    pace: Pace,
    configs: Vec<Config>,
    json: bool,
    changes: u64,
    points: u64,
}

impl Run<'_> {
    fn csv(&mut self, path: &Path) -> anyhow::Result<()> {
        /// A person's series is smaller.
        const MOST: u64 = 8 << 30;
        let mut rows = csv::Rows::new(BufReader::new(open(path, MOST)?), path)?;
        let alone = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        while let Some(row) = rows.next()? {
            let series = cut(row.series.as_deref().filter(|name| !name.is_empty()).unwrap_or(&alone));
            self.points += 1;
            self.pace.note(series, row.observation.time());
            self.plot.add(series, &row.observation);
            let events = self.bank.observe(series, &row.observation);
            self.tell(events)?;
        }
        rows.tell();
        Ok(())
    }

    fn shares(&mut self, shares: profiles::Shares<'_>) -> anyhow::Result<()> {
        let (names, periods) = shares.finish();
        for period in periods {
            let of = |id: u32| names.get(id as usize).map_or("", |name| cut(name));
            let counts = || period.counts.iter().map(|(id, count)| (of(*id), *count));
            self.points += 1;
            self.pace.note("", period.time);
            for (name, count) in counts() {
                if let Ok(share) = Observation::share(period.time, count, period.total) {
                    self.plot.add(name, &share);
                }
            }
            self.plot.end_of_shares(period.time, period.total);
            let events = self.bank.observe_shares(period.time, period.total, counts());
            self.tell(events)?;
        }
        Ok(())
    }

    fn tell(&mut self, events: Vec<SeriesEvent>) -> anyhow::Result<()> {
        for event in events {
            self.changes += u64::from(event.event.kind == profiler_detectors::Kind::Changed);
            let is_share = self.plot.mark(&event);
            let line = if self.json { report::json(&event) } else { report::text(&event, is_share) };
            // The plot is to be written whoever has seen enough.
            until_enough(self.out.write_all(line.as_bytes())).context("cannot write the events")?;
        }
        Ok(())
    }

    fn finish(&mut self, output: Option<Target>) -> anyhow::Result<()> {
        anyhow::ensure!(self.points > 0, "there is no observation in the input, so nothing can be told of it");
        let counts = self.bank.counts();
        let mut notes = Vec::new();
        if counts.unusable > 0 {
            notes.push(format!(
                "{} were refused (their time is not after the one before, or they are of another kind)",
                counts.unusable
            ));
        }
        if counts.no_room + counts.evicted > 0 {
            let budget = human_bytes(BUDGET as u64);
            notes.push(format!("{} of series beyond {budget} were not looked at", counts.no_room + counts.evicted));
        }
        let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
        let (changes, series, points) = (self.changes, self.bank.len(), self.points);
        eprintln!("{changes} changes in {series} series, {points} observations{notes}");
        if let Some(hint) = self.pace.hint(&self.configs) {
            eprintln!("{hint}");
        }
        if let Some(output) = output {
            let svg = self.plot.svg();
            let written = output.write(&|out| out.write_all(svg.as_bytes()), &|| false)?;
            written.tell();
        }
        Ok(())
    }
}
