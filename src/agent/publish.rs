//! Windows become profiles and go out, on a thread of their own: reading a large file's symbols takes longer than new processes can
//! wait for their unwind tables.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use profiler_model::Profiles;
use profiler_reader::{Namer, Reader, Seen};
use profiler_resource::Resources;
use profiler_symbolizer::Symbolizer;

use super::ends_by;
use super::processors::{Counts, Processors};
use super::sinks::Sinks;
use crate::pipeline::{Files, Image, NameLosses, Named, Names, Naming, Sampled, Unnamed, finish, origin};

/// Windows that may wait to be published; while they do, the next one goes on.
const MAX_WAITING: usize = 2;

/// Who is told names, and how long it took to find them.
pub type Answer = Box<dyn FnOnce(Vec<Named>, Duration) + Send>;

/// Whoever gets no further with a window for so long hangs. A request to the namer takes half of it at most.
const HANGS: Duration = Duration::from_secs(60);
/// Whoever takes so long for one step is late, also if he gets further: naming ends long before.
const LATE: Duration = Duration::from_secs(300);

/// What is to be done.
enum Job {
    Window(Box<Sampled>),
    Jit(Vec<Image>),
    Name(Box<(Unnamed, Files)>, Answer),
    Sinks(Sinks),
    Processors(Processors),
    Naming(NameOptions),
    Forget,
}

/// How frames are named.
#[derive(Clone, Debug)]
pub struct NameOptions {
    /// What is looked up, and with how much memory.
    pub symbols: profiler_symbolizer::Options,
    /// The process that does it.
    pub namer: profiler_reader::Options,
    /// Bytes of names that are kept from one window to the next.
    pub budget: usize,
}

/// What the thread has to say.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Bytes of names, and of what they are looked up in.
    pub names_bytes: u64,
    /// What could not be read for names, or not kept, by reason, since the start.
    pub name_losses: BTreeMap<&'static str, u64>,
    /// Windows published.
    pub windows: u64,
    /// How long the last one took.
    pub last_took: Duration,
    /// Why kernel frames have no names, if that is so.
    pub kernel_trouble: Option<String>,
    /// What rules did.
    pub rules: Counts,
}

/// What the thread does, or nothing.
type Doing = Option<&'static str>;

/// Whether the thread gets on.
#[derive(Debug)]
struct Progress {
    /// What it did, and how many requests to the namer had ended, when that changed last.
    seen: (Doing, u64, u64),
    since: Instant,
    /// Since when it does that.
    begun: Instant,
}

impl Progress {
    /// What hangs, if something does: `step` is what is done, which of all steps that is, and how many requests to the namer have ended.
    fn look(&mut self, step: (Doing, u64, u64), now: Instant) -> Option<String> {
        if (step.0, step.1) != (self.seen.0, self.seen.1) || step.0.is_none() {
            self.begun = now;
        }
        if step != self.seen || step.0.is_none() {
            (self.seen, self.since) = (step, now);
        }
        let hangs = now.saturating_duration_since(self.since);
        let doing = step.0?;
        if hangs >= HANGS {
            return Some(format!("the publisher has not gone on with {doing} for {} s", hangs.as_secs()));
        }
        let takes = now.saturating_duration_since(self.begun);
        (takes >= LATE).then(|| format!("the publisher has been {doing} for {} s", takes.as_secs()))
    }
}

/// The thread's handle.
pub struct Publisher {
    jobs: Option<Sender<Job>>,
    waiting: Arc<AtomicUsize>,
    /// A reading ahead waits to be done.
    reads_ahead: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
    namer: Seen,
    doing: Arc<Mutex<(Doing, u64)>>,
    progress: Progress,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Starts the thread. It names frames as `options` say, of files that `reader` holds open.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(
        options: NameOptions,
        reader: Reader,
        resources: Arc<Resources>,
        (processors, sinks): (Processors, Sinks),
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let report = Arc::new(Mutex::new(Report::default()));
        let reads_ahead = Arc::<AtomicBool>::default();
        let (counter, ahead, told) = (Arc::clone(&waiting), Arc::clone(&reads_ahead), Arc::clone(&report));
        let NameOptions { symbols, namer, budget } = options;
        let namer = Namer::new(namer, symbols.clone()).with_lenders(reader);
        let seen = namer.seen();
        let doing = Arc::new(Mutex::new((None, 0)));
        let does = Arc::clone(&doing);
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || {
            let names = Names::kept(Symbolizer::new(symbols), budget).by(namer);
            let name_losses = NameLosses::default();
            let rules = Counts::default();
            Worker {
                names,
                name_losses,
                resources,
                processors,
                rules,
                sinks,
                waiting: counter,
                reads_ahead: ahead,
                report: told,
                doing: does,
            }
            .run(&inbox);
        })?;
        let progress = Progress { seen: (None, 0, 0), since: Instant::now(), begun: Instant::now() };
        Ok(Self { jobs: Some(jobs), waiting, reads_ahead, report, namer: seen, doing, progress, thread: Some(thread) })
    }

    /// Whether another window can be taken now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < MAX_WAITING
    }

    /// Names, assembles and exports `window`.
    pub fn window(&self, window: Sampled) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.send(Job::Window(Box::new(window)));
    }

    /// Reads the names of code that JITs of these processes have made by now; unless the last reading has not come to its turn yet.
    pub fn jit(&self, images: Vec<Image>) {
        if !self.reads_ahead.swap(true, Ordering::AcqRel) {
            self.send(Job::Jit(images));
        }
    }

    /// Names places; windows that wait come first.
    pub fn name(&self, unnamed: (Unnamed, Files), answer: Answer) {
        self.send(Job::Name(Box::new(unnamed), answer));
    }

    /// Sends what follows elsewhere.
    pub fn set_sinks(&self, sinks: Sinks) {
        self.send(Job::Sinks(sinks));
    }

    /// Runs what follows through others.
    pub fn set_processors(&self, processors: Processors) {
        self.send(Job::Processors(processors));
    }

    /// Looks names up in another way from now on.
    pub fn set_names(&self, options: NameOptions) {
        self.send(Job::Naming(options));
    }

    /// What hangs on the way of a window, if something does. To be asked each second.
    pub fn late(&mut self) -> Option<String> {
        let (doing, step) = *self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        self.progress.look((doing, step, self.namer.stats().ended), Instant::now())
    }

    /// The process that names.
    #[must_use]
    pub fn namer(&self) -> &Seen {
        &self.namer
    }

    /// Gives the memory of names back.
    pub fn forget(&self) {
        self.send(Job::Forget);
    }

    /// What the thread has to say.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Publishes what waits, for `deadline` at most, and ends the thread.
    pub fn finish(&mut self, deadline: Duration) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        if !ends_by(&thread, Instant::now() + deadline) {
            let windows = self.waiting.load(Ordering::Acquire);
            tracing::error!(windows, "What was sampled last could not be published within {deadline:?} and is lost.");
        }
    }

    fn send(&self, job: Job) {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            tracing::error!("The thread that publishes is gone; what was sampled is lost.");
        }
    }
}

/// CPU time that rules may take on a window that is so long (ns): a quarter of it, so that they do not fall behind; of a short one 1 s, since the
/// first does what the next need not do again.
fn rules_time(window: u64) -> Duration {
    Duration::from_nanos(window / 4).max(Duration::from_secs(1))
}

struct Worker {
    names: Names,
    name_losses: NameLosses,
    resources: Arc<Resources>,
    processors: Processors,
    rules: Counts,
    sinks: Sinks,
    waiting: Arc<AtomicUsize>,
    reads_ahead: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
    doing: Arc<Mutex<(Doing, u64)>>,
}

impl Worker {
    fn run(&mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Window(window) => {
                    let begun = Instant::now();
                    self.publish(*window);
                    self.waiting.fetch_sub(1, Ordering::AcqRel);
                    let kernel_trouble = self.names.kernel_trouble();
                    let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.windows += 1;
                    report.last_took = begun.elapsed();
                    report.names_bytes = self.names.bytes();
                    report.name_losses.clone_from(&self.name_losses.total);
                    report.kernel_trouble = kernel_trouble;
                    report.rules.clone_from(&self.rules);
                }
                Job::Name(unnamed, answer) => {
                    self.does(Some("naming what changed"));
                    let begun = Instant::now();
                    let named = self.names.places(&unnamed.0, &unnamed.1);
                    answer(named, begun.elapsed());
                }
                Job::Jit(images) => {
                    self.does(Some("reading names of JIT code"));
                    self.names.prefetch(&images);
                    self.reads_ahead.store(false, Ordering::Release);
                }
                Job::Sinks(sinks) => {
                    // Those that are gone have got every window up to now.
                    std::mem::replace(&mut self.sinks, sinks).retire_all_but(&self.sinks);
                }
                Job::Processors(processors) => {
                    self.rules.keep(&self.processors, &processors);
                    self.processors = processors;
                }
                Job::Naming(NameOptions { symbols, namer, budget }) => self.names.set(symbols, namer, budget),
                Job::Forget => self.names.forget(),
            }
            self.does(None);
        }
    }

    fn does(&self, what: Doing) {
        let mut doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        *doing = (what, doing.1 + 1);
    }

    /// All measures of a window in one: a profile each, over one dictionary.
    fn publish(&mut self, window: Sampled) {
        let describe = |profiles: &Profiles| {
            let of_cpu = profiles.profiles.iter().find(|part| part.period > 0 && part.period_type.kind == "cpu");
            let frequency = of_cpu.map_or(0, |part| 1_000_000_000 / part.period.unsigned_abs());
            origin(frequency, "all processes".to_owned())
        };
        self.does(Some("naming a window"));
        let naming = Naming { names: &mut self.names, losses: &mut self.name_losses, resources: &self.resources };
        let within = rules_time(window.span.ended.saturating_sub(window.span.begun));
        let profile = finish(window, naming, &[], describe);
        if profile.profiles.is_empty() {
            return;
        }
        self.does(Some("running rules over a window"));
        let profile = self.processors.apply(profile, within, &mut self.rules);
        self.does(Some("handing a window to the exporters"));
        if let Some(profile) = profile {
            self.sinks.export(&profile);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_on_is_not_late_until_it_takes_very_long() {
        let begun = Instant::now();
        let mut progress = Progress { seen: (None, 0, 0), since: begun, begun };
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(progress.look((None, 0, 0), after(1000)), None, "nothing to do");
        let naming = Some("naming a window");
        for answers in 0..5 {
            assert_eq!(progress.look((naming, 1, answers), after(1000 + answers * 50)), None);
        }
        let hangs = progress.look((naming, 1, 4), after(1200 + 75)).expect("it hangs");
        assert_eq!(hangs, "the publisher has not gone on with naming a window for 75 s");
        let late = progress.look((naming, 1, 5), after(1310)).expect("many small steps are late, too");
        assert_eq!(late, "the publisher has been naming a window for 310 s");
        assert_eq!(progress.look((naming, 3, 19), after(2030)), None, "the next window");
        assert!(progress.look((naming, 3, 19), after(2090)).is_some());
        assert_eq!(progress.look((None, 4, 19), after(2091)), None);
    }
}
