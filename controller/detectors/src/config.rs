//! How a detector is tuned: typed, validated, and written as people write it (`cusum,threshold=15`).

mod keys;
mod parse;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use keys::{Key, keys};

/// ns of a second.
pub const SECOND: u64 = 1_000_000_000;
/// The longest season, in steps: a week of minutes.
pub const MAX_SEASON: usize = 10_080;
/// The longest season that is searched for, in steps: the search takes time by its square.
pub const MAX_FOUND_SEASON: usize = 2_880;
/// The longest window of the robust Z-score, in observations.
pub const MAX_WINDOW: usize = 10_000;

/// A detector's configuration. [`Config::new`] has defaults that are chosen by measurement (`docs/detectors.md`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is computed.
    pub method: Method,
    /// When it becomes an event.
    pub alarm: Alarm,
    /// Observations of so long (ns) become one before they are looked at; 0: each is.
    pub pool: u64,
    /// After so long (ns) without an observation, what was building up is forgotten; what is normal is not.
    pub gap: u64,
    /// The smallest change that matters, in the unit of the series. None: 0.01 (a percent point) of shares, 0 of other values.
    pub min_change: Option<f64>,
}

/// The detectors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// Exponentially weighted moving average: control chart of Roberts (1959).
    Ewma(Ewma),
    /// Modified Z-score by median and MAD: Iglewicz and Hoaglin (1993).
    RobustZ(RobustZ),
    /// Triple exponential smoothing: Holt (1957), Winters (1960).
    HoltWinters(HoltWinters),
    /// Cumulative sum of log likelihood ratios: Page (1954).
    Cusum(Cusum),
}

/// An average of the last observations, against a long one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ewma {
    /// Weight of the newest observation in the short average, over 0 up to 1.
    pub lambda: f64,
    /// Time constant of what is normal, ns.
    pub memory: u64,
    /// Standard deviations of the short average (L of the literature).
    pub threshold: f64,
}

/// One observation against the median of those before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobustZ {
    /// Observations that are remembered.
    pub window: usize,
    /// Standard deviations, by the MAD.
    pub threshold: f64,
}

/// One observation against what level, trend and season foretell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoltWinters {
    /// Weight of the newest observation in the level, 0 to 1.
    pub alpha: f64,
    /// Weight of the newest change of the level in the trend, 0 to 1.
    pub beta: f64,
    /// Weight of the newest observation in its place of the season, 0 to 1.
    pub gamma: f64,
    /// What is left of the trend after each step, over 0 up to 1 (1: it is not damped).
    pub phi: f64,
    /// Whether the season adds or multiplies.
    pub form: Form,
    /// How long the season is.
    pub season: Season,
    /// Standard deviations of what is foretold.
    pub threshold: f64,
}

impl HoltWinters {
    /// Whether it can take `value`: a multiplicative model divides by it.
    pub(crate) fn takes(&self, value: f64) -> bool {
        self.form == Form::Additive || value > 0.0
    }
}

/// Whether the season adds to the level or multiplies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// Level plus season.
    Additive,
    /// Level times season; values must be above 0.
    Multiplicative,
}

/// The length of a season in steps: observations, or pools of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Season {
    /// There is none (double exponential smoothing).
    None,
    /// So many steps.
    Given(usize),
    /// Found by autocorrelation among up to so many steps; none if there is none.
    Found(usize),
}

/// The evidence for a change, summed up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cusum {
    /// The change that it is tuned to, of shares: 1 is to the double or the half.
    pub shift: f64,
    /// The change that it is tuned to, of other values: in standard deviations.
    pub sigmas: f64,
    /// Time constant of what is normal, ns.
    pub memory: u64,
    /// Log likelihood ratio, nats: a steady series has a false event in e^threshold observations at most, by Lorden's bound.
    pub threshold: f64,
}

/// From a statistic to events.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// Observations before the first judgement.
    pub warm_up: u32,
    /// Observations in a row that are over the threshold: then there is an event.
    pub raise_after: u32,
    /// It has passed below this share of the threshold (hysteresis) ...
    pub clear_at: f64,
    /// ... so many observations in a row.
    pub clear_after: u32,
    /// How long (ns) after an event has passed there is no other one.
    pub cool_down: u64,
}

/// What is wrong with a configuration, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {value} {wrong}; {right}")]
pub struct ConfigError {
    /// The key.
    pub key: String,
    /// What was found.
    pub value: String,
    /// What is wrong with it.
    pub wrong: &'static str,
    /// What would be right.
    pub right: String,
}

/// The names of the methods, as [`Config::new`] takes them.
pub const METHODS: [&str; 4] = ["cusum", "ewma", "robust-z", "holt-winters"];

impl Default for Config {
    /// CUSUM: of all, it tells a change of a share soonest at the same rate of false events.
    fn default() -> Self {
        let method = Method::Cusum(Cusum { shift: 1.0, sigmas: 1.0, memory: 600 * SECOND, threshold: 18.0 });
        let alarm = Alarm { warm_up: 60, raise_after: 1, clear_at: 0.1, clear_after: 1, cool_down: 60 * SECOND };
        Self { method, alarm, pool: 0, gap: 60 * SECOND, min_change: None }
    }
}

impl Config {
    /// The defaults of the method `name` (one of [`METHODS`]).
    ///
    /// # Errors
    /// There is no such method.
    pub fn new(name: &str) -> Result<Self, ConfigError> {
        let default = Self::default();
        let hysteresis = Alarm { clear_at: 0.5, clear_after: 3, ..default.alarm };
        Ok(match name {
            "cusum" => default,
            "ewma" => {
                let method = Method::Ewma(Ewma { lambda: 0.2, memory: 600 * SECOND, threshold: 6.0 });
                Self { method, alarm: hysteresis, ..default }
            }
            "robust-z" => {
                let method = Method::RobustZ(RobustZ { window: 360, threshold: 6.5 });
                let alarm = Alarm { clear_after: 2, ..hysteresis };
                Self { method, alarm, pool: 10 * SECOND, gap: 600 * SECOND, ..default }
            }
            "holt-winters" => {
                let method = Method::HoltWinters(HoltWinters {
                    alpha: 0.1,
                    beta: 0.01,
                    gamma: 0.1,
                    phi: 0.98,
                    form: Form::Additive,
                    season: Season::Found(1_440),
                    threshold: 7.0,
                });
                let alarm = Alarm { warm_up: 30, clear_after: 2, ..hysteresis };
                Self { method, alarm, pool: 60 * SECOND, gap: 3_600 * SECOND, ..default }
            }
            _ => {
                return Err(ConfigError {
                    key: "detector".to_owned(),
                    value: format!("{name:?}"),
                    wrong: "is no detector",
                    right: format!("there are {}", METHODS.join(", ")),
                });
            }
        })
    }

    /// The name of its method.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.method {
            Method::Cusum(_) => "cusum",
            Method::Ewma(_) => "ewma",
            Method::RobustZ(_) => "robust-z",
            Method::HoltWinters(_) => "holt-winters",
        }
    }

    /// The statistic that is an event.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        match self.method {
            Method::Cusum(cusum) => cusum.threshold,
            Method::Ewma(ewma) => ewma.threshold,
            Method::RobustZ(robust) => robust.threshold,
            Method::HoltWinters(seasonal) => seasonal.threshold,
        }
    }

    /// The smallest change that matters of a series of shares, or of other values.
    #[must_use]
    pub fn smallest_change(&self, is_share: bool) -> f64 {
        self.min_change.unwrap_or(if is_share { 0.01 } else { 0.0 })
    }

    /// Whether all values are within their bounds, and agree.
    ///
    /// # Errors
    /// The first that is not, with what would be right.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for key in keys(self) {
            key.check(self)?;
        }
        if let Method::RobustZ(robust) = self.method
            && self.alarm.warm_up as usize > robust.window
        {
            return Err(ConfigError {
                key: "warm-up".to_owned(),
                value: self.alarm.warm_up.to_string(),
                wrong: "is more than the window holds",
                right: format!("write at most {}, or a larger window", robust.window),
            });
        }
        Ok(())
    }
}

impl fmt::Display for Config {
    /// As [`FromStr`](std::str::FromStr) reads it, every key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        keys(self).iter().try_for_each(|key| write!(f, ",{}={}", key.name, key.text(self)))
    }
}
