//! The agent's state as metrics: their names, units and meaning, once and for all. `docs/telemetry.md` lists them for users.

use std::collections::BTreeMap;

use profiler_rules::Tally;

use super::metric::{Description, Histogram, Snapshot};
use super::usage::CpuTime;

macro_rules! descriptions {
    ($($constant:ident = $name:literal, $unit:literal, $help:literal;)*) => {
        $(const $constant: Description = Description { name: $name, unit: $unit, help: $help };)*
        /// All metrics that [`of`] can give.
        pub const ALL: &[Description] = &[$($constant),*];
    };
}

descriptions! {
    SAMPLES = "profiler.samples", "{sample}", "Samples taken and kept, by what they are samples of";
    LOST = "profiler.samples.lost", "{sample}", "Samples lost, by reason and by what they were samples of";
    FILTERED = "profiler.samples.filtered", "{sample}", "Samples of processes that are not to be profiled, left out before unwinding";
    FILTERED_BY_RULES = "profiler.filtered", "{sample}", "Samples that rules dropped, by processor and by why: a condition held, or held for all of a process before unwinding, or a rule failed and took the window with it";
    RULES_MATCHED = "profiler.rules.matched", "{context}", "Contexts (resources, scopes, profiles, samples) that a rule's condition held for, by processor and rule";
    RULES_DROPPED = "profiler.rules.dropped", "{sample}", "Samples that a rule dropped, by processor and rule";
    RULES_ERRORS = "profiler.rules.errors", "{error}", "Contexts that a rule failed on, by processor and rule";
    RULES_TIME = "profiler.rules.time", "s", "Time that a rule took, estimated from one context in 32, by processor and rule";
    STACKS = "profiler.stacks", "{stack}", "User and kernel stacks unwound, by where: in the kernel, or finished in user space";
    FRAMES = "profiler.unwind.frames", "{frame}", "User frames unwound in the kernel, by where their rule was: in the cache of their CPU, or searched";
    UNFINISHED = "profiler.stacks.unfinished", "{stack}", "Stacks that do not reach the root of their thread, by reason; they are kept and marked";
    EVENTS_LOST = "profiler.process.events.lost", "{event}", "Process events (exec, mmap, exit) that the kernel dropped; affected processes are scanned anew";
    TROUBLE = "profiler.unwind.trouble", "{occurrence}", "What unwind tables could not hold or read, by reason; frame pointers are followed instead";
    RESOURCE_TROUBLE = "profiler.resources.trouble", "{occurrence}", "What processes say of themselves and could not be read, or not kept, by reason; the samples are kept";
    NAME_TROUBLE = "profiler.names.trouble", "{occurrence}", "What could not be read for names, or not kept, by reason; the samples are kept";
    REFUSED = "profiler.runtimes.refused", "{process}", "Processes whose runtime has no names, by runtime and reason; `doctor -p PID` says more; native frames are shown";
    READERS = "profiler.reader.starts", "{process}", "Processes started to open and parse what belongs to targets: one for rows, one for names, and one more for each that was given up or died, or whose configuration changed";
    READERS_LEFT = "profiler.reader.left_behind", "{process}", "Of these, the ones that were given up and have not ended: a target holds them in the kernel";
    SET_ASIDE = "profiler.reader.set_aside", "{target}", "Processes and files that are not read for now, since a reader was given up or died at them";
    SENDERS = "profiler.sender.starts", "{process}", "Processes started to speak to receivers, by exporter: one each, and one more whenever one ended, or its certificates, headers, options or the host's way to resolve names changed";
    SENDERS_ENDED = "profiler.sender.ended", "{process}", "Of these, the ones that ended without being asked to, and attempts to start one that failed, by exporter and why; what they were to send is sent again";
    CACHE = "profiler.cache.size", "By", "Memory of a cache in user space";
    MAP = "profiler.map.size", "By", "Memory of the maps of the kernel half";
    TABLE = "profiler.table.entries", "{entry}", "Entries in a table of the kernel half";
    CPU = "profiler.cpu.time", "s", "CPU time of the profiler itself: its own (user, kernel) and that of its BPF programs, which other tasks are charged for";
    MEMORY = "profiler.memory.usage", "By", "Memory of the profiler itself: resident, and the maps of the kernel half, each byte once";
    MEMORY_LIMIT = "profiler.memory.limit", "By", "The memory budget";
    CPU_LIMIT = "profiler.cpu.limit", "1", "The CPU budget as a share of the host's CPUs";
    FILES = "profiler.file_descriptor.count", "{file_descriptor}", "Open file descriptors of the profiler";
    UPTIME = "profiler.uptime", "s", "Time since the profiler started";
    RATE = "profiler.rate", "Hz", "Samples a second and CPU, now";
    RATE_REQUESTED = "profiler.rate.requested", "Hz", "Samples a second and CPU that somebody asks for; the lowest is the rate";
    RATE_CONFIGURED = "profiler.rate.configured", "Hz", "Samples a second and CPU, as configured";
    RELOADS = "profiler.config.reloads", "{reload}", "Attempts to read the configuration again, by outcome: taken, or refused, where the running one stays";
    SAMPLING = "profiler.sampling", "", "1 while sampling, 0 while paused, by the kill switch or the budget";
    CONFINEMENT = "profiler.confinement", "", "1 if a process of the profiler has given up what it does not need, by wall; 0 if the kernel or the container refuses that, in whole or in part";
    SHED = "profiler.shed.level", "", "What is given up to stay within the budget: 0 nothing, 1 symbol caches, 2 row caches too, 3 sampling";
    PROCESSES = "profiler.process.count", "{process}", "Processes that the profiler knows";
    DETECTION_EVENTS = "profiler.detection.events", "{event}", "Changes that were told, by what they are of, and by whether they began or ended: changed, returned, settled";
    DETECTION_SERIES = "profiler.detection.series", "{series}", "Series that detectors look at, by what they are of";
    DETECTION_SKIPPED = "profiler.detection.skipped", "{observation}", "Observations that no detector looked at, by reason";
    DETECTION_UNNAMED = "profiler.detection.unnamed", "{sample}", "Samples that are of their service and of no function, since it had no name yet";
    DETECTION_DELAY = "profiler.detection.delay", "s", "Time from the newest sample of a tick to the decision of the detectors";
    EXPORT_SAMPLES = "profiler.export.samples", "{sample}", "Samples that left an exporter, by outcome: delivered, rejected by the receiver, or dropped for a reason";
    EXPORT_REQUESTS = "profiler.export.requests", "{request}", "Requests that the receiver took";
    EXPORT_RETRIES = "profiler.export.retries", "{request}", "Requests sent again";
    EXPORT_BYTES = "profiler.export.bytes", "By", "Bytes of requests, before compression and as sent";
    EXPORT_DURATION = "profiler.export.duration", "s", "Time from sending a request to its answer";
    QUEUE = "profiler.export.queue.size", "By", "Bytes of requests that wait in memory";
    QUEUE_SAMPLES = "profiler.export.queue.samples", "{sample}", "Samples that wait in memory";
    SPOOL = "profiler.spool.size", "By", "Bytes of requests that wait on disk";
    SPOOL_RECORDS = "profiler.spool.records", "{record}", "Requests that wait on disk";
    SPOOL_SET_ASIDE = "profiler.spool.set_aside", "{file}", "Damaged spool files that were set aside";
    HOST_CPU = "host.cpu", "1", "Share of the host's CPU time that was used over the last interval";
}

/// What the agent knows of itself at one time. Counters are of the time since its start.
#[derive(Clone, Debug, Default)]
pub struct AgentState {
    /// Samples kept, by event.
    pub samples: BTreeMap<String, u64>,
    /// Samples lost, by event and reason.
    pub lost: BTreeMap<(String, &'static str), u64>,
    /// Samples that the choice of processes left out.
    pub filtered: u64,
    /// Samples that rules dropped, by processor and by why.
    pub filtered_by_rules: BTreeMap<(String, &'static str), u64>,
    /// What rules did, by processor and rule.
    pub rules: BTreeMap<(String, String), Tally>,
    /// User frames that the kernel half unwound, and those of them whose rule it searched.
    pub frames: (u64, u64),
    /// Stacks that user space finished; all others were unwound in the kernel.
    pub continued: u64,
    /// Stacks that are not whole, by reason.
    pub unfinished: BTreeMap<&'static str, u64>,
    /// Process events that the kernel dropped.
    pub events_lost: u64,
    /// What unwind tables could not hold or read, by reason.
    pub trouble: BTreeMap<&'static str, u64>,
    /// Processes whose runtime has no names, by runtime and reason.
    pub refused: BTreeMap<(&'static str, &'static str), u64>,
    /// What could not be read for names, or not kept, by reason.
    pub name_trouble: BTreeMap<&'static str, u64>,
    /// What processes say of themselves and could not be read, or not kept, by reason.
    pub resource_trouble: BTreeMap<&'static str, u64>,
    /// Readers started, left behind, and targets that are set aside.
    pub readers: (u64, u64, u64),
    /// Processes that speak to receivers.
    pub senders: SendersState,
    /// Bytes of caches in user space, by cache.
    pub caches: BTreeMap<&'static str, u64>,
    /// Bytes of BPF maps, by map.
    pub maps: BTreeMap<&'static str, u64>,
    /// Entries in the kernel half's tables, by table.
    pub tables: BTreeMap<&'static str, u64>,
    /// Processes known.
    pub processes: u64,
    /// CPU time of the profiler itself.
    pub cpu: CpuTime,
    /// Memory of the profiler itself, kernel maps included, bytes.
    pub memory_bytes: u64,
    /// Open file descriptors.
    pub file_descriptors: u64,
    /// Since the start, s.
    pub uptime_seconds: f64,
    /// Samples a second and CPU, now.
    pub rate: u64,
    /// As configured.
    pub configured_rate: u64,
    /// Whose request [`Self::rate`] is.
    pub rate_ruled_by: &'static str,
    /// What is asked for, by whom.
    pub requested_rates: BTreeMap<&'static str, u64>,
    /// Attempts to read the configuration again, by outcome.
    pub reloads: BTreeMap<&'static str, u64>,
    /// Whether sampling is going on.
    pub sampling: bool,
    /// Whether each wall stands, by process and wall; see [`profiler_confine::Wall`].
    pub confinement: BTreeMap<(&'static str, &'static str), bool>,
    /// What is given up to stay within the budget, 0 to 3; see [`profiler_limits::Shed`].
    pub shed_level: u64,
    /// The memory budget, bytes.
    pub memory_limit: Option<u64>,
    /// The CPU budget, share of the host.
    pub cpu_limit: Option<f64>,
    /// Share of the host's CPU time in use.
    pub host_cpu: Option<f64>,
    /// What detectors do.
    pub detection: DetectionState,
    /// Exporters by name.
    pub exporters: Vec<ExporterState>,
}

/// What became of the processes that speak to receivers.
#[derive(Clone, Debug, Default)]
pub struct SendersState {
    /// Started, by exporter.
    pub started: BTreeMap<String, u64>,
    /// Ended without being asked to, or not started, by exporter and why.
    pub ended: BTreeMap<(String, &'static str), u64>,
}

/// What detectors look at and tell.
#[derive(Clone, Debug, Default)]
pub struct DetectionState {
    /// Events, by what they are of and kind.
    pub events: BTreeMap<(&'static str, &'static str), u64>,
    /// Series, by what they are of.
    pub series: BTreeMap<&'static str, u64>,
    /// Observations that were not looked at, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Samples whose function had no name yet.
    pub unnamed: u64,
    /// Time from the newest sample to the decision, s.
    pub delay: Option<Histogram>,
}

impl AgentState {
    /// Samples kept, of all events.
    #[must_use]
    pub fn all_samples(&self) -> u64 {
        self.samples.values().sum()
    }
}

/// What one exporter did and holds.
#[derive(Clone, Debug, Default)]
pub struct ExporterState {
    /// Its name in the configuration.
    pub name: String,
    /// Samples that the receiver took.
    pub sent_samples: u64,
    /// Samples that the receiver refused for good (partial success).
    pub rejected_samples: u64,
    /// Samples dropped here, by reason.
    pub dropped_samples: BTreeMap<&'static str, u64>,
    /// Requests that the receiver took.
    pub requests: u64,
    /// Requests sent again.
    pub retries: u64,
    /// Bytes of requests before compression.
    pub raw_bytes: u64,
    /// Bytes of requests as sent.
    pub wire_bytes: u64,
    /// Times of requests, s.
    pub duration: Option<Histogram>,
    /// Bytes that wait in memory.
    pub queued_bytes: u64,
    /// Samples that wait in memory.
    pub queued_samples: u64,
    /// What waits on disk, if there is a spool.
    pub spool: Option<SpoolState>,
}

/// What waits on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpoolState {
    /// Bytes.
    pub bytes: u64,
    /// Requests.
    pub records: u64,
    /// Damaged files set aside since the start.
    pub set_aside: u64,
}

/// The state as metrics.
#[must_use]
pub fn of(state: &AgentState) -> Snapshot {
    let mut metrics = Snapshot::default();
    samples(state, &mut metrics);
    own(state, &mut metrics);
    detection(&state.detection, &mut metrics);
    for exporter in &state.exporters {
        export(exporter, &mut metrics);
    }
    if let Some(host_cpu) = state.host_cpu {
        metrics.gauge(HOST_CPU, &[], host_cpu);
    }
    metrics
}

fn samples(state: &AgentState, metrics: &mut Snapshot) {
    if state.samples.is_empty() {
        // Nothing was sampled yet: a series that is not there is no 0.
        metrics.counter(SAMPLES, &[], 0);
    }
    for (event, &count) in &state.samples {
        metrics.counter(SAMPLES, &[("event", event)], count);
    }
    for ((event, reason), &count) in &state.lost {
        metrics.counter(LOST, &[("event", event), ("reason", reason)], count);
    }
    metrics.counter(FILTERED, &[], state.filtered);
    rules(state, metrics);
    metrics.counter(STACKS, &[("unwound.in", "kernel")], state.all_samples().saturating_sub(state.continued));
    metrics.counter(STACKS, &[("unwound.in", "user")], state.continued);
    let (frames, searched) = state.frames;
    metrics.counter(FRAMES, &[("rule", "cached")], frames.saturating_sub(searched));
    metrics.counter(FRAMES, &[("rule", "searched")], searched);
    for (reason, &count) in &state.unfinished {
        metrics.counter(UNFINISHED, &[("reason", reason)], count);
    }
    metrics.counter(EVENTS_LOST, &[], state.events_lost);
    for (reason, &count) in &state.trouble {
        metrics.counter(TROUBLE, &[("reason", reason)], count);
    }
    for (&(runtime, reason), &count) in &state.refused {
        metrics.counter(REFUSED, &[("runtime", runtime), ("reason", reason)], count);
    }
    let (started, left_behind, set_aside) = state.readers;
    metrics.counter(READERS, &[], started);
    metrics.gauge(READERS_LEFT, &[], left_behind);
    metrics.gauge(SET_ASIDE, &[], set_aside);
    let SendersState { started, ended } = &state.senders;
    for (exporter, &count) in started {
        metrics.counter(SENDERS, &[("exporter", exporter)], count);
    }
    for ((exporter, reason), &count) in ended {
        metrics.counter(SENDERS_ENDED, &[("exporter", exporter), ("reason", reason)], count);
    }
    for (reason, &count) in &state.name_trouble {
        metrics.counter(NAME_TROUBLE, &[("reason", reason)], count);
    }
    for (reason, &count) in &state.resource_trouble {
        metrics.counter(RESOURCE_TROUBLE, &[("reason", reason)], count);
    }
}

fn rules(state: &AgentState, metrics: &mut Snapshot) {
    for ((processor, why), &count) in &state.filtered_by_rules {
        metrics.counter(FILTERED_BY_RULES, &[("processor", processor), ("reason", why)], count);
    }
    for ((processor, rule), tally) in &state.rules {
        let of: [(&'static str, &str); 2] = [("processor", processor), ("rule", rule)];
        metrics.counter(RULES_MATCHED, &of, tally.matched);
        metrics.counter(RULES_DROPPED, &of, tally.dropped);
        metrics.counter(RULES_ERRORS, &of, tally.errors);
        metrics.counter(RULES_TIME, &of, tally.time.as_secs_f64());
    }
}

fn own(state: &AgentState, metrics: &mut Snapshot) {
    metrics.gauge(RATE, &[], state.rate);
    metrics.gauge(RATE_CONFIGURED, &[], state.configured_rate);
    for (client, &rate) in &state.requested_rates {
        metrics.gauge(RATE_REQUESTED, &[("client", client)], rate);
    }
    for (outcome, &count) in &state.reloads {
        metrics.counter(RELOADS, &[("outcome", outcome)], count);
    }
    metrics.gauge(SAMPLING, &[], u64::from(state.sampling));
    for (&(process, wall), &stands) in &state.confinement {
        metrics.gauge(CONFINEMENT, &[("process", process), ("wall", wall)], u64::from(stands));
    }
    metrics.gauge(SHED, &[], state.shed_level);
    metrics.up_down(PROCESSES, &[], state.processes);
    for (cache, &bytes) in &state.caches {
        metrics.up_down(CACHE, &[("cache", cache)], bytes);
    }
    for (map, &bytes) in &state.maps {
        metrics.up_down(MAP, &[("map", map)], bytes);
    }
    for (table, &entries) in &state.tables {
        metrics.up_down(TABLE, &[("table", table)], entries);
    }
    metrics.counter(CPU, &[("cpu.mode", "user")], state.cpu.user);
    metrics.counter(CPU, &[("cpu.mode", "kernel")], state.cpu.kernel);
    metrics.counter(CPU, &[("cpu.mode", "bpf")], state.cpu.bpf);
    metrics.up_down(MEMORY, &[], state.memory_bytes);
    if let Some(limit) = state.memory_limit {
        metrics.up_down(MEMORY_LIMIT, &[], limit);
    }
    if let Some(limit) = state.cpu_limit {
        metrics.gauge(CPU_LIMIT, &[], limit);
    }
    metrics.up_down(FILES, &[], state.file_descriptors);
    metrics.gauge(UPTIME, &[], state.uptime_seconds);
}

fn detection(state: &DetectionState, metrics: &mut Snapshot) {
    for (&(of, event), &count) in &state.events {
        metrics.counter(DETECTION_EVENTS, &[("of", of), ("event", event)], count);
    }
    for (of, &count) in &state.series {
        metrics.up_down(DETECTION_SERIES, &[("of", of)], count);
    }
    for (reason, &count) in &state.skipped {
        metrics.counter(DETECTION_SKIPPED, &[("reason", reason)], count);
    }
    metrics.counter(DETECTION_UNNAMED, &[], state.unnamed);
    if let Some(delay) = &state.delay {
        metrics.histogram(DETECTION_DELAY, &[], delay.clone());
    }
}

fn export(exporter: &ExporterState, metrics: &mut Snapshot) {
    let name = ("exporter", exporter.name.as_str());
    metrics.counter(EXPORT_SAMPLES, &[name, ("outcome", "delivered")], exporter.sent_samples);
    metrics.counter(EXPORT_SAMPLES, &[name, ("outcome", "rejected")], exporter.rejected_samples);
    for (reason, &count) in &exporter.dropped_samples {
        metrics.counter(EXPORT_SAMPLES, &[name, ("outcome", "dropped"), ("reason", reason)], count);
    }
    metrics.counter(EXPORT_REQUESTS, &[name], exporter.requests);
    metrics.counter(EXPORT_RETRIES, &[name], exporter.retries);
    metrics.counter(EXPORT_BYTES, &[name, ("form", "raw")], exporter.raw_bytes);
    metrics.counter(EXPORT_BYTES, &[name, ("form", "wire")], exporter.wire_bytes);
    if let Some(duration) = &exporter.duration {
        metrics.histogram(EXPORT_DURATION, &[name], duration.clone());
    }
    metrics.up_down(QUEUE, &[name], exporter.queued_bytes);
    metrics.up_down(QUEUE_SAMPLES, &[name], exporter.queued_samples);
    if let Some(spool) = &exporter.spool {
        metrics.up_down(SPOOL, &[name], spool.bytes);
        metrics.up_down(SPOOL_RECORDS, &[name], spool.records);
        metrics.counter(SPOOL_SET_ASIDE, &[name], spool.set_aside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_metric() {
        let page = include_str!("../../docs/telemetry.md");
        for Description { name, .. } in ALL {
            assert!(page.contains(&format!("`{name}`")), "docs/telemetry.md lacks {name}");
        }
    }

    #[test]
    fn names_are_unlike_and_helps_are_sentences() {
        for (index, Description { name, help, .. }) in ALL.iter().enumerate() {
            assert!(ALL.iter().skip(index + 1).all(|other| other.name != *name), "{name} twice");
            assert!(
                help.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit()) && !help.ends_with('.'),
                "{help}"
            );
        }
    }

    #[test]
    fn refused_runtimes_are_told_by_runtime_and_reason() {
        let state = AgentState { refused: [(("PyPy", "not followed"), 3)].into(), ..AgentState::default() };
        let told = format!("{:?}", of(&state).0.iter().find(|metric| metric.description == REFUSED));
        for word in ["PyPy", "not followed", "3"] {
            assert!(told.contains(word), "no {word} in {told}");
        }
    }

    #[test]
    fn an_empty_state_is_told_too() {
        let snapshot = of(&AgentState::default());
        assert!(snapshot.0.iter().any(|metric| metric.description == SAMPLES));
    }
}
