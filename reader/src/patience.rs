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
/// What one process or file may cost of it, at once and of each second: many requests, each just short enough, hold a namer as one does that is too long.
const TARGET_AT_ONCE: Duration = Duration::from_secs(60);
const TARGET_OF_A_SECOND: f64 = 0.1;
/// The same where only who asked for it waits.
const PATIENT_AT_ONCE: Duration = Duration::from_secs(600);
const PATIENT_OF_A_SECOND: f64 = 0.5;
/// What takes less is not counted: nobody waits for it.
pub(crate) const CHEAP: Duration = Duration::from_millis(2);
/// Users, and targets that cost something, remembered.
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
    /// The same of each target, if that is bounded.
    targets: FxHashMap<Target, Share>,
    target_bounds: Option<(Duration, f64)>,
    /// How often what a target has was put off.
    put_off: FxHashMap<Target, u32>,
}

impl Patience {
    /// Of who samples.
    pub(crate) fn with_rows() -> Self {
        Self {
            aside: FxHashMap::default(),
            users: FxHashMap::default(),
            bounds: (AT_ONCE, OF_A_SECOND),
            targets: FxHashMap::default(),
            target_bounds: None,
            put_off: FxHashMap::default(),
        }
    }

    /// Of who publishes.
    pub(crate) fn with_names() -> Self {
        let target_bounds = Some((TARGET_AT_ONCE, TARGET_OF_A_SECOND));
        Self { bounds: (NAMES_AT_ONCE, NAMES_OF_A_SECOND), target_bounds, ..Self::with_rows() }
    }

    /// Nobody but who asked for it waits from now on.
    pub(crate) fn be_patient(&mut self) {
        self.users.clear();
        self.targets.clear();
        self.bounds = (PATIENT_AT_ONCE, PATIENT_OF_A_SECOND);
        self.target_bounds = Some(self.bounds);
    }

    /// Whether `target` may be read for `users` at `now`; else when it may be. One of them who has a share left is enough: what others cost
    /// takes nothing from him.
    pub(crate) fn may(&self, target: Target, users: &[u32], now: Instant) -> Result<(), Instant> {
        if let Some(aside) = self.aside.get(&target).filter(|aside| aside.until > now) {
            return Err(aside.until);
        }
        if let (Some(bounds), Some(share)) = (self.target_bounds, self.targets.get(&target)) {
            let left = share.now(bounds, now);
            if left <= 0.0 {
                return Err(now + Duration::from_secs_f64((0.1 - left) / bounds.1));
            }
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

    /// Whether a reader stood still or died at `target`, not long before `now`.
    pub(crate) fn has_struck(&self, target: Target, now: Instant) -> bool {
        self.aside.get(&target).is_some_and(|aside| aside.until + FORGIVEN_AFTER > now)
    }

    /// Some of what `target` has was not read for now: after how long it is asked again, twice as long each time.
    pub(crate) fn put_off(&mut self, target: Target) -> Duration {
        if self.put_off.len() >= MAX_TARGETS && !self.put_off.contains_key(&target) {
            // They begin anew.
            self.put_off.clear();
        }
        let times = self.put_off.entry(target).or_default();
        let pause = FIRST_PAUSE.saturating_mul(2 << (*times).min(16)).min(LONGEST_PAUSE);
        *times += 1;
        pause
    }

    /// All that `target` has was read.
    pub(crate) fn is_read(&mut self, target: Target) {
        self.put_off.remove(&target);
    }

    /// Somebody waited `took` for what is read for `users`: each pays his part. Root owns the host and what it costs.
    pub(crate) fn charge(&mut self, users: &[u32], took: Duration, now: Instant) {
        if took < CHEAP {
            return;
        }
        let part = took / u32::try_from(users.len()).unwrap_or(u32::MAX).max(1);
        users.iter().filter(|&&user| user != 0).for_each(|&user| self.charge_one(user, part, now));
    }

    /// Somebody waited `took` for `target`.
    pub(crate) fn charge_target(&mut self, target: Target, took: Duration, now: Instant) {
        let Some(bounds) = self.target_bounds.filter(|_| took >= CHEAP && target != Target::Nobody) else { return };
        let full = Share { left: bounds.0.as_secs_f64(), at: now };
        if self.targets.len() >= MAX_USERS && !self.targets.contains_key(&target) {
            self.targets.retain(|_, share| share.now(bounds, now) < full.left);
            // Whoever cost least goes.
            let most = self.targets.iter().max_by(|a, b| a.1.now(bounds, now).total_cmp(&b.1.now(bounds, now)));
            if let Some(most) = most.map(|(target, _)| *target).filter(|_| self.targets.len() >= MAX_USERS) {
                self.targets.remove(&most);
            }
        }
        let share = self.targets.entry(target).or_insert(full);
        *share = Share { left: share.now(bounds, now) - took.as_secs_f64(), at: now };
    }

    /// What `target` has cost and has not made up for by now (s).
    pub(crate) fn cost(&self, target: Target, now: Instant) -> f64 {
        let of = |bounds: (Duration, f64)| Some(bounds.0.as_secs_f64() - self.targets.get(&target)?.now(bounds, now));
        self.target_bounds.and_then(of).unwrap_or_default()
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
        assert!(patience.has_struck(bad, now) && !patience.has_struck(good, now));
        now += FORGIVEN_AFTER;
        assert!(!patience.has_struck(bad, now), "also if nobody else is struck");
        assert_eq!(patience.strike(good, now), FIRST_PAUSE);
        assert_eq!(patience.strike(bad, now), FIRST_PAUSE, "long ago");
    }

    #[test]
    fn what_is_put_off_is_asked_for_again_after_longer_and_longer() {
        let (mut patience, target) = (Patience::with_rows(), Target::Process(7));
        for expected in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert_eq!(patience.put_off(target), Duration::from_secs(expected));
        }
        patience.is_read(target);
        assert_eq!(patience.put_off(target), Duration::from_secs(2));
        for pid in 0..2 * MAX_TARGETS as u32 {
            patience.put_off(Target::Process(pid));
        }
        assert!(patience.put_off.len() <= MAX_TARGETS);
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
    fn many_requests_that_are_each_short_enough_are_no_more_than_a_targets_share() {
        let (mut patience, begun) = (Patience::with_names(), Instant::now());
        let (slow, other) = (Target::Process(7), Target::Executable(ExecutableId(7)));
        let (mut now, mut waited, took) = (begun, Duration::ZERO, Duration::from_millis(900));
        for _ in 0..10_000 {
            // Root's: no user pays for it.
            if patience.may(slow, &[0], now).is_ok() {
                (now, waited) = (now + took, waited + took);
                patience.charge(&[0], took, now);
                patience.charge_target(slow, took, now);
            }
            assert_eq!(patience.may(other, &[0], now), Ok(()));
            now += Duration::from_millis(10);
        }
        let all = now - begun;
        assert!(waited < TARGET_AT_ONCE + all.mul_f64(TARGET_OF_A_SECOND) + took, "{waited:?} of {all:?}");
        assert!(waited > TARGET_AT_ONCE, "{waited:?}");
        assert!(patience.cost(slow, now) > 0.0 && patience.cost(other, now) == 0.0);
        // Who samples waits for no target that long.
        let mut patience = Patience::with_rows();
        patience.charge_target(slow, TARGET_AT_ONCE, now);
        assert_eq!((patience.may(slow, &[], now), patience.targets.len()), (Ok(()), 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut names = Patience::with_names();
        let now = Instant::now();
        for pid in 0..MAX_USERS as u32 + 10 {
            names.charge_target(Target::Process(pid), Duration::from_secs(1 + u64::from(pid == 5)), now);
        }
        assert_eq!((names.targets.len(), names.cost(Target::Process(5), now)), (MAX_USERS, 2.0));
        let (mut patience, now) = (Patience::with_rows(), Instant::now());
        for pid in 0..2 * MAX_TARGETS as u32 {
            patience.strike(Target::Process(pid), now + Duration::from_millis(pid.into()));
        }
        assert_eq!(patience.aside.len(), MAX_TARGETS);
        patience.charge(&[0], Duration::from_secs(100), now);
        assert!(!patience.counts_users(), "root's are not counted");
    }
}
