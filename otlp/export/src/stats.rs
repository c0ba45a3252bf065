//! What became of every sample.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use crate::spool::SpoolStats;

/// Bounds of the buckets of [`Latency`], s; a last bucket has all that is longer.
pub const LATENCY_BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// How long attempts took, whatever their end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// Attempts by duration: up to and including each of [`LATENCY_BOUNDS`], and longer.
    pub buckets: [u64; LATENCY_BOUNDS.len() + 1],
    /// Sum, s.
    pub sum_seconds: f64,
    /// Number of attempts.
    pub count: u64,
}

impl Latency {
    pub(super) fn record(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BOUNDS.iter().position(|&bound| seconds <= bound).unwrap_or(LATENCY_BOUNDS.len());
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
        self.sum_seconds += seconds;
        self.count += 1;
    }
}

/// Counters of one exporter since its start, and what waits in it now.
///
/// `accepted + restored = sent + rejected + dropped + queued + spooled`, in samples and at every moment: see
/// [`Self::unaccounted_samples`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportStats {
    /// Samples that were handed to [`Exporter::export`](super::Exporter::export).
    pub accepted_samples: u64,
    /// Samples that an earlier process left in the spool.
    pub restored_samples: u64,
    /// Bytes (compressed) that wait in memory.
    pub queued_bytes: u64,
    /// Samples that wait in memory.
    pub queued_samples: u64,
    /// Samples that the receiver took.
    pub sent_samples: u64,
    /// Requests that the receiver took, in whole or in part.
    pub sent_requests: u64,
    /// Samples that the receiver refused in an answer of partial success. It counts profiles: where it refused some of several,
    /// their share of the samples.
    pub rejected_samples: u64,
    /// Samples that were given up, by reason.
    pub dropped_samples: BTreeMap<&'static str, u64>,
    /// Requests that were sent once more, each time counted.
    pub retries: u64,
    /// Requests that the receiver found too large and that were divided.
    pub divided_requests: u64,
    /// The last failure, secrets not shown.
    pub last_error: Option<(SystemTime, String)>,
    /// When a request last succeeded.
    pub last_success: Option<SystemTime>,
    /// Attempts in a row that failed so as to be tried again; 0: the receiver is well.
    pub failures_in_a_row: u64,
    /// Durations of attempts.
    pub latency: Latency,
    /// Bytes of what was sent successfully, before compression.
    pub sent_raw_bytes: u64,
    /// Bytes of what was sent successfully, as compressed.
    pub sent_wire_bytes: u64,
    /// The spool, if there is one.
    pub spool: Option<SpoolStats>,
}

impl ExportStats {
    /// Samples that were given up, for whatever reason.
    #[must_use]
    pub fn total_dropped_samples(&self) -> u64 {
        self.dropped_samples.values().sum()
    }

    /// Samples that wait in the spool.
    #[must_use]
    pub fn spooled_samples(&self) -> u64 {
        self.spool.as_ref().map_or(0, |spool| spool.samples)
    }

    /// Samples that came in less those that are known to be somewhere: 0, or there is a bug.
    #[must_use]
    pub fn unaccounted_samples(&self) -> i128 {
        let sum = |counts: &[u64]| counts.iter().map(|&count| i128::from(count)).sum::<i128>();
        sum(&[self.accepted_samples, self.restored_samples])
            - sum(&[
                self.sent_samples,
                self.rejected_samples,
                self.total_dropped_samples(),
                self.queued_samples,
                self.spooled_samples(),
            ])
    }

    pub(super) fn drop_samples(&mut self, reason: &'static str, samples: u64) {
        if samples > 0 {
            *self.dropped_samples.entry(reason).or_default() += samples;
        }
    }
}
