//! The session of the agent: there, or paused while the kill switch is on or the kernel refuses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use profiler_bpf::Source;
use profiler_config::Config;
use profiler_model::Loss;
use profiler_reader::Reader;
use profiler_resource::Resources;
use profiler_targets::TargetRules;
use profiler_unwinders::process::Clock;
use profiler_unwinders::publish::Stats;

use crate::pipeline::{
    Budgets, Files, Image, ImageFacts, MemoryUse, Sampled, Session, SessionOptions, Span, TableUse, Tap, Tick, Totals,
    Unnamed, files, losses,
};
use crate::rules::Early;

/// Between two attempts to sample again after the kernel refused.
const RETRY: Duration = Duration::from_secs(30);
/// How often the names of code that JITs make are read.
const JIT_NAMES: Duration = Duration::from_secs(1);
/// Bytes of side-band ring, a CPU.
const SIDEBAND_BYTES: usize = 1 << 18;

/// The agent's session and what came before it.
pub struct Sampling {
    session: Option<Session>,
    /// Stays while sessions come and go: what it knows of executables keeps its ids.
    reader: Reader,
    options: SamplingOptions,
    /// Of sessions that have ended.
    past: Totals,
    past_stats: Stats,
    /// Processes that only the last samples of a session have told of.
    late_images: Vec<ImageFacts>,
    /// As of the last window.
    told: losses::Told,
    /// `CLOCK_MONOTONIC`, ns.
    window_begun: u64,
    cut: Vec<Sampled>,
    paused: bool,
    retry_at: Option<Instant>,
    /// When sampling last stopped by itself.
    failed_at: Option<Instant>,
    jit_images: usize,
    jit_read: Instant,
    /// What detectors are told of; none if nobody asks.
    tap: Option<Tap>,
    /// `CLOCK_MONOTONIC`, ns.
    tick_begun: u64,
    /// Samples in the window at the last look.
    seen: usize,
    /// Samples of CPU time that the session had refused for a rule at the last tick.
    ruled_out_seen: u64,
}

/// What was sampled in a time that is less than a window.
#[derive(Debug)]
pub struct Ticked {
    /// What.
    pub tick: Tick,
    /// Its end, ns since the Unix epoch.
    pub time: u64,
    /// Its length, ns.
    pub span: u64,
    /// Distance of samples of CPU time at the rate of now, ns.
    pub period: u64,
}

/// How to sample.
#[derive(Clone, Debug)]
pub struct SamplingOptions {
    /// Hz, as it is now.
    pub frequency: u64,
    /// Hz, as configured: at lower ones all events are sampled less often.
    pub rate: u64,
    /// What, as users write it.
    pub events: Vec<String>,
    /// Whom.
    pub targets: TargetRules,
    /// Rules that are decided once a process.
    pub early: Arc<Early>,
    /// Bytes of unwind rows.
    pub row_budget: usize,
}

impl SamplingOptions {
    /// As the configuration has it.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            frequency: config.rate,
            rate: config.rate,
            events: config.events.clone(),
            targets: config.targets.clone(),
            early: Arc::default(),
            row_budget: row_budget(config),
        }
    }
}

impl SamplingOptions {
    /// What is sampled now. The configuration has read the events before.
    fn sources(&self) -> Vec<Source> {
        let sources = self.events.iter().filter_map(|text| Source::parse(text, self.rate).ok());
        sources.map(|source| source.scaled(self.frequency, self.rate)).collect()
    }
}

/// Bytes of unwind rows, as the configuration's budget has room for them.
#[must_use]
pub fn row_budget(config: &Config) -> usize {
    let memory = config.limits.memory_bytes.unwrap_or(u64::MAX);
    usize::try_from(memory / 3).unwrap_or(usize::MAX).clamp(4 << 20, 128 << 20)
}

/// Bytes that the process which reads targets' files may take.
#[must_use]
pub fn reader_bytes(config: &Config) -> u64 {
    config.limits.memory_bytes.map_or(1 << 30, |memory| (memory / 4 * 3).clamp(64 << 20, 1 << 30))
}

impl Sampling {
    /// Not sampling yet.
    #[must_use]
    pub fn new(options: SamplingOptions, reader: Reader) -> Self {
        Self {
            session: None,
            reader,
            options,
            past: Totals::default(),
            past_stats: Stats::default(),
            late_images: Vec::new(),
            told: losses::Told::new(),
            window_begun: 0,
            cut: Vec::new(),
            paused: true,
            retry_at: None,
            failed_at: None,
            jit_images: 0,
            jit_read: Instant::now(),
            tap: None,
            tick_begun: 0,
            seen: 0,
            ruled_out_seen: 0,
        }
    }

    /// Starts to sample.
    ///
    /// # Errors
    /// The kernel or its privileges do not permit it.
    pub fn start(&mut self) -> Result<(), profiler_bpf::Error> {
        let session = open(&self.options, self.reader.clone())?;
        self.paused = false;
        self.window_begun = Clock::monotonic_now();
        self.tick_begun = self.window_begun;
        self.ruled_out_seen = 0;
        if let Some(tap) = &mut self.tap {
            tap.restart();
        }
        self.session = Some(session);
        Ok(())
    }

    /// Nothing is sampled from now on; the kernel half is unloaded. What was sampled is in the next windows.
    pub fn pause(&mut self) {
        self.paused = true;
        self.close();
    }

    /// Samples again after [`Self::pause`].
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.reopen();
        }
    }

    /// Starts anew with empty tables: only what is needed now is loaded again.
    pub fn restart(&mut self) {
        if self.is_on() {
            self.close();
            self.reopen();
        }
    }

    /// Whether samples are taken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.session.is_some()
    }

    /// Works off what comes in within `timeout`.
    pub fn step(&mut self, timeout: Duration) {
        let Some(session) = &mut self.session else {
            std::thread::sleep(timeout);
            if !self.paused && self.retry_at.is_some_and(|at| Instant::now() >= at) {
                self.reopen();
            }
            return;
        };
        if let Err(error) = session.step(timeout) {
            tracing::error!(%error, "Sampling has stopped and is started anew.");
            self.close();
            // At once, but not again and again.
            let now = Instant::now();
            match self.failed_at.replace(now) {
                Some(before) if now.duration_since(before) < RETRY => self.retry_at = Some(now + RETRY),
                _ => self.reopen(),
            }
        }
    }

    /// Whether samples should be taken, and the kernel does not permit it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.session.is_none() && !self.paused
    }

    /// Changes the rate to `frequency` Hz, of `configured` ones; all events are sampled as much less often as it is below.
    ///
    /// # Errors
    /// The kernel does not permit it; the rate is as before.
    pub fn set_frequency(&mut self, frequency: u64, configured: u64) -> Result<(), profiler_bpf::Error> {
        self.change(SamplingOptions { frequency, rate: configured, ..self.options.clone() })
    }

    /// Changes what is sampled. Other rates of the same events change live, other events start sampling anew.
    ///
    /// # Errors
    /// The kernel does not permit it; all is as before, unless it does not permit that any more.
    pub fn set_events(&mut self, events: &[String]) -> Result<(), profiler_bpf::Error> {
        self.change(SamplingOptions { events: events.to_vec(), ..self.options.clone() })
    }

    fn change(&mut self, wanted: SamplingOptions) -> Result<(), profiler_bpf::Error> {
        let (before, sources) = (self.options.sources(), wanted.sources());
        let live = before.len() == sources.len()
            && before.iter().zip(&sources).all(|(before, wanted)| before.changes_live_to(wanted));
        if !live {
            // What this kernel does not have is told before what runs is stopped.
            sources.iter().try_for_each(profiler_bpf::probe)?;
        }
        match &mut self.session {
            Some(session) if live => {
                if let Err(error) = session.set_sources(sources) {
                    // Some of them may have changed.
                    let _ = session.set_sources(before);
                    return Err(error);
                }
            }
            Some(_) => {
                let running = std::mem::replace(&mut self.options, wanted);
                self.close();
                if let Err(error) = self.start() {
                    self.options = running;
                    self.reopen();
                    return Err(error);
                }
                return Ok(());
            }
            None => {}
        }
        self.options = wanted;
        Ok(())
    }

    /// Changes the bytes of unwind rows that are kept; what is needed is loaded anew.
    pub fn set_row_budget(&mut self, bytes: usize) {
        self.options.row_budget = bytes;
        self.restart();
    }

    /// Tells of all processes again, each at its next sample.
    pub fn forget_images(&mut self) {
        if let Some(session) = &mut self.session {
            session.forget_images();
        }
    }

    /// Changes who is sampled.
    pub fn set_targets(&mut self, targets: TargetRules) {
        self.options.targets.clone_from(&targets);
        if let Some(session) = &mut self.session {
            session.set_targets(targets);
        }
    }

    /// Changes the rules that are decided once a process.
    pub fn set_early(&mut self, early: Arc<Early>) {
        self.options.early = early;
        self.decide_anew();
    }

    /// What they said of processes is forgotten: other things are known of them by now.
    pub fn decide_anew(&mut self) {
        if let Some(session) = &mut self.session {
            session.set_early(Arc::clone(&self.options.early));
        }
    }

    /// Asks these rules about processes that were sampled; to be called when what is new was learnt.
    pub fn rule_out(&mut self, resources: &Resources) {
        if let Some(session) = &mut self.session {
            session.rule_out(resources);
        }
    }

    /// Hz, as configured.
    #[must_use]
    pub fn configured(&self) -> u64 {
        self.options.rate
    }

    /// Hz, as asked for.
    #[must_use]
    pub fn frequency(&self) -> u64 {
        self.options.frequency
    }

    /// Processes that were sampled for the first time since the last call.
    pub fn new_images(&mut self) -> Vec<ImageFacts> {
        let new = self.session.as_mut().map(Session::new_images).unwrap_or_default();
        std::mem::take(&mut self.late_images).into_iter().chain(new).collect()
    }

    /// The processes that run code of a JIT, when there are more of them than at the last call, and at least once a second: what an
    /// address means is as of the time that its name was read.
    pub fn new_jit_images(&mut self) -> Option<Vec<Image>> {
        let session = self.session.as_ref()?;
        let count = session.jit_images().count();
        let grown = count > std::mem::replace(&mut self.jit_images, count);
        let due = count > 0 && self.jit_read.elapsed() >= JIT_NAMES;
        if grown || due {
            self.jit_read = Instant::now();
        }
        (grown || due).then(|| session.jit_images().cloned().collect())
    }

    /// Whether anybody asks for [`Self::tick`].
    pub fn set_ticking(&mut self, wanted: bool) {
        if wanted != self.tap.is_some() {
            self.tap = wanted.then(Tap::default);
            self.tick_begun = Clock::monotonic_now();
        }
    }

    /// Whether something was sampled since the last call.
    pub fn is_new(&mut self) -> bool {
        let samples = self.session.as_ref().map_or(0, |session| session.aggregate().sample_count());
        std::mem::replace(&mut self.seen, samples) != samples
    }

    /// What was sampled since the last call; none if nobody asked for it, or nothing can be sampled now.
    pub fn tick(&mut self) -> Option<Ticked> {
        let (tap, session) = (self.tap.as_mut()?, self.session.as_ref()?);
        tap.look(session.aggregate());
        let now = Clock::monotonic_now();
        let span = now.saturating_sub(std::mem::replace(&mut self.tick_begun, now));
        let period = 1_000_000_000 / self.options.frequency.max(1);
        let mut tick = tap.take();
        // The host is as busy, whether anybody is told of it or not.
        let ruled_out = session.ruled_out_of_clock();
        let new = ruled_out.saturating_sub(std::mem::replace(&mut self.ruled_out_seen, ruled_out));
        tick.samples += new;
        tick.busy = tick.busy.saturating_add(new.saturating_mul(period));
        Some(Ticked { tick, time: session.clock().unix_from_monotonic(now), span, period })
    }

    /// Places that ticks have and nobody named yet, and the files that they are in.
    pub fn take_unnamed(&mut self) -> Option<(Unnamed, Files)> {
        let unnamed = self.tap.as_mut()?.take_unnamed()?;
        let files = files(&unnamed.aggregate, self.session.as_mut()?.reading());
        Some((unnamed, files))
    }

    /// What code of JITs is called is asked anew.
    pub fn forget_jit_names(&mut self) {
        if let Some(tap) = &mut self.tap {
            tap.forget_jit();
        }
    }

    /// Bytes of what ticks are made of.
    #[must_use]
    pub fn tap_bytes(&self) -> usize {
        self.tap.as_ref().map_or(0, Tap::memory_bytes)
    }

    /// What was sampled since the last call; empty if nothing was.
    pub fn take_windows(&mut self) -> Vec<Sampled> {
        self.cut();
        std::mem::take(&mut self.cut)
    }

    /// Stops for good; what was sampled is in the next windows.
    pub fn finish(&mut self) {
        self.paused = true;
        self.close();
    }

    /// Everything seen since the agent's start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = self.past.clone();
        if let Some(session) = &self.session {
            totals.add(&session.totals());
        }
        totals
    }

    /// What the unwinder did since the agent's start.
    #[must_use]
    pub fn unwind_stats(&self) -> Stats {
        let mut stats = self.past_stats;
        if let Some(session) = &self.session {
            add_stats(&mut stats, &session.unwind_stats());
        }
        stats
    }

    /// What reads for it.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Bytes in use.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        self.session.as_ref().map(Session::memory).unwrap_or_default()
    }

    /// Entries of the kernel half's tables in use.
    #[must_use]
    pub fn table_use(&self) -> TableUse {
        self.session.as_ref().map(Session::table_use).unwrap_or_default()
    }

    fn new_losses(&mut self) -> Vec<Loss> {
        let (totals, stats) = (self.totals(), self.unwind_stats());
        losses::since(&totals, &stats, &mut self.told)
    }

    /// Makes a window of what was sampled so far.
    fn cut(&mut self) {
        let Some(session) = &mut self.session else { return };
        let ended = Clock::monotonic_now();
        let begun = std::mem::replace(&mut self.window_begun, ended);
        // A step of the clock shows in the window in which it happened.
        let span = Span { clock: session.read_clock(), begun, ended };
        self.jit_images = 0;
        if let Some(tap) = &mut self.tap {
            tap.look(session.aggregate());
            tap.window_ended();
        }
        self.seen = 0;
        let aggregate = session.take_aggregate();
        if aggregate.is_empty() {
            return;
        }
        let files = files(&aggregate, session.reading());
        // Of a window without samples they are told with the next one.
        let losses = self.new_losses();
        self.cut.push(Sampled { aggregate, files, span, losses });
    }

    fn close(&mut self) {
        if let Some(session) = &mut self.session
            && let Err(error) = session.finish()
        {
            tracing::error!(%error, "The last samples are lost.");
        }
        self.late_images.extend(self.session.as_mut().map(Session::new_images).unwrap_or_default());
        self.cut();
        (self.past, self.past_stats) = (self.totals(), self.unwind_stats());
        self.session = None;
    }

    fn reopen(&mut self) {
        self.retry_at = None;
        if let Err(error) = self.start() {
            tracing::error!(%error, "Nothing is sampled; another attempt follows in {} s.", RETRY.as_secs());
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }
}

fn open(options: &SamplingOptions, reader: Reader) -> Result<Session, profiler_bpf::Error> {
    let cpus = profiler_bpf::online_cpus().map_or(1, |cpus| cpus.len() as u64);
    let sources = options.sources();
    // How often an event happens nobody knows beforehand.
    let fastest = sources.iter().map(|source| source.frequency().unwrap_or(1_000)).max().unwrap_or(options.frequency);
    let ring_bytes = cpus.saturating_mul(fastest).saturating_mul(4096);
    let mut session = Session::new(SessionOptions {
        sampler: profiler_bpf::Options {
            sources,
            targets: profiler_bpf::Targets::Rules,
            // Room for half a second of stacks, most of them with frames only.
            ring_bytes: u32::try_from(ring_bytes).unwrap_or(u32::MAX).clamp(2 << 20, 64 << 20),
            btf: None,
            without_task_pt_regs: false,
        },
        sideband_bytes: SIDEBAND_BYTES,
        reading: Box::new(reader),
        // While many processes are new, samples with copies of their stacks wait for a moment.
        budgets: Budgets { rows: options.row_budget, waiting: 32 << 20, ..Budgets::default() },
    })?;
    session.set_targets(options.targets.clone());
    session.set_early(Arc::clone(&options.early));
    session.start()?;
    Ok(session)
}

fn add_stats(sum: &mut Stats, more: &Stats) {
    sum.loaded += more.loaded;
    sum.rows += more.rows;
    sum.evicted += more.evicted;
    sum.failed += more.failed;
    sum.over_budget += more.over_budget;
    sum.unpublished += more.unpublished;
    sum.runtimes_left_out += more.runtimes_left_out;
}
