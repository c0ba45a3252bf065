//! Where the receiver is, and a connection to it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::{PushOptions, PushProtocol, PushTls};

/// A stream of bytes, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A receiver of metrics.
pub(super) struct Receiver {
    pub uri: Uri,
    pub protocol: PushProtocol,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    host: String,
    port: u16,
    tls: Option<PushTls>,
}

impl Receiver {
    pub fn new(options: PushOptions) -> Result<Self, String> {
        let shown = without_secrets(&options.endpoint);
        let wrong = |problem: &str| format!("the endpoint {shown:?} {problem}; write it like http://localhost:4317");
        let uri: Uri = options.endpoint.parse().map_err(|error| wrong(&format!("is no URL ({error})")))?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(options.tls),
            _ => return Err(wrong("begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(wrong("needs a host, and no user: credentials go into headers"));
        }
        // What follows the host is a port or nothing; the parser keeps what is too large for one.
        let beyond = authority.as_str().get(authority.host().len()..).unwrap_or_default();
        if !beyond.is_empty() && authority.port_u16().is_none() {
            return Err(wrong("has a port that is no port"));
        }
        let (port, path) = match (options.protocol, uri.path_and_query().map_or("/", |path| path.as_str())) {
            (PushProtocol::Grpc, _) => (4317, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
            (PushProtocol::Http, "" | "/") => (4318, "/v1/metrics"),
            (PushProtocol::Http, path) => (4318, path),
        };
        let port = authority.port_u16().unwrap_or(port);
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(|_| wrong("has a path that is no path"))?);
        let uri = Uri::from_parts(parts).map_err(|error| wrong(&format!("is no URL ({error})")))?;
        let mut headers = Vec::new();
        for (name, value) in &options.headers {
            let header: HeaderName =
                name.to_ascii_lowercase().parse().map_err(|_| format!("{name:?} is no name of a header"))?;
            let mut value: HeaderValue = value
                .parse()
                .map_err(|_| format!("the value of header {name:?} has characters that no header may have"))?;
            value.set_sensitive(true);
            headers.push((header, value));
        }
        let receiver = Self { uri, protocol: options.protocol, headers, host, port, tls };
        // What is wrong with certificates now is told now; later ones may be mended while we run.
        receiver.connector()?;
        Ok(receiver)
    }

    /// For people.
    pub fn shown(&self) -> String {
        without_secrets(&self.uri.to_string())
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let failed = |error: std::io::Error| format!("cannot connect to {}:{}: {error}", self.host, self.port);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        // A request is one write, and small.
        let _ = stream.set_nodelay(true);
        let Some(connector) = self.connector()? else { return Ok(Box::new(stream)) };
        let name =
            ServerName::try_from(self.host.clone()).map_err(|_| format!("{:?} is no name of a server", self.host))?;
        Ok(Box::new(connector.connect(name, stream).await.map_err(failed)?))
    }

    fn connector(&self) -> Result<Option<TlsConnector>, String> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder =
            builder.map_err(|error| format!("TLS cannot be set up: {error}"))?.with_root_certificates(roots(tls)?);
        let mut config = match (&tls.cert_file, &tls.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(chain), Some(key)) => {
                let own = PrivateKeyDer::from_pem_slice(&read(key)?)
                    .map_err(|error| format!("{} holds no private key: {error}", key.display()))?;
                let invalid = |error| format!("{} and {} do not fit: {error}", chain.display(), key.display());
                builder.with_client_auth_cert(certificates(chain)?, own).map_err(invalid)?
            }
            _ => return Err("a client certificate needs both cert_file and key_file".to_owned()),
        };
        config.alpn_protocols = match self.protocol {
            PushProtocol::Grpc => vec![b"h2".to_vec()],
            PushProtocol::Http => vec![b"http/1.1".to_vec()],
        };
        Ok(Some(TlsConnector::from(Arc::new(config))))
    }
}

fn roots(tls: &PushTls) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &tls.ca_file {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    } else {
        // Single ones that cannot be read are left out; a receiver that none is good for is told by the connection.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(
                "this host has no certificate authorities (the package ca-certificates): give ca_file".to_owned()
            );
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| format!("{} holds no certificates: {error}", file.display()))?;
    if found.is_empty() {
        return Err(format!("{} holds no certificates in PEM", file.display()));
    }
    Ok(found)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// A URL without user, password and query.
pub(super) fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let separator = if url.contains("://") { "://" } else { "" };
    format!("{scheme}{separator}{host}{path}")
}
