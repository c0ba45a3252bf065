//! Processes that are hard on a profiler: it takes its time from none of them, and the others are recorded as if they were not
//! there.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::children;
use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use profiler_integration::recording::Recorder;
use profiler_integration::rows::{Row, is_function, rows, total};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{COMPLETE, verdict};

const PATIENCE: Duration = Duration::from_secs(60);

/// Records `hostile ARGUMENTS` and a well-behaved program side by side.
fn beside(test: &str, arguments: &[&str]) {
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let hostile = programs::c("hostile").build().unwrap_or_else(|error| panic!("{error}"));
    let shares = programs::c("shares").build().unwrap_or_else(|error| panic!("{error}"));
    let attempt = || {
        let difficult =
            children::start(Command::new(&hostile).args(["--ms", "3000"]).args(arguments)).expect("it starts");
        let good = children::start(Command::new(&shares).args(["--ms", "3000"])).expect("it starts");
        let pids = (difficult.pid(), good.pid());
        sleep(Duration::from_millis(300));
        let started = Recorder::new(HERTZ)
            .and_then(|recorder| recorder.arg("-p").arg(format!("{},{}", pids.0, pids.1)).start())
            .expect("it starts");
        let output = good.wait(PATIENCE).expect("it ends").stdout;
        difficult.wait(PATIENCE).expect("it ends");
        let begin = Instant::now();
        let recording = started.stop().unwrap_or_else(|error| panic!("{test}: {error}"));
        assert!(begin.elapsed() < Duration::from_secs(10), "{test}: it took {:?} to stop", begin.elapsed());
        let truth = Truth { is_partial: true, ..Truth::find("shares", &output).expect("its truth") };
        let rows = rows(&recording.profile);
        let of = |pid: u32| rows.iter().filter(move |row| row.pid == pid);
        let is_named = |row: &&Row| {
            row.frames.iter().any(|frame| frame.functions.iter().any(|name| is_function(name, "call_made")))
        };
        let (seen, named, other) = (total(of(pids.0)), total(of(pids.0).filter(is_named)), total(of(pids.1)));
        println!("{test}: {seen} samples of the difficult one, {named} with its caller, {other} of the other");
        // Both use the same CPU time and were there from the start.
        assert!(
            named * 10 > other * 7,
            "{test}: {named} of {seen} beside {other}; losses {:?}",
            recording.profile.losses
        );
        let own: Vec<_> = of(pids.1).cloned().collect();
        verdict(&own, &truth, HERTZ, COMPLETE, |_| false)
    };
    let mut found = attempt();
    if found.is_of_the_moment_perhaps() {
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
