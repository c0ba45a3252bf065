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
use crate::print::until_enough;
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
    /// How sure it is that after is more (or, below 0, less) than before: as many standard errors of a normal distribution.
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
        let counts = counts(profile, &counted(profile, sample_type)?, options.by, options.of.as_deref());
        let of = options.of.as_deref().map(|of| format!(" of {}", shown::one_line(of))).unwrap_or_default();
        anyhow::ensure!(
            counts.samples > 0,
            "{} has no samples{of}: nothing can be compared with it",
            shown::path(path)
        );
        Ok(counts)
    };
    let (counts_before, mut counts_after) = (samples(&before, &options.before)?, samples(&after, &options.after)?);
    let (size_before, size_after) = (counts_before.effective, counts_after.effective);
    let mut all: Vec<Difference> = Vec::new();
    for (name, share) in counts_before.shares {
        let now = counts_after.shares.remove(&name).unwrap_or(0.0);
        all.push(Difference::new(name, (share, size_before), (now, size_after)));
    }
    for (name, share) in counts_after.shares {
        all.push(Difference::new(name, (0.0, size_before), (share, size_after)));
    }
    let compared = all.len();
    all.retain(|difference| difference.sigma.abs() >= options.sigma);
    all.sort_by(|a, b| b.sigma.abs().total_cmp(&a.sigma.abs()).then_with(|| a.name.cmp(&b.name)));
    let told = if options.lines == 0 { all.len() } else { options.lines };
    let text = match options.json {
        true => all.iter().take(told).map(Difference::json).collect(),
        false => {
            let head = format!(
                "{} samples in {}, {} in {}\n",
                counts_before.samples,
                shown::path(&options.before),
                counts_after.samples,
                shown::path(&options.after)
            );
            head + &table(&all, told, compared, options)
        }
    };
    until_enough(out.write_all(text.as_bytes()))?;
    write(outputs, &before, &after, options)?;
    Ok(if options.exit_code && !all.is_empty() { ExitCode::from(CHANGED) } else { ExitCode::SUCCESS })
}

impl Difference {
    /// Of shares and of how many samples they are.
    fn new(name: String, before: (f64, f64), after: (f64, f64)) -> Self {
        let estimate =
            |(value, samples): (f64, f64)| Estimate { value, error: (value * (1.0 - value) / samples).max(0.0).sqrt() };
        let sigma = sigma(before, after);
        Self { name, before: estimate(before), after: estimate(after), sigma }
    }

    fn json(&self) -> String {
        let object = json!({ "name": self.name, "before": self.before, "after": self.after, "sigma": self.sigma });
        format!("{}\n", shown::json(&object.to_string()))
    }
}

/// The signed root of G (the likelihood ratio of the table of two rows and two columns, with Yates' correction for continuity): for large
/// counts the difference in standard errors; of few, where a difference in standard errors says far too much, on the careful side.
fn sigma((before, size_before): (f64, f64), (after, size_after): (f64, f64)) -> f64 {
    let pooled = (before * size_before + after * size_after) / (size_before + size_after);
    let expected = pooled * size_after;
    let off = after * size_after - expected;
    let corrected = (off.abs() - 0.5).max(0.0).copysign(off);
    let term = |expected: f64, off: f64| {
        let observed = expected + off;
        if observed > 0.0 && expected > 0.0 { observed * (observed / expected).ln() } else { 0.0 }
    };
    // What is too much in one field is too little in its row and in its column.
    let g = 2.0
        * (term(expected, corrected)
            + term(size_after - expected, -corrected)
            + term(pooled * size_before, -corrected)
            + term((1.0 - pooled) * size_before, corrected));
    g.max(0.0).sqrt().copysign(corrected)
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
