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
    /// Samples of each source, by CPU in the order of time.
    pub sources: Vec<SourceIntake>,
    /// Events in the order of time: all that the kernel had told when the samples were taken, and maybe more.
    pub events: Vec<Event>,
}

/// What was in the ring of one source.
#[derive(Debug, Default)]
pub struct SourceIntake {
    /// Samples, by CPU in the order of time.
    pub samples: Batch,
    /// Samples dropped before these, because too many of this source were waiting.
    pub dropped: u64,
}

/// The thread that empties the rings.
#[derive(Debug)]
pub struct Collector {
    intakes: Receiver<Intake>,
    /// Bytes, by source.
    waiting: Arc<[AtomicUsize]>,
    hurry: Arc<AtomicU64>,
    started: Instant,
    stop: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<Error>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Starts the thread. Samples of more than `budget` bytes that wait to be worked off are dropped and counted. Each ring, which is
    /// a source's, has an equal share of the budget: a flood of one takes no room from another.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(rings: Vec<SampleRing>, sideband: Sideband, budget: usize) -> Result<Self, Error> {
        let (sender, intakes) = channel();
        let waiting: Arc<[AtomicUsize]> = rings.iter().map(|_| AtomicUsize::new(0)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let failure = Arc::new(Mutex::new(None));
        let hurry = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let worker = Worker {
            budget: budget / rings.len().max(1),
            dropped: vec![0; rings.len()],
            rings,
            sideband,
            sender,
            waiting: Arc::clone(&waiting),
            hurry: Arc::clone(&hurry),
            started,
        };
        let (stopped, failed) = (Arc::clone(&stop), Arc::clone(&failure));
        let thread = std::thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || {
                profiler_elf::contain::fault("collector");
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
        for (source, waiting) in self.waiting.iter().enumerate() {
            let sources = intakes.iter().filter_map(|intake| intake.sources.get(source));
            waiting.fetch_sub(sources.map(|source| source.samples.bytes()).sum(), Ordering::Relaxed);
        }
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
        self.waiting.iter().map(|waiting| waiting.load(Ordering::Relaxed)).sum()
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
    /// By source, as what follows of each.
    rings: Vec<SampleRing>,
    sideband: Sideband,
    sender: Sender<Intake>,
    waiting: Arc<[AtomicUsize]>,
    /// Until when there is no time to wait, ms from `started`.
    hurry: Arc<AtomicU64>,
    started: Instant,
    /// Bytes that may wait of each source.
    budget: usize,
    dropped: Vec<u64>,
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
        let fds = self.rings.iter().map(SampleRing::fd).chain(self.sideband.fds());
        let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
        // Interrupted or out of memory: the rings are emptied all the same.
        if rustix::event::poll(&mut fds, Some(&timeout)).is_err() {
            std::thread::sleep(PAUSE);
        }
    }

    fn collect(&mut self) -> Result<(), Error> {
        // The rings first: whatever the side band says of a sample's past is then there.
        let taken = self.rings.iter_mut().map(SampleRing::take).collect::<Result<Vec<_>, _>>()?;
        let mut events = Vec::new();
        self.sideband.drain(&mut events);
        if taken.iter().all(Batch::is_empty) && events.is_empty() {
            return Ok(());
        }
        let places = self.waiting.iter().zip(&mut self.dropped);
        let sources = taken.into_iter().zip(places);
        let sources = sources.map(|(samples, (waiting, dropped))| admit(samples, waiting, self.budget, dropped));
        // The receiver is gone only when the session is.
        let _ = self.sender.send(Intake { sources: sources.collect(), events });
        Ok(())
    }
}

/// As much of `samples` as there is room for, when so many bytes of their source wait; `dropped` of it were not told yet.
fn admit(mut samples: Batch, waiting: &AtomicUsize, budget: usize, dropped: &mut u64) -> SourceIntake {
    // Copies of stacks are by far the most of what waits; a sample without one is a sample still.
    if waiting.load(Ordering::Relaxed) + samples.bytes() > budget / 2 {
        samples = samples.with_short_copies();
    }
    if waiting.load(Ordering::Relaxed) + samples.bytes() > budget {
        *dropped += samples.len() as u64;
        samples = Batch::default();
    }
    waiting.fetch_add(samples.bytes(), Ordering::Relaxed);
    SourceIntake { samples, dropped: std::mem::take(dropped) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_floods_fills_its_own_share_only() {
        let mut batch = Batch::default();
        (0..10).for_each(|_| batch.push(&profiler_bpf::record::SampleHead::default().record(&[1], &[2])));
        let budget = batch.bytes() * 2;
        let (flood, calm) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let admitted = |waiting: &AtomicUsize| {
            let taken = admit(batch.clone(), waiting, budget, &mut 0);
            (taken.samples.len(), taken.dropped)
        };
        let floods: Vec<_> = (0..4).map(|_| admitted(&flood)).collect();
        assert_eq!(floods, [(10, 0), (10, 0), (0, 10), (0, 10)]);
        assert_eq!(admitted(&calm), (10, 0));
    }
}
