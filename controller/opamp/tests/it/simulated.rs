//! A client without a network: what it sends is decoded, what it is told is made here, and time passes when it is told to.

use std::time::{Duration, Instant};

use profiler_opamp::{
    BackoffOptions, Endpoint, InstanceUid, Settings, Transport,
    client::{Client, CloseCode, Event, Failure, Options, Step},
    messages::{
        AgentCapabilities, AgentDescription, AgentToServer, AvailableComponents, ComponentDetails, ComponentHealth,
        EffectiveConfig, KeyValue, PackageStatuses, RemoteConfigStatus, ServerCapabilities, ServerToAgent,
    },
    wire,
};
use prost::Message;

pub const UID: InstanceUid = InstanceUid::new([7; 16]);

/// Everything that an agent can say of itself.
pub fn all_capabilities() -> u64 {
    AgentCapabilities::DEFINED
}

pub fn all_of_a_server() -> u64 {
    ServerCapabilities::DEFINED
}

/// Backs off by exactly 1, 2, 4, ... seconds.
pub fn exact() -> Options {
    Options {
        capabilities: all_capabilities(),
        backoff: BackoffOptions { spread: 0.0, ..BackoffOptions::default() },
        ..Options::default()
    }
}

pub fn settings(url: &str) -> Settings {
    Settings::new(Endpoint::parse(url).unwrap())
}

pub struct Simulated {
    pub client: Client,
    pub now: Instant,
}

impl Simulated {
    pub fn new(url: &str, options: Options) -> Self {
        // Of the middle: no spread.
        let client = Client::with_random(options, UID, settings(url), Box::new(|| 1_u64 << 63));
        Self { client, now: Instant::now() }
    }

    pub fn websocket() -> Self {
        Self::new("ws://server/v1/opamp", exact())
    }

    pub fn http() -> Self {
        Self::new("http://server/v1/opamp", exact())
    }

    /// With something to say in every part.
    pub fn full(mut self) -> Self {
        let client = &mut self.client;
        client.set_description(description("a"));
        client.set_health(healthy());
        client.set_effective_config(EffectiveConfig::default());
        client.set_remote_config_status(RemoteConfigStatus::default());
        client.set_package_statuses(PackageStatuses::default());
        client.set_custom_capabilities(["com.example.a".to_owned()]);
        client.set_available_components(AvailableComponents {
            components: [("exporter".to_owned(), ComponentDetails::default())].into(),
            hash: vec![9],
        });
        client.set_connection_settings_status(Default::default());
        self
    }

    /// Connected, its first report answered by a server that can everything; gives that report.
    pub fn answered(mut self) -> (Self, AgentToServer) {
        self.connect();
        let first = self.sent();
        self.answer(ServerToAgent { capabilities: all_of_a_server(), ..answer() });
        self.events();
        (self, first)
    }

    pub fn connect(&mut self) {
        if self.client.settings().endpoint.transport == Transport::WebSocket {
            assert!(matches!(self.client.poll(self.now), Step::Connect(_)));
            self.client.connected(self.now);
        }
    }

    /// The message that is sent now; over a WebSocket it has been written.
    pub fn sent(&mut self) -> AgentToServer {
        self.sends().expect("a message was to be sent")
    }

    pub fn sends(&mut self) -> Option<AgentToServer> {
        let Step::Send(message) = self.client.poll(self.now) else { return None };
        if message.to.transport == Transport::WebSocket {
            self.client.sent(self.now);
        }
        Some(decoded(&message.bytes, message.to.transport))
    }

    pub fn answer(&mut self, message: ServerToAgent) {
        self.client.received(self.now, &message.encode_to_vec());
    }

    /// Until when nothing is to be done.
    pub fn waits(&mut self) -> Option<Duration> {
        match self.client.poll(self.now) {
            Step::Wait(until) => until.map(|until| until - self.now),
            other => panic!("{other:?}"),
        }
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.next_event()).collect()
    }

    pub fn fails(&mut self, code: u16) {
        let failure = Failure::Status { code, retry_after: None, location: None };
        self.client.failed(self.now, &failure);
    }

    pub fn closes(&mut self) {
        assert_eq!(self.client.poll(self.now), Step::Close(CloseCode::Normal));
        self.client.closed(self.now, "closed");
    }
}

pub fn decoded(bytes: &[u8], transport: Transport) -> AgentToServer {
    let data = match transport {
        Transport::WebSocket => wire::unframe(bytes, 64 << 20).unwrap(),
        Transport::Http => bytes,
    };
    AgentToServer::decode(data).unwrap()
}

pub fn description(name: &str) -> AgentDescription {
    AgentDescription { identifying_attributes: vec![KeyValue::text("service.name", name)], ..Default::default() }
}

pub fn healthy() -> ComponentHealth {
    ComponentHealth { healthy: true, ..Default::default() }
}

/// An answer that says nothing.
pub fn answer() -> ServerToAgent {
    ServerToAgent { instance_uid: UID.to_wire(), ..Default::default() }
}

pub const SECOND: Duration = Duration::from_secs(1);
