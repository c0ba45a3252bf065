//! Everything that is wrong is said at once, with its place and the right way.

use proptest::prelude::*;

use super::super::{Flags, load_with};
use super::{flags, loaded, refusal};

/// `text` is refused with all of `words`.
fn refused(text: &str, words: &[&str]) {
    let said = refusal(text);
    for word in words {
        assert!(said.contains(word), "{text}\nno {word:?} in: {said}");
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    refused("windw: 10s", &["c.yaml:1:1: there is no key \"windw\"; did you mean window?"]);
    refused("log:\n  levle: info", &["c.yaml:2:3: log: there is no key \"levle\"; did you mean level?"]);
    refused("exporters:\n- otlp: {endpiont: x}", &["c.yaml:2:10: exporters[0].otlp: ", "did you mean endpoint?"]);
    refused("targets: {include: [{pid: [1]}]}", &["targets.include[0]: ", "did you mean pids?"]);
    refused("endpoint: http://x:1", &["there is no key \"endpoint\" here; there is exporters[].otlp.endpoint"]);
    refused("sidecars: {}", &["there is no key \"sidecars\"; here may stand: rate, events, window, "]);
}

#[test]
fn wrong_units_are_refused_with_the_right_ones() {
    refused("window: 10", &["c.yaml:1:9: window: \"10\" has no unit", "perhaps 10s"]);
    refused("window: 10sec", &["perhaps 10s"]);
    refused("events: [page-fault]", &["events", "there is no event \"page-fault\"; did you mean page-faults?"]);
    refused("events: [page-faults@x]", &["\"x\" is no rate"]);
    refused("events: [nonsense]", &["c.yaml:1:10: events: there is no event \"nonsense\"; there are cpu-clock"]);
    assert!(!refusal("events: [nonsense]").contains("2 errors"));
    refused("events: []", &["0 events cannot be sampled: 1 to 8 can"]);
    refused("events: [page-faults, page-faults@1]", &["page-faults is given twice"]);
    refused("rate: 99Hz", &["rate: \"99Hz\" is no whole number from 1 to 10000 Hz; perhaps 99"]);
    refused("rate: 0", &["1 to 10000 Hz"]);
    refused("limits: {memory: 128MB}", &["limits.memory: ", "perhaps 128MiB", "or off"]);
    refused("limits: {cpu: 0.02}", &["limits.cpu: ", "0.02%"]);
    refused("window: 10ms", &["10ms is outside of 1s to 1h"]);
    refused("jitter: 2", &["perhaps 2s; or a share of the window, like 10%"]);
    refused("jitter: 6s", &["jitter: 6s is more than half of the window of 10s"]);
    refused("symbols: line", &["\"line\" is none of names, lines; did you mean lines?"]);
    refused("detection: {detectors: [cusm]}", &["detection.detectors: ", "there are cusum, ewma"]);
    refused("detection: {detectors: ['cusum,treshold=3']}", &["they are threshold"]);
    refused("detection: {series: [functoins]}", &["did you mean functions?"]);
    refused("detection: {pressure_detectors: [ewma,ewma,ewma,ewma,ewma,ewma,ewma,ewma,ewma]}", &["up to 8"]);
    refused("detection: {memory: 1KiB}", &["detection.memory: "]);
    refused("telemetry: {listen: 9464}", &["write IP:PORT, like 127.0.0.1:9464"]);
    refused("exporters: [{otlp: {tls: {insecure: yes}}}]", &["\"yes\" is neither true nor false"]);
}

#[test]
fn wrong_shapes_are_refused_with_the_right_one() {
    refused("rate: [1, 2]", &["c.yaml:1:7: rate: a list stands where one value is wanted"]);
    refused("rate:", &["rate: has no value"]);
    refused("log: info", &["log: one value stands where keys are wanted"]);
    refused("- rate: 99", &["c.yaml:1:1: a list stands where keys are wanted"]);
    refused("99", &["one value stands where keys are wanted"]);
    refused(
        "exporters: {otlp: {}}",
        &["exporters: a group of keys stands where a list is wanted: begin each item with `- `"],
    );
    refused("targets: {include: [{comms: nginx}]}", &["targets.include[0].comms: ", "write [a, b]"]);
    refused("targets: {include: [{}]}", &["targets.include[0]: names nothing"]);
    refused("labels: {'': x}", &["labels: \"\" is no name of an attribute"]);
    refused("labels: {a: {b: c}}", &["labels.a: a group of keys stands where one value is wanted"]);
}

#[test]
fn too_many_items_are_refused() {
    let many = |item: &str| item.repeat(2000);
    refused(&format!("exporters:\n{}", many("- otlp:\n")), &["c.yaml:2:3: exporters: has more than 1024 items"]);
    refused(&format!("targets: {{include: [{{pids: [{}]}}]}}", many("1, ")), &["pids: has more than 1024 items"]);
    let labels: String = (0..2000).map(|index| format!("  k{index}: v\n")).collect();
    refused(&format!("labels:\n{labels}"), &["labels: has more than 1024 items"]);
}

#[test]
fn exporters_must_make_sense() {
    refused("exporters: []", &["exporters: is empty"]);
    // Not that there is none, when what is there is wrong.
    assert_eq!(refusal("exporters: {otlp: {}}").lines().count(), 1);
    refused("exporters: [{name: a}]", &["exporters[0]: needs exactly one of otlp, files; there are 0"]);
    refused("exporters: [{otlp: {}, files: {directory: /a}}]", &["exactly one of otlp, files; there are 2"]);
    refused("exporters: [{otlp: {}}, {otlp: {}}]", &["two exporters are named \"otlp\""]);
    refused("exporters: [{name: 'a.b', otlp: {}}]", &["\"a.b\" is no name"]);
    refused("exporters: [{files: {}}]", &["c.yaml:1:21: exporters[0].files.directory: is missing; wanted: path"]);
    refused(
        "exporters: [{name: a, files: {directory: /a}}, {name: b, otlp: {spool: {directory: /a}}}]",
        &["two exporters write to /a"],
    );
    refused("exporters: [{otlp: {tls: {cert_file: /a}}}]", &["tls.key_file: is missing beside cert_file"]);
    refused("exporters: [{otlp: {headers: {grpc-timeout: 1}}}]", &["set by the protocol itself"]);
    refused("exporters: [{otlp: {queue_size: 1MiB}}]", &["queue_size: a request of max_request_size would not fit"]);
    refused(
        "exporters: [{otlp: {spool: {directory: /s, max_size: 4MiB}}}]",
        &["spool.max_size: has to hold two requests"],
    );
    refused("exporters: [{otlp: {retry: {max_interval: 1s}}}]", &["max_interval: is shorter than initial_interval"]);
}

#[test]
fn odd_endpoints_are_refused_with_a_right_one() {
    let endpoint = |text: &str| format!("exporters: [{{otlp: {{endpoint: '{text}'}}}}]");
    refused(&endpoint("grpc://c:4317"), &["\"grpc\" is no scheme for OTLP: write http://HOST:PORT"]);
    refused(&endpoint("http://c:4318/v1development/profiles"), &["has a path, and gRPC takes none"]);
    refused(&endpoint("http://c:99999"), &["ports are 1 to 65535"]);
    refused(
        "exporters: [{otlp: {endpoint: 'https://c:1', tls: {insecure: true}}}]",
        &["asks for TLS, and insecure for none"],
    );
    refused(
        "exporters: [{otlp: {endpoint: 'c:4318', protocol: http/protobuf}}]",
        &["lacks the scheme: write http://c:4318"],
    );
}

#[test]
fn everything_is_said_at_once_in_the_order_of_the_file() {
    let said = refusal("rate: x\nwindow: 10\nlabels: {'a b': c}\nfoo: 1\nexporters: [{otlp: {timeout: 1}}]\n");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "the configuration has 5 errors:");
    let places: Vec<&str> = lines[1..].iter().map(|line| line.trim().split(": ").next().unwrap_or_default()).collect();
    assert_eq!(places, ["c.yaml:1:7", "c.yaml:2:9", "c.yaml:3:17", "c.yaml:4:1", "c.yaml:5:30"], "{said}");
}

#[test]
fn wrong_flags_and_variables_are_named() {
    let said = |flags: &Flags, variables: &[(&str, &str)]| loaded(flags, variables, "").expect_err("wrong").to_string();
    assert!(said(&flags(&[("--rate", "rate", "fast")]), &[]).starts_with("flag --rate: rate: \"fast\" is no whole"));
    assert!(said(&flags(&[("--set", "limits.memroy", "1GiB")]), &[]).contains("did you mean limits.memory?"));
    assert!(said(&flags(&[("--set", "nothing.at.all", "1")]), &[]).contains("there is no key \"nothing.at.all\""));
    let none = Flags::default();
    assert!(said(&none, &[("PROFILER_WINDOW", "1")]).starts_with("environment PROFILER_WINDOW: window: "));
    assert!(
        said(&none, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")]).starts_with("environment OTEL_EXPORTER_OTLP_TIMEOUT: ")
    );
    assert!(said(&none, &[("OTEL_RESOURCE_ATTRIBUTES", "x")]).contains("member 1 has no `=`"));
    assert!(said(&none, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).contains("none of grpc, http/protobuf"));
}

#[test]
fn files_that_are_none_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |name: &str| {
        let flags = Flags::new(Some(folder.path().join(name)));
        load_with(&flags, &|_| None).expect_err("refused").to_string()
    };
    assert!(said("none.yaml").ends_with("none.yaml: there is no such file"));
    assert!(said(".").contains("cannot be read: Is a directory"));
    std::fs::write(folder.path().join("latin1"), b"# ok\nlabels: {a: \xe9}\n").expect("written");
    assert!(said("latin1").ends_with("line 2 is not UTF-8"));
    std::fs::write(folder.path().join("large"), vec![b'#'; 2 << 20]).expect("written");
    assert!(said("large").contains("larger than 1 MiB"));
    let flags = Flags::new(Some("/dev/zero".into()));
    assert!(load_with(&flags, &|_| None).expect_err("refused").to_string().contains("it is a device"));
}

/// A file that was cut off anywhere is refused, or is a configuration in itself; it is never a panic.
#[test]
fn torn_files_do_not_panic() {
    let whole = include_str!("../../../../deploy/config.example.yaml");
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        let _ = loaded(&Flags::default(), &[], &whole[..end]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Pieces of right files in any order.
    #[test]
    fn no_text_makes_it_panic(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "rate", "window", "exporters", "otlp", "files", "endpoint", "labels", "targets", "include", "pids", "spool",
                "tls", "a", ":", ": ", "- ", "[", "]", "{", "}", ", ", "\n", "\n  ", "\n    ", "10s", "4MiB", "2%", "99",
                "http://h:1", "${env:A}", "${file:/x}", "&a ", "*a", "!!str ", "'", "\"", "|", "#", "\t", "é", "\u{0}",
            ]),
            0..40,
        )
    ) {
        let _ = loaded(&Flags::default(), &[("A", "x")], &pieces.concat());
    }
}
