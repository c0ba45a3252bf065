//! Runs a client: does what it says and tells it what came of it.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout},
};

use super::{
    http_client::HttpClient,
    websocket::{self, Incoming, Sender, Socket},
};
use crate::{
    client::{Client, Event, Failure, Problem, Step},
    endpoint::{Settings, Transport},
};

/// How a client's transport behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportOptions {
    /// How long connecting, with TLS and the upgrade, may take.
    pub connect: Duration,
    /// How long sending may take, and over HTTP the answer.
    pub request: Duration,
    /// How long the server has to close a WebSocket in its turn.
    pub close: Duration,
    /// Bytes from which requests of plain HTTP are compressed.
    pub compress_from: usize,
    /// Bytes of a message that are received.
    pub receive: usize,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            request: Duration::from_secs(30),
            close: Duration::from_secs(3),
            compress_from: 1 << 10,
            receive: crate::Limits::default().receive,
        }
    }
}

type Order = Box<dyn FnOnce(&mut Client) + Send>;

/// What an agent tells its client while it runs.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::UnboundedSender<Order>,
}

impl Handle {
    /// Has `order` done soon, in the order of calls. Nothing happens once the client has ended.
    pub fn with(&self, order: impl FnOnce(&mut Client) + Send + 'static) {
        let _ = self.orders.send(Box::new(order));
    }

    /// The agent ends; see [`Client::stop`].
    pub fn stop(&self) {
        self.with(Client::stop);
    }
}

/// What concerns the agent. A client whose events nobody takes waits; if this is dropped, the client stops.
pub type Events = mpsc::Receiver<Event>;

/// Events that may wait to be taken.
const WAITING_EVENTS: usize = 64;

enum Done {
    Connected(Result<Socket, Failure>),
    Sent(Sender, Result<(), String>),
    Closed,
    Answered(Box<HttpClient>, Result<Result<Bytes, Problem>, Failure>),
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A client that runs while the future is polled, on a tokio with I/O and time: until the handles are dropped or [`Handle::stop`] is
/// called, and the server is told.
pub fn start(client: Client, options: TransportOptions) -> (Handle, Events, impl Future<Output = ()> + Send) {
    let (orders, to_do) = mpsc::unbounded_channel();
    let (happened, events) = mpsc::channel(WAITING_EVENTS);
    let run = Run {
        client,
        options,
        orders: to_do,
        events: happened,
        work: None,
        sender: None,
        incoming: None,
        http: HttpClient::default(),
    };
    (Handle { orders }, events, run.run())
}

struct Run {
    client: Client,
    options: TransportOptions,
    orders: mpsc::UnboundedReceiver<Order>,
    events: mpsc::Sender<Event>,
    work: Option<Work>,
    /// Of the WebSocket: there unless something is being written.
    sender: Option<Sender>,
    incoming: Option<Incoming>,
    http: HttpClient,
}

impl Run {
    async fn run(mut self) {
        loop {
            let step = self.client.poll(Instant::now());
            while let Some(event) = self.client.next_event() {
                if self.events.send(event).await.is_err() {
                    self.client.stop();
                }
            }
            match step {
                Step::Stopped => return,
                Step::Wait(until) => self.wait(until).await,
                step => self.begin(step),
            }
        }
    }

    fn begin(&mut self, step: Step) {
        let (options, settings) = (self.options, self.client.settings().clone());
        match step {
            Step::Connect(to) => {
                self.sender = None;
                self.incoming = None;
                let settings = Settings { endpoint: to, ..settings };
                self.work =
                    Some(Box::pin(async move { Done::Connected(websocket::connect(&settings, options).await) }));
            }
            Step::Send(message) if message.to.transport == Transport::Http => {
                let settings = Settings { endpoint: message.to, ..settings };
                let mut http = std::mem::take(&mut self.http);
                self.work = Some(Box::pin(async move {
                    let answer = http.exchange(&settings, message.uid, &message.bytes, options).await;
                    Done::Answered(Box::new(http), answer)
                }));
            }
            Step::Send(message) => {
                let Some(mut sender) = self.sender.take() else {
                    return self.client.closed(Instant::now(), "there is no connection");
                };
                self.work = Some(Box::pin(async move {
                    let sent = timeout(options.request, websocket::send(&mut sender, message.bytes)).await;
                    let sent = sent.unwrap_or_else(|_| Err(format!("not sent within {:?}", options.request)));
                    Done::Sent(sender, sent)
                }));
            }
            Step::Close(code) => {
                let ends = self.sender.take().zip(self.incoming.take());
                self.work = Some(Box::pin(async move {
                    // Without one of the ends, something is half written: then it is closed by dropping it.
                    if let Some((sender, incoming)) = ends {
                        let _ = timeout(options.close, websocket::close(sender, incoming, code)).await;
                    }
                    Done::Closed
                }));
            }
            Step::Wait(_) | Step::Stopped => {}
        }
    }

    async fn wait(&mut self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        let work = async {
            match &mut self.work {
                Some(work) => work.await,
                None => std::future::pending().await,
            }
        };
        let incoming = async {
            match &mut self.incoming {
                Some(incoming) => websocket::receive(incoming).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            done = work => {
                self.work = None;
                self.done(done);
            }
            received = incoming => self.received(received),
            order = self.orders.recv() => match order {
                Some(order) => order(&mut self.client),
                None => self.client.stop(),
            },
        }
    }

    fn done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Connected(Ok(socket)) => {
                let (sender, incoming) = socket;
                (self.sender, self.incoming) = (Some(sender), Some(incoming));
                self.client.connected(now);
            }
            Done::Connected(Err(failure)) => self.client.failed(now, &failure),
            Done::Sent(sender, Ok(())) => {
                self.sender = Some(sender);
                self.client.sent(now);
            }
            Done::Sent(_, Err(reason)) => self.broken(now, &reason),
            Done::Closed => {
                self.incoming = None;
                self.client.closed(now, "closed");
            }
            Done::Answered(http, answer) => {
                self.http = *http;
                match answer {
                    Ok(Ok(bytes)) => self.client.received(now, &bytes),
                    Ok(Err(problem)) => self.client.malformed(now, problem),
                    Err(failure) => self.client.failed(now, &failure),
                }
            }
        }
    }

    fn received(&mut self, received: websocket::Received) {
        let now = Instant::now();
        match received {
            websocket::Received::Message(bytes) => match crate::wire::unframe(&bytes, self.options.receive) {
                Ok(data) => self.client.received(now, data),
                Err(problem) => self.client.malformed(now, problem.into()),
            },
            websocket::Received::Malformed(problem) => self.client.malformed(now, problem),
            websocket::Received::Closed(reason) => self.broken(now, &reason),
        }
    }

    fn broken(&mut self, now: Instant, reason: &str) {
        // What was being written will not arrive.
        self.work = None;
        self.sender = None;
        self.incoming = None;
        self.client.closed(now, reason);
    }
}
