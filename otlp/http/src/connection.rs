//! One connection, and one request and answer on it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::Scheme};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use profiler_receiver::TlsOptions;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::ClientConfig};

use super::{
    body::Body,
    metered::{Allowance, Metered, READ_AHEAD},
    peer,
    text::chain,
    tls::{TlsError, client_config},
    url::Url,
};

/// Which HTTP is spoken, from the first byte: nothing is negotiated but what TLS is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Where to connect to, and how.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Where; the path is the caller's.
    pub url: Url,
    version: Version,
    /// For `https`, and the name that its certificate has to be for.
    tls: Option<(Arc<ClientConfig>, String)>,
    /// Root or this process's own user has to listen there, on this host.
    only_trusted: bool,
}

impl Destination {
    /// `url`, by `version` of HTTP and, if it is `https`, with the certificates that `tls` names, as their files are now.
    ///
    /// # Errors
    /// The certificates of an `https` URL cannot be used.
    pub fn new(url: Url, version: Version, tls: &TlsOptions) -> Result<Self, TlsError> {
        let tls = if url.tls {
            let name = tls.server_name.clone().unwrap_or_else(|| url.host.clone());
            Some((client_config(tls, version)?, name))
        } else {
            None
        };
        Ok(Self { url, version, tls, only_trusted: false })
    }

    /// Connects only where, on this host, root or this process's own user listens, if `only_trusted`: for an address that nobody chose,
    /// where anybody may listen.
    #[must_use]
    pub fn only_trusted(self, only_trusted: bool) -> Self {
        Self { only_trusted, ..self }
    }
}

/// A connection as bytes, for what begins as HTTP and goes on as something else.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Destination {
    /// Resolves, connects and, for `https`, does TLS, all within `limit`. What comes on it is not bounded here.
    ///
    /// # Errors
    /// One line that names where it failed.
    pub async fn stream(&self, limit: Duration) -> Result<Box<dyn Stream>, String> {
        let opened = timeout(limit, async {
            let stream = tcp(self, limit).await?;
            Ok(match &self.tls {
                None => Box::new(stream) as Box<dyn Stream>,
                Some((config, name)) => Box::new(secured(stream, self, config, name).await?),
            })
        });
        opened.await.unwrap_or_else(|_| Err(format!("no connection to {} within {limit:?}", self.url.authority)))
    }
}

/// A call without an answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the connection failed: {text}")]
pub struct CallError {
    /// One line.
    text: String,
    /// The other side may have seen the request, or a part of it.
    pub was_sent: bool,
    /// What came was no HTTP of this version: is it the right port?
    pub is_no_http: bool,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection that is closed when this is dropped, whatever is under way on it.
pub struct Connection {
    sender: Sender,
    url: Url,
    /// Moves the bytes; ends with what ended the connection.
    driver: JoinHandle<Result<(), hyper::Error>>,
    allowance: Allowance,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("url", &self.url.shown()).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Resolves, connects and shakes hands, all within `limit`, of which each address of the host gets its share. A running tokio is
    /// needed.
    ///
    /// # Errors
    /// One line that names where it failed.
    pub async fn open(to: &Destination, limit: Duration) -> Result<Self, String> {
        let opened = timeout(limit, Self::open_unbounded(to, limit)).await;
        opened.unwrap_or_else(|_| Err(format!("no connection to {} within {limit:?}", to.url.authority)))
    }

    async fn open_unbounded(to: &Destination, limit: Duration) -> Result<Self, String> {
        let stream = tcp(to, limit).await?;
        let allowance = Allowance::new();
        let stream = Metered::new(stream, allowance.clone());
        let Some((config, name)) = &to.tls else { return Self::over(stream, to, allowance).await };
        let stream = secured(stream, to, config, name).await?;
        Self::over(stream, to, allowance).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        to: &Destination,
        allowance: Allowance,
    ) -> Result<Self, String> {
        let io = TokioIo::new(stream);
        let failed = |error: hyper::Error| format!("{} does not speak HTTP: {}", to.url.authority, chain(&error));
        let (sender, driver) = match to.version {
            Version::Http1 => {
                let mut builder = http1::Builder::new();
                let handshake = builder.max_buf_size(READ_AHEAD).handshake(io);
                let (sender, connection) = handshake.await.map_err(failed)?;
                (Sender::Http1(sender), tokio::spawn(connection))
            }
            Version::Http2 => {
                let window = u32::try_from(READ_AHEAD).unwrap_or(u32::MAX);
                let mut builder = http2::Builder::new(TokioExecutor::new());
                let builder = builder.initial_stream_window_size(window).initial_connection_window_size(window);
                let (sender, connection) = builder.handshake(io).await.map_err(failed)?;
                (Sender::Http2(sender), tokio::spawn(connection))
            }
        };
        Ok(Self { sender, url: to.url.clone(), driver, allowance })
    }

    /// Sends `request`, whose URI is a path alone, and waits for the head of the answer: for how long is the caller's to say, here
    /// and while the body is read. After an error the connection is of no more use.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn send(&mut self, mut request: Request<Bytes>) -> Result<Response<Body>, CallError> {
        self.address(&mut request).map_err(|error| CallError {
            text: format!("the request cannot be written: {error}"),
            was_sent: false,
            is_no_http: false,
        })?;
        let request = request.map(Full::new);
        self.allowance.renew();
        let ready = match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        };
        if let Err(error) = ready {
            return Err(self.failed(&error, false));
        }
        let answer = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        };
        // The request comes back where nothing of it went out.
        let answer = answer.map_err(|error| self.failed(error.error(), error.message().is_none()))?;
        Ok(answer.map(|incoming| Body::new(incoming, self.allowance.clone())))
    }

    /// Puts into `request` whom it is for, in the way of the version.
    fn address(&self, request: &mut Request<Bytes>) -> Result<(), http::Error> {
        match self.sender {
            Sender::Http1(_) => {
                let host = HeaderValue::try_from(self.url.authority.as_str())?;
                request.headers_mut().insert(header::HOST, host);
            }
            Sender::Http2(_) => {
                let mut parts = std::mem::take(request.uri_mut()).into_parts();
                parts.scheme = Some(if self.url.tls { Scheme::HTTPS } else { Scheme::HTTP });
                parts.authority = Some(self.url.authority.clone());
                *request.uri_mut() = Uri::from_parts(parts)?;
                *request.version_mut() = http::Version::HTTP_2;
            }
        }
        Ok(())
    }

    fn failed(&self, error: &hyper::Error, was_sent: bool) -> CallError {
        let text = chain(error);
        let is_no_http = match self.sender {
            Sender::Http1(_) => error.is_parse(),
            Sender::Http2(_) => text.contains("invalid size") || text.contains("FRAME_SIZE"),
        };
        CallError { text, was_sent, is_no_http }
    }
}

/// `stream`, within TLS.
async fn secured<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    to: &Destination,
    config: &Arc<ClientConfig>,
    name: &str,
) -> Result<TlsStream<S>, String> {
    let server_name = ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} is no name for TLS"))?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(server_name, stream).await;
    stream.map_err(|error| {
        let text = chain(&error);
        let hint = if text.contains("InvalidContentType") { "; does it speak TLS on this port?" } else { "" };
        format!("TLS with {} failed: {text}{hint}", to.url.authority)
    })
}

/// Connects to one of the addresses of the host, each of which gets its share of `limit`.
async fn tcp(to: &Destination, limit: Duration) -> Result<TcpStream, String> {
    let (host, port) = (to.url.host.as_str(), to.url.port);
    let addresses = lookup_host((host, port)).await;
    let addresses: Vec<_> = addresses.map_err(|error| format!("cannot resolve {host:?}: {error}"))?.collect();
    let share = limit / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut failure = format!("{host:?} has no address");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Whoever takes one address keeps nobody from another.
                if to.only_trusted
                    && let Err(problem) = peer::check(&stream)
                {
                    failure = problem;
                    continue;
                }
                // A request goes out in one piece; waiting for more only delays its end.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => failure = format!("cannot connect to {host} ({address}): {error}"),
            Err(_) => failure = format!("cannot connect to {host} ({address}): no answer within {share:?}"),
        }
    }
    Err(failure)
}
