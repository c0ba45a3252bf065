//! What the host and its owner do to `profiler agent`: thousands of processes, storms of execs, a process with 50,000 mappings,
//! a CPU that goes away, live changes of the configuration, the kill switch.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use profiler_integration::agent::{Agent, Configuration, Home, Metrics};
use profiler_integration::children::{self, Running};
use profiler_integration::environment::{have, have_root, one_at_a_time};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use profiler_integration::rows::{Row, is_function, total};
use profiler_integration::seen::{Seen, as_rows, plain, seen};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{COMPLETE, verdict};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);

/// At the rate of all tests, whatever that costs on this machine: within its CPU budget the agent would lower it, which is
/// `root_budget_lowers_the_rate`'s subject. The memory budget is the default.
fn configuration(comms: &[&str]) -> Configuration {
    let mut configuration = Configuration::new(HERTZ.into(), comms, String::new());
    configuration.more = "limits: {cpu: 100%}\n".to_owned();
    configuration
}

fn start(comms: &[&str]) -> Agent {
    started(Agent::start(&configuration(comms)).unwrap())
}

fn started(mut agent: Agent) -> Agent {
    agent.wait("sampling", PATIENCE, |now| now.sum("profiler_sampling", &[]) > 0.0).unwrap();
    agent
}

fn run(program: &str, arguments: &[&str]) -> Truth {
    let program = programs::c(program).build().unwrap();
    truth(program.display().to_string().as_str(), Command::new(&program).args(arguments).stdin(Stdio::null()))
}

fn truth(name: &str, command: &mut Command) -> Truth {
    Truth::find(name, &children::run_well(command, PATIENCE).unwrap().stdout).unwrap()
}

fn load(ms: u32) -> Running {
    let program = programs::c("shares").build().unwrap();
    children::start(Command::new(program).args(["--ms", &ms.to_string(), "--depth", "20"])).unwrap()
}

fn stop(agent: Agent) -> (Home, Vec<Seen>, String) {
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{status}\n{log}");
    let sampled = seen(&home.record().unwrap());
    (home, sampled, log)
}

fn of_pid(sampled: &[Seen], pid: u32) -> Vec<Row> {
    let pid = pid.to_string();
    let own: Vec<_> = sampled.iter().filter(|one| plain(&one.resource, "process.pid") == pid).cloned().collect();
    as_rows(&own)
}

/// Samples of `program` by its own account, as they are due.
fn assert_truth(test: &str, sampled: &[Seen], truth: &Truth, bar: f64) {
    let found = verdict(&of_pid(sampled, truth.pid_on_host()), truth, HERTZ, bar, |_| false);
    println!("{test}: {}", found.summary());
    let problems = found.lasting_problems();
    assert!(problems.is_empty(), "{test}: {}", problems.join("\n  "));
}

/// The agent's own account of its memory, kernel maps included, against its budget.
fn assert_within_memory(metrics: &Metrics) {
    let (used, limit) =
        (metrics.sum("profiler_memory_usage_bytes", &[]), metrics.sum("profiler_memory_limit_bytes", &[]));
    println!("memory: {:.1} MiB of {:.0}", used / 1048576.0, limit / 1048576.0);
    assert!(used > 0.0 && limit > 0.0 && used < limit, "{used} bytes of {limit}:\n{metrics}");
}

#[test]
fn root_agent_starts_among_2000_processes() {
    let test = "root_agent_starts_among_2000_processes";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let program = programs::c("crowd").build().unwrap();
    let mut command = Command::new(&program);
    command.args(["--count", "2000", "--ms", "2500"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut crowd = command.spawn().unwrap();
    let mut output = BufReader::new(crowd.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "complete");

    let mut agent = start(&[]);
    drop(crowd.stdin.take());
    let mut report = String::new();
    while output.read_line(&mut report).unwrap() > 0 {}
    assert!(crowd.wait().unwrap().success());
    let metrics = agent.wait("a look at itself", PATIENCE, |now| now.published() > 0).unwrap();
    assert_within_memory(&metrics);
    let (_, sampled, _) = stop(agent);
    assert_truth(test, &sampled, &Truth::find("crowd", &report).unwrap(), COMPLETE);
}

/// 500 execs a second: the agent stays within its budget, and hardly a sample is lost.
#[test]
fn root_agent_follows_500_execs_a_second() {
    let test = "root_agent_follows_500_execs_a_second";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let agent = start(&["storm"]);
    let arguments = ["--ms", "10000", "--rate", "500", "--child-ms", "1", "--parallel", "4"];
    let truth = run("storm", &arguments);
    sleep(Duration::from_millis(1500));
    let metrics = agent.metrics().unwrap();
    assert_within_memory(&metrics);
    let lost = metrics.sum("profiler_samples_lost_total", &[]);
    let (_, sampled, _) = stop(agent);
    let rows: Vec<Row> = as_rows(&sampled);
    let burning =
        |row: &&Row| row.frames.iter().any(|frame| frame.functions.iter().any(|f| is_function(f, "storm_child_burn")));
    let named = total(rows.iter().filter(burning));
    let due = truth.children as f64 * 0.001 * f64::from(HERTZ);
    let whole = total(rows.iter().filter(burning).filter(|row| row.marker().is_none()));
    println!("{test}: {} children, {due:.0} samples due, {named} named, {whole} whole, {lost} lost", truth.children);
    // A busy machine does not come to 500, but to far more than a quiet one has.
    assert!(truth.children > 1000, "{} children", truth.children);
    assert!(lost <= sampled.len() as f64 * 0.01, "{lost} of {} lost:\n{metrics}", sampled.len());
    assert!(named as f64 > due * 0.9 - 3.0 * due.sqrt(), "{named} of {due:.0} samples are named");
}

#[test]
fn root_process_with_50000_mappings_is_bounded_and_known() {
    let test = "root_process_with_50000_mappings_is_bounded_and_known";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let mut agent = start(&["mappings", "shares"]);
    // Known before the other one comes: what starts while the agent is at work with that is another matter.
    let beside = load(3500);
    sleep(Duration::from_secs(1));
    let truth = run("mappings", &["--count", "50000", "--ms", "2500"]);
    let beside = Truth::find("shares", &beside.wait(PATIENCE).unwrap().stdout).unwrap();
    let metrics = agent.wait("a look at itself", PATIENCE, |now| now.published() > 0).unwrap();
    assert_within_memory(&metrics);
    let (_, sampled, _) = stop(agent);
    // Every sample is there; what the tables had no room for was unwound in user space or says so.
    let own = of_pid(&sampled, truth.pid_on_host());
    let due = truth.cpu_ns as f64 * f64::from(HERTZ) / 1e9;
    println!("{test}: {} samples where {due:.0} are due", total(&own));
    assert!(total(&own) as f64 > due * 0.9 - 3.0, "{} samples where {due:.0} are due", total(&own));
    // And nobody else pays for it.
    assert_truth(test, &sampled, &beside, COMPLETE);
}

/// Gives a CPU back even if the test fails.
struct Offline(&'static str);

impl Offline {
    fn take(file: &'static str) -> Option<Self> {
        fs::write(file, "0").ok().map(|()| Self(file))
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        let _ = fs::write(self.0, "1");
    }
}

#[test]
fn root_cpu_goes_offline_and_comes_back() {
    let test = "root_cpu_goes_offline_and_comes_back";
    const CPU: &str = "/sys/devices/system/cpu/cpu1/online";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    if !have(test, fs::write(CPU, "1").is_ok(), "a second CPU that can be taken offline") {
        return;
    }
    let mut agent = start(&["shares"]);
    let during = load(2500);
    sleep(Duration::from_millis(500));
    let offline = Offline::take(CPU).expect("cannot take CPU 1 offline");
    sleep(Duration::from_millis(1500));
    drop(offline);
    // What runs on a CPU that comes back is sampled from when that is noticed.
    let during = Truth { is_partial: true, ..Truth::find("shares", &during.wait(PATIENCE).unwrap().stdout).unwrap() };
    sleep(Duration::from_millis(1500));
    let program = programs::c("shares").build().unwrap();
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "1"]).arg(program).args(["--ms", "2000", "--depth", "20"]);
    let pinned = truth("shares", &mut pinned);
    assert!(agent.is_running());
    let (_, sampled, _) = stop(agent);
    assert_truth(test, &sampled, &during, COMPLETE);
    assert_truth(test, &sampled, &pinned, COMPLETE);
}

/// CPU time that the samples of `pid` stand for, s: each for the period that was recorded with it.
fn weighed(sampled: &[Seen], pid: u32) -> f64 {
    let pid = pid.to_string();
    let own = sampled.iter().filter(|one| plain(&one.resource, "process.pid") == pid);
    own.map(|one| one.period as f64 * one.value as f64 / 1e9).sum()
}

#[test]
fn root_rate_changes_live_and_weights_stay_true() {
    let test = "root_rate_changes_live_and_weights_stay_true";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let mut configuration = configuration(&["shares"]);
    let mut agent = started(Agent::start(&configuration).unwrap());
    let load = load(9000);
    for rate in [49, HERTZ.into()] {
        sleep(Duration::from_millis(2500));
        configuration.rate = rate;
        agent.home().configure(&configuration).unwrap();
        agent.wait("the new rate", PATIENCE, |now| now.sum("profiler_rate_hertz", &[]) as u64 == rate).unwrap();
    }
    let truth = Truth::find("shares", &load.wait(PATIENCE).unwrap().stdout).unwrap();
    let (_, sampled, _) = stop(agent);
    let mut periods: Vec<_> = sampled.iter().map(|one| one.period).collect();
    periods.sort_unstable();
    periods.dedup();
    assert_eq!(
        periods,
        [1_000_000_000 / i64::from(HERTZ), 1_000_000_000 / 49],
        "each sample has the period of its time"
    );
    let (weighed, used) = (weighed(&sampled, truth.pid_on_host()), truth.cpu_ns as f64 / 1e9);
    println!("{test}: {} samples stand for {weighed:.2} s of {used:.2} s", sampled.len());
    assert!((weighed / used - 1.0).abs() < 0.1, "samples stand for {weighed:.2} s where {used:.2} s were used");
}

/// Over its CPU budget it samples more slowly, says so, and each sample has the period of its time.
#[test]
fn root_budget_lowers_the_rate() {
    let test = "root_budget_lowers_the_rate";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let mut configuration = configuration(&["shares"]);
    configuration.rate = 999;
    configuration.more = "limits: {cpu: 0.1%}\n".to_owned();
    let mut agent = started(Agent::start(&configuration).unwrap());
    // Killed with the test's end: how much CPU time it gets does not matter here.
    let _load = load(600_000);
    let lower = |now: &Metrics| (1.0..999.0).contains(&now.sum("profiler_rate_hertz", &[]));
    let restricted = agent.wait("a lower rate", PATIENCE, lower).unwrap();
    let asked = |client| restricted.sum("profiler_rate_requested_hertz", &[("client", client)]);
    assert_eq!(asked("configured"), 999.0, "{restricted}");
    assert_eq!(asked("governed"), restricted.sum("profiler_rate_hertz", &[]), "{restricted}");
    sleep(Duration::from_millis(2500));
    let (_, sampled, log) = stop(agent);
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("budget")), "it does not say so:\n{log}");
    assert!(log.lines().any(|line| line.contains(" Hz (governed: ") && line.contains("configured: 999 Hz, ")), "{log}");
    let mut periods: Vec<_> = sampled.iter().map(|one| one.period).collect();
    periods.sort_unstable();
    periods.dedup();
    println!("{test}: periods {periods:?}");
    assert!(periods.len() >= 2 && periods.first() == Some(&(1_000_000_000 / 999)), "{periods:?}");
}

#[test]
fn root_targets_change_live() {
    if !have_root("root_targets_change_live") {
        return;
    }
    let _one = one_at_a_time();
    let mut configuration = configuration(&["crowd"]);
    let mut agent = started(Agent::start(&configuration).unwrap());
    let truth_before = run("shares", &["--ms", "800"]);
    configuration.comms = vec!["shares".into()];
    agent.home().configure(&configuration).unwrap();
    agent.signal(Signal::HUP);
    let until = std::time::Instant::now() + PATIENCE;
    while !agent.log().contains("read again") {
        assert!(std::time::Instant::now() < until, "the configuration is not read again:\n{}", agent.log());
        sleep(Duration::from_millis(50));
    }
    let truth_after = run("shares", &["--ms", "1500", "--depth", "20"]);
    let out = run("crowd", &["--count", "1", "--ms", "500"]);
    let filtered = agent.wait("a window", PATIENCE, |now| now.published() > 0).unwrap();
    assert!(filtered.sum("profiler_samples_filtered_total", &[]) > 0.0, "what is left out is counted:\n{filtered}");
    let (_, sampled, _) = stop(agent);
    assert_eq!(of_pid(&sampled, truth_before.pid_on_host()), [], "not to be sampled then");
    assert_eq!(of_pid(&sampled, out.pid_on_host()), [], "not to be sampled any more");
    assert_truth("root_targets_change_live", &sampled, &truth_after, COMPLETE);
}

#[test]
fn root_bad_configuration_is_refused_and_the_running_one_stays() {
    if !have_root("root_bad_configuration_is_refused_and_the_running_one_stays") {
        return;
    }
    let _one = one_at_a_time();
    let configuration = configuration(&["shares"]);
    let mut agent = started(Agent::start(&configuration).unwrap());
    let file = agent.home().path().join("agent.yaml");
    let good = fs::read_to_string(&file).unwrap();
    for (bad, wanted) in [
        (format!("widnow: 3s\n{good}"), &["widnow", "window", ":1:1"][..]),
        (good.replace("window: 1s", "window: 3"), &["window", ":2:"]),
        (good.get(..good.len() / 2).unwrap().to_owned() + "\n\"", &["refused"]),
    ] {
        let before = agent.log().len();
        agent.home().write_configuration(&bad).unwrap();
        let until = std::time::Instant::now() + PATIENCE;
        let said = loop {
            let said = agent.log().get(before..).unwrap_or_default().to_owned();
            if said.contains("is refused") {
                break said;
            }
            assert!(std::time::Instant::now() < until, "nobody refuses it:\n{said}");
            sleep(Duration::from_millis(50));
        };
        for word in wanted {
            assert!(said.contains(word), "no {word:?} in\n{said}");
        }
    }
    // Right, but written by nobody knows whom.
    let before = agent.log().len();
    let mode = |mode| fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    agent.home().write_configuration(&good.replace("window: 1s", "window: 2s")).unwrap();
    mode(0o666);
    let refused = |now: &Metrics| now.sum("profiler_config_reloads_total", &[("outcome", "refused")]) >= 4.0;
    agent.wait("four refusals", PATIENCE, refused).unwrap();
    assert!(agent.log()[before..].contains("everybody may write to it: chmod o-w"), "{}", &agent.log()[before..]);
    let truth = run("shares", &["--ms", "1000", "--depth", "20"]);
    agent
        .wait("a window", PATIENCE, |now| now.published() > 0 && now.sum("profiler_rate_hertz", &[]) as u32 == HERTZ)
        .unwrap();
    let (_, sampled, _) = stop(agent);
    assert_truth("root_bad_configuration", &sampled, &truth, COMPLETE);
}

#[test]
fn root_kill_switch_stops_sampling_while_it_exists() {
    if !have_root("root_kill_switch_stops_sampling_while_it_exists") {
        return;
    }
    let _one = one_at_a_time();
    let mut agent = start(&["shares"]);
    let first = run("shares", &["--ms", "600"]);
    agent.wait("a window", PATIENCE, |now| now.published() > 0).unwrap();
    let switch = agent.home().kill_switch();
    fs::write(&switch, "").unwrap();
    agent.wait("a pause", PATIENCE, |now| now.sum("profiler_sampling", &[]) < 0.5).unwrap();
    assert_eq!(agent.get("/readyz").unwrap().0, 503);
    assert_eq!(agent.get("/healthz").unwrap().0, 200, "it is well, it only does not sample");
    assert!(!has_perf_events(agent.pid()), "paused, but its events are open");
    let paused = run("shares", &["--ms", "600"]);
    fs::remove_file(&switch).unwrap();
    agent.wait("sampling again", PATIENCE, |now| now.sum("profiler_sampling", &[]) > 0.5).unwrap();
    let last = run("shares", &["--ms", "1000", "--depth", "20"]);
    let (_, sampled, _) = stop(agent);
    assert_ne!(of_pid(&sampled, first.pid_on_host()), []);
    assert_eq!(of_pid(&sampled, paused.pid_on_host()), []);
    assert_truth("root_kill_switch", &sampled, &last, COMPLETE);
}

fn has_perf_events(pid: u32) -> bool {
    let fds = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).unwrap();
    fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("perf_event")))
}
