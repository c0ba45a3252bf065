//! The client's end of a WebSocket.

use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderName, HeaderValue, Request, header};
use profiler_http::{Destination, Stream, Version, chain, excerpt};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message,
        error::CapacityError,
        handshake::client::generate_key,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode as Code},
    },
};

use super::TransportOptions;
use crate::{
    client::{CloseCode, Failure, Problem},
    endpoint::Settings,
    retry_after::retry_after,
    wire::WireError,
};

pub(super) type Sender = SplitSink<WebSocketStream<Box<dyn Stream>>, Message>;
pub(super) type Incoming = SplitStream<WebSocketStream<Box<dyn Stream>>>;
pub(super) type Socket = (Sender, Incoming);

/// What a WebSocket takes at once.
pub(super) fn config(receive: usize) -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(receive)).max_frame_size(Some(receive))
}

/// Connects and upgrades.
pub(super) async fn connect(settings: &Settings, options: TransportOptions) -> Result<Socket, Failure> {
    let failed = Failure::Connection;
    let endpoint = &settings.endpoint;
    let destination = Destination::new(endpoint.url.clone(), Version::Http1, &settings.tls);
    let destination = destination.map_err(|error| failed(error.to_string()))?;
    let uri = format!("{}{}", endpoint, endpoint.url.path);
    let mut request = Request::get(uri)
        .header(header::HOST, endpoint.url.authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .body(())
        .map_err(|error| failed(error.to_string()))?;
    add_headers(settings, request.headers_mut()).map_err(failed)?;
    let stream = destination.stream(options.connect).await.map_err(failed)?;
    let upgrade = client_async_with_config(request, stream, Some(config(options.receive)));
    match timeout(options.connect, upgrade).await {
        Ok(Ok((socket, _))) => Ok(socket.split()),
        Ok(Err(Error::Http(answer))) => Err(refused(answer.status().as_u16(), answer.headers())),
        Ok(Err(error)) => Err(failed(format!("no upgrade to a WebSocket: {}", chain(&error)))),
        Err(_) => Err(failed(format!("no upgrade to a WebSocket within {:?}", options.connect))),
    }
}

/// The headers of the settings, where they may go.
pub(super) fn add_headers(settings: &Settings, headers: &mut http::HeaderMap) -> Result<(), String> {
    for (name, value) in settings.headers.iter().filter(|_| settings.endpoint.is_trusted) {
        let header = HeaderName::try_from(name.as_str()).map_err(|_| format!("{name:?} is no name of a header"))?;
        let mut text =
            HeaderValue::try_from(value.expose()).map_err(|_| format!("the header {name} has no right value"))?;
        text.set_sensitive(true);
        headers.insert(header, text);
    }
    Ok(())
}

/// An answer with a status that is not what was asked for.
pub(super) fn refused(code: u16, headers: &http::HeaderMap) -> Failure {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Failure::Status { code, retry_after: retry_after(headers, std::time::SystemTime::now()), location }
}

pub(super) async fn send(sender: &mut Sender, bytes: Bytes) -> Result<(), String> {
    sender.send(Message::Binary(bytes)).await.map_err(|error| chain(&error))
}

/// What came of waiting.
pub(super) enum Received {
    Message(Bytes),
    Malformed(Problem),
    Closed(String),
}

pub(super) async fn receive(incoming: &mut Incoming) -> Received {
    loop {
        return match incoming.next().await {
            Some(Ok(Message::Binary(bytes))) => Received::Message(bytes),
            Some(Ok(Message::Text(_))) => Received::Malformed(Problem::Transport("a text message".to_owned())),
            Some(Ok(Message::Close(frame))) => Received::Closed(closed(frame)),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { max_size: limit, .. }))) => {
                Received::Malformed(Problem::Wire(WireError::TooLarge { limit }))
            }
            Some(Err(error)) => Received::Closed(chain(&error)),
            None => Received::Closed("the server closed the connection".to_owned()),
        };
    }
}

fn closed(frame: Option<CloseFrame>) -> String {
    let Some(frame) = frame else { return "the server closed the connection".to_owned() };
    format!("the server closed the connection: {} {}", u16::from(frame.code), excerpt(frame.reason.as_bytes()))
}

/// Closes as the WebSocket standard has it: says so, and waits for the other side to say so.
pub(super) async fn close(mut sender: Sender, mut incoming: Incoming, code: CloseCode) {
    let code = match code {
        CloseCode::Normal => Code::Normal,
        CloseCode::TooLarge => Code::Size,
    };
    let frame = CloseFrame { code, reason: "".into() };
    if sender.send(Message::Close(Some(frame))).await.is_ok() {
        while let Some(Ok(_)) = incoming.next().await {}
    }
}
