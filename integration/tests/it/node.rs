//! JavaScript on every version of Node.js that is followed: shares by phase, callers, depth, lines, and ways to run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use profiler_integration::environment::{have, have_root, have_tools, one_at_a_time};
use profiler_integration::node::{VERSIONS, node};
use profiler_integration::proof::{HERTZ, prove_with};
use profiler_integration::recording::{Recorded, record_running};
use profiler_integration::rows::{Row, total};
use profiler_integration::shares::group_of;
use profiler_model::{FrameKind, Tier};

/// Of stacks whole, and of those in phases with all their callers.
const BAR: f64 = 0.99;
/// `down` and `descend` call themselves so often.
const DEPTH: usize = 100;

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/javascript").join(name)
}

/// The program of a version; none if it is not to be had, which is told.
fn of_version(test: &str, version: u32) -> Option<PathBuf> {
    if !have_root(test) || !have_tools(test, &["npm"]) {
        return None;
    }
    let _one = one_at_a_time();
    match node(version) {
        Ok(node) => Some(node),
        Err(error) => {
            let _ = have(test, false, &format!("Node.js {version}, which npm fetches: {error}"));
            None
        }
    }
}

/// Functions of the program: their first line, and the one after the last.
fn functions() -> BTreeMap<String, (u32, u32)> {
    let text = std::fs::read_to_string(program("phases.js")).expect("the program is there");
    let lines: Vec<&str> = text.lines().collect();
    let mut found = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.get(..line.len() - line.trim_start().len()).unwrap_or_default();
        let declared = line.trim_start().trim_start_matches("return ").trim_start_matches("async ");
        let Some(name) = declared.strip_prefix("function") else { continue };
        let name = name.trim_start_matches('*').trim_start().split('(').next().unwrap_or_default();
        let end = format!("{indent}}}");
        let own = lines.iter().skip(at).take_while(|line| line.trim_end_matches(';') != end).count();
        found.insert(name.to_owned(), (at as u32 + 1, (at + own) as u32 + 1));
    }
    found
}

/// Every line that is told lies within its function.
fn check_lines(test: &str, recorded: &Recorded) {
    let profile = &recorded.recording.profile;
    let functions = functions();
    let mut seen = BTreeMap::<String, u32>::new();
    for location in profile.locations.iter().filter(|location| location.kind == FrameKind::V8js) {
        for line in &location.lines {
            let function = profile.function(line.function).expect("it is in the file");
            let name = profile.string(function.name);
            if !profile.string(function.file).ends_with("phases.js") {
                continue;
            }
            *seen.entry(name.to_owned()).or_default() += 1;
            let Some((first, last)) = functions.get(name) else { continue };
            assert!((*first..=*last).contains(&line.line), "{test}: {name}: line {} of {first} to {last}", line.line);
            assert_eq!(function.start_line, *first, "{test}: {name} begins there");
        }
    }
    for name in ["work", "bottom", "descend", "down", "byKey", "añadido", "area", "numbers", "awaiting", "main"] {
        assert!(seen.contains_key(name), "{test}: {name} is not among {seen:?}");
    }
}

/// Recursion is as deep as it is, interpreted and compiled, inlined or not. Of what is compiled, callers are missed that V8's own tables leave out:
/// not more than `left_out`, of the inlined ones.
fn check_depth(test: &str, rows: &[Row], left_out: usize) {
    let (mut right, mut wrong) = (0, Vec::new());
    for row in rows {
        let count =
            |wanted: &str| row.frames.iter().flat_map(|frame| &frame.functions).filter(|name| *name == wanted).count();
        for (bottom, function, left_out) in [("bottom", "descend", left_out), ("atTheBottom", "down", 0)] {
            match (count(bottom), (DEPTH + 1).abs_diff(count(function))) {
                (0, _) => {}
                (_, missing) if missing <= left_out => right += row.count,
                _ => wrong.push(row.describe()),
            }
        }
    }
    assert!(right > 20, "{test}: {right} stacks are at the bottom");
    assert!(wrong.len() as u64 <= 1 + right / 100, "{test}: {right} are right, not so: {}", wrong.join("\n"));
}

/// The stacks of the thread that runs JavaScript: all but some of its end are in phases, since it is recorded from the midst of its run.
fn of_main_thread(test: &str, recorded: &Recorded) -> Vec<Row> {
    let groups: Vec<&str> = recorded.truth.shares.keys().map(String::as_str).collect();
    let own: Vec<Row> = recorded.own_rows().into_iter().filter(|row| row.tid == row.pid).collect();
    let inside = total(own.iter().filter(|row| group_of(row, &groups).is_some()));
    let all = total(&own);
    assert!(all > 100 && inside as f64 > all as f64 * 0.95, "{test}: {inside} of {all} stacks are in phases");
    own
}

/// The program is recorded as it runs, since the engine needs some time to settle: objects are moved from where they are made.
fn recorded(node: &Path, flags: &[&str], name: &str, ms: &str) -> Result<Recorded, profiler_integration::Error> {
    let program = program(name);
    let arguments = [flags, &[program.to_str().unwrap_or_default(), "--ms", ms]].concat();
    record_running(HERTZ, node, &arguments)
}

fn has_phases(test: &str, version: u32) {
    let Some(node) = of_version(test, version) else { return };
    let rows = |recorded: &Recorded| {
        let rows = of_main_thread(test, recorded);
        check_depth(test, &rows, usize::from(version >= 26));
        check_lines(test, recorded);
        rows
    };
    prove_with(test, BAR, || recorded(&node, &[], "phases.js", "4000"), rows, |_| false);
}

#[test]
fn root_node_18() {
    has_phases("root_node_18", 18);
}

#[test]
fn root_node_20() {
    has_phases("root_node_20", 20);
}

#[test]
fn root_node_22() {
    has_phases("root_node_22", 22);
}

#[test]
fn root_node_24() {
    has_phases("root_node_24", 24);
}

#[test]
fn root_node_26() {
    has_phases("root_node_26", 26);
}

/// How each function runs is what V8 itself says.
#[test]
fn root_node_tells_which_compiler_made_what_runs() {
    let test = "root_node_tells_which_compiler_made_what_runs";
    for version in VERSIONS {
        let Some(node) = of_version(test, version) else { continue };
        let mut flags = vec!["--allow-natives-syntax", "--sparkplug", "--sparkplug-filter=inSparkplug"];
        flags.push("--turbo-filter=inTurbofan");
        if version > 18 {
            flags.extend(["--maglev", "--maglev-filter=inMaglev"]);
        }
        let _one = one_at_a_time();
        let recorded = recorded(&node, &flags, "tiers.js", "800").unwrap_or_else(|error| panic!("{test}: {error}"));
        let compiled_of = &recorded.truth.compiled;
        let mut counts = BTreeMap::<(&str, Option<Tier>), u64>::new();
        for row in recorded.own_rows() {
            let names = ["inInterpreter", "inSparkplug", "inMaglev", "inTurbofan"];
            let of = |name: &str| row.frames.iter().find(|frame| frame.functions.iter().any(|of| of == name));
            if let Some((name, frame)) = names.into_iter().find_map(|name| Some((name, of(name)?))) {
                *counts.entry((name, frame.tier)).or_default() += row.count;
            }
        }
        println!("{test}: Node.js {version}: {compiled_of:?}, {counts:?}");
        for (name, compiled) in [
            ("inInterpreter", Tier::Interpreted),
            ("inSparkplug", Tier::Sparkplug),
            ("inMaglev", Tier::Maglev),
            ("inTurbofan", Tier::Turbofan),
        ] {
            let is_compiled = compiled_of.get(name).copied().unwrap_or(false);
            let tier = if is_compiled { compiled } else { Tier::Interpreted };
            let right = counts.get(&(name, Some(tier))).copied().unwrap_or(0);
            let all: u64 = counts.iter().filter(|((of, _), _)| *of == name).map(|(_, count)| count).sum();
            // It warms up in other ways, of which the end is recorded.
            assert!(all > 40 && right * 100 >= all * 90, "{test}: Node.js {version}: {name}, {tier:?}: {counts:?}");
        }
    }
}
