//! What is normal, as an average with a long memory.
//!
//! While a change lasts nothing is learned: what returns shall find what was normal as it was. What has lasted for as long as the memory
//! is the new normal, with a level and a spread of its own.

use serde::{Deserialize, Serialize};

use super::spread::Spread;
use super::{Step, all_sound, share_floor};
use crate::observation::Observation;

/// Observations before deviations are winsorised.
const COLD: u64 = 20;
/// However long a gap, what comes after it weighs at most this much.
const HEAVIEST: f64 = 0.05;

/// What is normal, and what may become it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Normal {
    pub(super) now: Baseline,
    /// Learned since the last change began, while it lasts.
    next: Option<Baseline>,
}

impl Normal {
    /// Learns `observation`. True if a change has lasted for so long that what is there now is normal from here on.
    pub(super) fn learn(&mut self, observation: &Observation, step: Step, memory: u64, smallest: f64) -> bool {
        let Some(lasted) = step.changed_for else {
            self.next = None;
            self.now.learn(observation, step.passed, memory, smallest);
            return false;
        };
        let next = self.next.get_or_insert_default();
        next.learn(observation, step.passed, memory, smallest);
        if lasted < memory || next.count < COLD {
            return false;
        }
        self.now = *next;
        self.next = None;
        true
    }

    pub(super) fn is_sound(&self) -> bool {
        self.now.is_sound() && self.next.as_ref().is_none_or(Baseline::is_sound)
    }
}

/// A mean that forgets, weighted by samples, and the spread about it.
///
/// ```text
/// weight += a (w - weight)     sum += a (w x - sum)     mean = sum / weight     a = max(1 - exp(-passed / memory), 1 / (count + 1))
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Baseline {
    sum: f64,
    weight: f64,
    /// Sum of squares of what each observation weighs in the mean: the mean's variance is so much of an observation's.
    squares: f64,
    pub(super) spread: Spread,
    count: u64,
}

impl Baseline {
    /// The mean; none before the first observation.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0 && self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// The variance of the mean, given that of an observation.
    pub(super) fn variance_of_mean(&self, of_one: f64) -> f64 {
        self.squares * of_one
    }

    /// Learns `observation`, `passed` ns after the last one; `memory` is the time constant, ns.
    fn learn(&mut self, observation: &Observation, passed: u64, memory: u64, smallest: f64) {
        let by_time = -(-(passed as f64) / memory.max(1) as f64).exp_m1();
        let rate = by_time.min(HEAVIEST).max(1.0 / (self.count as f64 + 1.0));
        if let Some(mean) = self.mean() {
            let sampling = observation.sampling_variance(mean, share_floor(smallest));
            self.spread.learn(observation.value() - mean, sampling, mean, rate, self.count >= COLD);
        }
        let weight = observation.weight();
        self.weight += rate * (weight - self.weight);
        self.sum += rate * (weight * observation.value() - self.sum);
        self.squares = (1.0 - rate) * (1.0 - rate) * self.squares + rate * rate;
        self.count = self.count.saturating_add(1);
    }

    fn is_sound(&self) -> bool {
        all_sound(&[self.sum, self.weight, self.squares, self.spread.excess])
            && (0.0..=1.0).contains(&self.squares)
            && if self.count > 0 { self.weight > 0.0 } else { self.weight == 0.0 }
    }
}
