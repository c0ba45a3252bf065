use std::path::{Path, PathBuf};
use std::process::ExitCode;

use profiler_formats::format::{self, Format};
use profiler_model::builder::ProfileBuilder;
use profiler_model::{Function, Line, Location, Process, Profile, Sample, Thread, ValueType, Values};
use serde_json::Value;

use super::{By, Options, run};

/// A file with one process, `server`, and so many samples in each function below `main`.
fn file(folder: &Path, name: &str, functions: &[(&str, u64)]) -> PathBuf {
    let mut builder = ProfileBuilder::new();
    builder.begin(Profile {
        start_unix_nanos: 1_795_727_100_000_000_000,
        duration_nanos: 10_000_000_000,
        sample_types: vec![ValueType::new("samples", "count")],
        period_type: ValueType::new("cpu", "nanoseconds"),
        period: 10_101_010,
        ..Profile::default()
    });
    let server = builder.string("server");
    let process = builder.process(Process { pid: Some(7), name: server, ..Process::default() });
    let thread = builder.thread(Thread { process, tid: 7, ..Thread::default() });
    let location = |builder: &mut ProfileBuilder, text: &str| {
        let name = builder.string(text);
        let function = builder.function(Function { name, ..Function::default() });
        builder.location(Location { lines: vec![Line { function, ..Line::default() }], ..Location::default() })
    };
    let main = location(&mut builder, "main");
    for (text, count) in functions {
        let leaf = location(&mut builder, text);
        let stack = builder.stack(&[leaf, main]);
        let values = Values::One(*count as i64);
        builder.profile_mut().samples.push(Sample { stack, thread: Some(thread), values, ..Sample::default() });
    }
    let mut bytes = Vec::new();
    format::write(&builder.finish(), Format::Pprof, &mut bytes).expect("memory takes all");
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

fn options(before: PathBuf, after: PathBuf) -> Options {
    Options {
        before,
        after,
        by: By::Function,
        of: None,
        sample_type: None,
        sigma: 4.0,
        lines: 20,
        json: true,
        outputs: Vec::new(),
        is_absolute: false,
        exit_code: true,
    }
}

fn differences(options: &Options) -> (Vec<Value>, bool) {
    let mut out = Vec::new();
    let code = run(options, &mut out).expect("it runs");
    let text = String::from_utf8(out).expect("text");
    (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), code != ExitCode::SUCCESS)
}

#[test]
fn what_differs_by_more_than_chance_is_told_with_its_error_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = file(folder.path(), "before.pb.gz", &[("encode", 50), ("parse", 500), ("wait", 450)]);
    // Twice the samples: shares count. `parse` differs by one standard error.
    let after = file(folder.path(), "after.pb.gz", &[("encode", 200), ("parse", 960), ("wait", 820), ("gone", 20)]);
    let (told, has_changed) = differences(&options(before.clone(), after.clone()));
    assert!(has_changed);
    let names: Vec<_> = told.iter().map(|one| one["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["encode"], "{told:?}");
    let number = |path: &str| told[0].pointer(path).and_then(Value::as_f64).expect(path);
    assert!((number("/before/value") - 0.05).abs() < 1e-12 && (number("/after/value") - 0.1).abs() < 1e-12);
    assert!((number("/before/error") - (0.05 * 0.95 / 1000.0_f64).sqrt()).abs() < 1e-12, "{told:?}");
    // The root of chi2_contingency([[50, 950], [200, 1800]], lambda_="log-likelihood", correction=True) of SciPy.
    assert!((number("/sigma") - 4.78674630796768).abs() < 1e-9, "{told:?}");

    let (all, _) = differences(&Options { sigma: 0.0, ..options(before.clone(), after.clone()) });
    assert_eq!(all.len(), 4, "one is in the second alone");
    let (first, _) = differences(&Options { sigma: 0.0, lines: 1, ..options(before.clone(), after) });
    assert_eq!(first, told, "the surest first");
    assert_eq!(differences(&options(before.clone(), before)), (Vec::new(), false));
}

#[test]
fn a_few_samples_of_a_short_run_are_no_difference_to_a_long_one() {
    // As many standard errors of a pooled share: 31.6, 7.7, 4.5. Exactly: 3.1 (1 in 1,000), 2.1, 2.4.
    for (size_before, count, size_after) in
        [(100_000.0, 1.0, 100.0), (60_000.0, 1.0, 1_000.0), (10_000.0, 2.0, 1_000.0)]
    {
        let sigma = super::sigma((0.0, size_before), (count / size_after, size_after));
        assert!((1.0..3.2).contains(&sigma), "{sigma}");
        assert!((super::sigma((count / size_after, size_after), (0.0, size_before)) + sigma).abs() < 1e-9);
    }
    // Of many it is the difference in standard errors.
    let (before, after) = ((0.30, 100_000.0), (0.31, 50_000.0));
    let pooled = 45_500.0 / 150_000.0_f64;
    let error = (pooled * (1.0 - pooled) * (1.0 / 100_000.0 + 1.0 / 50_000.0)).sqrt();
    assert!((super::sigma(before, after) / (0.01 / error) - 1.0).abs() < 0.01);
    assert_eq!(super::sigma((1.0, 10.0), (1.0, 10.0)), 0.0);
}

#[test]
fn shares_are_of_whom_one_asks_for_and_nobody_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = file(folder.path(), "before.pb.gz", &[("a", 10), ("b", 10)]);
    let after = file(folder.path(), "after.pb.gz", &[("a", 10), ("b", 10)]);
    let of = |of: &str| Options { of: Some(of.to_owned()), by: By::Process, ..options(before.clone(), after.clone()) };
    assert_eq!(differences(&of("server")), (Vec::new(), false));
    let error = run(&of("shop\u{1b}"), &mut Vec::new()).expect_err("no samples").to_string();
    assert!(error.contains("has no samples of shop") && !error.contains('\u{1b}'), "{error}");
    let error = run(&Options { outputs: vec!["a.pb.gz".into()], ..of("server") }, &mut Vec::new()).expect_err("no");
    assert!(error.to_string().contains("*.svg or *.folded"), "{error}");
}

#[test]
fn both_profiles_are_drawn_beside_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = file(folder.path(), "before.pb.gz", &[("encode", 50), ("parse", 50), ("old", 100)]);
    let after = file(folder.path(), "after.pb.gz", &[("encode", 300), ("parse", 100), ("new", 0)]);
    let (folded, svg) = (folder.path().join("both.folded"), folder.path().join("both.svg"));
    let outputs = vec![folded.clone(), svg.clone()];
    let asked = Options { outputs, ..options(before, after) };
    differences(&asked);
    let read = |path: &Path| std::fs::read_to_string(path).expect("it was written");
    assert_eq!(read(&folded), "server;main;encode 100 300\nserver;main;old 200 0\nserver;main;parse 100 100\n");
    let drawn = read(&svg);
    assert!(drawn.contains("encode (300 samples, 75.00%; +50.00%)"), "{drawn}");
    differences(&Options { is_absolute: true, outputs: vec![folded.clone()], ..asked });
    assert_eq!(read(&folded), "server;main;encode 50 300\nserver;main;old 100 0\nserver;main;parse 50 100\n");
}
