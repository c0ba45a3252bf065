//! What a detector is told: a value, and how well it is known.

use serde::{Deserialize, Serialize};

/// Larger values, or variances, are refused: their squares must stay finite.
pub const LARGEST: f64 = 1e100;

/// `of` out of `total` samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Samples that belong to the series.
    pub of: u64,
    /// All samples; never 0, never less than `of`.
    pub total: u64,
}

/// One point of a series. It is always finite, and its counts always agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    time: u64,
    value: f64,
    variance: f64,
    counts: Option<Counts>,
}

/// Why something is no observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// NaN or an infinity.
    #[error("the value or its variance is no finite number")]
    NotFinite,
    /// Beyond [`LARGEST`].
    #[error("the value or its variance is beyond 1e100")]
    TooLarge,
    /// A variance below 0.
    #[error("the variance is negative")]
    NegativeVariance,
    /// A share of nothing.
    #[error("a share of 0 samples is no share")]
    NoSamples,
    /// A part larger than the whole.
    #[error("there are more samples of the part than of the whole")]
    MoreThanAll,
    /// Not later than the one before.
    #[error("its time is not after that of the observation before")]
    Backwards,
    /// A share in a series of values, or the reverse.
    #[error("a series is of shares or of other values, not of both")]
    OtherKind,
    /// Zero or less, for a model that multiplies.
    #[error("a multiplicative model takes values above 0 only")]
    NotPositive,
}

impl Observation {
    /// A share: `of` out of `total` samples, at `time` (ns since the Unix epoch). Its sampling error is binomial.
    ///
    /// # Errors
    /// There are no samples, or more of the part than of the whole.
    pub fn share(time: u64, of: u64, total: u64) -> Result<Self, Unusable> {
        if total == 0 {
            return Err(Unusable::NoSamples);
        }
        if of > total {
            return Err(Unusable::MoreThanAll);
        }
        let value = of as f64 / total as f64;
        // Agresti and Coull (1998): no share is known exactly, not even that of 0 samples.
        let (smoothed, n) = ((of as f64 + 2.0) / (total as f64 + 4.0), total as f64 + 4.0);
        let variance = smoothed * (1.0 - smoothed) / n;
        Ok(Self { time, value, variance, counts: Some(Counts { of, total }) })
    }

    /// A value that was measured with an error of `variance` (its unit squared; 0: exactly), at `time` (ns since the Unix epoch).
    ///
    /// # Errors
    /// A number is not finite or beyond [`LARGEST`], or the variance negative.
    pub fn measured(time: u64, value: f64, variance: f64) -> Result<Self, Unusable> {
        if !value.is_finite() || !variance.is_finite() {
            return Err(Unusable::NotFinite);
        }
        if value.abs() > LARGEST || variance > LARGEST {
            return Err(Unusable::TooLarge);
        }
        if variance < 0.0 {
            return Err(Unusable::NegativeVariance);
        }
        Ok(Self { time, value, variance, counts: None })
    }

    /// ns since the Unix epoch.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The share (0 to 1), or the value.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The square of its sampling error.
    #[must_use]
    pub fn variance(&self) -> f64 {
        self.variance
    }

    /// The samples behind a share.
    #[must_use]
    pub fn counts(&self) -> Option<Counts> {
        self.counts
    }

    /// Its weight in a mean: a share of many samples says more.
    pub(crate) fn weight(&self) -> f64 {
        self.counts.map_or(1.0, |counts| counts.total as f64)
    }

    /// The variance that sampling alone gives it if the truth is `expected`; of a share never taken to be that of 0 or 1.
    pub(crate) fn sampling_variance(&self, expected: f64, floor: f64) -> f64 {
        match self.counts {
            Some(counts) => {
                let p = expected.clamp(floor, 1.0 - floor);
                p * (1.0 - p) / counts.total as f64
            }
            None => self.variance,
        }
    }
}

/// How many standard deviations `share`, of `total` samples, is from `expected`: the signed root of the deviance, which has normal tails
/// also where counts are small (by Chernoff's bound), as the plain quotient has not.
pub(crate) fn deviance_score(share: f64, expected: f64, total: f64) -> f64 {
    let term = |seen: f64, expected: f64| if seen <= 0.0 { 0.0 } else { seen * (seen / expected).ln() };
    let (share, expected) = (share.clamp(0.0, 1.0), expected.clamp(1e-12, 1.0 - 1e-12));
    let divergence = term(share, expected) + term(1.0 - share, 1.0 - expected);
    (2.0 * total * divergence.max(0.0)).sqrt().copysign(share - expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_observation_is_refused() {
        assert_eq!(Observation::share(0, 1, 0), Err(Unusable::NoSamples));
        assert_eq!(Observation::share(0, 3, 2), Err(Unusable::MoreThanAll));
        assert_eq!(Observation::measured(0, f64::NAN, 0.0), Err(Unusable::NotFinite));
        assert_eq!(Observation::measured(0, f64::INFINITY, 0.0), Err(Unusable::NotFinite));
        assert_eq!(Observation::measured(0, 0.0, f64::NEG_INFINITY), Err(Unusable::NotFinite));
        assert_eq!(Observation::measured(0, -1e101, 0.0), Err(Unusable::TooLarge));
        assert_eq!(Observation::measured(0, 1.0, -1e-9), Err(Unusable::NegativeVariance));
    }

    #[test]
    fn a_share_of_no_samples_of_many_is_not_known_exactly() {
        let share = Observation::share(0, 0, 100).unwrap();
        assert_eq!(share.value(), 0.0);
        assert!(share.variance() > 0.0);
    }

    #[test]
    fn the_score_is_that_of_a_normal_where_counts_are_large() {
        let (p, n) = (0.2_f64, 1e6);
        let sd = (p * (1.0 - p) / n).sqrt();
        assert!((deviance_score(p + 3.0 * sd, p, n) - 3.0).abs() < 0.01);
        assert!((deviance_score(p - 3.0 * sd, p, n) + 3.0).abs() < 0.01);
        assert!(deviance_score(0.0, 0.0, 100.0).abs() < 1e-4);
        assert!(deviance_score(1.0, 0.0, 100.0).is_finite() && deviance_score(0.0, 1.0, 100.0).is_finite());
    }
}
