//! Whether a configuration works: what comes of it, beside what came before it.

use std::time::{Duration, Instant};

use crate::telemetry::AgentState;

/// So many samples have to be expected before it means something that there are none: by chance there is none of 8 once in 3,000 times.
const EXPECTED: f64 = 8.0;
/// Share of samples that may be lost where none was before.
const TOLERATED_LOSS: f64 = 0.1;
/// So many lost samples mean something.
const MANY_LOST: u64 = 10;
/// What is under way from before is counted for so many seconds yet.
const SETTLING: u32 = 2;
/// Time for exporters beyond the end of a window.
const EXPORT_PATIENCE: Duration = Duration::from_secs(15);

/// What the agent has done so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// When this was so.
    pub at: Instant,
    /// Samples taken.
    pub samples: u64,
    /// Samples lost.
    pub lost: u64,
    /// Samples that exporters delivered.
    pub delivered: u64,
    /// Samples that exporters gave up.
    pub dropped: u64,
    /// The rate or the caches are cut to stay within the budgets.
    pub is_over_budget: bool,
    /// Samples are taken.
    pub is_sampling: bool,
    /// Samples a second and CPU, as configured or asked for.
    pub rate: u64,
}

impl Outcome {
    /// Of `state`.
    pub fn of(state: &AgentState, at: Instant) -> Self {
        let dropped = state.exporters.iter().flat_map(|exporter| exporter.dropped_samples.values());
        Self {
            at,
            samples: state.samples.values().sum(),
            lost: state.lost.values().sum(),
            delivered: state.exporters.iter().map(|exporter| exporter.sent_samples).sum(),
            dropped: dropped.sum(),
            is_over_budget: state.shed_level > 0 || state.rate_ruled_by == profiler_limits::Client::Governed.name(),
            is_sampling: state.sampling,
            rate: state.rate,
        }
    }

    /// What came between `before` and this.
    fn since(&self, before: &Self) -> Rates {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        let count = |now: u64, before: u64| now.saturating_sub(before);
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let (samples, lost) = (count(self.samples, before.samples), count(self.lost, before.lost));
        let all = samples + lost;
        Rates {
            samples: per_second(samples),
            loss: if all > 0 { lost as f64 / all as f64 } else { 0.0 },
            lost,
            delivered: per_second(count(self.delivered, before.delivered)),
            dropped: count(self.dropped, before.dropped),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    /// A second.
    samples: f64,
    /// Share.
    loss: f64,
    lost: u64,
    /// A second.
    delivered: f64,
    dropped: u64,
}

/// A configuration that is being watched.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its hash.
    pub hash: Vec<u8>,
    /// What it says; none: nothing.
    pub text: Option<String>,
    before: Rates,
    was_over_budget: bool,
    was_sampling: bool,
    rate_before: u64,
    begun: Outcome,
    settling: u32,
    soak: Duration,
    window: Duration,
}

/// What is known of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// It works.
    Works,
    /// It does not, and why.
    Fails(String),
}

impl Trial {
    /// Of the configuration with `hash`, from `begun` on for `soak`, with windows of `window`; before that the agent did what came since
    /// `long_before`.
    pub fn new(
        hash: Vec<u8>,
        text: Option<String>,
        long_before: &Outcome,
        begun: Outcome,
        soak: Duration,
        window: Duration,
    ) -> Self {
        Self {
            hash,
            text,
            before: begun.since(long_before),
            was_over_budget: begun.is_over_budget,
            was_sampling: begun.is_sampling,
            rate_before: begun.rate,
            begun,
            settling: SETTLING,
            soak,
            window,
        }
    }

    /// From `now` on: what was until then says nothing.
    pub fn begin_again(&mut self, now: Outcome) {
        self.begun = now;
    }

    /// Each second. Whether what is counted may still be what was before: then it begins `now`.
    pub fn settle(&mut self, now: Outcome) -> bool {
        if self.settling == 0 {
            return false;
        }
        self.settling -= 1;
        self.begin_again(now);
        true
    }

    /// Samples that were to be expected in `time`.
    fn expected(&self, rate: u64, time: Duration) -> f64 {
        self.before.samples * time.as_secs_f64() * rate as f64 / self.rate_before.max(1) as f64
    }

    /// As of `now`. What cannot become better is told at once.
    pub fn verdict(&self, now: &Outcome) -> Verdict {
        let rates = now.since(&self.begun);
        let fails = |reason: String| Verdict::Fails(reason);
        if self.was_sampling && !now.is_sampling {
            return fails("sampling has stopped".to_owned());
        }
        if now.is_over_budget && !self.was_over_budget {
            return fails("the agent went over its budget of CPU or memory".to_owned());
        }
        let watched = now.at.saturating_duration_since(self.begun.at);
        if watched < self.soak {
            return Verdict::Wait;
        }
        let soak = self.soak;
        let was_something_expected = self.expected(now.rate, watched) >= EXPECTED;
        if was_something_expected && rates.samples <= 0.0 {
            return fails(format!("no samples in {soak:?}, after {:.1} a second before", self.before.samples));
        }
        if rates.lost >= MANY_LOST && rates.loss > self.before.loss + TOLERATED_LOSS {
            let percent = |share: f64| share * 100.0;
            let (now, before) = (percent(rates.loss), percent(self.before.loss));
            return fails(format!("{now:.0} % of the samples were lost, after {before:.0} % before"));
        }
        if rates.dropped > 0 && self.before.dropped == 0 {
            return fails(format!("exporters gave up {} samples, and none before", rates.dropped));
        }
        if self.before.delivered > 0.0 && was_something_expected && rates.delivered <= 0.0 {
            // A window has to end before it can be delivered.
            if watched < 2 * self.window + EXPORT_PATIENCE {
                return Verdict::Wait;
            }
            return fails(format!(
                "nothing was exported in {watched:.0?}, after {:.1} samples a second before",
                self.before.delivered
            ));
        }
        Verdict::Works
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOAK: Duration = Duration::from_secs(60);
    const WINDOW: Duration = Duration::from_secs(10);

    fn outcome(at: Instant) -> Outcome {
        Outcome {
            at,
            samples: 0,
            lost: 0,
            delivered: 0,
            dropped: 0,
            is_over_budget: false,
            is_sampling: true,
            rate: 99,
        }
    }

    /// The verdict after the soak on what `change` makes of an agent that took and delivered 100 samples a second before.
    fn after(change: impl FnOnce(&mut Outcome)) -> Verdict {
        let start = Instant::now();
        let begun = Outcome { samples: 6000, delivered: 6000, ..outcome(start + SOAK) };
        let trial = Trial::new(vec![1], None, &outcome(start), begun, SOAK, WINDOW);
        let mut now = Outcome { at: begun.at + SOAK, samples: 6600, delivered: 6500, ..begun };
        change(&mut now);
        trial.verdict(&now)
    }

    fn fails(verdict: &Verdict, why: &str) -> bool {
        matches!(verdict, Verdict::Fails(reason) if reason.contains(why))
    }

    #[test]
    fn what_goes_on_with_fewer_samples_works() {
        assert_eq!(after(|_| {}), Verdict::Works);
        assert_eq!(after(|now| now.lost = 30), Verdict::Works);
    }

    #[test]
    fn what_ends_samples_or_exports_or_loses_much_does_not() {
        assert!(fails(&after(|now| now.samples = 6000), "no samples in 60s, after 100.0 a second"));
        assert!(fails(&after(|now| now.lost = 200), "25 % of the samples were lost, after 0 %"));
        assert!(fails(&after(|now| now.delivered = 6000), "nothing was exported"));
        assert!(fails(&after(|now| now.dropped = 1), "gave up 1 samples"));
        assert!(fails(&after(|now| now.is_over_budget = true), "budget"));
        assert!(fails(&after(|now| now.is_sampling = false), "sampling has stopped"));
    }

    #[test]
    fn a_pause_by_hand_is_not_held_against_it() {
        let start = Instant::now();
        let begun = Outcome { samples: 6000, delivered: 6000, ..outcome(start + SOAK) };
        let mut trial = Trial::new(vec![1], None, &outcome(start), begun, SOAK, WINDOW);
        let after_pause = Outcome { at: begun.at + SOAK, ..begun };
        trial.begin_again(after_pause);
        assert_eq!(trial.verdict(&after_pause), Verdict::Wait);
        let later = Outcome { at: after_pause.at + SOAK, samples: 6600, delivered: 6600, ..after_pause };
        assert_eq!(trial.verdict(&later), Verdict::Works);
    }

    #[test]
    fn where_nothing_was_nothing_is_missed() {
        let start = Instant::now();
        let trial = Trial::new(vec![1], None, &outcome(start), outcome(start + SOAK), SOAK, WINDOW);
        assert_eq!(trial.verdict(&outcome(start + 2 * SOAK)), Verdict::Works);
    }

    #[test]
    fn before_the_end_it_is_not_known_to_work_but_may_be_known_not_to() {
        let early = |now: &mut Outcome| now.at -= Duration::from_secs(1);
        assert_eq!(after(early), Verdict::Wait);
        let verdict = after(|now| {
            early(now);
            now.samples = 6000;
        });
        assert_eq!(verdict, Verdict::Wait, "they may still come");
        let verdict = after(|now| {
            early(now);
            now.is_over_budget = true;
        });
        assert!(fails(&verdict, "budget"));
    }

    #[test]
    fn at_a_lower_rate_fewer_samples_are_expected_and_none_may_mean_nothing() {
        // 100 a second at 99 Hz are one a second at 1 Hz; 1 a second is 0.6 in the whole soak.
        let with_samples = |before: u64, rate: u64| {
            let start = Instant::now();
            let begun = Outcome { samples: before * 60, ..outcome(start + SOAK) };
            let trial = Trial::new(vec![1], None, &outcome(start), begun, SOAK, WINDOW);
            trial.verdict(&Outcome { at: begun.at + SOAK, rate, ..begun })
        };
        assert!(fails(&with_samples(100, 1), "no samples"));
        assert!(fails(&with_samples(1, 99), "no samples"));
        assert_eq!(with_samples(1, 1), Verdict::Works);
    }

    #[test]
    fn a_window_may_be_longer_than_the_soak() {
        let start = Instant::now();
        let begun = Outcome { samples: 6000, delivered: 6000, ..outcome(start + SOAK) };
        let trial = Trial::new(vec![1], None, &outcome(start), begun, SOAK, SOAK);
        let none = |seconds| Outcome { at: begun.at + Duration::from_secs(seconds), samples: 9000, ..begun };
        assert_eq!(trial.verdict(&none(60)), Verdict::Wait);
        assert_eq!(trial.verdict(&none(134)), Verdict::Wait);
        assert!(fails(&trial.verdict(&none(135)), "nothing was exported in 135s"));
        let delivered = Outcome { delivered: 6100, ..none(100) };
        assert_eq!(trial.verdict(&delivered), Verdict::Works);
    }

    #[test]
    fn what_was_under_way_when_it_began_does_not_count() {
        let start = Instant::now();
        let begun = Outcome { samples: 6000, delivered: 6000, ..outcome(start + SOAK) };
        let mut trial = Trial::new(vec![1], None, &outcome(start), begun, SOAK, WINDOW);
        let late = Outcome { at: begun.at + Duration::from_secs(1), samples: 6020, ..begun };
        assert!(trial.settle(late));
        assert!(trial.settle(late));
        assert!(!trial.settle(Outcome { samples: 7000, ..late }), "it is watched now");
        assert!(fails(&trial.verdict(&Outcome { at: late.at + SOAK, ..late }), "no samples"));
    }

    #[test]
    fn a_few_lost_samples_are_no_loss() {
        let verdict = after(|now| {
            now.samples = 6009;
            now.lost = 9;
        });
        assert_eq!(verdict, Verdict::Works);
    }
}
