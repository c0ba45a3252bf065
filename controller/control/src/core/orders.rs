//! What people have the server do.

use std::collections::BTreeSet;

use profiler_opamp::{InstanceUid, server::Registry};

use super::{Core, entry, told, written};
use crate::{
    problem::Problem,
    rollout::{Plan, Rollout},
    store::Revision,
    token::{self, Role, Token},
};

/// Bytes of a configuration.
pub const MAX_TEXT: usize = 1 << 20;
/// Bytes of a name, and of a note or a reason.
const MAX_NAME: usize = 100;
const MAX_NOTE: usize = 1000;
/// Revisions, of all configurations.
const MAX_REVISIONS: i64 = 10_000;
/// Rollouts that are under way at once.
const MAX_ROLLOUTS: usize = 20;
/// Tokens, with those that are revoked.
const MAX_TOKENS: usize = 10_000;

/// What is done to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It stops where it is.
    Pause,
    /// It goes on.
    Resume,
    /// Its agents are to have what they had.
    Revert,
}

impl Verb {
    fn action(self) -> &'static str {
        match self {
            Self::Pause => "rollout.pause",
            Self::Resume => "rollout.resume",
            Self::Revert => "rollout.revert",
        }
    }
}

impl Core {
    /// Saves a configuration. Nobody gets it by that. With `parent`, only if that is the newest of its name (0: if there is none).
    ///
    /// # Errors
    /// It is none, or somebody has saved another meanwhile.
    pub fn save(
        &mut self,
        now: i64,
        who: &str,
        name: &str,
        text: &str,
        note: &str,
        parent: Option<i64>,
    ) -> Result<Revision, Problem> {
        checked_name(name)?;
        if text.len() > MAX_TEXT {
            return Err(Problem::Invalid(format!("a configuration has at most {MAX_TEXT} bytes")));
        }
        if note.len() > MAX_NOTE {
            return Err(Problem::Invalid(format!("a note has at most {MAX_NOTE} bytes")));
        }
        let newest = self.store.newest_revision(name)?;
        if let Some(parent) = parent.filter(|&parent| parent != newest) {
            let text =
                format!("the newest revision of {name} is {newest}, not {parent}: somebody has saved one meanwhile");
            return Err(Problem::Conflict(text));
        }
        let (name, text, note, by) = (name.to_owned(), text.to_owned(), note.to_owned(), who.to_owned());
        self.add(now, Revision { id: 0, hash: written(&text), name, text, created: now, by, note })
    }

    fn add(&mut self, now: i64, revision: Revision) -> Result<Revision, Problem> {
        if self.store.revision_count()? >= MAX_REVISIONS {
            let text = format!("there are {MAX_REVISIONS} revisions, as many as are kept; none is ever deleted");
            return Err(Problem::Conflict(text));
        }
        let (id, note) = self.store.whole(|store| {
            let id = store.add_revision(&revision)?;
            let note = entry(now, &revision.by, "config.save", &format!("revision {id}"), Ok(&revision.name));
            store.note(&note)?;
            Ok((id, note))
        })?;
        told(&note);
        Ok(Revision { id, ..revision })
    }

    /// Saves a revision anew, as one that agents have not failed with yet: its text is theirs to try again.
    ///
    /// # Errors
    /// There is no such revision.
    pub fn retry(&mut self, now: i64, who: &str, id: i64) -> Result<Revision, Problem> {
        let former = self.revision(id)?;
        let hash = written(&format!("{}\0{}\0{now}", former.text, former.hash));
        let note = format!("revision {id} once more");
        self.add(now, Revision { id: 0, hash, by: who.to_owned(), created: now, note, ..(*former).clone() })
    }

    /// Begins a rollout.
    ///
    /// # Errors
    /// The plan is wrong, agents have failed with the revision, or another rollout is under way for some of the same agents.
    pub fn start(&mut self, registry: &mut Registry, now: i64, who: &str, plan: Plan) -> Result<Rollout, Problem> {
        plan.check()?;
        let revision = self.revision(plan.revision)?;
        if let Some((uid, error)) = self.failures(&revision.hash).first() {
            let text = format!(
                "agents have failed with revision {} and are not offered it again ({uid}: {error}): save another, or this one \
                 anew by POST /api/v1/revisions/{}/retry (profiler control config retry {})",
                revision.id, revision.id, revision.id
            );
            return Err(Problem::Conflict(text));
        }
        let under_way: Vec<_> = self.rollouts.values().filter(|rollout| rollout.is_under_way()).collect();
        if under_way.len() >= MAX_ROLLOUTS {
            return Err(Problem::Conflict(format!("{MAX_ROLLOUTS} rollouts are under way; end some first")));
        }
        for other in under_way {
            let both = |labels: &_| other.plan.selector.matches(labels) && plan.selector.matches(labels);
            let shared = self.members.iter().find(|(_, member)| member.can_be_managed() && both(&member.labels));
            if other.plan.selector == plan.selector || shared.is_some() {
                let example = shared.map_or(String::new(), |(uid, _)| format!(" ({uid}, for one)"));
                let text = format!(
                    "rollout {} is under way for some of the same agents{example}: wait for its end, or revert it",
                    other.id
                );
                return Err(Problem::Conflict(text));
            }
        }
        let id = self.store.next_rollout()?;
        let salt = token::secret().map_err(|error| Problem::Internal(format!("no randomness: {error}")))?;
        let rollout = Rollout::new(id, plan, who.to_owned(), now, salt);
        let text = format!("revision {} to {:?}", rollout.plan.revision, rollout.plan.selector.to_string());
        let note = entry(now, who, "rollout.start", &format!("rollout {id}"), Ok(&text));
        self.settle(registry, rollout.clone(), &[], now, Some(note), false)?;
        Ok(rollout)
    }

    /// Does something to the rollout with this number; with a version, only if that is what it still is.
    ///
    /// # Errors
    /// There is none, it is not in a state for that, or somebody has changed it meanwhile.
    pub fn change(
        &mut self,
        registry: &mut Registry,
        now: i64,
        who: &str,
        (id, version): (i64, Option<u64>),
        verb: Verb,
        reason: &str,
    ) -> Result<Rollout, Problem> {
        let mut rollout = self.rollouts.get(&id).cloned().ok_or_else(|| Problem::Missing(format!("rollout {id}")))?;
        if let Some(version) = version.filter(|&version| version != rollout.version) {
            let now = rollout.version;
            let text = format!(
                "rollout {id} is at version {now}, not {version}: look at it again; somebody else has changed it, or it has gone on"
            );
            return Err(Problem::Conflict(text));
        }
        if reason.len() > MAX_NOTE {
            return Err(Problem::Invalid(format!("a reason has at most {MAX_NOTE} bytes")));
        }
        let said = if reason.is_empty() { format!("by {who}") } else { format!("by {who}: {reason}") };
        match verb {
            Verb::Pause => rollout.pause(said)?,
            Verb::Resume => rollout.resume(now)?,
            Verb::Revert => rollout.revert(said)?,
        }
        let note = entry(now, who, verb.action(), &format!("rollout {id}"), Ok(reason));
        self.settle(registry, rollout.clone(), &[], now, Some(note), false)?;
        Ok(rollout)
    }

    /// Forgets an agent that is not connected.
    ///
    /// # Errors
    /// It is not known, or connected.
    pub fn forget(&mut self, registry: &mut Registry, now: i64, who: &str, uid: InstanceUid) -> Result<(), Problem> {
        let member = self.members.get(&uid).ok_or_else(|| Problem::Missing(format!("agent {uid}")))?;
        if member.connected {
            return Err(Problem::Conflict(format!("agent {uid} is connected; revoke its token to have it leave")));
        }
        let note = entry(now, who, "agent.forget", &uid.to_string(), Ok(""));
        self.store.whole(|store| {
            store.remove_agent(&uid.to_string())?;
            store.note(&note)
        })?;
        told(&note);
        self.forgotten(uid);
        registry.forget(uid);
        Ok(())
    }

    /// All tokens, without their secrets.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values()
    }

    /// Makes a token; it is never shown again.
    ///
    /// # Errors
    /// The name is none, or there is no randomness.
    pub fn make_token(&mut self, now: i64, who: &str, name: &str, role: Role) -> Result<(Token, String), Problem> {
        self.make_token_for(now, who, name, role, |_| Ok(()))
    }

    /// As [`Self::make_token`], if `give` has given it to its holder: a token that nobody has is not kept.
    pub(crate) fn make_token_for(
        &mut self,
        now: i64,
        who: &str,
        name: &str,
        role: Role,
        give: impl FnOnce(&str) -> Result<(), Problem>,
    ) -> Result<(Token, String), Problem> {
        checked_name(name)?;
        if self.tokens.len() >= MAX_TOKENS {
            return Err(Problem::Conflict(format!("there were {MAX_TOKENS} tokens; one token may serve many agents")));
        }
        let secret = token::secret().map_err(|error| Problem::Internal(format!("no randomness: {error}")))?;
        let hash = token::hash(&secret);
        let (id, text, note) = self.store.whole(|store| {
            let id = store.add_token(name, role, &hash, who, now)?;
            let note = entry(now, who, "token.make", &format!("token {id}"), Ok(&format!("{name}, {}", role.name())));
            store.note(&note)?;
            let text = token::written(id, &secret);
            give(&text)?;
            Ok((id, text, note))
        })?;
        told(&note);
        let token = Token { id, name: name.to_owned(), role, created: now, by: who.to_owned(), revoked: None, hash };
        self.tokens.insert(id, token.clone());
        Ok((token, text))
    }

    /// Ends a token: nobody comes by it any more, and agents that came by it are disconnected.
    ///
    /// # Errors
    /// There is none, or it is the last one of an admin.
    pub fn revoke(&mut self, registry: &mut Registry, now: i64, who: &str, id: i64) -> Result<(), Problem> {
        let token = self.tokens.get(&id).ok_or_else(|| Problem::Missing(format!("token {id}")))?;
        let admins = self.tokens.values().filter(|token| token.role == Role::Admin && token.revoked.is_none());
        if admins.map(|token| token.id).collect::<BTreeSet<_>>() == BTreeSet::from([id]) {
            return Err(Problem::Conflict("it is the last token of an admin: make another first".to_owned()));
        }
        if token.revoked.is_some() {
            return Err(Problem::Conflict(format!("token {id} is revoked already")));
        }
        let note = entry(now, who, "token.revoke", &format!("token {id}"), Ok(""));
        self.store.whole(|store| {
            store.revoke_token(id, now)?;
            store.note(&note)
        })?;
        told(&note);
        if let Some(token) = self.tokens.get_mut(&id) {
            token.revoked = Some(now);
        }
        registry.expel(|agent| i64::try_from(agent.principal) == Ok(id));
        Ok(())
    }
}

fn checked_name(name: &str) -> Result<(), Problem> {
    let is_right = (1..=MAX_NAME).contains(&name.len())
        && name.chars().all(|character| character.is_alphanumeric() || matches!(character, '.' | '_' | '-'));
    let text = || format!("{name:?} is no name: 1 to {MAX_NAME} letters, digits, dots, - and _");
    if is_right { Ok(()) } else { Err(Problem::Invalid(text().chars().take(300).collect())) }
}
