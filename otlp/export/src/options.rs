//! What an exporter is told, with the defaults of OTLP and of the Collector's own exporters.

use std::{path::PathBuf, time::Duration};

pub use profiler_receiver::{Compression, HIDDEN, Protocol, Secret, TlsOptions};

pub use crate::spool::SpoolOptions;

/// When a request that failed is sent again. A delay that the receiver asks for goes before all of these.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryOptions {
    /// Wait after the first failure.
    pub initial_interval: Duration,
    /// The longest wait.
    pub max_interval: Duration,
    /// Factor from one wait to the next; at least 1.
    pub multiplier: f64,
    /// Share of a wait, 0 to 1, by which it is longer or shorter at random.
    pub randomization: f64,
    /// Age at which a request that fails is given up; zero: never. What a spool holds has no such age: there its size decides.
    pub max_elapsed: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            initial_interval: Duration::from_secs(5),
            max_interval: Duration::from_secs(30),
            multiplier: 1.5,
            randomization: 0.5,
            max_elapsed: Duration::from_secs(300),
        }
    }
}

/// Where and how an [`Exporter`](super::Exporter) sends.
#[derive(Clone, Debug, PartialEq)]
pub struct ExporterOptions {
    /// Name in logs and metrics.
    pub name: String,
    /// `http://host:port` or `https://host:port`; for [`Protocol::HttpProtobuf`] with a path if there is one before
    /// `/v1development/profiles`. Without a port, that of the protocol (4317, 4318).
    pub endpoint: String,
    /// The endpoint is the URL for profiles, to be used as it is, and no base to append `v1development/profiles` to; for
    /// [`Protocol::HttpProtobuf`].
    pub endpoint_is_complete: bool,
    /// Send only where, on this host, root or this process's own user listens: for an endpoint that nobody chose.
    pub only_trusted: bool,
    /// Transport.
    pub protocol: Protocol,
    /// Compression.
    pub compression: Compression,
    /// Headers (gRPC metadata) of every request.
    pub headers: Vec<(String, Secret)>,
    /// File of further headers, one `name: value` a line (`#` begins a comment), read again when it changes; goes before
    /// [`Self::headers`].
    pub headers_file: Option<PathBuf>,
    /// Limit of one attempt: resolving, connecting, sending and the answer.
    pub timeout: Duration,
    /// Certificates, for `https`.
    pub tls: TlsOptions,
    /// Retries.
    pub retry: RetryOptions,
    /// Bytes (compressed) that wait in memory; beyond them the oldest go, counted.
    pub queue_bytes: u64,
    /// Bytes of one request before compression. The Collector's gRPC receiver takes 4 MiB by default.
    pub max_request_bytes: usize,
    /// Queue on disk, which survives the process.
    pub spool: Option<SpoolOptions>,
}

impl Default for ExporterOptions {
    fn default() -> Self {
        Self {
            name: "otlp".to_owned(),
            endpoint: "http://localhost:4317".to_owned(),
            endpoint_is_complete: false,
            only_trusted: false,
            protocol: Protocol::default(),
            compression: Compression::default(),
            headers: Vec::new(),
            headers_file: None,
            timeout: Duration::from_secs(10),
            tls: TlsOptions::default(),
            retry: RetryOptions::default(),
            queue_bytes: 16 << 20,
            max_request_bytes: 4 << 20,
            spool: None,
        }
    }
}
