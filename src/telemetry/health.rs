//! Whether the agent lives and whether it is of use yet, as told to probes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What probes are told. The sampling loop beats; everybody else asks.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    stall_after: Duration,
    /// ms after `started`.
    last_beat: AtomicU64,
    /// Why the agent is not ready; none if it is.
    not_ready: Mutex<Option<String>>,
    /// Which other thread has stopped with a window in hand, if one has.
    late: Mutex<Option<String>>,
}

impl Health {
    /// Alive, and not ready since it starts. The loop counts as hung when it has not beaten for `stall_after`.
    #[must_use]
    pub fn new(stall_after: Duration) -> Self {
        Self {
            started: Instant::now(),
            stall_after,
            last_beat: AtomicU64::new(0),
            not_ready: Mutex::new(Some("starting".to_owned())),
            late: Mutex::default(),
        }
    }

    /// The loop goes on. Costs a look at the clock.
    pub fn beat(&self) {
        self.last_beat.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Sampling works and the first window is done.
    pub fn ready(&self) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Not ready, for `reason`: a few words such as `shutting down`.
    pub fn not_ready(&self, reason: &str) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// A window is late at another thread than the loop's, as `what` says; none: all are on their way.
    pub fn late(&self, what: Option<String>) {
        *self.late.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Whether the loop is going on, and windows with it.
    ///
    /// # Errors
    /// It hangs, or a window does; the text says where and for how long.
    pub fn alive(&self) -> Result<(), String> {
        let silent = Duration::from_millis(self.now_ms().saturating_sub(self.last_beat.load(Ordering::Relaxed)));
        if silent > self.stall_after {
            return Err(format!("the sampling loop has not gone on for {} s", silent.as_secs()));
        }
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.as_ref().map_or(Ok(()), |late| Err(late.clone()))
    }

    /// Whether the agent does what it is for.
    ///
    /// # Errors
    /// Not now; the text says why.
    pub fn is_ready(&self) -> Result<(), String> {
        self.alive()?;
        let reason = self.not_ready.lock().unwrap_or_else(PoisonError::into_inner);
        reason.as_ref().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_after_start_and_until_told_otherwise() {
        let health = Health::new(Duration::from_secs(60));
        assert_eq!(health.alive(), Ok(()));
        assert_eq!(health.is_ready(), Err("starting".to_owned()));
        health.ready();
        assert_eq!(health.is_ready(), Ok(()));
        health.not_ready("shutting down");
        assert_eq!(health.is_ready(), Err("shutting down".to_owned()));
    }

    #[test]
    fn a_window_that_is_late_is_seen_while_it_is() {
        let health = Health::new(Duration::from_secs(60));
        health.ready();
        health.late(Some("naming a window".to_owned()));
        assert_eq!(health.alive(), Err("naming a window".to_owned()));
        assert!(health.is_ready().is_err());
        health.late(None);
        assert_eq!((health.alive(), health.is_ready()), (Ok(()), Ok(())));
    }

    #[test]
    fn a_loop_that_hangs_is_seen() {
        let health = Health::new(Duration::from_millis(5));
        health.ready();
        std::thread::sleep(Duration::from_millis(20));
        assert!(health.alive().is_err() && health.is_ready().is_err());
    }
}
