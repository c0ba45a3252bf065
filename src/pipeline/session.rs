//! One sampling session: the only place where samples, side band and tables meet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use profiler_bpf::native::Walk;
use profiler_bpf::record::{Sample, UnwindEnd, UserFrame, comm_bytes};
use profiler_bpf::sideband::{Event, Kind, Sideband};
use profiler_bpf::{Counters, Sampler, online_cpus};
use profiler_unwinders::executable::Executables;
use profiler_unwinders::native::{Located, NativeUnwinder};
use profiler_unwinders::process::{AddressSpace, Clock, Process, ProcessTable};
use rustc_hash::FxHashMap;

use super::aggregate::{Aggregate, Frame, FrameId, Image, ImageId, RawSample, StackId, Thread};
use super::collect::{Collector, Intake};

/// Time given to scanning processes that wait for it, a step, ns.
const SCAN_BUDGET_NS: u128 = 10_000_000;
/// Distance between looks at which CPUs are online, ns.
const CPU_CHECK_NS: u64 = 1_000_000_000;
/// Stacks remembered by their raw words, to skip resolving what was seen before.
const MAX_RAW_STACKS: usize = 16_384;
/// A process whose mappings do not explain a stack is scanned again at most this often, ns.
const RESCAN_NS: u64 = 200_000_000;

/// How to run a session.
#[derive(Debug)]
pub struct SessionOptions {
    /// The kernel half.
    pub sampler: profiler_bpf::Options,
    /// Bytes of unwind rows, kernel and user space together (they are shared).
    pub row_budget: usize,
    /// Bytes of side-band ring, a CPU.
    pub sideband_bytes: usize,
}

/// What a session has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Samples.
    pub samples: u64,
    /// Samples whose stack is not whole, by reason.
    pub incomplete: BTreeMap<&'static str, u64>,
    /// Samples that user space unwound.
    pub continued: u64,
    /// Samples dropped because they came in faster than they could be worked off.
    pub intake_dropped: u64,
    /// Side-band events lost.
    pub sideband_lost: u64,
    /// The kernel half's counters.
    pub kernel: Counters,
}

impl Totals {
    /// Samples with unfinished stacks.
    #[must_use]
    pub fn incomplete(&self) -> u64 {
        self.incomplete.values().sum()
    }
}

/// A running session.
pub struct Session {
    sampler: Sampler,
    collector: Collector,
    processes: ProcessTable,
    executables: Executables,
    unwinder: NativeUnwinder,
    aggregate: Aggregate,
    raw_stacks: FxHashMap<RawKey, StackId>,
    rescans: FxHashMap<u32, u64>,
    jit_images: Vec<ImageId>,
    totals: Totals,
    next_cpu_check: u64,
}

/// A raw stack of one version of one image's mappings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RawKey {
    serial: u32,
    version: u32,
    end: UnwindEnd,
    words: Box<[u64]>,
    kernel: u32,
}

impl Session {
    /// Loads the kernel half and opens the side band; [`Self::start`] starts the clocks.
    ///
    /// # Errors
    /// The kernel or its privileges do not permit it.
    pub fn new(options: SessionOptions) -> Result<Self, profiler_bpf::Error> {
        let cpus = online_cpus()?;
        let sampler = Sampler::load(options.sampler)?;
        let sideband = Sideband::open(&cpus, options.sideband_bytes)?;
        let collector = Collector::start(sampler.ring()?, sideband)?;
        let unwinder = NativeUnwinder::new(sampler.tables()?, options.row_budget)?;
        let mut processes = ProcessTable::new();
        processes.queue_unknown();
        Ok(Self {
            sampler,
            collector,
            processes,
            executables: Executables::new(),
            unwinder,
            aggregate: Aggregate::default(),
            raw_stacks: FxHashMap::default(),
            rescans: FxHashMap::default(),
            jit_images: Vec::new(),
            totals: Totals::default(),
            next_cpu_check: 0,
        })
    }

    /// Learns what these processes map and how to unwind it, so that their first samples are whole too.
    pub fn prepare(&mut self, pids: &[u32]) {
        for &pid in pids {
            // One that ends meanwhile has no samples either.
            if self.processes.scan(pid, Clock::monotonic_now()).is_ok() {
                self.publish(pid, Clock::monotonic_now());
                self.unwinder.preload(pid, &mut self.executables);
            }
        }
    }

    /// Starts the clocks of all CPUs.
    ///
    /// # Errors
    /// A perf event is refused.
    pub fn start(&mut self) -> Result<(), profiler_bpf::Error> {
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
        for retired in self.processes.retire(now) {
            if self.processes.get(retired.pid).is_none() {
                self.unwinder.forget(retired.pid, now);
                self.rescans.remove(&retired.pid);
            }
        }
        if now >= self.next_cpu_check {
            self.next_cpu_check = now + CPU_CHECK_NS;
            self.follow_cpus();
        }
        Ok(())
    }

    fn follow_cpus(&mut self) {
        if let Err(error) = online_cpus().and_then(|cpus| self.sampler.follow_cpus(&cpus)) {
            tracing::warn!(%error, "A CPU that came online is not sampled.");
        }
    }

    /// Samples and events in the order of their times.
    fn work_off(&mut self, intake: &Intake, now: u64) {
        self.totals.intake_dropped += intake.dropped;
        let mut samples: Vec<Sample<'_>> = intake.samples.samples().collect();
        samples.sort_by_key(|sample| sample.head.time);
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
    }

    fn apply(&mut self, event: &Event, now: u64) {
        if let Kind::Lost { lost } = event.kind {
            self.totals.sideband_lost += lost;
        }
        let changes = self.processes.apply(event);
        if changes.ended {
            self.unwinder.forget(event.pid, now);
        }
        if changes.lost {
            self.processes.queue_unknown();
            self.processes.end_missing(now);
        }
    }

    /// Scans processes that wait for it, as far as a step's time goes.
    fn scan_waiting(&mut self, now: u64) {
        let started = Instant::now();
        while started.elapsed().as_nanos() < SCAN_BUDGET_NS {
            let Some(pid) = self.processes.next_to_scan() else { break };
            // A process that ends meanwhile is no error.
            if self.processes.scan(pid, Clock::monotonic_now()).is_ok() && self.unwinder.has(pid) {
                self.publish(pid, now);
            }
        }
    }

    /// Reads what `/proc` says of a process now, unless that was done a moment ago; false if it was or the process is gone.
    fn scan(&mut self, pid: u32, now: u64) -> bool {
        // The clock is read anew: the table takes what is older than the scan to be in it.
        self.due_for_scan(pid, now) && self.processes.scan(pid, Clock::monotonic_now()).is_ok()
    }

    fn publish(&mut self, pid: u32, now: u64) {
        if let Some(process) = self.processes.get(pid)
            && !process.kthread
        {
            self.unwinder.publish(process, &mut self.executables, now);
        }
    }

    fn sample(&mut self, sample: &Sample<'_>, now: u64) {
        let head = &sample.head;
        self.totals.samples += 1;
        let known = process_at(&self.processes, head.pid, head.time);
        let ended = known.is_some_and(|process| process.ended.is_some_and(|ended| ended < head.time));
        if known.is_none_or(Process::wants_scan) || ended {
            self.scan(head.pid, now);
        }
        if head.start_stack != 0
            && self.processes.get(head.pid).is_some_and(|process| process.address_space.is_none())
            && self.is_current(head.pid, head.time)
        {
            let space = AddressSpace { start_code: head.start_code, start_stack: head.start_stack };
            self.processes.set_address_space(head.pid, space);
        }

        // What user space has yet to finish is never the same twice.
        let key = if sample.continuation.is_none() { self.raw_key(sample) } else { None };
        let stack = key.as_ref().and_then(|key| self.raw_stacks.get(key).copied());
        let end;
        let stack = match stack {
            Some(stack) => {
                end = sample.end();
                stack
            }
            None => {
                let (stack, finished) = self.resolve(sample, now);
                end = finished;
                if let Some(key) = key {
                    if self.raw_stacks.len() >= MAX_RAW_STACKS {
                        self.raw_stacks.clear();
                    }
                    self.raw_stacks.insert(key, stack);
                }
                stack
            }
        };
        if !end.is_complete() {
            *self.totals.incomplete.entry(end.reason()).or_default() += 1;
        }
        let image = self.image_of(head.pid, head.time, &head.comm);
        let thread = self.aggregate.thread(Thread { image, tid: head.tid, comm: head.comm });
        self.aggregate.samples.push(RawSample { time: head.time, stack, thread, cpu: head.cpu });
    }

    fn is_current(&self, pid: u32, time: u64) -> bool {
        self.processes.get(pid).is_some_and(|process| process.image_start <= time && process.ended.is_none())
    }

    fn raw_key(&self, sample: &Sample<'_>) -> Option<RawKey> {
        let process = process_at(&self.processes, sample.head.pid, sample.head.time)?;
        let kernel = sample.kernel_frames().map(|frame| frame.0);
        let user = sample.user_frames().map(|frame| frame.0);
        Some(RawKey {
            serial: process.serial,
            version: process.mappings_version,
            end: sample.end(),
            kernel: u32::from(sample.head.kernel_frames),
            words: kernel.chain(user).collect(),
        })
    }

    /// Finishes the stack if the kernel half could not, and says what each frame is.
    fn resolve(&mut self, sample: &Sample<'_>, now: u64) -> (StackId, UnwindEnd) {
        let head = &sample.head;
        let mut user: Vec<UserFrame> = sample.user_frames().collect();
        let mut end = sample.end();
        self.publish_at(head.pid, head.time, now);
        if let Some((continuation, stack)) = &sample.continuation {
            self.totals.continued += 1;
            let mut walk = Walk::new(continuation, user.len());
            let from = (continuation, *stack);
            end = self.walk(head.pid, head.time, &mut walk, from, &mut user);
            if end == UnwindEnd::NoMapping && self.is_current(head.pid, head.time) {
                // Mapped since we looked, e.g. by code that runs before the side band was read.
                if self.scan(head.pid, now) {
                    self.publish(head.pid, now);
                    end = self.walk(head.pid, head.time, &mut walk, from, &mut user);
                }
            }
            if end == UnwindEnd::NoMapping && walk.frame().is_instruction_pointer() {
                // Where it was interrupted is true whatever maps it.
                user.push(walk.frame());
            }
        }

        let mut frames: Vec<FrameId> = Vec::with_capacity(user.len() + usize::from(head.kernel_frames) + 1);
        for (depth, address) in sample.kernel_frames().enumerate() {
            let address = if depth == 0 { address } else { address.call_site() };
            frames.push(self.aggregate.frame(Frame::Kernel { address }));
        }
        let image = self.image_of(head.pid, head.time, &head.comm);
        for frame in user {
            let frame = self.user_frame((head.pid, head.time), image, frame);
            frames.push(self.aggregate.frame(frame));
        }
        if !end.is_complete() {
            let last = frames.last().and_then(|&last| self.aggregate.frames.get(last as usize));
            tracing::debug!(
                pid = head.pid,
                comm = %String::from_utf8_lossy(comm_bytes(&head.comm)),
                reason = end.reason(),
                continued = sample.continuation.is_some(),
                frames = frames.len(),
                last = %last.map(|frame| self.describe(frame)).unwrap_or_default(),
                "A stack is not finished."
            );
            frames.push(self.aggregate.frame(Frame::Marker(end)));
        }
        (self.aggregate.stack(&frames), end)
    }

    /// A frame for the log.
    fn describe(&self, frame: &Frame) -> String {
        match frame {
            Frame::Native { executable, address, .. } => {
                let path = self.aggregate.executables.get(executable).map(|executable| executable.path_text());
                format!("{}+{:#x}", path.unwrap_or_default(), address.0)
            }
            other => format!("{other:x?}"),
        }
    }

    /// Makes the image that ran at `time` the one that the unwinder knows.
    fn publish_at(&mut self, pid: u32, time: u64, now: u64) {
        if let Some(process) = process_at(&self.processes, pid, time)
            && !process.kthread
        {
            self.unwinder.publish(process, &mut self.executables, now);
        }
    }

    fn walk(
        &mut self,
        pid: u32,
        time: u64,
        walk: &mut Walk,
        from: (&profiler_bpf::record::Continuation, &[u8]),
        frames: &mut Vec<UserFrame>,
    ) -> UnwindEnd {
        match process_at(&self.processes, pid, time) {
            Some(process) => self.unwinder.walk(process, &mut self.executables, walk, from, frames),
            None => UnwindEnd::UnknownProcess,
        }
    }

    fn user_frame(&mut self, (pid, time): (u32, u64), image: ImageId, frame: UserFrame) -> Frame {
        let address = frame.lookup_address();
        let guessed = frame.is_guessed();
        match self.unwinder.locate(pid, address) {
            Located::Executable(executable, vaddr) => {
                let id = executable.id;
                self.aggregate.executables.entry(id).or_insert(executable);
                Frame::Native { executable: id, address: vaddr, guessed }
            }
            Located::Other => {
                let mapping = process_at(&self.processes, pid, time).and_then(|process| process.mappings.find(address));
                if let Some(mapping) = mapping
                    && let Some((_, path)) = mapping.file()
                    && let Some(offset) = mapping.file_offset(address)
                {
                    let path = self.aggregate.path(path);
                    return Frame::Unopened { path, offset, guessed };
                }
                if !self.jit_images.contains(&image) {
                    self.jit_images.push(image);
                }
                Frame::Jit { image, address, guessed }
            }
            Located::Nowhere => Frame::Unmapped { address },
        }
    }

    fn due_for_scan(&mut self, pid: u32, now: u64) -> bool {
        let last = self.rescans.entry(pid).or_default();
        let due = now.saturating_sub(*last) >= RESCAN_NS;
        if due {
            *last = now;
        }
        due
    }

    /// The image that `pid` was at `time`, added to the aggregate when it is sampled for the first time.
    fn image_of(&mut self, pid: u32, time: u64, comm: &[u8; 16]) -> ImageId {
        if let Some(process) = process_at(&self.processes, pid, time) {
            if let Some(id) = self.aggregate.known_image(process.serial) {
                return id;
            }
            if process.container_inherited {
                // A runtime forks in its own control group. If the process is gone, its parent's is what we know.
                let _ = self.processes.read_container(pid);
            }
        }
        if let Some(process) = process_at(&self.processes, pid, time) {
            let image = image(process);
            return self.aggregate.image(image);
        }
        // Nothing is known but what the sample says.
        let serial = u32::MAX - pid;
        self.aggregate.known_image(serial).unwrap_or_else(|| {
            self.aggregate.image(Image {
                pid,
                serial,
                start_unix_ns: 0,
                start_time_ns: 0,
                comm: profiler_unwinders::process::Comm::new(comm_bytes(comm)),
                exe: std::sync::Arc::default(),
                container_id: None,
                namespace_pid: pid,
            })
        })
    }

    /// Images that run code from anonymous memory.
    pub fn jit_images(&self) -> impl Iterator<Item = &Image> {
        self.jit_images.iter().filter_map(|&id| self.aggregate.images.get(id as usize))
    }

    /// What was seen so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals { kernel: self.sampler.counters(), ..self.totals.clone() }
    }

    /// What the unwinder did and could not do.
    #[must_use]
    pub fn unwind_stats(&self) -> profiler_unwinders::native::Stats {
        self.unwinder.stats()
    }

    /// The files of the executables that were sampled.
    pub fn executables(&mut self) -> &mut Executables {
        &mut self.executables
    }

    /// The clock that turns sample times into Unix times.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.processes.clock()
    }

    /// ns of CPU time between samples.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.sampler.period()
    }

    /// Everything sampled; the session starts anew.
    pub fn take_aggregate(&mut self) -> Aggregate {
        self.raw_stacks.clear();
        self.jit_images.clear();
        // Names and paths that became known after the first sample of an image.
        for index in 0..self.aggregate.images.len() {
            let Some(known) = self.aggregate.images.get(index) else { continue };
            if let Some(process) = self.processes.get(known.pid)
                && process.serial == known.serial
            {
                self.aggregate.image(image(process));
            }
        }
        std::mem::take(&mut self.aggregate)
    }
}

/// The image that ran under `pid` at `time`. A process that was scanned before its fork and exec were read is known only from the
/// scan on: then that image is the nearest.
fn process_at(processes: &ProcessTable, pid: u32, time: u64) -> Option<&Process> {
    processes.get_at(pid, time).or_else(|| processes.get(pid))
}

fn image(process: &Process) -> Image {
    Image {
        pid: process.pid,
        serial: process.serial,
        start_unix_ns: process.start_unix_ns,
        start_time_ns: process.start_time_ns,
        comm: process.comm,
        exe: std::sync::Arc::clone(&process.exe),
        container_id: process.container_id.clone(),
        namespace_pid: process.namespace_pid,
    }
}
