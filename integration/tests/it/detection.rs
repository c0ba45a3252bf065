//! What changes is told by the agent: in its log, its metrics and at `/status`; live changes of the detectors, and what is normal over a
//! restart.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::agent::{Agent, Configuration, Home, Metrics};
use profiler_integration::children::{self, Running};
use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(90);
const EVENTS: &str = "profiler_detection_events_total";
const SERIES: &str = "profiler_detection_series";
const TICKS: &str = "profiler_detection_delay_seconds_count";

/// A change of 45 percent points is told in some ticks, and nothing else is: what is normal is known from twenty of them.
fn configuration(home: &Home, detectors: &str) -> Configuration {
    let mut configuration = Configuration::new(HERTZ.into(), &["shift"], String::new());
    configuration.more = format!(
        "limits: {{cpu: off}}\ndetection: {{detectors: [{detectors}], series: [functions], pressure_detectors: [], state_file: {}}}\n",
        home.path().join("detection.json").display()
    );
    configuration
}

fn shift() -> Running {
    let program = programs::c("shift").build().expect("it builds");
    let mut command = Command::new(program);
    children::start(command.args(["--ms", "600000"]).env("OTEL_SERVICE_NAME", "shop")).expect("it starts")
}

fn changed(metrics: &Metrics) -> f64 {
    metrics.sum(EVENTS, &[("of", "function"), ("event", "changed")])
}

/// The numbers before `%` in `text`.
fn percents(text: &str) -> Vec<f64> {
    text.match_indices(" %").filter_map(|(end, _)| text[..end].rsplit(' ').next()?.parse().ok()).collect()
}

#[test]
fn root_a_function_that_grows_is_told_with_its_service_and_its_shares() {
    if !have_root("root_a_function_that_grows_is_told_with_its_service_and_its_shares") {
        return;
    }
    let _one = one_at_a_time();
    let home = Home::new().unwrap();
    let path = home.path().to_owned();
    let (on, off) = (configuration(&home, "'cusum,warm-up=10,threshold=30'"), configuration(&home, ""));
    let mut agent = home.start(&on, &[]).unwrap();
    agent.wait("sampling", PATIENCE, |now| now.sum("profiler_sampling", &[]) > 0.0).unwrap();
    let program = shift();
    let pid = Pid::from_raw(program.pid().try_into().unwrap()).unwrap();
    // Both functions are known, and what is normal is known of them.
    let known = agent.wait("two series", PATIENCE, |now| now.sum(SERIES, &[("of", "function")]) >= 2.0).unwrap();
    let ticks = known.sum(TICKS, &[]) + 20.0;
    agent.wait("twenty ticks", PATIENCE, |now| now.sum(TICKS, &[]) >= ticks).unwrap();
    // That cold has less may be told first.
    let said = |text: &str| {
        text.lines().find(|line| line.contains("Function hot of service shop went up from")).map(str::to_owned)
    };
    assert_eq!(said(&agent.log()), None);
    kill_process(pid, Signal::USR1).unwrap();
    agent.wait("an event", PATIENCE, |now| changed(now) >= 1.0).unwrap();
    let until = Instant::now() + PATIENCE;
    let of_status = loop {
        let status = agent.get("/status").unwrap().1;
        match said(&status) {
            Some(line) => break line,
            None => assert!(Instant::now() < until, "no word of it in\n{status}"),
        }
        sleep(Duration::from_millis(100));
    };
    for line in [of_status, said(&agent.log()).expect("in the log, too")] {
        assert!(line.contains("It has been so since 20") && line.contains("Its code is of /"), "{line}");
        assert!(line.contains(&format!("shift (pid {})", program.pid())), "{line}");
        let percents = percents(&line);
        let [from, to, ..] = percents.as_slice() else { panic!("{line}") };
        // Rounds of both functions take times of their own: how they compare is told by the share that one in twenty rounds had.
        let ratio = 19.0 * from / (100.0 - from);
        let expected = 100.0 * ratio / (1.0 + ratio);
        assert!((2.0..=20.0).contains(from) && (to - expected).abs() < 15.0, "{line} Not {expected:.1} %.");
    }

    // Off and on again, live.
    agent.home().configure(&off).unwrap();
    agent.signal(Signal::HUP);
    let reloads =
        |count: f64| move |now: &Metrics| now.sum("profiler_config_reloads_total", &[("outcome", "taken")]) >= count;
    agent.wait("a reload", PATIENCE, reloads(1.0)).unwrap();
    agent.wait("no series", PATIENCE, |now| now.sum(SERIES, &[]) == 0.0).unwrap();
    assert!(agent.get("/status").unwrap().1.contains("Detection\n\n  off\n"));
    agent.home().configure(&on).unwrap();
    agent.signal(Signal::HUP);
    agent.wait("series again", PATIENCE, |now| now.sum(SERIES, &[("of", "function")]) >= 2.0).unwrap();

    // What is normal is kept, for its owner alone.
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{log}");
    let kept = path.join("detection.json");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let mut agent: Agent = home.start(&on, &[]).unwrap();
    agent.wait("its series", PATIENCE, |now| now.sum(SERIES, &[("of", "function")]) >= 2.0).unwrap();
    assert!(agent.log().contains("What was normal before the restart is known."), "{}", agent.log());
    drop(program);
    let (_, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{log}");
}
