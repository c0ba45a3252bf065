//! Detectors of change in series of shares (k of n samples) and of other values.
//!
//! ```
//! use profiler_detectors::{Config, Detector, Kind, Observation};
//!
//! let mut detector = Detector::new(&"cusum,warm-up=60".parse::<Config>()?)?;
//! let mut told = None;
//! for second in 0..200_u64 {
//!     // 20 of 400 samples a second, and from the 150th second on twice as many.
//!     let samples = if second < 150 { 20 } else { 40 };
//!     let share = Observation::share(second * 1_000_000_000, samples, 400)?;
//!     told = told.or(detector.observe(&share)?.event);
//! }
//! let told = told.expect("it doubled");
//! assert_eq!(told.kind, Kind::Changed);
//! assert!(told.from.value < 0.055 && told.to.value > 0.09);
//! assert!(told.time < 160_000_000_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An [`Observation`] is told with its sampling error; a share of n samples has a binomial one, by which all methods judge it. What a series
//! varies beyond that is learned. Each [`Method`] scores an observation in units of its threshold; the alarm makes events of scores, with
//! warm-up, hysteresis and cool-down. A [`Bank`] has the detectors of many series within a budget. State is kept over a restart by `keep` and
//! `restore`. Methods, sources and how the defaults were chosen: `docs/detectors.md`.
//!
//! What is defined: NaN and infinities are no observations ([`Unusable`]). What is not later than the last observation is refused, until ten
//! such in a row follow each other: then the clock was set. After a gap, evidence that was building up is dropped, and what is normal is
//! kept. A constant series has no spread but rounding, so that any change of at least `min-change` is an event. Nothing here panics,
//! and all state stays finite.
//!
//! Not here: where series come from, what is done about events, threads, files, the network.
#![forbid(unsafe_code)]

mod alarm;
mod bank;
mod config;
mod detector;
mod event;
mod kept;
mod model;
mod observation;
mod pool;

pub use bank::{Bank, BankCounts, MAX_NAME, SeriesEvent};
pub use config::{
    Alarm, Config, ConfigError, Cusum, Ewma, Form, HoltWinters, Key, MAX_FOUND_SEASON, MAX_SEASON, MAX_WINDOW, METHODS,
    Method, RobustZ, SECOND, Season, keys,
};
pub use detector::{Detector, Judgement, Phase};
pub use event::{Direction, Estimate, Event, Kind};
pub use kept::KeptError;
pub use model::{Smoothing, Weights, exponential_mean, season};
pub use observation::{Counts, LARGEST, Observation, Unusable};
