//! What the profiler tells about itself, read by others: prometheus_client's parsers, curl, a gRPC server of tonic's.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use profiler::telemetry::metric::{Histogram, SECONDS};
use profiler::telemetry::usage::CpuTime;
use profiler::telemetry::{
    AgentState, DetectionState, ExporterState, PushOptions, SendersState, SpoolState, Telemetry, TelemetryOptions,
    metrics,
};
use profiler_export::{Compression, ExporterOptions, Protocol};
use profiler_integration::agent::{Agent, Configuration, Home};
use profiler_integration::children;
use profiler_integration::environment::{have_root, have_tools, one_at_a_time, python_with};
use profiler_rules::Tally;
use prost::Message;
use rustix::process::Signal;
use tonic::{Request, Response, Status};

const PATIENCE: Duration = Duration::from_secs(60);
const NASTY: &str = "ma\"in\\\n{x=\"1\"} 7 # ü";

/// A state in which every metric has a value.
fn state() -> AgentState {
    let mut duration = Histogram::new(SECONDS);
    for seconds in [0.004, 0.03, 0.03, 7.0, 100.0] {
        duration.record(seconds);
    }
    AgentState {
        samples: BTreeMap::from([("cpu-clock".to_owned(), 1_000_000), ("page-faults".to_owned(), 7)]),
        lost: [("ring full", 3), ("more than could be worked off", 0)]
            .map(|(reason, count)| (("cpu-clock".to_owned(), reason), count))
            .into(),
        frames: (100, 30),
        filtered: 17,
        filtered_by_rules: BTreeMap::from([(("filter/idle".to_owned(), "condition"), 11)]),
        rules: BTreeMap::from([(
            ("filter/idle".to_owned(), "sample_conditions[0]".to_owned()),
            Tally { matched: 9, dropped: 11, errors: 1, time: Duration::from_millis(3) },
        )]),
        continued: 250,
        unfinished: BTreeMap::from([("unwind: no mapping", 5)]),
        events_lost: 1,
        trouble: BTreeMap::from([("file unreadable", 2)]),
        readers: (2, 1, 1),
        senders: SendersState {
            started: BTreeMap::from([("out".to_owned(), 2)]),
            ended: BTreeMap::from([(("out".to_owned(), "died"), 1)]),
        },
        refused: BTreeMap::from([(("PyPy", "not followed"), 3)]),
        name_trouble: BTreeMap::from([("perf map or jitdump refused", 3)]),
        resource_trouble: BTreeMap::from([("process gone", 4)]),
        caches: BTreeMap::from([("names", 1 << 20), ("rows", 2 << 20)]),
        maps: BTreeMap::from([("array", 10 << 20), ("ringbuf", 4 << 20)]),
        tables: BTreeMap::from([("mappings", 4_000)]),
        processes: 60,
        cpu: CpuTime { user: 1.25, kernel: 0.5, bpf: 2.125 },
        memory_bytes: 40 << 20,
        file_descriptors: 99,
        uptime_seconds: 3600.5,
        rate: 49,
        configured_rate: 99,
        rate_ruled_by: "governed",
        requested_rates: [("configured", 99), ("governed", 49)].into(),
        reloads: [("taken", 2), ("refused", 1)].into(),
        sampling: true,
        confinement: [(("agent", "seccomp"), true), (("agent", "landlock"), false)].into(),
        shed_level: 1,
        memory_limit: Some(128 << 20),
        cpu_limit: Some(0.02),
        host_cpu: Some(0.875),
        detection: DetectionState {
            events: [(("function", "changed"), 2)].into(),
            series: [("function", 120), ("host", 1)].into(),
            skipped: [("busy", 0)].into(),
            unnamed: 5,
            delay: Histogram::from_parts(SECONDS, vec![1; SECONDS.len() + 1], 90.0),
        },
        exporters: vec![
            ExporterState {
                name: NASTY.to_owned(),
                sent_samples: 900_000,
                rejected_samples: 10,
                dropped_samples: BTreeMap::from([("queue full", 20)]),
                requests: 100,
                retries: 4,
                raw_bytes: 1 << 30,
                wire_bytes: 1 << 28,
                duration: Some(duration),
                queued_bytes: 4096,
                queued_samples: 70,
                spool: Some(SpoolState { bytes: 1 << 16, records: 2, set_aside: 1 }),
            },
            ExporterState { name: "files".to_owned(), ..ExporterState::default() },
        ],
    }
}

fn listening() -> TelemetryOptions {
    TelemetryOptions { listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..TelemetryOptions::default() }
}

fn start(options: TelemetryOptions) -> (Telemetry, SocketAddr) {
    let telemetry = Telemetry::start(options).unwrap();
    let address = telemetry.address().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    (telemetry, address)
}

/// What curl gets: status, content type, body.
fn curl(address: SocketAddr, path: &str, arguments: &[&str]) -> (u16, String, String) {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "60", "--write-out", "\n%{http_code} %{content_type}"])
        .args(arguments)
        .arg(format!("http://{address}{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, tail) = text.rsplit_once('\n').unwrap();
    let (status, content_type) = tail.split_once(' ').unwrap();
    (status.parse().unwrap(), content_type.to_owned(), body.to_owned())
}

/// Samples as prometheus_client's parser for the format sees them: `name{key=value,...}` -> value, and the family of each name.
fn parsed(python: &str, page: &str, open_metrics: bool) -> (HashMap<String, f64>, HashMap<String, String>) {
    const PARSE: &str = r"
import json, sys
if sys.argv[1] == 'open':
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
else:
    from prometheus_client.parser import text_string_to_metric_families as parse
samples, kinds = {}, {}
for family in parse(sys.stdin.read()):
    assert family.documentation, family
    kinds[family.name] = family.type + ' ' + family.unit
    for sample in family.samples:
        key = json.dumps([sample.name, sorted(sample.labels.items())])
        assert key not in samples, key
        samples[key] = sample.value
print(json.dumps([samples, kinds]))
";
    let mut child = Command::new(python)
        .args(["-c", PARSE, if open_metrics { "open" } else { "text" }])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "prometheus_client refuses the page:\n{page}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A Python that reads a page of metrics.
fn python(test: &str) -> Option<&'static str> {
    python_with(test, "prometheus_client", "python3-prometheus-client")
}

fn series(name: &str, labels: &[(&str, &str)]) -> String {
    // As Python's json writes it.
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("[{}, {}]", serde_json::to_string(key).unwrap(), python_json(value)))
        .collect();
    format!("[\"{name}\", [{}]]", labels.join(", "))
}

fn python_json(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap();
    json.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", c as u32) }).collect()
}

#[test]
fn prometheus_reads_every_metric() {
    const TEST: &str = "prometheus_reads_every_metric";
    let Some(python) = python(TEST).filter(|_| have_tools(TEST, &["curl"])) else { return };
    let (telemetry, address) = start(listening());
    telemetry.publish(metrics::of(&state()));
    for (accept, content_type, open_metrics) in [
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8", false),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            true,
        ),
    ] {
        let (status, kind, page) = curl(address, "/metrics", &["-H", &format!("Accept: {accept}")]);
        assert_eq!((status, kind.as_str()), (200, content_type));
        let (samples, kinds) = parsed(python, &page, open_metrics);
        let is = |name: &str, labels: &[(&str, &str)], value: f64| {
            let found = samples.get(&series(name, labels)).copied();
            assert_eq!(found, Some(value), "{name} {labels:?} in\n{page}");
        };
        is("profiler_samples_total", &[("event", "cpu-clock")], 1e6);
        is("profiler_samples_total", &[("event", "page-faults")], 7.0);
        is("profiler_samples_lost_total", &[("event", "cpu-clock"), ("reason", "ring full")], 3.0);
        is("profiler_unwind_frames_total", &[("rule", "cached")], 70.0);
        is("profiler_stacks_total", &[("unwound_in", "kernel")], 999_757.0);
        is("profiler_stacks_unfinished_total", &[("reason", "unwind: no mapping")], 5.0);
        is("profiler_cache_size_bytes", &[("cache", "rows")], f64::from(2 << 20));
        is("profiler_map_size_bytes", &[("map", "ringbuf")], f64::from(4 << 20));
        is("profiler_cpu_time_seconds_total", &[("cpu_mode", "bpf")], 2.125);
        is("profiler_rate_hertz", &[], 49.0);
        is("profiler_rate_requested_hertz", &[("client", "governed")], 49.0);
        is("host_cpu_ratio", &[], 0.875);
        is("profiler_export_samples_total", &[("exporter", NASTY), ("outcome", "delivered")], 9e5);
        let dropped = [("exporter", NASTY), ("outcome", "dropped"), ("reason", "queue full")];
        is("profiler_export_samples_total", &dropped, 20.0);
        is("profiler_export_duration_seconds_count", &[("exporter", NASTY)], 5.0);
        is("profiler_export_duration_seconds_sum", &[("exporter", NASTY)], 107.064);
        is("profiler_export_duration_seconds_bucket", &[("exporter", NASTY), ("le", "0.05")], 3.0);
        is("profiler_export_duration_seconds_bucket", &[("exporter", NASTY), ("le", "+Inf")], 5.0);
        is("profiler_spool_size_bytes", &[("exporter", NASTY)], f64::from(1 << 16));
        let kind = |family: &str| kinds.get(family).map(String::as_str);
        let with_unit =
            |kind: &str, unit: &str| if open_metrics { format!("{kind} {unit}") } else { format!("{kind} ") };
        assert_eq!(kind("profiler_samples"), Some("counter "));
        assert_eq!(kind("profiler_cpu_time_seconds").map(str::to_owned), Some(with_unit("counter", "seconds")));
        assert_eq!(kind("profiler_rate_hertz").map(str::to_owned), Some(with_unit("gauge", "hertz")));
        // Every metric that there can be, and what describes the agent.
        assert_eq!(kinds.len(), metrics::ALL.len() + 1, "{kinds:?}");
    }
}

#[test]
fn probes_and_pages_by_curl() {
    if !have_tools("probes_and_pages_by_curl", &["curl"]) {
        return;
    }
    let (telemetry, address) = start(TelemetryOptions { stall_after: PATIENCE * 60, ..listening() });
    let get = |path: &str| {
        let (status, _, body) = curl(address, path, &[]);
        (status, body)
    };
    assert_eq!(get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get("/readyz"), (503, "starting\n".to_owned()));
    telemetry.health().ready();
    assert_eq!(get("/readyz"), (200, "ok\n".to_owned()));
    telemetry.health().not_ready("shutting down");
    assert_eq!(get("/readyz?verbose=1"), (503, "shutting down\n".to_owned()));
    let (status, index) = get("/");
    assert!(status == 200 && ["/metrics", "/healthz", "/readyz"].iter().all(|path| index.contains(path)), "{index}");
    assert_eq!(get("/secrets").0, 404);
    assert_eq!(curl(address, "/metrics", &["--request", "DELETE"]).0, 405);
    let (status, _, body) = curl(address, "/metrics", &["--head"]);
    assert!(status == 200 && !body.contains("target_info"), "{body}");
    // Before the first snapshot the page is that of the agent alone.
    assert!(get("/metrics").1.contains("target_info{service_name=\"profiler\""));
    telemetry.shutdown(Duration::ZERO);
    assert!(TcpStream::connect(address).is_err(), "it serves after its end");
}

#[test]
fn a_loop_that_hangs_fails_its_probes() {
    let (telemetry, address) = start(TelemetryOptions { stall_after: Duration::from_millis(20), ..listening() });
    telemetry.health().ready();
    std::thread::sleep(Duration::from_millis(50));
    for path in ["/healthz", "/readyz"] {
        let answer = exchange(address, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.0 503") && answer.contains("has not gone on for"), "{answer}");
    }
}

fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A server that refuses closes with unread bytes, which resets the connection after its answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn an_address_in_use_is_said_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Telemetry::start(TelemetryOptions { listen: Some(address), ..TelemetryOptions::default() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("another process has that address"), "{error}");
    assert!(error.contains("telemetry.listen"), "{error}");
}

#[test]
fn slow_clients_keep_nobody_out() {
    let (_telemetry, address) = start(listening());
    // Two hundred that never finish their requests, and some that never read.
    let mut slow: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(if number % 2 == 0 { b"GET /met" } else { b"GET /metrics HTTP/1.1\r\nX: " }).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        let answer = exchange(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    }
    // All of them are closed in the end, whether their places were needed or not.
    for stream in &mut slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
}

#[test]
fn no_number_of_other_connections_takes_a_probes_place() {
    let (_telemetry, address) = start(listening());
    // Two that have begun to ask: of one it is known what for, of the other not yet.
    let mut probes: Vec<TcpStream> = [&b"GET /healthz HTTP/1.1\r\n"[..], b"GET /heal"]
        .into_iter()
        .map(|head| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(head).unwrap();
            stream
        })
        .collect();
    // Many times as many as there is room for; each is answered, so that all have been taken in.
    let pages: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    let answer = exchange(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for (stream, rest) in probes.iter_mut().zip([&b"Host: x\r\n\r\n"[..], b"thz HTTP/1.1\r\nHost: x\r\n\r\n"]) {
        stream.write_all(rest).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    }
    drop(pages);
}

#[test]
fn requests_that_are_none_are_refused() {
    let (_telemetry, address) = start(listening());
    let huge = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Huge: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    for request in
        [huge.as_bytes(), many.as_bytes(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0\0\0\r\n\r\n"]
    {
        let answer = exchange(address, request);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
}

/// A receiver of tonic's that hands on what it gets; refuses with `partial` if there is one.
struct Receiver {
    requests: mpsc::Sender<(ExportMetricsServiceRequest, Option<String>)>,
    partial: Option<ExportMetricsPartialSuccess>,
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let header = request.metadata().get("x-tenant").map(|value| value.to_str().unwrap().to_owned());
        let _ = self.requests.send((request.into_inner(), header));
        Ok(Response::new(ExportMetricsServiceResponse { partial_success: self.partial.clone() }))
    }
}

/// A running receiver, stopped when dropped.
struct Running {
    address: SocketAddr,
    requests: mpsc::Receiver<(ExportMetricsServiceRequest, Option<String>)>,
    _runtime: tokio::runtime::Runtime,
}

fn receiver_at(address: &str, partial: Option<ExportMetricsPartialSuccess>) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (sender, requests) = mpsc::channel();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
    let address = listener.local_addr().unwrap();
    let service = MetricsServiceServer::new(Receiver { requests: sender, partial })
        .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    Running { address, requests, _runtime: runtime }
}

fn pushing(endpoint: String, protocol: Protocol, compression: Compression) -> TelemetryOptions {
    let receiver = ExporterOptions {
        endpoint,
        protocol,
        compression,
        headers: vec![("X-Tenant".to_owned(), "seven".into())],
        ..PushOptions::default().receiver
    };
    TelemetryOptions { otlp: Some(PushOptions { receiver, interval: Duration::from_secs(1) }), ..listening() }
}

fn metric<'a>(request: &'a ExportMetricsServiceRequest, name: &str) -> &'a Metric {
    let all = &request.resource_metrics[0].scope_metrics[0].metrics;
    let mut found = all.iter().filter(|metric| metric.name == name);
    let first = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "{name} twice");
    first
}

#[test]
fn a_grpc_receiver_gets_cumulative_metrics() {
    let receiver = receiver_at("127.0.0.1:0", None);
    let endpoint = format!("http://{}", receiver.address);
    let (telemetry, _) = start(pushing(endpoint, Protocol::Grpc, Compression::Gzip));
    let mut now = state();
    telemetry.publish(metrics::of(&now));
    let (first, tenant) = receiver.requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(tenant.as_deref(), Some("seven"));
    now.samples.entry("cpu-clock".to_owned()).and_modify(|samples| *samples += 5);
    telemetry.publish(metrics::of(&now));
    // Requests that were under way may still have the first snapshot.
    let deadline = Instant::now() + PATIENCE;
    let second = loop {
        let (request, _) = receiver.requests.recv_timeout(PATIENCE).unwrap();
        let Some(Data::Sum(samples)) = &metric(&request, "profiler.samples").data else { panic!("no sum") };
        if samples.data_points[0].value == Some(Value::AsInt(1_000_005)) {
            break request;
        }
        assert!(Instant::now() < deadline);
    };

    let resource: HashMap<String, String> = first.resource_metrics[0]
        .resource
        .as_ref()
        .unwrap()
        .attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), format!("{:?}", attribute.value)))
        .collect();
    for key in ["service.name", "service.version", "service.instance.id", "host.name", "process.pid"] {
        assert!(resource.contains_key(key), "{key} in {resource:?}");
    }
    assert!(resource["service.name"].contains("\"profiler\""));

    let points = |request: &ExportMetricsServiceRequest, name: &str| match &metric(request, name).data {
        Some(Data::Sum(sum)) => {
            assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
            (sum.is_monotonic, sum.data_points.clone())
        }
        other => panic!("{name}: {other:?}"),
    };
    let (monotonic, before) = points(&first, "profiler.samples");
    let (_, after) = points(&second, "profiler.samples");
    assert!(monotonic);
    assert_eq!(before[0].start_time_unix_nano, after[0].start_time_unix_nano);
    assert!(before[0].start_time_unix_nano < before[0].time_unix_nano);
    assert!(before[0].time_unix_nano < after[0].time_unix_nano);
    assert_eq!(before[0].value, Some(Value::AsInt(1_000_000)));

    let (monotonic, sizes) = points(&first, "profiler.cache.size");
    assert!(!monotonic && sizes.len() == 2 && metric(&first, "profiler.cache.size").unit == "By");
    let (_, cpu) = points(&first, "profiler.cpu.time");
    assert_eq!(
        cpu.iter().map(|point| point.value.unwrap()).collect::<Vec<_>>(),
        [1.25, 0.5, 2.125].map(Value::AsDouble)
    );
    let Some(Data::Gauge(host)) = &metric(&first, "host.cpu").data else { panic!("host.cpu is no gauge") };
    assert_eq!(
        (host.data_points[0].value, host.data_points[0].start_time_unix_nano),
        (Some(Value::AsDouble(0.875)), 0)
    );
    let Some(Data::Histogram(durations)) = &metric(&first, "profiler.export.duration").data else {
        panic!("no histogram")
    };
    let point = &durations.data_points[0];
    assert_eq!(durations.aggregation_temporality(), AggregationTemporality::Cumulative);
    assert_eq!((point.count, point.bucket_counts.iter().sum::<u64>()), (5, 5));
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.explicit_bounds, SECONDS);
}

#[test]
fn the_last_snapshot_is_sent_at_the_end() {
    let receiver = receiver_at("127.0.0.1:0", None);
    let mut options = pushing(format!("http://{}", receiver.address), Protocol::Grpc, Compression::None);
    if let Some(otlp) = &mut options.otlp {
        otlp.interval = Duration::from_secs(3600);
    }
    let (telemetry, _) = start(options);
    telemetry.publish(metrics::of(&state()));
    telemetry.shutdown(PATIENCE);
    let (request, _) = receiver.requests.recv_timeout(PATIENCE).unwrap();
    metric(&request, "profiler.samples");
}

#[test]
fn a_receiver_that_is_down_is_no_error_and_is_found_when_it_comes() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (telemetry, page) = start(pushing(format!("http://{address}"), Protocol::Grpc, Compression::Gzip));
    let outcome = |outcome: &str| {
        // The counters are of the time of the snapshot.
        telemetry.publish(metrics::of(&state()));
        let text = exchange(page, b"GET /metrics HTTP/1.0\r\n\r\n");
        let name = format!("profiler_telemetry_exports_total{{outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{text}"));
        line.parse::<u64>().unwrap()
    };
    let wait = |wanted: &str| {
        let deadline = Instant::now() + PATIENCE;
        while outcome(wanted) == 0 {
            assert!(Instant::now() < deadline, "no {wanted}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    assert_eq!(outcome("delivered"), 0);
    wait("failed");
    let refused = ExportMetricsPartialSuccess { rejected_data_points: 3, error_message: "too many".to_owned() };
    let receiver = receiver_at(&address.to_string(), Some(refused));
    wait("delivered");
    metric(&receiver.requests.recv_timeout(PATIENCE).unwrap().0, "profiler.telemetry.exports");
}

#[test]
fn an_http_receiver_gets_protobuf() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/otlp", listener.local_addr().unwrap());
    let (telemetry, _) = start(pushing(endpoint, Protocol::HttpProtobuf, Compression::None));
    telemetry.publish(metrics::of(&state()));
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let (head, mut body) = loop {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "the request broke off");
        bytes.extend_from_slice(&buffer[..length]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break (String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase(), bytes[end + 4..].to_vec());
        }
    };
    assert!(head.starts_with("post /otlp/v1/metrics http/1.1\r\n"), "{head}");
    assert!(
        head.contains("\r\ncontent-type: application/x-protobuf") && head.contains("\r\nx-tenant: seven"),
        "{head}"
    );
    let length: usize = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    while body.len() < length {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the body broke off");
        body.extend_from_slice(&buffer[..read]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").unwrap();
    let request = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
    let Some(Data::Sum(samples)) = &metric(&request, "profiler.samples").data else { panic!("no sum") };
    assert_eq!(samples.data_points[0].value, Some(Value::AsInt(1_000_000)));
}

/// Logs in a process of its own, since logging is set up once: the test below starts this one.
#[test]
fn log_in_a_child() {
    let Ok(format) = std::env::var("PROFILER_TEST_LOG") else { return };
    let format =
        if format == "json" { profiler::telemetry::log::Format::Json } else { profiler::telemetry::log::Format::Text };
    let log = profiler::telemetry::log::init("info", format).unwrap();
    tracing::debug!("debug before");
    tracing::info!(number = 7, text = NASTY, "info");
    for _ in 0..5 {
        profiler::once_a_minute!(warn, "key", "repeated");
    }
    assert!(log.set_level("loud").is_err());
    log.set_level("debug").unwrap();
    tracing::debug!("debug after");
}

fn logged(format: &str, rust_log: &str) -> Vec<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "telemetry::log_in_a_child", "--nocapture"])
        .env("PROFILER_TEST_LOG", format)
        .env("RUST_LOG", rust_log)
        .env_remove("JOURNAL_STREAM")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn logs_as_text_and_as_json() {
    let lines = logged("json", "");
    let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["info", "repeated", "debug after"]);
    assert_eq!((lines[0]["number"].as_u64(), lines[0]["text"].as_str()), (Some(7), Some(NASTY)));
    assert_eq!((lines[0]["level"].as_str(), lines[1]["held_back"].as_u64()), (Some("INFO"), Some(0)));
    assert!(lines[0]["timestamp"].as_str().unwrap().ends_with('Z'));

    let lines = logged("text", "");
    assert!(lines.len() == 3 && lines[0].contains(" INFO ") && lines[0].contains("number=7"), "{lines:?}");
    // RUST_LOG goes before both levels.
    let lines = logged("text", "warn");
    assert!(lines.len() == 1 && lines[0].contains("repeated"), "{lines:?}");
}

/// What the kernel says of a process's memory: resident without maps of BPF, and all maps of BPF that it holds, bytes. Another way
/// than the agent's, which looks at `statm` and `maps`.
fn memory_by_smaps(pid: u32) -> f64 {
    let text = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let number = |line: &str| line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    let (mut resident, mut is_bpf) = (0.0, false);
    for line in text("smaps").lines() {
        if line.split(' ').next().is_some_and(|word| word.contains('-')) {
            is_bpf = line.ends_with("anon_inode:bpf-map");
        } else if line.starts_with("Rss:") && !is_bpf {
            resident += number(line) * 1024.0;
        }
    }
    let mut maps = HashMap::new();
    for fd in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let info = text(&format!("fdinfo/{}", fd.file_name().to_string_lossy()));
        let of = |key: &str| info.lines().find(|line| line.starts_with(key)).map(number);
        if let (Some(id), Some(bytes)) = (of("map_id:"), of("memlock:")) {
            maps.insert(id.to_bits(), bytes);
        }
    }
    assert!(maps.len() > 5, "{pid} holds {} maps", maps.len());
    resident + maps.values().sum::<f64>()
}

/// Bytes of a process that are its own and not those of files, by its `smaps_rollup`; 0 if it has ended.
fn own_by_smaps(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// Seconds that the BPF programs of a process ran.
fn run_time(pid: u32) -> f64 {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let files = folder.map(|fd| std::fs::read_to_string(fd.path()).unwrap_or_default());
    let times = files.filter_map(|file| {
        let value = |key: &str| file.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).map(str::to_owned);
        Some((value("prog_id:")?, value("run_time_ns:")?.parse::<f64>().ok()?))
    });
    // A program may be open twice.
    times.collect::<HashMap<_, _>>().values().sum::<f64>() / 1e9
}

#[test]
fn root_the_agent_tells_what_it_costs() {
    const TEST: &str = "root_the_agent_tells_what_it_costs";
    if !have_root(TEST) {
        return;
    }
    let _one = one_at_a_time();
    // From the first run of its programs on, so that nothing is estimated.
    let _counting = profiler_bpf::RunTime::count().unwrap();
    let mut agent = Agent::start(&Configuration::new(99, &[], String::new())).unwrap();
    let pid = agent.pid();
    let bpf = [("cpu_mode", "bpf")];
    let cpu = "profiler_cpu_time_seconds_total";
    agent
        .wait("a second look", PATIENCE, |metrics| metrics.sum(cpu, &bpf) > 0.0 && metrics.delivered("record") > 0)
        .unwrap();
    assert_eq!(agent.get("/healthz").unwrap().0, 200);
    assert_eq!(agent.get("/readyz").unwrap().0, 200);

    // Samples are counted a moment after the programs' runs: some are estimated on top, which weigh less the longer it runs.
    let ran = run_time(pid);
    let is_right = |told: f64| told >= ran && told <= run_time(pid) * 1.1;
    let metrics = agent.wait("what the kernel counted", PATIENCE, |metrics| is_right(metrics.sum(cpu, &bpf))).unwrap();

    // What is told is some seconds old, and an agent that has just begun grows.
    let of_children = || children::of(pid).into_iter().map(own_by_smaps).sum::<f64>();
    let is_right = |told: f64| (told / (memory_by_smaps(pid) + of_children()) - 1.0).abs() < 0.25;
    agent.wait("memory as of smaps", PATIENCE, |now| is_right(now.sum("profiler_memory_usage_bytes", &[]))).unwrap();

    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
    let told = metrics.sum("profiler_file_descriptor_count", &[]);
    assert!((told - descriptors).abs() <= descriptors * 0.25, "{told} descriptors told, there are {descriptors}");

    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let used = (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0;
    let own = |metrics: &profiler_integration::agent::Metrics| {
        metrics.sum(cpu, &[("cpu_mode", "user")]) + metrics.sum(cpu, &[("cpu_mode", "kernel")])
    };
    let metrics = agent.wait("its own CPU time", PATIENCE, |metrics| own(metrics) >= used).unwrap();
    assert!(own(&metrics) > 0.0);
    let host = metrics.sum("host_cpu_ratio", &[]);
    assert!((0.0..=1.0).contains(&host), "{host}");
    if let Some(python) = python(TEST) {
        let (_, page) = agent.get("/metrics").unwrap();
        assert!(parsed(python, &page, false).0.len() > 40, "{page}");
    }
}

#[test]
fn root_the_agent_tells_systemd() {
    if !have_root("root_the_agent_tells_systemd") {
        return;
    }
    let _one = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = format!("NOTIFY_SOCKET={}", path.display());
    let wrapper = ["env", socket.as_str(), "WATCHDOG_USEC=2000000"];
    let agent = Home::new().unwrap().start(&Configuration::new(99, &["nobody"], String::new()), &wrapper).unwrap();
    let wait = |wanted: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut buffer = [0; 4096];
            let length = systemd.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.starts_with(wanted) {
                return message;
            }
            assert!(Instant::now() < deadline, "no {wanted}");
        }
    };
    wait("READY=1");
    wait("STATUS=Sampling");
    wait("WATCHDOG=1");
    wait("WATCHDOG=1");
    agent.signal(Signal::HUP);
    let reloading = wait("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    wait("READY=1");
    agent.signal(Signal::TERM);
    wait("STOPPING=1");
}
