//! Processes that are hard on a profiler: it takes its time from none of them, and the others are recorded as if they were not
//! there.

use std::process::Command;
use std::time::{Duration, Instant};

use profiler_integration::children;
use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use profiler_integration::recording::Recorder;
use profiler_integration::rows::{is_function, rows, total};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::verdict;

const PATIENCE: Duration = Duration::from_secs(60);

/// Records the host while `hostile ARGUMENTS` and a well-behaved program run side by side.
fn beside(test: &str, arguments: &[&str]) {
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let hostile = programs::c("hostile").build().unwrap_or_else(|error| panic!("{error}"));
    let shares = programs::c("shares").build().unwrap_or_else(|error| panic!("{error}"));
    let attempt = || {
        let started =
            Recorder::new(HERTZ).and_then(|recorder| recorder.arg("-a").start()).expect("it starts").attached();
        let difficult =
            children::start(Command::new(&hostile).args(["--ms", "2000"]).args(arguments)).expect("it starts");
        let good = children::run_well(Command::new(&shares).args(["--ms", "2000"]), PATIENCE).expect("it runs");
        let pid = difficult.pid();
        let difficult = difficult.wait(PATIENCE).expect("it ends");
        let begin = Instant::now();
        let recording = started.stop().unwrap_or_else(|error| panic!("{test}: {error}"));
        assert!(begin.elapsed() < Duration::from_secs(20), "{test}: it took {:?} to stop", begin.elapsed());
        let truth = Truth::find("shares", &good.stdout).expect("its truth");
        let rows = rows(&recording.profile);
        let own: Vec<_> = rows.iter().filter(|row| row.pid == truth.pid).cloned().collect();
        let due = Truth::find("hostile", &difficult.stdout).expect("its truth").cpu_ns as f64 * f64::from(HERTZ) / 1e9;
        let difficult = total(rows.iter().filter(|row| row.pid == pid)) as f64;
        let named = total(rows.iter().filter(|row| {
            row.pid == pid
                && row.frames.iter().any(|frame| frame.functions.iter().any(|name| is_function(name, "call_made")))
        }));
        println!("{test}: {difficult} samples of the difficult one, {named} with its caller, {due:.0} due");
        assert!(
            difficult > due * 0.9,
            "{test}: {difficult} samples of {due:.0}; losses {:?}",
            recording.profile.losses
        );
        verdict(&own, &truth, HERTZ, |_| false)
    };
    let mut found = attempt();
    if found.is_noise_perhaps() {
        found = attempt();
    }
    assert!(found.problems.is_empty(), "{test}: {}\n{}", found.summary(), found.problems.join("\n"));
}

#[test]
fn root_30000_executable_mappings() {
    beside("root_30000_executable_mappings", &["--mappings", "30000"]);
}

#[test]
fn root_a_fifo_in_place_of_a_perf_map() {
    beside("root_a_fifo_in_place_of_a_perf_map", &["--map", "fifo"]);
}

#[test]
fn root_an_endless_link_in_place_of_a_perf_map() {
    beside("root_an_endless_link_in_place_of_a_perf_map", &["--map", "links"]);
}

#[test]
fn root_an_endless_device_in_place_of_a_perf_map() {
    beside("root_an_endless_device_in_place_of_a_perf_map", &["--map", "device"]);
}

#[test]
fn root_a_directory_in_place_of_a_perf_map() {
    beside("root_a_directory_in_place_of_a_perf_map", &["--map", "directory"]);
}
