//! Reads what the processes that are new say of themselves, while they live.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use profiler_reader::Reader;
use profiler_resource::{Asked, Resources};

use super::{ImageFacts, process_facts};

/// How often, and how long after each other, a process is asked for again that nobody could read.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(5);
/// Processes that wait for it; beyond it the oldest are given up, and have the names of those that say nothing of themselves.
const MAX_WAITING: usize = 1024;

/// Has processes read by the reader, which may be held by them: who samples waits no longer than the reader's limits.
#[derive(Debug)]
pub struct Learner {
    reader: Reader,
    /// By when they are due.
    again: VecDeque<Again>,
}

#[derive(Debug)]
struct Again {
    image: ImageFacts,
    due: Instant,
    attempts: u32,
}

impl Learner {
    /// By `reader`.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self { reader, again: VecDeque::new() }
    }

    /// Has `new` processes read, and those again that could not be read before.
    pub fn learn(&mut self, new: Vec<ImageFacts>, resources: &Resources) {
        let now = Instant::now();
        for image in new {
            self.ask(image, 1, resources);
        }
        let due = self.again.iter().take_while(|again| again.due <= now).count();
        let due: Vec<Again> = self.again.drain(..due).collect();
        for Again { image, attempts, .. } in due {
            self.ask(image, attempts + 1, resources);
        }
    }

    fn ask(&mut self, image: ImageFacts, attempts: u32, resources: &Resources) {
        let comm = image.comm.to_text();
        let read = |asked: Asked<'_>, wanted: &[String]| self.reader.environment(asked, wanted);
        if resources.learn_by(&process_facts(&image, &comm), read) && attempts < ATTEMPTS {
            if self.again.len() >= MAX_WAITING {
                self.again.pop_front();
            }
            self.again.push_back(Again { image, due: Instant::now() + PAUSE, attempts });
        }
    }
}
