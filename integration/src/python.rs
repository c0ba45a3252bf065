//! The truth program in Python, which every version from 3.8 on runs, and what of a recording of it counts.

use std::path::PathBuf;

use crate::Error;
use crate::environment::repository;
use crate::proof::prove_with;
use crate::recording::Recorded;
use crate::rows::{Row, total};
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
/// If anything differs, or less than 95 % of the stacks are in phases.
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
    assert!(share > 0.95 && all > 100, "{share} of {all} stacks are in phases");
    in_phases
}
