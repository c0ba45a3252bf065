//! Cumulative sums of log likelihood ratios, one for more and one for less.
//!
//! ```text
//! S = max(0, S + ln(P(observation | changed) / P(observation | normal)))     an event at S > threshold
//! ```
//!
//! Of shares the likelihood is binomial (Reynolds and Stoumbos 1999), divided by the dispersion where a series varies more than sampling
//! explains; of other values it is normal. Page (1954) has the sum, Moustakides (1986) shows that no procedure with as few false events
//! tells a change sooner. Since when it has been so is when the sum was 0 last.

use serde::{Deserialize, Serialize};

use super::baseline::Normal;
use super::{Score, Step, all_sound, by_size, share_floor};
use crate::config::Cusum as By;
use crate::observation::Observation;

/// No single observation is more than this share of the evidence: one is no change yet.
const MOST_OF_ONE: f64 = 0.5;
/// A step is abrupt if one observation is this share of the evidence, and more than thrice what came before.
const ABRUPT: f64 = 0.25;
/// The sum stays at most here, in thresholds: what has ended is to be told as soon as what has begun.
const CEILING: f64 = 1.5;
/// Weight of the newest observation in what is there now.
const RECENT: f64 = 0.1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cusum {
    normal: Normal,
    up: Sum,
    down: Sum,
    recent: Option<f64>,
}

/// One sum, and what was seen since it was 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    statistic: f64,
    since: u64,
    weighted: f64,
    weight: f64,
    count: u64,
}

impl Sum {
    fn add(&mut self, ratio: f64, observation: &Observation, step: Step, threshold: f64) {
        if self.statistic <= 0.0 || step.after_gap || step.is_cold {
            let since = observation.time().saturating_sub(if step.after_gap { 0 } else { step.passed });
            *self = Self { since, ..Self::default() };
        }
        let most = MOST_OF_ONE * threshold;
        if self.statistic > 0.0 && ratio >= ABRUPT * threshold && ratio > 3.0 * self.statistic {
            // What came before says so little of a change that it was none yet: of a large step the level after it is told, not a mean of
            // both.
            let since = observation.time().saturating_sub(step.passed);
            *self = Self { since, statistic: self.statistic, ..Self::default() };
        }
        self.statistic = (self.statistic + ratio.clamp(-most, most)).clamp(0.0, CEILING * threshold);
        self.weight += observation.weight();
        self.weighted += observation.weight() * observation.value();
        self.count = self.count.saturating_add(1);
    }

    fn is_sound(&self, threshold: f64) -> bool {
        all_sound(&[self.statistic, self.weighted, self.weight])
            && (0.0..=CEILING * threshold).contains(&self.statistic)
            && self.weight >= 0.0
    }
}

impl Cusum {
    pub(super) fn observe(&mut self, by: &By, smallest: f64, observation: &Observation, step: Step) -> Option<Score> {
        let value = observation.value();
        let recent = self.recent.map_or(value, |recent| recent + RECENT * (value - recent));
        self.recent = Some(recent);
        let mean = self.normal.now.mean();
        let score = mean.map(|mean| self.score(by, smallest, observation, step, mean, recent));
        if self.normal.learn(observation, step, by.memory, smallest) {
            (self.up, self.down) = Default::default();
        }
        score
    }

    fn score(
        &mut self,
        by: &By,
        smallest: f64,
        observation: &Observation,
        step: Step,
        mean: f64,
        recent: f64,
    ) -> Score {
        let floor = share_floor(smallest);
        let sampling = observation.sampling_variance(mean, floor);
        let variance = self.normal.now.spread.variance(sampling, mean);
        let (up, down) = match observation.counts() {
            Some(counts) => {
                let normal = mean.clamp(floor, 1.0 - floor);
                let dispersion = self.normal.now.spread.dispersion(sampling);
                let (of, rest) = (counts.of as f64, (counts.total - counts.of) as f64);
                let ratio = |changed: f64| {
                    (of * (changed / normal).ln() + rest * ((1.0 - changed) / (1.0 - normal)).ln()) / dispersion
                };
                let more = (normal * (1.0 + by.shift)).max(normal + smallest).min((1.0 + normal) / 2.0);
                let less = (normal / (1.0 + by.shift)).min(normal - smallest);
                // Of a share so small that there is no smaller one that matters, only more is told.
                (ratio(more), if less > 0.0 { ratio(less) } else { f64::NEG_INFINITY })
            }
            None => {
                let sd = variance.sqrt();
                // In standard deviations.
                let shift = by.sigmas.max(smallest / sd);
                let z = (observation.value() - mean) / sd;
                (shift * (z - shift / 2.0), shift * (-z - shift / 2.0))
            }
        };
        self.up.add(up, observation, step, by.threshold);
        self.down.add(down, observation, step, by.threshold);
        let is_up = self.up.statistic >= self.down.statistic;
        let sum = if is_up { &self.up } else { &self.down };
        let seen = if sum.weight > 0.0 { sum.weighted / sum.weight } else { observation.value() };
        // The error of what was seen: that of one observation, less by their number.
        let of_seen = match observation.counts() {
            Some(_) => {
                let p = seen.clamp(floor, 1.0 - floor);
                (p * (1.0 - p) / sum.weight.max(1.0)) * self.normal.now.spread.dispersion(sampling)
            }
            None => variance / sum.count.max(1) as f64,
        };
        let ratio = sum.statistic / by.threshold;
        let ratio = by_size(ratio, seen - mean, smallest);
        Score {
            expected: (mean, self.normal.now.variance_of_mean(variance)),
            seen: (seen, of_seen),
            recent,
            ratio: if is_up { ratio } else { -ratio },
            since: sum.since,
        }
    }

    pub(super) fn is_sound(&self, by: &By) -> bool {
        self.normal.is_sound()
            && [self.up, self.down].iter().all(|sum| sum.is_sound(by.threshold))
            && self.recent.is_none_or(|recent| all_sound(&[recent]))
    }
}
