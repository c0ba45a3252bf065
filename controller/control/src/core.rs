//! The server's state and what it decides: agents, revisions, rollouts, tokens, audit. What it decides is on disk before an agent hears
//! of it. It is given the registry of agents, through which it offers, and the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use profiler_opamp::{
    InstanceUid,
    messages::{AgentConfigMap, AgentConfigObject, AgentRemoteConfig},
};
use sha2::{Digest, Sha256};

use crate::{
    fleet::{Member, begin},
    problem::Problem,
    rollout::Rollout,
    store::{Entry, Failure, Revision, Store},
    token::{self, Token, hex},
};

mod orders;
mod pace;
mod reports;
mod room;
mod walk;

use pace::{Pace, Rate};

pub use orders::{MAX_TEXT, Verb};

#[cfg(test)]
mod tests;

/// Agents that are known.
pub const MAX_AGENTS: usize = 20_000;

/// What the holder of a token is not let do, and what agents cause, as the audit log has it, of each kind and token: whoever wants to
/// fill it cannot, and hides nothing that others do.
const NOTES: Rate = Rate { burst: 100, interval: 1000 };
/// What people without a token have written down.
const STRANGERS: Rate = Rate { burst: 1, interval: 1000 };

/// What stands for no configuration, where there is to be a hash. A revision may be empty.
const OWN: &str = "\0the agent's own configuration";

/// Counters since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of agents.
    pub reports: u64,
    /// Requests of people and agents without a token, or with none that is good.
    pub unauthorized: u64,
    /// Requests that a role did not allow.
    pub forbidden: u64,
    /// Messages in the name of an agent that came by a token of another name.
    pub stolen: u64,
    /// Messages of agents that were too many.
    pub too_many: u64,
    /// Configurations that agents reported FAILED.
    pub failed: u64,
    /// Writes that the database did not take.
    pub lost_writes: u64,
}

/// The state.
pub struct Core {
    store: Store,
    members: BTreeMap<InstanceUid, Member>,
    rollouts: BTreeMap<i64, Rollout>,
    /// As they were read, and each text as all of its offers share it.
    revisions: BTreeMap<i64, (Arc<Revision>, Bytes)>,
    /// What agents have failed with: by the hash, then the agent.
    failures: BTreeMap<String, BTreeMap<InstanceUid, String>>,
    tokens: BTreeMap<i64, Token>,
    /// Agents of which more is known than is on disk.
    unkept: BTreeSet<InstanceUid>,
    /// When each agent was last written, ms since 1970.
    kept_at: BTreeMap<InstanceUid, i64>,
    /// Rollouts that a gate has stopped and that are not on disk so, and what the audit log is to have of that.
    unwritten: BTreeMap<i64, Option<Entry>>,
    /// The database did not take the last write.
    is_failing: bool,
    /// When to try again then, ms since 1970, and how long after the last attempt that is, ms.
    retry: (i64, i64),
    /// Something happened that a rollout may wait for.
    stirred: bool,
    /// When rollouts were last looked at, ms since 1970.
    looked: i64,
    /// When this server began: agents could not be heard before, ms since 1970.
    started: i64,
    /// How often each agent speaks.
    speaking: BTreeMap<InstanceUid, Pace>,
    /// How often agents that are not known come, by token.
    coming: BTreeMap<u64, Pace>,
    /// What was written down as often as it may be, by its kind and the token, and how often it was not.
    noted: BTreeMap<(&'static str, u64), (Pace, u64)>,
    /// Agents that may be known at once.
    places: usize,
    /// Bytes of effective configurations that are kept.
    config_bytes: usize,
    /// What happened.
    pub counters: Counters,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl Core {
    /// As `store` has it. What it has of a time that is still to come was written with a clock that was ahead: gates would wait for it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(store: Store, now: i64) -> Result<Self, Problem> {
        let mut members = BTreeMap::new();
        let mut config_bytes = 0;
        for (uid, mut member) in store.agents()? {
            member.connected = false;
            member.last_seen = member.last_seen.min(now);
            for assignment in &mut member.assignments {
                assignment.since = assignment.since.min(now - 1);
            }
            if let Ok(uid) = uid.parse() {
                config_bytes += member.config_bytes();
                members.insert(uid, member);
            }
        }
        let mut failures = BTreeMap::<String, BTreeMap<_, _>>::new();
        for Failure { hash, uid, error, .. } in store.failures()? {
            if let Ok(uid) = uid.parse() {
                failures.entry(hash).or_default().insert(uid, error);
            }
        }
        let rollouts = store.rollouts()?.into_iter().map(|mut rollout| {
            rollout.filled = rollout.filled.map(|since| since.min(now));
            (rollout.id, rollout)
        });
        let rollouts = rollouts.collect();
        let tokens = store.tokens()?.into_iter().map(|token| (token.id, token)).collect();
        Ok(Self {
            store,
            members,
            rollouts,
            revisions: BTreeMap::new(),
            failures,
            tokens,
            unkept: BTreeSet::new(),
            kept_at: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            is_failing: false,
            retry: (0, 0),
            stirred: true,
            looked: 0,
            started: now,
            speaking: BTreeMap::new(),
            coming: BTreeMap::new(),
            noted: BTreeMap::new(),
            places: MAX_AGENTS,
            config_bytes,
            counters: Counters::default(),
        })
    }

    /// Whose token `text` is, if it is a good one.
    #[must_use]
    pub fn token(&self, text: &str) -> Option<&Token> {
        let (id, secret) = token::parse(text)?;
        self.tokens.get(&id).filter(|token| token.is_of(secret))
    }

    /// All agents.
    pub fn members(&self) -> impl Iterator<Item = (InstanceUid, &Member)> {
        self.members.iter().map(|(uid, member)| (*uid, member))
    }

    /// One of them.
    #[must_use]
    pub fn member(&self, uid: InstanceUid) -> Option<&Member> {
        self.members.get(&uid)
    }

    /// All rollouts.
    pub fn rollouts(&self) -> impl Iterator<Item = &Rollout> {
        self.rollouts.values()
    }

    /// What is kept.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What agents reported of the configuration with `hash`.
    #[must_use]
    pub fn failures(&self, hash: &str) -> Vec<(InstanceUid, &str)> {
        let failures = self.failures.get(hash).into_iter().flatten();
        failures.map(|(uid, error)| (*uid, error.as_str())).collect()
    }

    /// Whether an agent reported FAILED of the configuration with `hash`.
    #[must_use]
    pub fn has_failed(&self, hash: &str, uid: InstanceUid) -> bool {
        self.failures.get(hash).is_some_and(|agents| agents.contains_key(&uid))
    }

    /// A revision, read once.
    ///
    /// # Errors
    /// There is none with this number.
    pub fn revision(&mut self, id: i64) -> Result<Arc<Revision>, Problem> {
        self.revision_and_body(id).map(|(revision, _)| revision)
    }

    fn revision_and_body(&mut self, id: i64) -> Result<(Arc<Revision>, Bytes), Problem> {
        if let Some(known) = self.revisions.get(&id) {
            return Ok(known.clone());
        }
        let revision = self.store.revision(id)?.ok_or_else(|| Problem::Missing(format!("revision {id}")))?;
        let known = (Arc::new(revision.clone()), Bytes::from(revision.text));
        if self.revisions.len() >= 256 {
            self.revisions.clear();
        }
        self.revisions.insert(id, known.clone());
        Ok(known)
    }

    /// Writes down that `who` did something, or was not let.
    pub fn note(&mut self, now: i64, who: &str, action: &str, object: &str, done: Result<&str, &str>) {
        let entry = entry(now, who, action, object, done);
        let written = self.store.note(&entry);
        told(&entry);
        self.kept(written);
    }

    /// Writes down what an agent caused or somebody was not let do, as often as the rate allows: they may do it as often as they like.
    fn note_rarely(
        &mut self,
        now: i64,
        (kind, principal, rate): (&'static str, u64, Rate),
        who: &str,
        (action, object): (&str, &str),
        done: Result<&str, &str>,
    ) {
        let (pace, left_out) = self.noted.entry((kind, principal)).or_default();
        if pace.step(rate, now).is_err() {
            *left_out += 1;
            return;
        }
        match std::mem::take(left_out) {
            0 => self.note(now, who, action, object, done),
            more => {
                let with = |text: &str| format!("{text} ({more} more before were not written down)");
                let (text, other) = (done.map(with), done.map_err(with));
                let done = text.as_deref().map_err(|_| other.as_ref().err().map_or("", String::as_str));
                self.note(now, who, action, object, done);
            }
        }
    }

    /// Somebody has no good token.
    pub fn unauthorized(&mut self, now: i64, what: &str) {
        self.counters.unauthorized += 1;
        let reason = "no token, or none that is good here";
        self.note_rarely(now, ("unauthorized", 0, STRANGERS), "nobody", ("unauthorized", what), Err(reason));
    }

    /// The role of a token does not allow what its holder asked for.
    pub(crate) fn forbidden(&mut self, now: i64, token: &Token, action: &str, reason: &str) {
        self.counters.forbidden += 1;
        let (who, principal) = (token.written_name(), token.principal());
        self.note_rarely(now, ("forbidden", principal, NOTES), &who, (action, ""), Err(reason));
    }

    /// Somebody asked for something that is not done.
    pub(crate) fn refused(&mut self, now: i64, (who, principal): (&str, u64), action: &str, object: &str, why: &str) {
        self.note_rarely(now, ("refused", principal, NOTES), who, (action, object), Err(why));
    }

    /// Whether the database answers, and took the last write.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self) -> Result<(), Problem> {
        if self.is_failing {
            return Err(Problem::Internal("the database does not take what is to be written; see the log".to_owned()));
        }
        self.store.check()
    }

    fn kept(&mut self, written: Result<(), Problem>) {
        self.is_failing = written.is_err();
        if let Err(error) = written {
            self.counters.lost_writes += 1;
            tracing::error!(%error, "What happened could not be written down.");
        }
    }

    /// How the audit log names who came by a token.
    #[must_use]
    pub fn token_name(&self, principal: u64) -> String {
        let token = i64::try_from(principal).ok().and_then(|id| self.tokens.get(&id));
        token.map_or("nobody".to_owned(), Token::written_name)
    }
}

/// What the audit log has of something.
fn entry(now: i64, who: &str, action: &str, object: &str, done: Result<&str, &str>) -> Entry {
    let (outcome, detail) = match done {
        Ok(detail) => ("done", detail),
        Err(reason) => ("refused", reason),
    };
    let (who, action, outcome) = (who.into(), action.into(), outcome.into());
    Entry {
        id: 0,
        at: now,
        who,
        action,
        object: begin(object, 512).to_owned(),
        outcome,
        detail: begin(detail, 2048).to_owned(),
    }
}

/// Says it to the log of the process, too.
fn told(entry: &Entry) {
    let Entry { who, action, object, outcome, detail, .. } = entry;
    tracing::info!(who, action, object, outcome, detail, "audit");
}

/// The hash by which agents know a configuration.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The hash of a configuration for an agent; nothing is its own alone.
fn remote_hash(revision: Option<&Revision>) -> Vec<u8> {
    revision.map_or_else(|| hash(OWN).to_vec(), |revision| token::unhex(&revision.hash))
}

/// A configuration for an agent.
fn remote(body: Option<Bytes>, config_hash: Vec<u8>) -> AgentRemoteConfig {
    let object = body.map(|body| AgentConfigObject {
        body,
        content_type: "text/yaml".to_owned(),
        ..AgentConfigObject::default()
    });
    let config_map = object.into_iter().map(|object| (String::new(), object)).collect();
    AgentRemoteConfig { config: Some(AgentConfigMap { config_map }), config_hash }
}

/// A hash as revisions have it.
pub(crate) fn written(text: &str) -> String {
    hex(&hash(text))
}
