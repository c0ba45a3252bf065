//! When an aggregate was sampled, and how that is told in Unix time.

use profiler_model::Profiles;
use profiler_unwinders::process::Clock;

/// From when to when an aggregate was sampled. One clock tells all its times: where Unix time was stepped meanwhile, start, end and
/// every sample are told as the stepped clock would have had them, and their distances stay what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Turns times into Unix times, the samples' too; read at the end.
    pub clock: Clock,
    /// `CLOCK_MONOTONIC`, ns.
    pub begun: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub ended: u64,
}

impl Span {
    /// Gives each profile of `set` the same start and duration. Samples come a moment after they were taken, so some are older than the
    /// span in which they came: it holds them all.
    pub fn bound(&self, set: &mut Profiles) {
        let times = || set.samples().filter_map(|(_, sample)| sample.time_unix_nanos);
        let (first, last) = (times().min(), times().max());
        let start = self.clock.unix_from_monotonic(self.begun);
        let end = start.saturating_add(self.ended.saturating_sub(self.begun));
        let end = last.map_or(end, |last| end.max(last.saturating_add(1)));
        let start = first.map_or(start, |first| first.min(start));
        for profile in &mut set.profiles {
            profile.start_unix_nanos = start;
            profile.duration_nanos = end.saturating_sub(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::{Profile, Sample};

    use super::*;

    const HOUR: i64 = 3_600_000_000_000;
    const UNIX: i64 = 1_700_000_000_000_000_000;

    fn bounded(span: &Span, times: &[u64]) -> Profile {
        let sample =
            |&time: &u64| Sample { time_unix_nanos: Some(span.clock.unix_from_monotonic(time)), ..Sample::default() };
        let profile = Profile { samples: times.iter().map(sample).collect(), ..Profile::default() };
        let mut set = Profiles { profiles: vec![profile], ..Profiles::default() };
        span.bound(&mut set);
        set.profiles.remove(0)
    }

    #[test]
    fn every_sample_is_within_its_profile() {
        let span = Span { clock: Clock::with_offsets(0, UNIX), begun: 1000, ended: 1100 };
        let profile = bounded(&span, &[990, 1050, 1100]);
        assert_eq!((profile.start_unix_nanos, profile.duration_nanos), (UNIX as u64 + 990, 111));
        let profile = bounded(&span, &[]);
        assert_eq!((profile.start_unix_nanos, profile.duration_nanos), (UNIX as u64 + 1000, 100));
    }

    #[test]
    fn a_step_of_the_clock_moves_a_profile_and_does_not_stretch_it() {
        let of = |step| {
            let span = Span { clock: Clock::with_offsets(0, UNIX + step), begun: 5_000, ended: 9_000 };
            bounded(&span, &[4_990, 6_000, 8_999])
        };
        let (before, after, back) = (of(0), of(HOUR), of(-2 * HOUR));
        assert_eq!([before.duration_nanos, after.duration_nanos, back.duration_nanos], [4_010; 3]);
        assert_eq!(after.start_unix_nanos, before.start_unix_nanos + HOUR as u64);
        assert_eq!(back.start_unix_nanos, before.start_unix_nanos - 2 * HOUR as u64);
    }
}
