//! One observation against what level, trend and season foretell.

use serde::{Deserialize, Serialize};

use super::season::season;
use super::smoothing::{Smoothing, Weights};
use super::spread::Spread;
use super::{Score, Step, all_sound, by_size, share_floor};
use crate::config::{Config, Form, HoltWinters as By, Season};
use crate::observation::{Observation, deviance_score};

/// The spread remembers so many steps.
const SPREAD_MEMORY: u64 = 500;
/// Deviations are learned up to so many standard deviations: an event shall not become next season's normal at once.
const LEARNED: f64 = 3.0;
/// The first search for a season is among so many values; then at each doubling.
const FIRST_SEARCH: usize = 64;
/// Of the first intervals the median is that of a step.
const INTERVALS: usize = 15;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoltWinters {
    smoothing: Option<Smoothing>,
    spread: Spread,
    count: u64,
    /// Values for as long as the season is not known, oldest first.
    values: Vec<f64>,
    is_season_settled: bool,
    /// The first intervals between observations, ns.
    intervals: Vec<u64>,
}

/// Values that are kept until the season is settled.
fn most_values(by: &By) -> usize {
    match by.season {
        Season::None => FIRST_SEARCH,
        Season::Given(length) => 2 * length,
        Season::Found(longest) => (3 * longest).max(FIRST_SEARCH),
    }
}

pub(super) fn most_bytes(by: &By) -> usize {
    let season = match by.season {
        Season::None => 0,
        Season::Given(length) | Season::Found(length) => length,
    };
    (most_values(by).next_power_of_two() + season) * size_of::<f64>() + INTERVALS.next_power_of_two() * size_of::<u64>()
}

impl HoltWinters {
    pub(super) fn observe(&mut self, by: &By, config: &Config, observation: &Observation, step: Step) -> Option<Score> {
        let smallest = config.smallest_change(observation.counts().is_some());
        let value = observation.value();
        let missing = self.missing(step, config.pool);
        self.skip(missing, by);
        let score = self.learn(by, smallest, observation, value);
        self.count = self.count.saturating_add(1);
        if !self.is_season_settled {
            self.values.push(value);
            self.settle(by, smallest, observation);
        }
        // The season that was given is not known before two of them.
        score.filter(|_| self.is_season_settled || !matches!(by.season, Season::Given(_)))
    }

    /// Steps that had no observation since the last one.
    fn missing(&mut self, step: Step, pool: u64) -> u64 {
        if step.passed == 0 {
            return 0;
        }
        let interval = if pool > 0 {
            pool
        } else {
            if self.intervals.len() < INTERVALS {
                self.intervals.push(step.passed);
            }
            let mut sorted = self.intervals.clone();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied().unwrap_or(step.passed)
        };
        (step.passed.saturating_add(interval / 2) / interval.max(1)).saturating_sub(1)
    }

    fn skip(&mut self, steps: u64, by: &By) {
        if steps == 0 {
            return;
        }
        if let Some(smoothing) = &mut self.smoothing {
            smoothing.skip(steps);
        }
        if !self.is_season_settled
            && let Some(&last) = self.values.last()
        {
            // Of more than there is room for, what was before the gap is forgotten.
            let room = most_values(by).saturating_sub(self.values.len() + 1);
            match usize::try_from(steps) {
                Ok(steps) if steps <= room => self.values.resize(self.values.len() + steps, last),
                _ => self.values.clear(),
            }
        }
    }

    /// Scores `value`, and learns it.
    fn learn(&mut self, by: &By, smallest: f64, observation: &Observation, value: f64) -> Option<Score> {
        let Some(smoothing) = &mut self.smoothing else {
            self.smoothing = Some(Smoothing::new(value, 0.0, Vec::new()));
            return None;
        };
        let forecast = smoothing.forecast(by.phi, by.form);
        let sampling = observation.sampling_variance(forecast, share_floor(smallest));
        let deviation = value - forecast;
        // Where the season multiplies, so does the noise: its spread is learned in parts of what is foretold.
        let unit = match by.form {
            Form::Multiplicative if observation.counts().is_none() => {
                forecast.abs().max(1e-6 * value.abs()).max(f64::MIN_POSITIVE.sqrt())
            }
            _ => 1.0,
        };
        let (relative, base) = (sampling / unit / unit, forecast / unit);
        let variance = self.spread.variance(relative, base) * unit * unit;
        let is_warm = self.count >= 20;
        let rate = 1.0 / (self.count.min(SPREAD_MEMORY) as f64).max(1.0);
        self.spread.learn(deviation / unit, relative, base, rate, is_warm);
        let most = LEARNED * variance.sqrt();
        let learned = if is_warm { forecast + deviation.clamp(-most, most) } else { value };
        let weights = Weights { alpha: by.alpha, beta: by.beta, gamma: by.gamma, phi: by.phi };
        smoothing.update(learned, weights, by.form);
        let score = match observation.counts() {
            Some(counts) => {
                let p = forecast.clamp(share_floor(smallest), 1.0 - share_floor(smallest));
                deviance_score(value, p, counts.total as f64) / (variance / sampling).max(1.0).sqrt()
            }
            None => deviation / variance.sqrt(),
        };
        Some(Score {
            // The level is an average of some 2 / alpha - 1 observations.
            expected: (forecast, variance * by.alpha / (2.0 - by.alpha)),
            seen: (value, variance),
            recent: value,
            ratio: by_size(score / by.threshold, deviation, smallest),
            since: observation.time(),
        })
    }

    /// Once there are values enough: the season, and a model that has learned all of them anew.
    fn settle(&mut self, by: &By, smallest: f64, observation: &Observation) {
        let length = self.values.len();
        let is_full = length >= most_values(by);
        let found = match by.season {
            Season::None => is_full.then_some(0),
            Season::Given(season) => is_full.then_some(season),
            Season::Found(longest) => {
                let is_due = is_full || (length >= FIRST_SEARCH && length.is_power_of_two());
                let found = if is_due { season(&self.values, longest) } else { None };
                found.or(is_full.then_some(0))
            }
        };
        let Some(season) = found else { return };
        let values = std::mem::take(&mut self.values);
        self.is_season_settled = true;
        if season == 0 {
            return;
        }
        self.smoothing = Some(Smoothing::fitted(&values, season, by.form));
        self.spread = Spread::default();
        self.count = 0;
        for value in values {
            self.learn(by, smallest, observation, value);
            self.count += 1;
        }
    }

    pub(super) fn is_sound(&self, by: &By) -> bool {
        let longest = match by.season {
            Season::None => 0,
            Season::Given(length) | Season::Found(length) => length,
        };
        self.smoothing.as_ref().is_none_or(|smoothing| smoothing.is_sound() && smoothing.season_length() <= longest)
            && (self.smoothing.is_some() || self.count == 0)
            && all_sound(&[self.spread.excess])
            && all_sound(&self.values)
            && self.values.len() < most_values(by)
            && (!self.is_season_settled || self.values.is_empty())
            && self.intervals.len() <= INTERVALS
    }
}
