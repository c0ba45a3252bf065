//! The configuration as the agent uses it: plain types, every value resolved.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use profiler_limits::Limits;
use profiler_ottl::{ErrorMode, HashKey};
use profiler_receiver::{Compression, Protocol, Secret, TlsOptions};
use profiler_rules::{Aggregate, Level, RefusedRule, Rules};
use profiler_targets::TargetRules;

use super::endpoint::Endpoint;
use super::kind::Choice;

/// A share in percent.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

impl Percent {
    /// From 0 to 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// By how much the start of the windows of different hosts may differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// Of the window.
    Share(Percent),
    /// A time.
    Time(Duration),
}

impl Jitter {
    /// The longest delay of a window's start.
    #[must_use]
    pub fn of(self, window: Duration) -> Duration {
        match self {
            Self::Share(percent) => window.mul_f64(percent.fraction().clamp(0.0, 1.0)),
            Self::Time(time) => time,
        }
    }
}

impl fmt::Display for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(percent) => percent.fmt(f),
            Self::Time(time) => f.write_str(&super::units::show_time(time)),
        }
    }
}

/// The whole configuration of the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Samples a second and CPU, Hz, of events that say no rate of their own.
    pub rate: u64,
    /// What is sampled, as `profiler_measure::source::Source` reads it.
    pub events: Vec<String>,
    /// How long one profile is.
    pub window: Duration,
    /// By how much windows may start late.
    pub jitter: Jitter,
    /// How much is looked up for each address.
    pub symbols: Symbols,
    /// Added to the Resource of every process, whatever the process says.
    pub labels: BTreeMap<String, String>,
    /// Which processes are sampled.
    pub targets: TargetRules,
    /// What the Resource of a process says.
    pub resource: Resource,
    /// What changes and filters profiles before they go anywhere, in order; names differ.
    pub processors: Vec<Processor>,
    /// Where profiles go; at least one, names differ.
    pub exporters: Vec<Exporter>,
    /// What the agent tells about itself.
    pub telemetry: Telemetry,
    /// What is logged.
    pub log: Log,
    /// Which changes are told.
    pub detection: Detection,
    /// What the agent may use.
    pub limits: Limits,
    /// While this file exists nothing is sampled.
    pub kill_switch: PathBuf,
    /// Keys that a remote configuration may set as it likes.
    pub remote_allow: Vec<String>,
    /// The server that manages this agent; none: nobody does.
    pub opamp: Option<Opamp>,
}

/// Which sections differ between two configurations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// [`Config::rate`].
    pub rate: bool,
    /// [`Config::events`].
    pub events: bool,
    /// [`Config::window`] or [`Config::jitter`].
    pub window: bool,
    /// [`Config::symbols`].
    pub symbols: bool,
    /// [`Config::targets`].
    pub targets: bool,
    /// [`Config::resource`] or [`Config::labels`].
    pub resource: bool,
    /// [`Config::processors`].
    pub processors: bool,
    /// [`Config::exporters`].
    pub exporters: bool,
    /// [`Config::telemetry`].
    pub telemetry: bool,
    /// [`Config::log`].
    pub log: bool,
    /// [`Config::detection`].
    pub detection: bool,
    /// [`Config::limits`].
    pub limits: bool,
    /// [`Config::kill_switch`].
    pub kill_switch: bool,
    /// [`Config::opamp`].
    pub opamp: bool,
}

impl Changes {
    /// The names of the sections that differ, for a log line.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            (self.rate, "rate"),
            (self.events, "events"),
            (self.window, "window"),
            (self.symbols, "symbols"),
            (self.targets, "targets"),
            (self.resource, "resource"),
            (self.processors, "processors"),
            (self.exporters, "exporters"),
            (self.telemetry, "telemetry"),
            (self.log, "log"),
            (self.detection, "detection"),
            (self.limits, "limits"),
            (self.kill_switch, "kill_switch"),
            (self.opamp, "opamp"),
        ];
        all.into_iter().filter_map(|(changed, name)| changed.then_some(name)).collect()
    }

    /// True if anything differs.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl Config {
    /// What differs between the running configuration and `new`.
    #[must_use]
    pub fn diff(&self, new: &Self) -> Changes {
        Changes {
            rate: self.rate != new.rate,
            events: self.events != new.events,
            window: self.window != new.window || self.jitter != new.jitter,
            symbols: self.symbols != new.symbols,
            targets: self.targets != new.targets,
            resource: self.resource != new.resource || self.labels != new.labels,
            processors: self.processors != new.processors,
            exporters: self.exporters != new.exporters,
            telemetry: self.telemetry != new.telemetry,
            log: self.log != new.log,
            detection: self.detection != new.detection,
            limits: self.limits != new.limits,
            kill_switch: self.kill_switch != new.kill_switch,
            opamp: self.opamp != new.opamp,
        }
    }
}

/// How much is looked up for each address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symbols {
    /// Function names from symbol tables.
    Names,
    /// Also files, lines and inlined functions, from DWARF.
    Lines,
}

impl Choice for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("grpc", Self::Grpc), ("http/protobuf", Self::HttpProtobuf)];
}

impl Choice for Compression {
    const WORDS: &'static [(&'static str, Self)] = &[("gzip", Self::Gzip), ("zstd", Self::Zstd), ("none", Self::None)];
}

impl Choice for Symbols {
    const WORDS: &'static [(&'static str, Self)] = &[("names", Self::Names), ("lines", Self::Lines)];
}

/// What the Resource of a process says beyond what is always there.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Variables that are read from the environment of a process; no other is looked at.
    pub environment_variables: Vec<String>,
    /// Added to the Resource of every process that says nothing else.
    pub attributes: BTreeMap<String, String>,
    /// Where the metadata of pods comes from.
    pub kubernetes: Kubernetes,
}

/// Where the metadata of pods comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Which service is asked.
    pub source: KubernetesSource,
    /// The kubelet, such as `https://10.0.0.1:10250`; without it found by the node's name.
    pub kubelet_url: Option<Endpoint>,
    /// The API server; without it found as any pod finds it.
    pub api_url: Option<Endpoint>,
    /// This node.
    pub node_name: Option<String>,
    /// Who vouches for the service's certificate; without it the service account's.
    pub ca_file: Option<PathBuf>,
    /// The token to show; without it the service account's.
    pub token_file: Option<PathBuf>,
    /// Whatever certificate the kubelet shows is taken.
    pub insecure_skip_verify: bool,
    /// Between two lists of the kubelet.
    pub poll_interval: Duration,
    /// Between two lists of the kubelet when a container is not known.
    pub min_poll_interval: Duration,
    /// Pod labels to add as `k8s.pod.label.NAME`; no other is added.
    pub labels: Vec<String>,
}

/// Which service tells about pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubernetesSource {
    /// None.
    Off,
    /// What the environment offers, none outside Kubernetes.
    Auto,
    /// The node's kubelet, polled.
    Kubelet,
    /// The API server, watched.
    Api,
}

impl Choice for KubernetesSource {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("auto", Self::Auto), ("kubelet", Self::Kubelet), ("api", Self::Api)];
}

/// One step on the way from a window to its receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Names it in logs and metrics.
    pub name: String,
    /// What it is.
    pub kind: ProcessorKind,
}

/// The kinds of steps. All rules compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessorKind {
    /// Drops what a condition holds for: groups of conditions.
    Filter(Vec<RuleGroup>),
    /// Changes what is there: groups of statements.
    Transform(Vec<RuleGroup>),
    /// Merges what is equal.
    Aggregate(Aggregate),
}

/// Rules in OTTL that run together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleGroup {
    /// Its key and place: `profile_conditions[0]`.
    pub place: String,
    /// What they run on; none: the innermost that their paths name.
    pub context: Option<Level>,
    /// What becomes of their errors.
    pub error_mode: ErrorMode,
    /// Of a filter: any one drops. Of a transformation: one must hold, if there are any.
    pub conditions: Vec<String>,
    /// What is run, in order.
    pub statements: Vec<String>,
    /// What `KeyedHash` hashes under.
    pub key: Option<HashKey>,
}

impl RuleGroup {
    /// Its rules, of a filter if `drops`, else of a transformation.
    ///
    /// # Errors
    ///
    /// One does not compile. None does if the configuration was loaded.
    pub fn compile(&self, drops: bool) -> Result<Rules, RefusedRule> {
        if drops {
            Rules::filter(self.context, &self.conditions, true, self.error_mode, self.key.clone())
        } else {
            Rules::statements_given(self.context, &self.conditions, &self.statements, self.error_mode, self.key.clone())
        }
    }
}

impl Choice for ErrorMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("ignore", Self::Ignore), ("silent", Self::Silent), ("propagate", Self::Propagate)];
}

impl Choice for Level {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("resource", Self::Resource),
        ("scope", Self::Scope),
        ("profile", Self::Profile),
        ("profilesample", Self::Sample),
        ("stack", Self::Stack),
        ("frame", Self::Frame),
    ];
}

/// One place where profiles go.
#[derive(Clone, Debug, PartialEq)]
pub struct Exporter {
    /// Names it in logs and metrics.
    pub name: String,
    /// What it is.
    pub kind: ExporterKind,
}

/// The kinds of places where profiles go.
#[derive(Clone, Debug, PartialEq)]
pub enum ExporterKind {
    /// A receiver of OTLP profiles.
    Otlp(Box<OtlpExporter>),
    /// A directory.
    Files(FilesExporter),
}

/// A receiver of OTLP profiles.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpExporter {
    /// How it is reached.
    pub connection: Connection,
    /// What happens when it refuses for a while.
    pub retry: Retry,
    /// Bytes of encoded profiles that may wait in memory; the oldest give way, counted.
    pub queue_size: u64,
    /// The largest request before compression, bytes.
    pub max_request_size: u64,
    /// Keeps what waits on disk.
    pub spool: Option<Spool>,
}

/// How an OTLP receiver is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Its URL.
    pub endpoint: Endpoint,
    /// Somebody wrote the URL. Who listens at the default one, on this host, may be anybody.
    pub is_chosen: bool,
    /// What is spoken.
    pub protocol: Protocol,
    /// How requests are compressed.
    pub compression: Compression,
    /// Sent with every request; names in lower case.
    pub headers: BTreeMap<String, Secret>,
    /// Further headers, one `name: value` a line, read again when the file changes.
    pub headers_file: Option<PathBuf>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Certificates. Whether TLS is spoken at all, the endpoint says.
    pub tls: TlsOptions,
}

/// What happens when a receiver refuses for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The first wait.
    pub initial_interval: Duration,
    /// The longest wait.
    pub max_interval: Duration,
    /// Given up after this long; zero: never.
    pub max_elapsed_time: Duration,
}

/// What waits, kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// Where; no other exporter's.
    pub directory: PathBuf,
    /// Bytes it may hold; the oldest give way, counted.
    pub max_size: u64,
}

/// A directory of profiles, the oldest of which are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesExporter {
    /// Where.
    pub directory: PathBuf,
    /// What the files are.
    pub format: FileFormat,
    /// How many may be there.
    pub max_files: u64,
    /// Bytes that they may have together.
    pub max_size: u64,
}

/// Format of the files of a [`FilesExporter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// gzipped pprof.
    Pprof,
    /// An OTLP ExportProfilesServiceRequest.
    Otlp,
    /// The same in JSON.
    OtlpJson,
}

impl Choice for FileFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pprof", Self::Pprof), ("otlp", Self::Otlp), ("otlp-json", Self::OtlpJson)];
}

/// What the agent tells about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// `service.name` of the agent's own metrics.
    pub service_name: String,
    /// Further attributes of the agent's own Resource.
    pub attributes: BTreeMap<String, String>,
    /// `/metrics`, `/healthz` and `/readyz`; none: nobody listens.
    pub listen: Option<SocketAddr>,
    /// Metrics sent by OTLP.
    pub otlp: Option<TelemetryOtlp>,
}

/// Metrics sent by OTLP.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryOtlp {
    /// The receiver.
    pub connection: Connection,
    /// How often.
    pub interval: Duration,
}

/// A server that manages this agent, by OpAMP.
#[derive(Clone, Debug, PartialEq)]
pub struct Opamp {
    /// Its URL: `ws`, `wss`, `http` or `https`.
    pub endpoint: String,
    /// Sent with every request; names in lower case.
    pub headers: BTreeMap<String, Secret>,
    /// Certificates.
    pub tls: TlsOptions,
    /// Where the agent's identity and the configuration that works are kept.
    pub directory: PathBuf,
    /// Takes configurations from the server, which narrow this one.
    pub accept_config: bool,
    /// How long a new configuration is watched before it counts as one that works.
    pub soak: Duration,
}

/// What is logged, to stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is worth a line.
    pub level: LogLevel,
    /// What a line looks like.
    pub format: LogFormat,
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Samples were lost, or the agent cannot go on.
    Error,
    /// Something needs somebody's attention.
    Warn,
    /// What happened.
    Info,
    /// How.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    /// The word for it: `error` to `trace`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, level)| *level == self).map_or("info", |(word, _)| word)
    }
}

impl Choice for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// Which changes are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// Detectors of shares of CPU time, as `profiler_detectors::Config` reads them; without any, and without those of pressure, nothing
    /// is looked at.
    pub detectors: Vec<String>,
    /// What they look at.
    pub series: Vec<DetectedSeries>,
    /// Detectors of the kernel's pressure stall information.
    pub pressure_detectors: Vec<String>,
    /// Memory of all of them, bytes.
    pub memory: u64,
    /// Where what is normal is kept over a restart.
    pub state_file: Option<PathBuf>,
}

/// What shares are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DetectedSeries {
    /// The host's CPU time in use.
    Host,
    /// A service's share of the host's CPU time.
    Services,
    /// The same of processes of one name.
    Processes,
    /// The same of control groups, containers among them.
    Cgroups,
    /// A function's share of the samples of its service.
    Functions,
}

impl Choice for DetectedSeries {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("host", Self::Host),
        ("services", Self::Services),
        ("processes", Self::Processes),
        ("cgroups", Self::Cgroups),
        ("functions", Self::Functions),
    ];
}
