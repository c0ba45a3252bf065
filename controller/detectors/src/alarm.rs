//! From scores to events: warm-up, hysteresis, cool-down.
//!
//! ```text
//!          raise_after in a row, |score| >= threshold, warm, not cooling down
//!  quiet ──────────────────────────────────────────────────────────────────────► changed
//!    ▲                                                                              │
//!    └──── clear_after in a row, score < clear_at * threshold, then cool_down ◄─────┘
//! ```

use serde::{Deserialize, Serialize};

use crate::config::{Alarm as By, Config};
use crate::event::{Direction, Estimate, Event, Kind};
use crate::model::Score;

/// Where a detector is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alarm {
    /// The change that lasts.
    change: Option<Change>,
    /// Observations in a row over the threshold, and which way.
    over: u32,
    up: bool,
    cool_until: Option<u64>,
    pub(crate) suppressed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    direction: Direction,
    from: Estimate,
    to: Estimate,
    since: u64,
    /// When it was told, ns since the Unix epoch.
    told: u64,
    /// Observations in a row below what clears it.
    calm: u32,
}

impl Alarm {
    pub(crate) fn is_raised(&self) -> bool {
        self.change.is_some()
    }

    /// For how long (ns) a change has been told; none while there is none.
    pub(crate) fn changed_for(&self, time: u64) -> Option<u64> {
        self.change.map(|change| time.saturating_sub(change.told))
    }

    pub(crate) fn is_cooling(&self, time: u64) -> bool {
        self.cool_until.is_some_and(|until| time < until)
    }

    /// Nothing goes on in a row over a gap.
    pub(crate) fn gap(&mut self) {
        self.over = 0;
        if let Some(change) = &mut self.change {
            change.calm = 0;
        }
    }

    /// The clock was set: a cool-down by the old one says nothing.
    pub(crate) fn clock_was_set(&mut self, time: u64) {
        self.cool_until = None;
        if let Some(change) = &mut self.change {
            change.told = time;
        }
        self.gap();
    }

    pub(crate) fn step(&mut self, config: &Config, time: u64, score: &Score, is_warm: bool) -> Option<Event> {
        let by = config.alarm;
        match self.change {
            Some(change) => self.last(config, time, score, change),
            None => self.begin(config, by, time, score, is_warm),
        }
    }

    fn begin(&mut self, config: &Config, by: By, time: u64, score: &Score, is_warm: bool) -> Option<Event> {
        if score.ratio.abs() < 1.0 || !is_warm {
            self.over = 0;
            return None;
        }
        let up = score.ratio > 0.0;
        self.over = if self.over > 0 && up == self.up { self.over.saturating_add(1) } else { 1 };
        self.up = up;
        if self.over < by.raise_after {
            return None;
        }
        if self.is_cooling(time) {
            // Each run of scores once.
            self.suppressed += u64::from(self.over == by.raise_after);
            return None;
        }
        self.over = 0;
        let direction = if up { Direction::Up } else { Direction::Down };
        let (from, to) = (estimate(score.expected), estimate(score.seen));
        self.change = Some(Change { direction, from, to, since: score.since, told: time, calm: 0 });
        Some(event(config, time, Kind::Changed, score, (direction, from, to, score.since)))
    }

    fn last(&mut self, config: &Config, time: u64, score: &Score, mut change: Change) -> Option<Event> {
        let by = config.alarm;
        let signed = if change.direction == Direction::Up { score.ratio } else { -score.ratio };
        change.calm = if signed < by.clear_at { change.calm.saturating_add(1) } else { 0 };
        if change.calm < by.clear_after {
            self.change = Some(change);
            return None;
        }
        self.change = None;
        self.cool_until = Some(time.saturating_add(by.cool_down));
        let to = Estimate { value: score.recent, error: score.seen.1.max(0.0).sqrt() };
        let is_back = (to.value - change.from.value).abs() < (to.value - change.to.value).abs();
        let kind = if is_back { Kind::Returned } else { Kind::Settled };
        Some(event(config, time, kind, score, (change.direction, change.from, to, change.since)))
    }

    pub(crate) fn is_sound(&self) -> bool {
        let finite = |estimate: &Estimate| estimate.value.is_finite() && estimate.error.is_finite();
        self.change.as_ref().is_none_or(|change| finite(&change.from) && finite(&change.to))
    }
}

fn estimate((value, variance): (f64, f64)) -> Estimate {
    Estimate { value, error: variance.max(0.0).sqrt() }
}

fn event(
    config: &Config,
    time: u64,
    kind: Kind,
    score: &Score,
    (direction, from, to, since): (Direction, Estimate, Estimate, u64),
) -> Event {
    let threshold = config.threshold();
    let score = score.ratio * threshold;
    Event { time, kind, detector: config.name(), direction, from, to, since, score, threshold }
}
