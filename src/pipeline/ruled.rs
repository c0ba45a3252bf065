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
        while cpu_time() < end {
            let Some(image) = self.window.aggregate.images.get(self.ruled.looked).cloned() else { break };
            self.ruled.looked += 1;
            self.ask(image, resources);
        }
        let now = Clock::monotonic_now();
        if self.ruled.queue.is_empty() && now >= self.ruled.next {
            self.ruled.next = now + AGAIN_NS;
            self.ruled.queue.extend(self.ruled.watched.keys().copied());
        }
        while cpu_time() < end {
            let Some(pid) = self.ruled.queue.pop_front() else { break };
            if let Some(image) = self.ruled.watched.remove(&pid) {
                self.ask(image, resources);
            }
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
