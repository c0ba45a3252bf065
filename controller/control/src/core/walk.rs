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
/// The shortest and the longest time between two attempts to write to a database that fails, ms.
const RETRIES: [i64; 2] = [1000, 60_000];
/// An agent is written down at most so often, ms; what it is to have at once.
const KEEP_EVERY: i64 = 5000;
/// Bytes of agents that are written at once, with each tick, and little more.
const KEEP_BYTES: usize = 1 << 20;
/// How long agents may take to come back after this server was away, ms: the longest time between two attempts of theirs, 300 s and
/// half as much by chance.
const COMING_BACK: i64 = 450_000;

impl Core {
    /// Goes on with rollouts and writes down what is known. To be called a few times a second.
    pub fn tick(&mut self, registry: &mut Registry, now: i64) {
        // Times pass also when nothing happens. They are looked at less often: there may be many agents.
        if std::mem::take(&mut self.stirred) || (now - self.looked).abs() >= IDLE_MS {
            self.looked = now;
            self.walk_all(registry, now);
        }
        let (next, pause) = self.retry;
        if self.is_failing && (next - pause..next).contains(&now) {
            return;
        }
        self.keep_some(now);
        let pause = if self.is_failing { (pause * 2).clamp(RETRIES[0], RETRIES[1]) } else { 0 };
        self.retry = (now + pause, pause);
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

    /// Writes down all that agents said, and what could not be written before.
    pub fn keep(&mut self) {
        let all = self.unkept.iter().copied().collect();
        self.write(all, usize::MAX, self.looked);
    }

    /// Writes down what agents said, each as seldom and all together as much as the disk is to be busy with them: those first of whom it
    /// was done longest ago.
    pub(super) fn keep_some(&mut self, now: i64) {
        let at = |uid: &InstanceUid| self.kept_at.get(uid).copied().unwrap_or_default();
        let due = self.unkept.iter().map(|uid| (at(uid), *uid)).filter(|(at, _)| (now - at).abs() >= KEEP_EVERY);
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        self.write(due.into_iter().map(|(_, uid)| uid).collect(), KEEP_BYTES, now);
    }

    pub(super) fn write(&mut self, agents: Vec<InstanceUid>, most: usize, now: i64) {
        if agents.is_empty() && self.unwritten.is_empty() && !self.is_failing {
            return;
        }
        let written = self.store.whole(|store| {
            if self.is_failing {
                store.try_write()?;
            }
            for (id, note) in &self.unwritten {
                self.rollouts.get(id).map_or(Ok(()), |rollout| store.put_rollout(rollout))?;
                note.as_ref().map_or(Ok(()), |note| store.note(note))?;
            }
            let (mut done, mut bytes) = (Vec::new(), 0);
            for uid in agents {
                if bytes >= most {
                    break;
                }
                if let Some(member) = self.members.get(&uid) {
                    bytes += store.put_agent(&uid.to_string(), member)?;
                }
                done.push(uid);
            }
            Ok(done)
        });
        let written = written.map(|done| {
            self.unwritten.clear();
            for uid in done {
                self.unkept.remove(&uid);
                self.kept_at.insert(uid, now);
            }
        });
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
        // That a gate fell holds also if it cannot be written, as when the disk is full: agents are not to wait for room on it. A server
        // that ends before it is written finds the same again.
        let is_safe = change == Change::Stopped;
        self.settle(registry, rollout, &assigned, now, note, is_safe).ok()?;
        Some(change)
    }

    /// Has a rollout as it is now, who is to have what by it, and what the audit log says of it, on disk in one go, then offers it; what
    /// `is_safe` also if it cannot be written now.
    pub(super) fn settle(
        &mut self,
        registry: &mut Registry,
        mut rollout: Rollout,
        assigned: &[InstanceUid],
        now: i64,
        note: Option<Entry>,
        is_safe: bool,
    ) -> Result<(), Problem> {
        if !rollout.is_under_way() {
            rollout.ended = Some(self.counts(&rollout, now)?);
        }
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
            changed.iter().try_for_each(|(uid, member)| store.put_agent(&uid.to_string(), member).map(drop))
        });
        if let Err(error) = written {
            self.kept(Err(error.clone()));
            if !is_safe {
                return Err(error);
            }
            self.unwritten.insert(rollout.id, note.clone());
            self.unkept.extend(changed.iter().map(|(uid, _)| *uid));
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
            self.note_failed(uid, now);
            self.offer(registry, uid);
        }
        Ok(())
    }

    /// The agents that a rollout is for, and how they are with it.
    fn seats(&mut self, rollout: &Rollout, now: i64) -> Result<Vec<Seat>, Problem> {
        let revision = self.revision(rollout.plan.revision)?;
        let failures = self.failures.get(&revision.hash);
        let eligible = self.members.iter().filter(|(_, member)| {
            let last = member.assignment().map(|assignment| assignment.rollout);
            last == Some(rollout.id)
                // Who is in another rollout that is under way stays there: the two would take it from each other for ever.
                || !last.is_some_and(|last| self.is_under_way(last))
                    && member.can_be_managed()
                    && rollout.plan.selector.matches(&member.labels)
        });
        let seats = eligible.map(|(uid, member)| {
            let mine = member.assignment().filter(|assignment| assignment.rollout == rollout.id);
            let failure = failures.and_then(|failures| failures.get(uid));
            let standing = standing(member, mine, &revision.hash, failure, now, self.started);
            Seat { uid: *uid, standing, assigned: mine.map(|assignment| assignment.since) }
        });
        Ok(seats.collect())
    }

    /// Whether the rollout with this number is.
    pub(super) fn is_under_way(&self, rollout: i64) -> bool {
        self.rollouts.get(&rollout).is_some_and(Rollout::is_under_way)
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
        return Standing::Outside { is_ready: member.is_ready() };
    };
    if let Some(error) = failure {
        return Standing::Failed(error.clone());
    }
    // What happened while this server was not there is nobody's fault, nor is how long it takes agents to notice that it is back.
    if !member.connected && member.left {
        return Standing::Left;
    }
    if !member.connected {
        let since = if member.is_heard { member.last_seen } else { started + COMING_BACK };
        return Standing::Gone { for_ms: now - since.max(assignment.since) };
    }
    match member.config.as_ref().filter(|status| status.hash == hash).map(|status| status.status.as_str()) {
        Some("APPLIED") if member.healthy == Some(false) => {
            let reason = [&member.last_error, &member.status].into_iter().find(|text| !text.is_empty());
            Standing::Unhealthy(reason.cloned().unwrap_or_default())
        }
        Some("APPLIED") => {
            Standing::Well { for_ms: now - member.well_since.map_or(now, |since| since.max(assignment.since)) }
        }
        // It said so before it was asked to have it: it was forgotten meanwhile, say.
        Some("FAILED") => Standing::Failed(member.config.as_ref().map_or(String::new(), |status| status.error.clone())),
        _ if assignment.since < started => Standing::Waiting { since: started + COMING_BACK },
        _ => Standing::Waiting { since: assignment.since },
    }
}
