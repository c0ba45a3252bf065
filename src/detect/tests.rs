use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use profiler_formats::format::{self, Format};
use profiler_model::builder::ProfileBuilder;
use profiler_model::{Function, Line, Location, Process, Profile, Sample, Thread, ValueType, Values};
use serde_json::Value;

use super::{By, Options, run};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_795_727_100 * SECOND;

fn options(inputs: &[&Path]) -> Options {
    Options {
        inputs: inputs.iter().map(|path| path.to_path_buf()).collect(),
        detectors: Vec::new(),
        by: By::Function,
        of: None,
        every: Duration::from_secs(1),
        sample_type: None,
        json: true,
        output: None,
        exit_code: true,
    }
}

/// The events, and whether the exit code tells them.
fn detect(options: &Options) -> anyhow::Result<(Vec<Value>, bool)> {
    let mut out = Vec::new();
    let code = run(options, &mut out)?;
    let lines = String::from_utf8(out)?;
    let events = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok((events, code != ExitCode::SUCCESS))
}

fn refused(options: &Options) -> String {
    format!("{:#}", detect(options).map(|_| ()).expect_err("it is refused"))
}

fn file(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).expect("a file");
    path
}

/// A step at second 300, in two series.
fn steps() -> String {
    let mut text = String::from("time,series,value\n");
    for second in 0..400_u64 {
        let noise = (second * 7_919 % 101) as f64 / 101.0;
        let level = if second < 300 { 100.0 } else { 110.0 };
        text += &format!("{second},steps,{}\n{second},\"<steady> & \u{1b}[2J\",{}\n", level + noise, 50.0 + noise);
    }
    text
}

/// A profile for each of `minutes`, of ten seconds, 990 samples, of which `of` are in "hot".
fn profiles(folder: &Path, format: Format, has_times: bool, parts: impl Iterator<Item = u64>) {
    for (number, of) in parts.enumerate() {
        let mut builder = ProfileBuilder::new();
        let start = START + 10 * SECOND * number as u64;
        builder.begin(Profile {
            start_unix_nanos: start,
            duration_nanos: 10 * SECOND,
            sample_types: vec![ValueType::new("samples", "count")],
            period_type: ValueType::new("cpu", "nanoseconds"),
            period: 10_101_010,
            ..Profile::default()
        });
        let name = builder.string("server");
        let process = builder.process(Process { pid: Some(7), name, ..Process::default() });
        let thread = builder.thread(Thread { process, tid: 7, ..Thread::default() });
        let mut stacks = Vec::new();
        for text in ["hot", "cold", "main"] {
            let name = builder.string(text);
            let function = builder.function(Function { name, ..Function::default() });
            let line = Line { function, ..Line::default() };
            stacks.push(builder.location(Location { lines: vec![line], ..Location::default() }));
        }
        let [hot, cold, main] = stacks.try_into().expect("three");
        for (leaf, count) in [(hot, of), (cold, 990 - of)] {
            let stack = builder.stack(&[leaf, main]);
            // Spread over the ten seconds, where they have times.
            for part in 0..10_u64 {
                let count = count / 10 + u64::from(part < count % 10);
                let time = start + part * SECOND + SECOND / 2;
                builder.profile_mut().samples.push(Sample {
                    stack,
                    thread: Some(thread),
                    time_unix_nanos: has_times.then_some(time),
                    values: Values::One(count as i64),
                    ..Sample::default()
                });
            }
        }
        let mut bytes = Vec::new();
        format::write(&builder.finish(), format, &mut bytes).expect("memory takes all");
        // Not in order of time.
        file(folder, &format!("{:03}{}", 999 - number, format.extension()), bytes);
    }
}

#[test]
fn a_step_in_csv_is_told_once_and_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let csv = file(folder.path(), "steps.csv", steps());
    let plot = folder.path().join("steps.svg");
    let (events, told) = detect(&Options { output: Some(plot.clone()), ..options(&[&csv]) }).expect("it reads");
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    assert!(told);
    assert_eq!(
        (&event["series"], &event["kind"], &event["direction"]),
        (&"steps".into(), &"changed".into(), &"up".into())
    );
    let since: u64 = event["since_unix_nano"].as_str().expect("text").parse().expect("a number");
    assert!((295..=300).contains(&(since / SECOND)), "{event}");
    assert!((event["from"]["value"].as_f64().expect("a number") - 100.5).abs() < 0.1, "{event}");
    assert!((event["to"]["value"].as_f64().expect("a number") - 110.5).abs() < 0.5, "{event}");
    let svg = fs::read_to_string(plot).expect("a plot");
    assert!(
        svg.contains("class=\"event\"") && svg.contains("&lt;steady&gt; &amp; ?[2J") && !svg.contains('\u{1b}'),
        "{svg}"
    );
    assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    // For people, in one line, without what drives a terminal.
    let mut out = Vec::new();
    run(&Options { json: false, ..options(&[&csv]) }, &mut out).expect("it reads");
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("steps: up from 100.5") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_function_that_doubles_is_told_from_a_folder_of_profiles() {
    for (format, has_times) in [(Format::Pprof, false), (Format::Otlp, true), (Format::OtlpJson, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let parts = (0..80_u64).map(|number| if number < 60 { 48 + number % 5 } else { 100 + number % 5 });
        profiles(folder.path(), format, has_times, parts);
        file(folder.path(), "README", "no profile");
        let detectors = if has_times { "cusum" } else { "cusum,warm-up=10,gap=10min" };
        let options = Options { detectors: vec![detectors.to_owned()], ..options(&[folder.path()]) };
        let (events, told) = detect(&options).expect("it reads");
        assert!(told, "{format}");
        let [event] = events.as_slice() else { panic!("{format}: {events:#?}") };
        assert_eq!((&event["series"], &event["direction"]), (&"hot".into(), &"up".into()), "{format}");
        let time: u64 = event["time_unix_nano"].as_str().expect("text").parse().expect("a number");
        let after = (time - START) / SECOND;
        assert!((600..=620).contains(&after), "{format}: {after}");
        // Whoever is on every stack does not change; nor does the process.
        for (by, of) in [(By::Process, None), (By::Service, None), (By::Total, Some("other".to_owned()))] {
            let other = Options { by, of: of.clone(), ..self::options(&[folder.path()]) };
            match of {
                None => assert!(detect(&other).expect("it reads").0.is_empty(), "{format} {by:?}"),
                Some(_) => assert!(refused(&other).contains("no observation"), "{format}"),
            }
        }
        let total = Options { by: By::Total, of: Some("server".to_owned()), ..options };
        let (events, _) = detect(&total).expect("it reads");
        assert!(events.iter().all(|event| event["series"] == "hot") && events.len() == 1, "{events:#?}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str, content: &[u8]| file(folder.path(), name, content);
    let garbage: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, content, words) in [
        ("a.csv", &b"time,value\n1,2\n2,x\n"[..], &["a.csv:3", "\"x\"", "leave it empty"][..]),
        ("b.csv", &b""[..], &["no observation"]),
        ("c.csv", &b"time,value\n1,\n2,NaN\n"[..], &["no observation"]),
        ("d.csv", &garbage, &["d.csv:1", "CSV"]),
        ("e.pb.gz", &garbage, &["e.pb.gz", "*.csv"]),
        ("f.pb", b"", &["f.pb"]),
    ] {
        let error = refused(&options(&[&at(name, content)]));
        assert!(words.iter().all(|word| error.contains(word)), "{name}: {error}");
    }
    let wrong = |detector: &str| {
        refused(&Options { detectors: vec![detector.to_owned()], ..options(&[&at("g.csv", b"1,2\n")]) })
    };
    assert!(wrong("cusum,treshold=3").contains("they are threshold"));
    assert!(wrong("magic").contains("there are cusum, ewma"));
    let plot = Options { output: Some(folder.path().join("x.png")), ..options(&[&at("h.csv", b"1,2\n")]) };
    assert!(refused(&plot).contains("*.svg"));
    assert!(refused(&options(&[&folder.path().join("missing.csv")])).contains("missing.csv"));
    let empty = tempfile::tempdir().expect("a folder");
    file(empty.path(), "notes.md", "text");
    assert!(refused(&options(&[empty.path()])).contains("*.pb.gz"));
}

#[test]
fn names_that_are_too_long_are_cut_and_looked_at_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = "ä".repeat(3_000);
    let csv = file(folder.path(), "long.csv", steps().replace(",steps,", &format!(",{long},")));
    let (events, _) = detect(&options(&[&csv])).expect("it reads");
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    let name = event["series"].as_str().expect("text");
    assert!(long.starts_with(name) && name.len() == profiler_detectors::MAX_NAME, "{}", name.len());
}

#[test]
fn why_nothing_could_be_told_is_said() {
    let config = profiler_detectors::Config::default();
    let hint = |count: u64, distance: u64| {
        let mut pace = super::Pace::default();
        for number in 0..count {
            pace.note("a", number * distance * SECOND);
            pace.note("b", number);
        }
        pace.hint(std::slice::from_ref(&config))
    };
    let few = hint(51, 30).expect("too few");
    assert!(few.contains("warm-up=60") && few.contains("51 observations"), "{few}");
    let far = hint(100, 120).expect("too far apart");
    assert!(far.contains("gap=1min") && far.contains("120s apart"), "{far}");
    assert_eq!(hint(100, 1), None);
}

#[test]
fn hostile_csv_ends_and_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    // Times that jump and go back, numbers at the ends of what is allowed, as many series as rows.
    let mut text = String::from("time,value,variance,series\n");
    for row in 0..20_000_u64 {
        let time = if row % 3 == 0 { u64::MAX - row } else { row % 1_000 };
        let value = ["1e100", "-1e100", "1e-320", "0", "-0.0"][row as usize % 5];
        text += &format!("{time},{value},{},{}\n", ["0", "1e100"][row as usize % 2], row % 7_000);
    }
    let csv = file(folder.path(), "hostile.csv", text);
    let plot = folder.path().join("hostile.svg");
    let all = ["cusum", "ewma", "robust-z", "holt-winters"].map(|name| format!("{name},pool=0s,warm-up=2")).to_vec();
    detect(&Options { detectors: all, output: Some(plot.clone()), ..options(&[&csv]) }).expect("it reads");
    let svg = fs::read_to_string(plot).expect("a plot");
    assert!(svg.len() < 4 << 20 && !svg.contains("NaN") && !svg.contains("inf"), "{}", svg.len());
}
