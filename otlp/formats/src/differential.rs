//! Two profiles beside each other: folded stacks with two counts, and the differential flame graph of these, both by inferno.

use std::io::{self, Write};

use inferno::differential;
use inferno::flamegraph::{
    self, Options, TextTruncateDirection,
    color::{BackgroundColor, Color},
};
use profiler_model::{Measured, Profiles, headline::title};

use crate::folded::{Root, encode_by};
use crate::svg::{MIN_SHARE, count_name, printable};

/// What is compared with what.
#[derive(Debug)]
pub struct Pair<'a> {
    /// The profile of before, and what is shown of it.
    pub before: (&'a Profiles, &'a Measured<'a>),
    /// The profile of after, and what is shown of it.
    pub after: (&'a Profiles, &'a Measured<'a>),
    /// The counts of whose sum is smaller are scaled to that of the other: shares are compared, not amounts.
    pub is_scaled: bool,
}

/// Writes `process;root;...;leaf before after` for each stack of either profile, sorted: what `difffolded.pl` writes.
///
/// # Errors
/// Those of `out`.
pub fn folded(pair: &Pair<'_>, mut out: impl Write) -> io::Result<()> {
    out.write_all(lines(pair)?.as_bytes())?;
    out.flush()
}

/// Writes a flame graph of after, in which what has grown since before is red and what has shrunk is blue.
///
/// # Errors
/// Those of `out`.
pub fn svg(pair: &Pair<'_>, out: impl Write) -> io::Result<()> {
    let (profile, shown) = pair.after;
    let lines = lines(pair)?;
    let mut options = Options::default();
    options.title = printable(&title(profile, shown));
    let scaled = if pair.is_scaled { "; the smaller counts are scaled to the sum of the larger" } else { "" };
    options.subtitle = Some(format!("as of after; red has grown since before, blue has shrunk{scaled}"));
    options.count_name = count_name(&shown.sample_type());
    options.bgcolors = Some(BackgroundColor::Flat(Color { r: 248, g: 248, b: 248 }));
    options.min_width = MIN_SHARE * 100.0;
    options.text_truncate_direction = TextTruncateDirection::Right;
    // inferno refuses to draw nothing.
    let has_after = lines.lines().any(|line| !line.ends_with(" 0"));
    let lines = if has_after { lines.as_str() } else { "no samples 1 1" };
    flamegraph::from_lines(&mut options, lines.lines(), out)
}

fn lines(pair: &Pair<'_>) -> io::Result<String> {
    let of = |(profile, shown): (&Profiles, &Measured<'_>)| {
        let mut lines = Vec::new();
        encode_by(profile, shown, Root::Process, &mut lines).map(|()| lines)
    };
    let (before, after) = (of(pair.before)?, of(pair.after)?);
    let mut both = Vec::new();
    // inferno's own scaling cuts off what is less than one.
    let options = differential::Options { normalize: false, ..differential::Options::default() };
    differential::from_readers(options, before.as_slice(), after.as_slice(), &mut both)?;
    let both = String::from_utf8(both).map_err(io::Error::other)?;
    let counted = |line| {
        let (line, after) = str::rsplit_once(line, ' ')?;
        let (stack, before) = line.rsplit_once(' ')?;
        Some((stack, before.parse().ok()?, after.parse().ok()?))
    };
    let mut lines: Vec<(&str, u64, u64)> = both.lines().filter_map(counted).collect();
    lines.sort_unstable();
    let sum = |of: fn(&(&str, u64, u64)) -> u64| lines.iter().map(|line| of(line) as f64).sum::<f64>();
    let (before, after) = (sum(|line| line.1), sum(|line| line.2));
    let scale =
        |count: u64, by: f64| if pair.is_scaled && by > 1.0 { (count as f64 * by).round() as u64 } else { count };
    let line = |(stack, of_before, of_after): &(&str, u64, u64)| {
        format!("{stack} {} {}\n", scale(*of_before, after / before), scale(*of_after, before / after))
    };
    Ok(lines.iter().map(line).collect())
}
