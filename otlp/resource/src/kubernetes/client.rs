//! HTTP as the kubelet and the API server speak it: one connection a request, TLS with the cluster's certificates, a token that
//! is read from its file each time.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use profiler_http::{Body, BodyError, Connection, Destination, Url, Version};
use profiler_receiver::{TlsOptions, hide_secrets};
use tokio::time::timeout;

use super::json::Refusal;
use crate::{
    attributes::clean,
    options::{Error, KubernetesOptions},
};

/// Until a connection stands, and until an answer begins.
const ANSWER: Duration = Duration::from_secs(15);
/// Bytes of a refusal that are read for its reason.
const MAX_REFUSAL: usize = 16 << 10;
/// Bytes of a token.
const MAX_TOKEN: u64 = 64 << 10;

/// Why there was no answer, or not one to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// 401 or 403: who asks may not.
    Denied(String),
    /// 410: what was asked for is too old.
    Gone,
    /// Any other trouble, in words.
    Other(String),
}

impl Failure {
    pub(super) fn other(text: impl std::fmt::Display) -> Self {
        Self::Other(clean(&text.to_string()))
    }

    /// What the API says of a request that it refuses.
    pub(super) fn refused(code: u16, message: &str) -> Self {
        let text = clean(format!("{code} {message}").trim());
        match code {
            401 | 403 => Self::Denied(text),
            410 => Self::Gone,
            _ => Self::Other(text),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied(text) => write!(f, "the request was refused: {text}"),
            Self::Gone => f.write_str("the version of the list is too old"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        Self::other(error)
    }
}

/// A server and how to talk to it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// `kubelet` or `API server`.
    name: &'static str,
    /// Its path goes before those of the API.
    url: Url,
    token_file: PathBuf,
    tls: TlsOptions,
}

impl Server {
    /// The server `name` at `url`.
    pub(super) fn new(
        name: &'static str,
        url: &str,
        insecure: bool,
        options: &KubernetesOptions,
    ) -> Result<Self, Error> {
        let parsed = Url::parse(url, |tls| if tls { 443 } else { 80 }).ok().filter(|url| url.path.query().is_none());
        let url = parsed.ok_or_else(|| Error::Url { url: hide_secrets(url), server: name })?;
        let tls = TlsOptions {
            ca_file: Some(options.ca_file.clone()),
            insecure_skip_verify: insecure,
            ..TlsOptions::default()
        };
        Ok(Self { name, url, token_file: options.token_file.clone(), tls })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn port(&self) -> u16 {
        self.url.port
    }

    /// Whether the files that TLS needs are there and usable.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.url.tls {
            return Ok(());
        }
        let wrong = |what, path: &Path, problem| Error::File { what, path: path.to_owned(), problem };
        let ca_file = self.tls.ca_file.as_deref().unwrap_or(Path::new(""));
        self.destination().map(drop).map_err(|problem| wrong("the cluster's certificates", ca_file, problem))?;
        self.token().map(drop).map_err(|problem| wrong("the token", &self.token_file, problem))
    }

    /// With the certificates as they are now: a cluster changes them.
    fn destination(&self) -> Result<Destination, String> {
        Destination::new(self.url.clone(), Version::Http1, &self.tls).map_err(|error| error.to_string())
    }

    fn token(&self) -> Result<String, String> {
        let path = self.token_file.to_string_lossy();
        let bytes = profiler_environ::read_bounded(&path, MAX_TOKEN).map_err(|error| error.to_string())?;
        let token = String::from_utf8_lossy(&bytes).trim().to_owned();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it holds no token".to_owned());
        }
        Ok(token)
    }

    /// Asks for `path`, which begins with a slash. An answer that is no success is a failure.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        let (response, connection) =
            timeout(ANSWER, self.send(path)).await.map_err(|_| self.failure("it did not answer in time"))??;
        let (status, mut body) = (response.status(), response.into_body());
        if status.is_success() {
            return Ok(Answer { body, _connection: connection });
        }
        let text = timeout(ANSWER, body.whole(MAX_REFUSAL)).await.ok().and_then(Result::ok).unwrap_or_default();
        let refusal: Refusal = serde_json::from_slice(&text).unwrap_or_default();
        Err(Failure::refused(status.as_u16(), &refusal.message))
    }

    async fn send(&self, path: &str) -> Result<(http::Response<Body>, Connection), Failure> {
        let prefix = self.url.path.path().trim_end_matches('/');
        let mut request = Request::get(format!("{prefix}{path}"))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("profiler/", env!("CARGO_PKG_VERSION")));
        // Without TLS whoever can listen on the way must not learn the token.
        if self.url.tls {
            let token = self.token().map_err(|problem| self.failure(format!("no token to show: {problem}")))?;
            let mut value = header::HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| self.failure(e))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Bytes::new()).map_err(|error| self.failure(error))?;
        let destination = self.destination().map_err(|problem| self.failure(problem))?;
        let connection = Connection::open(&destination, ANSWER).await;
        let mut connection = connection.map_err(|error| self.failure(error))?;
        let response = connection.send(request).await.map_err(|error| self.failure(error))?;
        Ok((response, connection))
    }

    fn failure(&self, problem: impl std::fmt::Display) -> Failure {
        Failure::other(format!("{} at {}: {problem}", self.name, self.url.authority))
    }
}

/// An answer, and the connection that it comes over.
pub(super) struct Answer {
    pub(super) body: Body,
    _connection: Connection,
}
