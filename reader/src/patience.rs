//! Who is read, and who is set aside for a while.

use std::time::{Duration, Instant};

use profiler_unwinders::executable::ExecutableId;
use rustc_hash::FxHashMap;

/// First pause of a target at which a reader stood still or died; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A target that did nothing of the kind for so long begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// Targets remembered; beyond it the one whose pause ends first is forgotten.
const MAX_TARGETS: usize = 4096;
/// What the targets of one user may cost at once, where who samples waits for them.
const AT_ONCE: Duration = Duration::from_secs(3);
/// And of each second afterwards.
const OF_A_SECOND: f64 = 0.1;
/// The same where nobody but a window waits.
/// All programs of a host may be one user's, and are read at the start.
const NAMES_AT_ONCE: Duration = Duration::from_secs(60);
const NAMES_OF_A_SECOND: f64 = 0.5;
/// The same where only who asked for it waits.
const PATIENT_AT_ONCE: Duration = Duration::from_secs(600);
const PATIENT_OF_A_SECOND: f64 = 0.5;
/// What takes less is not counted: nobody waits for it.
pub(crate) const CHEAP: Duration = Duration::from_millis(2);
/// Users remembered.
const MAX_USERS: usize = 4096;

/// Whose things are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// A process.
    Process(u32),
    /// A file.
    Executable(ExecutableId),
    /// Nobody's: it costs nobody anything.
    Nobody,
}

#[derive(Clone, Copy, Debug)]
struct Aside {
    strikes: u32,
    until: Instant,
}

/// A user's share of the time of who waits.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Seconds left; below 0 there is none.
    left: f64,
    /// As of.
    at: Instant,
}

impl Share {
    fn now(&self, (at_once, of_a_second): (Duration, f64), now: Instant) -> f64 {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * of_a_second;
        (self.left + more).min(at_once.as_secs_f64())
    }
}

/// Remembers who was not worth waiting for.
#[derive(Debug)]
pub(crate) struct Patience {
    aside: FxHashMap<Target, Aside>,
    users: FxHashMap<u32, Share>,
    /// What a user may cost at once, and of each second afterwards.
    bounds: (Duration, f64),
}

impl Patience {
    /// Of who samples.
    pub(crate) fn with_rows() -> Self {
        Self { aside: FxHashMap::default(), users: FxHashMap::default(), bounds: (AT_ONCE, OF_A_SECOND) }
    }

    /// Of who publishes.
    pub(crate) fn with_names() -> Self {
        Self { bounds: (NAMES_AT_ONCE, NAMES_OF_A_SECOND), ..Self::with_rows() }
    }

    /// Nobody but who asked for it waits from now on.
    pub(crate) fn be_patient(&mut self) {
        self.users.clear();
        self.bounds = (PATIENT_AT_ONCE, PATIENT_OF_A_SECOND);
    }

    /// Whether `target` may be read for `users` at `now`; else when it may be. One of them who has a share left is enough: what others cost
    /// takes nothing from him.
    pub(crate) fn may(&self, target: Target, users: &[u32], now: Instant) -> Result<(), Instant> {
        if let Some(aside) = self.aside.get(&target).filter(|aside| aside.until > now) {
            return Err(aside.until);
        }
        // Who is not remembered has all of it.
        let left = |user: &u32| self.users.get(user).map_or(f64::INFINITY, |share| share.now(self.bounds, now));
        match users.iter().map(left).reduce(f64::max) {
            Some(left) if left <= 0.0 => {
                // Not for the first millisecond that is there again.
                Err(now + Duration::from_secs_f64((0.1 - left) / self.bounds.1))
            }
            _ => Ok(()),
        }
    }

    /// Whether any user's share counts, so that it matters whose a target is.
    pub(crate) fn counts_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// A reader stood still or died at `target`, which is set aside; for how long.
    pub(crate) fn strike(&mut self, target: Target, now: Instant) -> Duration {
        if target == Target::Nobody {
            return Duration::ZERO;
        }
        self.aside.retain(|_, aside| aside.until + FORGIVEN_AFTER > now);
        if self.aside.len() >= MAX_TARGETS
            && let Some(first) = self.aside.iter().min_by_key(|(_, aside)| aside.until).map(|(target, _)| *target)
        {
            self.aside.remove(&first);
        }
        let aside = self.aside.entry(target).or_insert(Aside { strikes: 0, until: now });
        let pause = FIRST_PAUSE.saturating_mul(1 << aside.strikes.min(16)).min(LONGEST_PAUSE);
        *aside = Aside { strikes: aside.strikes + 1, until: now + pause };
        pause
    }

    /// Whether a reader stood still or died at `target`, not long ago.
    pub(crate) fn has_struck(&self, target: Target) -> bool {
        self.aside.contains_key(&target)
    }

    /// Somebody waited `took` for what is read for `users`: each pays his part. Root owns the host and what it costs.
    pub(crate) fn charge(&mut self, users: &[u32], took: Duration, now: Instant) {
        if took < CHEAP {
            return;
        }
        let part = took / u32::try_from(users.len()).unwrap_or(u32::MAX).max(1);
        users.iter().filter(|&&user| user != 0).for_each(|&user| self.charge_one(user, part, now));
    }

    fn charge_one(&mut self, user: u32, took: Duration, now: Instant) {
        let bounds = self.bounds;
        if self.users.len() >= MAX_USERS {
            self.users.retain(|_, share| share.now(bounds, now) < bounds.0.as_secs_f64());
        }
        let full = Share { left: bounds.0.as_secs_f64(), at: now };
        let share = self.users.entry(user).or_insert(full);
        *share = Share { left: share.now(bounds, now) - took.as_secs_f64(), at: now };
    }

    /// Targets that are set aside at `now`.
    pub(crate) fn set_aside(&self, now: Instant) -> usize {
        self.aside.values().filter(|aside| aside.until > now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let (mut patience, begun) = (Patience::with_rows(), Instant::now());
        let (bad, good) = (Target::Process(7), Target::Process(8));
        let mut now = begun;
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert_eq!(patience.may(bad, &[], now), Ok(()));
            assert_eq!(patience.strike(bad, now), Duration::from_secs(expected));
            assert_eq!(patience.may(bad, &[], now), Err(now + Duration::from_secs(expected)));
            assert_eq!(patience.may(good, &[], now), Ok(()));
            assert_eq!(patience.set_aside(now), 1);
            now += Duration::from_secs(expected);
        }
        now += FORGIVEN_AFTER;
        assert_eq!(patience.strike(good, now), FIRST_PAUSE);
        assert_eq!(patience.strike(bad, now), FIRST_PAUSE, "long ago");
    }

    #[test]
    fn who_starts_many_processes_costs_no_more_than_his_share() {
        let (mut patience, begun) = (Patience::with_rows(), Instant::now());
        let (mut now, mut waited) = (begun, Duration::ZERO);
        let took = Duration::from_millis(300);
        // Each is another process, and does it once.
        for pid in 0..10_000 {
            if patience.may(Target::Process(pid), &[1000], now).is_ok() {
                patience.strike(Target::Process(pid), now);
                (now, waited) = (now + took, waited + took);
                patience.charge(&[1000], took, now);
            }
            assert_eq!(patience.may(Target::Process(99_999), &[1001], now), Ok(()), "another user");
            now += Duration::from_millis(10);
        }
        let all = now - begun;
        assert!(waited < AT_ONCE + all.mul_f64(OF_A_SECOND) + took, "{waited:?} of {all:?}");
        assert!(waited > AT_ONCE, "{waited:?}");
    }

    #[test]
    fn who_has_nothing_else_to_do_waits_for_longer() {
        let (mut patience, now) = (Patience::with_names(), Instant::now());
        patience.charge(&[1000], NAMES_AT_ONCE, now);
        assert!(patience.may(Target::Process(1), &[1000], now).is_err());
        patience.be_patient();
        assert_eq!(patience.may(Target::Process(1), &[1000], now), Ok(()));
        patience.charge(&[1000], NAMES_AT_ONCE, now);
        assert_eq!(patience.may(Target::Process(1), &[1000], now), Ok(()));
        patience.charge(&[1000], PATIENT_AT_ONCE, now);
        assert!(patience.may(Target::Process(1), &[1000], now).is_err());
    }

    #[test]
    fn who_has_used_his_share_takes_nothing_from_those_who_share_a_file_with_him() {
        let (mut patience, now) = (Patience::with_names(), Instant::now());
        let file = Target::Executable(ExecutableId(1));
        patience.charge(&[1000], NAMES_AT_ONCE, now);
        assert!(patience.may(file, &[1000], now).is_err());
        for users in [&[1000, 1001][..], &[1000, 0], &[1001], &[]] {
            assert_eq!(patience.may(file, users, now), Ok(()), "{users:?}");
        }
        // Each pays his part, root nothing.
        patience.charge(&[1001, 0], NAMES_AT_ONCE, now);
        assert_eq!(patience.may(file, &[1001], now), Ok(()));
        patience.charge(&[1001, 0], NAMES_AT_ONCE, now);
        let after = patience.may(file, &[1000, 1001], now).expect_err("both have none") - now;
        assert!(after < Duration::from_secs(1), "that of who has one first: {after:?}");
        assert_eq!(patience.may(file, &[0], now), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut patience, now) = (Patience::with_rows(), Instant::now());
        for pid in 0..2 * MAX_TARGETS as u32 {
            patience.strike(Target::Process(pid), now + Duration::from_millis(pid.into()));
        }
        assert_eq!(patience.aside.len(), MAX_TARGETS);
        patience.charge(&[0], Duration::from_secs(100), now);
        assert!(!patience.counts_users(), "root's are not counted");
    }
}
