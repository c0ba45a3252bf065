//! The one assertion that most tests make: what was recorded is what the program knows.

use crate::Error;
use crate::environment::{have_root, one_at_a_time};
use crate::recording::Recorded;
use crate::rows::{Frame, Row};
use crate::verdict::{COMPLETE, Verdict, verdict};

/// The sampling rate of most tests, Hz: high enough that two seconds tell shares apart, and in step with no kernel tick.
pub const HERTZ: u32 = 499;

/// Records a program by `record` and compares it with its truth, in shares, callers, completeness and number of samples.
///
/// # Panics
///
/// If anything differs; shares, or fewer than one stack in a hundred, if they do in two recordings
/// ([`Verdict::is_of_the_moment_perhaps`]).
pub fn prove(test: &str, record: impl Fn() -> Result<Recorded, Error>) {
    prove_with(test, COMPLETE, record, Recorded::own_rows, |_| false);
}

/// Like [`prove`], where only the share `bar` of all stacks can be complete; callers say why.
///
/// # Panics
///
/// If anything differs.
pub fn prove_mostly(test: &str, bar: f64, record: impl Fn() -> Result<Recorded, Error>) {
    prove_with(test, bar, record, Recorded::own_rows, |_| false);
}

/// Like [`prove_mostly`], over the rows that `rows` picks, with `is_entry` for programs without symbols.
///
/// # Panics
///
/// If anything differs.
pub fn prove_with(
    test: &str,
    bar: f64,
    record: impl Fn() -> Result<Recorded, Error>,
    rows: impl Fn(&Recorded) -> Vec<Row>,
    is_entry: impl Fn(&Frame) -> bool,
) {
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let attempt = || {
        let recorded = record().unwrap_or_else(|error| panic!("{test}: {error}"));
        let found = verdict(&rows(&recorded), &recorded.truth, HERTZ, bar, &is_entry);
        println!("{test}: {}", found.summary());
        (recorded, found)
    };
    let (mut recorded, mut found) = attempt();
    if found.is_of_the_moment_perhaps() {
        println!("{test}: recording again, for what may be of the moment: {}", found.problems.join("\n  "));
        (recorded, found) = attempt();
    }
    fail_if_wrong(test, &recorded, &found);
}

fn fail_if_wrong(test: &str, recorded: &Recorded, found: &Verdict) {
    assert!(
        found.problems.is_empty(),
        "{test}: {}\n  {}\n  losses: {:?}\n  {}",
        found.summary(),
        found.problems.join("\n  "),
        recorded.recording.profile.losses,
        recorded.recording.finished.command,
    );
}
