//! A rollout: a revision that reaches more and more of the agents that a selector means, as long as its gates hold. No I/O, and the time
//! is given to it.
//!
//! ```text
//!  step 1: 1 %, soak ─ step 2: 10 %, soak ─ ... ─ done
//!     │ a gate falls: FAILED, unhealthy, heartbeat lost, no answer
//!     └─► paused, or reverted: each agent is to have what it had before
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use profiler_opamp::InstanceUid;

use crate::{labels::Selector, problem::Problem};

#[cfg(test)]
mod tests;

/// Steps that a rollout may have.
const MAX_STEPS: usize = 32;
/// The longest time that a plan may name, s: a month.
const LONGEST: u64 = 31 * 86_400;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Share of the agents that are to have the revision, %: above 0, at most 100. Of any agents at least one.
    pub weight: f64,
    /// How long all of them have to be well with it before the next step, s.
    pub soak_seconds: u64,
}

/// What ends a rollout, unless so many agents may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// Agents that may report FAILED, or nothing within [`Self::answer_seconds`].
    pub failed: usize,
    /// Agents that may be unhealthy with it.
    pub unhealthy: usize,
    /// Agents that may be lost with it.
    pub lost: usize,
    /// An agent that is not connected for so long is lost, s.
    pub lost_seconds: u64,
    /// An agent that has not applied it after so long has failed, s.
    pub answer_seconds: u64,
}

impl Default for Gates {
    /// None of any kind; lost after 90 s, failed after a quarter of an hour.
    fn default() -> Self {
        Self { failed: 0, unhealthy: 0, lost: 0, lost_seconds: 90, answer_seconds: 900 }
    }
}

/// What becomes of a rollout when a gate falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It stops where it is.
    #[default]
    Pause,
    /// Each agent is to have what it had before.
    Revert,
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The revision.
    pub revision: i64,
    /// Who is to have it.
    #[serde(default)]
    pub selector: Selector,
    /// In order; their weights grow.
    pub steps: Vec<Step>,
    /// What ends it.
    #[serde(default)]
    pub gates: Gates,
    /// What then becomes of it.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl Plan {
    /// # Errors
    /// It cannot be walked.
    pub fn check(&self) -> Result<(), Problem> {
        let wrong = |text: &str| Err(Problem::Invalid(text.to_owned()));
        if self.steps.is_empty() || self.steps.len() > MAX_STEPS {
            return wrong("a rollout has between 1 and 32 steps");
        }
        if !self.steps.iter().all(|step| step.weight > 0.0 && step.weight <= 100.0) {
            return wrong("a step's weight is above 0 and at most 100 %");
        }
        if !self.steps.is_sorted_by(|one, next| one.weight < next.weight) {
            return wrong("the weights of steps grow from each to the next");
        }
        let times = self.steps.iter().map(|step| step.soak_seconds);
        if times.chain([self.gates.lost_seconds, self.gates.answer_seconds]).any(|time| time > LONGEST) {
            return wrong("a soak, lost_seconds and answer_seconds are at most 31 days");
        }
        if self.gates.answer_seconds == 0 {
            return wrong("answer_seconds is above 0: agents need time to try a configuration");
        }
        Ok(())
    }

    /// Whether all agents that it is for are to have it in the end, and those that come later, too.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.steps.last().is_some_and(|step| step.weight >= 100.0)
    }
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It goes on by itself.
    Running,
    /// It waits for somebody.
    Paused,
    /// All steps are walked. Agents that come later get the revision, too, if the last step had all.
    Done,
    /// Nobody has the revision by it any more.
    Reverted,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its number.
    pub id: i64,
    /// Grows with each change: who changes it says which one was seen.
    pub version: u64,
    /// What was asked for.
    pub plan: Plan,
    /// By whom.
    pub by: String,
    /// When, ms since 1970.
    pub created: i64,
    /// How far it is.
    pub phase: Phase,
    /// The step that it is at, from 0.
    pub step: usize,
    /// When that began, ms since 1970.
    pub step_began: i64,
    /// Since when the step has had its agents, ms since 1970. Those that come to it later do not hold it up.
    #[serde(default)]
    pub filled: Option<i64>,
    /// Why it is paused or reverted.
    pub reason: Option<String>,
    /// What agents cannot know of it, so that none can choose to be its canary.
    #[serde(default)]
    pub salt: String,
    /// How its agents were when it was done or reverted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Counts>,
}

/// How an agent is with the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was not offered it by this rollout. `is_ready`: it could be, being connected and well.
    Outside {
        /// See above.
        is_ready: bool,
    },
    /// It has said nothing of it yet, since this time, ms since 1970.
    Waiting {
        /// Since when.
        since: i64,
    },
    /// It runs it, and is well, for so long while it was connected, ms.
    Well {
        /// How long.
        for_ms: i64,
    },
    /// It runs it, and is not well.
    Unhealthy(String),
    /// It refused it, or gave it back.
    Failed(String),
    /// It is not connected, for this long, ms.
    Gone {
        /// How long.
        for_ms: i64,
    },
    /// It has said goodbye: its host was shut down, say.
    Left,
}

/// An agent that the selector means and that can take configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Who.
    pub uid: InstanceUid,
    /// How it is.
    pub standing: Standing,
    /// Since when it is to have the revision by this rollout, ms since 1970.
    pub assigned: Option<i64>,
}

/// What a look at a rollout brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These are to have the revision.
    Assign(Vec<InstanceUid>),
    /// All of this step were well for as long as they had to be: the next one began.
    Advanced,
    /// That was the last step.
    Done,
    /// A gate fell; the phase says what becomes of it.
    Stopped,
    /// The step has its agents: their time begins.
    Soak,
}

/// How many agents of a rollout are how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The selector means them and they can take it.
    pub eligible: usize,
    /// They are to have it.
    pub assigned: usize,
    /// They have not applied it yet.
    pub waiting: usize,
    /// They run it and are well.
    pub well: usize,
    /// They run it and are not.
    pub unhealthy: usize,
    /// They refused it or gave it back, or never said anything.
    pub failed: usize,
    /// They are not connected any more.
    pub lost: usize,
    /// They said goodbye.
    #[serde(default)]
    pub left: usize,
}

impl Rollout {
    /// One that begins now. `salt` is random.
    #[must_use]
    pub fn new(id: i64, plan: Plan, by: String, now: i64, salt: String) -> Self {
        Self {
            id,
            version: 1,
            plan,
            by,
            created: now,
            phase: Phase::Running,
            step: 0,
            step_began: now,
            filled: None,
            reason: None,
            salt,
            ended: None,
        }
    }

    /// Whether it may still change by itself or be gone on with.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused)
    }

    /// How its agents are at `now`, and the first trouble.
    #[must_use]
    pub fn counts(&self, now: i64, seats: &[Seat]) -> (Counts, Option<String>) {
        let mut counts = Counts { eligible: seats.len(), ..Counts::default() };
        let mut trouble = None;
        let mut note = |uid: InstanceUid, text: &str| {
            trouble.get_or_insert_with(|| format!("{uid}: {text}"));
        };
        for Seat { uid, standing, .. } in seats {
            counts.assigned += usize::from(!matches!(standing, Standing::Outside { .. }));
            match standing {
                Standing::Outside { .. } => {}
                Standing::Well { .. } => counts.well += 1,
                Standing::Left => counts.left += 1,
                Standing::Waiting { since } if now - since >= millis(self.plan.gates.answer_seconds) => {
                    counts.failed += 1;
                    note(*uid, &format!("it has not applied the revision within {} s", self.plan.gates.answer_seconds));
                }
                Standing::Waiting { .. } => counts.waiting += 1,
                Standing::Unhealthy(reason) => {
                    counts.unhealthy += 1;
                    note(*uid, &format!("unhealthy: {reason}"));
                }
                Standing::Failed(reason) => {
                    counts.failed += 1;
                    note(*uid, &format!("FAILED: {reason}"));
                }
                Standing::Gone { for_ms } if *for_ms >= millis(self.plan.gates.lost_seconds) => {
                    counts.lost += 1;
                    note(*uid, &format!("it is not connected for {} s", for_ms / 1000));
                }
                Standing::Gone { .. } => counts.waiting += 1,
            }
        }
        (counts, trouble)
    }

    /// Looks at the agents and takes the next move, if it is time. To be called until it is `None`.
    pub fn look(&mut self, now: i64, seats: &[Seat]) -> Option<Change> {
        if self.phase != Phase::Running {
            return None;
        }
        let (counts, trouble) = self.counts(now, seats);
        let gates = self.plan.gates;
        if counts.failed > gates.failed || counts.unhealthy > gates.unhealthy || counts.lost > gates.lost {
            let reason = trouble.unwrap_or_default();
            self.stop(self.plan.on_failure, format!("at step {}: {reason}", self.step + 1));
            return Some(Change::Stopped);
        }
        let step = *self.plan.steps.get(self.step)?;
        let missing = self.missing(step, &counts, seats);
        if !missing.is_empty() {
            self.version += 1;
            return Some(Change::Assign(missing));
        }
        if counts.assigned == 0 {
            // A step that nobody is in proves nothing.
            return None;
        }
        let Some(filled) = self.filled else {
            self.filled = Some(now);
            self.version += 1;
            return Some(Change::Soak);
        };
        // Nor does one that more have left than are well with it: the revision may be why.
        if counts.left > counts.well || self.is_held(filled, step, now, seats) {
            return None;
        }
        self.version += 1;
        self.filled = None;
        self.step_began = now;
        if self.step + 1 == self.plan.steps.len() {
            self.phase = Phase::Done;
            return Some(Change::Done);
        }
        self.step += 1;
        Some(Change::Advanced)
    }

    /// Whether one of the agents that the step had when it was filled still has to answer, or to be well for its time. Each has a time of
    /// its own, which stands still while it is not connected: with many agents there is always one that has just come back. As many may be
    /// away as may be lost.
    fn is_held(&self, filled: i64, step: Step, now: i64, seats: &[Seat]) -> bool {
        let soak = millis(step.soak_seconds);
        let mut away = 0;
        for seat in seats.iter().filter(|seat| seat.assigned.is_some_and(|at| at <= filled)) {
            match seat.standing {
                Standing::Well { for_ms } if for_ms.min(now - filled) < soak => return true,
                Standing::Waiting { since } if now - since < millis(self.plan.gates.answer_seconds) => return true,
                Standing::Gone { .. } => away += 1,
                _ => {}
            }
        }
        away > self.plan.gates.lost
    }

    /// Who is to have the revision at this step and does not yet: those next in the rollout's own order of agents, which does not change,
    /// so that each step's agents are all of the step's before and more.
    fn missing(&self, step: Step, counts: &Counts, seats: &[Seat]) -> Vec<InstanceUid> {
        let ready = seats.iter().filter(|seat| seat.standing == Standing::Outside { is_ready: true });
        let mut ready: Vec<_> = ready.map(|seat| seat.uid).collect();
        let all = counts.assigned + ready.len();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let wanted = ((all as f64 * step.weight / 100.0).ceil() as usize).min(all);
        let missing = wanted.saturating_sub(counts.assigned);
        if missing > 0 {
            ready.sort_by_cached_key(|uid| self.place(*uid));
        }
        ready.truncate(missing);
        ready
    }

    /// An agent's place in the order of this rollout.
    fn place(&self, uid: InstanceUid) -> [u8; 32] {
        let salted = Sha256::new().chain_update(&self.salt).chain_update(self.id.to_be_bytes());
        salted.chain_update(uid.as_bytes()).finalize().into()
    }

    fn stop(&mut self, how: OnFailure, reason: String) {
        self.version += 1;
        self.filled = None;
        self.phase = match how {
            OnFailure::Pause => Phase::Paused,
            OnFailure::Revert => Phase::Reverted,
        };
        self.reason = Some(reason);
    }

    /// Somebody stops it.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&mut self, reason: String) -> Result<(), Problem> {
        if self.phase != Phase::Running {
            return Err(self.refused("paused"));
        }
        self.stop(OnFailure::Pause, reason);
        Ok(())
    }

    /// Somebody has it go on. What has made a gate fall does so again, unless it is no more.
    ///
    /// # Errors
    /// It is not paused.
    pub fn resume(&mut self, now: i64) -> Result<(), Problem> {
        if self.phase != Phase::Paused {
            return Err(self.refused("resumed"));
        }
        self.version += 1;
        self.phase = Phase::Running;
        self.reason = None;
        self.step_began = now;
        Ok(())
    }

    /// Somebody takes it back, also when it is done.
    ///
    /// # Errors
    /// It is already.
    pub fn revert(&mut self, reason: String) -> Result<(), Problem> {
        if self.phase == Phase::Reverted {
            return Err(self.refused("reverted"));
        }
        self.stop(OnFailure::Revert, reason);
        Ok(())
    }

    fn refused(&self, what: &str) -> Problem {
        let phase = format!("{:?}", self.phase).to_lowercase();
        Problem::Conflict(format!("rollout {} cannot be {what}: it is {phase}", self.id))
    }
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}
