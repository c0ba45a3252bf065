//! What of the samples of the last minute was lost, as a server is told.

use std::collections::VecDeque;

/// Seconds that are looked back.
const SECONDS: usize = 60;
/// Shares that are told, %, as more than which: a number for each second would be a report each second.
const TOLD: [u64; 5] = [50, 25, 10, 5, 1];
/// So many lost samples mean something.
const MANY_LOST: u64 = 10;

/// Samples taken and lost so far, by the second; the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Losses(VecDeque<(u64, u64)>);

impl Losses {
    /// Each second: samples taken and lost so far.
    pub fn note(&mut self, samples: u64, lost: u64) {
        self.0.push_back((samples, lost));
        if self.0.len() > SECONDS + 1 {
            self.0.pop_front();
        }
    }

    /// What the agent does, at `rate`, Hz.
    pub fn status(&self, rate: u64) -> String {
        let losses =
            self.more_than().map(|percent| format!("; more than {percent} % of the last minute's samples lost"));
        format!("sampling at {rate} Hz{}", losses.unwrap_or_default())
    }

    /// The largest share of [`TOLD`] that is exceeded, %.
    fn more_than(&self) -> Option<u64> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let (samples, lost) = (last.0.saturating_sub(first.0), last.1.saturating_sub(first.1));
        let all = u128::from(samples) + u128::from(lost);
        let is_more = |percent: &u64| u128::from(lost) * 100 > all * u128::from(*percent);
        TOLD.into_iter().find(is_more).filter(|_| lost >= MANY_LOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_the_last_minute_are_told_in_classes() {
        let mut losses = Losses::default();
        assert_eq!(losses.status(99), "sampling at 99 Hz");
        // 100 samples a second, of which 12 are lost from the 100th second on.
        let (mut samples, mut lost) = (0, 0);
        let mut told = Vec::new();
        for second in 0..300 {
            let is_bad = (100..200).contains(&second);
            samples += if is_bad { 88 } else { 100 };
            lost += if is_bad { 12 } else { 0 };
            losses.note(samples, lost);
            let now = losses.status(99);
            if told.last() != Some(&now) {
                told.push(now);
            }
        }
        let more = |percent| format!("sampling at 99 Hz; more than {percent} % of the last minute's samples lost");
        let none = "sampling at 99 Hz".to_owned();
        assert_eq!(told, [none.clone(), more(1), more(5), more(10), more(5), more(1), none]);
    }

    #[test]
    fn a_few_lost_samples_of_few_are_nothing() {
        let mut losses = Losses::default();
        losses.note(0, 0);
        losses.note(1, MANY_LOST - 1);
        assert_eq!(losses.status(9), "sampling at 9 Hz");
        losses.note(1, MANY_LOST);
        assert!(losses.status(9).contains("more than 50 %"));
    }
}
