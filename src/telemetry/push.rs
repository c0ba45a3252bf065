//! Sending metrics over OTLP, each interval: gRPC, or protobuf over HTTP.
//!
//! Nothing is queued and nothing is sent again: everything is cumulative, so that the next snapshot says all that a lost one said.

mod connect;
mod exchange;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use tokio::time::MissedTickBehavior;

use super::Error;
use super::otlp;
use super::state::Shared;
use connect::Receiver;

/// How metrics travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushProtocol {
    /// gRPC, by convention on port 4317.
    #[default]
    Grpc,
    /// Protobuf by HTTP POST, by convention on port 4318.
    Http,
}

/// Whom to trust and who we are, for `https://` endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushTls {
    /// Certificates (PEM) that sign the receiver's; the host's if none.
    pub ca_file: Option<PathBuf>,
    /// Our certificate chain (PEM), with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Our key (PEM), with `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// Where and how often metrics are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct PushOptions {
    /// `http://host:port` or `https://host:port`; without a port that of the protocol. For HTTP, `/v1/metrics` follows unless the URL
    /// has a path.
    pub endpoint: String,
    /// How.
    pub protocol: PushProtocol,
    /// How often; at least a second.
    pub interval: Duration,
    /// Time for one request, connecting included.
    pub timeout: Duration,
    /// Headers of each request, such as `authorization`; never shown.
    pub headers: Vec<(String, String)>,
    /// For `https://`. The files are read for each request, so rotated ones are taken up by themselves.
    pub tls: PushTls,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            endpoint: "http://localhost:4317".to_owned(),
            protocol: PushProtocol::default(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            headers: Vec::new(),
            tls: PushTls::default(),
        }
    }
}

impl fmt::Debug for PushOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("PushOptions")
            .field("endpoint", &connect::without_secrets(&self.endpoint))
            .field("protocol", &self.protocol)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("headers", &headers)
            .field("tls", &self.tls)
            .finish()
    }
}

/// Sends the last snapshot.
pub(super) struct Pusher {
    receiver: Receiver,
    interval: Duration,
    timeout: Duration,
}

impl Pusher {
    pub fn new(options: PushOptions) -> Result<Self, Error> {
        if options.interval < Duration::from_secs(1) {
            return Err(Error::Otlp {
                problem: "the interval is shorter than a second: make it 10s or longer".to_owned(),
            });
        }
        let (interval, timeout) = (options.interval, options.timeout);
        let receiver = Receiver::new(options).map_err(|problem| Error::Otlp { problem })?;
        Ok(Self { receiver, interval, timeout })
    }

    /// Sends each interval, for ever.
    pub async fn run(&mut self, shared: &Shared) {
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
        let request = otlp::request(&published.metrics, &shared.resource, shared.start, published.time);
        let sent = tokio::time::timeout(self.timeout, exchange::send(&self.receiver, request.encode_to_vec())).await;
        let result = sent.unwrap_or_else(|_| Err(format!("no answer within {} s", self.timeout.as_secs_f64())));
        shared.count_push(result.is_ok());
        match result {
            Ok(None) => {}
            Ok(Some(partial)) => {
                crate::once_a_minute!(
                    warn,
                    "telemetry/otlp/partial",
                    receiver = self.receiver.shown(),
                    "The receiver of metrics took not all of them: {partial}"
                );
            }
            Err(error) => {
                crate::once_a_minute!(
                    warn, "telemetry/otlp", receiver = self.receiver.shown(), %error,
                    "Metrics of the profiler itself could not be delivered; the next ones will say it all."
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
    fn nothing_secret_is_shown() {
        let options = PushOptions {
            endpoint: "https://user:hunter2@example.org/?token=hunter2".to_owned(),
            headers: vec![("authorization".to_owned(), "Bearer hunter2".to_owned())],
            ..PushOptions::default()
        };
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter2") && shown.contains("authorization"), "{shown}");
    }

    #[test]
    fn endpoints_that_make_no_sense() {
        let problem = |endpoint: &str| {
            let options = PushOptions { endpoint: endpoint.to_owned(), ..PushOptions::default() };
            Pusher::new(options).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for wrong in ["", "localhost:4317", "ftp://host", "http://", "unix:/run/x", "http://host:99999"] {
            assert!(problem(wrong).contains("metrics cannot be sent"), "{wrong}: {:?}", problem(wrong));
        }
        assert_eq!(problem("http://localhost"), "");
        let short = PushOptions { interval: Duration::ZERO, ..PushOptions::default() };
        assert!(Pusher::new(short).is_err());
    }
}
