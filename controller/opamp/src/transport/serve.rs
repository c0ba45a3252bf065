//! A server: both transports on one port.

mod http;
mod strangers;
mod websocket;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, ready},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ::http::{HeaderMap, Request, Response, request::Parts};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls};

use strangers::{Stranger, Strangers};

use crate::{
    instance::InstanceUid,
    server::{Connection, Event, Refusal, Registry},
};

/// Who may come, and what happens.
pub trait Application: Send + Sync + 'static {
    /// Whether a request, an upgrade to a WebSocket included, is let in, and by whose credential ([`Connection::principal`]): its headers
    /// say who it is from.
    ///
    /// # Errors
    /// It is not.
    fn admit(&self, head: &Parts, peer: SocketAddr) -> Result<u64, Denial> {
        let _ = (head, peer);
        Ok(0)
    }

    /// Whether `uid` may speak by this credential. It is asked of every message, so that it may also be too much.
    ///
    /// # Errors
    /// It may not; the message is not taken.
    fn may_speak(&self, uid: InstanceUid, principal: u64) -> Result<(), Refusal> {
        let _ = (uid, principal);
        Ok(())
    }

    /// A request for another path than OpAMP's, which no one has admitted; `None` says that there is nothing.
    fn elsewhere(&self, request: Request<Incoming>, peer: SocketAddr) -> Elsewhere<'_> {
        let _ = (request, peer);
        Box::pin(ready(None))
    }

    /// Something happened. What it makes the registry offer is in the answer to the message that it came of. Other agents wait meanwhile.
    fn happened(&self, registry: &mut Registry, event: Event);
}

/// The answer to a request that is not OpAMP's.
pub type Elsewhere<'a> = Pin<Box<dyn Future<Output = Option<Response<Full<Bytes>>>> + Send + 'a>>;

/// A request that is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// 401: it does not say who it is from, or not rightly.
    Unauthorized,
    /// 403: that one may not come.
    Forbidden,
    /// 503: there is too much to do.
    Unavailable {
        /// When to come again.
        retry_after: Duration,
    },
}

/// How a server's transport behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// The path of both transports.
    pub path: String,
    /// Connections at once; more wait to be taken. When more than half of them are of nobody who was let in, those of them that have
    /// lasted longest end.
    pub connections: usize,
    /// How long TLS, the first request, a request's body, the first message on a WebSocket, or the sending of one may take.
    pub patience: Duration,
    /// How often a WebSocket on which nothing comes is asked whether it is still there. After three times it is not.
    pub ping: Duration,
    /// Agents over HTTP that are silent for longer are gone, and so are their connections.
    pub silence: Duration,
    /// How long agents have to close their WebSockets when the server ends.
    pub close: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            path: "/v1/opamp".to_owned(),
            connections: 20_000,
            patience: Duration::from_secs(30),
            ping: Duration::from_secs(30),
            silence: Duration::from_secs(120),
            close: Duration::from_secs(3),
        }
    }
}

/// A server of agents.
pub struct Server {
    registry: Mutex<Registry>,
    application: Box<dyn Application>,
    options: ServerOptions,
    /// Of the connections that stay.
    bells: Mutex<BTreeMap<u64, Arc<Notify>>>,
    next: AtomicU64,
    strangers: Arc<Strangers>,
    stopping: watch::Sender<bool>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("options", &self.options).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Server {
    /// A server that does not listen yet.
    #[must_use]
    pub fn new(registry: Registry, application: impl Application, options: ServerOptions) -> Arc<Self> {
        let strangers = Strangers::new(options.connections / 2, options.patience / 6);
        Arc::new(Self {
            registry: Mutex::new(registry),
            application: Box::new(application),
            options,
            bells: Mutex::default(),
            next: AtomicU64::new(0),
            strangers,
            stopping: watch::Sender::new(false),
        })
    }

    /// Looks at the registry, or changes what it offers, which goes out to the agents that are connected.
    pub fn with<T>(&self, act: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = locked(&self.registry);
        let result = act(&mut registry);
        self.settle(&mut registry);
        result
    }

    /// Tells the application what happened, and wakes the connections that it concerns.
    fn settle(&self, registry: &mut Registry) {
        while let Some(event) = registry.next_event() {
            self.application.happened(registry, event);
        }
        let bells = locked(&self.bells);
        for id in registry.woken() {
            if let Some(bell) = bells.get(&id) {
                bell.notify_one();
            }
        }
    }

    /// The answer to the protobuf bytes of a message, or to what is none.
    fn answered(
        &self,
        connection: Connection,
        bytes: Result<&[u8], crate::wire::WireError>,
    ) -> crate::messages::ServerToAgent {
        let mut registry = locked(&self.registry);
        let received = match bytes {
            Ok(bytes) => {
                let may_speak = |uid| self.application.may_speak(uid, connection.principal);
                registry.received_if(Instant::now(), unix_time(), connection, bytes, may_speak)
            }
            Err(problem) => registry.malformed(&problem),
        };
        self.settle(&mut registry);
        let answer = registry.answer(received);
        self.settle(&mut registry);
        answer
    }

    fn connection(&self, stays: bool, principal: u64) -> Connection {
        Connection { id: self.next.fetch_add(1, Ordering::Relaxed), stays, principal }
    }

    /// Takes agents on `listener` until [`Self::stop`]; with TLS, and agents' certificates if it says so, where there is `tls`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        let acceptor = tls.map(TlsAcceptor::from);
        let places = Arc::new(Semaphore::new(self.options.connections));
        let mut connections = JoinSet::new();
        let mut stopping = self.stopping.subscribe();
        let mut looks = interval(self.options.silence / 4 + Duration::from_millis(1));
        let mut thins = interval(self.options.patience / 30 + Duration::from_millis(1));
        loop {
            // Also while there is no place.
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                listener.accept().await.map(|accepted| (place, accepted))
            };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                _ = looks.tick() => {
                    self.with(|registry| registry.expire(Instant::now(), self.options.silence));
                    continue;
                }
                _ = thins.tick() => {
                    self.strangers.thin(Instant::now());
                    continue;
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                () = told(&mut stopping) => break,
            };
            let (place, (stream, peer)) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No more descriptors, say: some will be free again.
                    tracing::warn!(%error, "no agent can be taken now");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (server, acceptor) = (Arc::clone(&self), acceptor.clone());
            let stranger = Arc::new(self.strangers.enter(Instant::now()));
            connections.spawn(async move {
                let _place = place;
                let leaves = Arc::clone(&stranger);
                let served = async {
                    match acceptor {
                        None => server.connected(stream, peer, stranger).await,
                        Some(acceptor) => match timeout(server.options.patience, acceptor.accept(stream)).await {
                            Ok(Ok(stream)) => server.connected(stream, peer, stranger).await,
                            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with an agent"),
                            Err(_) => tracing::debug!(%peer, "no TLS with an agent in time"),
                        },
                    }
                };
                tokio::select! {
                    () = served => {}
                    () = leaves.sent_away() => tracing::debug!(%peer, "too many have not said who they are"),
                }
            });
        }
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(self.options.close, all).await;
    }

    /// Ends [`Self::serve`]: WebSockets are closed, requests under way answered.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    async fn connected(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: SocketAddr,
        stranger: Arc<Stranger>,
    ) {
        let asked = Arc::new(AtomicBool::new(false));
        let has_asked = Arc::clone(&asked);
        let upgrade: Arc<Mutex<Option<(OnUpgrade, u64)>>> = Arc::default();
        let service = service_fn(|request| {
            has_asked.store(true, Ordering::Relaxed);
            let (server, upgrade, stranger) = (Arc::clone(&self), Arc::clone(&upgrade), Arc::clone(&stranger));
            async move { Ok::<_, Infallible>(server.requested(request, peer, &upgrade, &stranger).await) }
        });
        let mut builder = http1::Builder::new();
        // Between two requests, an agent's connection rests for as long as it polls.
        builder.timer(TokioTimer::new()).header_read_timeout(self.options.silence).max_buf_size(64 << 10);
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::pin!(connection);
        let mut stopping = self.stopping.subscribe();
        let served = tokio::select! {
            biased;
            served = &mut connection => served,
            () = unasked(&asked, self.options.patience) => {
                return tracing::debug!(%peer, "no request in time");
            }
            () = told(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "the connection of an agent failed");
        }
        let upgrade = locked(&upgrade).take();
        if let Some((upgrade, principal)) = upgrade
            && let Ok(upgraded) = upgrade.await
        {
            self.websocket(upgraded, principal, peer).await;
        }
    }
}

/// Waits for `patience`, and on if something was asked by then.
async fn unasked(asked: &AtomicBool, patience: Duration) {
    sleep(patience).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Waits until the server is to stop.
async fn told(stopping: &mut watch::Receiver<bool>) {
    // Without a sender there is no server.
    let _ = stopping.wait_for(|&stopping| stopping).await;
}

/// Whether the list in header `name` has `value`.
fn lists(headers: &HeaderMap, name: ::http::HeaderName, value: &str) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(value))
}
