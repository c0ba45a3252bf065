//! The truth program in Java, which every JVM from 8 on runs, and what is held of its stacks beside shares and callers.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profiler_model::{FrameKind, Location, Tier};

use crate::environment::repository;
use crate::proof::{HERTZ, prove_with};
use crate::recording::{Recorded, record_command};
use crate::rows::{Row, total};
use crate::{Error, children};

/// Whole stacks of the thread that works.
const WHOLE: f64 = 0.99;
/// The same of all threads of a JVM from its start on: libjvm's own, and the moments at which it has no code heap yet. The slower a machine, the
/// more of them.
const WHOLE_OF_ALL: f64 = 0.95;
/// `Shares.down` calls itself so often.
const DEPTH: usize = 100;
/// Patience with javac.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a JVM is started, and what is known of its stacks then.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Its flags.
    pub flags: &'static [&'static str],
    /// Recursion is as deep as it is, but for one stack in so many.
    one_in: u64,
    /// The program's methods run in these ways.
    surely: &'static [Tier],
    /// And in none but these besides.
    perhaps: &'static [Tier],
}

impl Mode {
    /// With both compilers.
    ///
    /// On a small machine the JVM would take another collector, with which the second compiler leaves out safepoints in counted loops: then it
    /// knows no method that is inlined into one, and nobody can tell. And it inlines `bottom` into `down`, without debug information between
    /// safepoints: a leaf there is shown as what the next one is in, as the JVM itself would, on the way down too. That is one in 20.
    pub const MIXED: Self =
        Self { flags: &["-XX:+UseG1GC"], one_in: 6, surely: &[Tier::Interpreted, Tier::C2], perhaps: &[Tier::C1] };
    /// Without a compiler. What is wrong is of a moment at which a frame is made or left.
    pub const INTERPRETED: Self = Self { flags: &["-Xint"], one_in: 100, surely: &[Tier::Interpreted], perhaps: &[] };
    /// With the first compiler alone, which inlines `bottom`, too.
    pub const FIRST_COMPILER: Self =
        Self { flags: &["-XX:TieredStopAtLevel=1"], one_in: 6, surely: &[Tier::C1], perhaps: &[Tier::Interpreted] };
}

/// Compiles the program, with the `javac` of the PATH, into `folder`.
///
/// # Errors
/// It cannot be compiled.
pub fn compile(folder: &Path) -> Result<(), Error> {
    let source = repository().join("integration/programs/java/Shares.java");
    let mut javac = Command::new("javac");
    javac.args(["--release", "8", "-nowarn", "-d"]).arg(folder).arg(source);
    children::run_well(&mut javac, PATIENCE).map(drop)
}

/// Records the program, run by `java` for so many ms of CPU time with its `classes`, a path as that JVM sees it.
///
/// # Errors
/// It cannot be recorded, or says nothing.
pub fn record_shares(java: &Path, classes: &str, mode: &Mode, ms: &str) -> Result<Recorded, Error> {
    record_command(HERTZ, java, &[mode.flags, &["-cp", classes, "Shares", "--ms", ms]].concat())
}

/// Compares what `record` recorded with the program's truth.
///
/// # Panics
///
/// If anything differs.
pub fn prove_shares(test: &str, mode: &Mode, record: impl Fn() -> Result<Recorded, Error>) {
    prove_with(test, WHOLE, record, |recorded| of_work(test, recorded, mode), |_| false);
}

/// The stacks of the thread that works, once what is told of all has been looked at.
fn of_work(test: &str, recorded: &Recorded, mode: &Mode) -> Vec<Row> {
    let mut rows = recorded.own_rows();
    let all = total(&rows);
    let whole = total(rows.iter().filter(|row| row.marker().is_none_or(|marker| !marker.starts_with("unwind:"))));
    assert!(whole as f64 >= all as f64 * WHOLE_OF_ALL, "{test}: {whole} of {all} stacks of all threads are whole");
    let has_begun =
        |row: &Row| row.frames.iter().flat_map(|frame| &frame.functions).any(|name| name.starts_with("Shares."));
    rows.retain(|row| row.thread == "shares" || has_begun(row));
    let frames = || rows.iter().flat_map(|row| &row.frames);
    let of_java = |name: &String| name.starts_with("Shares.") || name.starts_with("java.");
    assert!(
        frames().filter(|frame| frame.functions.iter().any(of_java)).all(|frame| frame.kind == FrameKind::Jvm),
        "{test}: what is Java's is shown as such"
    );
    check_depth(test, &rows, mode.one_in);
    let of = |tiers: &[Tier]| tiers.iter().copied().map(Some).collect::<BTreeSet<_>>();
    let (tiers, surely) = (tiers(recorded), of(mode.surely));
    assert!(tiers.is_superset(&surely) && tiers.is_subset(&(&surely | &of(mode.perhaps))), "{test}: {tiers:?}");
    rows
}

/// Recursion is as deep as it is, inlined or not, but for one in `one_in`.
fn check_depth(test: &str, rows: &[Row], one_in: u64) {
    let (mut right, mut wrong) = (0, Vec::new());
    for row in rows {
        let count =
            |wanted: &str| row.frames.iter().flat_map(|frame| &frame.functions).filter(|name| *name == wanted).count();
        if count("Shares.bottom") == 0 {
            continue;
        }
        if count("Shares.down") == DEPTH + 1 { right += row.count } else { wrong.push(row.describe()) }
    }
    assert!(
        right > 5 && wrong.len() as u64 <= 1 + right / one_in,
        "{test}: {right} are right, these not: {}",
        wrong.join("\n")
    );
}

/// Of the locations that have a function of the program: in which ways they run.
fn tiers(recorded: &Recorded) -> BTreeSet<Option<Tier>> {
    let profile = &recorded.recording.profile;
    let is_of_program = |location: &&Location| {
        let functions = location.lines.iter().filter_map(|line| profile.function(line.function));
        functions.map(|function| profile.string(function.name)).any(|name| name.starts_with("Shares."))
    };
    // Where only the function of a frame could be named, and not its place, nothing is said of how it runs.
    profile.locations.iter().filter(is_of_program).map(|location| location.tier).filter(Option::is_some).collect()
}
