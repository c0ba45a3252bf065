//! Java on HotSpot: shares by phase, callers, depth and roots, interpreted and compiled by either compiler.

use std::path::PathBuf;
use std::process::Command;

use profiler_integration::environment::{find, have_tools, repository};
use profiler_integration::proof::{HERTZ, prove_with};
use profiler_integration::recording::{Recorded, folder, record_command};
use profiler_integration::rows::Row;
use profiler_model::FrameKind;
use tempfile::TempDir;

/// Whole stacks, of all threads of a JVM from its start on: libjvm's own threads and the moments at which it has no code heap yet are among them.
const WHOLE: f64 = 0.99;
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

/// Recursion is as deep as it is, inlined or not.
fn check_depth(rows: &[Row]) {
    let (mut right, mut wrong) = (0, Vec::new());
    for row in rows {
        let count =
            |wanted: &str| row.frames.iter().flat_map(|frame| &frame.functions).filter(|name| *name == wanted).count();
        if count("Shares.bottom") == 0 {
            continue;
        }
        if count("Shares.down") == DEPTH + 1 { right += row.count } else { wrong.push(row.describe()) }
    }
    // One in a hundred may be at a moment at which a frame is made or left.
    assert!(right > 5 && wrong.len() as u64 <= 1 + right / 100, "{right} are right, these not: {}", wrong.join("\n"));
}

fn proves(test: &str, flags: &[&str]) {
    if !have_tools(test, &["java", "javac"]) {
        return;
    }
    let java: PathBuf = find("java").unwrap();
    let classes = classes();
    let path = classes.path().display().to_string();
    let arguments = [flags, &["-cp", &path, "Shares", "--ms", "2500"]].concat();
    let rows = |recorded: &Recorded| {
        let rows = recorded.own_rows();
        let frames = || rows.iter().flat_map(|row| &row.frames);
        let of_java = |name: &String| name.starts_with("Shares.") || name.starts_with("java.");
        assert!(
            frames().filter(|frame| frame.functions.iter().any(of_java)).all(|frame| frame.kind == FrameKind::Jvm),
            "{test}: what is Java's is shown as such"
        );
        check_depth(&rows);
        rows
    };
    prove_with(test, WHOLE, || record_command(HERTZ, &java, &arguments), rows, |_| false);
}

#[test]
fn root_java_mixed() {
    // On a small machine the JVM would take another collector, with which the second compiler leaves out safepoints in counted loops: then it
    // knows no method that is inlined into one, and nobody can tell.
    proves("root_java_mixed", &["-XX:+UseG1GC"]);
}

#[test]
fn root_java_interpreted() {
    proves("root_java_interpreted", &["-Xint"]);
}

#[test]
fn root_java_by_the_first_compiler() {
    proves("root_java_by_the_first_compiler", &["-XX:TieredStopAtLevel=1"]);
}
