//! Flags over the environment over the file over defaults.

use profiler_receiver::Protocol;

use super::super::{Config, ExporterKind, Flags, KubernetesSource, OtlpExporter, load_with};
use super::{file, flags, loaded};

fn otlp(config: &Config, index: usize) -> &OtlpExporter {
    match &config.exporters[index].kind {
        ExporterKind::Otlp(otlp) => otlp,
        ExporterKind::Files(files) => panic!("{files:?}"),
    }
}

/// The value of `rate` with the layers that are there, and where it came from.
fn rate(flag: bool, variable: bool, in_file: bool) -> (u64, String) {
    let flags = if flag { flags(&[("--rate", "rate", "4")]) } else { Flags::default() };
    let variables: &[(&str, &str)] = if variable { &[("PROFILER_RATE", "3")] } else { &[] };
    let text = if in_file { "\n rate: 2" } else { "" };
    let loaded = loaded(&flags, variables, text).expect("right");
    (loaded.config.rate, loaded.origin("rate").expect("known").to_string())
}

#[test]
fn each_layer_goes_before_those_below() {
    for in_file in [false, true] {
        for variable in [false, true] {
            assert_eq!(rate(true, variable, in_file), (4, "flag --rate".to_owned()));
        }
        assert_eq!(rate(false, true, in_file), (3, "environment PROFILER_RATE".to_owned()));
    }
    assert_eq!(rate(false, false, true), (2, "c.yaml:2:8".to_owned()));
    assert_eq!(rate(false, false, false), (99, "default".to_owned()));
}

#[test]
fn without_anything_profiles_go_to_localhost_by_grpc() {
    let loaded = load_with(&Flags::default(), &|_| None).expect("right");
    assert_eq!(loaded.config.exporters.len(), 1);
    let connection = &otlp(&loaded.config, 0).connection;
    assert_eq!((connection.endpoint.url(), connection.protocol), ("http://localhost:4317", Protocol::Grpc));
    assert_eq!(loaded.origin("exporters[0].otlp.endpoint").expect("known").to_string(), "default");
    assert!(loaded.files.is_empty());
}

#[test]
fn http_has_another_port_by_default() {
    let mut flags = Flags::default();
    flags.otlp("--protocol", "protocol", "http/protobuf");
    let loaded = load_with(&flags, &|_| None).expect("right");
    let endpoint = &otlp(&loaded.config, 0).connection.endpoint;
    assert_eq!(endpoint.http_url("v1development/profiles"), "http://localhost:4318/v1development/profiles");
    assert!(loaded.describe().contains("endpoint: http://localhost:4318  # default"));
}

#[test]
fn the_variables_of_opentelemetry_reach_the_exporter() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318/base/"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "X-Tenant=a%20b,authorization=Bearer%20t"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/tls/ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/tls/cert.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/tls/key.pem"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
    ];
    let loaded = loaded(&Flags::default(), &variables, "").expect("right");
    let connection = &otlp(&loaded.config, 0).connection;
    let url = connection.endpoint.http_url("v1development/profiles");
    assert_eq!(url, "https://collector:4318/base/v1development/profiles");
    assert_eq!(connection.timeout.as_millis(), 2500);
    assert_eq!(connection.headers["x-tenant"].expose(), "a b");
    assert_eq!(connection.headers["authorization"].expose(), "Bearer t");
    assert_eq!(connection.tls.ca_file.as_deref(), Some("/tls/ca.pem".as_ref()));
    assert_eq!(connection.tls.cert_file.as_deref(), Some("/tls/cert.pem".as_ref()));
    assert_eq!(connection.tls.key_file.as_deref(), Some("/tls/key.pem".as_ref()));
    // The scheme counts, the variable may be meant for other programs.
    assert!(connection.endpoint.is_tls());
}

#[test]
fn the_url_of_the_signal_is_used_as_it_is() {
    let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4318");
    let signal = ("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", "http://profiles:4318/x?tenant=1");
    let protocol = ("OTEL_EXPORTER_OTLP_PROFILES_PROTOCOL", "http/protobuf");
    let url = |flags: &Flags, variables: &[(&str, &str)], text: &str| {
        let loaded = loaded(flags, variables, text).unwrap_or_else(|errors| panic!("{errors}"));
        otlp(&loaded.config, 0).connection.endpoint.http_url("v1development/profiles")
    };
    assert_eq!(url(&Flags::default(), &[general, signal, protocol], ""), "http://profiles:4318/x?tenant=1");
    // A nearer layer's endpoint goes before a farther layer's URL of the signal.
    let text = "exporters: [{otlp: {profiles_endpoint: 'http://file:4318/y'}}]";
    assert_eq!(url(&Flags::default(), &[protocol], text), "http://file:4318/y");
    assert_eq!(url(&Flags::default(), &[general, protocol], text), "http://general:4318/v1development/profiles");
    let mut flags = Flags::default();
    flags.otlp("--endpoint", "endpoint", "http://flag:4318");
    assert_eq!(url(&flags, &[signal, protocol], text), "http://flag:4318/v1development/profiles");
}

#[test]
fn grpc_without_a_scheme_is_tls_unless_told_otherwise() {
    let url = |variables: &[(&str, &str)], text: &str| {
        let loaded = loaded(&Flags::default(), variables, text).unwrap_or_else(|errors| panic!("{errors}"));
        otlp(&loaded.config, 0).connection.endpoint.url().to_owned()
    };
    let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
    assert_eq!(url(&[bare], ""), "https://collector:4317");
    assert_eq!(url(&[bare, ("OTEL_EXPORTER_OTLP_INSECURE", "true")], ""), "http://collector:4317");
    assert_eq!(url(&[], "exporters: [{otlp: {endpoint: 'c:4317', tls: {insecure: true}}}]"), "http://c:4317");
}

#[test]
fn variables_and_flags_mean_the_exporter_named_otlp_else_the_first() {
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4317")];
    let with = |text: &str| loaded(&Flags::default(), &endpoint, text).expect("right").config;
    let first = with("exporters: [{files: {directory: /a}}, {name: b, otlp: {}}, {name: c, otlp: {}}]");
    let first: Vec<(&str, Option<&str>)> = first
        .exporters
        .iter()
        .map(|exporter| match &exporter.kind {
            ExporterKind::Otlp(otlp) => (exporter.name.as_str(), Some(otlp.connection.endpoint.url())),
            ExporterKind::Files(_) => (exporter.name.as_str(), None),
        })
        .collect();
    let expected = [("files", None), ("b", Some("http://localhost:4317")), ("c", Some("http://localhost:4317"))];
    assert_ne!(first, expected);
    assert_eq!(first[1], ("b", Some("http://env:4317")));
    assert_eq!(first[2], expected[2]);
    let named = with("exporters: [{name: b, otlp: {}}, {otlp: {}}]");
    assert_eq!(otlp(&named, 1).connection.endpoint.url(), "http://env:4317");
    assert_eq!(otlp(&named, 0).connection.endpoint.url(), "http://localhost:4317");
}

#[test]
fn an_endpoint_from_outside_joins_exporters_of_other_kinds() {
    let text = "exporters: [{files: {directory: /a}}]";
    assert_eq!(file(text).config.exporters.len(), 1);
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4317")];
    let with = loaded(&Flags::default(), &variables, text).expect("right");
    let names: Vec<&str> = with.config.exporters.iter().map(|exporter| exporter.name.as_str()).collect();
    assert_eq!(names, ["files", "otlp"]);
    // A header alone names no receiver.
    let variables = [("OTEL_EXPORTER_OTLP_HEADERS", "a=b")];
    assert_eq!(loaded(&Flags::default(), &variables, text).expect("right").config.exporters.len(), 1);
    // Nor does a flag; and it must not be without effect.
    let mut flags = Flags::default();
    flags.otlp("--protocol", "protocol", "grpc");
    let error = loaded(&flags, &[], text).expect_err("no exporter to set").to_string();
    assert!(error.starts_with("flag --protocol: ") && error.contains("--endpoint"), "{error}");
}

#[test]
fn maps_are_merged_name_by_name() {
    let text = "labels: {a: file, b: file, c: file, d: file}\nresource: {attributes: {cloud.region: file, x: file}}";
    let variables = [
        ("PROFILER_LABELS", "b=env,c=env"),
        ("OTEL_RESOURCE_ATTRIBUTES", "cloud.region=eu,service.name=agent,service.version=7"),
    ];
    let loaded = loaded(&flags(&[("--set", "labels.c", "flag"), ("--set", "labels.e.f", "flag")]), &variables, text)
        .expect("right");
    let labels: Vec<(&str, &str)> =
        loaded.config.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("a", "file"), ("b", "env"), ("c", "flag"), ("d", "file"), ("e.f", "flag")]);
    assert_eq!(loaded.origin("labels.b").expect("known").to_string(), "environment PROFILER_LABELS");
    let attributes = &loaded.config.resource.attributes;
    assert_eq!((attributes["cloud.region"].as_str(), attributes["x"].as_str()), ("eu", "file"));
    assert!(!attributes.contains_key("service.version"));
    assert_eq!(loaded.config.telemetry.service_name, "agent");
    assert_eq!(loaded.config.telemetry.attributes["service.version"], "7");
}

#[test]
fn flags_reach_any_key_by_its_path() {
    let text = "exporters: [{name: backend, otlp: {}}, {files: {directory: /a}}]";
    let flags = flags(&[
        ("--set", "limits.memory", "64MiB"),
        ("--set", "telemetry.listen", "off"),
        ("--set", "resource.environment_variables", "A, B"),
        ("--set", "exporters.backend.otlp.retry.max_interval", "1m"),
        ("--set", "exporters.files.files.format", "otlp"),
        ("--set", "exporters.backend.otlp.spool.directory", "/s"),
    ]);
    let config = loaded(&flags, &[], text).unwrap_or_else(|errors| panic!("{errors}")).config;
    assert_eq!((config.limits.memory_bytes, config.telemetry.listen), (Some(64 << 20), None));
    assert_eq!(config.resource.environment_variables, ["A", "B"]);
    assert_eq!(otlp(&config, 0).retry.max_interval.as_secs(), 60);
    assert_eq!(otlp(&config, 0).spool.as_ref().expect("set").directory.to_str(), Some("/s"));
}

/// YAML 1.1 reads `off` as false, and Helm writes it so.
#[test]
fn false_is_off() {
    let text = "limits: {memory: false, cpu: off}\nresource: {kubernetes: {source: false}}\ntelemetry: {listen: false}";
    let config = file(text).config;
    assert_eq!((config.limits.memory_bytes, config.limits.cpu_fraction, config.telemetry.listen), (None, None, None));
    assert_eq!(config.resource.kubernetes.source, KubernetesSource::Off);
}

#[test]
fn an_exporter_that_says_no_more_is_one() {
    assert_eq!(file("exporters:\n- otlp:\n").config, file("").config);
}

#[test]
fn empty_variables_count_as_not_set() {
    let variables = [("PROFILER_RATE", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_SERVICE_NAME", "")];
    let loaded = loaded(&Flags::default(), &variables, "rate: 49").expect("right");
    assert_eq!(loaded.config.rate, 49);
    assert_eq!(loaded.config.telemetry.service_name, "profiler");
}

#[test]
fn only_what_differs_differs() {
    let before = file("rate: 49\nlabels: {a: b}");
    assert!(!before.config.diff(&file("labels: {a: b}\nrate: 49 # the same").config).any());
    let after = file("rate: 19\nlabels: {a: c}\nexporters: [{otlp: {timeout: 1s}}]");
    assert_eq!(before.config.diff(&after.config).names(), ["rate", "resource", "exporters"]);
}
