//! WebSockets that stay.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::{Server, locked, told};
use crate::{
    messages::ServerToAgent,
    server::{Connection, Outgoing},
    transport::websocket::config,
    wire::{self, WireError},
};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Times that an agent may leave the question unanswered whether it is there.
const PINGS: u32 = 3;
/// Messages in a row that are not taken, after which the connection is closed, and how much longer the answer to each is held back.
const ERRORS: u32 = 10;
const HOLD: Duration = Duration::from_millis(50);

impl Server {
    pub(super) async fn websocket(&self, upgraded: Upgraded, principal: u64, peer: SocketAddr) {
        let connection = self.connection(true, principal);
        let bell = Arc::new(Notify::new());
        locked(&self.bells).insert(connection.id, Arc::clone(&bell));
        let limit = self.with(|registry| registry.options().limits.receive);
        let mut socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config(limit))).await;
        let code = self.conversation(&mut socket, connection, &bell).await;
        locked(&self.bells).remove(&connection.id);
        // Gone before it is closed: nothing is to be sent on it any more.
        self.with(|registry| registry.closed(connection));
        if let Some(code) = code {
            let frame = CloseFrame { code, reason: "".into() };
            let closed = async {
                if socket.send(Message::Close(Some(frame))).await.is_ok() {
                    while let Some(Ok(_)) = socket.next().await {}
                }
            };
            let _ = timeout(self.options.close, closed).await;
        }
        tracing::debug!(%peer, "the connection of an agent has ended");
    }

    /// Until the connection ends (`None`), or is to be closed.
    async fn conversation(&self, socket: &mut Socket, connection: Connection, bell: &Notify) -> Option<CloseCode> {
        let mut stopping = self.stopping.subscribe();
        let (mut pings, mut has_spoken, mut errors) = (0, false, 0);
        let mute = Instant::now() + self.options.patience;
        loop {
            let message = tokio::select! {
                biased;
                () = told(&mut stopping) => return Some(CloseCode::Away),
                () = bell.notified() => {
                    if let Some(end) = self.flush(socket, connection).await {
                        return end;
                    }
                    continue;
                }
                message = socket.next() => message?,
                () = sleep(self.options.ping) => {
                    pings += 1;
                    if pings > PINGS || self.write(socket, Message::Ping(Bytes::new())).await.is_err() {
                        return Some(CloseCode::Away);
                    }
                    continue;
                }
                () = sleep_until(mute), if !has_spoken => return Some(CloseCode::Policy),
            };
            pings = 0;
            let is_mute = !has_spoken && Instant::now() >= mute;
            let limit = self.with(|registry| registry.options().limits.receive);
            let answer = match message {
                Ok(Message::Binary(bytes)) => {
                    let data = wire::unframe(&bytes, limit);
                    self.answered(connection, data)
                }
                Ok(Message::Text(_)) => self.answered(connection, Err(WireError::Header)),
                Ok(Message::Close(_)) => {
                    // The answer to it goes out by itself while the rest is read.
                    while let Ok(Some(Ok(_))) = timeout(self.options.close, socket.next()).await {}
                    return None;
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) if is_mute => {
                    return Some(CloseCode::Policy);
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Err(Error::Capacity(_)) => return Some(CloseCode::Size),
                Err(_) => return None,
            };
            let is_taken = answer.error_response.is_none();
            has_spoken |= is_taken;
            errors = if is_taken { 0 } else { errors + 1 };
            // Each message costs work before it can be refused: who goes on all the same is slowed down, then sent away.
            sleep(HOLD * errors).await;
            if self.say(socket, &answer).await.is_err() {
                return None;
            }
            if errors >= ERRORS {
                return Some(CloseCode::Policy);
            }
        }
    }

    /// Sends what there is; `Some` if the conversation ends by that.
    async fn flush(&self, socket: &mut Socket, connection: Connection) -> Option<Option<CloseCode>> {
        loop {
            match self.with(|registry| registry.outgoing(connection)) {
                Outgoing::Close => return Some(Some(CloseCode::Policy)),
                Outgoing::Send(messages) if messages.is_empty() => return None,
                Outgoing::Send(messages) => {
                    for message in messages {
                        if self.say(socket, &message).await.is_err() {
                            return Some(None);
                        }
                    }
                }
            }
        }
    }

    async fn say(&self, socket: &mut Socket, message: &ServerToAgent) -> Result<(), ()> {
        let limit = self.with(|registry| registry.options().limits.send);
        match wire::frame(message, limit) {
            Ok(bytes) => self.write(socket, Message::Binary(bytes.into())).await,
            // The registry has said so.
            Err(_) => Ok(()),
        }
    }

    /// Writes, as long as somebody reads.
    async fn write(&self, socket: &mut Socket, message: Message) -> Result<(), ()> {
        match timeout(self.options.patience, socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }
}
