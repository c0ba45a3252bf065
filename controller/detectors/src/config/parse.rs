//! `cusum,threshold=15,memory=30min` and back.

use std::str::FromStr;

use super::keys::Kind;
use super::{Config, ConfigError, Form, Method, SECOND, Season, keys};

/// Units of time, the largest first, ns.
const UNITS: [(&str, u64); 8] = [
    ("d", 86_400 * SECOND),
    ("h", 3_600 * SECOND),
    ("min", 60 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A time with its unit, ns.
fn time(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let &(_, scale) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    let nanos = number.parse::<f64>().ok()? * scale as f64;
    (nanos.is_finite() && nanos < 1e19).then_some(nanos.round() as u64)
}

/// The time `nanos`, in the largest unit that has it whole.
pub(super) fn time_text(nanos: u64) -> String {
    let unit = UNITS.iter().find(|(name, scale)| *name != "m" && nanos > 0 && nanos.is_multiple_of(*scale));
    unit.map_or_else(|| "0s".to_owned(), |(name, scale)| format!("{}{name}", nanos / scale))
}

impl Config {
    /// Sets `key` to `value`, each as people write them.
    ///
    /// # Errors
    /// The method has no such key, or it takes no such value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let known = keys(self);
        let Some(found) = known.iter().find(|known| known.name == key) else {
            let names: Vec<&str> = known.iter().map(|key| key.name).collect();
            return Err(ConfigError {
                key: self.name().to_owned(),
                value: format!("{key:?}"),
                wrong: "is none of its keys",
                right: format!("they are {}", names.join(", ")),
            });
        };
        let wrong = || found.error(format!("{value:?}"), "is not understood");
        match found.kind {
            Kind::Number { at, .. } => {
                let number = value.parse().map_err(|_| wrong())?;
                if let Some(place) = at(self) {
                    *place = number;
                }
            }
            Kind::Count { set, low, high, .. } => {
                let number = value.parse().map_err(|_| wrong())?;
                if !(low..=high).contains(&number) {
                    return Err(found.error(value.to_owned(), "is out of bounds"));
                }
                set(self, number);
            }
            Kind::Time { at, .. } => {
                let nanos = time(value).ok_or_else(wrong)?;
                if let Some(place) = at(self) {
                    *place = nanos;
                }
            }
            Kind::MinChange if value == "auto" => self.min_change = None,
            Kind::MinChange => self.min_change = Some(value.parse().map_err(|_| wrong())?),
            Kind::Form | Kind::Season => {
                let Method::HoltWinters(seasonal) = &mut self.method else { return Err(wrong()) };
                match (found.kind, value) {
                    (Kind::Form, "additive") => seasonal.form = Form::Additive,
                    (Kind::Form, "multiplicative") => seasonal.form = Form::Multiplicative,
                    (Kind::Season, "none") => seasonal.season = Season::None,
                    (Kind::Season, "find") => seasonal.season = Season::Found(1_440),
                    (Kind::Season, _) => {
                        seasonal.season = match value.strip_prefix("find:") {
                            Some(longest) => Season::Found(longest.parse().map_err(|_| wrong())?),
                            None => Season::Given(value.parse().map_err(|_| wrong())?),
                        };
                    }
                    _ => return Err(wrong()),
                }
            }
        }
        found.check(self)
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    /// `NAME[,KEY=VALUE...]`
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut parts = text.split(',').map(str::trim);
        let mut config = Self::new(parts.next().unwrap_or_default())?;
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return Err(ConfigError {
                    key: config.name().to_owned(),
                    value: format!("{part:?}"),
                    wrong: "sets nothing",
                    right: "write KEY=VALUE".to_owned(),
                });
            };
            config.set(key.trim(), value.trim())?;
        }
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::METHODS;

    #[test]
    fn every_default_is_right_and_reads_back() {
        for name in METHODS {
            let config = Config::new(name).unwrap();
            config.validate().unwrap();
            assert_eq!(config.to_string().parse::<Config>().unwrap(), config, "{config}");
        }
    }

    #[test]
    fn what_is_written_is_taken() {
        let config: Config =
            "cusum, threshold=12.5, memory=1.5h, pool=500ms, warm-up=3, min-change=0.02".parse().unwrap();
        let Method::Cusum(cusum) = config.method else { panic!("{config:?}") };
        assert_eq!((cusum.threshold, cusum.memory, config.pool), (12.5, 5_400 * SECOND, SECOND / 2));
        assert_eq!((config.alarm.warm_up, config.min_change), (3, Some(0.02)));
        let config: Config = "holt-winters,season=288,form=multiplicative".parse().unwrap();
        let Method::HoltWinters(seasonal) = config.method else { panic!("{config:?}") };
        assert_eq!((seasonal.season, seasonal.form), (Season::Given(288), Form::Multiplicative));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        for (text, words) in [
            ("cusums", ["\"cusums\"", "robust-z"]),
            ("cusum,treshold=1", ["\"treshold\"", "threshold, shift"]),
            ("cusum,threshold", ["sets nothing", "KEY=VALUE"]),
            ("cusum,threshold=x", ["threshold: \"x\"", "over 0"]),
            ("cusum,threshold=0", ["threshold: 0", "over 0"]),
            ("cusum,threshold=NaN", ["threshold: NaN", "over 0"]),
            ("cusum,threshold=inf", ["threshold: inf", "up to 1000000"]),
            ("ewma,lambda=1.5", ["lambda: 1.5", "up to 1"]),
            ("ewma,memory=10", ["memory: \"10\"", "10min"]),
            ("ewma,memory=10ms", ["memory: 10ms", "from 1s"]),
            ("ewma,memory=1e30d", ["memory", "365d"]),
            ("cusum,season=7", ["\"season\"", "none of its keys"]),
            ("holt-winters,season=1", ["season: 1", "from 2 to 10080"]),
            ("holt-winters,season=find:99999999", ["season: find:99999999", "up to 2880"]),
            ("holt-winters,form=both", ["form: \"both\"", "multiplicative"]),
            ("robust-z,window=10,warm-up=20", ["warm-up: 20", "at most 10"]),
            ("cusum,min-change=-1", ["min-change: -1", "from 0"]),
            ("cusum,raise-after=99999999999", ["raise-after", "1000000"]),
        ] {
            let error = text.parse::<Config>().unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{text}: no {word:?} in {error:?}");
            }
        }
    }
}
