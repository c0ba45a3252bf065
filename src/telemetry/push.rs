//! Sending metrics over OTLP, each interval.
//!
//! Nothing is queued and nothing is sent again: everything is cumulative, so the next snapshot says all that a lost one said.

use std::time::Duration;

use profiler_export::{ExporterOptions, MetricsClient};
use profiler_network::Network;
use prost::Message;
use tokio::time::MissedTickBehavior;

use super::Error;
use super::otlp;
use super::state::Shared;

/// The shortest interval: shorter than this nothing new is published.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Where and how often metrics are sent.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// The receiver; what is said there of queue, retries and spool has no meaning here. A base URL gets `/v1/metrics`.
    pub receiver: ExporterOptions,
    /// How often; at least a second.
    pub interval: Duration,
}

impl Default for PushOptions {
    fn default() -> Self {
        let receiver = ExporterOptions { name: "metrics".to_owned(), ..ExporterOptions::default() };
        Self { receiver, interval: Duration::from_secs(60) }
    }
}

/// Sends the last snapshot.
pub(super) struct Pusher {
    client: MetricsClient,
    interval: Duration,
}

impl Pusher {
    pub fn new(options: PushOptions, network: Option<&Network>) -> Result<Self, Error> {
        if options.interval < MIN_INTERVAL {
            return Err(Error::Interval { interval: options.interval });
        }
        let client = match network {
            Some(network) => MetricsClient::apart(options.receiver, network)?,
            None => MetricsClient::new(options.receiver)?,
        };
        Ok(Self { client, interval: options.interval })
    }

    /// Sends each interval, for ever.
    pub async fn run(&mut self, shared: &Shared) {
        self.client.prepare().await;
        // The agents of a cluster start at the same time, and need not send at the same time.
        let first = self.interval.mul_f64(random_share());
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.push(shared).await;
        }
    }

    /// Sends the last snapshot, if there is one. What fails is counted and said, once a minute.
    pub async fn push(&mut self, shared: &Shared) {
        let published = shared.snapshot();
        if published.time == 0 {
            return;
        }
        let request = otlp::request(&published.metrics, &shared.resource, published.start, published.time);
        let result = self.client.send(request.encode_to_vec()).await;
        shared.count_push(result.is_ok());
        let receiver = self.client.shown();
        match result {
            Ok(None) => {}
            Ok(Some(said)) => {
                crate::once_a_minute!(
                    warn,
                    "telemetry/otlp/partial",
                    receiver,
                    said,
                    "The receiver of the profiler's own metrics has something to say."
                );
            }
            Err(error) => {
                crate::once_a_minute!(
                    warn,
                    "telemetry/otlp",
                    receiver,
                    error,
                    "The profiler's own metrics could not be delivered; the next ones will say it all."
                );
            }
        }
    }
}

/// Of `[0, 1)`; the standard library seeds its hashers at random.
fn random_share() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_at_the_start() {
        let with = |endpoint: &str, interval| {
            let receiver = ExporterOptions { endpoint: endpoint.to_owned(), ..ExporterOptions::default() };
            Pusher::new(PushOptions { receiver, interval }, None)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        let minute = Duration::from_secs(60);
        assert_eq!(with("http://localhost", minute), "");
        for wrong in ["", "localhost:4317", "ftp://host", "http://", "http://host:99999"] {
            let error = with(wrong, minute);
            assert!(error.contains("metrics cannot be sent"), "{wrong}: {error:?}");
        }
        assert!(with("http://localhost", Duration::ZERO).contains("a second"));
        let shares: Vec<f64> = (0..100).map(|_| random_share()).collect();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)) && shares[0] != shares[1]);
    }
}
