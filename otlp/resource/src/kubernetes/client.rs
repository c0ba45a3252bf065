//! HTTP as the kubelet and the API server speak it: one connection a request, TLS with the cluster's certificates, a token that
//! is read from its file each time.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use profiler_export::{Protocol, TlsOptions, tls};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::ClientConfig};

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

/// A server and how to talk to it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// `kubelet` or `API server`.
    name: &'static str,
    uri: Uri,
    host: String,
    port: u16,
    ca_file: PathBuf,
    token_file: PathBuf,
    insecure: bool,
}

impl Server {
    /// The server `name` at `url`.
    pub(super) fn new(
        name: &'static str,
        url: &str,
        insecure: bool,
        options: &KubernetesOptions,
    ) -> Result<Self, Error> {
        let wrong = || Error::Url { url: url.to_owned(), server: name };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let port = match uri.scheme_str() {
            Some("https") => uri.port_u16().unwrap_or(443),
            Some("http") => uri.port_u16().unwrap_or(80),
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong());
        }
        let (ca_file, token_file) = (options.ca_file.clone(), options.token_file.clone());
        Ok(Self { name, uri, host, port, ca_file, token_file, insecure })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the files that TLS needs are there and usable.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.is_tls() {
            return Ok(());
        }
        let wrong = |what, path: &Path, problem| Error::File { what, path: path.to_owned(), problem };
        self.tls().map_err(|problem| wrong("the cluster's certificates", &self.ca_file, problem))?;
        self.token().map(drop).map_err(|problem| wrong("the token", &self.token_file, problem))
    }

    fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let options = TlsOptions {
            ca_file: Some(self.ca_file.clone()),
            insecure_skip_verify: self.insecure,
            ..TlsOptions::default()
        };
        tls::client_config(&options, Protocol::HttpProtobuf).map_err(|error| error.to_string())
    }

    fn token(&self) -> Result<String, String> {
        let path = self.token_file.to_string_lossy();
        let bytes = crate::process::read_bounded(&path, MAX_TOKEN).map_err(|error| error.to_string())?;
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
        let status = response.status();
        let mut answer =
            Answer { body: response.into_body(), buffer: BytesMut::new(), scanned: 0, _connection: connection };
        if status.is_success() {
            return Ok(answer);
        }
        let body = timeout(ANSWER, answer.whole(MAX_REFUSAL)).await.ok().and_then(Result::ok).unwrap_or_default();
        let refusal: Refusal = serde_json::from_slice(&body).unwrap_or_default();
        Err(Failure::refused(status.as_u16(), &refusal.message))
    }

    async fn send(&self, path: &str) -> Result<(hyper::Response<Incoming>, Connection), Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| self.failure(e))?;
        let prefix = self.uri.path().trim_end_matches('/');
        let request = Request::get(format!("{prefix}{path}"))
            .header(header::HOST, self.uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("profiler/", env!("CARGO_PKG_VERSION")));
        if !self.is_tls() {
            // Whoever can listen on the way must not learn the token.
            return self.exchange(stream, request).await;
        }
        let token = self.token().map_err(|problem| self.failure(format!("no token to show: {problem}")))?;
        let mut value = header::HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| self.failure(e))?;
        value.set_sensitive(true);
        let config = self.tls().map_err(|problem| self.failure(problem))?;
        let name = ServerName::try_from(self.host.clone()).map_err(|e| self.failure(e))?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|e| self.failure(e))?;
        self.exchange(stream, request.header(header::AUTHORIZATION, value)).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: http::request::Builder,
    ) -> Result<(hyper::Response<Incoming>, Connection), Failure> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failure(error))?;
        let connection = Connection(tokio::spawn(async move {
            // What goes wrong here shows in the answer.
            let _ = connection.await;
        }));
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.failure(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.failure(error))?;
        Ok((response, connection))
    }

    fn failure(&self, problem: impl std::fmt::Display) -> Failure {
        Failure::other(format!("{} at {}:{}: {problem}", self.name, self.host, self.port))
    }
}

/// Ends with its request.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an answer.
pub(super) struct Answer {
    body: Incoming,
    buffer: BytesMut,
    /// How much of `buffer` holds no end of a line.
    scanned: usize,
    _connection: Connection,
}

impl Answer {
    /// All of it, if it has at most `limit` bytes.
    pub(super) async fn whole(&mut self, limit: usize) -> Result<BytesMut, Failure> {
        while self.more(limit).await? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// The next line, of at most `limit` bytes; `None` at the end.
    pub(super) async fn line(&mut self, limit: usize) -> Result<Option<BytesMut>, Failure> {
        loop {
            let unscanned = self.buffer.get(self.scanned..).unwrap_or_default();
            if let Some(end) = unscanned.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(self.scanned + end + 1);
                self.scanned = 0;
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len();
            if !self.more(limit).await? {
                return Ok(None);
            }
        }
    }

    /// Waits for more; `false` at the end.
    async fn more(&mut self, limit: usize) -> Result<bool, Failure> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        let frame = frame.map_err(|error| Failure::other(format!("the answer broke off: {error}")))?;
        if let Some(data) = frame.data_ref() {
            if self.buffer.len().saturating_add(data.len()) > limit {
                return Err(Failure::other(format!("the answer has more than {limit} bytes")));
            }
            self.buffer.extend_from_slice(data);
        }
        Ok(true)
    }
}
