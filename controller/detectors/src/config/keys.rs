//! The keys of a configuration: name, bounds, meaning.

use super::{Config, ConfigError, Form, MAX_FOUND_SEASON, MAX_SEASON, MAX_WINDOW, Method, SECOND, Season};

/// A year, ns: no time of a configuration is longer.
const YEAR: u64 = 365 * 86_400 * SECOND;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it means, and its unit.
    pub meaning: &'static str,
    pub(super) kind: Kind,
}

/// Where the value of a key is, and what it may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A number, over or from `low` up to `high`.
    Number { at: fn(&mut Config) -> Option<&mut f64>, low: f64, open: bool, high: f64 },
    /// A whole number.
    Count { get: fn(&Config) -> u64, set: fn(&mut Config, u64), low: u64, high: u64 },
    /// A time, ns.
    Time { at: fn(&mut Config) -> Option<&mut u64>, low: u64 },
    /// `additive` or `multiplicative`.
    Form,
    /// `none`, `find`, `find:N` or a number of steps.
    Season,
    /// A number from 0, or `auto`.
    MinChange,
}

macro_rules! field {
    ($variant:ident, $field:ident) => {
        |config| match &mut config.method {
            Method::$variant(method) => Some(&mut method.$field),
            _ => None,
        }
    };
}

const fn number(
    name: &'static str,
    at: fn(&mut Config) -> Option<&mut f64>,
    (low, open, high): (f64, bool, f64),
    meaning: &'static str,
) -> Key {
    Key { name, meaning, kind: Kind::Number { at, low, open, high } }
}

const fn time(name: &'static str, at: fn(&mut Config) -> Option<&mut u64>, low: u64, meaning: &'static str) -> Key {
    Key { name, meaning, kind: Kind::Time { at, low } }
}

const WEIGHT: (f64, bool, f64) = (0.0, false, 1.0);
const SIGMAS: (f64, bool, f64) = (0.0, true, 1e6);

const EWMA: &[Key] = &[
    number("threshold", field!(Ewma, threshold), SIGMAS, "standard deviations of the short average"),
    number("lambda", field!(Ewma, lambda), (0.0, true, 1.0), "weight of the newest observation in the short average"),
    time("memory", field!(Ewma, memory), SECOND, "time constant of what is normal"),
];

const ROBUST: &[Key] = &[
    number("threshold", field!(RobustZ, threshold), SIGMAS, "standard deviations, by the MAD"),
    Key {
        name: "window",
        meaning: "observations (or pools of them) that median and MAD are of",
        kind: Kind::Count {
            get: |config| if let Method::RobustZ(robust) = config.method { robust.window as u64 } else { 0 },
            set: |config, value| {
                if let Method::RobustZ(robust) = &mut config.method {
                    robust.window = value as usize;
                }
            },
            low: 8,
            high: MAX_WINDOW as u64,
        },
    },
];

const SEASONAL: &[Key] = &[
    number("threshold", field!(HoltWinters, threshold), SIGMAS, "standard deviations of what is foretold"),
    number("alpha", field!(HoltWinters, alpha), (0.0, true, 1.0), "weight of the newest observation in the level"),
    number("beta", field!(HoltWinters, beta), WEIGHT, "weight of the newest change in the trend"),
    number("gamma", field!(HoltWinters, gamma), WEIGHT, "weight of the newest observation in its place of the season"),
    number("phi", field!(HoltWinters, phi), (0.0, true, 1.0), "what is left of the trend after a step"),
    Key { name: "form", meaning: "additive, or multiplicative (values above 0)", kind: Kind::Form },
    Key {
        name: "season",
        meaning: "steps (observations, or pools of them): a number, none, find or find:LONGEST",
        kind: Kind::Season,
    },
];

const CUSUM: &[Key] = &[
    number("threshold", field!(Cusum, threshold), (0.0, true, 1e6), "log likelihood ratio, nats"),
    number(
        "shift",
        field!(Cusum, shift),
        (0.0, true, 1e3),
        "change of shares that it is tuned to; 1: the double or the half",
    ),
    number(
        "sigmas",
        field!(Cusum, sigmas),
        (0.0, true, 1e3),
        "change of other values that it is tuned to, standard deviations",
    ),
    time("memory", field!(Cusum, memory), SECOND, "time constant of what is normal"),
];

macro_rules! alarm {
    ($field:ident, $low:expr, $high:expr) => {
        Kind::Count {
            get: |config| u64::from(config.alarm.$field),
            set: |config, value| config.alarm.$field = u32::try_from(value).unwrap_or(u32::MAX),
            low: $low,
            high: $high,
        }
    };
}

const COMMON: &[Key] = &[
    Key {
        name: "min-change",
        meaning: "smallest change that matters, in the unit of the series; auto: 0.01 of shares, 0 of values",
        kind: Kind::MinChange,
    },
    Key { name: "warm-up", meaning: "observations before the first judgement", kind: alarm!(warm_up, 2, 1_000_000) },
    Key {
        name: "raise-after",
        meaning: "observations in a row over the threshold that are an event",
        kind: alarm!(raise_after, 1, 1_000_000),
    },
    number(
        "clear-at",
        |config| Some(&mut config.alarm.clear_at),
        (0.0, true, 1.0),
        "share of the threshold below which an event passes",
    ),
    Key {
        name: "clear-after",
        meaning: "observations in a row below that until it has passed",
        kind: alarm!(clear_after, 1, 1_000_000),
    },
    time(
        "cool-down",
        |config| Some(&mut config.alarm.cool_down),
        0,
        "after an event has passed, how long there is no other",
    ),
    time("pool", |config| Some(&mut config.pool), 0, "observations of so long become one; 0s: each is looked at"),
    time(
        "gap",
        |config| Some(&mut config.gap),
        1,
        "without observations for so long, what was building up is forgotten",
    ),
];

/// All keys that `config` has, by its method.
#[must_use]
pub fn keys(config: &Config) -> Vec<Key> {
    let own = match config.method {
        Method::Ewma(_) => EWMA,
        Method::RobustZ(_) => ROBUST,
        Method::HoltWinters(_) => SEASONAL,
        Method::Cusum(_) => CUSUM,
    };
    own.iter().chain(COMMON).copied().collect()
}

impl Key {
    /// Whether its value is within bounds.
    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let mut copy = config.clone();
        let is_right = match self.kind {
            Kind::Number { at, low, open, high } => at(&mut copy).is_none_or(|value| {
                value.is_finite() && (if open { *value > low } else { *value >= low }) && *value <= high
            }),
            Kind::Count { get, low, high, .. } => (low..=high).contains(&get(config)),
            Kind::Time { at, low } => at(&mut copy).is_none_or(|value| (low..=YEAR).contains(value)),
            Kind::Form => true,
            Kind::Season => match config.method {
                Method::HoltWinters(seasonal) => match seasonal.season {
                    Season::None => true,
                    Season::Given(steps) => (2..=MAX_SEASON).contains(&steps),
                    Season::Found(longest) => (2..=MAX_FOUND_SEASON).contains(&longest),
                },
                _ => true,
            },
            Kind::MinChange => config.min_change.is_none_or(|value| value.is_finite() && value >= 0.0),
        };
        if is_right { Ok(()) } else { Err(self.error(self.text(config), "is out of bounds")) }
    }

    pub(super) fn error(&self, value: String, wrong: &'static str) -> ConfigError {
        ConfigError { key: self.name.to_owned(), value, wrong, right: format!("write {}", self.bounds()) }
    }

    /// What may be written, in words.
    #[must_use]
    pub fn bounds(&self) -> String {
        match self.kind {
            Kind::Number { low, open, high, .. } => {
                format!("a number {} {low} up to {high}", if open { "over" } else { "from" })
            }
            Kind::Count { low, high, .. } => format!("a whole number from {low} to {high}"),
            Kind::Time { low: 0, .. } => "a time from 0s to 365d, like 500ms, 90s, 10min or 6h".to_owned(),
            Kind::Time { low: SECOND, .. } => "a time from 1s to 365d, like 90s, 10min or 6h".to_owned(),
            Kind::Time { .. } => "a time over 0s up to 365d, like 500ms, 90s, 10min or 6h".to_owned(),
            Kind::Form => "additive or multiplicative".to_owned(),
            Kind::Season => format!(
                "none, a number of steps from 2 to {MAX_SEASON}, find, or find:LONGEST up to {MAX_FOUND_SEASON}"
            ),
            Kind::MinChange => "a number from 0, or auto".to_owned(),
        }
    }

    /// Its value, as it is written.
    #[must_use]
    pub fn text(&self, config: &Config) -> String {
        let mut copy = config.clone();
        match self.kind {
            Kind::Number { at, .. } => at(&mut copy).map_or_else(String::new, |value| value.to_string()),
            Kind::Count { get, .. } => get(config).to_string(),
            Kind::Time { at, .. } => at(&mut copy).map_or_else(String::new, |value| super::parse::time_text(*value)),
            Kind::Form | Kind::Season => match config.method {
                Method::HoltWinters(seasonal) if matches!(self.kind, Kind::Form) => match seasonal.form {
                    Form::Additive => "additive".to_owned(),
                    Form::Multiplicative => "multiplicative".to_owned(),
                },
                Method::HoltWinters(seasonal) => match seasonal.season {
                    Season::None => "none".to_owned(),
                    Season::Given(steps) => steps.to_string(),
                    Season::Found(longest) => format!("find:{longest}"),
                },
                _ => String::new(),
            },
            Kind::MinChange => config.min_change.map_or_else(|| "auto".to_owned(), |value| value.to_string()),
        }
    }
}
