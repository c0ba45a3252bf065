//! Python's functions on stacks, of every version of CPython that there is here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::proof::HERTZ;
use profiler_integration::python::{BAR, BAR_OF_FEW, Carried, program, prove_phases};
use profiler_integration::recording::{Recorded, Recorder, folder, record_command, record_running};
use profiler_integration::rows::{Row, is_function, rows, total};
use profiler_integration::truth::Truth;
use profiler_model::FrameKind;

/// The distribution's, which is there where tests must run, as it is: one program, stripped.
fn of_the_distribution(test: &str) -> Option<PathBuf> {
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap_or_else(|_| PathBuf::from("/usr/bin/python3"));
    profiler_need::have_file(test, &python).then_some(python)
}

/// Those of pyenv that are followed, with a library of their own.
fn of_pyenv() -> Vec<(String, PathBuf)> {
    let home = std::env::var_os("PYENV_ROOT").map_or_else(|| PathBuf::from("/root/.pyenv"), PathBuf::from);
    let folders = std::fs::read_dir(home.join("versions")).into_iter().flatten().flatten();
    let mut found: Vec<(String, PathBuf)> = folders
        .filter_map(|folder| {
            let version = folder.file_name().to_string_lossy().into_owned();
            let minor: u32 = version.strip_prefix("3.")?.split('.').next()?.parse().ok()?;
            (minor >= 8).then(|| (version, folder.path().join("bin/python3")))
        })
        .collect();
    found.sort();
    found
}

fn recorded(python: &Path, ms: &str) -> Result<Recorded, profiler_integration::Error> {
    let source = program();
    record_running(HERTZ, python, &[source.to_str().unwrap_or_default(), "--ms", ms])
}

#[test]
fn root_phases_of_a_program_have_their_share_and_their_callers() {
    let test = "root_phases_of_a_program_have_their_share_and_their_callers";
    if let Some(python) = of_the_distribution(test) {
        prove_phases(test, BAR, || recorded(&python, "1500"));
    }
}

#[test]
fn root_the_same_with_every_version_that_is_here() {
    let versions = of_pyenv();
    profiler_need::have_by_chance("root_the_same_with_every_version_that_is_here", !versions.is_empty(), "pyenv");
    for (version, python) in versions {
        prove_phases(&format!("python {version}"), BAR_OF_FEW, || recorded(&python, "1200"));
    }
}

/// Calls that are not deep: under `-X perf` one may have six frames.
const NESTED: &str = "import time
def leaf(n): return sum(i * i for i in [1, 2, 3]) + [x for x in range(n)][-1]
def mid(n): return leaf(n)
def outer(n): return mid(n)
end = time.process_time() + 1
while time.process_time() < end: outer(20000)
";

#[test]
fn root_perfs_trampolines_are_crossed_and_not_shown() {
    let test = "root_perfs_trampolines_are_crossed_and_not_shown";
    if !have_root(test) {
        return;
    }
    let mut versions = of_pyenv();
    versions.retain(|(version, _)| ["3.12.", "3.13.", "3.14.", "3.15."].iter().any(|known| version.starts_with(known)));
    profiler_need::have_by_chance(test, !versions.is_empty(), "Python with -X perf");
    let _one = one_at_a_time();
    let folder = folder().expect("a folder");
    let script = folder.path().join("nested.py");
    std::fs::write(&script, NESTED).expect("written");
    for (version, python) in versions {
        let arguments = ["-X", "perf", script.to_str().unwrap_or_default()];
        let recording =
            Recorder::new(HERTZ).and_then(|recorder| recorder.run(&python, &arguments)).expect("a recording");
        let rows = rows(&recording.profile);
        let told: Vec<(u64, String)> = rows.iter().map(|row| (row.count, row.describe())).collect();
        let of = |text: &str| told.iter().filter(|(_, row)| row.contains(text)).map(|(count, _)| count).sum::<u64>();
        let (all, whole, shown) = (of("leaf; mid"), of("leaf; mid; outer; <module>; "), of("py::"));
        println!("{test}: python {version}: {all} in leaf, {whole} of them with all callers, {shown} with trampolines");
        assert!(all > 100 && whole + 2 + all / 100 >= all && shown == 0, "python {version}: {told:#?}");
    }
}

/// Functions of the program: their first line, and the one after the last.
fn functions() -> BTreeMap<String, (u32, u32)> {
    let text = std::fs::read_to_string(program()).expect("the program is there");
    let lines: Vec<&str> = text.lines().collect();
    let mut found = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = line.trim_start().strip_prefix("def ").and_then(|rest| rest.split('(').next()) else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let rest = lines.iter().skip(at + 1);
        let own =
            rest.take_while(|line| line.trim().is_empty() || line.len() - line.trim_start().len() > indent).count();
        found.insert(name.to_owned(), (at as u32 + 1, (at + 1 + own) as u32));
    }
    found
}

#[test]
fn root_functions_have_their_lines_their_file_and_their_callees() {
    let test = "root_functions_have_their_lines_their_file_and_their_callees";
    let Some(python) = of_the_distribution(test) else { return };
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let recorded = recorded(&python, "1000").expect("a recording");
    let profile = &recorded.recording.profile;
    let functions = functions();
    let mut seen = BTreeMap::<String, u32>::new();
    let mut without_line = 0;
    for location in profile.locations.iter().filter(|location| location.kind == FrameKind::Cpython) {
        for line in &location.lines {
            let function = profile.function(line.function).expect("it is in the file");
            let file = profile.string(function.file);
            if !file.ends_with("phases.py") {
                continue;
            }
            let name = profile.string(function.name);
            let name = name.rsplit('.').next().unwrap_or_default();
            *seen.entry(name.to_owned()).or_default() += 1;
            if line.line == 0 {
                // Of a place that was first seen when the program was about to end, its function alone may be known.
                without_line += 1;
            } else if let Some((first, end)) = functions.get(name) {
                assert!((*first..=*end).contains(&line.line), "{name}: line {} of {first} to {end}", line.line);
            } else {
                assert_eq!(name, "<module>");
            }
        }
    }
    let all: u32 = seen.values().sum();
    assert!(without_line <= 1 + all / 20, "{without_line} of {all} have no line");
    for name in ["at_the_bottom", "down", "by_key", "numbers", "añadido", "squeezing", "work", "main", "<module>"] {
        assert!(seen.contains_key(name), "{name} is not among {seen:?}");
    }

    // By default no code of the interpreter is between its functions; what a function called of C is above it.
    let own = recorded.own_rows();
    let python = |row: &Row| -> Vec<usize> {
        let kinds = row.frames.iter().enumerate();
        kinds.filter(|(_, frame)| frame.kind == FrameKind::Cpython).map(|(at, _)| at).collect()
    };
    for row in &own {
        let at = python(row);
        if let (Some(first), Some(last)) = (at.first(), at.last()) {
            assert_eq!(last - first + 1, at.len(), "something is between functions: {}", row.describe());
        }
    }
    let named =
        |row: &&Row, name: &str| row.frames.iter().any(|frame| frame.functions.iter().any(|of| is_function(of, name)));
    let squeezed: Vec<&Row> = own.iter().filter(|row| named(row, "squeezing")).collect();
    let deflated = squeezed.iter().filter(|row| named(row, "deflate")).map(|row| row.count).sum::<u64>();
    assert!(deflated * 2 > total(squeezed.iter().copied()), "zlib is not above its caller");
}

#[test]
fn root_the_interpreters_own_functions_are_shown_on_request() {
    let test = "root_the_interpreters_own_functions_are_shown_on_request";
    let Some(python) = of_the_distribution(test) else { return };
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let source = program();
    let recorder = Recorder::new(HERTZ).expect("a folder").arg("--runtime-frames").arg("all");
    let recording = recorder.run(&python, &[source.to_str().unwrap_or_default(), "--ms", "300"]).expect("a recording");
    let truth = Truth::find("phases", &recording.finished.stdout).expect("a report");
    let rows: Vec<Row> = rows(&recording.profile).into_iter().filter(|row| row.pid == truth.pid).collect();
    let sorting: Vec<&Row> = rows
        .iter()
        .filter(|row| row.frames.iter().any(|frame| frame.functions.iter().any(|name| name == "by_key")))
        .collect();
    assert!(!sorting.is_empty());
    for row in sorting {
        let at = |name: &str| row.frames.iter().position(|frame| frame.functions.iter().any(|of| of == name));
        let (key, sorting) = (at("by_key").expect("it is there"), at("sorting").expect("it called it"));
        let between = row.frames.get(key + 1..sorting).unwrap_or_default();
        assert!(between.iter().any(|frame| frame.kind == FrameKind::Native), "{}", row.describe());
    }
}

/// Samples a second of recordings of short scripts: enough of each.
const OFTEN: u32 = 1_999;
/// Recordings of one, each by a profiler that knows nothing yet.
const RECORDINGS: usize = 12;
/// Of a script that lives 100 ms, the share of its samples that have its functions, of those in which Python runs.
const OF_SHORT: f64 = 0.9;

#[test]
fn root_a_script_that_lives_100_ms_has_its_functions() {
    let test = "root_a_script_that_lives_100_ms_has_its_functions";
    let Some(python) = of_the_distribution(test) else { return };
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let source = program().with_file_name("short.py");
    // Those of one recording; in words, where it has fewer than the script's own clock makes due.
    let record = |lacking: &mut Vec<Row>| -> Result<Carried, String> {
        let recorded = record_command(OFTEN, &python, &[source.to_str().unwrap_or_default()]).expect("a recording");
        let rows = recorded.own_rows();
        let carried = Carried::of(&rows, lacking);
        // The script's own clock does not begin before its first line.
        let due = recorded.truth.cpu_ns as f64 * f64::from(OFTEN) / 1e9;
        let is_enough = carried.due() as f64 > due * 0.8 - 3.0 * due.sqrt();
        let few = format!("{carried:?} of {due:.0} by its own clock");
        is_enough.then_some(carried).ok_or(few)
    };
    let attempt = || {
        let mut lacking = Vec::new();
        let found: Result<Vec<Carried>, String> = (0..RECORDINGS).map(|_| record(&mut lacking)).collect();
        let mut found = found?;
        println!("{test}: {found:?}");
        // A busy machine gives a profiler no CPU for as long as the script lives, now and then: the better half is what the profiler does.
        found.sort_by(|a, b| b.share().total_cmp(&a.share()));
        found.truncate(RECORDINGS / 2);
        let (with, due) = found.iter().fold((0, 0), |(with, due), one| (with + one.with, due + one.due()));
        let (with, due) = (with as f64, due as f64);
        let error = (due * OF_SHORT * (1.0 - OF_SHORT)).sqrt();
        let lacking: Vec<String> = lacking.iter().take(10).map(Row::describe).collect();
        (with >= due * OF_SHORT - 3.0 * error)
            .then_some(())
            .ok_or_else(|| format!("{with} of {due} samples have functions of Python, not\n{}", lacking.join("\n")))
    };
    if let Err(problem) = attempt() {
        println!("{test}: recording again, for what may be of the moment: {problem}");
        attempt().unwrap_or_else(|problem| panic!("{test}: {problem}"));
    }
}
