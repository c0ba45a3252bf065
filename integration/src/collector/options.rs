//! How a Collector of a test is set up, and the configuration that says so.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What senders speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf.
    Http,
}

impl Protocol {
    /// As `OTEL_EXPORTER_OTLP_PROTOCOL` and the agent's configuration write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// A server's certificate.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Certificate, PEM.
    pub certificate: PathBuf,
    /// Key, PEM.
    pub key: PathBuf,
    /// Who signs clients, PEM; clients need no certificate without it.
    pub clients: Option<PathBuf>,
}

/// A Collector to start: OTLP in, a file out.
#[derive(Clone, Debug, Default)]
pub struct CollectorOptions {
    pub(super) tls: Option<ServerTls>,
    pub(super) shipped: Option<PathBuf>,
    pub(super) environment: Vec<(String, String)>,
}

impl CollectorOptions {
    /// Without encryption.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// With `tls`, for gRPC and HTTP.
    #[must_use]
    pub fn tls(tls: ServerTls) -> Self {
        Self { tls: Some(tls), ..Self::default() }
    }

    /// With a configuration that users are given, which takes its addresses from `GRPC_LISTEN`, `HTTP_LISTEN` and `environment`; it
    /// writes no file that [`super::Collector::requests`] could read.
    #[must_use]
    pub fn shipped(configuration: PathBuf, environment: Vec<(String, String)>) -> Self {
        Self { shipped: Some(configuration), environment, ..Self::default() }
    }

    /// The text of the configuration.
    pub(super) fn configuration(&self, grpc: u16, http: u16, file: &Path) -> String {
        // Its own metrics are on a fixed port by default.
        let quiet = "service:\n  telemetry:\n    metrics: {level: none}\n";
        if self.shipped.is_some() {
            return quiet.to_owned();
        }
        let tls = self.tls.as_ref().map_or(String::new(), |tls| {
            let mut text = String::from("        tls:\n");
            let mut line = |key: &str, path: &Path| writeln!(text, "          {key}: \"{}\"", path.display());
            let _ = line("cert_file", &tls.certificate).and(line("key_file", &tls.key));
            if let Some(clients) = &tls.clients {
                let _ = line("client_ca_file", clients);
            }
            text.push_str("          reload_interval: 1s\n");
            text
        });
        format!(
            "receivers:\n  otlp:\n    protocols:\n      \
             grpc:\n        endpoint: \"127.0.0.1:{grpc}\"\n{tls}      \
             http:\n        endpoint: \"127.0.0.1:{http}\"\n{tls}\
             exporters:\n  file:\n    path: \"{}\"\n    append: true\n    flush_interval: 200ms\n\
             {quiet}  pipelines:\n    profiles: {{receivers: [otlp], exporters: [file]}}\n",
            file.display()
        )
    }
}
