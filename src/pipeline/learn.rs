//! Reads what the processes that are new say of themselves, while they live.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use profiler_reader::{Reader, user_of};
use profiler_resource::{Asked, Resources};
use rustc_hash::FxHashMap;

use super::{ImageFacts, process_facts};

/// How long after each other a process is asked for again that nobody could read: twice as long each time, up to the longest that a target is
/// set aside.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(300);
/// Processes that wait for it; beyond it the oldest of the user with most of them is given up, and has the name of one that says nothing of itself.
const MAX_AGAIN: usize = 1024;
/// Processes that were not asked for yet; beyond it the oldest are given up.
const MAX_NEW: usize = 16_384;
/// Who samples does nothing else meanwhile.
const AT_ONCE: Duration = Duration::from_millis(50);
/// The same at the end.
const AT_THE_END: Duration = Duration::from_secs(2);

/// Has processes read by the reader, which may be held by them: who samples waits no longer than the reader's limits.
#[derive(Debug)]
pub struct Learner {
    reader: Reader,
    new: VecDeque<ImageFacts>,
    again: VecDeque<Again>,
}

#[derive(Debug)]
struct Again {
    image: ImageFacts,
    user: Option<u32>,
    due: Instant,
    pause: Duration,
}

impl Learner {
    /// By `reader`.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self { reader, new: VecDeque::new(), again: VecDeque::new() }
    }

    /// Has `new` processes read, and those again that could not be read before, as many as there is time for: the others when it is called next.
    pub fn learn(&mut self, new: Vec<ImageFacts>, resources: &Resources) {
        let now = Instant::now();
        self.work(new, resources, now + AT_ONCE, now);
    }

    /// The same for the last time: nobody waits any longer for what could not be read.
    pub fn finish(&mut self, new: Vec<ImageFacts>, resources: &Resources) {
        let now = Instant::now();
        self.work(new, resources, now + AT_THE_END, now + LAST_PAUSE);
    }

    /// What is new, and what is due at `due`, until `until`.
    fn work(&mut self, new: Vec<ImageFacts>, resources: &Resources, until: Instant, due: Instant) {
        self.new.extend(new);
        let over = self.new.len().saturating_sub(MAX_NEW);
        self.new.drain(..over);
        while Instant::now() < until
            && let Some(image) = self.new.pop_front()
        {
            self.ask(image, FIRST_PAUSE, resources);
        }
        // Each once: who is still not read comes back behind them.
        for _ in 0..self.again.len() {
            let Some(again) = self.again.pop_front() else { break };
            if again.due <= due && Instant::now() < until {
                self.ask(again.image, (again.pause * 2).min(LAST_PAUSE), resources);
            } else {
                self.again.push_back(again);
            }
        }
    }

    fn ask(&mut self, image: ImageFacts, pause: Duration, resources: &Resources) {
        let comm = image.comm.to_text();
        let read = |asked: Asked<'_>, wanted: &[String]| self.reader.environment(asked, wanted);
        if resources.learn_by(&process_facts(&image, &comm), read) {
            let user = user_of(image.pid);
            self.again.push_back(Again { image, user, due: Instant::now() + pause, pause });
            if self.again.len() > MAX_AGAIN {
                self.make_room();
            }
        }
    }

    /// The user with most processes that wait loses the one that has waited longest.
    fn make_room(&mut self) {
        let mut counts: FxHashMap<Option<u32>, usize> = FxHashMap::default();
        self.again.iter().for_each(|again| *counts.entry(again.user).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(user, _)| user);
        if let Some(oldest) = self.again.iter().position(|again| Some(again.user) == most) {
            self.again.remove(oldest);
        }
    }
}
