//! What the agent publishes and the exporters of metrics read.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::health::Health;
use super::metric::{Description, Snapshot};
use super::prometheus::{self, Format};
use crate::confinement::Confined;

const PUSHES: Description = Description {
    name: "profiler.telemetry.exports",
    unit: "{request}",
    help: "Requests with these metrics over OTLP, by outcome",
};

/// A snapshot and its time.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub metrics: Snapshot,
    /// When counters began, ns since the Unix epoch.
    pub start: u64,
    /// ns since the Unix epoch; 0 before the first snapshot.
    pub time: u64,
}

/// What all sides share.
#[derive(Debug)]
pub(super) struct Shared {
    pub health: Arc<Health>,
    /// What describes the agent, in order.
    pub resource: Vec<(String, String)>,
    /// When counters began.
    begun: Instant,
    published: Mutex<Arc<Published>>,
    /// The page of each format that was asked for since the last snapshot: however often it is asked for, it is written once.
    pages: Mutex<Vec<(Format, Bytes)>>,
    pushed: AtomicU64,
    push_failed: AtomicU64,
    pushing: bool,
    /// Processes of the profiler, and what they gave up.
    confined: Mutex<Vec<Confined>>,
    detection: Section,
}

/// A part of `/status` that is written when it is asked for.
#[derive(Default)]
struct Section(OnceLock<Arc<dyn Fn() -> String + Send + Sync>>);

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(health: Arc<Health>, resource: Vec<(String, String)>, pushing: bool, confined: Vec<Confined>) -> Self {
        let published = Published { start: unix_now(), ..Published::default() };
        Self {
            health,
            resource,
            begun: Instant::now(),
            published: Mutex::new(Arc::new(published)),
            pages: Mutex::default(),
            pushed: AtomicU64::new(0),
            push_failed: AtomicU64::new(0),
            pushing,
            confined: Mutex::new(confined),
            detection: Section::default(),
        }
    }

    pub fn set_confined(&self, confined: Vec<Confined>) {
        *self.confined.lock().unwrap_or_else(PoisonError::into_inner) = confined;
    }

    pub fn confined(&self) -> Vec<Confined> {
        self.confined.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_detection(&self, page: Arc<dyn Fn() -> String + Send + Sync>) {
        // An agent has one detection as long as it lives.
        let _ = self.detection.0.set(page);
    }

    /// What changed; empty if nobody says.
    pub fn detection(&self) -> String {
        self.detection.0.get().map(|page| page()).unwrap_or_default()
    }

    pub fn publish(&self, mut metrics: Snapshot) {
        if self.pushing {
            metrics.counter(PUSHES, &[("outcome", "delivered")], self.pushed.load(Ordering::Relaxed));
            metrics.counter(PUSHES, &[("outcome", "failed")], self.push_failed.load(Ordering::Relaxed));
        }
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, time) = times(published.start, unix_now(), self.begun.elapsed());
        *published = Arc::new(Published { metrics, start, time });
        self.pages().clear();
    }

    pub fn snapshot(&self) -> Arc<Published> {
        Arc::clone(&self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last snapshot for Prometheus.
    pub fn page(&self, format: Format) -> Bytes {
        // Held while it is written, so that no page of before is kept after a snapshot.
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pages = self.pages();
        if let Some((_, page)) = pages.iter().find(|(of, _)| *of == format) {
            return page.clone();
        }
        let page = Bytes::from(prometheus::page(&published.metrics, &self.resource, format));
        pages.push((format, page.clone()));
        page
    }

    fn pages(&self) -> MutexGuard<'_, Vec<(Format, Bytes)>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count_push(&self, delivered: bool) {
        let counter = if delivered { &self.pushed } else { &self.push_failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Start and time of points, ns since the Unix epoch, at `now`, `age` after the start. Points never lie before their series' start: where
/// the clock was set back to before it, the series starts anew where it began by that clock.
fn times(start: u64, now: u64, age: Duration) -> (u64, u64) {
    if now > start {
        return (start, now);
    }
    let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX).max(1);
    let start = now.saturating_sub(age);
    (start, now.max(start + 1))
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_after_their_start_and_go_on_whatever_happens_to_the_clock() {
        const SECOND: u64 = 1_000_000_000;
        const HOUR: u64 = 3600 * SECOND;
        let (start, minute) = (1_700_000_000 * SECOND, Duration::from_secs(60));
        assert_eq!(times(start, start + HOUR, minute), (start, start + HOUR), "set forward");
        assert_eq!(times(start, start + SECOND, minute), (start, start + SECOND), "set back a little");
        let back = start - HOUR;
        assert_eq!(times(start, back, minute), (back - 60 * SECOND, back), "set back to before the start");
        let (start, time) = times(start, back, minute);
        assert_eq!(times(start, time + SECOND, minute), (start, time + SECOND), "and on from there");
        assert_eq!(times(start, 0, minute), (0, 1));
        assert_eq!(times(start, start, Duration::ZERO), (start - 1, start));
    }
}
