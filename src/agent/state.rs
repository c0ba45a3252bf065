//! What the agent knows of itself, gathered for its metrics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use profiler_bpf::{Counter, RunTime, online_cpus};
use profiler_confine::Force;
use profiler_export::{ExportStats, FilesStats, LATENCY_BOUNDS};
use profiler_limits::{Client, Shed};
use profiler_reader::Seen;

use super::Agent;
use super::sampling::Sampling;
use super::sinks::SinkStats;
use crate::confinement::Confined;
use crate::pipeline::{MemoryUse, TableUse, Tally, losses};
use crate::rules::EARLY;
use crate::telemetry::metric::Histogram;
use crate::telemetry::usage::{self, BpfTime, BpfUse, CpuTime, HostCpu};
use crate::telemetry::{AgentState, DetectionState, ExporterState, SendersState, SpoolState};

/// Between two looks at memory and at the maps of the kernel half: a look costs some microseconds a descriptor.
const LOOK: Duration = Duration::from_secs(5);
/// The kernel counts run times for one look in so many.
const COUNTED: u64 = 12;

/// What the profiler itself uses.
pub struct OwnUse {
    begun: Instant,
    looked: Option<Instant>,
    looks: u64,
    counting: Option<RunTime>,
    bpf: BpfUse,
    bpf_time: BpfTime,
    host: HostCpu,
    last: Own,
}

/// What was seen at the last looks.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// CPU time since the start.
    pub cpu: CpuTime,
    /// Memory, kernel maps included, bytes.
    pub memory_bytes: u64,
    /// CPUs online.
    pub cpus: u32,
    /// Share of the host's CPU time in use.
    pub host_cpu: Option<f64>,
    /// Descriptors.
    pub file_descriptors: u64,
    /// Memory by part.
    pub memory: MemoryUse,
    /// Entries by table.
    pub tables: TableUse,
}

impl OwnUse {
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            looked: None,
            looks: 0,
            counting: None,
            bpf: BpfUse::default(),
            bpf_time: BpfTime::new(),
            host: HostCpu::new(),
            last: Own::default(),
        }
    }

    /// Looks, in so far as it is time to. Whoever is `restricted` waits for memory to become less, and is told each time.
    pub fn look(&mut self, sampling: &Sampling, namer: &Seen, senders: &[u32], restricted: bool) -> &Own {
        let others =
            || sampling.reader().stats().pid.into_iter().chain(namer.stats().pid).chain(senders.iter().copied());
        let of_others = || others().filter_map(usage::memory_of).sum::<u64>();
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if due {
            self.looked = Some(Instant::now());
            self.bpf = BpfUse::of_this_process();
            let totals = sampling.totals();
            let runs = losses::runs(&totals);
            self.last.cpu.bpf = self.bpf_time.observe(&self.bpf, runs);
            // Counting needs a right of its own and costs every BPF program of the host: a second in a minute will do.
            self.counting = if self.looks.is_multiple_of(COUNTED) { RunTime::count().ok() } else { None };
            self.looks += 1;
            self.last.memory_bytes = usage::own_memory(&self.bpf).unwrap_or_default() + of_others();
            self.last.file_descriptors = usage::own_file_descriptors();
            self.last.memory = sampling.memory();
            self.last.tables = sampling.table_use();
            self.last.cpus = online_cpus().map_or(1, |cpus| cpus.len() as u32);
        } else {
            self.counting = None;
            // The governor looks each second: time that came in steps of five would be calm for four of them.
            self.last.cpu.bpf = self.bpf_time.estimate(losses::runs(&sampling.totals()));
            if restricted && let Some(bytes) = usage::own_memory(&self.bpf) {
                self.last.memory_bytes = bytes + of_others();
            }
        }
        if let Some(mut cpu) = usage::own_cpu() {
            // Readers and senders are the only children. Those that were waited for count with us, and those that run by themselves.
            let running = others().filter_map(usage::cpu_of);
            for more in usage::cpu_of_children().into_iter().chain(running) {
                (cpu.user, cpu.kernel) = (cpu.user + more.user, cpu.kernel + more.kernel);
            }
            self.last.cpu = CpuTime { bpf: self.last.cpu.bpf, ..cpu };
        }
        if let Some(share) = self.host.look() {
            self.last.host_cpu = Some(share);
        }
        &self.last
    }
}

/// The state of `agent`.
pub fn of(agent: &Agent) -> AgentState {
    let totals = agent.sampling.totals();
    let unwinder = agent.sampling.unwind_stats();
    let (memory, tables) = (&agent.own.last.memory, &agent.own.last.tables);
    let report = agent.publisher.report();
    let own = &agent.own;
    let (reader, namer) = (agent.sampling.reader().stats(), agent.publisher.namer().stats());
    let bytes = |bytes: usize| bytes as u64;
    let detection = agent.detection.report();
    let resources = agent.resources.stats();
    let network = agent.network.stats();
    AgentState {
        samples: totals.sources.iter().map(|(event, of)| (event.clone(), of.session[Tally::Kept])).collect(),
        lost: losses::lost(&totals),
        filtered: totals.kernel(Counter::Filtered) + totals.session(Tally::Filtered),
        frames: (totals.kernel(Counter::Frames), totals.kernel(Counter::RuleSearches)),
        continued: totals.continued,
        unfinished: totals.incomplete.clone(),
        events_lost: totals.sideband_lost,
        trouble: [
            ("kernel stack not taken", totals.kernel(Counter::KernelStackFailed)),
            ("file unreadable", unwinder.failed),
            ("over the row budget", unwinder.over_budget),
            ("process table full", unwinder.unpublished),
            ("runtime left out", unwinder.runtimes_left_out),
            ("more mappings than are kept", totals.refused_mappings),
            ("reader given up", totals.reading.given_up),
            ("reader died", totals.reading.died),
            ("target set aside", totals.reading.refused),
        ]
        .into(),
        readers: (
            reader.started + namer.started,
            (reader.left_behind + namer.left_behind) as u64,
            (reader.set_aside + namer.set_aside) as u64,
        ),
        senders: SendersState { started: network.started, ended: network.ended },
        refused: totals.refused.clone(),
        name_trouble: report.name_losses.clone(),
        resource_trouble: [
            ("process gone", resources.gone),
            ("process changed", resources.changed),
            ("not permitted", resources.denied),
            ("target set aside", resources.set_aside),
            ("environment cut", resources.cut),
            ("attributes dropped", resources.dropped_attributes),
            ("given up for others", resources.evicted),
        ]
        .into(),
        caches: [
            ("rows", bytes(memory.rows)),
            ("unwinder", bytes(memory.unwinder)),
            ("executables", bytes(memory.executables)),
            ("processes", bytes(memory.processes)),
            ("aggregate", bytes(memory.aggregate)),
            ("stacks", bytes(memory.raw_stacks)),
            ("intake", bytes(memory.waiting)),
            ("names", report.names_bytes),
            ("resources", bytes(resources.bytes)),
            ("detection", detection.bytes + bytes(agent.sampling.tap_bytes())),
        ]
        .into(),
        maps: own.bpf.maps.clone(),
        tables: [
            ("processes", tables.kernel.processes as u64),
            ("mappings", tables.kernel.mappings as u64),
            ("executables", tables.kernel.native.executables as u64),
            ("images", tables.images as u64),
            ("files", tables.open_files as u64),
            ("verdicts", tables.verdicts as u64),
        ]
        .into(),
        processes: tables.images as u64,
        cpu: own.last.cpu,
        memory_bytes: own.last.memory_bytes,
        file_descriptors: own.last.file_descriptors,
        uptime_seconds: own.begun.elapsed().as_secs_f64(),
        rate: if agent.sampling.is_on() { agent.sampling.frequency() } else { 0 },
        configured_rate: agent.arbiter.configured(),
        rate_ruled_by: agent.arbiter.ruled_by().name(),
        requested_rates: agent.arbiter.requests().map(|(client, request)| (client.name(), request.hz)).collect(),
        reloads: [("taken", agent.reloads.taken), ("refused", agent.reloads.refused)].into(),
        sampling: agent.sampling.is_on(),
        confinement: agent.confined().iter().flat_map(walls).fold(BTreeMap::new(), |mut all, (of, stands)| {
            *all.entry(of).or_insert(true) &= stands;
            all
        }),
        shed_level: agent.decision.and_then(|decision| decision.shed).map_or(0, Shed::level),
        memory_limit: agent.config.limits.memory_bytes,
        cpu_limit: agent.config.limits.cpu_fraction,
        host_cpu: own.last.host_cpu,
        detection: DetectionState {
            events: detection.events,
            series: detection.series,
            skipped: detection.skipped,
            unnamed: detection.unnamed,
            delay: Some(detection.delay),
        },
        filtered_by_rules: {
            let early = totals.ruled_out.iter().map(|(name, count)| ((name.clone(), EARLY), *count));
            report.rules.filtered.clone().into_iter().chain(early).collect()
        },
        rules: report.rules.by_rule.clone(),
        exporters: agent.sinks.stats().into_iter().map(|(name, stats)| exporter(name, stats)).collect(),
    }
}

/// Whether each wall stands that the process asked for, by process and wall.
fn walls(confined: &Confined) -> impl Iterator<Item = ((&'static str, &'static str), bool)> {
    let asked = confined.report.entries.iter().filter(|entry| entry.force != Force::NotAsked);
    asked.map(|entry| ((confined.name, entry.wall.name()), matches!(entry.force, Force::Full(_))))
}

/// One line for `systemctl status`.
pub fn status(state: &AgentState) -> String {
    let (samples, lost): (u64, u64) = (state.all_samples(), state.lost.values().sum());
    let delivered: u64 = state.exporters.iter().map(|exporter| exporter.sent_samples).sum();
    if state.sampling {
        let by = if state.rate_ruled_by == Client::Configured.name() {
            String::new()
        } else {
            format!(" ({}; {} Hz configured)", state.rate_ruled_by, state.configured_rate)
        };
        format!("Sampling at {} Hz{by}: {samples} samples, {lost} lost, {delivered} delivered", state.rate)
    } else {
        format!("Not sampling: {samples} samples so far, {lost} lost, {delivered} delivered")
    }
}

fn exporter(name: String, stats: SinkStats) -> ExporterState {
    match stats {
        SinkStats::Otlp(stats) => receiver(name, *stats),
        SinkStats::Files(stats) => files(name, stats),
    }
}

fn receiver(name: String, stats: ExportStats) -> ExporterState {
    let duration = Histogram::from_parts(&LATENCY_BOUNDS, stats.latency.buckets.to_vec(), stats.latency.sum_seconds);
    ExporterState {
        name,
        sent_samples: stats.sent_samples,
        rejected_samples: stats.rejected_samples,
        requests: stats.sent_requests,
        retries: stats.retries,
        raw_bytes: stats.sent_raw_bytes,
        wire_bytes: stats.sent_wire_bytes,
        duration,
        queued_bytes: stats.queued_bytes,
        queued_samples: stats.queued_samples,
        spool: stats.spool.map(|spool| SpoolState {
            bytes: spool.bytes,
            records: spool.records,
            set_aside: spool.set_aside,
        }),
        dropped_samples: stats.dropped_samples,
    }
}

fn files(name: String, stats: FilesStats) -> ExporterState {
    ExporterState {
        name,
        sent_samples: stats.written_samples,
        requests: stats.written_files,
        raw_bytes: stats.written_bytes,
        wire_bytes: stats.written_bytes,
        dropped_samples: [("not written", stats.dropped_samples)].into(),
        ..ExporterState::default()
    }
}
