//! Clocks: samples and events carry `CLOCK_MONOTONIC`, `/proc` counts from boot, and people read Unix time.

use rustix::time::{ClockId, clock_gettime};

/// How the kernel's clocks stood to each other when this was made. Unix time may be stepped and a suspended machine stops
/// `CLOCK_MONOTONIC`, so a long-running agent makes a new one now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    boot_minus_monotonic: i64,
    unix_minus_monotonic: i64,
}

impl Clock {
    /// Reads the clocks; exact to about a microsecond.
    #[must_use]
    pub fn read() -> Self {
        Self {
            boot_minus_monotonic: offset_to_monotonic(ClockId::Boottime),
            unix_minus_monotonic: offset_to_monotonic(ClockId::Realtime),
        }
    }

    /// Clocks with these differences, ns: for tests and for replaying what another machine recorded.
    #[must_use]
    pub fn with_offsets(boot_minus_monotonic: i64, unix_minus_monotonic: i64) -> Self {
        Self { boot_minus_monotonic, unix_minus_monotonic }
    }

    /// `CLOCK_MONOTONIC` now, ns.
    #[must_use]
    pub fn monotonic_now() -> u64 {
        u64::try_from(nanoseconds(ClockId::Monotonic)).unwrap_or(0)
    }

    /// Unix time, ns, of a time on `CLOCK_MONOTONIC`, ns.
    #[must_use]
    pub fn unix_from_monotonic(&self, monotonic: u64) -> u64 {
        monotonic.saturating_add_signed(self.unix_minus_monotonic)
    }

    /// `CLOCK_MONOTONIC`, ns, of a Unix time, ns.
    #[must_use]
    pub fn monotonic_from_unix(&self, unix: u64) -> u64 {
        unix.saturating_add_signed(self.unix_minus_monotonic.saturating_neg())
    }

    /// Time since boot, suspend included, ns, of a time on `CLOCK_MONOTONIC`, ns.
    #[must_use]
    pub fn boot_from_monotonic(&self, monotonic: u64) -> u64 {
        monotonic.saturating_add_signed(self.boot_minus_monotonic)
    }

    /// Unix time, ns, of a time since boot, ns.
    #[must_use]
    pub fn unix_from_boot(&self, boot: u64) -> u64 {
        boot.saturating_add_signed(self.unix_minus_monotonic.saturating_sub(self.boot_minus_monotonic))
    }
}

fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// `clock - CLOCK_MONOTONIC`, from the tightest of several readings: a reading may be interrupted between its clocks.
fn offset_to_monotonic(clock: ClockId) -> i64 {
    let reading = || {
        let before = nanoseconds(ClockId::Monotonic);
        let there = nanoseconds(clock);
        let after = nanoseconds(ClockId::Monotonic);
        let width = after.saturating_sub(before);
        (width, there.saturating_sub(before.saturating_add(width / 2)))
    };
    std::iter::repeat_with(reading).take(8).min().map_or(0, |(_, offset)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn monotonic_now_is_unix_now() {
        let clock = Clock::read();
        let monotonic = Clock::monotonic_now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(unix.abs_diff(clock.unix_from_monotonic(monotonic)) < 50_000_000);
        assert_eq!(clock.monotonic_from_unix(clock.unix_from_monotonic(monotonic)), monotonic);
        let boot = clock.boot_from_monotonic(monotonic);
        assert!(clock.unix_from_boot(boot).abs_diff(clock.unix_from_monotonic(monotonic)) < 2);
    }
}
