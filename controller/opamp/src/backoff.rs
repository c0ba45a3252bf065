//! How long to wait after a failure.

use std::time::Duration;

use super::random::Random;

/// Waits between attempts to connect: each is longer than the last, up to a longest, and each is spread at random, so that many
/// agents whose server went away do not come back in step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffOptions {
    /// The first wait.
    pub initial: Duration,
    /// What a wait grows by from one failure to the next.
    pub multiplier: f64,
    /// The longest wait, before it is spread.
    pub longest: Duration,
    /// A wait w becomes one of w (1 - spread) to w (1 + spread).
    pub spread: f64,
    /// The wait where a server has asked for less load without saying how long.
    pub throttled: Duration,
    /// The longest wait that a server may ask for.
    pub longest_asked: Duration,
}

impl Default for BackoffOptions {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            multiplier: 2.0,
            longest: Duration::from_secs(300),
            spread: 0.5,
            throttled: Duration::from_secs(30),
            longest_asked: Duration::from_secs(3600),
        }
    }
}

/// The failures since something last went well.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub(crate) fn failed(&mut self, options: &BackoffOptions, random: &mut dyn Random) -> Duration {
        let exponent = i32::try_from(self.failures.min(64)).unwrap_or(64);
        self.failures = self.failures.saturating_add(1);
        let wait = options.initial.as_secs_f64() * options.multiplier.powi(exponent);
        let wait = wait.min(options.longest.as_secs_f64());
        let spread = options.spread * (2.0 * random.fraction() - 1.0);
        Duration::try_from_secs_f64(wait * (1.0 + spread)).unwrap_or(options.longest)
    }

    /// The wait where the server asked for less load, for `asked` if it said so. It is spread upwards alone: nobody comes early.
    pub(crate) fn throttled(
        &mut self,
        asked: Option<Duration>,
        options: &BackoffOptions,
        random: &mut dyn Random,
    ) -> Duration {
        let own = self.failed(options, random);
        let least = asked.map_or(options.throttled, |asked| asked.min(options.longest_asked));
        if own > least { own } else { least.mul_f64(1.0 + 0.1 * random.fraction()) }
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}
