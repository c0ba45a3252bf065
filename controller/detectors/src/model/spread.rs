//! How much a series varies beyond what sampling alone makes of it.

use serde::{Deserialize, Serialize};

/// Deviations beyond so many standard deviations count as this one: one outlier shall not hide the next ...
const WINSOR: f64 = 3.0;
/// ... but for this share of their square, so that a series that was constant can become noisy.
const LEAK: f64 = 0.04;

/// The variance beside that of sampling: squares of deviations less what sampling explains, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spread {
    /// May be below 0, by chance.
    pub(super) excess: f64,
}

impl Spread {
    /// The whole variance of an observation with `sampling` variance, about `expected`.
    pub(super) fn variance(&self, sampling: f64, expected: f64) -> f64 {
        // Rounding: what differs in the last digits has not changed.
        let rounding = 1e-9 * expected.abs() + 1e-12;
        sampling + self.excess.max(0.0) + rounding * rounding
    }

    /// By how much the variance of sampling has to be multiplied; never less than 1.
    pub(super) fn dispersion(&self, sampling: f64) -> f64 {
        1.0 + self.excess.max(0.0) / sampling.max(f64::MIN_POSITIVE)
    }

    /// Learns a deviation, with weight `rate`.
    pub(super) fn learn(&mut self, deviation: f64, sampling: f64, expected: f64, rate: f64, is_warm: bool) {
        let square = deviation * deviation;
        let limit = WINSOR * WINSOR * self.variance(sampling, expected);
        let square = if is_warm { square.min(limit.max(LEAK * square)) } else { square };
        self.excess += rate * (square - sampling - self.excess);
    }
}
