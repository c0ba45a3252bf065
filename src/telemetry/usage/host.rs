//! How busy the host is.

use super::{parse, read};

/// Share of all CPUs' time in use, from one look to the next.
#[derive(Debug, Default)]
pub struct HostCpu {
    last: Option<(u64, u64)>,
}

impl HostCpu {
    /// Nothing is known before the second look.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Share of the host's CPU time that was not idle since the last call, in `[0, 1]`. None at the first call, and when no
    /// tick (10 ms) has passed.
    pub fn look(&mut self) -> Option<f64> {
        self.since_last(parse::host_ticks(&read("/proc/stat")?)?)
    }

    fn since_last(&mut self, (busy, all): (u64, u64)) -> Option<f64> {
        let (last_busy, last_all) = self.last.replace((busy, all))?;
        let passed = all.checked_sub(last_all).filter(|&passed| passed > 0)?;
        // Idle time goes backwards now and then (proc(5)).
        Some((busy.saturating_sub(last_busy) as f64 / passed as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_between() {
        let mut host = HostCpu::new();
        assert_eq!(host.since_last((50, 100)), None);
        assert_eq!(host.since_last((75, 200)), Some(0.25));
        assert_eq!(host.since_last((75, 200)), None);
        assert_eq!(host.since_last((70, 210)), Some(0.0));
        assert_eq!(host.since_last((70, 190)), None);
        assert_eq!(host.since_last((200, 200)), Some(1.0));
    }

    #[test]
    fn this_host_is_read() {
        let mut host = HostCpu::new();
        host.look();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let share = loop {
            std::thread::sleep(std::time::Duration::from_millis(50));
            if let Some(share) = host.look() {
                break share;
            }
            assert!(std::time::Instant::now() < deadline, "no tick in 30 s");
        };
        assert!((0.0..=1.0).contains(&share), "{share}");
    }
}
