//! One detector on one series.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alarm::Alarm;
use crate::config::{Config, ConfigError, Method};
use crate::event::{Estimate, Event};
use crate::model::{Model, Step};
use crate::observation::{Observation, Unusable};
use crate::pool::Pool;

/// Observations in a row, each after the other, that are all before the latest one: then the clock was set back.
const CLOCK_WAS_SET: u32 = 10;

/// What a detector says of a series after an observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Where it is.
    pub phase: Phase,
    /// What is normal; none while it is not known, or while observations are pooled.
    pub expected: Option<Estimate>,
    /// The statistic in thresholds, below 0 for less than normal; 0 while there is none.
    pub ratio: f64,
    /// What is to be told.
    pub event: Option<Event>,
}

/// Where a detector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It learns what is normal, and tells nothing yet.
    WarmingUp,
    /// Nothing has changed.
    Normal,
    /// Something has changed, and lasts.
    Changed,
    /// A change has ended, and the next one would not be told yet.
    CoolingDown,
}

/// A detector on a series, with all that it remembers: bounded by its configuration.
#[derive(Clone, Debug)]
pub struct Detector {
    config: Arc<Config>,
    pub(crate) state: State,
}

/// What is kept over a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    model: Model,
    alarm: Alarm,
    pool: Option<Pool>,
    /// Whether it is a series of shares.
    is_share: Option<bool>,
    /// Time of the latest observation, ns since the Unix epoch.
    latest: Option<u64>,
    /// ... that the model has seen.
    latest_judged: Option<u64>,
    /// Observations that the model has seen.
    seen: u64,
    /// Of those that came too late: the time of the last, and how many in a row followed each other.
    late: Option<(u64, u32)>,
    /// Observations that were refused.
    refused: u64,
}

impl Detector {
    /// A detector that has seen nothing.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::of(Arc::new(config.clone())))
    }

    /// One of a configuration that is validated.
    pub(crate) fn of(config: Arc<Config>) -> Self {
        let state = State {
            model: Model::new(&config),
            alarm: Alarm::default(),
            pool: None,
            is_share: None,
            latest: None,
            latest_judged: None,
            seen: 0,
            late: None,
            refused: 0,
        };
        Self { config, state }
    }

    /// One that goes on with what was kept; none if that cannot be a state of its configuration.
    pub(crate) fn with(config: Arc<Config>, state: State) -> Option<Self> {
        let is_sound = state.model.is_sound(&config)
            && state.alarm.is_sound()
            && state.pool.is_none_or(|pool| pool.is_sound() && config.pool > 0)
            && state.latest_judged <= state.latest
            && (state.latest_judged.is_some() || state.seen == 0);
        is_sound.then_some(Self { config, state })
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes the next observation, and says what that means. With a pool, that is of the observations before it.
    ///
    /// # Errors
    /// It is no observation of this series: not later than the one before, or of another kind. It is counted, and changes nothing. After
    /// ten in a row that follow each other the clock is taken to have been set back, and the series goes on there.
    pub fn observe(&mut self, observation: &Observation) -> Result<Judgement, Unusable> {
        self.take(observation).inspect_err(|_| self.state.refused = self.state.refused.saturating_add(1))
    }

    fn take(&mut self, observation: &Observation) -> Result<Judgement, Unusable> {
        let is_share = observation.counts().is_some();
        if self.state.is_share.is_some_and(|known| known != is_share) {
            return Err(Unusable::OtherKind);
        }
        if self.config.pool == 0 {
            self.check_value(observation)?;
        }
        self.check_time(observation.time())?;
        self.state.is_share = Some(is_share);
        self.state.latest = Some(observation.time());
        let length = self.config.pool;
        if length == 0 {
            return Ok(self.judge(observation));
        }
        match &mut self.state.pool {
            Some(pool) if pool.takes(observation, length) => {
                pool.add(observation);
                Ok(self.nothing_new(observation.time()))
            }
            pool => {
                let closed = pool.replace(Pool::new(observation, length));
                let Some(closed) = closed else { return Ok(self.nothing_new(observation.time())) };
                let pooled = closed.close()?;
                self.check_value(&pooled)?;
                Ok(self.judge(&pooled))
            }
        }
    }

    fn check_value(&self, observation: &Observation) -> Result<(), Unusable> {
        match &self.config.method {
            Method::HoltWinters(by) if !by.takes(observation.value()) => Err(Unusable::NotPositive),
            _ => Ok(()),
        }
    }

    fn check_time(&mut self, time: u64) -> Result<(), Unusable> {
        if self.state.latest.is_none_or(|latest| time > latest) {
            self.state.late = None;
            return Ok(());
        }
        let run = match self.state.late {
            Some((before, run)) if time > before => run.saturating_add(1),
            _ => 1,
        };
        if run < CLOCK_WAS_SET {
            self.state.late = Some((time, run));
            return Err(Unusable::Backwards);
        }
        self.state.late = None;
        self.state.pool = None;
        self.state.latest_judged = Some(time);
        self.state.alarm.clock_was_set(time);
        Ok(())
    }

    fn judge(&mut self, observation: &Observation) -> Judgement {
        let (time, state) = (observation.time(), &mut self.state);
        let passed = state.latest_judged.map_or(0, |latest| time.saturating_sub(latest));
        // No time since the last one is one of a clock that was set.
        let after_gap = passed > self.config.gap || (passed == 0 && state.latest_judged.is_some());
        let is_warm = state.seen >= u64::from(self.config.alarm.warm_up);
        state.latest_judged = Some(time);
        state.seen = state.seen.saturating_add(1);
        if after_gap {
            state.alarm.gap();
        }
        let step = Step { passed, after_gap, is_cold: !is_warm, changed_for: state.alarm.changed_for(time) };
        let Some(score) = state.model.observe(&self.config, observation, step) else {
            return Judgement { phase: Phase::WarmingUp, ..self.nothing_new(time) };
        };
        let event = state.alarm.step(&self.config, time, &score, is_warm);
        let expected = Estimate { value: score.expected.0, error: score.expected.1.max(0.0).sqrt() };
        Judgement { phase: self.phase(time), expected: Some(expected), ratio: score.ratio, event }
    }

    fn nothing_new(&self, time: u64) -> Judgement {
        Judgement { phase: self.phase(time), expected: None, ratio: 0.0, event: None }
    }

    fn phase(&self, time: u64) -> Phase {
        if self.state.alarm.is_raised() {
            Phase::Changed
        } else if self.state.seen < u64::from(self.config.alarm.warm_up) {
            Phase::WarmingUp
        } else if self.state.alarm.is_cooling(time) {
            Phase::CoolingDown
        } else {
            Phase::Normal
        }
    }

    /// Observations that were refused, see [`Detector::observe`].
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.state.refused
    }

    /// Events that a cool-down suppressed.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.state.alarm.suppressed
    }

    /// Bytes that a detector of `config` takes, at most.
    #[must_use]
    pub fn most_bytes(config: &Config) -> usize {
        size_of::<Self>() + Model::most_bytes(config)
    }
}
