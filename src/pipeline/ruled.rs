//! Processes of which a rule drops all samples: found out here, and refused by the kernel half before a stack of them is walked.
//!
//! A process is sampled until all is known of it that its resource will say, and until a rule was asked: what is dropped too late is dropped with its
//! window, by the same rule. So nothing that is to be kept is lost. Whoever is refused is asked about again, since pods get other labels.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use profiler_bpf::abi::RULE_LANES;
use profiler_resource::Resources;
use profiler_unwinders::process::Clock;
use rustc_hash::FxHashMap;

use super::aggregate::Image;
use super::assemble::alone;
use super::facts::sampled_facts;
use super::resolve;
use super::session::Session;
use crate::rules::{Early, cpu_time};

/// Between two times that the same process is asked about, ns.
const AGAIN_NS: u64 = 5_000_000_000;
/// CPU time that a step has for this. One rule on one process may take longer.
const BUDGET: Duration = Duration::from_millis(10);
/// Processes that are asked about again.
const MAX_WATCHED: usize = profiler_bpf::abi::MAX_PROCESSES;

/// The rules, and who is watched.
#[derive(Debug, Default)]
pub(super) struct Ruled {
    early: Arc<Early>,
    /// Images of the aggregate that were looked at.
    looked: usize,
    /// Images that are refused, or of which too little is known, by pid.
    watched: FxHashMap<u32, Image>,
    /// Of these, who is asked about next.
    queue: VecDeque<u32>,
    next: u64,
    /// By whose rules, what was dropped before the present rules came.
    before: BTreeMap<String, u64>,
    /// As the kernel half's lanes were then.
    base: [u64; RULE_LANES],
}

impl Ruled {
    /// The aggregate that was looked at is taken.
    pub(super) fn window_ended(&mut self) {
        self.looked = 0;
    }

    /// One of `sampled` that was not looked at, and one that is asked about again.
    fn turn(&mut self, sampled: &[Image]) -> [Option<Image>; 2] {
        let next = sampled.get(self.looked).cloned();
        self.looked += usize::from(next.is_some());
        [next, self.next_watched()]
    }

    /// Who is asked about again next.
    fn next_watched(&mut self) -> Option<Image> {
        loop {
            let pid = self.queue.pop_front()?;
            // It may have been let in since.
            if let Some(image) = self.watched.remove(&pid) {
                return Some(image);
            }
        }
    }

    /// What was dropped, by whose rules, when the kernel half's lanes are `lanes`.
    pub(super) fn dropped(&self, lanes: [u64; RULE_LANES]) -> BTreeMap<String, u64> {
        let mut dropped = self.before.clone();
        for (lane, (now, base)) in lanes.into_iter().zip(self.base).enumerate() {
            let new = now.saturating_sub(base);
            if new > 0 {
                *dropped.entry(self.early.name(lane).to_owned()).or_default() += new;
            }
        }
        dropped
    }
}

impl Session {
    /// Refuses processes of which one of these rules drops all samples, from now on; those that others dropped are sampled again. The kernel half refuses
    /// them if it was loaded with [`Targets::Rules`](profiler_bpf::Targets::Rules), else nobody does.
    pub fn set_early(&mut self, early: Arc<Early>) {
        let lanes = self.sampler.ruled_out();
        let before = self.ruled.dropped(lanes);
        self.chosen.set_has_rules(!early.is_empty(), &mut self.sampler);
        self.ruled = Ruled { early, before, base: lanes, ..Ruled::default() };
    }

    /// Asks the rules about processes that were sampled, as far as a step's time goes; to be called after each step, when what is new was learnt.
    pub fn rule_out(&mut self, resources: &Resources) {
        if self.ruled.early.is_empty() {
            return;
        }
        let end = cpu_time().saturating_add(BUDGET);
        let now = Clock::monotonic_now();
        if self.ruled.queue.is_empty() && now >= self.ruled.next {
            self.ruled.next = now + AGAIN_NS;
            self.ruled.queue.extend(self.ruled.watched.keys().copied());
        }
        // By turns, one that is sampled and one that is watched: however many there are of the ones, the others' turn comes.
        while cpu_time() < end {
            let turn = self.ruled.turn(&self.window.aggregate.images);
            if turn.iter().all(Option::is_none) {
                break;
            }
            turn.into_iter().flatten().for_each(|image| self.ask(image, resources));
        }
    }

    fn ask(&mut self, image: Image, resources: &Resources) {
        let id = (image.pid, image.serial);
        let same = self.processes.get(id.0).filter(|process| process.serial == id.1 && process.ended.is_none());
        let Some(process) = same else {
            // Another image is under this pid, or none.
            self.chosen.let_in(id, &mut self.sampler);
            return;
        };
        // As the window will have it when it is taken.
        let image = Image { executable: image.executable, ..resolve::image(process) };
        let comm = image.comm.to_text();
        let is_known = (image.executable.is_some() || process.kthread)
            && !process.container_inherited
            && resources.is_settled(&sampled_facts(&image, &comm));
        let lane = if is_known { self.ruled.early.drops(&alone(&image, resources)) } else { None };
        let is_out = match lane {
            Some(lane) => self.chosen.rule_out(id, lane, &mut self.sampler),
            None => {
                self.chosen.let_in(id, &mut self.sampler);
                false
            }
        };
        if (is_out || !is_known) && self.ruled.watched.len() < MAX_WATCHED {
            self.ruled.watched.insert(id.0, image);
        } else if is_out {
            // Nobody would ask about it again.
            self.chosen.let_in(id, &mut self.sampler);
        }
    }
}

#[cfg(test)]
mod tests {
    use profiler_unwinders::process::Comm;

    use super::*;

    fn image(pid: u32) -> Image {
        Image {
            pid,
            serial: pid,
            start_unix_ns: 0,
            start_time_ns: 0,
            comm: Comm::default(),
            exe: Arc::default(),
            executable: None,
            container_id: None,
            cgroup: None,
            namespace_pid: pid,
        }
    }

    #[test]
    fn however_many_are_sampled_who_is_refused_has_his_turn() {
        let sampled: Vec<Image> = (1..1000).map(image).collect();
        let mut ruled = Ruled::default();
        for pid in [2001, 2002, 2003] {
            ruled.watched.insert(pid, image(pid));
            ruled.queue.push_back(pid);
        }
        // One that was let in meanwhile.
        ruled.watched.remove(&2002);
        let mut turn = || ruled.turn(&sampled).map(|image| image.map(|image| image.pid));
        assert_eq!([turn(), turn(), turn()], [[Some(1), Some(2001)], [Some(2), Some(2003)], [Some(3), None]]);
        assert_eq!((3..999).map(|_| turn()).last(), Some([Some(999), None]));
        assert_eq!(turn(), [None, None]);
        ruled.window_ended();
        assert_eq!(
            ruled.turn(&sampled)[0].as_ref().map(|image| image.pid),
            Some(1),
            "all are asked about in each window"
        );
    }
}
