//! Java on HotSpot: shares by phase, callers, depth and roots, interpreted and compiled by either compiler.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use profiler_integration::environment::{find, have_tools, repository};
use profiler_integration::proof::{HERTZ, prove_with};
use profiler_integration::recording::{Recorded, folder, record_command};
use profiler_integration::rows::{Row, total};
use profiler_model::{FrameKind, Location, Tier};
use tempfile::TempDir;

/// Whole stacks of the thread that works.
const WHOLE: f64 = 0.99;
/// The same of all threads of a JVM from its start on: libjvm's own, and the moments at which it has no code heap yet. The slower a machine, the
/// more of them.
const WHOLE_OF_ALL: f64 = 0.95;
/// `Shares.down` calls itself so often.
const DEPTH: usize = 100;

/// The folder with the program's classes, which any JVM from 8 on runs.
fn classes() -> TempDir {
    let classes = folder().unwrap_or_else(|error| panic!("{error}"));
    let source = repository().join("integration/programs/java/Shares.java");
    let mut javac = Command::new("javac");
    let compiled = javac.args(["--release", "8", "-nowarn", "-d"]).arg(classes.path()).arg(source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    classes
}

/// Recursion is as deep as it is, inlined or not, but for one in `one_in`.
fn check_depth(rows: &[Row], one_in: u64) {
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
        "{right} are right, these not: {}",
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

/// The program's methods run in the ways of `surely`, and in none but those of `perhaps` besides.
fn proves(test: &str, flags: &[&str], one_in: u64, surely: &[Tier], perhaps: &[Tier]) {
    if !have_tools(test, &["java", "javac"]) {
        return;
    }
    let java: PathBuf = find("java").unwrap();
    let classes = classes();
    let path = classes.path().display().to_string();
    let arguments = [flags, &["-cp", &path, "Shares", "--ms", "2500"]].concat();
    let rows = |recorded: &Recorded| {
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
        check_depth(&rows, one_in);
        let of = |tiers: &[Tier]| tiers.iter().copied().map(Some).collect::<BTreeSet<_>>();
        let (tiers, surely) = (tiers(recorded), of(surely));
        assert!(tiers.is_superset(&surely) && tiers.is_subset(&(&surely | &of(perhaps))), "{test}: {tiers:?}");
        rows
    };
    prove_with(test, WHOLE, || record_command(HERTZ, &java, &arguments), rows, |_| false);
}

#[test]
fn root_java_mixed() {
    // On a small machine the JVM would take another collector, with which the second compiler leaves out safepoints in counted loops: then it
    // knows no method that is inlined into one, and nobody can tell.
    // And it inlines `bottom` into `down`, without debug information between safepoints: a leaf there is shown as what the next one is in, as the
    // JVM itself would, on the way down too. That is one in 20.
    proves("root_java_mixed", &["-XX:+UseG1GC"], 6, &[Tier::Interpreted, Tier::C2], &[Tier::C1]);
}

#[test]
fn root_java_interpreted() {
    // At a moment at which a frame is made or left.
    proves("root_java_interpreted", &["-Xint"], 100, &[Tier::Interpreted], &[]);
}

#[test]
fn root_java_by_the_first_compiler() {
    // It inlines `bottom`, too.
    proves("root_java_by_the_first_compiler", &["-XX:TieredStopAtLevel=1"], 6, &[Tier::C1], &[Tier::Interpreted]);
}
