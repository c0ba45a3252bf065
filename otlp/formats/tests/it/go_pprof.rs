//! pprof files through `go tool pprof`, the reader that everyone has.

use std::{fs::File, path::Path, process::Command};

use profiler_formats::{otlp, pprof};
use profiler_model::{Profiles, ValueType};
use profiler_need::{find, have_tools};

fn go(arguments: &[&str], file: &Path) -> Option<String> {
    if !have_tools(&format!("go tool pprof {}", arguments.join(" ")), &["go"]) {
        return None;
    }
    let go = find("go").unwrap();
    let output = Command::new(go).args(["tool", "pprof"]).args(arguments).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn written(profile: &Profiles) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".pb.gz").tempfile().unwrap();
    pprof::encode(profile, File::create(file.path()).unwrap()).unwrap();
    file
}

#[test]
fn top_shows_cpu_time_by_function() {
    let file = written(&crate::profiles::small(12));
    let Some(top) = go(&["-top", "-nodecount=20"], file.path()) else { return };
    // 12 samples of 10.1 ms: 3 in each of the four stacks.
    assert!(top.contains("File: server"), "{top}");
    assert!(top.contains("Type: cpu"), "{top}");
    assert!(top.contains("Total samples = 121.21ms"), "{top}");
    let line = |name: &str| top.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {top}"));
    assert_eq!(line("ksys_write").split_whitespace().next(), Some("30.30ms"), "{top}");
    assert_eq!(line("main").split_whitespace().nth(3), Some("90.91ms"), "{top}");
    assert!(line("core::ptr::read").contains("(inline)"), "{top}");
}

#[test]
fn each_of_several_measures_is_chosen_by_its_name() {
    for (second, default) in [(false, "cpu"), (true, "task-clock")] {
        let file = written(&crate::measures::two_clocks(second));
        // Function `busy` and the total, as go prints them.
        let expected = [
            ("samples", "20", "Total samples = 25"),
            ("cpu", "202.02ms", "Total samples = 252.53ms"),
            ("task-clock", "190ms", "Total samples = 250ms"),
            ("page-faults", "", "Total samples = 4000"),
        ];
        for (name, busy, total) in expected {
            let index = format!("-sample_index={name}");
            let Some(top) = go(&["-top", &index], file.path()) else { return };
            assert!(top.contains(&format!("Type: {name}\n")), "{top}");
            assert!(top.contains(total), "{top}");
            let line = top.lines().find(|line| line.ends_with(" busy"));
            assert_eq!(line.map_or("", |line| line.split_whitespace().next().unwrap()), busy, "{top}");
            if name == default {
                assert_eq!(go(&["-top"], file.path()).unwrap(), top);
            }
        }
        let raw = go(&["-raw"], file.path()).unwrap();
        assert!(raw.contains("samples/count cpu/nanoseconds"), "{raw}");
    }
}

#[test]
fn raw_shows_labels_mappings_and_times() {
    let file = written(&crate::profiles::small(12));
    let Some(raw) = go(&["-raw"], file.path()) else { return };
    for expected in [
        "PeriodType: cpu nanoseconds",
        "Period: 10101010",
        "samples/count cpu/nanoseconds",
        "cc22",
        "0x1000/0x101000/0x1000 /usr/bin/server cc22 [FN][FL][LN][IN]",
        "process:[server]",
        "thread:[worker]",
        "pid:[100]",
        "tid:[101]",
        "cpu:[0]",
        "timestamp:[1795438015000000000 nanoseconds]",
        "container_id:[ffffffff",
    ] {
        assert!(raw.contains(expected), "{expected} is not in\n{raw}");
    }
    // Each line of a sample begins with its two values.
    assert_eq!(raw.matches("          1   10101010: ").count(), 12, "{raw}");
}

#[test]
fn comments_show_origin_and_losses() {
    let file = written(&crate::profiles::small(1));
    let Some(comments) = go(&["-comments"], file.path()) else { return };
    for expected in
        ["profiler.host: alder", "profiler.kernel: 6.18.0", "profiler.rate_hz: 99", "profiler.loss: 3 lost: ring full"]
    {
        assert!(comments.contains(expected), "{comments}");
    }
}

#[test]
fn what_go_writes_is_read() {
    let original = crate::profiles::small(12);
    let file = written(&original);
    let rewritten = tempfile::Builder::new().suffix(".pb.gz").tempfile().unwrap();
    let output = format!("-output={}", rewritten.path().display());
    if go(&["-proto", &output], file.path()).is_none() {
        return;
    }
    let back = pprof::decode(&std::fs::read(rewritten.path()).unwrap()).unwrap();
    assert_eq!(back.profiles[0].sample_types, [ValueType { kind: "samples".to_owned(), unit: "count".to_owned() }]);
    assert_eq!(back.sample_count(), 12);
    assert_eq!(back.losses, original.losses);
    assert_eq!(back.origin, original.origin);
    let tids = |profile: &Profiles| {
        let mut tids: Vec<_> = profile
            .samples()
            .map(|(_, sample)| {
                (profile.threads[sample.thread.unwrap() as usize].tid, sample.cpu, sample.time_unix_nanos)
            })
            .collect();
        tids.sort();
        tids
    };
    assert_eq!(tids(&original), tids(&back));
}

#[test]
fn a_profile_of_the_go_runtime_keeps_its_figures() {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original.pb.gz");
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration/pdata");
    if !have_tools("a_profile_of_the_go_runtime_keeps_its_figures", &["go"]) {
        return;
    }
    let mut command = Command::new(find("go").unwrap());
    let output = command.args(["run", "./cpuprofile"]).arg(&original).current_dir(module).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let profile = pprof::decode(&std::fs::read(&original).unwrap()).unwrap();
    assert!(profile.sample_count() > 20);
    // count and nanoseconds say the same.
    assert_eq!(profile.measured().len(), 1);
    let labels = profile.samples().flat_map(|(_, sample)| sample.labels.iter().flat_map(|labels| labels.iter()));
    assert!(labels.into_iter().any(|label| profile.string(label.key) == "phase"));
    let rewritten = written(&profile);
    for arguments in [&["-top"][..], &["-top", "-cum"], &["-tags"], &["-traces"], &["-top", "-sample_index=samples"]] {
        let (before, after) = (go(arguments, &original).unwrap(), go(arguments, rewritten.path()).unwrap());
        assert_eq!(before, after);
    }
    let otlp = otlp::decode(&otlp::encode(&profile)).unwrap();
    assert_eq!(crate::profiles::samples(&profile), crate::profiles::samples(&otlp));
}
