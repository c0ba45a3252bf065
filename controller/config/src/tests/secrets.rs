//! What is secret is shown nowhere: not in the effective configuration, not by `Debug`, not in errors.

use super::super::Flags;
use super::loaded;

const SECRET: &str = "geheim";

const VARIABLES: [(&str, &str); 4] = [
    ("TOKEN", "geheim-token"),
    ("URL", "http://collector:4318/geheim"),
    ("RATE", "geheim-rate"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "x-env=geheim-header"),
];

#[test]
fn secrets_are_not_shown_of_what_is_right() {
    let text = "
exporters:
- otlp:
    protocol: http/protobuf
    profiles_endpoint: http://collector:4318/p?key=geheim
    headers: {authorization: 'Bearer ${env:TOKEN}', x-plain: geheim-plain}
- name: other
  otlp: {endpoint: '${env:URL}', protocol: http/protobuf}
labels: {from_env: '${env:TOKEN}'}
opamp: {endpoint: 'wss://h', headers: {authorization: geheim-opamp}}
";
    let loaded = loaded(&Flags::default(), &VARIABLES, text).unwrap_or_else(|errors| panic!("{errors}"));
    let shown = loaded.describe();
    let debug = format!("{:?} {:?}", loaded.config.exporters, loaded.config.opamp);
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(!debug.contains("geheim-"), "{debug}");
    for line in [
        "authorization: \"[hidden]\"  # c.yaml:6:30",
        "x-env: \"[hidden]\"  # environment OTEL_EXPORTER_OTLP_HEADERS",
        "profiles_endpoint: \"http://collector:4318/p?[hidden]\"",
        "endpoint: \"${env:URL}\"",
        "from_env: \"${env:TOKEN}\"",
    ] {
        assert!(shown.contains(line), "no {line} in\n{shown}");
    }
    assert_eq!(loaded.config.labels["from_env"], "geheim-token");
}

#[test]
fn secrets_are_not_shown_of_what_is_wrong() {
    for text in [
        "rate: ${env:RATE}",
        "symbols: ${env:TOKEN}",
        "exporters: [{otlp: {endpoint: '${env:TOKEN}://x'}}]",
        "exporters: [{otlp: {endpoint: 'http://user:geheim@x:1'}}]",
        "exporters: [{otlp: {endpoint: 'http://x:99999/?geheim'}}]",
        "exporters: [{otlp: {headers: {a: \"geheim\\n\"}}}]",
        "exporters: [{otlp: {headers: {a: \"geheim\u{e9}\"}}}]",
        "exporters: [{otlp: {headers: {a: [geheim]}}}]",
        "exporters: [{otlp: {headers: geheim}}]",
        "exporters: [{name: '${env:TOKEN}', otlp: {}}, {name: 'geheim.', otlp: {endpoint: '${env:TOKEN} x'}}]",
        "opamp: {endpoint: 'wss://user:geheim@h'}",
        "opamp: {endpoint: 'wss://h/?geheim'}",
        "log: {level: '${env:TOKEN}', format: '${env:NONE}'}",
    ] {
        let errors = loaded(&Flags::default(), &VARIABLES, text).expect_err(text);
        let shown = format!("{errors} {errors:?}");
        // What is no secret may be shown: a name that the file itself holds.
        assert!(!shown.replace("\"geheim.\"", "").contains(SECRET), "{text}\n{shown}");
    }
}
