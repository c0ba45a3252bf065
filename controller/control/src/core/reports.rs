//! What agents say, and what they are offered.

use std::time::Duration;

use profiler_opamp::{
    InstanceUid,
    server::{Event, Refusal, Registry},
};

use super::{Core, MAX_AGENTS, NOTES, Rate, remote};
use crate::{
    fleet::{Assignment, Member},
    rollout::Phase,
    store::Failure,
    token::{Role, Token},
};

/// Messages of an agent: it reports what changes, and otherwise every half minute.
const SPEAKING: Rate = Rate { burst: 100, interval: 200 };
/// Agents that nobody knew, by one token: a fleet that comes at once is there within minutes.
const COMING: Rate = Rate { burst: 5000, interval: 10 };
/// When to come again if there is no room.
const FULL: Duration = Duration::from_secs(300);
/// How often it is written down that an agent is still heard, ms.
const KEEP_SEEN: i64 = 300_000;
/// Bytes of effective configurations that are kept, of all agents.
const MAX_CONFIG_BYTES: usize = 256 << 20;

impl Core {
    /// Something happened with an agent.
    pub fn happened(&mut self, registry: &mut Registry, event: &Event, now: i64) {
        match event {
            Event::Connected(uid) | Event::Reported(uid) => self.reported(registry, *uid, now),
            Event::Disconnected(uid) => {
                if let Some(member) = self.members.get_mut(uid) {
                    member.connected = false;
                    member.last_seen = now;
                    self.unkept.insert(*uid);
                    self.stirred = true;
                }
            }
            Event::Renamed { from, to, is_double } => {
                if !is_double && let Some(member) = self.members.get(from).cloned() {
                    let written = self.store.whole(|store| {
                        store.remove_agent(&from.to_string())?;
                        store.put_agent(&to.to_string(), &member)
                    });
                    self.kept(written);
                    self.forgotten(*from);
                    self.config_bytes += member.config_bytes();
                    self.members.insert(*to, member);
                }
                let why = if *is_double { "two agents have this name" } else { "it asked for a name" };
                self.note_rarely(
                    (now, NOTES),
                    "server",
                    "agent.rename",
                    &from.to_string(),
                    Ok(&format!("{to}: {why}")),
                );
            }
            Event::TooLarge { to, bytes } => {
                let text = format!("{bytes} bytes are too many");
                self.note_rarely((now, NOTES), "server", "agent.offer", &to.to_string(), Err(&text));
            }
            Event::Custom { .. } | Event::ConnectionSettingsRequest { .. } => {}
        }
    }

    /// Whether `uid` may speak by the token with number `principal` (0: by none, if `any_agent` may come).
    ///
    /// An agent belongs to the name of the token that it came by: tokens of one name stand for the same holder, so that one can be
    /// replaced by another. A name whose tokens are all revoked has no claim any more.
    ///
    /// # Errors
    /// It may not, or not now.
    pub fn may_speak(&mut self, uid: InstanceUid, principal: u64, any_agent: bool, now: i64) -> Result<(), Refusal> {
        // A connection that was let in may outlive its token.
        let token = i64::try_from(principal).ok().and_then(|id| self.tokens.get(&id));
        let is_good = token.is_some_and(|token| token.role == Role::Agent && token.revoked.is_none());
        if !(is_good || principal == 0 && any_agent) {
            return Err(Refusal::NotAdmitted("the token is revoked"));
        }
        let too_often = |wait: i64| Refusal::Busy(Duration::from_millis(u64::try_from(wait).unwrap_or_default()));
        let Some(member) = self.members.get(&uid) else {
            if let Err(wait) = self.coming.entry(principal).or_default().step(COMING, now) {
                self.counters.too_many += 1;
                return Err(too_often(wait));
            }
            let is_full = self.members.len() >= MAX_AGENTS && self.oldest_gone(principal).is_none();
            return if is_full { Err(Refusal::Busy(FULL)) } else { Ok(()) };
        };
        let owner = u64::try_from(member.token).unwrap_or_default();
        if self.holder(owner).is_some_and(|owner| Some(owner) != self.holder(principal)) {
            self.counters.stolen += 1;
            let (who, owner) = (self.token_name(principal), self.token_name(owner));
            let reason = format!("it belongs to the token {owner}");
            self.note_rarely((now, NOTES), &who, "agent.speak", &uid.to_string(), Err(&reason));
            return Err(Refusal::NotAdmitted("this instance_uid belongs to an agent that came by another token"));
        }
        self.speaking.entry(uid).or_default().step(SPEAKING, now).map_err(|wait| {
            self.counters.too_many += 1;
            too_often(wait)
        })
    }

    /// The name that an agent's token stands for, if that name has a good one.
    fn holder(&self, principal: u64) -> Option<&str> {
        let id = i64::try_from(principal).ok()?;
        let token = self.tokens.get(&id).filter(|token| token.role == Role::Agent)?;
        let is_good = |other: &&Token| other.role == Role::Agent && other.revoked.is_none() && other.name == token.name;
        self.tokens.values().find(is_good).map(|token| token.name.as_str())
    }

    fn reported(&mut self, registry: &mut Registry, uid: InstanceUid, now: i64) {
        self.counters.reports += 1;
        let Some(agent) = registry.agent(uid) else { return };
        let is_new = !self.members.contains_key(&uid);
        if is_new && !self.make_room(agent.principal) {
            return;
        }
        let before = self.members.get(&uid).cloned().unwrap_or_default();
        let mut after = before.clone();
        after.update(agent, now);
        let principal = agent.principal;
        self.config_bytes = self.config_bytes.saturating_sub(before.config_bytes());
        if self.config_bytes + after.config_bytes() > MAX_CONFIG_BYTES {
            after.effective_config = None;
        }
        self.config_bytes += after.config_bytes();
        self.members.insert(uid, after.clone());
        // What is kept of it is kept here, within bounds.
        registry.release(uid);
        if is_new {
            let (name, host) = (self.token_name(principal), after.labels.get("host.name").cloned().unwrap_or_default());
            self.note_rarely((now, NOTES), &name, "agent.enrol", &uid.to_string(), Ok(&host));
        }
        let differs = Member { last_seen: before.last_seen, ..after.clone() } != before;
        self.stirred |= differs;
        // That it was heard again is worth a write now and then.
        if differs || is_new || now / KEEP_SEEN != before.last_seen / KEEP_SEEN {
            self.unkept.insert(uid);
        }
        if let Some(status) =
            after.config.as_ref().filter(|status| status.status == "FAILED" && before.config.as_ref() != Some(*status))
        {
            self.failed(uid, &status.hash, &status.error, now);
        }
        if is_new || differs {
            self.welcome(uid, now);
            self.offer(registry, uid);
        }
    }

    /// Forgets the agent that left longest ago, if there are as many as may be: one that came by the same token, so that nobody has others
    /// forgotten.
    fn make_room(&mut self, principal: u64) -> bool {
        if self.members.len() < MAX_AGENTS {
            return true;
        }
        let Some(uid) = self.oldest_gone(principal) else { return false };
        self.forget_member(uid);
        true
    }

    pub(super) fn oldest_gone(&self, principal: u64) -> Option<InstanceUid> {
        let is_its = |member: &Member| u64::try_from(member.token) == Ok(principal);
        let gone = self.members.iter().filter(|(_, member)| !member.connected && is_its(member));
        gone.min_by_key(|(_, member)| member.last_seen).map(|(uid, _)| *uid)
    }

    /// Nothing is known of an agent any more.
    fn forget_member(&mut self, uid: InstanceUid) {
        let written = self.store.remove_agent(&uid.to_string());
        self.forgotten(uid);
        self.kept(written);
    }

    /// What is kept on disk of an agent is gone: so is the rest.
    pub(super) fn forgotten(&mut self, uid: InstanceUid) {
        if let Some(member) = self.members.remove(&uid) {
            self.config_bytes = self.config_bytes.saturating_sub(member.config_bytes());
        }
        self.unkept.remove(&uid);
        self.speaking.remove(&uid);
        self.failures.retain(|_, agents| {
            agents.remove(&uid);
            !agents.is_empty()
        });
    }

    /// An agent says that it cannot have a configuration. It is not offered it again, whatever becomes of this process. What it was not
    /// to have says nothing.
    fn failed(&mut self, uid: InstanceUid, hash: &str, error: &str, now: i64) {
        let assigned = self.members.get(&uid).map(|member| member.assignments.clone()).unwrap_or_default();
        let is_of = |revision: i64| self.revision(revision).is_ok_and(|revision| revision.hash == hash);
        let was_offered = assigned.into_iter().map(|assignment| assignment.revision).any(is_of);
        if !was_offered || self.has_failed(hash, uid) {
            return;
        }
        self.counters.failed += 1;
        let failure = Failure { hash: hash.to_owned(), uid: uid.to_string(), error: error.to_owned(), at: now };
        let written = self.store.add_failure(&failure);
        self.kept(written);
        self.failures.entry(hash.to_owned()).or_default().insert(uid, error.to_owned());
        self.note_rarely((now, NOTES), &format!("agent {uid}"), "config.failed", hash, Ok(error));
    }

    /// An agent that has nothing gets what was rolled out to those like it.
    fn welcome(&mut self, uid: InstanceUid, now: i64) {
        let Some(member) = self.members.get(&uid).filter(|member| member.can_be_managed()) else { return };
        if !member.assignments.is_empty() {
            return;
        }
        let done = self.rollouts.values().rev().filter(|rollout| rollout.phase == Phase::Done);
        let Some(rollout) = done.into_iter().find(|rollout| rollout.plan.selector.matches(&member.labels)) else {
            return;
        };
        let assignment = Assignment { revision: rollout.plan.revision, rollout: rollout.id, since: now };
        let mut member = member.clone();
        member.assign(assignment);
        if let Err(error) = self.store.put_agent(&uid.to_string(), &member) {
            return self.kept(Err(error));
        }
        self.members.insert(uid, member);
    }

    /// Has the registry offer an agent what it is to have, but for what it has failed with.
    pub(super) fn offer(&mut self, registry: &mut Registry, uid: InstanceUid) {
        let Some(member) = self.members.get(&uid).filter(|member| member.can_be_managed()) else { return };
        let (assignment, is_managed) = (member.assignment(), member.is_managed);
        let offer = match assignment.map(|assignment| self.revision(assignment.revision)) {
            Some(Ok(revision)) if self.has_failed(&revision.hash, uid) => None,
            Some(Ok(revision)) => Some(remote(Some(&revision))),
            Some(Err(error)) => return self.kept(Err(error)),
            None => is_managed.then(|| remote(None)),
        };
        if registry.agent(uid).is_none_or(|agent| agent.offers.remote_config == offer) {
            return;
        }
        if let Err(error) = registry.offer(uid, |offers| offers.remote_config = offer) {
            tracing::warn!(%uid, %error, "An agent cannot be offered its configuration.");
        }
    }
}
