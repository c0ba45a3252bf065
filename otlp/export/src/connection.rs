//! One connection to a receiver, and one request and answer on it.

use std::{
    error::Error as StdError,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::{options::Protocol, outcome::bounded, settings::Settings, text::excerpt};

/// Bytes of an answer that are read; an answer of OTLP has a few.
pub(super) const MAX_ANSWER: usize = 1 << 20;

/// An answer, read to its end or to [`MAX_ANSWER`].
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) trailers: HeaderMap,
    pub(super) body: Bytes,
    /// There was more than is read.
    pub(super) is_cut: bool,
}

impl Answer {
    /// The content type, lower case; "" if there is none.
    pub(super) fn content_type(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE).map(|value| excerpt(value.as_bytes()));
        value.unwrap_or_default().to_ascii_lowercase()
    }

    /// Status, content type and beginning, for an error.
    pub(super) fn described(&self) -> String {
        let status = self.status.as_u16();
        match (self.content_type().as_str(), excerpt(&self.body)) {
            (_, body) if body.is_empty() => format!("HTTP {status} without a text"),
            ("", body) => format!("HTTP {status}: {body:?}"),
            (content_type, body) => format!("HTTP {status} with {content_type}: {body:?}"),
        }
    }

    /// The delay in `Retry-After`, seconds or a date to come, at most 10 minutes. A date counts from the answer's own: the receiver's
    /// clock and ours may differ.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = |name| self.headers.get(name)?.to_str().ok().map(str::trim);
        let date = |text| httpdate::parse_http_date(text).ok();
        let after = text(header::RETRY_AFTER)?;
        if let Ok(seconds) = after.parse() {
            return Some(bounded(Duration::from_secs(seconds)));
        }
        let now = text(header::DATE).and_then(date).unwrap_or_else(SystemTime::now);
        date(after)?.duration_since(now).ok().map(bounded)
    }
}

/// A call without an answer.
#[derive(Debug)]
pub(super) struct CallError {
    /// One line.
    pub(super) text: String,
    /// The receiver may have seen the request, or a part of it.
    pub(super) was_sent: bool,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection that is closed when this is dropped, whatever is under way on it.
pub(super) struct Connection {
    sender: Sender,
    /// Moves the bytes; ends with what ended the connection.
    driver: JoinHandle<Result<(), hyper::Error>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// `error` and what is behind it, in one line.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    excerpt(text.as_bytes())
}

impl Connection {
    /// Resolves, connects and shakes hands. Errors are one line that names where it failed.
    pub(super) async fn open(settings: &Settings) -> Result<Self, String> {
        let endpoint = &settings.endpoint;
        let stream = tcp(&endpoint.host, endpoint.port, settings.options.timeout).await?;
        let Some(config) = &settings.tls else { return Self::over(stream, settings).await };
        let name = settings.options.tls.server_name.as_ref().unwrap_or(&endpoint.host);
        let server_name = ServerName::try_from(name.clone()).map_err(|_| format!("{name:?} is no name for TLS"))?;
        let stream = TlsConnector::from(config.clone()).connect(server_name, stream).await;
        let stream = stream.map_err(|error| {
            let text = chain(&error);
            let hint = if text.contains("InvalidContentType") { "; does it speak TLS on this port?" } else { "" };
            format!("TLS with {} failed: {text}{hint}", endpoint.authority)
        })?;
        Self::over(stream, settings).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        settings: &Settings,
    ) -> Result<Self, String> {
        let io = TokioIo::new(stream);
        let failed =
            |error: hyper::Error| format!("{} does not speak HTTP: {}", settings.endpoint.authority, chain(&error));
        let (sender, driver) = match settings.options.protocol {
            Protocol::HttpProtobuf => {
                let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
                (Sender::Http1(sender), tokio::spawn(connection))
            }
            Protocol::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
                (Sender::Http2(sender), tokio::spawn(connection))
            }
        };
        Ok(Self { sender, driver })
    }

    /// Sends `request` and reads the answer. After an error the connection is of no more use.
    pub(super) async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
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
        read(answer).await.map_err(|text| CallError { text, was_sent: true })
    }

    fn failed(&self, error: &hyper::Error, was_sent: bool) -> CallError {
        CallError { text: format!("the connection failed: {}{}", chain(error), self.hint(error)), was_sent }
    }

    /// What the error of a receiver that speaks another protocol probably means.
    fn hint(&self, error: &hyper::Error) -> &'static str {
        let text = chain(error);
        match self.sender {
            Sender::Http2(_) if text.contains("invalid size") || text.contains("FRAME_SIZE") => {
                "; the receiver does not speak gRPC: is this its port for HTTP (4318)? Then choose the protocol http/protobuf"
            }
            Sender::Http1(_) if error.is_parse() => {
                "; the receiver does not speak HTTP/1.1: is this its port for gRPC (4317) or for TLS?"
            }
            _ => "",
        }
    }
}

async fn read(answer: http::Response<Incoming>) -> Result<Answer, String> {
    let (head, mut body) = answer.into_parts();
    let mut answer = Answer { status: head.status, headers: head.headers, ..Answer::default() };
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the connection failed within the answer: {}", chain(&error)))?;
        match frame.into_data() {
            Ok(data) if bytes.len() + data.len() > MAX_ANSWER => {
                answer.is_cut = true;
                break;
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => answer.trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    answer.body = bytes.into();
    Ok(answer)
}

/// Connects to one of the addresses of `host`, each of which gets its share of `limit`.
async fn tcp(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let addresses = lookup_host((host, port)).await;
    let addresses: Vec<_> = addresses.map_err(|error| format!("cannot resolve {host:?}: {error}"))?.collect();
    let share = limit / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut failure = format!("{host:?} has no address");
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(headers: &[(header::HeaderName, &str)]) -> Option<Duration> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        Answer { headers, ..Answer::default() }.retry_after()
    }

    #[test]
    fn a_date_to_retry_after_counts_from_the_answers_own() {
        // Whatever time it is here.
        let date = (header::DATE, "Wed, 21 Oct 2015 07:28:00 GMT");
        let after = |text| [date.clone(), (header::RETRY_AFTER, text)];
        assert_eq!(delay(&after("Wed, 21 Oct 2015 07:28:07 GMT")), Some(Duration::from_secs(7)));
        assert_eq!(delay(&after("Fri, 21 Oct 2016 07:28:00 GMT")), Some(Duration::from_secs(600)));
        // One that is past is no leave to try at once, again and again.
        assert_eq!(delay(&after("Wed, 21 Oct 2015 07:27:59 GMT")), None);
        assert_eq!(delay(&[(header::RETRY_AFTER, "Wed, 21 Oct 2015 07:28:07 GMT")]), None);
        assert_eq!(delay(&after("3")), Some(Duration::from_secs(3)));
        assert_eq!(delay(&after("soon")), None);
    }
}
