//! One sampling session: the only place where samples, side band and tables meet.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use profiler_bpf::record::Sample;
use profiler_bpf::sideband::{Event, Kind, Sideband};
use profiler_bpf::{Batch, Counter, Sampler, Source, Targets, online_cpus};
use profiler_targets::TargetRules;
use profiler_unwinders::executable::{Executable, Mapper};
use profiler_unwinders::maps::Mapping;
use profiler_unwinders::process::{Clock, Process, ProcessTable};
use profiler_unwinders::publish::Publisher;
use profiler_unwinders::reading::{Reading, Troubles};
use rustc_hash::{FxHashMap, FxHashSet};

use super::aggregate::{Aggregate, Frame, Image};
use super::chosen::Chosen;
use super::collect::{Collector, Intake, SourceIntake};
use super::images::{ImageFacts, Images};
use super::memory::{Budgets, MemoryUse, TableUse};
use super::resolve;
use super::ruled::Ruled;
use super::totals::{SourceTotals, Tallies, Tally, Totals};
use super::window::Window;

/// Time given to scanning processes that wait for it, a step, ns.
const SCAN_BUDGET_NS: u128 = 10_000_000;
/// Distance between looks at which CPUs are online, ns.
const CPU_CHECK_NS: u64 = 200_000_000;
/// Distance between looks at what can be forgotten, ns.
const TIDY_NS: u64 = 1_000_000_000;
/// Chosen processes are looked at eagerly for this long after the start, and after each fork or exec of theirs.
const HURRY: Duration = Duration::from_secs(1);
/// Chosen processes that are looked at eagerly.
const MAX_EAGER: usize = 4096;

/// What a linker of glibc's links with nearly every program.
const C_LIBRARY: &str = "libc.so.6";

/// How to run a session.
#[derive(Debug)]
pub struct SessionOptions {
    /// The kernel half.
    pub sampler: profiler_bpf::Options,
    /// Bytes that the parts may take.
    pub budgets: Budgets,
    /// Bytes of side-band ring, a CPU.
    pub sideband_bytes: usize,
    /// Who opens and parses what belongs to targets.
    pub reading: Box<dyn Reading>,
}

/// A running session.
pub struct Session {
    pub(super) sampler: Sampler,
    collector: Collector,
    pub(super) processes: ProcessTable,
    pub(super) reading: Box<dyn Reading>,
    /// Of what went wrong with it, what is another session's.
    troubles_before: Troubles,
    pub(super) publisher: Publisher,
    pub(super) window: Window,
    /// What makes samples; a sample names its source by its place here.
    pub(super) sources: Vec<Source>,
    /// Of each source.
    pub(super) tallies: Vec<Tallies>,
    pub(super) chosen: Chosen,
    pub(super) ruled: Ruled,
    pub(super) images: Images,
    pub(super) rescans: FxHashMap<u32, u64>,
    /// Processes that were chosen by id, and their children; their tables are made before their first samples.
    eager: FxHashSet<u32>,
    is_eager: bool,
    /// A process that has yet to become the command that is recorded.
    pub(super) launcher: Option<u32>,
    pub(super) totals: Totals,
    pub(super) budgets: Budgets,
    /// Whether an interpreter's own C functions are shown where its functions call each other.
    pub(super) all_runtime_frames: bool,
    /// The sources whose part of the aggregate is beyond its budget.
    pub(super) full: Vec<bool>,
    sideband_bytes: usize,
    next_cpu_check: u64,
    next_tidying: u64,
}

impl Session {
    /// Loads the kernel half and opens the side band; [`Self::start`] starts the clocks.
    ///
    /// # Errors
    /// The kernel or its privileges do not permit it.
    pub fn new(options: SessionOptions) -> Result<Self, profiler_bpf::Error> {
        let eager: FxHashSet<u32> = match &options.sampler.targets {
            Targets::Processes(pids) => pids.iter().copied().collect(),
            _ => FxHashSet::default(),
        };
        let sampler = Sampler::load(options.sampler)?;
        let cpus = online_cpus()?;
        let sideband = Sideband::open(&cpus, options.sideband_bytes)?;
        let collector = Collector::start(sampler.rings()?, sideband, options.budgets.waiting)?;
        let tables = sampler.tables()?;
        let publisher = Publisher::of(tables, options.budgets.rows)?;
        let mut processes = ProcessTable::new();
        processes.queue_unknown();
        Ok(Self {
            collector,
            processes,
            troubles_before: options.reading.troubles(),
            reading: options.reading,
            publisher,
            window: Window::default(),
            tallies: vec![Tallies::default(); sampler.sources().len()],
            full: vec![false; sampler.sources().len()],
            sources: sampler.sources().to_vec(),
            chosen: Chosen::default(),
            ruled: Ruled::default(),
            images: Images::default(),
            rescans: FxHashMap::default(),
            is_eager: !eager.is_empty(),
            launcher: None,
            eager,
            totals: Totals::default(),
            budgets: options.budgets,
            all_runtime_frames: false,
            sideband_bytes: options.sideband_bytes.saturating_mul(cpus.len()),
            next_cpu_check: u64::MAX,
            next_tidying: 0,
            sampler,
        })
    }

    /// Samples of `pid` count from its next exec on: until then it is not what is to be recorded.
    pub fn begin_with_exec(&mut self, pid: u32) {
        self.launcher = Some(pid);
    }

    /// Samples the same events at other rates, live. Samples tell what they are worth, so that [`Self::take_aggregate`] tells them
    /// apart.
    ///
    /// # Errors
    /// The kernel does not allow a rate, or these are other events.
    pub fn set_sources(&mut self, sources: Vec<Source>) -> Result<(), profiler_bpf::Error> {
        let changed = self.sampler.set_sources(sources);
        self.sources = self.sampler.sources().to_vec();
        changed
    }

    /// The same for the first source, and all others in proportion.
    ///
    /// # Errors
    /// The kernel does not allow the rate.
    pub fn set_frequency(&mut self, frequency: u64) -> Result<(), profiler_bpf::Error> {
        let changed = self.sampler.set_frequency(frequency);
        self.sources = self.sampler.sources().to_vec();
        changed
    }

    /// Whether to show the C functions by which an interpreter's functions call each other, its evaluation loop among them.
    pub fn show_all_runtime_frames(&mut self, all: bool) {
        self.all_runtime_frames = all;
    }

    /// Samples only processes that `rules` allow, from now on. The kernel half filters if it was loaded with
    /// [`Targets::Rules`], else only this side does.
    pub fn set_targets(&mut self, rules: TargetRules) {
        self.chosen.set(rules, &mut self.sampler);
    }

    /// Learns what these processes map and how to unwind it, so that their first samples are whole too.
    pub fn prepare(&mut self, pids: &[u32]) {
        for &pid in pids {
            // One that ends meanwhile has no samples either.
            if self.read_process(pid) {
                self.publish(pid, Clock::monotonic_now());
                self.publisher.preload(pid, self.reading.as_mut());
            }
        }
    }

    /// Learns how to unwind the program at `path`, which `pid` is about to become, what links it, and the C library that lies beside that:
    /// reading a large program takes longer than a short one lives.
    pub fn expect(&mut self, pid: u32, path: &Path) {
        let Some(program) = self.expect_file(pid, path) else { return };
        let linker = program.interpreter.as_deref().map(|linker| Path::new(OsStr::from_bytes(linker)));
        // The link that programs name may lie elsewhere.
        let Some(linker) = linker.and_then(|linker| linker.canonicalize().ok()) else { return };
        self.expect_file(pid, &linker);
        self.expect_file(pid, &linker.with_file_name(C_LIBRARY));
    }

    /// What cannot be found now is told of when it is mapped.
    fn expect_file(&mut self, pid: u32, path: &Path) -> Option<Arc<Executable>> {
        let process = Mapper { pid, alive: true, exe: &[], parent: 0 };
        let file = Mapping::expected(path).ok()?;
        self.publisher.expect(&process, &file, self.reading.as_mut(), Clock::monotonic_now())
    }

    /// Starts the clocks of all CPUs.
    ///
    /// # Errors
    /// A perf event is refused.
    pub fn start(&mut self) -> Result<(), profiler_bpf::Error> {
        if self.is_eager {
            self.collector.hurry(HURRY);
        }
        self.sampler.follow_cpus(&online_cpus()?)?;
        self.next_cpu_check = Clock::monotonic_now() + CPU_CHECK_NS;
        Ok(())
    }

    /// Stops the clocks and works off what is still in the ring.
    ///
    /// # Errors
    /// The ring cannot be read.
    pub fn finish(&mut self) -> Result<(), profiler_bpf::Error> {
        self.sampler.stop();
        self.next_cpu_check = u64::MAX;
        self.collector.stop();
        self.step(Duration::ZERO)
    }

    /// Works off what comes in within `timeout`; returns early when that is something. To be called several times a second.
    ///
    /// # Errors
    /// The ring cannot be read.
    pub fn step(&mut self, timeout: Duration) -> Result<(), profiler_bpf::Error> {
        let intakes = self.collector.take(timeout)?;
        let now = Clock::monotonic_now();
        for intake in intakes {
            self.work_off(&intake, now);
        }
        self.scan_waiting(now);
        for pid in self.publisher.due(now) {
            self.publish(pid, now);
        }
        for retired in self.processes.retire(now) {
            self.images.retired(retired.serial);
            if self.processes.get(retired.pid).is_none() {
                self.forget(retired.pid, now);
            }
        }
        if now >= self.next_cpu_check {
            self.next_cpu_check = now + CPU_CHECK_NS;
            self.follow_cpus();
        }
        if now >= self.next_tidying {
            self.next_tidying = now + TIDY_NS;
            self.forget_rescans(now);
            self.read_clock();
            self.touch_sampled(now);
            self.publisher.tidy(now);
        }
        Ok(())
    }

    /// What is sampled keeps its rows; most samples are known by their raw stacks and ask the unwinder nothing.
    fn touch_sampled(&mut self, now: u64) {
        if !self.publisher.native().is_tight() {
            return;
        }
        let aggregate = &self.window.aggregate;
        for series in &aggregate.series {
            let recent = series.samples.iter().rev().take_while(|sample| sample.time + 2 * TIDY_NS >= now);
            let stacks: FxHashSet<_> = recent.map(|sample| sample.stack).collect();
            let stacks = stacks.into_iter().filter_map(|stack| aggregate.stacks.get(stack as usize));
            let frames: FxHashSet<_> = stacks.flat_map(|frames| frames.iter()).copied().collect();
            for frame in frames {
                if let Some(&Frame::Native { executable, .. }) = aggregate.frames.get(frame as usize) {
                    self.publisher.native().touch(executable, now);
                }
            }
        }
    }

    fn forget(&mut self, pid: u32, now: u64) {
        self.publisher.forget(pid, now);
        self.chosen.forget(pid, &mut self.sampler);
        self.eager.remove(&pid);
        self.rescans.remove(&pid);
    }

    fn follow_cpus(&mut self) {
        if let Err(error) = online_cpus().and_then(|cpus| self.sampler.follow_cpus(&cpus)) {
            crate::once_a_minute!(warn, "cpus", %error, "An event is not sampled on a CPU that came online.");
        }
    }

    /// Works off samples as if they had come out of the ring now, and gives them back: for measuring what that takes.
    pub fn replay(&mut self, samples: Batch) -> Batch {
        let sources = vec![SourceIntake { samples, dropped: 0 }];
        let mut intake = Intake { sources, events: Vec::new() };
        self.work_off(&intake, Clock::monotonic_now());
        intake.sources.pop().map(|source| source.samples).unwrap_or_default()
    }

    /// What puts `records` into the ring of this session's kernel half, and wakes its reader in time or, if not `wake`, never; see
    /// [`profiler_bpf::feed`].
    ///
    /// # Errors
    /// A record is too long, or the kernel does not permit it.
    #[cfg(feature = "feed")]
    pub fn feed(&self, records: &Batch, wake: bool) -> Result<profiler_bpf::feed::Feed, profiler_bpf::Error> {
        self.sampler.feed(records, wake)
    }

    /// Samples and events in the order of their times.
    fn work_off(&mut self, intake: &Intake, now: u64) {
        self.look_at_budgets();
        let mut samples: Vec<Sample<'_>> = Vec::new();
        for (number, (source, tallies)) in intake.sources.iter().zip(&mut self.tallies).enumerate() {
            let before = samples.len();
            let own = |sample: &Sample<'_>| usize::from(sample.head.source) == number;
            samples.extend(source.samples.samples().filter(own));
            tallies[Tally::Malformed] += (source.samples.len() - (samples.len() - before)) as u64;
            tallies[Tally::IntakeDropped] += source.dropped;
        }
        samples.sort_by_key(|sample| sample.head.time);
        if self.is_eager {
            self.look_ahead(&intake.events);
        }
        let mut events = intake.events.iter().peekable();
        for sample in &samples {
            while let Some(event) = events.next_if(|event| event.time <= sample.head.time) {
                self.apply(event, now);
            }
            self.sample(sample, now);
        }
        for event in events {
            self.apply(event, now);
        }
        if self.is_eager {
            self.prepare_changed(&intake.events, now);
        }
    }

    /// Which sources have no room. One that is alone has all of it; of several each has an equal share, so that none fills the room of
    /// another.
    fn look_at_budgets(&mut self) {
        let sources = self.full.len();
        let alone = sources == 1;
        let all = if alone { self.window.aggregate.memory_bytes() } else { 0 };
        for (source, full) in self.full.iter_mut().enumerate() {
            let brought = if alone { all } else { self.window.brought(source) };
            *full = brought >= self.budgets.aggregate / sources;
        }
    }

    fn apply(&mut self, event: &Event, now: u64) {
        match event.kind {
            Kind::Lost { lost } => {
                self.totals.sideband_lost += lost;
                // The exec may be among them.
                self.launcher = None;
            }
            Kind::Exec { .. } if self.launcher == Some(event.pid) => self.launcher = None,
            _ => {}
        }
        let changes = self.processes.apply(event);
        if changes.ended {
            self.publisher.forget(event.pid, now);
            self.chosen.forget(event.pid, &mut self.sampler);
        } else if changes.new_image {
            // Whatever was decided was of the one before, which may have been at the same addresses.
            self.chosen.forget(event.pid, &mut self.sampler);
        } else if changes.name
            && let Some(process) = self.processes.get(event.pid)
        {
            self.chosen.renamed(process, &mut self.sampler);
        }
        if changes.lost {
            self.processes.queue_unknown();
            for pid in self.processes.end_missing(now) {
                self.publisher.forget(pid, now);
                self.chosen.forget(pid, &mut self.sampler);
            }
        }
    }

    /// Which of the processes that were chosen by id are new.
    fn look_ahead(&mut self, events: &[Event]) {
        let mut news = false;
        for event in events {
            match event.kind {
                Kind::Fork { parent_pid } if parent_pid != event.pid && self.eager.contains(&parent_pid) => {
                    news = true;
                    if self.eager.len() < MAX_EAGER {
                        self.eager.insert(event.pid);
                    }
                }
                Kind::Exec { .. } => news |= self.eager.contains(&event.pid),
                _ => {}
            }
        }
        if news {
            self.collector.hurry(HURRY);
        }
    }

    /// Publishes what chosen processes have mapped, before they are sampled there: a sample's copy of one stack shows nothing of
    /// another that it goes on to.
    fn prepare_changed(&mut self, events: &[Event], now: u64) {
        let mut done = FxHashSet::default();
        for event in events.iter().rev() {
            if !matches!(event.kind, Kind::Exec { .. } | Kind::Mmap(_))
                || !self.eager.contains(&event.pid)
                || !done.insert(event.pid)
            {
                continue;
            }
            let Some(process) = self.processes.get(event.pid).filter(|process| process.ended.is_none()) else {
                continue;
            };
            // What is half executed is told by its next mapping.
            if process.address_space.is_none() && !self.read_address_space(event.pid) {
                continue;
            }
            self.publish(event.pid, now);
            self.publisher.preload(event.pid, self.reading.as_mut());
        }
    }

    /// Scans processes that wait for it, as far as a step's time goes.
    fn scan_waiting(&mut self, now: u64) {
        let started = Instant::now();
        while started.elapsed().as_nanos() < SCAN_BUDGET_NS {
            let Some(pid) = self.processes.next_to_scan() else { break };
            // A process that ends meanwhile is no error.
            if self.read_process(pid) && self.publisher.has(pid) {
                self.publish(pid, now);
            }
        }
    }

    /// Brings what `/proc` says of a process now into the table; false if that cannot be had.
    pub(super) fn read_process(&mut self, pid: u32) -> bool {
        // The clock is read anew: the table takes what is older than the scan to be in it.
        let now = Clock::monotonic_now();
        let read = self.reading.scan(pid);
        self.processes.take_scan(pid, now, read).is_ok()
    }

    /// The same for what identifies the image in memory.
    fn read_address_space(&mut self, pid: u32) -> bool {
        let read = self.reading.stat(pid);
        self.processes.take_address_space(pid, read).is_ok()
    }

    /// The same for the control group; what was inherited from the parent stays where nothing can be had.
    pub(super) fn read_container(&mut self, pid: u32) {
        let read = self.reading.place(pid);
        let _ = self.processes.take_container(pid, read);
    }

    pub(super) fn publish(&mut self, pid: u32, now: u64) {
        if let Some(process) = self.processes.get(pid)
            && !process.kthread
        {
            self.publisher.publish(process, self.reading.as_mut(), now);
        }
    }

    /// Images that run code from anonymous memory.
    pub fn jit_images(&self) -> impl Iterator<Item = &Image> {
        self.window.jit_images.iter().filter_map(|&id| self.window.aggregate.images.get(id as usize))
    }

    /// Images that were sampled for the first time since the last call: once each, even if they are in every aggregate. To be asked
    /// often, since they may end any moment. An image of which the process table knows nothing is not among them.
    pub fn new_images(&mut self) -> Vec<ImageFacts> {
        self.images.take()
    }

    /// Tells of all processes again, each at its next sample.
    pub fn forget_images(&mut self) {
        self.images.forget();
    }

    /// What was seen so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let counts = self.sampler.counters().into_iter().zip(&self.tallies);
        let counts = counts.map(|(kernel, &session)| SourceTotals { kernel, session });
        let sources = self.sources.iter().map(|source| source.event.to_string()).zip(counts).collect();
        let reading = self.reading.troubles().since(&self.troubles_before);
        let refused = self.publisher.refused().clone();
        let ruled_out = self.ruled.dropped(self.sampler.ruled_out());
        let refused_mappings = self.processes.refused_mappings();
        Totals { sources, refused_mappings, reading, refused, ruled_out, ..self.totals.clone() }
    }

    /// Samples of CPU time of processes of which a rule drops all.
    #[must_use]
    pub fn ruled_out_of_clock(&self) -> u64 {
        let clock = self.sources.iter().position(|source| source.event.is_clock());
        let counters = clock.and_then(|at| self.sampler.counters().into_iter().nth(at));
        counters.map_or(0, |counters| counters[Counter::RuledOut])
    }

    /// What was published and loaded, and what could not be.
    #[must_use]
    pub fn unwind_stats(&self) -> profiler_unwinders::publish::Stats {
        self.publisher.stats()
    }

    /// Who has the files of the executables that were sampled.
    pub fn reading(&mut self) -> &mut dyn Reading {
        self.reading.as_mut()
    }

    /// Reads the clocks anew: Unix time may have been stepped.
    pub fn read_clock(&mut self) -> Clock {
        self.processes.set_clock(Clock::read());
        self.clock()
    }

    /// The clock that turns sample times into Unix times, at most some seconds old.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.processes.clock()
    }

    /// Everything sampled since it was last taken.
    #[must_use]
    pub fn aggregate(&self) -> &Aggregate {
        &self.window.aggregate
    }

    /// Everything sampled since the last call; the session starts anew.
    ///
    /// Files that no living process maps are closed here, except those of what is returned.
    pub fn take_aggregate(&mut self) -> Aggregate {
        let now = Clock::monotonic_now();
        // Names and paths that became known after the first sample of an image, and its program after the last.
        for image in &mut self.window.aggregate.images {
            let pid = image.pid;
            let same = |process: &&Process| process.serial == image.serial;
            let Some(process) = self.processes.get(pid).filter(same) else { continue };
            let can_tell = image.executable.is_none() && !process.kthread && process.ended.is_none();
            if can_tell && process.address_space.is_none() {
                // One that ends meanwhile has no further samples that could tell.
                let read = self.reading.stat(pid);
                let _ = self.processes.take_address_space(pid, read);
            }
            let Some(process) = self.processes.get(pid) else { continue };
            let executable = if can_tell {
                resolve::program(&mut self.publisher, self.reading.as_mut(), process, now)
            } else {
                image.executable.take()
            };
            *image = Image { executable, ..resolve::image(process) };
        }
        self.full.fill(false);
        let taken = self.window.take();
        self.ruled.window_ended();
        self.totals.count_unnamed(&taken);
        let processes = &self.processes;
        self.reading.close_orphans(&|pid| processes.get(pid).is_some_and(|process| process.ended.is_none()), &|id| {
            taken.executables.contains_key(&id)
        });
        taken
    }

    /// Bytes that the session takes now; walks over all processes and executables, so not for every step.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        MemoryUse {
            rows: self.publisher.native().row_bytes(),
            unwinder: self.publisher.memory_bytes(),
            executables: self.reading.in_hand().memory_bytes,
            processes: self.processes.memory_bytes(),
            aggregate: self.window.aggregate.memory_bytes(),
            raw_stacks: self.window.raw_bytes(),
            waiting: self.collector.waiting(),
            ring: self.sampler.ring_bytes(),
            sideband: self.sideband_bytes,
            kernel_maps: self.sampler.map_bytes(),
        }
    }

    /// How full the tables are.
    #[must_use]
    pub fn table_use(&self) -> TableUse {
        let in_hand = self.reading.in_hand();
        TableUse {
            kernel: self.publisher.table_use(),
            images: self.processes.images(),
            sampled_images: self.images.len(),
            executables: in_hand.executables,
            open_files: in_hand.open_files,
            verdicts: self.chosen.len(),
        }
    }
}

/// The image that ran under `pid` at `time`. A process that was scanned before its fork and exec were read is known only from the
/// scan on: then that image is the nearest.
pub(super) fn process_at(processes: &ProcessTable, pid: u32, time: u64) -> Option<&Process> {
    processes.get_at(pid, time).or_else(|| processes.get(pid))
}
