//! `profiler record -e`: counts and shares of events, against perf on the same run and of the same program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use profiler_integration::agent::{Agent, Configuration, Metrics};
use profiler_integration::children;
use profiler_integration::environment::{have, have_root, have_tools, one_at_a_time, profiler};
use profiler_integration::programs;
use profiler_integration::recording::{Recorder, Recording, folder};
use profiler_integration::rows::{Row, rows_of};
use profiler_model::Profile;
use prost::Message;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(120);
const ROUNDS: u64 = 40;
const FAULTS: u64 = ROUNDS * 512;

fn faults() -> PathBuf {
    programs::c("faults").build().unwrap_or_else(|error| panic!("{error}"))
}

/// Records with these events, and nothing but what they say.
fn record(events: &[&str], program: &Path, arguments: &[&str]) -> Recording {
    let mut recorder = Recorder::new(999).expect("a recorder");
    for event in events {
        recorder = recorder.arg("-e").arg(event);
    }
    recorder.run(program, arguments).unwrap_or_else(|error| panic!("{error}"))
}

fn of_source<'a>(recording: &'a Recording, source: &str) -> &'a Profile {
    let found = recording.profile.profiles.iter().find(|profile| profile.source == source);
    found.unwrap_or_else(|| panic!("no profile of {source}: {:?}", recording.profile.losses))
}

/// What was counted in the process of this name, by the innermost function.
fn by_function(recording: &Recording, source: &str, process: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for Row { count, process: name, frames, .. } in rows_of(&recording.profile, of_source(recording, source)) {
        if name == process {
            let leaf = frames.first().and_then(|frame| frame.functions.first()).cloned().unwrap_or_default();
            *counts.entry(leaf).or_default() += count;
        }
    }
    counts
}

/// Whether two counts of the same are apart by no more than three sigma of the smaller.
fn agree(a: u64, b: u64) -> bool {
    a.abs_diff(b) as f64 <= 3.0 * (a.min(b) as f64).sqrt()
}

/// Whether `fault_a` has this share of what both functions have, within three sigma. The first faults of a process may come before it
/// is known, and have no names.
fn share_is(counts: &BTreeMap<String, u64>, share: f64) -> bool {
    let of = |name: &str| counts.get(name).copied().unwrap_or_default() as f64;
    let (a, all) = (of("fault_a"), of("fault_a") + of("fault_b"));
    all > 100.0 && (a - all * share).abs() <= 3.0 * (all * share * (1.0 - share)).sqrt() + 3.0 * 512.0 * 0.25
}

#[test]
fn root_page_faults_are_as_many_as_perf_stat_counts_in_the_same_run() {
    let test = "root_page_faults_are_as_many_as_perf_stat_counts_in_the_same_run";
    if !have_root(test) || !have_tools(test, &["perf"]) {
        return;
    }
    let _one = one_at_a_time();
    let (faults, folder) = (faults(), folder().expect("a folder"));
    for (event, measured, distance) in [("page-faults@1", "page-faults", 1), ("minor-faults@16", "minor-faults", 16)] {
        let told = folder.path().join(measured);
        let (told_text, program) = (told.display().to_string(), faults.display().to_string());
        let arguments = ["stat", "-x,", "-e", measured, "-o", &told_text, "--", &program, &ROUNDS.to_string()];
        let recording = record(&[event], Path::new("perf"), &arguments);
        let text = fs::read_to_string(&told).expect("what perf counted");
        let perf = counted(&text, measured);
        let counts = by_function(&recording, measured, "faults");
        let ours: u64 = counts.values().sum();
        // A sample that found its ring full is counted and stands for as many: a machine whose reader comes late has many of them.
        let lost = recording
            .profile
            .losses
            .iter()
            .filter(|loss| loss.reason.starts_with("lost:") && !loss.reason.contains("events"));
        let lost = lost.map(|loss| loss.count).sum::<u64>() * distance;
        println!("{test}: {event}: {ours} and {lost} lost of {perf}; {:?}", recording.profile.losses);
        assert!(
            perf >= FAULTS && agree(ours + lost, perf),
            "{ours} and {lost} of {perf}: {:?}",
            recording.profile.losses
        );
        // Of a flood from a process that is not known yet, each fault a sample, most may have no frames (told among the losses).
        if distance > 1 {
            assert!(share_is(&counts, 0.75), "{counts:?}");
        }
        let kinds: Vec<_> = recording.profile.profiles.iter().flat_map(|profile| &profile.sample_types).collect();
        assert!(kinds.iter().all(|kind| kind.kind == measured && kind.unit == "count"), "{kinds:?}");
    }
}

/// What `perf stat` wrote of `event`.
fn counted(text: &str, event: &str) -> u64 {
    let line = text.lines().find(|line| line.contains(event)).unwrap_or_else(|| panic!("no {event}: {text}"));
    line.split(',').next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn root_switches_migrations_and_a_tracepoint_are_as_many_as_perf_stat_counts_in_the_same_run() {
    let test = "root_switches_migrations_and_a_tracepoint_are_as_many_as_perf_stat_counts_in_the_same_run";
    if !have_root(test) || !have_tools(test, &["perf"]) {
        return;
    }
    let _one = one_at_a_time();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if !have(test, cpus > 1, "a second CPU") {
        return;
    }
    let (call, calls) = ("raw_syscalls:sys_enter", "tracepoint:raw_syscalls:sys_enter");
    let found = profiler_bpf::probe(&profiler_bpf::Source::parse(calls, 1).expect("a source"));
    if !have(test, found.is_ok(), "tracefs") {
        return;
    }
    let program = programs::c("moves").build().unwrap_or_else(|error| panic!("{error}"));
    let (folder, program) = (folder().expect("a folder"), program.display().to_string());
    let told = folder.path().join("told");
    let (told_text, names) = (told.display().to_string(), ["context-switches", "cpu-migrations", call]);
    let arguments = ["stat", "-x,", "-e", &names.join(","), "-o", &told_text, "--", &program, "2000"];
    let calls_each = format!("{calls}@1");
    // Where they differ by more than noise: in words.
    let attempt = || {
        let recording = record(&["context-switches@1", "cpu-migrations@1", &calls_each], Path::new("perf"), &arguments);
        let text = fs::read_to_string(&told).expect("what perf counted");
        let losses = &recording.profile.losses;
        println!("{test}: {losses:?}");
        let sources =
            [("context-switches", names[0], 2_000), ("cpu-migrations", names[1], 1_000), (calls, call, 4_000)];
        let differ = sources.iter().filter_map(|&(source, name, least)| {
            let ours: u64 = by_function(&recording, source, "moves").values().sum();
            // What found its ring full, of whichever process, stands for one each.
            let lost = losses.iter().filter(|loss| loss.reason.starts_with("lost:") && loss.reason.contains(name));
            let lost: u64 = lost.map(|loss| loss.count).sum();
            let perf = counted(&text, name);
            println!("{test}: {source}: {ours} and {lost} lost of {perf}");
            assert!(perf >= least, "{source}: perf counted {perf}");
            (!agree(ours, perf) && !agree(ours + lost, perf))
                .then(|| format!("{source}: {ours} and {lost} lost of {perf}"))
        });
        differ.collect::<Vec<_>>()
    };
    let (first, mut differ) = (attempt(), Vec::new());
    if !first.is_empty() {
        differ = attempt();
    }
    assert!(differ.is_empty(), "{first:?}, and again {differ:?}");
}

#[test]
fn root_shares_of_page_faults_are_those_of_perf_record() {
    let test = "root_shares_of_page_faults_are_those_of_perf_record";
    if !have_root(test) || !have_tools(test, &["perf"]) {
        return;
    }
    let _one = one_at_a_time();
    let (faults, folder) = (faults(), folder().expect("a folder"));
    let data = folder.path().join("perf.data");
    let run = |command: &mut Command| children::run_well(command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    run(Command::new("perf")
        .args(["record", "-q", "-e", "page-faults", "-c", "1", "-o"])
        .arg(&data)
        .arg("--")
        .arg(&faults)
        .arg(ROUNDS.to_string()));
    let script = run(Command::new("perf").args(["script", "-F", "ip,sym", "-i"]).arg(&data)).stdout;
    let mut theirs: BTreeMap<&str, u64> = BTreeMap::new();
    for symbol in script.lines().filter_map(|line| line.split_whitespace().nth(1)) {
        *theirs.entry(symbol).or_default() += 1;
    }
    let recording = record(&["page-faults@3"], &faults, &[&ROUNDS.to_string()]);
    let ours = by_function(&recording, "page-faults", "faults");
    let (a, b) = (theirs["fault_a"] as f64, theirs["fault_b"] as f64);
    println!("{test}: {ours:?}, {a} and {b} of perf's");
    assert!(share_is(&ours, a / (a + b)), "{ours:?}, {a} and {b} of perf's");
}

#[test]
fn root_events_in_one_recording_are_kept_apart_and_a_flood_takes_nothing_from_the_clock() {
    let test = "root_events_in_one_recording_are_kept_apart_and_a_flood_takes_nothing_from_the_clock";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let faults = faults();
    let rounds = 2_000;
    let recording = record(&["cpu-clock,page-faults@1", "context-switches@1"], &faults, &[&rounds.to_string()]);
    let sources: Vec<_> = recording.profile.profiles.iter().map(|profile| profile.source.as_str()).collect();
    println!("{test}: {sources:?}: {:?}", recording.profile.losses);
    let clock = of_source(&recording, "cpu-clock");
    assert_eq!((clock.period, clock.sample_types[0].kind.as_str()), (1_000_000_000 / 999, "samples"));
    assert!(of_source(&recording, "page-faults").samples.len() > 100_000, "a flood");
    let lost: Vec<_> = recording.profile.losses.iter().filter(|loss| loss.reason.starts_with("lost:")).collect();
    assert!(lost.iter().all(|loss| !loss.reason.contains("(cpu-clock)")), "{lost:?}");
    // The clock sees where the time goes: nearly all of it in the faults.
    let rows = rows_of(&recording.profile, clock);
    let own: u64 = rows.iter().filter(|row| row.process == "faults").map(|row| row.count).sum();
    assert!(own > 200, "{own} samples of the clock");
}

#[test]
fn root_a_tracepoint_is_recorded_by_its_name() {
    let test = "root_a_tracepoint_is_recorded_by_its_name";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let name = "tracepoint:syscalls:sys_enter_munmap";
    let found = profiler_bpf::probe(&profiler_bpf::Source::parse(name, 1).expect("a source"));
    if let Err(error) = &found {
        assert!(error.to_string().contains("sudo"), "the way out is told: {error}");
    }
    if !have(test, found.is_ok(), "tracefs") {
        return;
    }
    let recording = record(&[&format!("{name}@1")], &faults(), &[&ROUNDS.to_string()]);
    let hits: u64 = by_function(&recording, name, "faults").values().sum();
    println!("{test}: {hits} calls of munmap");
    // Its own, and some of the dynamic linker's.
    assert!((ROUNDS..ROUNDS + 10).contains(&hits), "{hits}");
    assert_eq!(of_source(&recording, name).sample_types[0].kind, "syscalls:sys_enter_munmap");
}

#[test]
fn root_events_that_are_none_or_not_here_are_told_with_the_way_out() {
    let test = "root_events_that_are_none_or_not_here_are_told_with_the_way_out";
    if !have_root(test) {
        return;
    }
    let run = |arguments: &[&str]| {
        let output = Command::new(profiler()).arg("record").args(arguments).output();
        let output = output.expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = run(&["-e", "page-fault", "-d", "1"]);
    assert!(code == Some(2) && text.contains("did you mean page-faults?"), "{code:?}: {text}");
    let (code, text) = run(&["-e", "page-faults@0", "-d", "1"]);
    assert!(code == Some(2) && text.contains("no rate"), "{code:?}: {text}");
    let (code, text) = run(&["-e", "tracepoint:none:such", "-d", "1", "-o", "/dev/null", "-f", "folded"]);
    assert!(code == Some(1) && (text.contains("available_events") || text.contains("mount -t tracefs")), "{text}");
    let (code, text) = run(&["-e", "help"]);
    assert_eq!(code, Some(0));
    for event in ["cpu-clock", "task-clock", "page-faults", "minor-faults", "context-switches", "cpu-migrations"] {
        let line = text.lines().find(|line| line.contains(&format!("  {event} "))).unwrap_or_else(|| panic!("{text}"));
        assert!(line.starts_with("ok"), "{line}");
    }
    assert!(text.contains("cycles") && text.contains("tracepoint:"), "{text}");
}

#[test]
fn root_events_of_an_agent_change_while_it_runs() {
    let test = "root_events_of_an_agent_change_while_it_runs";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let program = faults();
    let with = |events: &str| Configuration {
        more: format!("events: {events}\nlimits: {{cpu: 50%}}\n"),
        ..Configuration::new(99, &["faults"], String::new())
    };
    let mut agent = Agent::start(&with("[cpu-clock]")).unwrap_or_else(|error| panic!("{error}"));
    let configure = |agent: &mut Agent, events: &str, outcome: &str| {
        let reloads = |metrics: &Metrics| metrics.sum("profiler_config_reloads_total", &[("outcome", outcome)]);
        let before = agent.metrics().map(|metrics| reloads(&metrics)).unwrap_or_else(|error| panic!("{error}"));
        agent.home().configure(&with(events)).unwrap_or_else(|error| panic!("{error}"));
        agent.signal(Signal::HUP);
        agent.wait(events, PATIENCE, |metrics| reloads(metrics) > before).unwrap_or_else(|error| panic!("{error}"));
    };
    // A load of its own for each set of events, and what of each event is known when it is over.
    let run = |agent: &mut Agent, event: &str| {
        let samples = |metrics: &Metrics| metrics.sum("profiler_samples_total", &[("event", event)]);
        let before = agent.metrics().map(|metrics| samples(&metrics)).unwrap_or_else(|error| panic!("{error}"));
        let finished = children::run(Command::new(&program).arg("400"), PATIENCE).expect("it runs");
        assert!(finished.status.success(), "{finished:?}");
        agent.wait(event, PATIENCE, |metrics| samples(metrics) > before).unwrap_or_else(|error| panic!("{error}"));
    };
    run(&mut agent, "cpu-clock");
    configure(&mut agent, "[cpu-clock, page-faults@64]", "taken");
    run(&mut agent, "page-faults");
    run(&mut agent, "cpu-clock");
    // Another rate of the same event, which changes live; events that are none, or not all here, leave what runs.
    configure(&mut agent, "[cpu-clock, page-faults@32]", "taken");
    configure(&mut agent, "[nonsense]", "refused");
    configure(&mut agent, "[cpu-clock, \"tracepoint:nobody:knows\"]", "refused");
    run(&mut agent, "page-faults");
    configure(&mut agent, "[cpu-clock]", "taken");
    run(&mut agent, "cpu-clock");
    let (home, status, log) = agent.stop().unwrap_or_else(|error| panic!("{error}"));
    assert!(status.success(), "{log}");

    // What each sample of a fault was worth: first 64, then 32.
    let mut periods = BTreeMap::new();
    for request in home.record().unwrap_or_else(|error| panic!("{error}")) {
        for profile in profiler_formats::otlp::decode(&request.encode_to_vec()).expect("a profile").profiles {
            if profile.sample_types.iter().any(|kind| kind.kind == "page-faults") {
                *periods.entry(profile.period).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(periods.keys().copied().collect::<Vec<_>>(), [32, 64], "{periods:?}");
}
