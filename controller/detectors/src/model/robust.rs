//! One observation against median and MAD of those before it.
//!
//! ```text
//! z = (x - median) / (1.4826 MAD)     MAD = median(|x - median|)
//! ```
//!
//! Hampel (1974); Iglewicz and Hoaglin (1993), whose 0.6745 is 1 / 1.4826. Half of the window may be outliers. Of shares the score is the
//! signed root of the deviance, and the scale never less than sampling explains: counts are lumpy, and their MAD may be 0.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Score, all_sound, by_size, share_floor, spread::Spread};
use crate::config::RobustZ as By;
use crate::observation::{Observation, deviance_score};

/// From the MAD to the standard deviation of a normal distribution.
const NORMAL: f64 = 1.482_602_218_505_602;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RobustZ {
    /// Oldest first.
    window: VecDeque<f64>,
    /// The same, by size.
    #[serde(skip)]
    sorted: Vec<f64>,
}

pub(super) fn most_bytes(by: &By) -> usize {
    2 * by.window.next_power_of_two() * size_of::<f64>()
}

impl RobustZ {
    pub(super) fn observe(&mut self, by: &By, smallest: f64, observation: &Observation) -> Option<Score> {
        let value = observation.value();
        if self.sorted.len() != self.window.len() {
            // It was kept, and is new here.
            self.sorted = self.window.iter().copied().collect();
            self.sorted.sort_by(f64::total_cmp);
        }
        let score = median(&self.sorted).map(|median| {
            let sd = NORMAL * mad(&self.sorted, median);
            let sampling = observation.sampling_variance(median, share_floor(smallest));
            let variance = Spread { excess: sd * sd - sampling }.variance(sampling, median);
            let score = match observation.counts() {
                Some(counts) => {
                    let p = median.clamp(share_floor(smallest), 1.0 - share_floor(smallest));
                    deviance_score(value, p, counts.total as f64) / (variance / sampling).max(1.0).sqrt()
                }
                None => (value - median) / variance.sqrt(),
            };
            Score {
                // The median's variance is pi / 2 of the mean's.
                expected: (median, 1.571 * variance / self.window.len() as f64),
                seen: (value, variance),
                recent: value,
                ratio: by_size(score / by.threshold, value - median, smallest),
                since: observation.time(),
            }
        });
        if self.window.len() >= by.window
            && let Some(oldest) = self.window.pop_front()
        {
            let place = self.sorted.partition_point(|other| other.total_cmp(&oldest).is_lt());
            self.sorted.remove(place);
        }
        self.window.push_back(value);
        let place = self.sorted.partition_point(|other| other.total_cmp(&value).is_lt());
        self.sorted.insert(place, value);
        score
    }

    pub(super) fn is_sound(&self, by: &By) -> bool {
        self.window.len() <= by.window && self.window.iter().all(|value| all_sound(&[*value]))
    }
}

/// The median of what is sorted.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => sorted.get(middle).copied(),
        _ => Some(sorted.get(middle - 1)? / 2.0 + sorted.get(middle)? / 2.0),
    }
}

/// The median of the distances from `centre` of what is sorted: a walk outwards from the centre to half of them.
fn mad(sorted: &[f64], centre: f64) -> f64 {
    let mut right = sorted.partition_point(|value| *value < centre);
    let mut left = right;
    let (length, mut last, mut previous) = (sorted.len(), 0.0, 0.0);
    for _ in 0..=length / 2 {
        let below = left.checked_sub(1).and_then(|at| sorted.get(at)).map(|value| centre - value);
        let above = sorted.get(right).map(|value| value - centre);
        previous = last;
        last = match (below, above) {
            (Some(below), Some(above)) if below <= above => {
                left -= 1;
                below
            }
            (_, Some(above)) => {
                right += 1;
                above
            }
            (Some(below), None) => {
                left -= 1;
                below
            }
            (None, None) => break,
        };
    }
    if length % 2 == 1 { last } else { (previous + last) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_mad_are_those_by_definition() {
        let mut seed = 7_u64;
        for length in 1..60 {
            let mut values: Vec<f64> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    // With ties.
                    (seed >> 59) as f64
                })
                .collect();
            values.sort_by(f64::total_cmp);
            let centre = median(&values).unwrap();
            let mut distances: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
            distances.sort_by(f64::total_cmp);
            assert_eq!(mad(&values, centre), median(&distances).unwrap(), "{values:?}");
        }
        assert_eq!(median(&[]), None);
    }
}
