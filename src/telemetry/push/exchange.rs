//! One request and its answer.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, TE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use tokio::task::JoinHandle;

use super::PushProtocol;
use super::connect::Receiver;

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

/// Ends a connection's task with the exchange.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a request; what the receiver did not take of it, in words, is returned.
pub(super) async fn send(receiver: &Receiver, message: Vec<u8>) -> Result<Option<String>, String> {
    let stream = TokioIo::new(receiver.connect().await?);
    let failed = |error: hyper::Error| format!("the connection failed: {}", cause(&error));
    match receiver.protocol {
        PushProtocol::Grpc => {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.map_err(failed)?;
            let _task = Task(tokio::spawn(async move { drop(connection.await) }));
            let answer = sender.send_request(request(receiver, framed(&message))?).await.map_err(failed)?;
            grpc_answer(answer).await
        }
        PushProtocol::Http => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(failed)?;
            let _task = Task(tokio::spawn(async move { drop(connection.await) }));
            let answer = sender.send_request(request(receiver, message.into())?).await.map_err(failed)?;
            http_answer(answer).await
        }
    }
}

fn request(receiver: &Receiver, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
    let uri = &receiver.uri;
    let mut request = Request::builder().method(Method::POST);
    request = match receiver.protocol {
        // HTTP/2 carries the host in the URI.
        PushProtocol::Grpc => request.uri(uri.clone()).header(CONTENT_TYPE, "application/grpc").header(TE, "trailers"),
        PushProtocol::Http => {
            let host = uri.authority().map(ToString::to_string).unwrap_or_default();
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            request.uri(path).header(HOST, host).header(CONTENT_TYPE, "application/x-protobuf")
        }
    };
    request = request.header(USER_AGENT, concat!("profiler/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &receiver.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(body)).map_err(|error| format!("the request cannot be made: {error}"))
}

/// The message as gRPC's only frame: not compressed, length, bytes.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

async fn grpc_answer(answer: Response<hyper::body::Incoming>) -> Result<Option<String>, String> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        return Err(format!("the receiver answered HTTP {}: is it a gRPC receiver?", head.status));
    }
    let body =
        Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| format!("the answer broke off: {error}"))?;
    // A receiver that has nothing but a status puts it into the head.
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = text(&trailers, "grpc-status").or_else(|| text(&head.headers, "grpc-status"));
    let reason = text(&trailers, "grpc-message").or_else(|| text(&head.headers, "grpc-message")).unwrap_or_default();
    match status.as_deref() {
        Some("0") => Ok(partial(body.to_bytes().get(5..).unwrap_or_default())),
        Some(status) => Err(format!("the receiver answered gRPC status {status} {reason}")),
        None => Err("the receiver answered without a gRPC status: is it a gRPC receiver?".to_owned()),
    }
}

async fn http_answer(answer: Response<hyper::body::Incoming>) -> Result<Option<String>, String> {
    let (head, body) = answer.into_parts();
    if !head.status.is_success() {
        return Err(format!("the receiver answered HTTP {}", head.status));
    }
    let body =
        Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| format!("the answer broke off: {error}"))?;
    let kind = text(&head.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    if kind.starts_with("text/html") {
        return Err("the receiver answered with a web page: is this an OTLP receiver's address?".to_owned());
    }
    Ok(partial(&body.to_bytes()))
}

/// What the receiver refused or wants to say. An answer that is none is taken for none: the request was accepted.
fn partial(message: &[u8]) -> Option<String> {
    let partial = ExportMetricsServiceResponse::decode(message).ok()?.partial_success?;
    let said = clean(&partial.error_message);
    match (partial.rejected_data_points, said.is_empty()) {
        (0, true) => None,
        (0, false) => Some(said),
        (rejected, _) => Some(format!("{rejected} points were refused: {said}")),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(clean)
}

/// At most 200 characters, none of which moves a terminal's cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// The innermost reason; the outer ones say "error" in other words.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
