//! The HTTP server of `/metrics`, `/healthz` and `/readyz`.
//!
//! One request a connection, each connection for ten seconds at most, and so many of them at a time; a further one takes the
//! place of the oldest of its kind. So clients that never finish cost a bounded amount and keep nobody out, and probes are answered
//! whatever else comes.

mod rooms;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use self::rooms::{Begun, Rooms};
use super::prometheus::Format;
use super::state::Shared;
use super::status;

/// A connection's whole life.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Until the request's head is there.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

const TEXT: &str = "text/plain; charset=utf-8";
const INDEX: &str = "profiler\n\n/metrics  Prometheus metrics of the profiler itself\n/healthz  200 while the sampling loop goes on, else 503\n\
                     /readyz   200 while it samples and delivers, else 503\n\
                     /status   what changed on the host; what the profiler's processes have given up\n";

/// Takes the address at once, so that a caller learns of a conflict.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "Metrics and health are not served.");
            return;
        }
    };
    // Dropped with this future, which ends all connections.
    let mut connections = JoinSet::new();
    let rooms = Arc::new(Rooms::default());
    let mut number = 0;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No descriptor left, most likely: they come back.
                    crate::once_a_minute!(warn, "telemetry/accept", %error, "A connection for metrics or health was not accepted.");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        number += 1;
        let task = one(stream, number, Arc::clone(&rooms), Arc::clone(&shared));
        // How a client fails is its own affair.
        let connection = connections.spawn(async { drop(tokio::time::timeout(CONNECTION_TIME, task).await) });
        rooms.enter(number, connection);
    }
}

/// The whole life of the connection `number`.
async fn one(stream: TcpStream, number: u64, rooms: Arc<Rooms>, shared: Arc<Shared>) {
    let Ok(Ok((stream, purpose))) = tokio::time::timeout(HEAD_TIME, Begun::new(stream)).await else { return };
    rooms.turn_out(number, purpose);
    let service = service_fn(move |request| {
        let answer = answer(&request, &shared);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
            let format = Format::negotiate(accept);
            response(StatusCode::OK, format.content_type(), shared.page(format))
        }
        "/healthz" => probe(shared.health.alive()),
        "/readyz" => probe(shared.health.is_ready()),
        "/status" => text(StatusCode::OK, status::page(&shared.confined()) + &shared.detection()),
        "/" => text(StatusCode::OK, INDEX.to_owned()),
        _ => text(StatusCode::NOT_FOUND, format!("there is no such page\n\n{INDEX}")),
    }
}

fn probe(result: Result<(), String>) -> Response<Full<Bytes>> {
    match result {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, TEXT, body.into())
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
