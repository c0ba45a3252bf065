//! Rollouts as they go on by themselves: each move is on disk, then told to agents.

use profiler_opamp::{InstanceUid, server::Registry};

use super::{Core, entry, told};
use crate::{
    fleet::{Assignment, Member},
    problem::Problem,
    rollout::{Change, Counts, Phase, Rollout, Seat, Standing},
    store::Entry,
};

/// How often rollouts are looked at while nothing happens, ms.
const IDLE_MS: i64 = 1000;

impl Core {
    /// Goes on with rollouts and writes down what is known. To be called a few times a second.
    pub fn tick(&mut self, registry: &mut Registry, now: i64) {
        // Times pass also when nothing happens. They are looked at less often: there may be many agents.
        if std::mem::take(&mut self.stirred) || (now - self.looked).abs() >= IDLE_MS {
            self.looked = now;
            self.walk_all(registry, now);
        }
        self.keep();
    }

    fn walk_all(&mut self, registry: &mut Registry, now: i64) {
        let running: Vec<i64> = self
            .rollouts
            .values()
            .filter(|rollout| rollout.phase == Phase::Running)
            .map(|rollout| rollout.id)
            .collect();
        for id in running {
            while let Some(change) = self.walk(registry, id, now) {
                if matches!(change, Change::Done | Change::Stopped) {
                    break;
                }
            }
        }
    }

    /// Writes down what agents said.
    pub fn keep(&mut self) {
        if self.unkept.is_empty() {
            return;
        }
        let written = self.store.whole(|store| {
            for uid in &self.unkept {
                if let Some(member) = self.members.get(uid) {
                    store.put_agent(&uid.to_string(), member)?;
                }
            }
            Ok(())
        });
        if written.is_ok() {
            self.unkept.clear();
        }
        self.kept(written);
    }

    /// One move of a rollout: first on disk, then told to agents.
    fn walk(&mut self, registry: &mut Registry, id: i64, now: i64) -> Option<Change> {
        let mut rollout = self.rollouts.get(&id)?.clone();
        let seats = self.seats(&rollout, now).ok()?;
        let change = rollout.look(now, &seats)?;
        let assigned = match &change {
            Change::Assign(uids) => uids.clone(),
            _ => Vec::new(),
        };
        let (action, text) = match &change {
            Change::Assign(uids) => {
                ("rollout.assign", format!("step {}: {} more agents", rollout.step + 1, uids.len()))
            }
            Change::Advanced => ("rollout.advance", format!("step {}", rollout.step + 1)),
            Change::Done => ("rollout.done", String::new()),
            Change::Stopped => {
                let reason = rollout.reason.clone().unwrap_or_default();
                (if rollout.phase == Phase::Reverted { "rollout.revert" } else { "rollout.pause" }, reason)
            }
            Change::Soak => ("", String::new()),
        };
        let note = entry(now, "server", action, &format!("rollout {id}"), Ok(&text));
        let note = (change != Change::Soak).then_some(note);
        self.settle(registry, rollout, &assigned, now, note).ok()?;
        Some(change)
    }

    /// Has a rollout as it is now, who is to have what by it, and what the audit log says of it, on disk in one go, then offers it.
    pub(super) fn settle(
        &mut self,
        registry: &mut Registry,
        rollout: Rollout,
        assigned: &[InstanceUid],
        now: i64,
        note: Option<Entry>,
    ) -> Result<(), Problem> {
        let mut changed = Vec::new();
        let assignment = Assignment { revision: rollout.plan.revision, rollout: rollout.id, since: now };
        for uid in assigned {
            if let Some(mut member) = self.members.get(uid).cloned() {
                member.assign(assignment);
                changed.push((*uid, member));
            }
        }
        if rollout.phase == Phase::Reverted {
            let had = |member: &Member| member.assignments.iter().any(|assignment| assignment.rollout == rollout.id);
            for (uid, member) in self.members.iter().filter(|(_, member)| had(member)) {
                let mut member = member.clone();
                if member.take_back(rollout.id) {
                    changed.push((*uid, member));
                }
            }
        }
        let written = self.store.whole(|store| {
            store.put_rollout(&rollout)?;
            note.as_ref().map_or(Ok(()), |note| store.note(note))?;
            changed.iter().try_for_each(|(uid, member)| store.put_agent(&uid.to_string(), member))
        });
        if let Err(error) = written {
            self.kept(Err(error.clone()));
            return Err(error);
        }
        note.iter().for_each(told);
        self.rollouts.insert(rollout.id, rollout);
        self.stirred = true;
        let changed: Vec<InstanceUid> = changed
            .into_iter()
            .map(|(uid, member)| {
                self.members.insert(uid, member);
                uid
            })
            .collect();
        for uid in changed {
            self.offer(registry, uid);
        }
        Ok(())
    }

    /// The agents that a rollout is for, and how they are with it.
    fn seats(&mut self, rollout: &Rollout, now: i64) -> Result<Vec<Seat>, Problem> {
        let revision = self.revision(rollout.plan.revision)?;
        let failures = self.failures.get(&revision.hash);
        let eligible = self.members.iter().filter(|(_, member)| {
            member.assignment().is_some_and(|assignment| assignment.rollout == rollout.id)
                || member.can_be_managed() && rollout.plan.selector.matches(&member.labels)
        });
        let seats = eligible.map(|(uid, member)| {
            let mine = member.assignment().filter(|assignment| assignment.rollout == rollout.id);
            let failure = failures.and_then(|failures| failures.get(uid));
            let standing = standing(member, mine, &revision.hash, failure, now, self.started);
            Seat { uid: *uid, standing }
        });
        Ok(seats.collect())
    }

    /// How the agents of a rollout are.
    ///
    /// # Errors
    /// Its revision cannot be read.
    pub fn counts(&mut self, rollout: &Rollout, now: i64) -> Result<Counts, Problem> {
        let seats = self.seats(rollout, now)?;
        Ok(rollout.counts(now, &seats).0)
    }
}

fn standing(
    member: &Member,
    mine: Option<Assignment>,
    hash: &str,
    failure: Option<&String>,
    now: i64,
    started: i64,
) -> Standing {
    let Some(assignment) = mine else {
        return Standing::Outside { is_ready: member.connected && member.healthy != Some(false) };
    };
    if let Some(error) = failure {
        return Standing::Failed(error.clone());
    }
    if !member.connected {
        // What happened while this server was not there is nobody's fault.
        let since = member.last_seen.max(started).max(assignment.since);
        return Standing::Gone { for_ms: now - since };
    }
    match member.config.as_ref().filter(|status| status.hash == hash).map(|status| status.status.as_str()) {
        Some("APPLIED") if member.healthy == Some(false) => {
            let reason = [&member.last_error, &member.status].into_iter().find(|text| !text.is_empty());
            Standing::Unhealthy(reason.cloned().unwrap_or_default())
        }
        Some("APPLIED") => Standing::Well,
        _ => Standing::Waiting { since: assignment.since.max(started) },
    }
}
