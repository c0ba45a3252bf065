//! How long to wait after a failure.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use super::options::RetryOptions;

/// Waits that grow from failure to failure.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Option<Duration>,
}

impl Backoff {
    /// The wait after one more failure.
    pub(super) fn failed(&mut self, options: &RetryOptions) -> Duration {
        let base = self.next.unwrap_or(options.initial_interval).min(options.max_interval);
        self.next =
            Some(Duration::try_from_secs_f64(base.as_secs_f64() * options.multiplier).unwrap_or(options.max_interval));
        let spread = options.randomization * (2.0 * fraction() - 1.0);
        Duration::try_from_secs_f64(base.as_secs_f64() * (1.0 + spread)).unwrap_or(base)
    }

    /// The receiver is well.
    pub(super) fn succeeded(&mut self) {
        self.next = None;
    }
}

/// A number in `[0, 1)`, keyed at random by the standard library.
fn fraction() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_spread() {
        let options = RetryOptions { randomization: 0.0, ..RetryOptions::default() };
        let mut backoff = Backoff::default();
        let waits: Vec<f64> = (0..7).map(|_| backoff.failed(&options).as_secs_f64()).collect();
        assert_eq!(waits, [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0, 30.0]);
        backoff.succeeded();
        assert_eq!(backoff.failed(&options), Duration::from_secs(5));

        let options = RetryOptions { randomization: 0.5, ..options };
        let waits: Vec<Duration> = (0..200).map(|_| Backoff::default().failed(&options)).collect();
        assert!(waits.iter().all(|wait| (2.5..=7.5).contains(&wait.as_secs_f64())), "{waits:?}");
        assert!(waits.iter().max() > waits.iter().min());
    }
}
