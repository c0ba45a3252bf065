//! The truth program in Python, which every version from 3.8 on runs, and what of a recording of it counts.

use std::path::PathBuf;

use profiler_model::FrameKind;

use crate::Error;
use crate::environment::repository;
use crate::proof::prove_with;
use crate::recording::Recorded;
use crate::rows::{Row, is_function, total};
use crate::shares::group_of;

/// Of stacks with all their functions, each with its callers.
pub const BAR: f64 = 0.995;
/// The same of some 500 samples, with the error of so few.
pub const BAR_OF_FEW: f64 = 0.99;

/// The program.
#[must_use]
pub fn program() -> PathBuf {
    repository().join("integration/programs/python/phases.py")
}

/// Records the program by `record`, from the midst of its run, and compares the stacks of its phases with its truth.
///
/// # Panics
///
/// If anything differs, or less than 80 % of the stacks are in phases.
pub fn prove_phases(test: &str, bar: f64, record: impl Fn() -> Result<Recorded, Error>) {
    prove_with(test, bar, record, of_phases, |_| false);
}

/// The stacks of its phases: all but some of its end, since it is recorded from the midst of its run.
fn of_phases(recorded: &Recorded) -> Vec<Row> {
    let groups: Vec<&str> = recorded.truth.shares.keys().map(String::as_str).collect();
    let own = recorded.own_rows();
    let all = total(&own);
    let in_phases: Vec<Row> = own.into_iter().filter(|row| group_of(row, &groups).is_some()).collect();
    let share = total(&in_phases) as f64 / all as f64;
    assert!(share > 0.8 && all > 100, "{share} of {all} stacks are in phases");
    in_phases
}

/// Samples of a Python process, by what they have of its functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Have functions of Python.
    pub with: u64,
    /// Have none, though the interpreter's evaluation loop is on their stack, or the stack is not whole so that nobody knows.
    pub without: u64,
    /// Reach their root and pass through no evaluation loop: no function of Python runs there. The interpreter starts, or ends.
    pub none_due: u64,
}

impl Carried {
    /// Those of `rows`; what lacks functions is added to `lacking`.
    #[must_use]
    pub fn of(rows: &[Row], lacking: &mut Vec<Row>) -> Self {
        let is_loop = |name: &String| is_function(name, "_PyEval_EvalFrameDefault");
        let mut found = Self::default();
        for row in rows {
            let mut functions = row.frames.iter().flat_map(|frame| &frame.functions);
            if row.frames.iter().any(|frame| frame.kind == FrameKind::Cpython) {
                found.with += row.count;
            } else if row.marker().is_some() || functions.any(is_loop) {
                found.without += row.count;
                lacking.push(row.clone());
            } else {
                found.none_due += row.count;
            }
        }
        found
    }

    /// Samples that should have functions of Python.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.with + self.without
    }

    /// The share of those that have them; 1 if none should.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.due() == 0 { 1.0 } else { self.with as f64 / self.due() as f64 }
    }
}
