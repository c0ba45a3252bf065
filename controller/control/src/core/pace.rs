//! How often something may be: so many at once, then one in each interval.

/// A rate, with a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// So many at once.
    pub burst: i64,
    /// Then one in so many ms.
    pub interval: i64,
}

/// What has been of one thing: the time until which the burst is used, ms since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace(i64);

impl Pace {
    /// One more, at `now`, or how many ms it is too early.
    pub fn step(&mut self, rate: Rate, now: i64) -> Result<(), i64> {
        let longest = rate.burst * rate.interval;
        // A clock that was set back holds nobody up.
        let used = if self.0 - now > longest { now } else { self.0.max(now) };
        if used + rate.interval - now > longest {
            return Err(used + rate.interval - now - longest);
        }
        self.0 = used + rate.interval;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_there_is_one_in_each_interval_and_rest_gives_it_back() {
        let rate = Rate { burst: 3, interval: 100 };
        let mut pace = Pace::default();
        let now = 1_000_000;
        assert!((0..3).all(|_| pace.step(rate, now).is_ok()));
        assert_eq!(pace.step(rate, now), Err(100));
        assert_eq!(pace.step(rate, now + 60), Err(40), "what was refused costs nothing");
        assert_eq!(pace.step(rate, now + 100), Ok(()));
        assert!(pace.step(rate, now + 100).is_err());
        assert!((0..3).all(|_| pace.step(rate, now + 1000).is_ok()));
        assert!(pace.step(rate, now + 1000).is_err());
        assert_eq!(pace.step(rate, 5), Ok(()), "the clock was set back");
    }
}
