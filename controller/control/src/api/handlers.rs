//! What each route does.

use profiler_opamp::{InstanceUid, server::Registry};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, OPENAPI, Reply};
use crate::{
    core::{Core, Verb},
    fleet::Member,
    labels::Selector,
    metrics,
    problem::Problem,
    rollout::{Counts, Plan, Rollout},
    store::{PAGE, Revision},
    token::Role,
};

type Answer = Result<Reply, Problem>;

impl Call {
    fn id(&self) -> Result<i64, Problem> {
        let text = self.parts.first().map_or("", String::as_str);
        text.parse().map_err(|_| Problem::Invalid(format!("{text:?} is no number")))
    }

    fn uid(&self) -> Result<InstanceUid, Problem> {
        let text = self.parts.first().map_or("", String::as_str);
        text.parse().map_err(|error: profiler_opamp::WrongUid| Problem::Invalid(error.to_string()))
    }

    fn number(&self, key: &str, default: i64) -> Result<i64, Problem> {
        let Some(text) = self.query.get(key) else { return Ok(default) };
        text.parse()
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| Problem::Invalid(format!("{key}={text:?} is no number above 0")))
    }

    fn limit(&self) -> Result<usize, Problem> {
        Ok(usize::try_from(self.number("limit", 100)?).unwrap_or(PAGE).min(PAGE))
    }

    fn body<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        // No body at all is an empty one.
        let bytes: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        Ok(serde_json::from_slice(bytes)?)
    }
}

pub(super) fn healthz(core: &mut Core, _: &mut Registry, _: &Call) -> Answer {
    core.check()?;
    Ok(Reply::Text("text/plain; charset=utf-8", "ok\n".to_owned()))
}

pub(super) fn openapi(_: &mut Core, _: &mut Registry, _: &Call) -> Answer {
    Ok(Reply::Text("application/json", OPENAPI.to_owned()))
}

pub(super) fn metrics(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    Ok(Reply::Text("text/plain; version=0.0.4; charset=utf-8", metrics::page(core, call.now)))
}

/// An agent, in short or whole.
fn shown(core: &mut Core, uid: InstanceUid, member: &Member, is_whole: bool) -> Value {
    let wanted = member.assignment().map(|assignment| {
        let hash = core.revision(assignment.revision).map(|revision| revision.hash.clone()).unwrap_or_default();
        let has_failed = core.has_failed(&hash, uid);
        json!({"revision": assignment.revision, "rollout": assignment.rollout, "since": assignment.since,
               "hash": hash, "failed": has_failed})
    });
    let mut value = json!({
        "uid": uid.to_string(), "connected": member.connected, "last_seen": member.last_seen, "version": member.version,
        "labels": member.labels, "healthy": member.healthy, "status": member.status, "last_error": member.last_error,
        "config": member.config, "wanted": wanted, "token": core.token_name(u64::try_from(member.token).unwrap_or_default()),
        "can_be_managed": member.can_be_managed(),
    });
    if is_whole && let Some(object) = value.as_object_mut() {
        object.insert("effective_config".to_owned(), json!(member.effective_config));
        object.insert("components".to_owned(), json!(member.components));
        object.insert("history".to_owned(), json!(member.assignments));
    }
    value
}

pub(super) fn agents(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    let selector: Selector = match call.query.get("selector") {
        Some(text) => {
            text.parse().map_err(|error: crate::labels::WrongSelector| Problem::Invalid(error.to_string()))?
        }
        None => Selector::default(),
    };
    let after = call.query.get("after").cloned().unwrap_or_default();
    let limit = call.limit()?;
    let matching = core.members().filter(|(_, member)| selector.matches(&member.labels));
    let (mut total, mut page) = (0_usize, Vec::new());
    for (uid, _) in matching {
        total += 1;
        if page.len() <= limit && uid.to_string() > after {
            page.push(uid);
        }
    }
    let has_more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| has_more).map(InstanceUid::to_string);
    let agents = page.into_iter().filter_map(|uid| {
        let member = core.member(uid)?.brief();
        Some(shown(core, uid, &member, false))
    });
    let agents: Vec<_> = agents.collect();
    Reply::json(json!({"agents": agents, "total": total, "next": next}))
}

pub(super) fn agent(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    let uid = call.uid()?;
    let member = core.member(uid).cloned().ok_or_else(|| Problem::Missing(format!("agent {uid}")))?;
    Reply::json(shown(core, uid, &member, true))
}

pub(super) fn forget(core: &mut Core, registry: &mut Registry, call: &Call) -> Answer {
    let uid = call.uid()?;
    core.forget(registry, call.now, &call.who, uid)?;
    Reply::json(json!({"forgotten": uid.to_string()}))
}

pub(super) fn revisions(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    let all = core.store().revisions(call.query.get("name").map(String::as_str))?;
    let all = all.into_iter().map(|Revision { id, name, hash, created, by, note, .. }| {
        json!({"id": id, "name": name, "hash": hash, "created": created, "by": by, "note": note})
    });
    Reply::json(json!({"revisions": all.collect::<Vec<_>>()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Save {
    name: String,
    text: String,
    #[serde(default)]
    note: String,
    parent: Option<i64>,
}

pub(super) fn save(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    let Save { name, text, note, parent } = call.body()?;
    Reply::made(core.save(call.now, &call.who, &name, &text, &note, parent)?)
}

pub(super) fn revision(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    let revision = core.revision(call.id()?)?;
    let failures = core.failures(&revision.hash);
    let failures: Vec<_> =
        failures.iter().take(PAGE).map(|(uid, error)| json!({"uid": uid.to_string(), "error": error})).collect();
    let mut value = serde_json::to_value(&*revision).map_err(|error| Problem::Internal(error.to_string()))?;
    if let Some(object) = value.as_object_mut() {
        object.insert("failures".to_owned(), json!(failures));
    }
    Reply::json(value)
}

pub(super) fn retry(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    Reply::made(core.retry(call.now, &call.who, call.id()?)?)
}

/// A rollout, and how its agents are now.
fn told(core: &mut Core, rollout: &Rollout, now: i64) -> Result<Value, Problem> {
    let counts = core.counts(rollout, now)?;
    with_counts(rollout, counts)
}

fn with_counts(rollout: &Rollout, counts: Counts) -> Result<Value, Problem> {
    let mut value = serde_json::to_value(rollout).map_err(|error| Problem::Internal(error.to_string()))?;
    if let Some(object) = value.as_object_mut() {
        object.remove("ended");
        object.remove("salt");
        object.insert("agents".to_owned(), json!(counts));
    }
    Ok(value)
}

pub(super) fn rollouts(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    let mut newest: Vec<_> = core.rollouts().cloned().collect();
    newest.reverse();
    newest.truncate(call.limit()?.min(100));
    // All agents are looked at for one that is under way. There are few of these.
    let all = newest.iter().map(|rollout| match rollout.ended {
        Some(counts) => with_counts(rollout, counts),
        None => told(core, rollout, call.now),
    });
    let all = all.collect::<Result<Vec<_>, _>>()?;
    Reply::json(json!({"rollouts": all}))
}

pub(super) fn rollout(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    let id = call.id()?;
    let rollout = core.rollouts().find(|rollout| rollout.id == id).cloned();
    let rollout = rollout.ok_or_else(|| Problem::Missing(format!("rollout {id}")))?;
    Reply::json(told(core, &rollout, call.now)?)
}

pub(super) fn start(core: &mut Core, registry: &mut Registry, call: &Call) -> Answer {
    let plan: Plan = call.body()?;
    let rollout = core.start(registry, call.now, &call.who, plan)?;
    Reply::made(told(core, &rollout, call.now)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    version: Option<u64>,
    #[serde(default)]
    reason: String,
}

fn change(core: &mut Core, registry: &mut Registry, call: &Call, verb: Verb) -> Answer {
    let Change { version, reason } = call.body()?;
    let rollout = core.change(registry, call.now, &call.who, (call.id()?, version), verb, &reason)?;
    Reply::json(told(core, &rollout, call.now)?)
}

pub(super) fn pause(core: &mut Core, registry: &mut Registry, call: &Call) -> Answer {
    change(core, registry, call, Verb::Pause)
}

pub(super) fn resume(core: &mut Core, registry: &mut Registry, call: &Call) -> Answer {
    change(core, registry, call, Verb::Resume)
}

pub(super) fn revert(core: &mut Core, registry: &mut Registry, call: &Call) -> Answer {
    change(core, registry, call, Verb::Revert)
}

pub(super) fn audit(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    let entries = core.store().audit(call.number("before", i64::MAX)?, call.limit()?)?;
    Reply::json(json!({"entries": entries}))
}

pub(super) fn tokens(core: &mut Core, _: &mut Registry, _: &Call) -> Answer {
    let all: Vec<_> = core.tokens().collect();
    Reply::json(json!({"tokens": all}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    role: Role,
}

pub(super) fn make_token(core: &mut Core, _: &mut Registry, call: &Call) -> Answer {
    let NewToken { name, role } = call.body()?;
    let (token, secret) = core.make_token(call.now, &call.who, &name, role)?;
    Reply::made(json!({"id": token.id, "name": token.name, "role": token.role, "token": secret}))
}

pub(super) fn revoke(core: &mut Core, registry: &mut Registry, call: &Call) -> Answer {
    let id = call.id()?;
    core.revoke(registry, call.now, &call.who, id)?;
    Reply::json(json!({"revoked": id}))
}
