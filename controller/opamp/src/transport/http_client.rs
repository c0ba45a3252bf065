//! The client's end of plain HTTP: one request at a time.

use bytes::Bytes;
use http::{Request, Response, header};
use profiler_http::{Body, BodyError, CallError, Connection, Destination, Version};
use tokio::time::timeout;

use super::{TransportOptions, websocket};
use crate::{
    client::{Failure, Problem},
    endpoint::{Endpoint, Settings},
    instance::InstanceUid,
    wire,
};

/// A connection that is used again while it lasts.
#[derive(Debug, Default)]
pub(super) struct HttpClient {
    open: Option<(Endpoint, Connection)>,
}

impl HttpClient {
    /// Sends `message` and gives what was answered, decompressed.
    pub(super) async fn exchange(
        &mut self,
        settings: &Settings,
        uid: InstanceUid,
        message: &Bytes,
        options: TransportOptions,
    ) -> Result<Result<Bytes, Problem>, Failure> {
        let failed = Failure::Connection;
        let request = request(settings, uid, message, options).map_err(failed)?;
        let answered =
            timeout(options.connect.saturating_add(options.request), self.answered(settings, &request, options));
        let answer = answered.await;
        // What was not read to its end is of no more use.
        match answer.unwrap_or_else(|_| Err(failed(format!("no answer within {:?}", options.request)))) {
            Ok(Ok(bytes)) => Ok(Ok(bytes)),
            other => {
                self.open = None;
                other
            }
        }
    }

    async fn answered(
        &mut self,
        settings: &Settings,
        request: &Request<Bytes>,
        options: TransportOptions,
    ) -> Result<Result<Bytes, Problem>, Failure> {
        let answer = self.sent(settings, request, options).await?;
        let (head, mut body) = answer.into_parts();
        if head.status != 200 {
            return Err(websocket::refused(head.status.as_u16(), &head.headers));
        }
        let bytes = match body.whole(options.receive).await {
            Ok(bytes) => bytes,
            Err(BodyError::TooLong { limit }) => return Ok(Err(wire::WireError::TooLarge { limit }.into())),
            Err(error) => return Err(Failure::Connection(error.to_string())),
        };
        match head.headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => Ok(Ok(bytes)),
            Some(b"gzip" | b"x-gzip") => {
                Ok(wire::gunzip(&bytes, options.receive).map(Bytes::from).map_err(Problem::from))
            }
            Some(other) => {
                let text = format!("an answer with content-encoding {:?}", profiler_http::excerpt(other));
                Ok(Err(Problem::Transport(text)))
            }
        }
    }

    /// The answer on the connection that there is, or else on a new one.
    async fn sent(
        &mut self,
        settings: &Settings,
        request: &Request<Bytes>,
        options: TransportOptions,
    ) -> Result<Response<Body>, Failure> {
        let failed = |error: CallError| Failure::Connection(error.to_string());
        if let Some((to, connection)) = &mut self.open
            && *to == settings.endpoint
        {
            match connection.send(request.clone()).await {
                Ok(answer) => return Ok(answer),
                // The server closed it meanwhile, and has not seen the request.
                Err(error) if !error.was_sent => self.open = None,
                Err(error) => return Err(failed(error)),
            }
        }
        let destination = Destination::new(settings.endpoint.url.clone(), Version::Http1, &settings.tls);
        let destination = destination.map_err(|error| Failure::Connection(error.to_string()))?;
        let mut connection = Connection::open(&destination, options.connect).await.map_err(Failure::Connection)?;
        let answer = connection.send(request.clone()).await.map_err(failed)?;
        self.open = Some((settings.endpoint.clone(), connection));
        Ok(answer)
    }
}

fn request(
    settings: &Settings,
    uid: InstanceUid,
    message: &Bytes,
    options: TransportOptions,
) -> Result<Request<Bytes>, String> {
    let mut request = Request::post(settings.endpoint.url.path.clone())
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::ACCEPT_ENCODING, "gzip")
        .header("opamp-instance-uid", uid.to_string());
    let body = if message.len() >= options.compress_from {
        request = request.header(header::CONTENT_ENCODING, "gzip");
        wire::gzip(message).into()
    } else {
        message.clone()
    };
    let mut request = request.body(body).map_err(|error| error.to_string())?;
    websocket::add_headers(settings, request.headers_mut())?;
    Ok(request)
}
