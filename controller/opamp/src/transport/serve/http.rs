//! Requests: of plain HTTP, and for an upgrade.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Denial, Server, Stranger, lists, locked};
use crate::wire::{self, WireError};

type Answer = Response<Full<Bytes>>;

/// Bytes from which an answer is compressed.
const COMPRESS_FROM: usize = 1 << 10;

impl Server {
    pub(super) async fn requested(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        upgrade: &Arc<Mutex<Option<(OnUpgrade, u64)>>>,
        stranger: &Stranger,
    ) -> Answer {
        if request.uri().path() != self.options.path {
            if let Some(answer) = self.application.elsewhere(request, peer).await {
                return answer;
            }
            return plain(StatusCode::NOT_FOUND, &format!("OpAMP is at {}", self.options.path));
        }
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        let principal = match self.application.admit(&head, peer) {
            Ok(principal) => principal,
            Err(denial) => return denied(&denial),
        };
        stranger.becomes_known();
        // As the specification tells the transports apart.
        let content_type =
            head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/x-protobuf") {
            return self.posted(&head, body, principal).await;
        }
        match accept_key(&head) {
            Ok(key) => {
                *locked(upgrade) = Some((on_upgrade, principal));
                let mut answer = plain(StatusCode::SWITCHING_PROTOCOLS, "");
                let headers = answer.headers_mut();
                headers.clear();
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
                answer
            }
            Err((status, text)) => {
                let mut answer = plain(status, text);
                if status == StatusCode::UPGRADE_REQUIRED {
                    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                    answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                }
                answer
            }
        }
    }

    /// A message by plain HTTP.
    async fn posted(&self, head: &Parts, body: Incoming, principal: u64) -> Answer {
        if head.method != Method::POST {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "messages are sent by POST");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return answer;
        }
        let limits = self.with(|registry| registry.options().limits);
        let too_large =
            || plain(StatusCode::PAYLOAD_TOO_LARGE, &format!("a message has at most {} bytes", limits.receive));
        let read = timeout(self.options.patience, Limited::new(body, limits.receive).collect()).await;
        let bytes = match read {
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the request did not end"),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
            Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "the request broke off"),
            Ok(Ok(read)) => read.to_bytes(),
        };
        let message = match head.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => Ok(bytes),
            Some(b"gzip" | b"x-gzip") => wire::gunzip(&bytes, limits.receive).map(Bytes::from),
            Some(_) => {
                let mut answer = plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only gzip is understood");
                answer.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
                return answer;
            }
        };
        if matches!(message, Err(WireError::TooLarge { .. })) {
            return too_large();
        }
        let answer = self
            .answered(self.connection(false, principal), message.as_ref().map(|bytes| &**bytes).map_err(Clone::clone));
        let Ok(body) = wire::body(&answer, limits.send) else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the answer would be too large");
        };
        let compresses = body.len() >= COMPRESS_FROM && takes_gzip(&head.headers);
        let mut answer = Response::new(Full::from(if compresses { wire::gzip(&body) } else { body }));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if compresses {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }
}

/// What the client has to see to know that its request for a WebSocket was understood.
fn accept_key(head: &Parts) -> Result<HeaderValue, (StatusCode, &'static str)> {
    let headers = &head.headers;
    if head.method != Method::GET
        || !lists(headers, header::CONNECTION, "upgrade")
        || !lists(headers, header::UPGRADE, "websocket")
        || headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13")
    {
        let text = "OpAMP is spoken over a WebSocket (version 13), or by POST of application/x-protobuf";
        return Err((StatusCode::UPGRADE_REQUIRED, text));
    }
    let wrong = (StatusCode::BAD_REQUEST, "the request for a WebSocket has no key");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(wrong)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| wrong)
}

/// Whether `Accept-Encoding` has gzip, and not with a weight of nothing.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().trim_start_matches("q=").parse().unwrap_or(1.0);
        matches!(coding.trim().to_ascii_lowercase().as_str(), "gzip" | "x-gzip") && weight > 0.0
    })
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::from(if text.is_empty() { String::new() } else { format!("{text}\n") }));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn denied(denial: &Denial) -> Answer {
    match denial {
        Denial::Unauthorized => {
            let mut answer = plain(StatusCode::UNAUTHORIZED, "who is it?");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            answer
        }
        Denial::Forbidden => plain(StatusCode::FORBIDDEN, "not allowed"),
        Denial::Unavailable { retry_after } => {
            let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, "too much to do");
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
            answer
        }
    }
}
