//! When a window of the agent ends.

use std::time::{Duration, Instant};

/// Windows of equal length, the first one shortened: agents that start together do not send together.
#[derive(Debug)]
pub struct Windows {
    length: Duration,
    ends: Instant,
}

impl Windows {
    /// Windows of `length` from `now` on; the first is shorter by up to `jitter`, at random.
    #[must_use]
    pub fn new(length: Duration, jitter: Duration, now: Instant) -> Self {
        let spread = jitter.min(length).mul_f64(fraction());
        Self { length, ends: now + (length - spread).max(length / 10) }
    }

    /// Time left in the window.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now)
    }

    /// Begins the next window. After a pause (a suspended host) the beat starts anew, without making up for what was missed.
    pub fn next(&mut self, now: Instant) {
        self.ends += self.length;
        if self.ends <= now {
            self.ends = now + self.length;
        }
    }
}

/// A number in `[0, 1)`, another in each process.
fn fraction() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Keyed at random by the standard library.
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_window_is_shorter_by_the_jitter_at_most() {
        let now = Instant::now();
        let mut differ = false;
        for _ in 0..100 {
            let left = Windows::new(LENGTH, Duration::from_secs(2), now).left(now);
            assert!((Duration::from_secs(8)..=LENGTH).contains(&left), "{left:?}");
            differ |= left != Windows::new(LENGTH, Duration::from_secs(2), now).left(now);
        }
        assert!(differ);
        assert_eq!(Windows::new(LENGTH, Duration::ZERO, now).left(now), LENGTH);
        assert!(Windows::new(LENGTH, LENGTH * 5, now).left(now) >= LENGTH / 10);
    }

    #[test]
    fn windows_keep_their_beat_but_for_a_pause() {
        let start = Instant::now();
        let mut windows = Windows::new(LENGTH, Duration::ZERO, start);
        let late = start + Duration::from_millis(10_200);
        windows.next(late);
        assert_eq!(windows.left(late), Duration::from_millis(9_800));
        let resumed = start + Duration::from_secs(3600);
        windows.next(resumed);
        assert_eq!(windows.left(resumed), LENGTH);
    }
}
