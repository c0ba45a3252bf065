//! Logs that repeat themselves once a minute at most.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

/// Whether something that happens again and again is to be said now.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    said: Option<Instant>,
    unsaid: u64,
}

impl Quiet {
    /// How often it happened without being said, if it is to be said now.
    pub(super) fn speak(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// It is over: should it begin again, it is said at once.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute() {
        let start = Instant::now();
        let mut quiet = Quiet::default();
        let said: Vec<(u64, u64)> = (0..130)
            .filter_map(|second| quiet.speak(start + Duration::from_secs(second)).map(|unsaid| (second, unsaid)))
            .collect();
        assert_eq!(said, [(0, 0), (60, 59), (120, 59)]);
    }
}
