//! What a detector tells.

use serde::{Deserialize, Serialize};

/// A number and its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its standard error, in the same unit.
    pub error: f64,
}

/// Which way a series went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// More than normal.
    Up,
    /// Less than normal.
    Down,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The series is no longer as it was.
    Changed,
    /// It is as it was again.
    Returned,
    /// It has stayed as it is now for so long that this is what is normal.
    Settled,
}

/// A change of a series, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When it was decided: the time of the observation that decided it, ns since the Unix epoch.
    pub time: u64,
    /// What happened.
    pub kind: Kind,
    /// The method that tells it.
    pub detector: &'static str,
    /// Which way the change is (was).
    pub direction: Direction,
    /// What was normal before the change.
    pub from: Estimate,
    /// What there is instead; at the end of a change, what there is now.
    pub to: Estimate,
    /// Since when it has been so, as far as the method can tell, ns since the Unix epoch.
    pub since: u64,
    /// The method's statistic.
    pub score: f64,
    /// What the statistic had to exceed.
    pub threshold: f64,
}
