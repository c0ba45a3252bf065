//! Several observations as one.

use serde::{Deserialize, Serialize};

use crate::observation::{Counts, Observation, Unusable};

/// The observations of one period of the pool, so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    period: u64,
    /// Of the newest.
    time: u64,
    count: u64,
    counts: Option<Counts>,
    sum: f64,
    variance: f64,
}

impl Pool {
    pub(crate) fn new(observation: &Observation, length: u64) -> Self {
        Self {
            period: observation.time() / length.max(1),
            time: observation.time(),
            count: 1,
            counts: observation.counts(),
            sum: observation.value(),
            variance: observation.variance(),
        }
    }

    /// Whether `observation` belongs to it.
    pub(crate) fn takes(&self, observation: &Observation, length: u64) -> bool {
        self.period == observation.time() / length.max(1)
    }

    pub(crate) fn add(&mut self, observation: &Observation) {
        self.time = observation.time();
        self.count = self.count.saturating_add(1);
        self.sum += observation.value();
        self.variance += observation.variance();
        if let (Some(counts), Some(more)) = (&mut self.counts, observation.counts()) {
            // Of two that overflow neither says more than the other.
            if let (Some(of), Some(total)) = (counts.of.checked_add(more.of), counts.total.checked_add(more.total)) {
                *counts = Counts { of, total };
            }
        }
    }

    /// All of them as one, at the time of the last.
    pub(crate) fn close(&self) -> Result<Observation, Unusable> {
        let count = self.count.max(1) as f64;
        match self.counts {
            Some(counts) => Observation::share(self.time, counts.of, counts.total),
            None => Observation::measured(self.time, self.sum / count, self.variance / (count * count)),
        }
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.count > 0
            && self.sum.is_finite()
            && self.variance.is_finite()
            && self.variance >= 0.0
            && self.counts.is_none_or(|counts| counts.total > 0 && counts.of <= counts.total)
    }
}
