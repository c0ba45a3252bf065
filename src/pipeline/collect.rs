//! Empties the rings in time, on a thread of its own: loading a large executable's rows takes longer than a ring lasts.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use profiler_bpf::sideband::{Event, Sideband};
use profiler_bpf::{Batch, Error, SampleRing, online_cpus};
use rustix::event::{PollFd, PollFlags, Timespec};

/// How often the rings are emptied when nothing new happens.
const INTERVAL: Duration = Duration::from_millis(200);
/// Between two looks at the rings at least, however much new happens.
const PAUSE: Duration = Duration::from_millis(2);
/// Distance between looks at which CPUs are online.
const CPU_CHECK: Duration = Duration::from_millis(200);
/// Nice value of the thread.
const PRIORITY: i32 = -15;

/// What was in the rings at one time.
#[derive(Debug, Default)]
pub struct Intake {
    /// Samples, by CPU in the order of time.
    pub samples: Batch,
    /// Events in the order of time: all that the kernel had told when the samples were taken, and maybe more.
    pub events: Vec<Event>,
    /// Samples dropped before these, because too many were waiting.
    pub dropped: u64,
}

/// The thread that empties the rings.
#[derive(Debug)]
pub struct Collector {
    intakes: Receiver<Intake>,
    waiting: Arc<AtomicUsize>,
    hurry: Arc<AtomicU64>,
    started: Instant,
    stop: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<Error>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Starts the thread. Samples of more than `budget` bytes that wait to be worked off are dropped and counted.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(ring: SampleRing, sideband: Sideband, budget: usize) -> Result<Self, Error> {
        let (sender, intakes) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let failure = Arc::new(Mutex::new(None));
        let hurry = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let worker = Worker {
            ring,
            sideband,
            sender,
            waiting: Arc::clone(&waiting),
            hurry: Arc::clone(&hurry),
            started,
            budget,
            dropped: 0,
        };
        let (stopped, failed) = (Arc::clone(&stop), Arc::clone(&failure));
        let thread = std::thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || {
                if let Err(error) = worker.run(&stopped) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            })
            .map_err(|source| Error::Io { action: "start the collector thread".to_owned(), source })?;
        Ok(Self { intakes, waiting, hurry, started, stop, failure, thread: Some(thread) })
    }

    /// Everything collected since the last call; waits for it up to `timeout`.
    ///
    /// # Errors
    /// The rings cannot be read any more.
    pub fn take(&mut self, timeout: Duration) -> Result<Vec<Intake>, Error> {
        if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let mut intakes: Vec<Intake> = Vec::new();
        match self.intakes.recv_timeout(timeout) {
            Ok(intake) => intakes.push(intake),
            Err(RecvTimeoutError::Timeout) => {}
            // The thread has ended, as it was told or with an error that the next call returns.
            Err(RecvTimeoutError::Disconnected) if self.thread.is_some() => std::thread::sleep(timeout),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        intakes.extend(self.intakes.try_iter());
        let bytes: usize = intakes.iter().map(|intake| intake.samples.bytes()).sum();
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        Ok(intakes)
    }

    /// Empties the rings every 2 ms for the next `time`.
    pub fn hurry(&self, time: Duration) {
        let until = u64::try_from((self.started.elapsed() + time).as_millis()).unwrap_or(u64::MAX);
        self.hurry.fetch_max(until, Ordering::Relaxed);
    }

    /// Bytes of samples that wait to be worked off.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Empties the rings a last time and ends the thread.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, what it had collected is still in the channel.
            let _ = thread.join();
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker {
    ring: SampleRing,
    sideband: Sideband,
    sender: Sender<Intake>,
    waiting: Arc<AtomicUsize>,
    /// Until when there is no time to wait, ms from `started`.
    hurry: Arc<AtomicU64>,
    started: Instant,
    budget: usize,
    dropped: u64,
}

impl Worker {
    fn run(mut self, stop: &AtomicBool) -> Result<(), Error> {
        // The rings fill whether we get a CPU or not; without the right to this nothing is worse than before.
        let _ = rustix::process::setpriority_process(None, PRIORITY);
        let mut cpus_checked = Instant::now();
        loop {
            let last = stop.load(Ordering::Relaxed);
            self.collect()?;
            if last {
                return Ok(());
            }
            if cpus_checked.elapsed() >= CPU_CHECK {
                cpus_checked = Instant::now();
                if let Err(error) = online_cpus().and_then(|cpus| self.sideband.follow_cpus(&cpus)) {
                    tracing::warn!(%error, "The side band does not follow the CPUs that are online.");
                }
            }
            let waited = Instant::now();
            let hurry = u128::from(self.hurry.load(Ordering::Relaxed)) > self.started.elapsed().as_millis();
            self.wait(if hurry { PAUSE } else { INTERVAL });
            std::thread::sleep(PAUSE.saturating_sub(waited.elapsed()));
        }
    }

    /// Until a sample asks for attention, a ring of the side band is half full, or the time is up.
    fn wait(&self, timeout: Duration) {
        let fds = std::iter::once(self.ring.fd()).chain(self.sideband.fds());
        let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
        // Interrupted or out of memory: the rings are emptied all the same.
        if rustix::event::poll(&mut fds, Some(&timeout)).is_err() {
            std::thread::sleep(PAUSE);
        }
    }

    fn collect(&mut self) -> Result<(), Error> {
        // The ring first: whatever the side band says of a sample's past is then there.
        let mut samples = self.ring.take()?;
        let mut events = Vec::new();
        self.sideband.drain(&mut events);
        if samples.is_empty() && events.is_empty() {
            return Ok(());
        }
        // Copies of stacks are by far the most of what waits; a sample without one is a sample still.
        if self.waiting.load(Ordering::Relaxed) + samples.bytes() > self.budget / 2 {
            samples = samples.without_copies();
        }
        let bytes = samples.bytes();
        if self.waiting.load(Ordering::Relaxed) + bytes > self.budget {
            self.dropped += samples.len() as u64;
            samples = Batch::default();
        }
        self.waiting.fetch_add(samples.bytes(), Ordering::Relaxed);
        let dropped = std::mem::take(&mut self.dropped);
        // The receiver is gone only when the session is.
        let _ = self.sender.send(Intake { samples, events, dropped });
        Ok(())
    }
}
