//! An agent's side of OpAMP: a state machine that is told what happens and says what to do.
//!
//! Whoever drives a [`Client`] calls [`Client::poll`] until it says [`Step::Wait`], does what it is told, and tells what came of it:
//! [`Client::connected`], [`Client::sent`], [`Client::received`], [`Client::failed`], [`Client::closed`]. What concerns the agent are
//! [`Event`]s. [`crate::transport::start`] is such a driver.

mod answer;
mod event;
mod link;
mod message;
mod settings;

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    backoff::{Backoff, BackoffOptions},
    endpoint::{Endpoint, Settings, Transport},
    instance::InstanceUid,
    limits::Limits,
    messages::{
        AgentCapabilities, AgentDescription, AvailableComponents, ComponentHealth, ConnectionSettingsRequest,
        ConnectionSettingsStatus, CustomCapabilities, CustomMessage, EffectiveConfig, PackageStatuses,
        RemoteConfigStatus,
    },
    random::{Random, SystemRandom},
    report::{Part, Parts, State},
};

pub use event::{CustomError, Event, Failure, Problem, SettingsError};

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// What the agent can do: bits of [`AgentCapabilities`]. `ReportsStatus` is always there.
    pub capabilities: u64,
    /// Asks the server for an identity; the one that the client has until then is temporary.
    pub request_uid: bool,
    /// How long after a message an agent that reports heartbeats sends one, unless the server says otherwise. Zero: never.
    pub heartbeat: Duration,
    /// How often a server is asked over HTTP, unless the server says otherwise.
    pub poll: Duration,
    /// How long an answer may take.
    pub answer: Duration,
    /// The least time between two full reports that a server causes: one that asks for them without end gets no more.
    pub full_report: Duration,
    /// How many redirects are followed, one after another.
    pub redirects: u32,
    /// Sizes of messages.
    pub limits: Limits,
    /// Waits after failures.
    pub backoff: BackoffOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capabilities: AgentCapabilities::ReportsStatus.bit() | AgentCapabilities::ReportsHeartbeat.bit(),
            request_uid: false,
            heartbeat: Duration::from_secs(30),
            poll: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            full_report: Duration::from_secs(1),
            redirects: 5,
            limits: Limits::default(),
            backoff: BackoffOptions::default(),
        }
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Open a WebSocket; then [`Client::connected`] or [`Client::failed`].
    Connect(Endpoint),
    /// Send: over a WebSocket, then [`Client::sent`] or [`Client::closed`]; over HTTP as a request, then [`Client::received`] or
    /// [`Client::failed`].
    Send(Outgoing),
    /// Close the WebSocket with this code, wait for the other side's part in it (not long), then [`Client::closed`].
    Close(CloseCode),
    /// Nothing, until something happens or it is this time.
    Wait(Option<Instant>),
    /// Nothing any more.
    Stopped,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Where to.
    pub to: Endpoint,
    /// From whom, for the header `OpAMP-Instance-UID`.
    pub uid: InstanceUid,
    /// With the header of a WebSocket message, if it is one.
    pub bytes: Bytes,
}

/// Why a WebSocket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// 1000: the agent leaves, or comes back by other settings or later.
    Normal,
    /// 1009: the server's message was too large.
    TooLarge,
}

/// An agent's side.
pub struct Client {
    options: Options,
    random: Box<dyn Random>,
    uid: InstanceUid,
    former_uid: Option<InstanceUid>,
    requests_uid: bool,
    /// Of the next message.
    sequence: u64,
    capabilities: u64,
    server: Option<u64>,
    server_custom: BTreeSet<String>,
    state: State,
    /// Changed since it was sent.
    dirty: Parts,
    /// Sent, and not yet answered.
    unanswered: Parts,
    /// Too large to be sent, as they are now.
    withheld: Parts,
    with_components: bool,
    /// When all is to be sent, because the server asked.
    full_report_due: Option<Instant>,
    full_report_sent: Option<Instant>,
    capabilities_changed: bool,
    custom: Option<CustomMessage>,
    /// Of the server; else the option.
    offered_interval: Option<Duration>,
    settings: Settings,
    settings_hash: Option<Vec<u8>>,
    trial: Option<settings::Trial>,
    redirected: Option<Endpoint>,
    redirects: u32,
    link: link::Link,
    leaving: Option<link::Leaving>,
    pending_close: Option<CloseCode>,
    in_flight: Option<message::InFlight>,
    /// A request to be made again, as it was.
    again: Option<message::InFlight>,
    connection: link::ConnectionState,
    last_sent: Option<Instant>,
    backoff: Backoff,
    events: VecDeque<Event>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { uid, sequence, link, settings, .. } = self;
        f.debug_struct("Client")
            .field("uid", uid)
            .field("sequence", sequence)
            .field("link", link)
            .field("endpoint", &settings.endpoint)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// An agent that is `uid` and has not connected yet.
    #[must_use]
    pub fn new(options: Options, uid: InstanceUid, settings: Settings) -> Self {
        Self::with_random(options, uid, settings, Box::new(SystemRandom))
    }

    /// As [`Self::new`], with its randomness given.
    #[must_use]
    pub fn with_random(options: Options, uid: InstanceUid, settings: Settings, random: Box<dyn Random>) -> Self {
        let mut client = Self {
            options,
            random,
            uid,
            former_uid: None,
            requests_uid: options.request_uid,
            sequence: 0,
            capabilities: 0,
            server: None,
            server_custom: BTreeSet::new(),
            state: State::default(),
            dirty: Parts::all(),
            unanswered: Parts::default(),
            withheld: Parts::default(),
            with_components: false,
            full_report_due: None,
            full_report_sent: None,
            capabilities_changed: false,
            custom: None,
            offered_interval: None,
            settings,
            settings_hash: None,
            trial: None,
            redirected: None,
            redirects: 0,
            link: link::Link::Down { until: None },
            leaving: None,
            pending_close: None,
            in_flight: None,
            again: None,
            connection: link::ConnectionState::default(),
            last_sent: None,
            backoff: Backoff::default(),
            events: VecDeque::new(),
        };
        client.set_capabilities(options.capabilities);
        client.capabilities_changed = false;
        client
    }

    /// Who the agent is.
    #[must_use]
    pub fn uid(&self) -> InstanceUid {
        self.uid
    }

    /// What the server can do: bits of [`crate::messages::ServerCapabilities`]; `None` before its first answer.
    #[must_use]
    pub fn server_capabilities(&self) -> Option<u64> {
        self.server
    }

    /// How the server is connected to, or is being tried to.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The next thing that concerns the agent.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What the agent can do, from now on. Bits that the protocol does not define are left out.
    pub fn set_capabilities(&mut self, capabilities: u64) {
        let capabilities = capabilities & AgentCapabilities::DEFINED | AgentCapabilities::ReportsStatus.bit();
        if capabilities != self.capabilities {
            self.capabilities = capabilities;
            self.capabilities_changed = true;
        }
    }

    /// What the agent can do.
    #[must_use]
    pub fn capabilities(&self) -> u64 {
        self.capabilities
    }

    fn changed(&mut self, part: Part, is_new: bool) {
        if is_new {
            self.dirty.add(part);
            self.withheld.remove(part);
        }
    }

    /// Who the agent is and where it runs.
    pub fn set_description(&mut self, description: AgentDescription) {
        let is_new = self.state.description.replace(description.clone()) != Some(description);
        self.changed(Part::Description, is_new);
    }

    /// How the agent and its components are.
    pub fn set_health(&mut self, health: ComponentHealth) {
        let is_new = self.state.health.replace(health.clone()) != Some(health);
        self.changed(Part::Health, is_new);
    }

    /// The configuration that runs. Secrets are the caller's to hide.
    pub fn set_effective_config(&mut self, config: EffectiveConfig) {
        let is_new = self.state.effective_config.replace(config.clone()) != Some(config);
        self.changed(Part::EffectiveConfig, is_new);
    }

    /// What became of an [`Event::RemoteConfig`]. A configuration whose hash is here is not handed out again, also if it failed; set it at
    /// the start from what was kept of the last run.
    pub fn set_remote_config_status(&mut self, status: RemoteConfigStatus) {
        let is_new = self.state.remote_config_status.replace(status.clone()) != Some(status);
        self.changed(Part::RemoteConfigStatus, is_new);
    }

    /// All packages that the agent has or is about to have. Each goes under its own name, whatever its key was.
    pub fn set_package_statuses(&mut self, mut statuses: PackageStatuses) {
        for (key, package) in &mut statuses.packages {
            package.name.clone_from(key);
        }
        let is_new = self.state.package_statuses.replace(statuses.clone()) != Some(statuses);
        self.changed(Part::PackageStatuses, is_new);
    }

    /// What the agent could run. The server is told the hash, and the rest when it asks.
    pub fn set_available_components(&mut self, components: AvailableComponents) {
        let is_new = self.state.available_components.replace(components.clone()) != Some(components);
        self.changed(Part::AvailableComponents, is_new);
    }

    /// The custom messages that the agent understands, as `com.example.capability/v1`.
    pub fn set_custom_capabilities(&mut self, capabilities: impl IntoIterator<Item = String>) {
        let capabilities = CustomCapabilities { capabilities: capabilities.into_iter().collect() };
        let before = self.state.custom_capabilities.replace(capabilities.clone()).unwrap_or_default();
        self.changed(Part::CustomCapabilities, before != capabilities);
    }

    /// What became of connection settings that are the agent's own to try, such as those of its telemetry.
    pub fn set_connection_settings_status(&mut self, status: ConnectionSettingsStatus) {
        let is_new = self.state.connection_settings_status.replace(status.clone()) != Some(status);
        self.changed(Part::ConnectionSettingsStatus, is_new);
    }

    /// Asks for connection settings, a certificate as a rule. It goes out once, when the server is known to understand it, and again if the
    /// connection was lost before an answer.
    pub fn request_connection_settings(&mut self, request: ConnectionSettingsRequest) {
        self.state.connection_settings_request = Some(request);
        self.dirty.add(Part::ConnectionSettingsRequest);
    }

    /// Sends a custom message, at most once.
    ///
    /// # Errors
    /// Its capability is not one of this agent's, or not one of the server's, or the last one has not gone out yet.
    pub fn send_custom(&mut self, message: CustomMessage) -> Result<(), CustomError> {
        let own = self.state.custom_capabilities.as_ref();
        if !own.is_some_and(|own| own.capabilities.contains(&message.capability)) {
            return Err(CustomError::NotOurs(message.capability));
        }
        if !self.server_custom.contains(&message.capability) {
            return Err(CustomError::NotTheServers(message.capability));
        }
        if self.custom.is_some() {
            return Err(CustomError::Pending);
        }
        self.custom = Some(message);
        Ok(())
    }

    /// The agent ends: says so to the server, if it is connected, and closes. Then comes [`Step::Stopped`].
    pub fn stop(&mut self) {
        self.leaving = Some(link::Leaving::Stop);
        if matches!(self.link, link::Link::Down { .. } | link::Link::Connecting) {
            self.link = link::Link::Stopped;
        }
    }

    fn transport(&self) -> Transport {
        self.settings.endpoint.transport
    }

    fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }
}
