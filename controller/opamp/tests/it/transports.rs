//! Both ends over real sockets, by both transports.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use profiler_opamp::{
    BackoffOptions, InstanceUid, Settings,
    client::{Client, Event, Options},
    messages::{
        AgentConfigMap, AgentConfigObject, AgentIdentification, AgentRemoteConfig, AgentToServer, EffectiveConfig,
        RemoteConfigStatus, RemoteConfigStatuses, ServerToAgent,
    },
    server::{self, Registry},
    transport::{Application, Denial, Elsewhere, Events, Handle, Server, ServerOptions, TransportOptions, start},
    wire,
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::simulated::{UID, all_capabilities, all_of_a_server, description, settings};

/// Generous: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Tells what happens, and offers one configuration to whoever comes.
pub struct Told {
    pub events: mpsc::UnboundedSender<server::Event>,
    pub config: Option<AgentRemoteConfig>,
    pub token: Option<&'static str>,
    pub denial: Arc<Mutex<Option<Denial>>>,
}

/// What [`Told`] calls the credential of all who come.
const PRINCIPAL: u64 = 7;

impl Application for Told {
    fn admit(&self, head: &http::request::Parts, _peer: SocketAddr) -> Result<u64, Denial> {
        if let Some(denial) = self.denial.lock().unwrap().take() {
            return Err(denial);
        }
        let given = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        if self.token.is_some() && given != self.token { Err(Denial::Unauthorized) } else { Ok(PRINCIPAL) }
    }

    fn elsewhere(&self, request: Request<Incoming>, _peer: SocketAddr) -> Elsewhere<'_> {
        Box::pin(async move {
            let body = request.uri().path().strip_prefix("/other/")?.to_owned();
            Some(Response::new(Full::<Bytes>::from(body)))
        })
    }

    fn happened(&self, registry: &mut Registry, event: server::Event) {
        if let (server::Event::Connected(uid), Some(config)) = (&event, &self.config) {
            registry.offer(*uid, |offers| offers.remote_config = Some(config.clone())).unwrap();
        }
        let _ = self.events.send(event);
    }
}

pub struct Running {
    pub server: Arc<Server>,
    pub address: SocketAddr,
    pub events: mpsc::UnboundedReceiver<server::Event>,
    pub denial: Arc<Mutex<Option<Denial>>>,
    pub task: JoinHandle<()>,
}

impl Running {
    pub async fn start(config: Option<AgentRemoteConfig>, token: Option<&'static str>) -> Self {
        let options = server::Options { capabilities: all_of_a_server(), ..server::Options::default() };
        Self::with(options, config, token, None).await
    }

    pub async fn with(
        options: server::Options,
        config: Option<AgentRemoteConfig>,
        token: Option<&'static str>,
        tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
    ) -> Self {
        Self::with_transport(options, ServerOptions::default(), config, token, tls).await
    }

    pub async fn with_transport(
        options: server::Options,
        transport: ServerOptions,
        config: Option<AgentRemoteConfig>,
        token: Option<&'static str>,
        tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
    ) -> Self {
        let (told, events) = mpsc::unbounded_channel();
        let denial = Arc::default();
        let application = Told { events: told, config, token, denial: Arc::clone(&denial) };
        let server = Server::new(Registry::new(options), application, transport);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(Arc::clone(&server).serve(listener, tls));
        Self { server, address, events, denial, task }
    }

    pub async fn until(&mut self, what: impl Fn(&server::Event, &Server) -> bool) -> server::Event {
        let found = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if what(&event, &self.server) {
                    return event;
                }
            }
        };
        timeout(LIMIT, found).await.expect("the server was not told in time")
    }
}

pub struct Agent {
    pub handle: Handle,
    pub events: Events,
    pub task: JoinHandle<()>,
}

impl Agent {
    pub fn start(settings: Settings) -> Self {
        Self::with(settings, TransportOptions::default())
    }

    pub fn with(settings: Settings, transport: TransportOptions) -> Self {
        let backoff = BackoffOptions {
            initial: Duration::from_millis(20),
            throttled: Duration::from_millis(20),
            ..Default::default()
        };
        let options = Options {
            capabilities: all_capabilities(),
            poll: Duration::from_millis(100),
            backoff,
            ..Options::default()
        };
        let mut client = Client::new(options, UID, settings);
        client.set_description(description("a"));
        client.set_effective_config(large_config());
        let (handle, events, run) = start(client, transport);
        Self { handle, events, task: tokio::spawn(run) }
    }

    pub async fn until(&mut self, what: impl Fn(&Event) -> bool) -> Event {
        let found = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if what(&event) {
                    return event;
                }
            }
        };
        timeout(LIMIT, found).await.expect("the agent was not told in time")
    }

    pub async fn stop(self) {
        self.handle.stop();
        timeout(LIMIT, self.task).await.unwrap().unwrap();
    }
}

/// Large enough to be compressed.
fn large_config() -> EffectiveConfig {
    let object = AgentConfigObject { body: b"rate: 99\n".repeat(1000).into(), ..Default::default() };
    EffectiveConfig { config_map: Some(AgentConfigMap { config_map: [(String::new(), object)].into() }) }
}

fn offered() -> AgentRemoteConfig {
    AgentRemoteConfig { config: large_config().config_map, config_hash: vec![1] }
}

fn urls(address: SocketAddr) -> [String; 2] {
    ["ws", "http"].map(|scheme| format!("{scheme}://{address}/v1/opamp"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_reports_gets_a_configuration_applies_it_and_leaves() {
    let mut running = Running::start(Some(offered()), None).await;
    for url in urls(running.address) {
        let mut agent = Agent::start(settings(&url));
        running.until(|event, _| *event == server::Event::Connected(UID)).await;
        let description = running.server.with(|registry| registry.agent(UID).unwrap().description.clone());
        assert_eq!(description, Some(super::simulated::description("a")));
        let config = running.server.with(|registry| registry.agent(UID).unwrap().effective_config.clone());
        assert_eq!(config, Some(large_config()));
        let event = agent.until(|event| matches!(event, Event::RemoteConfig(_))).await;
        assert_eq!(event, Event::RemoteConfig(offered()));
        for status in [RemoteConfigStatuses::Applying, RemoteConfigStatuses::Failed, RemoteConfigStatuses::Applied] {
            let status =
                RemoteConfigStatus { last_remote_config_hash: vec![1], status: status.into(), ..Default::default() };
            let reported = status.clone();
            agent.handle.with(|client| client.set_remote_config_status(status));
            let is_reported = |server: &Server| {
                server.with(|registry| registry.agent(UID).unwrap().remote_config_status.as_ref() == Some(&reported))
            };
            // The events are told under the lock: looked at after it.
            let seen = async {
                while !is_reported(&running.server) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(LIMIT, seen).await.unwrap();
        }
        agent.stop().await;
        running.until(|event, _| *event == server::Event::Disconnected(UID)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_say_what_they_are_and_from_whom() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut configured = settings(&urls(listener.local_addr().unwrap())[1]);
    configured.headers.push(("X-Tenant".into(), "t".into()));
    let agent = Agent::start(configured);
    let (mut stream, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(timeout(LIMIT, stream.read(&mut byte)).await.unwrap().unwrap(), 1);
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("post /v1/opamp http/1.1\r\n"), "{head}");
    let uid = format!("opamp-instance-uid: {UID}");
    // The report is large enough to be compressed.
    for line in
        ["content-type: application/x-protobuf", "content-encoding: gzip", "accept-encoding: gzip", &uid, "x-tenant: t"]
    {
        assert!(head.lines().any(|header| header == line), "{line} in {head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    timeout(LIMIT, stream.read_exact(&mut body)).await.unwrap().unwrap();
    let report = AgentToServer::decode(&*wire::gunzip(&body, 1 << 20).unwrap()).unwrap();
    assert!(report.instance_uid == UID.to_wire() && report.effective_config == Some(large_config()));
    agent.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_websocket_the_server_speaks_first_and_over_http_with_its_next_answer() {
    let mut running = Running::start(None, None).await;
    for (hash, url) in urls(running.address).into_iter().enumerate() {
        let mut agent = Agent::start(settings(&url));
        running.until(|event, _| *event == server::Event::Connected(UID)).await;
        agent.until(|event| *event == Event::Connected).await;
        let config = AgentRemoteConfig { config_hash: vec![hash as u8 + 10], ..offered() };
        running
            .server
            .with(|registry| registry.offer(UID, |offers| offers.remote_config = Some(config.clone())))
            .unwrap();
        // A server remembers what it offered the last time: that may come before.
        agent.until(|event| *event == Event::RemoteConfig(config.clone())).await;
        running.server.with(|registry| registry.restart(UID)).unwrap();
        agent.until(|event| *event == Event::Restart).await;
        agent.stop().await;
        running.until(|event, _| *event == server::Event::Disconnected(UID)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_say_who_it_is_gets_401_and_who_does_is_let_in() {
    let mut running = Running::start(None, Some("Bearer t")).await;
    for url in urls(running.address) {
        let mut agent = Agent::start(settings(&url));
        let event = agent.until(|event| matches!(event, Event::Disconnected { .. })).await;
        let Event::Disconnected { reason, .. } = event else { panic!() };
        assert!(reason.contains("401"), "{reason}");
        agent.stop().await;
        let mut allowed = settings(&url);
        allowed.headers.push(("Authorization".into(), "Bearer t".into()));
        let mut agent = Agent::start(allowed);
        agent.until(|event| *event == Event::Connected).await;
        agent.stop().await;
        running.until(|event, _| *event == server::Event::Disconnected(UID)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_asked_again_when_it_says() {
    let running = Running::start(None, None).await;
    for url in urls(running.address) {
        *running.denial.lock().unwrap() = Some(Denial::Unavailable { retry_after: Duration::from_secs(1) });
        let mut agent = Agent::start(settings(&url));
        let event = agent.until(|event| matches!(event, Event::Disconnected { .. })).await;
        let Event::Disconnected { reason, again_in } = event else { panic!() };
        assert!(reason.contains("503") && again_in >= Duration::from_secs(1), "{reason} {again_in:?}");
        agent.until(|event| *event == Event::Connected).await;
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_identity_is_kept_across_transports() {
    let mut running = Running::start(None, None).await;
    let new = InstanceUid::new([8; 16]);
    for url in urls(running.address) {
        let mut agent = Agent::start(settings(&url));
        agent.until(|event| *event == Event::Connected).await;
        let named = AgentIdentification { new_instance_uid: new.to_wire() };
        let message = ServerToAgent { agent_identification: Some(named), ..Default::default() };
        // As if the server had sent it with its next message.
        agent.handle.with(move |client| {
            client.received(std::time::Instant::now(), &prost::Message::encode_to_vec(&message));
        });
        running.until(|event, _| *event == server::Event::Connected(new)).await;
        agent.stop().await;
        running.until(|event, _| *event == server::Event::Disconnected(new)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_closes_and_its_agents_come_back_to_the_next() {
    let running = Running::start(None, None).await;
    let address = running.address;
    let mut agent = Agent::start(settings(&urls(address)[0]));
    agent.until(|event| *event == Event::Connected).await;
    running.server.stop();
    let event = agent.until(|event| matches!(event, Event::Disconnected { .. })).await;
    assert!(matches!(&event, Event::Disconnected { reason, .. } if reason.contains("1001")), "{event:?}");
    timeout(LIMIT, running.task).await.unwrap().unwrap();

    let (told, mut events) = mpsc::unbounded_channel();
    let application = Told { events: told, config: None, token: None, denial: Arc::default() };
    let server = Server::new(Registry::new(server::Options::default()), application, ServerOptions::default());
    let listener = TcpListener::bind(address).await.unwrap();
    let _task = tokio::spawn(Arc::clone(&server).serve(listener, None));
    agent.until(|event| *event == Event::Connected).await;
    assert_eq!(events.recv().await, Some(server::Event::Connected(UID)));
    // It knew nothing, and has asked.
    let known = async {
        while server.with(|registry| registry.agent(UID).unwrap().description.is_none()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, known).await.unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_dropped_leaves_and_its_server_notices() {
    let mut running = Running::start(None, None).await;
    let mut agent = Agent::start(settings(&urls(running.address)[0]));
    agent.until(|event| *event == Event::Connected).await;
    // No goodbye.
    agent.task.abort();
    running.until(|event, _| *event == server::Event::Disconnected(UID)).await;

    // Nobody takes its events any more: it leaves by itself, with one.
    let mut agent = Agent::start(settings(&urls(running.address)[0]));
    agent.until(|event| *event == Event::Connected).await;
    let Agent { handle, events, task } = agent;
    drop((events, handle));
    timeout(LIMIT, task).await.unwrap().unwrap();
    running.until(|event, _| *event == server::Event::Disconnected(UID)).await;
}

#[tokio::test]
async fn whose_credential_is_no_longer_good_is_sent_away_and_others_stay() {
    let mut running = Running::start(None, None).await;
    let [url, _] = urls(running.address);
    let agent = Agent::start(settings(&url));
    running.until(|event, _| matches!(event, server::Event::Connected(UID))).await;
    let principal = |server: &Server| server.with(|registry| registry.agent(UID).unwrap().principal);
    assert_eq!(principal(&running.server), PRINCIPAL);
    running.server.with(|registry| registry.expel(|agent| agent.principal == PRINCIPAL + 1));
    assert!(running.server.with(|registry| registry.agent(UID).unwrap().is_connected));
    running.server.with(|registry| registry.expel(|agent| agent.principal == PRINCIPAL));
    running.until(|event, _| matches!(event, server::Event::Disconnected(UID))).await;
    agent.stop().await;
}

#[tokio::test]
async fn other_paths_are_the_applications() {
    let running = Running::start(None, None).await;
    for (path, wanted) in [("/other/thing", "thing"), ("/nothing", "OpAMP is at /v1/opamp")] {
        let mut stream = tokio::net::TcpStream::connect(running.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.trim_end().ends_with(wanted), "{answer}");
        assert_eq!(answer.starts_with("HTTP/1.1 200"), path.starts_with("/other/"), "{answer}");
    }
}
