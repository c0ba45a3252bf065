//! What agents say, and what they are offered.

use std::time::Duration;

use profiler_opamp::{
    InstanceUid,
    server::{Event, Refusal, Registry},
};

use super::{Core, NOTES, Rate, remote, remote_hash, room::Room};
use crate::{
    fleet::{Assignment, Member},
    rollout::Phase,
    store::Failure,
    token::{Role, hex},
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

/// The number of the time of [`KEEP_SEEN`] that `at` is in. Each agent has its own: not all are due at once.
fn seen_in(uid: InstanceUid, at: i64) -> i64 {
    let [.., a, b, c, d] = *uid.as_bytes();
    (at + i64::from(u32::from_be_bytes([a, b, c, d])) % KEEP_SEEN) / KEEP_SEEN
}

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
                if !is_double {
                    self.renamed(*from, *to);
                }
                let why = if *is_double { "two agents have this name" } else { "it asked for a name" };
                let principal = registry.agent(*to).map_or(0, |agent| agent.principal);
                let (from, text) = (from.to_string(), format!("{to}: {why}"));
                self.note_rarely(now, ("rename", principal, NOTES), "server", ("agent.rename", &from), Ok(&text));
            }
            Event::TooLarge { to, bytes } => {
                let text = format!("{bytes} bytes are too many");
                let principal = registry.agent(*to).map_or(0, |agent| agent.principal);
                let to = to.to_string();
                self.note_rarely(now, ("offer", principal, NOTES), "server", ("agent.offer", &to), Err(&text));
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
            let has_room = self.room(principal, now) != Room::None;
            return if has_room { Ok(()) } else { Err(Refusal::Busy(FULL)) };
        };
        let owner = u64::try_from(member.token).unwrap_or_default();
        if self.holder(owner).is_some_and(|owner| Some(owner) != self.holder(principal)) {
            self.counters.stolen += 1;
            let (who, owner) = (self.token_name(principal), self.token_name(owner));
            let reason = format!("it belongs to the token {owner}");
            let uid = uid.to_string();
            self.note_rarely(now, ("speak", principal, NOTES), &who, ("agent.speak", &uid), Err(&reason));
            return Err(Refusal::NotAdmitted("this instance_uid belongs to an agent that came by another token"));
        }
        self.speaking.entry(uid).or_default().step(SPEAKING, now).map_err(|wait| {
            self.counters.too_many += 1;
            too_often(wait)
        })
    }

    fn reported(&mut self, registry: &mut Registry, uid: InstanceUid, now: i64) {
        self.counters.reports += 1;
        let Some(agent) = registry.agent(uid) else { return };
        let is_new = !self.members.contains_key(&uid);
        if is_new && !self.make_room(agent.principal, now) {
            // Nobody has bounded what it said.
            return registry.release(uid);
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
            let uid = uid.to_string();
            self.note_rarely(now, ("enrol", principal, NOTES), &name, ("agent.enrol", &uid), Ok(&host));
        }
        let differs = Member { last_seen: before.last_seen, ..after.clone() } != before;
        self.stirred |= differs;
        // That it was heard again is worth a write now and then.
        if differs || is_new || seen_in(uid, now) != seen_in(uid, before.last_seen) {
            self.unkept.insert(uid);
        }
        if is_new || differs {
            self.note_failed(uid, now);
            self.welcome(uid, now);
            self.note_failed(uid, now);
            self.offer(registry, uid);
        }
    }

    /// What is known of an agent is known of it by its new name: also how often it has spoken, and what it has failed with.
    fn renamed(&mut self, from: InstanceUid, to: InstanceUid) {
        let Some(member) = self.members.remove(&from) else { return };
        let written = self.store.rename_agent(&from.to_string(), &to.to_string(), &member);
        self.kept_at.remove(&from);
        if self.unkept.remove(&from) || written.is_err() {
            self.unkept.insert(to);
        }
        self.kept(written);
        self.members.insert(to, member);
        if let Some(pace) = self.speaking.remove(&from) {
            self.speaking.insert(to, pace);
        }
        for agents in self.failures.values_mut() {
            if let Some(error) = agents.remove(&from) {
                agents.insert(to, error);
            }
        }
    }

    /// Nothing is known of an agent any more.
    pub(super) fn forget_member(&mut self, uid: InstanceUid) {
        let written = self.store.whole(|store| store.remove_agent(&uid.to_string()));
        self.forgotten(uid);
        self.kept(written);
    }

    /// What is kept on disk of an agent is gone: so is the rest.
    pub(super) fn forgotten(&mut self, uid: InstanceUid) {
        if let Some(member) = self.members.remove(&uid) {
            self.config_bytes = self.config_bytes.saturating_sub(member.config_bytes());
        }
        self.unkept.remove(&uid);
        self.kept_at.remove(&uid);
        self.speaking.remove(&uid);
        self.failures.retain(|_, agents| {
            agents.remove(&uid);
            !agents.is_empty()
        });
    }

    /// What an agent said FAILED of may be what it is to have only since then.
    pub(super) fn note_failed(&mut self, uid: InstanceUid, now: i64) {
        let status = self.members.get(&uid).and_then(|member| member.config.clone());
        if let Some(status) = status.filter(|status| status.status == "FAILED") {
            self.failed(uid, &status.hash, &status.error, now);
        }
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
        let principal = self.members.get(&uid).map_or(0, |member| u64::try_from(member.token).unwrap_or_default());
        let who = format!("agent {uid}");
        self.note_rarely(now, ("failed", principal, NOTES), &who, ("config.failed", hash), Ok(error));
    }

    /// An agent gets what was rolled out to all like it, if it came later, or was away or unwell meanwhile: the newest that it has not
    /// failed with.
    fn welcome(&mut self, uid: InstanceUid, now: i64) {
        let Some(member) = self.members.get(&uid).filter(|member| member.can_be_managed() && member.is_ready()) else {
            return;
        };
        let last = member.assignment().map_or(0, |assignment| assignment.rollout);
        if self.is_under_way(last) {
            return;
        }
        let newer = self.rollouts.range(last + 1..).rev().map(|(_, rollout)| rollout);
        let done = newer.filter(|rollout| {
            rollout.phase == Phase::Done && rollout.plan.is_for_all() && rollout.plan.selector.matches(&member.labels)
        });
        let plans: Vec<_> = done.map(|rollout| (rollout.id, rollout.plan.revision)).collect();
        let mut member = member.clone();
        let Some((rollout, revision)) = plans.into_iter().find(|&(_, revision)| !self.has_failed_with(revision, uid))
        else {
            return;
        };
        member.assign(Assignment { revision, rollout, since: now });
        if let Err(error) = self.store.put_agent(&uid.to_string(), &member) {
            return self.kept(Err(error));
        }
        self.members.insert(uid, member);
    }

    fn has_failed_with(&mut self, revision: i64, uid: InstanceUid) -> bool {
        self.revision(revision).is_ok_and(|revision| self.has_failed(&revision.hash, uid))
    }

    /// Has the registry offer an agent what it is to have: of what it was assigned the last that it has not failed with, and if there is
    /// no such, its own. One that has failed with all that it was assigned, and never had anything that works, runs its own: it is not
    /// asked to try that, and goes on saying what it has failed with.
    pub(super) fn offer(&mut self, registry: &mut Registry, uid: InstanceUid) {
        let Some(member) = self.members.get(&uid).filter(|member| member.can_be_managed()) else { return };
        let own = hex(&remote_hash(None));
        let has_failed = member.config.as_ref().is_some_and(|status| status.status == "FAILED");
        let runs_own = has_failed
            && !member.assignments.is_empty()
            && member.applied.as_ref().is_none_or(|applied| *applied == own);
        let (assignments, is_managed) = (member.assignments.clone(), member.is_managed);
        let mut wanted = None;
        for assignment in assignments.iter().rev() {
            match self.revision_and_body(assignment.revision) {
                Ok((revision, _)) if self.has_failed(&revision.hash, uid) => {}
                Ok(known) => {
                    wanted = Some(known);
                    break;
                }
                Err(error) => return self.kept(Err(error)),
            }
        }
        let (revision, body) = wanted.unzip();
        let is_offered = revision.is_some() || is_managed && !runs_own;
        let hash = is_offered.then(|| remote_hash(revision.as_deref()));
        let Some(agent) = registry.agent(uid) else { return };
        if agent.offers.remote_config.as_ref().map(|offer| &offer.config_hash) == hash.as_ref() {
            return;
        }
        let offer = hash.map(|hash| remote(body, hash));
        if let Err(error) = registry.offer(uid, |offers| offers.remote_config = offer) {
            tracing::warn!(%uid, %error, "An agent cannot be offered its configuration.");
        }
    }
}
