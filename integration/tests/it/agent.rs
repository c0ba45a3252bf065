//! `profiler agent` and a real Collector: over each protocol, what the Collector wrote is what was sampled, sample by sample.
//!
//! The record of what was sampled is a second exporter of the same agent, which writes OTLP files; that record in turn is held
//! against what the sampled programs know about themselves.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profiler_formats::otlp::{ExportProfilesServiceRequest, check_message};
use profiler_integration::agent::{Agent, Configuration, otlp_exporter};
use profiler_integration::children::{self, Finished};
use profiler_integration::collector::certificates::{Certificates, Valid};
use profiler_integration::collector::{Collector, CollectorOptions, Protocol};
use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use profiler_integration::recording::folder;
use profiler_integration::seen::{as_rows, difference, plain, seen};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{COMPLETE, verdict};
use profiler_unwinders::executable::htlhash;

const PATIENCE: Duration = Duration::from_secs(60);
const COLLECTOR: &str = "collector";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Security {
    Plain,
    Tls,
    MutualTls,
}

/// A program that knows its shares, as the service `name`.
fn run(program: &Path, name: &str, ms: &str) -> Finished {
    let mut command = Command::new(program);
    command.args(["--ms", ms, "--depth", "20"]).env("OTEL_SERVICE_NAME", name);
    command.env("OTEL_RESOURCE_ATTRIBUTES", format!("service.version=1.2.3,team={name}"));
    command.env("SECRET_TOKEN", "must-not-leave");
    children::run_well(&mut command, PATIENCE).unwrap()
}

/// Rules of profcheck; what the Collector does to the tables' order and orphans is not ours.
fn assert_conformant(requests: &[ExportProfilesServiceRequest], rules: u8) {
    for request in requests {
        let broken: Vec<_> = check_message(request).into_iter().filter(|found| found.rule <= rules).collect();
        assert!(broken.is_empty(), "a payload breaks profcheck's rules: {broken:?}");
    }
}

fn streams(test: &str, protocol: Protocol, security: Security) {
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let here = folder().unwrap();
    let certificates = Certificates::create(here.path()).unwrap();
    let (client, key) = certificates.client(Valid::Long).unwrap();
    let ca = certificates.ca();
    let (options, tls) = match security {
        Security::Plain => (CollectorOptions::plain(), String::new()),
        Security::Tls => (
            CollectorOptions::tls(certificates.server(Valid::Long).unwrap()),
            format!("    tls: {{ca_file: {}}}\n", ca.display()),
        ),
        Security::MutualTls => (
            CollectorOptions::tls(certificates.server_for_clients(Valid::Long).unwrap()),
            format!(
                "    tls: {{ca_file: {}, cert_file: {}, key_file: {}}}\n",
                ca.display(),
                client.display(),
                key.display()
            ),
        ),
    };
    let program = programs::c("shares").build().unwrap();
    let collector = Collector::start(options).unwrap();
    let exporter = otlp_exporter(COLLECTOR, &collector.endpoint(protocol), protocol.name(), &tls);
    let mut configuration = Configuration::new(u64::from(HERTZ), &["shares"], exporter);
    configuration.more = "labels: {deployment.environment.name: test}\n".to_owned();
    let mut agent = Agent::start(&configuration).unwrap();
    agent.wait("sampling", PATIENCE, |metrics| metrics.sum("profiler_sampling", &[]) > 0.0).unwrap();

    // Two services of one program at once: each sample has to come with its own.
    let second = {
        let program = program.clone();
        std::thread::spawn(move || run(&program, "beta", "1500"))
    };
    let first = run(&program, "alpha", "1500");
    let second = second.join().unwrap();
    agent.wait("readiness", PATIENCE, |metrics| metrics.published() > 0).unwrap();
    assert_eq!(agent.get("/readyz").unwrap().0, 200);
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{status}\n{log}");

    let record = home.record().unwrap();
    assert_conformant(&record, 10);
    let sampled = seen(&record);
    let requests = collector.requests_when(PATIENCE, |requests| seen(requests).len() >= sampled.len()).unwrap();
    assert_conformant(&requests, 8);
    let received = seen(&requests);
    let (lost, added) = difference(&sampled, &received);
    assert!(
        // What a busy receiver did not answer in time is sent again, and may be there twice.
        lost.is_empty() && (added.is_empty() || log.contains("tried again")),
        "{test}: of {} samples {} did not arrive as they were sampled, {} arrived that were not:\n{:#?}\n{:#?}\n{}",
        sampled.len(),
        lost.len(),
        added.len(),
        lost.first(),
        added.first(),
        collector.said()
    );

    for (finished, service) in [(&first, "alpha"), (&second, "beta")] {
        let truth = Truth::find("shares", &finished.stdout).unwrap();
        let pid = truth.pid_on_host().to_string();
        let own: Vec<_> =
            received.iter().filter(|sample| plain(&sample.resource, "process.pid") == pid).cloned().collect();
        let found = verdict(&as_rows(&own), &truth, HERTZ, COMPLETE, |_| false);
        println!("{test}: {service}: {}", found.summary());
        let problems = found.lasting_problems();
        assert!(problems.is_empty(), "{test}: {service}: {}", problems.join("\n  "));

        let resources: BTreeSet<_> = own.iter().map(|sample| &sample.resource).collect();
        assert_eq!(resources.len(), 1, "one process is one resource: {resources:#?}");
        let resource = resources.first().unwrap();
        let expected = [
            ("service.name", service),
            ("service.version", "1.2.3"),
            ("team", service),
            ("deployment.environment.name", "test"),
            ("process.executable.name", "shares"),
            ("process.executable.path", &program.display().to_string()),
            ("process.executable.build_id.htlhash", &htlhash(&std::fs::read(&program).unwrap())),
            ("os.type", "linux"),
        ];
        for (key, value) in expected {
            assert_eq!(plain(resource, key), value, "{key} in {resource:#?}");
        }
        for key in ["process.creation.time", "host.name", "host.arch", "service.instance.id"] {
            assert_ne!(plain(resource, key), "", "no {key} in {resource:#?}");
        }
        let said = format!("{resource:?}");
        assert!(!said.contains("must-not-leave"), "a variable that nobody allowed is in {said}");
    }
}

#[test]
fn root_agent_over_grpc() {
    streams("root_agent_over_grpc", Protocol::Grpc, Security::Plain);
}

#[test]
fn root_agent_over_http() {
    streams("root_agent_over_http", Protocol::Http, Security::Plain);
}

#[test]
fn root_agent_over_grpc_with_tls() {
    streams("root_agent_over_grpc_with_tls", Protocol::Grpc, Security::Tls);
}

#[test]
fn root_agent_over_http_with_tls() {
    streams("root_agent_over_http_with_tls", Protocol::Http, Security::Tls);
}

#[test]
fn root_agent_over_grpc_with_mutual_tls() {
    streams("root_agent_over_grpc_with_mutual_tls", Protocol::Grpc, Security::MutualTls);
}

#[test]
fn root_agent_over_http_with_mutual_tls() {
    streams("root_agent_over_http_with_mutual_tls", Protocol::Http, Security::MutualTls);
}

/// Two receivers at once and everything of the host: each has all of it, and small requests stay small.
#[test]
fn root_agent_sends_all_of_the_host_to_two_receivers() {
    let test = "root_agent_sends_all_of_the_host_to_two_receivers";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let collectors = [(); 2].map(|()| Collector::start(CollectorOptions::plain()).unwrap());
    let [over_grpc, over_http] = &collectors;
    let exporters = otlp_exporter("one", &over_grpc.endpoint(Protocol::Grpc), "grpc", "    max_request_size: 32KiB\n")
        + &otlp_exporter("two", &over_http.endpoint(Protocol::Http), "http/protobuf", "    compression: none\n");
    let agent = Agent::start(&Configuration::new(HERTZ.into(), &[], exporters)).unwrap();
    let program = programs::c("shares").build().unwrap();
    run(&program, "alpha", "2500");
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{status}\n{log}");
    let sampled = seen(&home.record().unwrap());
    assert!(sampled.len() > 1000, "{} samples of a busy host", sampled.len());
    for collector in &collectors {
        let requests = collector.requests_when(PATIENCE, |requests| seen(requests).len() >= sampled.len()).unwrap();
        assert_conformant(&requests, 8);
        let received = seen(&requests);
        let (lost, added) = difference(&sampled, &received);
        // What a busy receiver did not answer in time is sent again, and may be there twice.
        let added = if log.contains("tried again") { 0 } else { added.len() };
        assert!(lost.is_empty() && added == 0, "{} lost, {added} added: {:#?}\n{log}", lost.len(), lost.first());
    }
    let (small, large) = (over_grpc.requests().unwrap().len(), over_http.requests().unwrap().len());
    assert!(small > large, "{small} requests of at most 32 KiB, {large} of at most 4 MiB");
}
