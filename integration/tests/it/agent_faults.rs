//! What `profiler agent` does when the other side fails: every sample that it published arrives, or is counted where it was given up.
//!
//! "Published" is what a second exporter of the same agent wrote to files. What goes wrong on the host itself is in
//! agent_host.rs.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLockReadGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_formats::otlp::ExportProfilesServiceRequest;
use profiler_integration::agent::{Agent, Configuration, Home, Metrics, otlp_exporter};
use profiler_integration::children::{self, Running};
use profiler_integration::collector::certificates::{Certificates, Valid};
use profiler_integration::collector::{Collector, CollectorOptions, Protocol};
use profiler_integration::environment::{beside_its_like, have, have_root};
use profiler_integration::programs;
use profiler_integration::receiver::{Event, Receiver};
use profiler_integration::recording::folder;
use profiler_integration::seen::{Seen, difference, seen};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the exporter whose receiver fails.
const OUT: &str = "out";
const HERTZ: u64 = 199;

/// A program to sample, under a name of its own: tests run at the same time, and each agent looks at its own program alone.
struct Load {
    comm: String,
    file: PathBuf,
    _folder: TempDir,
    _beside: RwLockReadGuard<'static, ()>,
}

impl Load {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let comm = format!("load-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = folder().unwrap();
        let file = folder.path().join(&comm);
        children::copy_program(&programs::c("shares").build().unwrap(), &file).unwrap();
        Self { comm, file, _folder: folder, _beside: beside_its_like() }
    }

    /// Starts it for `ms` of CPU time.
    fn start(&self, ms: u32) -> Running {
        children::start(Command::new(&self.file).args(["--ms", &ms.to_string(), "--depth", "20"])).unwrap()
    }

    /// The agent samples it and sends to `endpoint`.
    fn configuration(&self, endpoint: &str, protocol: Protocol, more: &str) -> Configuration {
        Configuration::new(HERTZ, &[&self.comm], otlp_exporter(OUT, endpoint, protocol.name(), more))
    }
}

fn assert_all(record: &[ExportProfilesServiceRequest], received: &[ExportProfilesServiceRequest]) {
    let (sampled, received) = (seen(record), seen(received));
    assert!(!sampled.is_empty(), "nothing was sampled");
    let (lost, added) = difference(&sampled, &received);
    let times = |of: &[&Seen]| of.iter().take(3).map(|one| one.time).collect::<Vec<_>>();
    assert!(
        lost.is_empty() && added.is_empty(),
        "{} of {} samples did not arrive, {} arrived that were not published (twice, perhaps): {:?} {:?}",
        lost.len(),
        sampled.len(),
        added.len(),
        times(&lost),
        times(&added)
    );
}

/// Stops the agent and holds everything that `collector` has against everything that was published.
fn stops_and_all_arrived(agent: Agent, collector: &Collector) {
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{status}\n{log}");
    let record = home.record().unwrap();
    let published = seen(&record).len();
    let requests = collector.requests_when(PATIENCE, |requests| seen(requests).len() >= published).unwrap();
    assert_all(&record, &requests);
}

/// Waits for the end of the load, of its last window, and of the queue.
fn settle(agent: &mut Agent, running: Running) -> Metrics {
    running.wait(PATIENCE).unwrap();
    // The window in which it ended, and the metrics of a second later.
    sleep(Duration::from_millis(2500));
    agent.wait_until_idle(OUT, PATIENCE).unwrap()
}

#[test]
fn root_collector_is_down_at_start() {
    if !have_root("root_collector_is_down_at_start") {
        return;
    }
    let load = Load::new();
    let mut collector = Collector::prepared(CollectorOptions::plain()).unwrap();
    let mut agent = Agent::start(&load.configuration(&collector.endpoint(Protocol::Grpc), Protocol::Grpc, "")).unwrap();
    let running = load.start(4000);
    let before = agent.wait("retries", PATIENCE, |now| now.published() > 200 && now.retries(OUT) >= 3).unwrap();
    assert_eq!(before.gone(OUT), 0, "nobody listens:\n{before}");
    collector.restart().unwrap();
    let after = settle(&mut agent, running);
    assert_eq!(after.delivered(OUT), after.published(), "{after}");
    stops_and_all_arrived(agent, &collector);
}

#[test]
fn root_collector_goes_away_and_comes_back() {
    if !have_root("root_collector_goes_away_and_comes_back") {
        return;
    }
    let load = Load::new();
    let mut collector = Collector::start(CollectorOptions::plain()).unwrap();
    let mut agent = Agent::start(&load.configuration(&collector.endpoint(Protocol::Http), Protocol::Http, "")).unwrap();
    let running = load.start(8000);
    agent.wait("delivery", PATIENCE, |now| now.delivered(OUT) > 0).unwrap();
    collector.stop();
    let gone = agent.metrics().unwrap().delivered(OUT);
    let while_down = agent.wait("three windows", PATIENCE, |now| now.published() > gone + 3 * HERTZ).unwrap();
    assert!(while_down.retries(OUT) > 0, "{while_down}");
    // Said once, not once a retry.
    let warnings = agent.log().lines().filter(|line| line.contains("WARN") && line.contains("127.0.0.1")).count();
    assert!((1..=2).contains(&warnings), "{warnings} warnings of one outage:\n{}", agent.log());
    collector.restart().unwrap();
    let after = settle(&mut agent, running);
    assert_eq!(after.delivered(OUT), after.published(), "{after}");
    stops_and_all_arrived(agent, &collector);
}

#[test]
fn root_killed_agent_leaves_a_spool_that_its_successor_sends() {
    if !have_root("root_killed_agent_leaves_a_spool_that_its_successor_sends") {
        return;
    }
    let load = Load::new();
    let mut collector = Collector::prepared(CollectorOptions::plain()).unwrap();
    let home = Home::new().unwrap();
    let spool = format!("    spool: {{directory: {}/spool, max_size: 64MiB}}\n", home.path().display());
    let configuration = load.configuration(&collector.endpoint(Protocol::Grpc), Protocol::Grpc, &spool);
    let mut agent = home.start(&configuration, &[]).unwrap();
    load.start(3000).wait(PATIENCE).unwrap();
    sleep(Duration::from_millis(2500));
    let metrics = agent.wait("a spool", PATIENCE, |now| now.published() > 300).unwrap();
    assert!(metrics.sum("profiler_spool_records", &[("exporter", OUT)]) > 0.0, "{metrics}");
    let home = agent.kill().unwrap();

    let mut agent = home.start(&configuration, &[]).unwrap();
    collector.restart().unwrap();
    let running = load.start(1500);
    running.wait(PATIENCE).unwrap();
    agent
        .wait("an empty spool", PATIENCE, |now| {
            now.sum("profiler_spool_records", &[("exporter", OUT)]) < 0.5 && now.delivered(OUT) > now.published()
        })
        .unwrap();
    stops_and_all_arrived(agent, &collector);
}

/// An agent before a receiver with `script`, a load of a few windows, all settled: metrics, events, what was published and
/// what was accepted.
struct Played {
    metrics: Metrics,
    events: Vec<Event>,
    record: Vec<ExportProfilesServiceRequest>,
    accepted: Vec<ExportProfilesServiceRequest>,
}

fn play(protocol: Protocol, script: &str, timeout: &str) -> Played {
    let load = Load::new();
    let receiver = Receiver::start(protocol, script, None).unwrap();
    let mut configuration = load.configuration(&receiver.endpoint(), protocol, "");
    configuration.exporters = configuration.exporters.replace("timeout: 5s", &format!("timeout: {timeout}"));
    let mut agent = Agent::start(&configuration).unwrap();
    let metrics = settle(&mut agent, load.start(4000));
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{status}\n{log}");
    let (accepted, repeated) = once(receiver.requests().unwrap());
    let played = Played { metrics, events: receiver.events(), record: home.record().unwrap(), accepted };
    let (published, accepted) = (seen(&played.record).len() as u64, seen(&played.accepted).len() as u64);
    assert!(published > 100, "{published} samples");
    // Nothing is ever lost in between: what was published and did not arrive is in a counter.
    let given_up = played.metrics.rejected(OUT) + played.metrics.dropped(OUT);
    let retries = played.metrics.retries(OUT);
    assert_eq!(published, accepted + given_up, "{repeated} repeated\n{:?}\n{}", played.events, played.metrics);
    assert!(repeated <= retries, "{repeated} requests came again in {retries} retries: {:?}", played.events);
    played
}

/// Each request once, and how many came again: one whose answer came after the agent's patience, on a slow machine, is sent again as it was,
/// and OTLP has no way to tell.
fn once(requests: Vec<ExportProfilesServiceRequest>) -> (Vec<ExportProfilesServiceRequest>, u64) {
    let all = requests.len();
    let mut distinct: Vec<ExportProfilesServiceRequest> = Vec::with_capacity(all);
    for request in requests {
        if !distinct.contains(&request) {
            distinct.push(request);
        }
    }
    let repeated = (all - distinct.len()) as u64;
    (distinct, repeated)
}

/// The time between the event of `action` and the next one, s.
fn pause_after(events: &[Event], action: &str) -> f64 {
    let at =
        events.iter().position(|event| event.action == action).unwrap_or_else(|| panic!("no {action}: {events:?}"));
    let (Some(one), Some(next)) = (events.get(at), events.get(at + 1)) else {
        panic!("nothing after {action}: {events:?}")
    };
    next.unix_nanos.saturating_sub(one.unix_nanos) as f64 / 1e9
}

#[test]
fn root_slow_receiver_is_asked_again() {
    if !have_root("root_slow_receiver_is_asked_again") {
        return;
    }
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let played = play(protocol, "ok,slow=30*2", "1s");
        assert_eq!(played.metrics.delivered(OUT), played.metrics.published(), "{}", played.metrics);
        assert!(played.metrics.retries(OUT) >= 2, "{}\n{:?}", played.metrics, played.events);
        assert_all(&played.record, &played.accepted);
    }
}

#[test]
fn root_retry_after_is_kept() {
    if !have_root("root_retry_after_is_kept") {
        return;
    }
    let played = play(Protocol::Http, "429=2,ok,429-date=2,ok,status=503,status=502,status=504", "5s");
    for action in ["429", "429-date"] {
        let pause = pause_after(&played.events, action);
        assert!((2.0..8.0).contains(&pause), "{pause} s after {action}: {:?}", played.events);
    }
    assert_all(&played.record, &played.accepted);
}

#[test]
fn root_status_that_is_not_retryable_is_counted_and_not_asked_again() {
    if !have_root("root_status_that_is_not_retryable_is_counted_and_not_asked_again") {
        return;
    }
    // HTTP 400 and 500, gRPC INVALID_ARGUMENT (3) and UNIMPLEMENTED (12); HTML is no answer of OTLP.
    for (protocol, script) in [(Protocol::Http, "status=400,status=500,html"), (Protocol::Grpc, "status=3,status=12")] {
        let played = play(protocol, script, "5s");
        let refused: u64 = played.events.iter().filter(|event| !event.accepted).map(|event| event.samples).sum();
        assert!(refused > 0);
        assert_eq!(played.metrics.dropped(OUT), refused, "{}", played.metrics);
        assert_eq!(played.metrics.retries(OUT), 0, "{}", played.metrics);
    }
}

#[test]
fn root_resource_exhausted_is_final_without_retry_info() {
    if !have_root("root_resource_exhausted_is_final_without_retry_info") {
        return;
    }
    let played = play(Protocol::Grpc, "exhausted,exhausted=2", "5s");
    let first = played.events.first().unwrap();
    assert_eq!(played.metrics.dropped(OUT), first.samples, "{}", played.metrics);
    let [_, second, third, ..] = played.events.as_slice() else { panic!("{:?}", played.events) };
    assert_eq!((second.action.as_str(), third.action.as_str()), ("exhausted", "ok"));
    let pause = third.unix_nanos.saturating_sub(second.unix_nanos) as f64 / 1e9;
    assert!((2.0..8.0).contains(&pause), "{pause} s where RetryInfo asks for 2");
}

#[test]
fn root_partial_success_is_reported_and_not_asked_again() {
    if !have_root("root_partial_success_is_reported_and_not_asked_again") {
        return;
    }
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let played = play(protocol, "ok,partial", "5s");
        let refused: u64 =
            played.events.iter().filter(|event| event.action == "partial").map(|event| event.samples).sum();
        assert!(refused > 0);
        assert_eq!(played.metrics.rejected(OUT), refused, "{}", played.metrics);
        assert_eq!(played.metrics.retries(OUT), 0, "{}", played.metrics);
    }
}

#[test]
fn root_reset_in_the_middle_of_a_request_is_asked_again() {
    if !have_root("root_reset_in_the_middle_of_a_request_is_asked_again") {
        return;
    }
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let played = play(protocol, "ok,reset*2", "5s");
        assert!(played.events.iter().filter(|event| event.action == "reset").count() == 2, "{:?}", played.events);
        assert!(played.metrics.retries(OUT) >= 2, "{}", played.metrics);
        assert_all(&played.record, &played.accepted);
    }
}

/// Sends `signal` to the process `pid`; whether it is still there.
fn signal(pid: u32, signal: Signal) -> bool {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).is_ok()
}

/// Waits until the process `pid` is gone, also from the table of processes unless `may_be_zombie`.
fn wait_for_end(pid: u32, may_be_zombie: bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        match children::state_of(pid) {
            None => return,
            Some('Z') if may_be_zombie => return,
            state => assert!(Instant::now() < until, "{pid} is left behind: {state:?}"),
        }
        sleep(Duration::from_millis(20));
    }
}

/// The process that speaks to the receiver of `agent`, which is none of `former`.
fn sender_of(agent: &Agent, former: &[u32]) -> u32 {
    let until = Instant::now() + PATIENCE;
    loop {
        match children::senders_of(agent.pid()).as_slice() {
            [one] if !former.contains(one) => return *one,
            several if Instant::now() > until => panic!("{several:?} after {former:?}:\n{}", agent.log()),
            _ => sleep(Duration::from_millis(5)),
        }
    }
}

fn senders_ended(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum("profiler_sender_ended_total", &[("exporter", OUT), ("reason", reason)])
}

/// Whoever speaks to the receiver is killed at any moment: while it begins, while it sends, while it has nothing to do.
#[test]
fn root_killed_senders_lose_nothing() {
    if !have_root("root_killed_senders_lose_nothing") {
        return;
    }
    let load = Load::new();
    let mut killed = Vec::new();
    let collector = Collector::start(CollectorOptions::plain()).unwrap();
    let mut agent = Agent::start(&load.configuration(&collector.endpoint(Protocol::Grpc), Protocol::Grpc, "")).unwrap();
    // For as long as it takes.
    let running = load.start(600_000);
    for round in 0..6 {
        let sender = sender_of(&agent, &killed);
        sleep(Duration::from_millis(round * 70));
        // One that was replaced meanwhile, since a file of the name service changed, is gone as well.
        signal(sender, Signal::KILL);
        killed.push(sender);
    }
    sender_of(&agent, &killed);
    running.signal(Signal::KILL);
    let after = settle(&mut agent, running);
    assert_eq!(after.delivered(OUT), after.published(), "{after}");
    let died = senders_ended(&after, "died");
    assert!(died >= 1.0 && died <= killed.len() as f64, "{after}");
    killed.iter().for_each(|pid| wait_for_end(*pid, false));
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{status}\n{log}");
    let published = home.record().unwrap();
    let enough = seen(&published).len();
    let requests =
        collector.requests_when(PATIENCE, |requests| seen(&once(requests.to_vec()).0).len() >= enough).unwrap();
    // What the receiver had taken when its sender was killed comes again: nobody heard that it had.
    let (received, repeated) = once(requests);
    assert!(repeated as usize <= killed.len(), "{repeated} requests came again");
    assert_all(&published, &received);
}

#[test]
fn root_sender_that_stands_still_is_replaced_and_sampling_goes_on() {
    if !have_root("root_sender_that_stands_still_is_replaced_and_sampling_goes_on") {
        return;
    }
    let load = Load::new();
    let collector = Collector::start(CollectorOptions::plain()).unwrap();
    let mut configuration = load.configuration(&collector.endpoint(Protocol::Http), Protocol::Http, "");
    configuration.exporters = configuration.exporters.replace("timeout: 5s", "timeout: 1s");
    let mut agent = Agent::start(&configuration).unwrap();
    let running = load.start(600_000);
    let stopped = sender_of(&agent, &[]);
    agent.wait("delivery", PATIENCE, |now| now.delivered(OUT) > 0).unwrap();
    signal(stopped, Signal::STOP);
    let before = agent.metrics().unwrap().published();
    let meanwhile = agent.wait("three windows", PATIENCE, |now| now.published() > before + 3 * HERTZ).unwrap();
    assert_eq!(meanwhile.dropped(OUT), 0, "{meanwhile}");
    agent.wait("another sender", PATIENCE, |now| senders_ended(now, "stood still") > 0.0).unwrap();
    running.signal(Signal::KILL);
    let after = settle(&mut agent, running);
    assert_eq!(after.delivered(OUT), after.published(), "{after}");
    wait_for_end(stopped, false);

    // Whoever stands still does not outlive an agent that is killed.
    let next = loop {
        let next = sender_of(&agent, &[stopped]);
        if signal(next, Signal::STOP) {
            break next;
        }
    };
    let _home = agent.kill().unwrap();
    wait_for_end(next, true);
}

/// TLS options of an exporter.
fn tls(certificates: &Certificates, client: &(PathBuf, PathBuf)) -> String {
    let ca = certificates.ca();
    format!(
        "    tls: {{ca_file: {}, cert_file: {}, key_file: {}}}\n",
        ca.display(),
        client.0.display(),
        client.1.display()
    )
}

/// Nothing gets through with what is in the files at first; `rotate` replaces them and then everything does.
fn survives_rotation(client: Valid, server: Valid, rotate: impl Fn(&Certificates)) {
    let here = folder().unwrap();
    let certificates = Certificates::create(here.path()).unwrap();
    let client = certificates.client(client).unwrap();
    let server = certificates.server_for_clients(server).unwrap();
    let load = Load::new();
    let collector = Collector::start(CollectorOptions::tls(server)).unwrap();
    let more = tls(&certificates, &client);
    let mut agent =
        Agent::start(&load.configuration(&collector.endpoint(Protocol::Grpc), Protocol::Grpc, &more)).unwrap();
    let running = load.start(5000);
    let before = agent.wait("retries", PATIENCE, |now| now.published() > 200 && now.retries(OUT) >= 2).unwrap();
    assert_eq!(before.gone(OUT), 0, "an expired certificate got through, or samples were given up:\n{before}");
    rotate(&certificates);
    let after = settle(&mut agent, running);
    assert_eq!(after.delivered(OUT), after.published(), "{after}");
    stops_and_all_arrived(agent, &collector);
}

#[test]
fn root_expired_certificate_of_the_agent_is_rotated() {
    if !have_root("root_expired_certificate_of_the_agent_is_rotated") {
        return;
    }
    survives_rotation(Valid::Expired, Valid::Long, |certificates| {
        certificates.client(Valid::Long).unwrap();
    });
}

#[test]
fn root_expired_certificate_of_the_collector_is_rotated() {
    if !have_root("root_expired_certificate_of_the_collector_is_rotated") {
        return;
    }
    survives_rotation(Valid::Long, Valid::Expired, |certificates| {
        certificates.server(Valid::Long).unwrap();
    });
}

#[test]
fn root_name_that_does_not_resolve_is_tried_until_it_does() {
    if !have_root("root_name_that_does_not_resolve_is_tried_until_it_does") {
        return;
    }
    let load = Load::new();
    let collector = Collector::start(CollectorOptions::plain()).unwrap();
    let home = Home::new().unwrap();
    // A hosts file of its own, in a mount namespace of its own.
    let hosts = home.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let hosts_text = hosts.display().to_string();
    let in_namespace = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let endpoint = collector.endpoint(Protocol::Grpc).replace("127.0.0.1", "collector.invalid");
    let wrapper = ["unshare", "--mount", "sh", "-c", in_namespace, &hosts_text];
    let mut agent = home.start(&load.configuration(&endpoint, Protocol::Grpc, ""), &wrapper).unwrap();
    let running = load.start(5000);
    let before = agent.wait("retries", PATIENCE, |now| now.published() > 200 && now.retries(OUT) >= 3).unwrap();
    assert_eq!(before.gone(OUT), 0, "{before}");
    let warnings =
        agent.log().lines().filter(|line| line.contains("WARN") && line.contains("collector.invalid")).count();
    assert_eq!(warnings, 1, "said once a minute:\n{}", agent.log());
    // In place: the mount is of this file, not of its name.
    fs::write(&hosts, "127.0.0.1 localhost collector.invalid\n").unwrap();
    let after = settle(&mut agent, running);
    assert_eq!(after.delivered(OUT), after.published(), "{after}");
    stops_and_all_arrived(agent, &collector);
}

#[test]
fn root_full_disk_under_the_spool_is_counted_and_survived() {
    if !have_root("root_full_disk_under_the_spool_is_counted_and_survived") {
        return;
    }
    let load = Load::new();
    let mut collector = Collector::prepared(CollectorOptions::plain()).unwrap();
    let home = Home::new().unwrap();
    let disk = home.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let disk_text = disk.display().to_string();
    let in_namespace = "mount -t tmpfs -o size=12k none \"$0\" && exec \"$@\"";
    let spool = format!("    spool: {{directory: {disk_text}/spool, max_size: 64MiB}}\n");
    let mut configuration = load.configuration(&collector.endpoint(Protocol::Grpc), Protocol::Grpc, &spool);
    configuration.rate = 999;
    let wrapper = ["unshare", "--mount", "sh", "-c", in_namespace, &disk_text];
    let mut agent = home.start(&configuration, &wrapper).unwrap();
    let running = load.start(6000);
    let full = agent.wait("a full disk", PATIENCE, |now| now.published() > 4500).unwrap();
    let log = agent.log();
    assert!(log.contains("No space left"), "nobody says that the disk is full:\n{full}\n{log}");
    collector.restart().unwrap();
    let after = settle(&mut agent, running);
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{status}\n{log}");
    let published = seen(&home.record().unwrap()).len() as u64;
    let requests = collector.requests_when(PATIENCE, |all| seen(all).len() as u64 >= after.delivered(OUT)).unwrap();
    assert_eq!(published, seen(&requests).len() as u64 + after.dropped(OUT), "{after}");
}

/// Gives the agent another configuration and waits until it has said `word` of it.
fn reload(agent: &Agent, configuration: &Configuration, word: &str) {
    let before = agent.log().len();
    agent.home().configure(configuration).unwrap();
    let until = Instant::now() + PATIENCE;
    while !agent.log().get(before..).is_some_and(|said| said.contains(word)) {
        assert!(Instant::now() < until, "nobody says {word:?}:\n{}", agent.log());
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn root_exporters_that_are_replaced_get_every_window_before() {
    if !have_root("root_exporters_that_are_replaced_get_every_window_before") {
        return;
    }
    let load = Load::new();
    let collector = Collector::start(CollectorOptions::plain()).unwrap();
    let endpoint = collector.endpoint(Protocol::Grpc);
    let mut configuration = load.configuration(&endpoint, Protocol::Grpc, "");
    let mut agent = Agent::start(&configuration).unwrap();
    let running = load.start(12_000);
    for number in 0..3 {
        let before = agent.metrics().unwrap().published();
        agent.wait("a window", PATIENCE, |now| now.published() > before).unwrap();
        configuration.exporters = otlp_exporter(&format!("{OUT}-{number}"), &endpoint, Protocol::Grpc.name(), "");
        reload(&agent, &configuration, "was read again");
    }
    running.wait(PATIENCE).unwrap();
    stops_and_all_arrived(agent, &collector);
}

#[test]
fn root_spool_goes_on_under_another_name() {
    if !have_root("root_spool_goes_on_under_another_name") {
        return;
    }
    let load = Load::new();
    let mut collector = Collector::prepared(CollectorOptions::plain()).unwrap();
    let endpoint = collector.endpoint(Protocol::Grpc);
    let home = Home::new().unwrap();
    let spool = format!("    spool: {{directory: {}/spool, max_size: 64MiB}}\n", home.path().display());
    let mut configuration = load.configuration(&endpoint, Protocol::Grpc, &spool);
    let mut agent = home.start(&configuration, &[]).unwrap();
    let running = load.start(3000);
    agent.wait("a spool", PATIENCE, |now| now.sum("profiler_spool_records", &[("exporter", OUT)]) > 0.0).unwrap();
    configuration.exporters = otlp_exporter("renamed", &endpoint, Protocol::Grpc.name(), &spool);
    reload(&agent, &configuration, "was read again");
    collector.restart().unwrap();
    running.wait(PATIENCE).unwrap();
    sleep(Duration::from_millis(2500));
    agent.wait_until_idle("renamed", PATIENCE).unwrap();
    stops_and_all_arrived(agent, &collector);
}

#[test]
fn root_configuration_that_is_refused_late_changes_nothing() {
    if !have_root("root_configuration_that_is_refused_late_changes_nothing") {
        return;
    }
    let load = Load::new();
    let collector = Collector::start(CollectorOptions::plain()).unwrap();
    let good = load.configuration(&collector.endpoint(Protocol::Http), Protocol::Http, "");
    let mut agent = Agent::start(&good).unwrap();
    let running = load.start(5000);
    agent.wait("a window", PATIENCE, |now| now.published() > 0).unwrap();
    // Valid as a file; that there is no cluster to ask shows when it is taken up.
    let mut bad = good.clone();
    bad.rate = HERTZ * 2;
    bad.exporters = otlp_exporter("elsewhere", "http://127.0.0.1:1", Protocol::Grpc.name(), "");
    bad.more = "resource: {kubernetes: {source: api}}\n".to_owned();
    reload(&agent, &bad, "is refused");
    reload(&agent, &good, "nothing has changed");
    let after = settle(&mut agent, running);
    assert_eq!(after.sum("profiler_export_queue_samples", &[("exporter", "elsewhere")]) as u64, 0, "{after}");
    assert_eq!(after.sum("profiler_rate_hertz", &[]) as u64, HERTZ, "{after}");
    assert_eq!(after.delivered(OUT), after.published(), "{after}");
    stops_and_all_arrived(agent, &collector);
}

/// Any user may take the port that an agent sends to while nobody has configured one.
#[test]
fn root_what_nobody_chose_is_not_sent_to_another_user() {
    let test = "root_what_nobody_chose_is_not_sent_to_another_user";
    if !have_root(test) {
        return;
    }
    let _beside = beside_its_like();
    let listener = TcpListener::bind("127.0.0.1:4317");
    if !have(test, listener.is_ok(), "127.0.0.1:4317, on which somebody listens") {
        return;
    }
    let listener = listener.expect("looked at");
    // As the kernel has it, it is nobody's from now on.
    rustix::fs::fchown(&listener, Some(rustix::fs::Uid::from_raw(65534)), None).unwrap();
    let heard = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
    let of_thread = Arc::clone(&heard);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            of_thread.0.fetch_add(1, Ordering::Relaxed);
            let bytes = stream.read(&mut [0; 4096]).unwrap_or_default();
            of_thread.1.fetch_add(u32::try_from(bytes).unwrap(), Ordering::Relaxed);
        }
    });
    let configuration = Configuration::new(99, &[], "- {name: default, otlp: {}}\n".to_owned());
    let mut agent = Agent::start(&configuration).unwrap();
    let said = |agent: &Agent| agent.log().contains("user 65534 listens on 127.0.0.1:4317");
    let until = Instant::now() + PATIENCE;
    while agent.is_running() && !said(&agent) && Instant::now() < until {
        sleep(Duration::from_millis(100));
    }
    let log = agent.log();
    let words: Vec<_> = log.lines().filter(|line| line.contains("default")).collect();
    assert!(said(&agent), "{words:#?}");
    assert!(words.iter().any(|line| line.contains("set `endpoint`")), "the way out is not told: {words:#?}");
    drop(agent);
    let (connections, bytes) = (heard.0.load(Ordering::Relaxed), heard.1.load(Ordering::Relaxed));
    println!("{test}: {connections} connections, {bytes} bytes");
    assert!(connections > 0 && bytes == 0, "{connections} connections, {bytes} bytes");
}
