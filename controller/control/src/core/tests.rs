//! The server's state with simulated agents, over a database on disk, from which it starts anew at any moment.

use std::time::{Duration, Instant};

use profiler_opamp::{
    messages::{
        AgentCapabilities, AgentDescription, AgentDisconnect, AgentToServer, AgentToServerFlags, AnyValue,
        ComponentHealth, KeyValue, RemoteConfigStatus, RemoteConfigStatuses, ServerErrorResponseType, ServerToAgent,
        any_value::Value,
    },
    server::{self, Connection, Outgoing, Registry},
    wire,
};
use tempfile::TempDir;

use super::*;
use crate::{
    rollout::{Gates, OnFailure, Phase, Plan, Step},
    token::Role,
};

mod access;
mod rollouts;

const SECOND: i64 = 1000;
const LIMIT: usize = 8 << 20;

fn uid(number: u8) -> InstanceUid {
    InstanceUid::from_wire(&[number; 16]).unwrap()
}

/// An agent, as far as it lasts when the server does not.
#[derive(Clone, Debug, Default)]
struct Simulated {
    connection: Option<u64>,
    sequence: u64,
    token: u64,
    healthy: bool,
    status: Option<RemoteConfigStatus>,
    text: Option<String>,
    /// Hashes that it was given, in order.
    given: Vec<String>,
}

struct World {
    folder: TempDir,
    core: Option<Core>,
    registry: Registry,
    now: i64,
    connections: u64,
    token: u64,
    agents: BTreeMap<u8, Simulated>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            core: None,
            registry: Registry::new(server::Options::default()),
            now: 1_700_000_000_000,
            connections: 0,
            token: 0,
            agents: BTreeMap::new(),
        };
        world.restart();
        let now = world.now;
        world.core().make_token(now, "test", "admin", Role::Admin).unwrap();
        world.token = world.make_token("fleet");
        world
    }

    /// With so many agents that are connected.
    fn with(count: u8) -> Self {
        let mut world = Self::new();
        (1..=count).for_each(|number| world.connect(number));
        world.settle();
        world
    }

    /// As after kill -9: what is not on disk is gone. Agents have to connect again.
    fn restart(&mut self) {
        self.core = None;
        let store = Store::open(&self.folder.path().join("control.sqlite")).unwrap();
        self.core = Some(Core::new(store, self.now).unwrap());
        self.registry = Registry::new(server::Options::default());
        self.agents.values_mut().for_each(|agent| agent.connection = None);
    }

    fn core(&mut self) -> &mut Core {
        self.core.as_mut().unwrap()
    }

    fn make_token(&mut self, name: &str) -> u64 {
        let now = self.now;
        u64::try_from(self.core().make_token(now, "test", name, Role::Agent).unwrap().0.id).unwrap()
    }

    fn events(&mut self) {
        while let Some(event) = self.registry.next_event() {
            self.core.as_mut().unwrap().happened(&mut self.registry, &event, self.now);
        }
    }

    fn connect(&mut self, number: u8) {
        self.connections += 1;
        let agent = self.agents.entry(number).or_insert_with(|| Simulated { healthy: true, ..Simulated::default() });
        if agent.token == 0 {
            agent.token = self.token;
        }
        agent.connection = Some(self.connections);
        let env = if number.is_multiple_of(2) { "prod" } else { "test" };
        self.describes(number, &[("host.name", &format!("host-{number}")), ("env", env)]);
    }

    /// An agent says its labels.
    fn describes(&mut self, number: u8, labels: &[(&str, &str)]) {
        let attributes = labels.iter().map(|(key, value)| KeyValue {
            key: (*key).to_owned(),
            value: Some(AnyValue { value: Some(Value::StringValue((*value).to_owned())) }),
        });
        let description =
            AgentDescription { non_identifying_attributes: attributes.collect(), ..AgentDescription::default() };
        let answer =
            self.says(number, AgentToServer { agent_description: Some(description), ..AgentToServer::default() });
        self.hears(number, &answer);
    }

    fn leaves(&mut self, number: u8) {
        let agent = self.agents.get_mut(&number).unwrap();
        let connection = Connection { id: agent.connection.take().unwrap(), stays: true, principal: agent.token };
        self.registry.closed(connection);
        self.events();
    }

    fn says(&mut self, number: u8, message: AgentToServer) -> ServerToAgent {
        let agent = self.agents.get_mut(&number).unwrap();
        agent.sequence += 1;
        let capabilities = AgentCapabilities::ReportsStatus.bit()
            | AgentCapabilities::AcceptsRemoteConfig.bit()
            | AgentCapabilities::ReportsRemoteConfig.bit()
            | AgentCapabilities::ReportsHealth.bit();
        let health =
            ComponentHealth { healthy: agent.healthy, last_error: "no samples".into(), ..ComponentHealth::default() };
        let message = AgentToServer {
            instance_uid: uid(number).to_wire(),
            sequence_num: agent.sequence,
            capabilities,
            health: Some(health),
            remote_config_status: agent.status.clone(),
            ..message
        };
        let connection = Connection { id: agent.connection.unwrap(), stays: true, principal: agent.token };
        self.received(connection, &message)
    }

    fn received(&mut self, connection: Connection, message: &AgentToServer) -> ServerToAgent {
        let (bytes, now) = (wire::body(message, LIMIT).unwrap(), self.now);
        let core = self.core.as_mut().unwrap();
        let may_speak = |uid| core.may_speak(uid, connection.principal, false, now);
        let since = Duration::from_millis(u64::try_from(now).unwrap());
        let received = self.registry.received_if(Instant::now(), since, connection, &bytes, may_speak);
        self.events();
        let answer = self.registry.answer(received);
        self.events();
        answer
    }

    /// An agent tries what it is given: what has `bad` in it fails, what has `slow` in it is never done.
    fn hears(&mut self, number: u8, message: &ServerToAgent) {
        let Some(offer) = &message.remote_config else { return };
        let agent = self.agents.get_mut(&number).unwrap();
        let object = offer.config.as_ref().and_then(|config| config.config_map.get(""));
        let text = object.map(|object| String::from_utf8(object.body.to_vec()).unwrap());
        agent.given.push(hex(&offer.config_hash));
        let is_bad = text.as_ref().is_some_and(|text| text.contains("bad"));
        let status = match &text {
            Some(text) if text.contains("slow") => RemoteConfigStatuses::Applying,
            _ if is_bad => RemoteConfigStatuses::Failed,
            _ => RemoteConfigStatuses::Applied,
        };
        if status == RemoteConfigStatuses::Applied {
            agent.healthy = text.as_ref().is_none_or(|text| !text.contains("sick"));
            agent.text = text;
        }
        agent.status = Some(RemoteConfigStatus {
            last_remote_config_hash: offer.config_hash.clone(),
            status: status.into(),
            error_message: if is_bad { "it is bad".into() } else { String::new() },
        });
        let answer = self.says(number, AgentToServer::default());
        self.hears(number, &answer);
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            self.core.as_mut().unwrap().tick(&mut self.registry, self.now);
            self.events();
            let woken = self.registry.woken();
            let speaks = |agent: &Simulated| agent.connection.is_some_and(|id| woken.contains(&id));
            let numbers: Vec<u8> =
                self.agents.iter().filter(|(_, agent)| speaks(agent)).map(|(&number, _)| number).collect();
            if numbers.is_empty() {
                return;
            }
            for number in numbers {
                let connection = self.connection(number);
                match self.registry.outgoing(connection) {
                    Outgoing::Close => self.leaves(number),
                    Outgoing::Send(messages) => messages.iter().for_each(|message| self.hears(number, message)),
                }
            }
        }
    }

    fn connection(&self, number: u8) -> Connection {
        let agent = &self.agents[&number];
        Connection { id: agent.connection.unwrap(), stays: true, principal: agent.token }
    }

    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.settle();
        }
    }

    fn save(&mut self, text: &str) -> Revision {
        let now = self.now;
        self.core().save(now, "op", "fleet", text, "", None).unwrap()
    }

    fn start(&mut self, revision: i64, weights: &[f64], on_failure: OnFailure) -> Result<i64, Problem> {
        self.start_for("", revision, weights, on_failure)
    }

    /// For the agents that `selector` means.
    fn start_for(
        &mut self,
        selector: &str,
        revision: i64,
        weights: &[f64],
        on_failure: OnFailure,
    ) -> Result<i64, Problem> {
        let steps = weights.iter().map(|&weight| Step { weight, soak_seconds: 5 }).collect();
        let gates = Gates { lost_seconds: 20, answer_seconds: 30, ..Gates::default() };
        let plan = Plan { revision, selector: selector.parse().unwrap(), steps, gates, on_failure };
        let started = self.core.as_mut().unwrap().start(&mut self.registry, self.now, "op", plan)?;
        self.settle();
        Ok(started.id)
    }

    fn rollout(&self, id: i64) -> &Rollout {
        self.core.as_ref().unwrap().rollouts().find(|rollout| rollout.id == id).unwrap()
    }

    fn running(&self, text: &str) -> usize {
        self.agents.values().filter(|agent| agent.text.as_deref() == Some(text)).count()
    }

    fn audited(&self, action: &str) -> Vec<Entry> {
        let entries = self.core.as_ref().unwrap().store().audit(i64::MAX, 1000).unwrap();
        entries.into_iter().filter(|entry| entry.action == action).collect()
    }
}

fn refusal(answer: &ServerToAgent) -> Option<ServerErrorResponseType> {
    answer.error_response.as_ref().map(|error| error.r#type())
}
