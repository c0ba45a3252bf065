//! What changed is told: series of samples as they arrive, detectors on them, and what is said of their events.
//!
//! ```text
//!  sampling thread   tick, once a second and right after samples came ──► detection thread   series ─ detectors ─ sentences ─ log, report
//!                    places without a name ──► publisher thread ── names ──────►│
//! ```
//!
//! Nothing here may hold samples up: a tick that finds the thread busy becomes one with the next, counted, and names are asked for only as often as
//! finding them takes half a percent of a CPU; or after a window, whose names are known by then.

mod kept;
mod pressure;
mod tell;
mod watch;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use profiler_config::Detection as Options;
use profiler_resource::Resources;

use self::watch::Level;
use self::worker::{KINDS, Message, Worker};
use super::ends_by;
use super::publish::Publisher;
use super::sampling::Sampling;
use crate::shown;
use crate::telemetry::metric::Histogram;

/// Between two ticks.
const TICK: Duration = Duration::from_secs(1);
/// A tick waits so long for samples to come: it is of use right after they did.
const PATIENCE: Duration = Duration::from_millis(300);
/// Ticks that wait, at most.
const MAX_WAITING: usize = 4;
/// Names take at most one in so many of a CPU's time.
const NAMING: u32 = 200;
/// What code of JITs is called is asked anew after so long.
const JIT_NAMES: Duration = Duration::from_secs(60);
/// Time to keep what is normal when the agent ends.
const LAST: Duration = Duration::from_secs(2);
/// Upper bounds of the time from the newest sample to the decision, s.
pub const DELAYS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// What is known of detection.
#[derive(Clone, Debug)]
pub struct Report {
    /// Events, by what their series are of and kind.
    pub events: BTreeMap<(&'static str, &'static str), u64>,
    /// Series, by what they are of.
    pub series: BTreeMap<&'static str, u64>,
    /// Observations that were not looked at, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Samples whose function had no name yet.
    pub unnamed: u64,
    /// Bytes of series and names.
    pub bytes: u64,
    /// Time from the newest sample of a tick to the decision, s.
    pub delay: Histogram,
    /// What was told last, with its time in ns since the Unix epoch; the newest first.
    pub recent: VecDeque<(u64, String)>,
    /// The detectors, for people.
    detectors: String,
}

impl Report {
    fn new() -> Self {
        // From 0 on: a counter that begins at 1 has not grown, to who asks for its rate.
        let events = Level::ALL.into_iter().flat_map(|level| KINDS.map(|(_, kind)| ((level.name(), kind), 0)));
        Self {
            events: events.collect(),
            series: BTreeMap::new(),
            skipped: BTreeMap::new(),
            unnamed: 0,
            bytes: 0,
            delay: Histogram::new(DELAYS),
            recent: VecDeque::new(),
            detectors: String::new(),
        }
    }

    /// For `/status`.
    fn page(&self) -> String {
        let mut page = format!("\nDetection\n\n  {}\n", self.detectors);
        let series: Vec<String> =
            self.series.iter().filter(|(_, count)| **count > 0).map(|(of, count)| format!("{of} {count}")).collect();
        let _ = writeln!(page, "  series: {}; {} KiB", series.join(", "), self.bytes / 1024);
        let skipped = self.skipped.iter().filter(|(_, count)| **count > 0);
        for (reason, count) in skipped {
            let _ = writeln!(page, "  {count} observations were not looked at: {reason}");
        }
        if self.recent.is_empty() {
            page.push_str("  nothing has changed yet\n");
        }
        for (time, text) in &self.recent {
            let _ = writeln!(page, "\n  {}  {text}", tell::second(*time));
        }
        page
    }
}

/// The thread's handle.
pub struct Detection {
    messages: Option<Sender<Message>>,
    waiting: Arc<AtomicUsize>,
    report: Arc<Mutex<Report>>,
    thread: Option<JoinHandle<()>>,
    is_on: bool,
    next: Instant,
    jit: Instant,
    naming: Arc<Naming>,
    started: Instant,
    /// Ticks that were made one with the next, since the thread was busy.
    put_off: u64,
}

/// When names may be asked for again.
#[derive(Debug, Default)]
struct Naming {
    is_asked: AtomicBool,
    /// ms after [`Detection::started`].
    not_before: AtomicU64,
}

impl Detection {
    /// Starts the thread, which does nothing as long as `options` have no detectors.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(options: &Options, resources: Arc<Resources>) -> std::io::Result<Self> {
        let (messages, inbox) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let report = Arc::new(Mutex::new(Report::new()));
        let mut worker = Worker::new(options.clone(), resources, Arc::clone(&waiting), Arc::clone(&report));
        let thread = std::thread::Builder::new().name("detection".to_owned()).spawn(move || worker.run(&inbox))?;
        let now = Instant::now();
        Ok(Self {
            messages: Some(messages),
            waiting,
            report,
            thread: Some(thread),
            is_on: wants_samples(options),
            next: now + TICK,
            jit: now,
            naming: Arc::default(),
            started: now,
            put_off: 0,
        })
    }

    /// Whether it wants ticks.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Goes on as `options` have it; series whose detectors are as before keep what they know.
    pub fn configure(&mut self, options: &Options) {
        self.is_on = wants_samples(options);
        self.send(Message::Configure(Box::new(options.clone())));
    }

    /// Takes a tick if it is time to; to be called after each step of sampling.
    pub fn step(&mut self, now: Instant, sampling: &mut Sampling, publisher: &Publisher) {
        // The newest sample is of a moment ago only when samples have just come.
        let is_new = sampling.is_new();
        if !self.is_on || now < self.next || !is_new && now < self.next + PATIENCE {
            return;
        }
        self.next = if now < self.next + TICK { self.next + TICK } else { now + TICK };
        if self.waiting.load(Ordering::Acquire) >= MAX_WAITING {
            // What it would have told is told by the next one.
            self.put_off += 1;
            return;
        }
        let Some(ticked) = sampling.tick() else { return };
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.send(Message::Tick(Box::new(ticked)));
        if now.duration_since(self.jit) >= JIT_NAMES {
            self.jit = now;
            sampling.forget_jit_names();
        }
        self.ask_for_names(sampling, publisher);
    }

    /// A window is on its way to be published, and what is in it has names when that is done: now they cost nothing.
    pub fn window_ended(&self, sampling: &mut Sampling, publisher: &Publisher) {
        self.naming.not_before.store(0, Ordering::Release);
        self.ask_for_names(sampling, publisher);
    }

    fn ask_for_names(&self, sampling: &mut Sampling, publisher: &Publisher) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let too_soon = millis(self.started.elapsed()) < self.naming.not_before.load(Ordering::Acquire);
        if too_soon || self.naming.is_asked.load(Ordering::Acquire) {
            return;
        }
        let (Some(messages), Some(unnamed)) = (self.messages.clone(), sampling.take_unnamed()) else { return };
        self.naming.is_asked.store(true, Ordering::Release);
        let (naming, started) = (Arc::clone(&self.naming), self.started);
        publisher.name(
            unnamed,
            Box::new(move |named, took| {
                naming.not_before.store(millis(started.elapsed() + took * NAMING), Ordering::Release);
                naming.is_asked.store(false, Ordering::Release);
                // The thread ends only with the agent.
                let _ = messages.send(Message::Names(named));
            }),
        );
    }

    /// What it has to say.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *report.skipped.entry("busy").or_default() += self.put_off;
        report
    }

    /// Writes its part of `/status`, whenever that is asked for.
    #[must_use]
    pub fn page(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let report = Arc::clone(&self.report);
        Arc::new(move || report.lock().unwrap_or_else(PoisonError::into_inner).page())
    }

    /// Keeps what is normal, where it is to be kept, and ends the thread.
    pub fn finish(&mut self) {
        self.send(Message::Stop);
        self.messages = None;
        if let Some(thread) = self.thread.take()
            && !ends_by(&thread, Instant::now() + LAST)
        {
            tracing::warn!("What is normal could not be kept within {LAST:?}.");
        }
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages {
            // It ends only when it is told to.
            let _ = messages.send(message);
        }
    }
}

fn wants_samples(options: &Options) -> bool {
    !options.detectors.is_empty() && !options.series.is_empty()
}

/// Detectors and series, for people.
fn describe(options: &Options, has_pressure: bool) -> String {
    use profiler_config::Choice;
    let word = |of: &profiler_config::DetectedSeries| {
        profiler_config::DetectedSeries::WORDS.iter().find(|(_, each)| each == of).map_or("", |(word, _)| word)
    };
    let series: Vec<&str> = options.series.iter().map(word).collect();
    let mut parts = Vec::new();
    if wants_samples(options) {
        parts.push(format!("{} on {}", options.detectors.join("; "), series.join(", ")));
    }
    if !options.pressure_detectors.is_empty() {
        let missing = if has_pressure { "" } else { ", which this kernel does not have (CONFIG_PSI, psi=1)" };
        parts.push(format!("{} on pressure{missing}", options.pressure_detectors.join("; ")));
    }
    if parts.is_empty() { "off".to_owned() } else { shown::one_line(&parts.join("; ")).into_owned() }
}
