//! The models: each has its own idea of what is normal, and says how far from it a series is.

mod baseline;
mod cusum;
mod ewma;
mod holt_winters;
mod robust;
mod season;
mod smoothing;
mod spread;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Method};
use crate::observation::Observation;

pub use season::season;
pub use smoothing::{Smoothing, Weights, exponential_mean};

/// Scores are cut here, in thresholds: of a series that was constant any change is beyond all measure.
const LARGEST_RATIO: f64 = 1e6;

/// What a model says of an observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Score {
    /// What is normal, and the square of its error.
    pub expected: (f64, f64),
    /// What is there instead (of several observations, where the model sums up), and the square of its error.
    pub seen: (f64, f64),
    /// What is there now.
    pub recent: f64,
    /// The statistic in thresholds; below 0 if it is less than normal.
    pub ratio: f64,
    /// Since when it has been so, ns since the Unix epoch.
    pub since: u64,
}

/// A model and all that it remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Model {
    Cusum(cusum::Cusum),
    Ewma(ewma::Ewma),
    RobustZ(robust::RobustZ),
    HoltWinters(holt_winters::HoltWinters),
}

/// The time of an observation, as a model sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// ns since the observation before; 0 for the first.
    pub passed: u64,
    /// Whether that was a gap.
    pub after_gap: bool,
    /// Whether what is normal is still being learned: nothing builds up yet.
    pub is_cold: bool,
    /// For how long a change has been told, ns; none while there is none.
    pub changed_for: Option<u64>,
}

impl Model {
    pub(crate) fn new(config: &Config) -> Self {
        match config.method {
            Method::Cusum(_) => Self::Cusum(cusum::Cusum::default()),
            Method::Ewma(_) => Self::Ewma(ewma::Ewma::default()),
            Method::RobustZ(_) => Self::RobustZ(robust::RobustZ::default()),
            Method::HoltWinters(_) => Self::HoltWinters(holt_winters::HoltWinters::default()),
        }
    }

    /// Scores `observation` by what was known before it, and learns from it. None while it cannot say yet.
    pub(crate) fn observe(&mut self, config: &Config, observation: &Observation, step: Step) -> Option<Score> {
        let smallest = config.smallest_change(observation.counts().is_some());
        let score = match (self, config.method) {
            (Self::Cusum(model), Method::Cusum(by)) => model.observe(&by, smallest, observation, step),
            (Self::Ewma(model), Method::Ewma(by)) => model.observe(&by, smallest, observation, step),
            (Self::RobustZ(model), Method::RobustZ(by)) => model.observe(&by, smallest, observation),
            (Self::HoltWinters(model), Method::HoltWinters(by)) => model.observe(&by, config, observation, step),
            // A detector makes its model from its own configuration, and checks one that was kept.
            _ => None,
        }?;
        let ratio = if score.ratio.is_nan() { 0.0 } else { score.ratio.clamp(-LARGEST_RATIO, LARGEST_RATIO) };
        Some(Score { ratio, ..score })
    }

    /// Whether a model that was kept can be one of `config`: right method, finite numbers, lengths within bounds.
    pub(crate) fn is_sound(&self, config: &Config) -> bool {
        match (self, config.method) {
            (Self::Cusum(model), Method::Cusum(by)) => model.is_sound(&by),
            (Self::Ewma(model), Method::Ewma(_)) => model.is_sound(),
            (Self::RobustZ(model), Method::RobustZ(by)) => model.is_sound(&by),
            (Self::HoltWinters(model), Method::HoltWinters(by)) => model.is_sound(&by),
            _ => false,
        }
    }

    /// Bytes that a model of `config` takes beside itself, at most.
    pub(crate) fn most_bytes(config: &Config) -> usize {
        match config.method {
            Method::Cusum(_) | Method::Ewma(_) => 0,
            Method::RobustZ(by) => robust::most_bytes(&by),
            Method::HoltWinters(by) => holt_winters::most_bytes(&by),
        }
    }
}

/// Evidence for a change that does not matter is no event, thresholds.
const TOO_SMALL: f64 = 0.99;

/// `ratio`, or what is no event where `change` is less than the smallest that matters: however sure it is.
fn by_size(ratio: f64, change: f64, smallest: f64) -> f64 {
    if change.abs() < smallest { ratio.clamp(-TOO_SMALL, TOO_SMALL) } else { ratio }
}

/// The least that a share is taken to be where it stands for what is normal: one never seen may be rare only.
fn share_floor(smallest: f64) -> f64 {
    (smallest / 10.0).clamp(1e-6, 0.1)
}

/// Whether all are finite, and not beyond what observations within bounds can make of them.
fn all_sound(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite() && value.abs() <= 1e250)
}
