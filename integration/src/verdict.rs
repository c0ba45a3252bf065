//! The full comparison of one recorded program with its truth.

use std::collections::BTreeMap;

use crate::completeness::{Completeness, completeness};
use crate::pattern::Chain;
use crate::rows::{Frame, Row, total};
use crate::shares::{by_group, group_of, off_from_truth};
use crate::truth::Truth;

/// The bar for complete stacks of native programs.
pub const COMPLETE: f64 = 0.999;

/// What was compared and what is wrong.
#[derive(Debug)]
pub struct Verdict {
    /// Samples of the program.
    pub samples: u64,
    /// Samples in the groups.
    pub in_groups: u64,
    /// Samples by group.
    pub counts: BTreeMap<String, u64>,
    /// Completeness of all rows.
    pub completeness: Completeness,
    /// Samples in groups whose callers are not the true ones.
    pub wrong_chains: u64,
    /// Shares outside of noise.
    pub shares: Vec<String>,
    /// The number of samples is not what is due.
    pub miscounted: bool,
    /// It is not even near it.
    far_off: bool,
    /// The share of stacks that must be complete and right.
    bar: f64,
    /// A line for each thing that is wrong.
    pub problems: Vec<String>,
}

/// Compares `rows`, all of the program, recorded at `hertz`, with `truth`. `bar` is the share of stacks that must be complete
/// and right, [`COMPLETE`] by default. `is_entry` tells the entry code of executables without symbols.
pub fn verdict(rows: &[Row], truth: &Truth, hertz: u32, bar: f64, is_entry: impl Fn(&Frame) -> bool) -> Verdict {
    let groups: Vec<&str> = truth.shares.keys().map(String::as_str).collect();
    let counts = by_group(rows, &groups);
    let shares = off_from_truth(&truth.shares, &counts);
    let mut problems = shares.clone();
    let samples = total(rows);
    let in_groups: u64 = groups.iter().filter_map(|&group| counts.get(group)).sum();

    // Whatever is not delivered was lost, and shares do not show it. The clock ticks once in 1/hertz of CPU time; what runs
    // around the groups (start-up, reading clocks) is small, and a virtual machine that is not given its CPU loses a tick here
    // and there.
    let expected = truth.cpu_ns as f64 * f64::from(hertz) / 1e9;
    let is_off = (in_groups as f64) < expected * 0.9 - 3.0 || in_groups as f64 > expected * 1.05 + 3.0;
    // A host that takes the CPU away from its virtual machine takes ticks, or has ticks that are nobody's CPU time (steal), for a moment.
    let miscounted = is_off && !truth.is_partial;
    let far_off = miscounted && !(0.8..1.2).contains(&(in_groups as f64 / expected));
    if miscounted {
        problems.push(format!(
            "{in_groups} samples in the groups where {expected:.0} are due for {} ms",
            truth.cpu_ns / 1_000_000
        ));
    }

    let completeness = completeness(rows, is_entry);
    if completeness.share() < bar && completeness.incomplete > 1 {
        problems.push(format!(
            "{} of {} stacks do not reach the root:\n    {}",
            completeness.incomplete,
            completeness.incomplete + completeness.complete,
            some(&completeness.evidence)
        ));
    }

    let mut wrong = Vec::new();
    let mut wrong_chains = 0;
    for row in rows {
        let Some(group) = group_of(row, &groups) else { continue };
        let Some(chain) = truth.stacks.get(group).and_then(|written| Chain::parse(group, written)) else { continue };
        if let Some(problem) = chain.problem(row) {
            wrong_chains += row.count;
            wrong.push(format!("{problem}\n      in {}", row.describe()));
        }
    }
    if wrong_chains as f64 > in_groups as f64 * (1.0 - bar) && wrong_chains > 1 {
        problems.push(format!("{wrong_chains} of {in_groups} stacks have wrong callers:\n    {}", some(&wrong)));
    }
    Verdict { samples, in_groups, counts, completeness, wrong_chains, shares, miscounted, far_off, bar, problems }
}

/// The first few of `lines`.
fn some(lines: &[String]) -> String {
    let shown = lines.iter().take(5).map(|line| line.chars().take(1500).collect::<String>()).collect::<Vec<_>>();
    let more = lines.len().saturating_sub(shown.len());
    let tail = if more > 0 { format!("\n    and {more} more") } else { String::new() };
    shown.join("\n    ") + &tail
}

impl Verdict {
    /// True if shares alone are wrong: once in some hundred runs, noise is larger than three sigma, and a second run tells.
    #[must_use]
    pub fn is_noise_perhaps(&self) -> bool {
        !self.shares.is_empty() && self.shares.len() == self.problems.len()
    }

    /// True if what is wrong may be of the moment: shares, a few samples more or less than are due, or fewer stacks than one in a hundred (two in a
    /// hundred below the bar), since a busy host is some milliseconds late with a new process's tables. A second run tells.
    #[must_use]
    pub fn is_of_the_moment_perhaps(&self) -> bool {
        let few_wrong = self.wrong_chains as f64 <= self.in_groups as f64 * 0.01;
        !self.problems.is_empty()
            && !self.far_off
            && self.completeness.share() >= (self.bar - 0.02).min(0.99)
            && few_wrong
    }

    /// The problems, but for what may be of the moment and is little: one share, fewer than one stack in a hundred. For tests of what
    /// comes after sampling, which do not record a second time.
    #[must_use]
    pub fn lasting_problems(&self) -> &[String] {
        let is_little = !self.miscounted && self.completeness.share() >= 0.99 && self.shares.len() < 2;
        if self.is_of_the_moment_perhaps() && is_little { &[] } else { &self.problems }
    }

    /// One line of figures.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} samples, {} in groups {:?}, {:.3} % complete, {} wrong chains",
            self.samples,
            self.in_groups,
            self.counts,
            self.completeness.share() * 100.0,
            self.wrong_chains
        )
    }
}
