//! A server's side of OpAMP: what is known of every agent, and what each is answered. No I/O: a [`Registry`] is told what came on which
//! connection, and says what goes back.

mod agent;
mod event;
mod reply;

use reply::{bad_request, error};

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

pub use agent::{Agent, Offers};
pub use event::{Event, OfferError, Refusal};

use super::{
    instance::InstanceUid,
    limits::Limits,
    messages::{
        AgentCapabilities, AgentToServer, AgentToServerFlags, CustomMessage, ServerCapabilities,
        ServerErrorResponseType, ServerToAgent,
    },
    random::{Random, SystemRandom},
    wire,
};

/// A connection, or one request of plain HTTP: the transport's number for it, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// Its number.
    pub id: u64,
    /// Whether the server can send on it unasked: a WebSocket.
    pub stays: bool,
    /// By whose credential it came, as the application numbers them; 0 is nobody's.
    pub principal: u64,
}

/// How a server behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What the server can do: bits of [`ServerCapabilities`]. `AcceptsStatus` is always there.
    pub capabilities: u64,
    /// The custom messages that it understands, as `com.example.capability/v1`.
    pub custom_capabilities: Vec<String>,
    /// Sizes of messages.
    pub limits: Limits,
    /// Agents that are known at once. When there are more, those that left are forgotten, longest ago first; if all are there, new ones
    /// are told to come later.
    pub agents: usize,
    /// When who is told to come later may do so.
    pub come_later: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capabilities: ServerCapabilities::AcceptsStatus.bit()
                | ServerCapabilities::OffersRemoteConfig.bit()
                | ServerCapabilities::AcceptsEffectiveConfig.bit()
                | ServerCapabilities::OffersConnectionSettings.bit(),
            custom_capabilities: Vec::new(),
            limits: Limits::default(),
            agents: 100_000,
            come_later: Duration::from_secs(30),
        }
    }
}

/// All agents of a server.
pub struct Registry {
    options: Options,
    random: Box<dyn Random>,
    agents: BTreeMap<InstanceUid, Agent>,
    /// Who speaks on each connection that stays.
    connections: BTreeMap<u64, BTreeSet<InstanceUid>>,
    events: VecDeque<Event>,
    /// Connections that have something to send, or are to be closed.
    woken: BTreeSet<u64>,
    /// Connections whose agent has come back on another, or is not to be here any more.
    superseded: BTreeSet<u64>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("agents", &self.agents.len()).finish_non_exhaustive()
    }
}

/// A message that was taken, or not, and has no answer yet.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "every message is to be answered"]
pub struct Received(Result<(InstanceUid, InstanceUid, Option<InstanceUid>), Box<ServerToAgent>>);

impl Received {
    /// Who sent it, as it is named from now on; `None` if it was not taken.
    #[must_use]
    pub fn from(&self) -> Option<InstanceUid> {
        self.0.as_ref().ok().map(|&(_, known_as, _)| known_as)
    }
}

/// Who sends a message.
struct Name {
    /// As it says.
    uid: InstanceUid,
    /// As it is to be called from now on.
    new_uid: Option<InstanceUid>,
    /// Another agent has the name `uid`, which keeps it.
    is_double: bool,
    /// The number of the last message in the name of `uid`.
    before: Option<u64>,
}

/// What a connection has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// Send these; none is larger than may be.
    Send(Vec<ServerToAgent>),
    /// Close: its agent has another connection, or was expelled.
    Close,
}

impl Registry {
    /// No agents yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self::with_random(options, Box::new(SystemRandom))
    }

    /// As [`Self::new`], with its randomness given, from which new identities come.
    #[must_use]
    pub fn with_random(mut options: Options, random: Box<dyn Random>) -> Self {
        options.capabilities =
            options.capabilities & ServerCapabilities::DEFINED | ServerCapabilities::AcceptsStatus.bit();
        Self {
            options,
            random,
            agents: BTreeMap::new(),
            connections: BTreeMap::new(),
            events: VecDeque::new(),
            woken: BTreeSet::new(),
            superseded: BTreeSet::new(),
        }
    }

    /// How it behaves.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// All agents that are known, connected or not.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    /// What is known of one.
    #[must_use]
    pub fn agent(&self, uid: InstanceUid) -> Option<&Agent> {
        self.agents.get(&uid)
    }

    /// The next thing that happened.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The protobuf bytes of a message came on `connection` (`unix_time` after 1970). Every message is to be answered, by [`Self::answer`];
    /// what the events between make the server offer is then in the answer.
    pub fn received(&mut self, now: Instant, unix_time: Duration, connection: Connection, bytes: &[u8]) -> Received {
        self.received_if(now, unix_time, connection, bytes, |_| Ok(()))
    }

    /// As [`Self::received`], if `may_speak` says so of who sent it, and of the name that it is to have from now on if it gets another.
    /// Nothing is known of a message that is refused.
    pub fn received_if(
        &mut self,
        now: Instant,
        unix_time: Duration,
        connection: Connection,
        bytes: &[u8],
        may_speak: impl FnMut(InstanceUid) -> Result<(), Refusal>,
    ) -> Received {
        match self.take(now, unix_time, connection, bytes, may_speak) {
            Ok((uid, known_as, new_uid)) => Received(Ok((uid, known_as, new_uid))),
            Err(error) => Received(Err(error)),
        }
    }

    /// What came on `connection` is no message: see [`Self::answer`].
    pub fn malformed(&self, problem: &wire::WireError) -> Received {
        Received(Err(Box::new(bad_request(Vec::new(), &problem.to_string()))))
    }

    /// The answer to what was received.
    pub fn answer(&mut self, received: Received) -> ServerToAgent {
        match received.0 {
            Ok((uid, known_as, new_uid)) => self.message(uid, known_as, new_uid),
            Err(error) => *error,
        }
    }

    fn take(
        &mut self,
        now: Instant,
        unix_time: Duration,
        connection: Connection,
        bytes: &[u8],
        mut may_speak: impl FnMut(InstanceUid) -> Result<(), Refusal>,
    ) -> Result<(InstanceUid, InstanceUid, Option<InstanceUid>), Box<ServerToAgent>> {
        let limit = self.options.limits.receive;
        let message = if bytes.len() > limit {
            Err(wire::WireError::TooLarge { limit })
        } else {
            wire::decode::<AgentToServer>(bytes)
        };
        let message = message.map_err(|error| bad_request(Vec::new(), &error.to_string()))?;
        // A uid that is none is not sent back: it may be anything.
        let uid = InstanceUid::from_wire(&message.instance_uid);
        let uid = uid.map_err(|error| bad_request(Vec::new(), &error.to_string()))?;
        if self.superseded.contains(&connection.id) {
            let text = "the agent has another connection, or is not admitted any more";
            return Err(Box::new(error(uid.to_wire(), ServerErrorResponseType::Unknown, text, None)));
        }
        let mut admitted = |name| match may_speak(name) {
            Ok(()) => Ok(()),
            Err(Refusal::NotAdmitted(text)) => Err(Box::new(bad_request(uid.to_wire(), text))),
            Err(Refusal::Busy(wait)) => {
                let text = "too many messages; come later";
                Err(Box::new(error(uid.to_wire(), ServerErrorResponseType::Unavailable, text, Some(wait))))
            }
        };
        admitted(uid)?;
        let before = self.agents.get(&uid).and_then(|agent| agent.sequence);
        // Numbers only go up, but for an agent that starts anew or repeats its last request. Two that count each for itself are two
        // agents: a machine was cloned with the other's identity.
        let is_double = before.is_some_and(|last| message.sequence_num > 1 && message.sequence_num < last);
        let is_nameless = message.flags & AgentToServerFlags::RequestInstanceUid as u64 != 0;
        let is_known = self.agents.contains_key(&uid);
        let new_uid = (is_double || is_nameless).then(|| InstanceUid::generate(unix_time, &mut *self.random));
        if let Some(new) = new_uid.filter(|_| is_known) {
            admitted(new)?;
        }
        // The other of a double is one more.
        if (!is_known || is_double) && !self.make_room() {
            let wait = Some(self.options.come_later);
            let text = "the server has as many agents as it can have";
            return Err(Box::new(error(uid.to_wire(), ServerErrorResponseType::Unavailable, text, wait)));
        }
        let name = Name { uid, new_uid, is_double, before };
        let known_as = self.report(now, connection, &name, message);
        Ok((uid, known_as, new_uid))
    }

    /// Forgets the agent that left longest ago, if there are as many as may be.
    fn make_room(&mut self) -> bool {
        if self.agents.len() < self.options.agents {
            return true;
        }
        let gone = self.agents.values().filter(|agent| !agent.is_connected);
        let Some(uid) = gone.min_by_key(|agent| agent.last_seen).map(|agent| agent.uid) else { return false };
        self.agents.remove(&uid);
        true
    }

    /// Takes what an agent said; how it is named from now on.
    fn report(
        &mut self,
        now: Instant,
        connection: Connection,
        &Name { uid, new_uid, is_double, before }: &Name,
        mut message: AgentToServer,
    ) -> InstanceUid {
        let is_gap = before.is_some_and(|last| message.sequence_num != last.wrapping_add(1));
        let mut known_as = uid;
        if let Some(new) = new_uid {
            let known = if is_double { None } else { self.agents.remove(&uid) };
            let agent = known.unwrap_or_else(|| Agent::new(new, now));
            self.agents.insert(new, Agent { uid: new, ..agent });
            if !is_double && let Some(speakers) = self.connections.get_mut(&connection.id) {
                speakers.remove(&uid);
            }
            self.events.push_back(Event::Renamed { from: uid, to: new, is_double });
            known_as = new;
        }
        let accepts = self.options.capabilities;
        let agent = self.agents.entry(known_as).or_insert_with(|| Agent::new(known_as, now));
        let is_new = agent.sequence.is_none();
        if is_gap && message.sequence_num <= 1 {
            agent.restarted();
        }
        let former = agent.connection.replace(connection.id).filter(|&former| former != connection.id);
        agent.stays = connection.stays;
        agent.principal = connection.principal;
        agent.sequence = Some(message.sequence_num);
        agent.last_seen = now;
        let was_connected = agent.is_connected;
        agent.is_connected = message.agent_disconnect.is_none();
        let custom = message.custom_message.take();
        let request = message.connection_settings_request.take();
        let has_description = message.agent_description.is_some();
        agent.update(message, accepts);
        if is_gap && !is_double || is_new && !has_description {
            agent.pending.full_state = true;
        }
        if !was_connected || connection.stays && former.is_some() {
            agent.forget_sent();
        }
        let is_connected = agent.is_connected;
        // One connection an agent: the one that it came on last. One that others speak on, too, stays theirs.
        if let Some(former) = former
            && let Some(speakers) = self.connections.get_mut(&former)
        {
            speakers.remove(&known_as);
            if speakers.is_empty() {
                self.connections.remove(&former);
                self.superseded.insert(former);
                self.woken.insert(former);
            }
        }
        if connection.stays {
            self.connections.entry(connection.id).or_default().insert(known_as);
        }
        if !was_connected && is_connected {
            self.events.push_back(Event::Connected(known_as));
        }
        self.events.push_back(Event::Reported(known_as));
        if !is_connected {
            self.events.push_back(Event::Disconnected(known_as));
        }
        if let Some(custom) = custom.filter(|custom| self.options.custom_capabilities.contains(&custom.capability)) {
            self.events.push_back(Event::Custom { from: known_as, message: custom });
        }
        if let Some(request) = request
            && ServerCapabilities::AcceptsConnectionSettingsRequest.is_in(accepts)
        {
            self.events.push_back(Event::ConnectionSettingsRequest { from: known_as, request });
        }
        known_as
    }

    /// `connection` has ended, with a goodbye or without: whoever spoke on it is gone.
    pub fn closed(&mut self, connection: Connection) {
        self.superseded.remove(&connection.id);
        self.woken.remove(&connection.id);
        for uid in self.connections.remove(&connection.id).unwrap_or_default() {
            if let Some(agent) = self.agents.get_mut(&uid)
                && agent.connection == Some(connection.id)
            {
                agent.connection = None;
                if std::mem::take(&mut agent.is_connected) {
                    self.events.push_back(Event::Disconnected(uid));
                }
            }
        }
    }

    /// Agents over HTTP that were not heard of for `silence` are gone.
    pub fn expire(&mut self, now: Instant, silence: Duration) {
        for agent in self.agents.values_mut() {
            if agent.is_connected && !agent.stays && now.saturating_duration_since(agent.last_seen) > silence {
                agent.is_connected = false;
                agent.connection = None;
                self.events.push_back(Event::Disconnected(agent.uid));
            }
        }
    }

    /// The connections that have something to do since this was last asked: see [`Self::outgoing`].
    pub fn woken(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.woken)
    }

    /// What is to be done on a connection that stays.
    pub fn outgoing(&mut self, connection: Connection) -> Outgoing {
        if self.superseded.contains(&connection.id) {
            return Outgoing::Close;
        }
        let speakers = self.connections.get(&connection.id).cloned().unwrap_or_default();
        let waiting = speakers.into_iter().filter(|uid| self.agents.get(uid).is_some_and(Agent::has_something));
        let waiting: Vec<_> = waiting.collect();
        Outgoing::Send(waiting.into_iter().map(|uid| self.message(uid, uid, None)).collect())
    }

    /// Closes the connections that agents for which `whose` holds have to themselves, as when their credential is no longer good.
    pub fn expel(&mut self, whose: impl Fn(&Agent) -> bool) {
        let agents = &self.agents;
        let all = |speakers: &BTreeSet<InstanceUid>| speakers.iter().all(|uid| agents.get(uid).is_some_and(&whose));
        for (&id, _) in self.connections.iter().filter(|(_, speakers)| all(speakers)) {
            self.superseded.insert(id);
            self.woken.insert(id);
        }
    }

    /// Forgets what `uid` said of itself: its description, health, configuration, packages, and of the rest what is larger than it has to
    /// be, if the application has what it needs of it. What it says next is there again.
    pub fn release(&mut self, uid: InstanceUid) {
        if let Some(agent) = self.agents.get_mut(&uid) {
            agent.release(&self.options.custom_capabilities);
        }
    }

    /// Forgets an agent that is not connected; whether there was one.
    pub fn forget(&mut self, uid: InstanceUid) -> bool {
        let is_gone = self.agents.get(&uid).is_some_and(|agent| !agent.is_connected);
        is_gone && self.agents.remove(&uid).is_some()
    }

    /// Changes what `uid` is offered. On a connection that stays it goes out at once, otherwise with the next answer.
    ///
    /// # Errors
    /// There is no such agent, or the server's own capabilities or the agent's have no place for such an offer.
    pub fn offer(&mut self, uid: InstanceUid, change: impl FnOnce(&mut Offers)) -> Result<(), OfferError> {
        let own = self.options.capabilities;
        let agent = self.agents.get_mut(&uid).ok_or(OfferError::Unknown(uid))?;
        let mut offers = agent.offers.clone();
        change(&mut offers);
        offers.check(&agent.offers, own, agent.capabilities)?;
        agent.offers = offers;
        self.wake(uid);
        Ok(())
    }

    /// Tells `uid` to restart.
    ///
    /// # Errors
    /// There is no such agent, or it does not accept the command.
    pub fn restart(&mut self, uid: InstanceUid) -> Result<(), OfferError> {
        let agent = self.agents.get_mut(&uid).ok_or(OfferError::Unknown(uid))?;
        if !AgentCapabilities::AcceptsRestartCommand.is_in(agent.capabilities) {
            return Err(OfferError::AgentCannot("AcceptsRestartCommand"));
        }
        agent.pending.restart = true;
        self.wake(uid);
        Ok(())
    }

    /// Sends `uid` a custom message, with the next answer at the latest.
    ///
    /// # Errors
    /// There is no such agent, one side does not have the capability, or the last message has not gone out.
    pub fn send_custom(&mut self, uid: InstanceUid, message: CustomMessage) -> Result<(), OfferError> {
        let own = self.options.custom_capabilities.contains(&message.capability);
        let agent = self.agents.get_mut(&uid).ok_or(OfferError::Unknown(uid))?;
        let its = agent.custom_capabilities.as_ref().is_some_and(|all| all.capabilities.contains(&message.capability));
        if !own || !its {
            return Err(OfferError::Custom(message.capability));
        }
        if agent.pending.custom.is_some() {
            return Err(OfferError::Pending);
        }
        agent.pending.custom = Some(message);
        self.wake(uid);
        Ok(())
    }

    /// Asks `uid` for everything, or also for the components that it could run.
    ///
    /// # Errors
    /// There is no such agent.
    pub fn request_state(&mut self, uid: InstanceUid, with_components: bool) -> Result<(), OfferError> {
        let agent = self.agents.get_mut(&uid).ok_or(OfferError::Unknown(uid))?;
        agent.pending.full_state = true;
        agent.pending.components |= with_components;
        self.wake(uid);
        Ok(())
    }

    /// Says no to a request for connection settings, and why.
    ///
    /// # Errors
    /// There is no such agent.
    pub fn refuse_request(&mut self, uid: InstanceUid, reason: impl Into<String>) -> Result<(), OfferError> {
        let agent = self.agents.get_mut(&uid).ok_or(OfferError::Unknown(uid))?;
        agent.pending.refusal = Some(reason.into());
        self.wake(uid);
        Ok(())
    }

    fn wake(&mut self, uid: InstanceUid) {
        if let Some(agent) = self.agents.get_mut(&uid) {
            agent.pending.push = true;
            if let Some(connection) = agent.connection.filter(|_| agent.stays) {
                self.woken.insert(connection);
            }
        }
    }
}
