//! What the agent publishes and the exporters of metrics read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::health::Health;
use super::metric::{Description, Snapshot};

const PUSHES: Description = Description {
    name: "profiler.telemetry.exports",
    unit: "{request}",
    help: "Requests with these metrics over OTLP, by outcome",
};

/// A snapshot and its time.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub metrics: Snapshot,
    /// ns since the Unix epoch; 0 before the first snapshot.
    pub time: u64,
}

/// What all sides share.
#[derive(Debug)]
pub(super) struct Shared {
    pub health: Arc<Health>,
    /// What describes the agent, in order.
    pub resource: Vec<(String, String)>,
    /// When counters began, ns since the Unix epoch.
    pub start: u64,
    published: Mutex<Arc<Published>>,
    pushed: AtomicU64,
    push_failed: AtomicU64,
    pushing: bool,
}

impl Shared {
    pub fn new(health: Arc<Health>, resource: Vec<(String, String)>, pushing: bool) -> Self {
        let start = unix_now();
        Self {
            health,
            resource,
            start,
            published: Mutex::default(),
            pushed: AtomicU64::new(0),
            push_failed: AtomicU64::new(0),
            pushing,
        }
    }

    pub fn publish(&self, mut metrics: Snapshot) {
        if self.pushing {
            metrics.counter(PUSHES, &[("outcome", "delivered")], self.pushed.load(Ordering::Relaxed));
            metrics.counter(PUSHES, &[("outcome", "failed")], self.push_failed.load(Ordering::Relaxed));
        }
        // Points never lie before their series' start, whatever happens to the clock.
        let time = unix_now().max(self.start + 1);
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(Published { metrics, time });
    }

    pub fn snapshot(&self) -> Arc<Published> {
        Arc::clone(&self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn count_push(&self, delivered: bool) {
        let counter = if delivered { &self.pushed } else { &self.push_failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1)
}
