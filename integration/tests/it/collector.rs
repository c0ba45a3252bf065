//! The other end itself: what the Collector and the misbehaving receiver do with a profile that is known to the last sample, and
//! the gateway configuration that users are given. What the agent sends is in agent.rs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profiler_formats::format;
use profiler_formats::otlp::{ExportProfilesServiceRequest, check, check_message, request};
use profiler_integration::collector::certificates::{Certificates, Valid};
use profiler_integration::collector::{Collector, CollectorOptions, Protocol, free_port, listens};
use profiler_integration::environment::repository;
use profiler_integration::receiver::Receiver;
use profiler_integration::recording::folder;
use profiler_integration::seen::{Seen, difference, plain, seen};
use profiler_integration::{Error, children};
use profiler_model::builder::ProfileBuilder;
use profiler_model::{
    FrameKind, Function, Line, Location, Mapping, Process, Profiles, Sample, Thread, ValueType, Values,
};
use prost::Message;

const PATIENCE: Duration = Duration::from_secs(60);
const START: u64 = 1_795_438_015_000_000_000;

/// Three processes, one of them a Collector, with 200 samples.
fn profile() -> Profiles {
    let mut builder = ProfileBuilder::new();
    let head = builder.profile_mut();
    head.start_unix_nanos = START;
    head.duration_nanos = 10_000_000_000;
    head.sample_types = vec![ValueType { kind: "samples".into(), unit: "count".into() }];
    head.period_type = ValueType { kind: "cpu".into(), unit: "nanoseconds".into() };
    head.period = 10_101_010;
    let head = builder.set_mut();
    head.origin.host_name = "alder".into();
    head.origin.producer = "profiler 0.1.0".into();
    let mut threads = Vec::new();
    for (pid, name) in [(11, "api"), (12, "worker"), (13, "otelcol")] {
        let (name, executable) = (builder.string(name), builder.string(&format!("/usr/bin/{name}")));
        let process = builder.process(Process {
            pid: Some(pid),
            start_unix_nanos: START - u64::from(pid) * 1_000_000_000,
            name,
            executable,
            ..Process::default()
        });
        threads.push(builder.thread(Thread { process, tid: pid, name }));
    }
    let file = builder.string("/usr/lib/libcrypto.so.3");
    let build_id_gnu = builder.string("0123456789abcdef0123456789abcdef01234567");
    let build_id_htlhash = builder.string("00112233445566778899aabbccddeeff");
    let mapping = builder.mapping(Mapping {
        start: 0x1000,
        end: 0x9000,
        file_offset: 0x1000,
        file,
        build_id_gnu,
        build_id_htlhash,
        ..Mapping::default()
    });
    for n in 0..200_u32 {
        let mut locations = Vec::new();
        for depth in 0..5 + n % 7 {
            let (name, file) = (builder.string(&format!("function_{}", n % 13 + depth)), builder.string("src/ünï.c"));
            let function = builder.function(Function { name, file, start_line: depth + 1, ..Function::default() });
            locations.push(builder.location(Location {
                kind: if depth == 0 && n % 5 == 0 { FrameKind::Kernel } else { FrameKind::Native },
                mapping: Some(mapping),
                address: 0x1000 + u64::from(n % 13 * 16 + depth),
                lines: vec![Line { function, line: depth + 3, column: n % 2 }],
                guessed: false,
                tier: None,
            }));
        }
        let stack = builder.stack(&locations);
        let thread = threads.get(n as usize % threads.len()).copied();
        builder.profile_mut().samples.push(Sample {
            stack,
            thread,
            cpu: Some(n % 2),
            time_unix_nanos: Some(START + u64::from(n) * 49_999_999),
            values: Values::One(1),
            ..Sample::default()
        });
    }
    builder.finish()
}

/// The profile as a request in a file, and all that it says.
fn prepared(folder: &Path) -> (std::path::PathBuf, Vec<Seen>) {
    let bytes = profiler_formats::otlp::encode(&profile());
    assert_eq!(check(&bytes), []);
    let file = folder.join("profile.otlp");
    fs::write(&file, &bytes).unwrap();
    let sent = seen([&ExportProfilesServiceRequest::decode(&*bytes).unwrap()]);
    assert_eq!(sent.len(), 200);
    (file, sent)
}

/// POSTs the file as OTLP/HTTP; the answer's status and body.
fn post(file: &Path, endpoint: &str, tls: &[&Path]) -> Result<String, Error> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*", "--write-out", "\n%{http_code}"]);
    curl.args(["--header", "Content-Type: application/x-protobuf"]).arg("--data-binary");
    curl.arg(format!("@{}", file.display())).arg(format!("{endpoint}/v1development/profiles"));
    for (option, path) in ["--cacert", "--cert", "--key"].iter().zip(tls) {
        curl.arg(option).arg(path);
    }
    let done = children::run_well(&mut curl, PATIENCE)?;
    Ok(done.stdout.rsplit('\n').next().unwrap_or_default().to_owned())
}

fn assert_same(sent: &[Seen], received: &[Seen]) {
    let (lost, added) = difference(sent, received);
    assert!(
        lost.is_empty() && added.is_empty(),
        "{} of {} samples did not arrive as sent, such as {:#?}\n{} arrived that were not sent, such as {:#?}",
        lost.len(),
        sent.len(),
        lost.first(),
        added.len(),
        added.first()
    );
}

/// Sends to `collector` and holds what it wrote against what was sent.
fn sends_and_compares(collector: &Collector, tls: &[&Path]) {
    let (file, sent) = prepared(collector.folder());
    assert_eq!(post(&file, &collector.endpoint(Protocol::Http), tls).unwrap(), "200");
    let requests = collector.requests_when(PATIENCE, |requests| seen(requests).len() >= sent.len()).unwrap();
    for request in &requests {
        let broken: Vec<_> = check_message(request).into_iter().filter(|violation| violation.rule < 9).collect();
        assert!(broken.is_empty(), "what the Collector made of it breaks profcheck's rules: {broken:?}");
    }
    assert_same(&sent, &seen(&requests));
    // `convert` reads the same file.
    let read = format::read(&fs::read(collector.file()).unwrap()).unwrap();
    assert_eq!(read.sample_count(), sent.len() as u64);
    assert_same(&sent, &seen([&request(&read)]));
}

#[test]
fn the_collector_writes_every_sample_as_it_was_sent() {
    sends_and_compares(&Collector::start(CollectorOptions::plain()).unwrap(), &[]);
}

#[test]
fn the_collector_takes_tls_and_mutual_tls_and_no_stranger() {
    let here = folder().unwrap();
    let certificates = Certificates::create(here.path()).unwrap();
    let ca = certificates.ca();
    let server = certificates.server(Valid::Long).unwrap();
    sends_and_compares(&Collector::start(CollectorOptions::tls(server)).unwrap(), &[&ca]);

    let mutual = certificates.server_for_clients(Valid::Long).unwrap();
    let (client, key) = certificates.client(Valid::Long).unwrap();
    let collector = Collector::start(CollectorOptions::tls(mutual)).unwrap();
    sends_and_compares(&collector, &[&ca, &client, &key]);
    let (file, _) = prepared(here.path());
    let endpoint = collector.endpoint(Protocol::Http);
    assert!(post(&file, &endpoint, &[&ca]).is_err(), "a client without a certificate was let in");
    let (client, key) = certificates.client(Valid::Expired).unwrap();
    assert!(post(&file, &endpoint, &[&ca, &client, &key]).is_err(), "an expired certificate was let in");
}

#[test]
fn a_killed_collector_comes_back_where_it_was() {
    let mut collector = Collector::start(CollectorOptions::plain()).unwrap();
    sends_and_compares(&collector, &[]);
    let endpoint = collector.endpoint(Protocol::Http);
    let before = seen(&collector.requests().unwrap()).len();
    collector.kill();
    let (file, sent) = prepared(collector.folder());
    assert!(post(&file, &endpoint, &[]).is_err());
    collector.restart().unwrap();
    assert_eq!(collector.endpoint(Protocol::Http), endpoint);
    assert_eq!(post(&file, &endpoint, &[]).unwrap(), "200");
    let enough = before + sent.len();
    let requests = collector.requests_when(PATIENCE, |requests| seen(requests).len() >= enough).unwrap();
    assert_eq!(seen(&requests).len(), enough);
}

/// agent -> gateway -> backend with `deploy/gateway/collector.yaml` as it is shipped. The backend is down at first.
#[test]
fn the_gateway_passes_profiles_on_filters_and_waits_for_its_backend() {
    let mut backend = Collector::prepared(CollectorOptions::plain()).unwrap();
    let queue = folder().unwrap();
    let backend_address = backend.endpoint(Protocol::Grpc).replace("http://", "");
    let health = free_port().unwrap();
    let environment = [
        ("BACKEND_ENDPOINT", backend_address),
        ("BACKEND_INSECURE", "true".to_owned()),
        ("QUEUE_FOLDER", queue.path().join("queue").display().to_string()),
        ("HEALTH_LISTEN", format!("127.0.0.1:{health}")),
        ("CLUSTER", "blue".to_owned()),
    ];
    let environment = environment.map(|(key, value)| (key.to_owned(), value)).to_vec();
    let shipped = repository().join("deploy/gateway/collector.yaml");
    let mut gateway = Collector::start(CollectorOptions::shipped(shipped, environment)).unwrap();
    assert!(listens(health), "no health check:\n{}", gateway.said());

    let (file, sent) = prepared(queue.path());
    assert_eq!(post(&file, &gateway.endpoint(Protocol::Http), &[]).unwrap(), "200", "{}", gateway.said());
    // What it took is on disk: a gateway that is killed before its backend is there still delivers.
    gateway.kill();
    gateway.restart().unwrap();
    backend.restart().unwrap();

    let expected: Vec<Seen> = sent
        .into_iter()
        .filter(|sample| plain(&sample.resource, "process.executable.name") != "otelcol")
        .map(|mut sample| {
            sample.resource.insert("k8s.cluster.name".into(), "s:blue".into());
            sample
        })
        .collect();
    let enough = expected.len();
    let requests = backend.requests_when(PATIENCE, |requests| seen(requests).len() >= enough).unwrap();
    let mut expected = expected;
    expected.sort_unstable();
    let received = seen(&requests);
    assert!(!received.is_empty(), "nothing came through:\n{}", gateway.said());
    assert_same(&expected, &received);
}

#[test]
fn the_receiver_misbehaves_as_told() {
    let here = folder().unwrap();
    let (file, sent) = prepared(here.path());
    let script = "429=2,429-date=3,status=503,partial,html,reset,ok";
    let receiver = Receiver::start(Protocol::Http, script, None).unwrap();
    let endpoint = receiver.endpoint();
    for expected in ["429", "429", "503", "200", "200"] {
        assert_eq!(post(&file, &endpoint, &[]).unwrap(), expected);
    }
    assert!(post(&file, &endpoint, &[]).is_err(), "a reset looks like an answer");
    assert_eq!(receiver.accepted_samples(), 0);
    assert_eq!(post(&file, &endpoint, &[]).unwrap(), "200");
    assert_eq!(receiver.accepted_samples(), 200);
    assert_same(&sent, &seen(&receiver.requests().unwrap()));
    let events: Vec<_> = receiver.events().into_iter().map(|event| event.action).collect();
    assert_eq!(events, ["429", "429-date", "status", "partial", "html", "reset", "ok"]);
}
