//! What an exporter is told, with the defaults of OTLP and of the Collector's own exporters.

use std::{fmt, path::PathBuf, time::Duration};

pub use crate::spool::SpoolOptions;

/// What is shown in place of a [`Secret`].
pub const HIDDEN: &str = "[hidden]";

/// Text that no message, log or listing shows: a token, a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// `text`, from now on hidden.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for who sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// How OTLP is transported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC over HTTP/2, by convention to port 4317.
    #[default]
    Grpc,
    /// Protobuf in an HTTP/1.1 POST, by convention to port 4318.
    HttpProtobuf,
}

/// How a request is compressed on the wire, in the queue and in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which every receiver has to accept.
    #[default]
    Gzip,
    /// Zstandard, which receivers may accept; the Collector does.
    Zstd,
}

/// Certificates. The files are read again when they change; one that cannot be used leaves the former in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate chain, for mTLS; needs [`Self::key_file`].
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client's private key.
    pub key_file: Option<PathBuf>,
    /// Name that the receiver's certificate has to be for, and that is sent as SNI; the endpoint's host if `None`.
    pub server_name: Option<String>,
    /// Accept any certificate. Whoever is on the way can then read and change what is sent.
    pub insecure_skip_verify: bool,
}

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
