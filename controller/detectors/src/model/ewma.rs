//! A short exponentially weighted moving average against a long one.
//!
//! ```text
//! E = lambda x + (1 - lambda) E     an event at |E - normal| > threshold * sd(E)     sd(E)^2 -> sd(x)^2 lambda / (2 - lambda)
//! ```
//!
//! Roberts (1959); Lucas and Saccucci (1990) on the choice of lambda and threshold; Nishina (1992): it has been so since E was last on the other
//! side of what is normal. The variance of E is added up as observations come,
//! each with its own, so that it is right from the first one and where the number of samples changes.

use serde::{Deserialize, Serialize};

use super::baseline::Normal;
use super::{Score, Step, all_sound, by_size, share_floor};
use crate::config::Ewma as By;
use crate::observation::{Observation, deviance_score};

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ewma {
    normal: Normal,
    short: Option<Short>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Short {
    value: f64,
    /// Of shares: 1 / the samples that it is worth. Of other values: its variance by sampling.
    sampling: f64,
    /// The share of an observation's spread that it has.
    squares: f64,
    /// When it was last on the other side of what is normal, ns since the Unix epoch.
    since: u64,
    above: bool,
}

impl Ewma {
    pub(super) fn observe(&mut self, by: &By, smallest: f64, observation: &Observation, step: Step) -> Option<Score> {
        let of_one = observation.counts().map_or(observation.variance(), |counts| 1.0 / counts.total as f64);
        let (value, time) = (observation.value(), observation.time());
        let keep = 1.0 - by.lambda;
        let mut short = match self.short.filter(|_| !step.after_gap) {
            Some(short) => Short {
                value: super::exponential_mean(short.value, value, by.lambda),
                sampling: keep * keep * short.sampling + by.lambda * by.lambda * of_one,
                squares: keep * keep * short.squares + by.lambda * by.lambda,
                ..short
            },
            None => Short { value, sampling: of_one, squares: 1.0, since: time, above: false },
        };
        let score = self.normal.now.mean().map(|mean| {
            let above = short.value > mean;
            if above != short.above || step.after_gap {
                short.above = above;
                short.since = time.saturating_sub(if step.after_gap { 0 } else { step.passed });
            }
            let floor = share_floor(smallest);
            let of_observation = self.normal.now.spread.variance(observation.sampling_variance(mean, floor), mean);
            let excess = self.normal.now.spread.excess.max(0.0);
            let (score, variance) = match observation.counts() {
                Some(_) => {
                    let p = mean.clamp(floor, 1.0 - floor);
                    let sampling = p * (1.0 - p) * short.sampling;
                    let variance = sampling + excess * short.squares;
                    let score = deviance_score(short.value, p, 1.0 / short.sampling);
                    (score / (variance / sampling).sqrt(), variance)
                }
                None => {
                    let rounding = self.normal.now.spread.variance(0.0, mean) - excess;
                    let variance = short.sampling + excess * short.squares + rounding;
                    ((short.value - mean) / variance.sqrt(), variance)
                }
            };
            Score {
                expected: (mean, self.normal.now.variance_of_mean(of_observation)),
                seen: (short.value, variance),
                recent: short.value,
                ratio: by_size(score / by.threshold, short.value - mean, smallest),
                since: short.since,
            }
        });
        self.short = Some(short);
        self.normal.learn(observation, step, by.memory, smallest);
        score
    }

    pub(super) fn is_sound(&self) -> bool {
        let sound = |short: &Short| {
            all_sound(&[short.value, short.sampling, short.squares])
                && short.sampling >= 0.0
                && short.squares > 0.0
                && short.squares <= 1.0
        };
        self.normal.is_sound() && self.short.as_ref().is_none_or(sound)
    }
}
