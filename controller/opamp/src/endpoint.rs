//! Where a server is, and how to get there.

use std::fmt;

use profiler_http::Url;
use profiler_receiver::{Secret, TlsOptions, hide_secrets};

/// How messages are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `ws://`, `wss://`: a connection that stays; each side sends when it has something.
    WebSocket,
    /// `http://`, `https://`: requests; the server answers.
    Http,
}

/// The URL of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// From its scheme.
    pub transport: Transport,
    /// With the scheme that a WebSocket begins as: `http`, `https`.
    pub url: Url,
    /// Whether the headers of the [`Settings`] are for this host. Not after a redirect to another.
    pub is_trusted: bool,
}

/// What is no URL of a server, or may not be gone to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}")]
pub struct EndpointError {
    /// The URL, without what may be a secret.
    text: String,
    problem: String,
}

/// The path of a URL that has none.
const DEFAULT_PATH: &str = "/v1/opamp";

impl Endpoint {
    /// Takes a URL apart. Without a path it is `/v1/opamp`; without a port, that of the scheme (80 or 443).
    ///
    /// # Errors
    /// It is no URL, or its scheme is none of `ws`, `wss`, `http` and `https`.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let wrong = |problem: String| EndpointError { text: hide_secrets(text), problem };
        let text = text.trim();
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("has no scheme; write wss://HOST:4320/v1/opamp, or https:// to poll".to_owned()))?;
        let (transport, scheme) = match scheme.to_ascii_lowercase().as_str() {
            "ws" => (Transport::WebSocket, "http"),
            "wss" => (Transport::WebSocket, "https"),
            "http" => (Transport::Http, "http"),
            "https" => (Transport::Http, "https"),
            other => {
                return Err(wrong(format!("has the scheme {other:?}; ws, wss, http and https can be connected to")));
            }
        };
        let mut url = Url::parse(&format!("{scheme}://{rest}"), |tls| if tls { 443 } else { 80 }).map_err(wrong)?;
        if url.path.as_str() == "/" {
            url.path = http::uri::PathAndQuery::from_static(DEFAULT_PATH);
        }
        Ok(Self { transport, url, is_trusted: true })
    }

    /// Where a redirect to `location` leads.
    ///
    /// # Errors
    /// It leads nowhere, or from TLS to plain text.
    pub fn redirected(&self, location: &str) -> Result<Self, EndpointError> {
        let wrong = |problem: &str| EndpointError { text: hide_secrets(location), problem: problem.to_owned() };
        let scheme = match (self.transport, self.url.tls) {
            (Transport::WebSocket, false) => "ws",
            (Transport::WebSocket, true) => "wss",
            (Transport::Http, false) => "http",
            (Transport::Http, true) => "https",
        };
        let absolute = if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", self.url.authority)
        } else {
            location.to_owned()
        };
        let mut to = Self::parse(&absolute)?;
        // A server that upgrades is asked over HTTP, and answers with a URL of HTTP.
        to.transport = self.transport;
        if self.url.tls && !to.url.tls {
            return Err(wrong("leads from TLS to plain text, where it is not followed"));
        }
        let same = self.url.authority == to.url.authority && self.url.tls == to.url.tls;
        to.is_trusted = self.is_trusted && same;
        Ok(to)
    }
}

impl fmt::Display for Endpoint {
    /// Scheme, host and port: path and query may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::WebSocket => "ws",
            Transport::Http => "http",
        };
        write!(f, "{scheme}{}://{}", if self.url.tls { "s" } else { "" }, self.url.authority)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a server is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Headers of each request, such as `authorization`.
    pub headers: Vec<(String, Secret)>,
    /// Certificates.
    pub tls: TlsOptions,
}

impl Settings {
    /// Of `endpoint`, without headers, with the certificate authorities of the system.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, headers: Vec::new(), tls: TlsOptions::default() }
    }
}
