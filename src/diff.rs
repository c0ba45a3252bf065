//! `profiler diff`: what differs between two profiles, and by how much more than sampling alone would make it differ.

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use profiler_detectors::Estimate;
use profiler_formats::differential::{self, Pair};
use profiler_formats::format::Format;
use profiler_model::Profiles;
use serde_json::json;

use crate::detect::profiles::{By, counted, counts};
use crate::detect::{CHANGED, report};
use crate::output::{Named, Target};
use crate::{convert, exit, shown};

/// What is asked for.
#[derive(Debug)]
pub struct Options {
    /// The profile to compare with.
    pub before: PathBuf,
    /// The profile that is compared.
    pub after: PathBuf,
    /// What shares are of.
    pub by: By,
    /// Only samples of the service or process of this name; shares are of it.
    pub of: Option<String>,
    /// Which samples.
    pub sample_type: Option<String>,
    /// A difference of fewer standard errors is not told.
    pub sigma: f64,
    /// At most so many lines; 0: all.
    pub lines: usize,
    /// One JSON object a line, in place of text.
    pub json: bool,
    /// Differential flame graph (SVG) or folded stacks with two counts.
    pub outputs: Vec<PathBuf>,
    /// The outputs compare amounts, not shares.
    pub is_absolute: bool,
    /// Whether a difference is told by the exit code, too.
    pub exit_code: bool,
}

/// A function, process or service whose share is another than before.
#[derive(Clone, Debug, PartialEq)]
struct Difference {
    name: String,
    /// As a part of 1, with its standard error.
    before: Estimate,
    after: Estimate,
    /// After less before, in standard errors.
    sigma: f64,
}

/// Reads both profiles, writes what differs to `out` and to the outputs.
///
/// # Errors
/// If a profile cannot be read, has no samples that are asked for, or an output cannot be written.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let outputs = options.outputs.iter().map(|path| prepare(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let (before, after) = (convert::read(&options.before)?, convert::read(&options.after)?);
    let sample_type = options.sample_type.as_deref();
    let samples = |profile, path: &Path| {
        let (counts, total) = counts(profile, &counted(profile, sample_type)?, options.by, options.of.as_deref());
        let of = options.of.as_deref().map(|of| format!(" of {}", shown::one_line(of))).unwrap_or_default();
        anyhow::ensure!(total > 0, "{} has no samples{of}: nothing can be compared with it", shown::path(path));
        Ok((counts, total))
    };
    let (counts_before, total_before) = samples(&before, &options.before)?;
    let (mut counts_after, total_after) = samples(&after, &options.after)?;
    let mut all: Vec<Difference> = Vec::new();
    for (name, count) in counts_before {
        let now = counts_after.remove(&name).unwrap_or(0);
        all.push(Difference::new(name, (count, total_before), (now, total_after)));
    }
    for (name, count) in counts_after {
        all.push(Difference::new(name, (0, total_before), (count, total_after)));
    }
    let compared = all.len();
    all.retain(|difference| difference.sigma.abs() >= options.sigma);
    all.sort_by(|a, b| b.sigma.abs().total_cmp(&a.sigma.abs()).then_with(|| a.name.cmp(&b.name)));
    let told = if options.lines == 0 { all.len() } else { options.lines };
    let text = match options.json {
        true => all.iter().take(told).map(Difference::json).collect(),
        false => {
            let head = format!(
                "{total_before} samples in {}, {total_after} in {}\n",
                shown::path(&options.before),
                shown::path(&options.after)
            );
            head + &table(&all, told, compared, options)
        }
    };
    match out.write_all(text.as_bytes()) {
        // That nobody reads on is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    write(outputs, &before, &after, options)?;
    Ok(if options.exit_code && !all.is_empty() { ExitCode::from(CHANGED) } else { ExitCode::SUCCESS })
}

impl Difference {
    /// Of counts and their totals, by the test of two proportions.
    fn new(name: String, before: (u64, u64), after: (u64, u64)) -> Self {
        let estimate = |(count, total): (u64, u64)| {
            let (value, total) = (count as f64 / total as f64, total as f64);
            Estimate { value, error: (value * (1.0 - value) / total).sqrt() }
        };
        // If nothing had changed, both would be samples of this share.
        let pooled = (before.0 as f64 + after.0 as f64) / (before.1 as f64 + after.1 as f64);
        let error = (pooled * (1.0 - pooled) * (1.0 / before.1 as f64 + 1.0 / after.1 as f64)).sqrt();
        let (before, after) = (estimate(before), estimate(after));
        let change = after.value - before.value;
        Self { name, before, after, sigma: if error > 0.0 { change / error } else { 0.0 } }
    }

    fn json(&self) -> String {
        let object = json!({ "name": self.name, "before": self.before, "after": self.after, "sigma": self.sigma });
        format!("{}\n", shown::json(&object.to_string()))
    }
}

/// The differences as lines for people.
fn table(differences: &[Difference], told: usize, compared: usize, options: &Options) -> String {
    let what = match options.by {
        By::Function => "functions by themselves",
        By::Total => "functions with what they call",
        By::Process => "processes",
        By::Service => "services",
    };
    let sigma = options.sigma;
    if differences.is_empty() {
        return format!("Of {compared} {what} none differs by {sigma} standard errors or more.\n");
    }
    let mut text = format!("{:>17}  {:>17}  {:>8}  {:>6}\n", "before", "after", "change", "sigma");
    for difference in differences.iter().take(told) {
        let Difference { name, before, after, sigma } = difference;
        text += &format!(
            "{:>17}  {:>17}  {:>+8.2}  {sigma:>+6.1}  {}\n",
            report::estimate(*before, true),
            report::estimate(*after, true),
            (after.value - before.value) * 100.0,
            shown::one_line(name)
        );
    }
    let more = match differences.len().saturating_sub(told) {
        0 => String::new(),
        more => format!("; {more} more with --lines 0"),
    };
    text + &format!("{} of {compared} {what} differ by {sigma} standard errors or more{more}.\n", differences.len())
}

fn prepare(path: &Path) -> anyhow::Result<(Target, Format)> {
    match Format::from_path(path) {
        Ok(format @ (Format::Svg | Format::Folded)) => Ok((Target::prepare(path, Named::ByUser)?, format)),
        _ => {
            let path = shown::path(path);
            Err(exit::usage(format!(
                "two profiles beside each other are a flame graph or folded stacks: name {path} *.svg or *.folded"
            ))
            .into())
        }
    }
}

fn write(outputs: Vec<(Target, Format)>, before: &Profiles, after: &Profiles, options: &Options) -> anyhow::Result<()> {
    if outputs.is_empty() {
        return Ok(());
    }
    let sample_type = options.sample_type.as_deref();
    let (of_before, of_after) = (counted(before, sample_type)?, counted(after, sample_type)?);
    let pair = Pair { before: (before, &of_before), after: (after, &of_after), is_scaled: !options.is_absolute };
    for (target, format) in outputs {
        let written = target.write(
            &|out| match format {
                Format::Svg => differential::svg(&pair, out),
                _ => differential::folded(&pair, out),
            },
            // Ctrl-C ends this process.
            &|| false,
        )?;
        written.tell();
    }
    Ok(())
}
