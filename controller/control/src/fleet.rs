//! An agent as the control server knows it: what it said last, and what it is to have.

use std::collections::BTreeMap;

use profiler_opamp::{
    messages::{
        AgentCapabilities, AgentDescription, AnyValue, ComponentHealth, RemoteConfigStatuses, any_value::Value,
    },
    server::Agent,
};
use serde::{Deserialize, Serialize};

use crate::token::hex;

/// Labels of an agent that are kept, and bytes of each.
const LABELS: usize = 128;
const LABEL_BYTES: usize = 512;
/// Bytes of all labels, and of all parts, of an agent.
const ALL_BYTES: usize = 16 << 10;
/// Bytes of an effective configuration that are kept.
const CONFIG_BYTES: usize = 128 << 10;
/// Bytes of what an agent says of an error.
const ERROR_BYTES: usize = 2 << 10;
/// Parts of an agent whose health is kept.
const COMPONENTS: usize = 64;
/// Earlier configurations that an agent can go back to.
const HISTORY: usize = 8;

/// An agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// What its labels call its version.
    pub version: String,
    /// Its attributes, identifying and not, as text.
    pub labels: BTreeMap<String, String>,
    /// Whether it says that it is well, if it does.
    pub healthy: Option<bool>,
    /// How it says that it is.
    pub status: String,
    /// What it says is wrong with it.
    pub last_error: String,
    /// Its parts: what is wrong with each, or nothing.
    pub components: BTreeMap<String, String>,
    /// What runs, if it says so.
    pub effective_config: Option<String>,
    /// What became of the configuration that it was last offered.
    pub config: Option<ConfigStatus>,
    /// The hash of the last configuration that it said works, in hexadecimal: what it goes back to when it fails with another one.
    #[serde(default)]
    pub(crate) applied: Option<String>,
    /// Bits of [`AgentCapabilities`].
    pub capabilities: u64,
    /// The number of the token that it came by.
    pub token: i64,
    /// It is connected now.
    pub connected: bool,
    /// When it last said something, ms since 1970.
    pub last_seen: i64,
    /// It said goodbye when it left.
    #[serde(default)]
    pub left: bool,
    /// Since when it runs what it said APPLIED of, and is well, ms since 1970; later by the times in which it was not connected. Not kept:
    /// what was while this server was not there, nobody has seen.
    #[serde(skip)]
    pub(crate) well_since: Option<i64>,
    /// It has said something since this process began.
    #[serde(skip)]
    pub(crate) is_heard: bool,
    /// What it is to have: the last of these. Those before are what it goes back to.
    pub assignments: Vec<Assignment>,
    /// It was given a configuration once. If it is to have none now, it gets its own back.
    pub is_managed: bool,
}

/// What became of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Its hash, in hexadecimal.
    pub hash: String,
    /// `APPLYING`, `APPLIED`, `FAILED` or `UNSET`.
    pub status: String,
    /// Why it failed.
    pub error: String,
}

/// A configuration that an agent is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which.
    pub revision: i64,
    /// The rollout that says so.
    pub rollout: i64,
    /// Since when, ms since 1970.
    pub since: i64,
}

impl Member {
    /// Takes what the agent says now.
    pub(crate) fn update(&mut self, agent: &Agent, now: i64) {
        let (since, applied) = (self.well_since, self.applied.take());
        let away = if self.connected { 0 } else { now - self.last_seen };
        self.connected = agent.is_connected;
        self.left = !agent.is_connected;
        self.last_seen = now;
        self.is_heard = true;
        self.capabilities = agent.capabilities;
        self.token = i64::try_from(agent.principal).unwrap_or_default();
        if let Some(description) = &agent.description {
            self.labels = labels(description);
            self.version = self.labels.get("service.version").cloned().unwrap_or_default();
        }
        if let Some(health) = &agent.health {
            self.take_health(health);
        }
        if let Some(config) = agent.effective_config.as_ref().and_then(|config| config.config_map.as_ref()) {
            let mut text = String::new();
            for (name, object) in &config.config_map {
                if !name.is_empty() {
                    text.push_str(&format!("# {}\n", shortened(name, LABEL_BYTES)));
                }
                text.push_str(&String::from_utf8_lossy(&object.body));
                if text.len() > CONFIG_BYTES {
                    break;
                }
            }
            self.effective_config = Some(shortened(&text, CONFIG_BYTES));
        }
        if let Some(status) = &agent.remote_config_status {
            let word = match status.status() {
                RemoteConfigStatuses::Unset => "UNSET",
                RemoteConfigStatuses::Applied => "APPLIED",
                RemoteConfigStatuses::Applying => "APPLYING",
                RemoteConfigStatuses::Failed => "FAILED",
            };
            let hash = status.last_remote_config_hash.get(..64.min(status.last_remote_config_hash.len()));
            self.config = Some(ConfigStatus {
                hash: hex(hash.unwrap_or_default()),
                status: word.to_owned(),
                error: shortened(&status.error_message, ERROR_BYTES),
            });
        }
        let works = self.config.as_ref().filter(|status| status.status == "APPLIED").map(|status| status.hash.clone());
        let is_well = works.is_some() && self.healthy != Some(false);
        // One that was started anew may have ended by it.
        let is_anew = agent.sequence.is_some_and(|number| number <= 1);
        self.well_since = match since {
            _ if !is_well => None,
            Some(since) if !is_anew && applied == works => Some((since + away).min(now)),
            _ => Some(now),
        };
        self.applied = works.or(applied);
    }

    fn take_health(&mut self, health: &ComponentHealth) {
        self.healthy = Some(health.healthy);
        self.status = shortened(&health.status, ERROR_BYTES);
        self.last_error = shortened(&health.last_error, ERROR_BYTES);
        let parts = health.component_health_map.iter().take(COMPONENTS);
        self.components = bounded(parts.map(|(name, part)| {
            let trouble = match (part.healthy, part.last_error.is_empty()) {
                (true, _) => "",
                (false, true) => "unhealthy",
                (false, false) => &part.last_error,
            };
            (shortened(name, LABEL_BYTES), shortened(trouble, ERROR_BYTES))
        }));
    }

    /// What is known of it, without its configuration.
    pub(crate) fn brief(&self) -> Self {
        let Self { version, labels, status, last_error, components, config, applied, assignments, .. } = self;
        Self {
            version: version.clone(),
            labels: labels.clone(),
            status: status.clone(),
            last_error: last_error.clone(),
            components: components.clone(),
            effective_config: None,
            config: config.clone(),
            applied: applied.clone(),
            assignments: assignments.clone(),
            ..*self
        }
    }

    /// Bytes of the configuration that is kept.
    pub(crate) fn config_bytes(&self) -> usize {
        self.effective_config.as_ref().map_or(0, String::len)
    }

    /// Whether it takes configurations and says what became of them.
    #[must_use]
    pub fn can_be_managed(&self) -> bool {
        AgentCapabilities::AcceptsRemoteConfig.is_in(self.capabilities)
            && AgentCapabilities::ReportsRemoteConfig.is_in(self.capabilities)
    }

    /// Whether it can be given a configuration now: it is connected and does not say that it is unwell.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.connected && self.healthy != Some(false)
    }

    /// What it is to have.
    #[must_use]
    pub fn assignment(&self) -> Option<Assignment> {
        self.assignments.last().copied()
    }

    pub(crate) fn assign(&mut self, assignment: Assignment) {
        self.is_managed = true;
        self.assignments.retain(|former| former.rollout != assignment.rollout);
        if self.assignments.len() >= HISTORY {
            self.assignments.remove(0);
        }
        self.assignments.push(assignment);
    }

    /// It is not to have what `rollout` gave it; whether that changes anything.
    pub(crate) fn take_back(&mut self, rollout: i64) -> bool {
        let before = self.assignments.len();
        self.assignments.retain(|assignment| assignment.rollout != rollout);
        self.assignments.len() != before
    }
}

fn labels(description: &AgentDescription) -> BTreeMap<String, String> {
    let all = description.identifying_attributes.iter().chain(&description.non_identifying_attributes);
    let all = all.filter(|attribute| attribute.key.len() <= LABEL_BYTES).take(LABELS);
    bounded(all.map(|attribute| {
        (shortened(&attribute.key, LABEL_BYTES), shortened(&value(attribute.value.as_ref()), LABEL_BYTES))
    }))
}

/// As many of these as have room; the first of a name counts.
fn bounded(pairs: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let (mut kept, mut bytes) = (BTreeMap::new(), 0);
    for (key, value) in pairs {
        bytes += key.len() + value.len();
        if bytes > ALL_BYTES {
            break;
        }
        kept.entry(key).or_insert(value);
    }
    kept
}

fn value(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(Value::BytesValue(bytes)) => hex(bytes.get(..bytes.len().min(LABEL_BYTES)).unwrap_or_default()),
        Some(Value::ArrayValue(_) | Value::KvlistValue(_)) => "[...]".to_owned(),
        None => String::new(),
    }
}

/// At most `bytes` of it.
pub(crate) fn begin(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// At most `bytes` of it, without control characters but for lines' ends and tabs.
fn shortened(text: &str, bytes: usize) -> String {
    begin(text, bytes).chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}
