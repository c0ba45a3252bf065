//! The keys of the file but for `exporters` and `processors`: names, kinds, defaults and meanings.

use std::time::Duration;

use profiler_limits::Limits;
use profiler_measure::source::{Source, SourceError, event_names};
use profiler_targets::{Rule, TargetRules};

use super::errors::quoted;
use super::exporters::{self, METRICS};
use super::kind::{self, Items, Kind, OFF};
use super::model::{
    Config, DetectedSeries, Detection, Jitter, Kubernetes, KubernetesSource, Log, LogFormat, LogLevel, Opamp, Percent,
    Resource, Symbols, Telemetry, TelemetryOtlp,
};
use super::nearest::nearest;
use super::processors;
use super::reader::Reader;
use super::units;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const MIB: u64 = 1024 * 1024;

/// Reads everything.
pub(super) fn read(reader: &mut Reader<'_>) -> Config {
    let rate = reader.value(
        "rate",
        kind::whole(1_u64, 10_000, "Hz").at_most(),
        99,
        "Samples a second on each CPU, of CPU time that is used. A rate like 100 beats in time with timers: take 99",
    );
    let events = events(reader);
    let window = reader.value(
        "window",
        kind::time(SECOND, HOUR).if_allowed(),
        10 * SECOND,
        "How long one profile is. Longer windows cost less on the wire",
    );
    let (jitter, jitter_origin) = reader.located(
        "jitter",
        kind::jitter().if_allowed(),
        Jitter::Share(Percent(10.0)),
        "By how much the first window may be shortened, at random: hosts that start together do not send together",
    );
    if jitter.of(window) > window / 2 {
        let message = format!("{jitter} is more than half of the window of {}", units::show_time(&window));
        reader.problem(jitter_origin, "jitter", message);
    }
    let symbols = reader.value(
        "symbols",
        kind::choice().at_most(),
        Symbols::Names,
        "`names`: functions, from symbol tables; `lines`: also files, lines and inlined functions, from DWARF, for 50 to \
         100 times the memory",
    );
    let labels = reader.map(
        "labels",
        attribute_name,
        kind::text("text").if_allowed(),
        "Added to the Resource of every process, whatever it says itself",
    );
    Config {
        rate,
        events,
        window,
        jitter,
        symbols,
        labels,
        targets: reader.section("targets", "Which processes are sampled; all by default", targets),
        resource: reader.section("resource", "What the Resource of a process says", resource),
        processors: processors::read(reader),
        exporters: exporters::read(reader),
        telemetry: reader.section("telemetry", "What the agent tells about itself", telemetry),
        log: reader.section("log", "What is logged, to stderr", log),
        detection: reader.section(
            "detection",
            "What changed is told: in the log, in the metrics and at `/status` (docs/detectors.md)",
            detection,
        ),
        opamp: reader.optional_section(
            "opamp",
            "The server that manages this agent, by OpAMP. Without `endpoint` there is none",
            opamp,
        ),
        remote_allow: reader.section("remote", "What a configuration from elsewhere may set beyond narrowing this one", remote),
        limits: reader.section(
            "limits",
            "What the agent may use. Over it the rate falls first, then caches are shed, and the log and metrics say so",
            limits,
        ),
        kill_switch: reader.value(
            "kill_switch",
            kind::path().local(),
            "/run/profiler/disabled".into(),
            "While this file exists nothing is sampled",
        ),
    }
}

/// Events that can be sampled at once.
const MAX_EVENTS: usize = 8;

fn events(reader: &mut Reader<'_>) -> Vec<String> {
    let event = kind::text("EVENT, EVENT@N or EVENT@N Hz").checked(|text: &String| {
        Source::parse(text, 1).map(drop).map_err(|error| match &error {
            SourceError::Unknown(name) => match nearest(name, event_names()) {
                Some(near) => format!("{error}; did you mean {near}?"),
                None => format!("{error}; there are {}", event_names().collect::<Vec<_>>().join(", ")),
            },
            _ => error.to_string(),
        })
    });
    let before = reader.problems();
    let events = reader.list(
        "events",
        event.local(),
        vec!["cpu-clock".to_owned()],
        "What is sampled: `cpu-clock`, `task-clock`, `page-faults`, `context-switches`, ... (`profiler record -e help`), \
         `tracepoint:GROUP:NAME`. `@N` is every N events, `@N Hz` N times a second; without either as `rate` says",
    );
    let named: Vec<_> = events.iter().filter_map(|text| Source::parse(text, 1).ok()).collect();
    let twice = |(at, source): (usize, &Source)| named.iter().take(at).any(|other| other.event == source.event);
    if let Some((_, source)) = named.iter().enumerate().find(|&found| twice(found)) {
        reader.problem(reader.origin(), "events", format!("{} is given twice: an event has one rate", source.event));
    }
    // One that is none is told already.
    if events.len() > MAX_EVENTS || events.is_empty() && reader.problems() == before {
        reader.problem(
            reader.origin(),
            "events",
            format!("{} events cannot be sampled: 1 to {MAX_EVENTS} can", events.len()),
        );
    }
    events
}

fn targets(reader: &mut Reader<'_>) -> TargetRules {
    let nameless = |_: &super::yaml::Node| None;
    let include = reader.sections(
        "include",
        Items::Local,
        "Processes that any one of these rules matches are sampled; without rules all are",
        nameless,
        rule,
    );
    let exclude = reader.sections(
        "exclude",
        Items::Add,
        "Processes that any one of these rules matches are not sampled, whatever `include` says",
        nameless,
        rule,
    );
    let min_age = reader.value(
        "min_age",
        kind::time(Duration::ZERO, 24 * HOUR).at_least(),
        Duration::ZERO,
        "Processes younger than this are not sampled",
    );
    TargetRules { include, exclude, min_age }
}

/// All lists of a rule must match; in each, one item suffices.
fn rule(reader: &mut Reader<'_>) -> Rule {
    let pids = reader.list(
        "pids",
        kind::whole(1_u32, 4_194_304, "").local(),
        Vec::new(),
        "Process ids, as the host sees them. All lists of one rule must match; in each list one item suffices",
    );
    let cgroup_ids = reader.list(
        "cgroup_ids",
        kind::whole(1_u64, u64::MAX, "").local(),
        Vec::new(),
        "Ids of cgroups (v2): the inodes of their directories, as `stat -c %i` shows them",
    );
    let mut patterns = |key, doc| reader.list(key, pattern().local(), Vec::new(), doc);
    let cgroups = patterns(
        "cgroups",
        "Paths below `/sys/fs/cgroup` (v2), such as `/system.slice/*`; what is below a matching cgroup matches too",
    );
    let containers = patterns("containers", "Container ids; 12 digits or more stand for all ids that begin with them");
    let comms = patterns("comms", "Names of processes as in `/proc/PID/comm`: at most 15 bytes");
    let executables =
        patterns("executables", "Paths of executables, such as `/usr/bin/*`; without a `/` their file names");
    let rule = Rule { pids, cgroups, cgroup_ids, containers, comms, executables };
    if rule == Rule::default() {
        let message =
            "names nothing, and so would match everything: give pids, cgroups, containers, comms or executables";
        reader.problem(reader.origin(), "", message);
    }
    rule
}

fn pattern() -> Kind<String> {
    kind::text("pattern: * stands for any text")
        .checked(|text: &String| if text.len() > 4096 { Err("is longer than 4096 bytes".to_owned()) } else { Ok(()) })
}

fn resource(reader: &mut Reader<'_>) -> Resource {
    let variable = kind::text("name of a variable").checked(|name: &String| {
        let right = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.len() <= 128 && name.chars().all(right) {
            Ok(())
        } else {
            Err(format!("{} is no name of an environment variable", quoted(name)))
        }
    });
    let environment_variables = reader.list(
        "environment_variables",
        variable.subset(),
        vec!["OTEL_SERVICE_NAME".to_owned(), "OTEL_RESOURCE_ATTRIBUTES".to_owned()],
        "What is read from the environments of processes; no other variable is looked at, since environments hold \
         secrets. The first two name the service; others become `process.environment_variable.NAME`",
    );
    let attributes = reader.map(
        "attributes",
        attribute_name,
        kind::text("text").local(),
        "Added to the Resource of every process that says nothing else, such as `cloud.region: eu-west-1`. The agent's own \
         `OTEL_RESOURCE_ATTRIBUTES` are added here, but for those that describe the agent itself (`service.*`, \
         `process.*`, `telemetry.*`, `container.*` and `k8s.pod.*`, `k8s.container.*`, `k8s.daemonset.*`, `k8s.namespace.*`)",
    );
    let kubernetes = reader.section("kubernetes", "Where the metadata of pods comes from", kubernetes);
    Resource { environment_variables, attributes, kubernetes }
}

fn kubernetes(reader: &mut Reader<'_>) -> Kubernetes {
    let source = reader.value(
        "source",
        kind::choice().local(),
        KubernetesSource::Auto,
        "Who is asked: the node's `kubelet`, or the `api` server; `auto`: what the environment offers, nobody outside \
         Kubernetes; `off`: nobody",
    );
    let kubelet_url = exporters::service_url(
        reader,
        "kubelet_url",
        "The kubelet, such as `https://10.0.0.1:10250`; without it found by the node's name",
    );
    let api_url = exporters::service_url(reader, "api_url", "The API server; without it found as every pod finds it");
    let node_name = reader.optional(
        "node_name",
        kind::text("name of the node").local(),
        "This node, as the API server calls it. `NODE_NAME` and `K8S_NODE_NAME` set it too",
    );
    let ca_file = reader.optional(
        "ca_file",
        kind::path().local(),
        "Authorities that vouch for the kubelet or API server, PEM; without it those of the service account",
    );
    let token_file = reader.optional(
        "token_file",
        kind::path().local(),
        "The token to show; without it that of the service account. Read again when it changes",
    );
    let insecure_skip_verify = reader.value(
        "insecure_skip_verify",
        kind::boolean().local(),
        false,
        "Accept any certificate of the kubelet, as kubelets sign their own unless told otherwise. The token then goes to \
         whoever answers at that address",
    );
    let interval = || kind::time(SECOND, HOUR);
    let poll_interval = reader.value(
        "poll_interval",
        interval().local(),
        60 * SECOND,
        "Between two lists of the kubelet; the API server is watched",
    );
    let min_poll_interval = reader.value(
        "min_poll_interval",
        interval().local(),
        5 * SECOND,
        "Between two lists of the kubelet while a container is not known",
    );
    let labels = reader.list(
        "labels",
        kind::text("name of a label").subset(),
        Vec::new(),
        "Labels of pods to add as `k8s.pod.label.NAME`; no other is added",
    );
    Kubernetes {
        source,
        kubelet_url,
        api_url,
        node_name: node_name.map(|(name, _)| name),
        ca_file: ca_file.map(|(path, _)| path),
        token_file: token_file.map(|(path, _)| path),
        insecure_skip_verify,
        poll_interval,
        min_poll_interval,
        labels,
    }
}

fn telemetry(reader: &mut Reader<'_>) -> Telemetry {
    let service_name = reader.value(
        "service_name",
        kind::text("text").local(),
        "profiler".to_owned(),
        "`service.name` of the agent's own metrics. `OTEL_SERVICE_NAME` sets it too",
    );
    let attributes = reader.map(
        "attributes",
        attribute_name,
        kind::text("text").local(),
        "Further attributes of the agent's own Resource",
    );
    let listen = reader.value(
        "listen",
        kind::or_off(kind::address(), |address| address.map_or_else(|| OFF.to_owned(), |address| address.to_string()))
            .local(),
        Some(([127, 0, 0, 1], 9464).into()),
        "Where `/metrics` (Prometheus), `/healthz` and `/readyz` are served; port 0 takes a free one",
    );
    let otlp = reader.optional_section("otlp", "Sends the agent's own metrics by OTLP", |reader| {
        let connection = exporters::connection(reader, &METRICS);
        let interval =
            reader.value("interval", kind::time(SECOND, HOUR).local(), 60 * SECOND, "How often metrics are sent");
        TelemetryOtlp { connection, interval }
    });
    Telemetry { service_name, attributes, listen, otlp }
}

fn opamp(reader: &mut Reader<'_>) -> Opamp {
    let url = kind::text("URL").checked(|url: &String| {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if !["ws", "wss", "http", "https"].contains(&scheme) || host.is_empty() {
            return Err("is no URL of a server: write wss://HOST:4320/v1/opamp, or https:// to poll it".to_owned());
        }
        if host.contains('@') || url.contains(['?', '#']) {
            return Err("a secret belongs into `headers`, not into the URL".to_owned());
        }
        Ok(())
    });
    let endpoint = reader.required(
        "endpoint",
        url.local(),
        "Its URL: `wss://` (a connection that stays) or `https://` (polled every 30 s); `ws://`, `http://` without TLS. Without \
         a path it is `/v1/opamp`",
    );
    let headers = exporters::headers(reader);
    let tls = reader.section("tls", "Certificates", exporters::certificates);
    let directory = reader.value(
        "directory",
        kind::path().local(),
        "/var/lib/profiler/opamp".into(),
        "Where the agent's identity and the last configuration that worked are kept; made if it is missing",
    );
    let accept_config = reader.value(
        "accept_config",
        kind::boolean().local(),
        false,
        "Takes configurations from the server. They narrow this one, as `--remote FILE` does, and never widen it",
    );
    let soak = reader.value(
        "soak",
        kind::time(SECOND, HOUR).local(),
        60 * SECOND,
        "How long a configuration from the server is watched: samples, losses, exports and budgets. Only then does it count as one that \
         works; before, the last one that did comes back",
    );
    Opamp {
        endpoint: endpoint.map_or_else(String::new, |(endpoint, _)| endpoint),
        headers,
        tls,
        directory,
        accept_config,
        soak,
    }
}

fn log(reader: &mut Reader<'_>) -> Log {
    let level = reader.value(
        "level",
        kind::choice().if_allowed(),
        LogLevel::Info,
        "What is worth a line. `-v` is debug, `-vv` trace",
    );
    let format =
        reader.value("format", kind::choice().local(), LogFormat::Text, "`text` for people, `json`: one object a line");
    Log { level, format }
}

fn detection(reader: &mut Reader<'_>) -> Detection {
    let detector = || {
        kind::text("NAME[,KEY=VALUE...]").checked(|text: &String| {
            text.parse::<profiler_detectors::Config>().map(drop).map_err(|error| error.to_string())
        })
    };
    let detectors = reader.list(
        "detectors",
        detector().if_allowed(),
        vec!["cusum".to_owned()],
        "By what changes are told of shares of CPU time: `cusum`, `ewma`, `robust-z`, `holt-winters`, each with keys of its own \
         (`profiler detect -d help`); `[]`: none",
    );
    let series = reader.list(
        "series",
        kind::choice().if_allowed(),
        vec![DetectedSeries::Host, DetectedSeries::Services, DetectedSeries::Functions],
        "Of what: `host`, `services`, `processes` (by name), `cgroups` (containers among them): shares of the host's CPU time; \
         `functions`: of the samples of their service",
    );
    let pressure_detectors = reader.list(
        "pressure_detectors",
        detector().if_allowed(),
        vec!["cusum,min-change=0.1,sigmas=2,threshold=30".to_owned()],
        "By what changes are told of the share of time in which something waits for CPU, memory or IO \
         (`/proc/pressure`, each 5 s); `[]`: none",
    );
    let memory = reader.value(
        "memory",
        kind::size(64 * 1024, 1024 * MIB).at_most(),
        4 * MIB,
        "Memory of all series; what has no room is not looked at, and counted. A series of `cusum` takes 1 to 2 KiB",
    );
    let state_file = reader.optional(
        "state_file",
        kind::path().local(),
        "Where what is normal is kept over a restart, such as `/var/lib/profiler/detection.json`; without it, it is learned anew",
    );
    for (key, list) in [("detectors", &detectors), ("pressure_detectors", &pressure_detectors)] {
        if list.len() > MAX_DETECTORS {
            let message = format!("{} detectors are too many: up to {MAX_DETECTORS} look at each series", list.len());
            reader.problem(reader.origin(), key, message);
        }
    }
    let state_file = state_file.map(|(path, _)| path);
    Detection { detectors, series, pressure_detectors, memory, state_file }
}

/// Detectors of one series.
const MAX_DETECTORS: usize = 8;

fn limits(reader: &mut Reader<'_>) -> Limits {
    let memory = reader.value(
        "memory",
        kind::or_off(kind::size(32 * MIB, 1024 * 1024 * MIB), |size| {
            size.as_ref().map_or_else(|| OFF.to_owned(), units::show_size)
        })
        .limit(),
        Some(128 * MIB),
        "Memory of the agent, its kernel maps included",
    );
    let cpu = reader.value(
        "cpu",
        kind::or_off(kind::percent(0.1, 100.0), |percent| {
            percent.map_or_else(|| OFF.to_owned(), |percent| percent.to_string())
        })
        .limit(),
        Some(Percent(2.0)),
        "CPU time of the agent, its kernel side included, as a share of all CPUs of the host",
    );
    Limits { memory_bytes: memory, cpu_fraction: cpu.map(Percent::fraction) }
}

/// The keys that `remote.allow` can name: those that are read with [`Kind::if_allowed`].
pub(super) const ALLOWABLE: [&str; 7] = [
    "window",
    "jitter",
    "labels",
    "log.level",
    "detection.detectors",
    "detection.series",
    "detection.pressure_detectors",
];

fn remote(reader: &mut Reader<'_>) -> Vec<String> {
    let key = kind::text("window | jitter | labels | log.level | detection.*").checked(|key: &String| {
        if ALLOWABLE.contains(&key.as_str()) {
            Ok(())
        } else {
            Err(format!("{} is none of {}: no other key can be given away", quoted(key), ALLOWABLE.join(", ")))
        }
    });
    reader.list(
        "allow",
        key.local(),
        Vec::new(),
        "Keys that it may set as it likes. All others it may narrow as they say, or not at all",
    )
}

/// Names of attributes, as OpenTelemetry has them.
fn attribute_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > 256 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("{} is no name of an attribute: no spaces, at most 256 bytes", quoted(name)));
    }
    Ok(name.to_owned())
}
