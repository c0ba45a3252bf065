//! One request at a time, over a connection that is made when it is needed: of profiles, and of another signal.

use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use profiler_http::{CallError, Connection};
use profiler_network::Network;

use super::{
    answer::Answer,
    apart::{Apart, Signal},
    endpoint,
    error::Error,
    grpc, http_protobuf,
    options::{ExporterOptions, Protocol},
    outcome::{ANSWER_TOO_LARGE, INTERNAL, Outcome},
    payload::compress,
    settings::Settings,
};
use crate::spool::Record;

const GRPC_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const HTTP_METRICS: &str = "v1/metrics";

/// A receiver, and the way to it.
pub(super) struct Client {
    pub(super) settings: Settings,
    way: Way,
    /// Requests that went out once more within an attempt, on a new connection.
    pub(super) repeated: u64,
}

enum Way {
    /// The connection, while there is one.
    Here(Option<Connection>),
    /// A process of its own, which has the connection.
    Apart(Apart),
}

impl Client {
    /// Speaks to the receiver from this process.
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, way: Way::Here(None), repeated: 0 }
    }

    /// Has another process speak to it, if there is a `network`.
    pub(super) fn by(settings: Settings, signal: Signal, network: Option<&Network>) -> Self {
        let way = network.map(|network| Way::Apart(Apart::new(network.clone(), signal, &settings)));
        Self { settings, way: way.unwrap_or(Way::Here(None)), repeated: 0 }
    }

    /// Does beforehand what takes its time.
    pub(super) async fn prepare(&mut self) {
        if let Way::Apart(apart) = &mut self.way {
            apart.prepare(&self.settings).await;
        }
    }

    /// Sends `record`, with the certificates and headers as they are now, within the time that an attempt may take.
    pub(super) async fn attempt(&mut self, record: &Record) -> Outcome {
        let refreshed = self.settings.refresh();
        match &mut self.way {
            Way::Here(connection) if refreshed.certificates => *connection = None,
            Way::Here(_) => {}
            Way::Apart(apart) => {
                let (outcome, repeated) = apart.attempt(&self.settings, refreshed, record).await;
                self.repeated += repeated;
                return outcome;
            }
        }
        let limit = self.settings.options.timeout;
        // What is under way when the time is over would only be in the way: the connection is back only after its answer.
        tokio::time::timeout(limit, self.call(record, Instant::now())).await.unwrap_or_else(|_| {
            Outcome::retry(format!("no answer from {} within {limit:?}", self.settings.destination.url.shown()))
        })
    }

    /// One call; where a connection that was idle fails, a second one on a new connection.
    async fn call(&mut self, record: &Record, begun: Instant) -> Outcome {
        let Self { settings, way: Way::Here(idle), repeated } = self else {
            return Outcome::Refused { reason: INTERNAL, error: "another process has the connection".to_owned() };
        };
        let settings = &*settings;
        loop {
            let (mut connection, is_new) = match idle.take() {
                Some(connection) => (connection, false),
                None => match Connection::open(&settings.destination, settings.options.timeout).await {
                    Ok(connection) => (connection, true),
                    Err(error) => return Outcome::retry(unconnected(settings, error)),
                },
            };
            let left = settings.options.timeout.saturating_sub(begun.elapsed());
            let request = match settings.options.protocol {
                Protocol::Grpc => grpc::request(settings, record, left),
                Protocol::HttpProtobuf => http_protobuf::request(settings, record),
            };
            let request = match request {
                Ok(request) => request,
                // All parts have been checked.
                Err(error) => return Outcome::Refused { reason: INTERNAL, error: error.to_string() },
            };
            let answer = match connection.send(request).await {
                Ok(response) => Answer::read(response).await.map_err(|error| (error.to_string(), true)),
                Err(error) => Err((described(settings, &error), error.was_sent)),
            };
            match answer {
                Ok(answer) if answer.is_cut => {
                    let error = format!("the answer is longer than is read: {}", answer.described());
                    return Outcome::Refused { reason: ANSWER_TOO_LARGE, error };
                }
                Ok(answer) => {
                    *idle = Some(connection);
                    return match settings.options.protocol {
                        Protocol::Grpc => grpc::outcome(&answer),
                        Protocol::HttpProtobuf => http_protobuf::outcome(&answer),
                    };
                }
                Err((error, _)) if is_new => return Outcome::retry(error),
                Err((_, was_sent)) => *repeated += u64::from(was_sent),
            }
        }
    }
}

/// Why there is no connection, and, where only the default is in question, the way out.
fn unconnected(settings: &Settings, error: String) -> String {
    let options = &settings.options;
    if !options.only_trusted {
        return error;
    }
    let endpoint = &options.endpoint;
    format!(
        "{error}; nobody chose {endpoint}, so only root or the profiler's user may listen there: to send elsewhere, or to trust whoever listens, set `endpoint`"
    )
}

/// `error`, and what a receiver that speaks another protocol probably means by it.
fn described(settings: &Settings, error: &CallError) -> String {
    let hint = match settings.options.protocol {
        _ if !error.is_no_http => "",
        Protocol::Grpc => {
            "; the receiver does not speak gRPC: is this its port for HTTP (4318)? Then choose the protocol http/protobuf"
        }
        Protocol::HttpProtobuf => {
            "; the receiver does not speak HTTP/1.1: is this its port for gRPC (4317) or for TLS?"
        }
    };
    format!("{error}{hint}")
}

/// Sends requests with OTLP metrics, one after the other. Nothing waits here and nothing is sent again: of cumulative metrics the next
/// request says all that a lost one said.
pub struct MetricsClient(Client);

impl MetricsClient {
    /// As the options say; those of queue, retries and spool have no meaning here. The endpoint is a base URL for `v1/metrics`, unless
    /// it is complete.
    ///
    /// # Errors
    /// The URL, a header, or a certificate file is wrong. A receiver that cannot be reached is no error.
    pub fn new(options: ExporterOptions) -> Result<Self, Error> {
        Ok(Self(Client::new(Self::settings(options)?)))
    }

    /// As [`Self::new`]; a process of `network` speaks to the receiver.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn apart(options: ExporterOptions, network: &Network) -> Result<Self, Error> {
        Ok(Self(Client::by(Self::settings(options)?, Signal::Metrics, Some(network))))
    }

    pub(super) fn settings(options: ExporterOptions) -> Result<Settings, Error> {
        let mut settings = Settings::new(options)?;
        let url = &mut settings.destination.url;
        let path = match settings.options.protocol {
            Protocol::Grpc => Some(GRPC_METRICS.to_owned()),
            Protocol::HttpProtobuf if settings.options.endpoint_is_complete => None,
            Protocol::HttpProtobuf => {
                let base = url.path.as_str().strip_suffix(endpoint::HTTP_PATH).unwrap_or("/");
                Some(format!("{base}{HTTP_METRICS}"))
            }
        };
        if let Some(path) = path {
            url.path = PathAndQuery::try_from(path).map_err(|error| Error::Endpoint {
                endpoint: url.shown(),
                problem: format!("has a path that is none: {error}"),
            })?;
        }
        Ok(settings)
    }

    /// Does beforehand what takes its time, so that the first request goes out at once. It has to be called by the thread that will send.
    pub async fn prepare(&mut self) {
        self.0.prepare().await;
    }

    /// The endpoint without secrets, for logs.
    #[must_use]
    pub fn shown(&self) -> String {
        self.0.settings.destination.url.shown()
    }

    /// Sends an `ExportMetricsServiceRequest`. What the receiver did not take of it, or what it has to say, is returned in words.
    ///
    /// # Errors
    /// It was not delivered; the text is one line that says where it failed.
    pub async fn send(&mut self, message: Vec<u8>) -> Result<Option<String>, String> {
        let raw = Bytes::from(message);
        let compression = self.0.settings.options.compression;
        let record = Record {
            bytes: compress(&raw, compression),
            compression,
            raw_bytes: raw.len() as u64,
            samples: 0,
            start_unix_nanos: 0,
            end_unix_nanos: 0,
        };
        match self.0.attempt(&record).await {
            Outcome::Delivered(None) => Ok(None),
            Outcome::Delivered(Some(partial)) if partial.rejected_profiles > 0 => {
                // Responses of all signals have the same fields.
                Ok(Some(format!("{} points were refused: {}", partial.rejected_profiles, partial.message)))
            }
            Outcome::Delivered(Some(partial)) => Ok(Some(partial.message)),
            Outcome::Refused { reason: reason @ ("grpc UNIMPLEMENTED" | "http 404" | "http 405"), .. } => {
                // The path alone: a query may be a secret.
                Err(format!(
                    "{reason}: the receiver takes no metrics at {}",
                    self.0.settings.destination.url.path.path()
                ))
            }
            Outcome::Retry { error, .. } | Outcome::TooLarge { error, .. } | Outcome::Refused { error, .. } => {
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_metrics() {
        let path = |endpoint: &str, protocol, endpoint_is_complete| {
            let endpoint = endpoint.to_owned();
            let options = ExporterOptions { endpoint, protocol, endpoint_is_complete, ..Default::default() };
            MetricsClient::new(options).unwrap().0.settings.destination.url.path.to_string()
        };
        assert_eq!(path("http://h", Protocol::Grpc, false), GRPC_METRICS);
        assert_eq!(path("http://h", Protocol::HttpProtobuf, false), "/v1/metrics");
        assert_eq!(path("http://h/otlp/", Protocol::HttpProtobuf, false), "/otlp/v1/metrics");
        assert_eq!(path("http://h/own?a=b", Protocol::HttpProtobuf, true), "/own?a=b");
    }
}
