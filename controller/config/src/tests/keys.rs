//! Every key, set to something else than its default.

use std::time::Duration;

use profiler_limits::Limits;
use profiler_ottl::HashKey;
use profiler_receiver::{Compression, Protocol, Secret, TlsOptions};
use profiler_rules::Aggregate;
use profiler_targets::{Rule, TargetRules};

use super::super::{
    Config, Connection, DetectedSeries, Detection, Endpoint, ErrorMode, Exporter, ExporterKind, FileFormat,
    FilesExporter, Jitter, Kubernetes, KubernetesSource, Level, Log, LogFormat, LogLevel, Opamp, OtlpExporter,
    Processor, ProcessorKind, Resource, Retry, RuleGroup, Spool, Symbols, Telemetry, TelemetryOtlp,
};
use super::file;

const EVERYTHING: &str = include_str!("everything.yaml");

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn pairs<T>(items: Vec<(&str, T)>) -> std::collections::BTreeMap<String, T> {
    items.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn endpoint(url: &str, as_is: bool) -> Endpoint {
    let endpoint = Endpoint::parse(url).expect("right");
    endpoint.resolved(Protocol::HttpProtobuf, false, as_is).expect("right")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tls() -> TlsOptions {
    TlsOptions {
        insecure_skip_verify: true,
        ca_file: Some("/tls/ca.pem".into()),
        cert_file: Some("/tls/cert.pem".into()),
        key_file: Some("/tls/key.pem".into()),
        server_name: Some("collector".to_owned()),
    }
}

fn group(
    place: &str,
    context: Level,
    error_mode: ErrorMode,
    (conditions, statements): (&[&str], &[&str]),
) -> RuleGroup {
    let (conditions, statements) = (texts(conditions), texts(statements));
    let key = Some(HashKey::new("0123456789abcdef").expect("long enough"));
    RuleGroup { place: place.to_owned(), context: Some(context), error_mode, conditions, statements, key }
}

fn processors() -> Vec<Processor> {
    let idle =
        [r#"attributes["service.name"] == "idle""#, r#"IsMatch(attributes["process.executable.name"], "^kworker")"#];
    let filter = vec![
        group("profile_conditions[0]", Level::Resource, ErrorMode::Silent, (&idle, &[])),
        group(
            "sample_conditions[0]",
            Level::Sample,
            ErrorMode::Ignore,
            (&[r#"attributes["thread.name"] == "idle""#], &[]),
        ),
    ];
    let transform = vec![group(
        "profile_statements[0]",
        Level::Resource,
        ErrorMode::Propagate,
        (&[r#"attributes["team"] == "web""#], &[r#"delete_key(attributes, "process.command_args")"#]),
    )];
    vec![
        Processor { name: "filter/idle".to_owned(), kind: ProcessorKind::Filter(filter) },
        Processor { name: "transform/redact".to_owned(), kind: ProcessorKind::Transform(transform) },
        Processor {
            name: "aggregate/all".to_owned(),
            kind: ProcessorKind::Aggregate(Aggregate { drop_timestamps: true, other_below: 5_000 }),
        },
    ]
}

fn everything() -> Config {
    let rule = Rule {
        pids: vec![1, 2],
        cgroups: texts(&["/system.slice/*"]),
        cgroup_ids: vec![4242],
        containers: texts(&["0123456789ab"]),
        comms: texts(&["nginx"]),
        executables: texts(&["/usr/bin/*"]),
    };
    let not_ssh = Rule { comms: texts(&["sshd"]), ..Rule::default() };
    let otlp = OtlpExporter {
        connection: Connection {
            is_chosen: true,
            endpoint: endpoint("https://otlp.example.com/p", true),
            protocol: Protocol::HttpProtobuf,
            compression: Compression::Zstd,
            headers: pairs(vec![("x-tenant", Secret::new("42"))]),
            headers_file: Some("/run/headers".into()),
            timeout: seconds(3),
            tls: tls(),
        },
        retry: Retry { initial_interval: seconds(1), max_interval: seconds(10), max_elapsed_time: Duration::ZERO },
        queue_size: 8 << 20,
        max_request_size: 1 << 20,
        spool: Some(Spool { directory: "/var/lib/profiler/spool".into(), max_size: 1 << 30 }),
    };
    let files = FilesExporter {
        directory: "/var/lib/profiler/files".into(),
        format: FileFormat::Otlp,
        max_files: 10,
        max_size: 64 << 20,
    };
    Config {
        rate: 49,
        events: ["cpu-clock", "page-faults@100", "tracepoint:sched:sched_switch@9 Hz"].map(str::to_owned).into(),
        window: seconds(60),
        jitter: Jitter::Time(seconds(1)),
        symbols: Symbols::Lines,
        labels: pairs(vec![("team", "web".to_owned()), ("version", "1.10".to_owned())]),
        targets: TargetRules { include: vec![rule], exclude: vec![not_ssh], min_age: seconds(5) },
        resource: Resource {
            environment_variables: texts(&["OTEL_SERVICE_NAME", "DD_SERVICE"]),
            attributes: pairs(vec![("cloud.region", "eu-west-1".to_owned())]),
            kubernetes: Kubernetes {
                source: KubernetesSource::Kubelet,
                kubelet_url: Some(Endpoint::parse("https://10.0.0.1:10250").expect("right")),
                api_url: Some(Endpoint::parse("https://kubernetes.default.svc").expect("right")),
                node_name: Some("node-1".to_owned()),
                ca_file: Some("/k8s/ca.crt".into()),
                token_file: Some("/k8s/token".into()),
                insecure_skip_verify: true,
                poll_interval: seconds(30),
                min_poll_interval: seconds(2),
                labels: texts(&["app"]),
            },
        },
        processors: processors(),
        exporters: vec![
            Exporter { name: "backend".to_owned(), kind: ExporterKind::Otlp(Box::new(otlp)) },
            Exporter { name: "local".to_owned(), kind: ExporterKind::Files(files) },
        ],
        telemetry: Telemetry {
            service_name: "my-profiler".to_owned(),
            attributes: pairs(vec![("service.version", "7".to_owned())]),
            listen: Some(([0, 0, 0, 0], 9000).into()),
            otlp: Some(TelemetryOtlp {
                connection: Connection {
                    is_chosen: true,
                    endpoint: endpoint("http://metrics:4318/m", true),
                    protocol: Protocol::HttpProtobuf,
                    compression: Compression::None,
                    headers: pairs(vec![("x-tenant", Secret::new("43"))]),
                    headers_file: Some("/run/metrics-headers".into()),
                    timeout: seconds(4),
                    tls: tls(),
                },
                interval: seconds(15),
            }),
        },
        opamp: Some(Opamp {
            endpoint: "wss://control.example.com:4320/v1/opamp".to_owned(),
            headers: pairs(vec![("authorization", Secret::new("secret"))]),
            tls: tls(),
            directory: "/var/lib/profiler/managed".into(),
            accept_config: true,
            soak: seconds(120),
        }),
        log: Log { level: LogLevel::Debug, format: LogFormat::Json },
        detection: Detection {
            detectors: texts(&["cusum,threshold=20", "ewma"]),
            series: vec![DetectedSeries::Cgroups, DetectedSeries::Processes],
            pressure_detectors: texts(&["robust-z"]),
            memory: 1 << 20,
            state_file: Some("/var/lib/profiler/detection.json".into()),
        },
        limits: Limits { memory_bytes: None, cpu_fraction: Some(0.005) },
        remote_allow: vec!["labels".to_owned()],
        kill_switch: "/run/stop".into(),
    }
}

#[test]
fn every_key_is_read() {
    assert_eq!(file(EVERYTHING).config, everything());
}

/// A key that this file forgot would be shown as a default or as not set.
#[test]
fn every_key_is_in_the_file_that_has_every_key() {
    let shown = file(EVERYTHING).describe();
    let missing: Vec<&str> = shown
        .lines()
        .filter(|line| line.contains("# default") || line.ends_with("not set"))
        // Not set since profiles_endpoint and metrics_endpoint are used, or since the value is that of the default.
        .filter(|line| !["endpoint: ", "insecure: false", "exclude"].iter().any(|known| line.contains(known)))
        .filter(|line| {
            !["pids: []", "cgroups: []", "cgroup_ids: []", "containers: []", "executables: []"]
                .iter()
                .any(|known| line.contains(known))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn what_is_shown_means_the_same() {
    // But for keys and headers, which are hidden.
    let text = file(EVERYTHING)
        .describe()
        .replacen("\"[hidden]\"", "0123456789abcdef", 2)
        .replacen("\"[hidden]\"", "42", 1)
        .replacen("\"[hidden]\"", "43", 1)
        .replacen("\"[hidden]\"", "secret", 1);
    assert_eq!(file(&text).config, everything(), "{text}");
    let defaults = file("").describe();
    let mut expected = file("").config;
    // Whoever writes the default receiver down has chosen it.
    let ExporterKind::Otlp(otlp) = &mut expected.exporters[0].kind else { panic!("the default exports OTLP") };
    otlp.connection.is_chosen = true;
    assert_eq!(file(&defaults).config, expected, "{defaults}");
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let config = file("").config;
    assert_eq!((config.rate, config.window), (99, seconds(10)));
    assert_eq!(config.jitter.of(config.window), seconds(1));
    assert_eq!(config.limits, Limits { memory_bytes: Some(128 << 20), cpu_fraction: Some(0.02) });
    assert_eq!(config.telemetry.listen, Some(([127, 0, 0, 1], 9464).into()));
    assert_eq!(config.kill_switch.to_str(), Some("/run/profiler/disabled"));
    assert_eq!(config.resource.environment_variables, ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"]);
}
