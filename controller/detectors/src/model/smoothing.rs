//! Exponential smoothing, plain: the recursions, nothing else.

use serde::{Deserialize, Serialize};

use super::all_sound;
use crate::config::Form;

/// The least that a multiplicative model divides by, and the reciprocal of the most that a season multiplies by.
const LEAST: f64 = 1e-6;
/// No state grows beyond: observations are within 1e100.
const MOST: f64 = 1e120;

/// The next exponentially weighted mean (`ewm(alpha=lambda, adjust=False)` of pandas).
#[must_use]
pub fn exponential_mean(mean: f64, value: f64, lambda: f64) -> f64 {
    mean + lambda * (value - mean)
}

/// Level, trend and season of Holt and Winters; in the notation of Hyndman and Athanasopoulos ("Forecasting: principles and practice",
/// ch. 8), with s of the same place one season ago:
///
/// ```text
///           additive                                        multiplicative
/// forecast  l + phi b + s                                   (l + phi b) s
/// level     l' = alpha (y - s) + (1 - alpha)(l + phi b)     l' = alpha (y / s) + (1 - alpha)(l + phi b)
/// trend     b' = beta (l' - l) + (1 - beta) phi b           the same
/// season    s' = gamma (y - l - phi b) + (1 - gamma) s      s' = gamma y / (l + phi b) + (1 - gamma) s
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smoothing {
    level: f64,
    trend: f64,
    /// Empty: there is no season.
    season: Vec<f64>,
    position: usize,
}

/// What each new value weighs: alpha, beta, gamma, and phi, which damps the trend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// In the level.
    pub alpha: f64,
    /// In the trend.
    pub beta: f64,
    /// In the season.
    pub gamma: f64,
    /// What is left of the trend after a step.
    pub phi: f64,
}

impl Smoothing {
    /// A state to begin with: `season` is that of the next steps, in order.
    #[must_use]
    pub fn new(level: f64, trend: f64, season: Vec<f64>) -> Self {
        Self { level, trend, season, position: 0 }
    }

    /// What begins best with `values`, of which each `length` are a season (0: none): by the means of the first two seasons, as far as
    /// they are there.
    #[must_use]
    pub fn fitted(values: &[f64], length: usize, form: Form) -> Self {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let (Some(first), Some(second)) = (values.get(..length), values.get(length..2 * length)) else {
            return Self::new(mean(values), 0.0, Vec::new());
        };
        if length == 0 {
            return Self::new(mean(values), 0.0, Vec::new());
        }
        let steps = length as f64;
        let trend = (mean(second) - mean(first)) / steps;
        // The level before the first step; the mean is that of the middle of the season.
        let level = mean(first) - trend * (steps + 1.0) / 2.0;
        let at = |step: usize| level + trend * (step as f64 + 1.0);
        let season = first.iter().zip(second).enumerate().map(|(step, (one, other))| match form {
            Form::Additive => (one - at(step) + other - at(step + length)) / 2.0,
            Form::Multiplicative => {
                let ratio =
                    |value: f64, level: f64| value / level.max(LEAST * mean(first).abs()).max(f64::MIN_POSITIVE);
                ((ratio(*one, at(step)) + ratio(*other, at(step + length))) / 2.0).clamp(LEAST, 1.0 / LEAST)
            }
        });
        Self::new(level, trend, season.collect())
    }

    /// What the next value should be.
    #[must_use]
    pub fn forecast(&self, phi: f64, form: Form) -> f64 {
        let base = self.level + phi * self.trend;
        match (self.season.get(self.position), form) {
            (None, _) => base,
            (Some(season), Form::Additive) => base + season,
            (Some(season), Form::Multiplicative) => base * season,
        }
    }

    /// Takes the next value.
    pub fn update(&mut self, value: f64, weights: Weights, form: Form) {
        let Weights { alpha, beta, gamma, phi } = weights;
        let base = self.level + phi * self.trend;
        let (deseasonalized, season) = match (self.season.get(self.position), form) {
            (None, _) => (value, 0.0),
            (Some(season), Form::Additive) => (value - season, gamma * (value - base) + (1.0 - gamma) * season),
            (Some(season), Form::Multiplicative) => {
                let season = season.max(LEAST);
                let ratio = if base > 0.0 { value / base } else { season };
                (value / season, (gamma * ratio + (1.0 - gamma) * season).clamp(LEAST, 1.0 / LEAST))
            }
        };
        let level = (alpha * deseasonalized + (1.0 - alpha) * base).clamp(-MOST, MOST);
        self.trend = (beta * (level - self.level) + (1.0 - beta) * phi * self.trend).clamp(-MOST, MOST);
        self.level = level;
        if let Some(place) = self.season.get_mut(self.position) {
            *place = season.clamp(-MOST, MOST);
        }
        self.skip(1);
    }

    /// Goes `steps` on without a value: the season goes on, level and trend stay.
    pub(super) fn skip(&mut self, steps: u64) {
        if !self.season.is_empty() {
            let length = self.season.len() as u64;
            self.position = ((self.position as u64 + steps % length) % length) as usize;
        }
    }

    /// The length of the season; 0: there is none.
    #[must_use]
    pub fn season_length(&self) -> usize {
        self.season.len()
    }

    /// Level, trend, and the season from the next step on.
    #[must_use]
    pub fn state(&self) -> (f64, f64, Vec<f64>) {
        let (past, next) = self.season.split_at(self.position.min(self.season.len()));
        (self.level, self.trend, [next, past].concat())
    }

    pub(super) fn is_sound(&self) -> bool {
        let is_inside = if self.season.is_empty() { self.position == 0 } else { self.position < self.season.len() };
        is_inside && all_sound(&[self.level, self.trend]) && all_sound(&self.season)
    }
}
