//! Tokens, the audit log, and agents that mean ill.

use super::*;
use crate::core::room::Room;

#[test]
fn what_is_done_and_that_it_was_are_on_disk_together_or_not_at_all() {
    let mut world = World::with(3);
    let now = world.now;
    let first = world.save("rate: 49");
    let id = world.start(first.id, &[30.0, 100.0], OnFailure::Pause).unwrap();
    world.leaves(3);
    let spare = world.make_token("spare");
    world.core().keep();
    let state = |world: &World| {
        let core = world.core.as_ref().unwrap();
        let revisions = core.store.revisions(None).unwrap();
        let kept = core.store.rollouts().unwrap();
        let tokens: Vec<_> = core.store.tokens().unwrap().iter().map(|token| (token.id, token.revoked)).collect();
        let here: Vec<_> = core.tokens().map(|token| (token.id, token.revoked)).collect();
        assert_eq!(tokens, here);
        assert_eq!(kept.iter().collect::<Vec<_>>(), core.rollouts().collect::<Vec<_>>());
        let agents: Vec<_> = core.store.agents().unwrap().into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(agents, core.members().map(|(uid, _)| uid.to_string()).collect::<Vec<_>>());
        (revisions, kept, tokens, agents)
    };
    let before = state(&world);
    world.core().store.break_audit(true);
    let spare = i64::try_from(spare).unwrap();
    let (core, registry) = (world.core.as_mut().unwrap(), &mut world.registry);
    core.save(now, "op", "fleet", "rate: 19", "", None).unwrap_err();
    core.retry(now, "op", first.id).unwrap_err();
    core.change(registry, now, "op", (id, None), Verb::Pause, "").unwrap_err();
    core.forget(registry, now, "op", uid(3)).unwrap_err();
    core.make_token(now, "op", "new", Role::Viewer).unwrap_err();
    core.revoke(registry, now, "op", spare).unwrap_err();
    assert_eq!(state(&world), before);
    world.core().store.break_audit(false);
    let (core, registry) = (world.core.as_mut().unwrap(), &mut world.registry);
    core.change(registry, now, "op", (id, None), Verb::Pause, "").unwrap();
    core.forget(registry, now, "op", uid(3)).unwrap();
    core.revoke(registry, now, "op", spare).unwrap();
    assert_ne!(state(&world), before);
    for action in ["rollout.pause", "agent.forget", "token.revoke"] {
        assert_eq!(world.audited(action).len(), 1, "{action}");
    }
}

#[test]
fn a_token_that_could_not_be_given_to_anybody_is_none() {
    let mut world = World::new();
    let before = world.core().tokens().count();
    let now = world.now;
    let full = |_: &str| Err(Problem::Internal("the disk is full".into()));
    world.core().make_token_for(now, "server", "admin", Role::Admin, full).unwrap_err();
    assert_eq!((world.core().tokens().count(), world.core().store.tokens().unwrap().len()), (before, before));
}

#[test]
fn a_revoked_token_ends_its_agents_connections_also_those_that_had_said_nothing() {
    let mut world = World::with(2);
    let other = world.make_token("other");
    world.agents.insert(3, Simulated { token: other, healthy: true, ..Simulated::default() });
    world.connect(3);
    let quiet = Connection { id: 99, stays: true, principal: world.token };
    let (now, token) = (world.now, i64::try_from(world.token).unwrap());
    world.core.as_mut().unwrap().revoke(&mut world.registry, now, "admin", token).unwrap();
    world.settle();
    let connected: Vec<bool> = world.core().members().map(|(_, member)| member.connected).collect();
    assert_eq!(connected, [false, false, true]);
    let message = AgentToServer { instance_uid: uid(4).to_wire(), ..AgentToServer::default() };
    assert_eq!(refusal(&world.received(quiet, &message)), Some(ServerErrorResponseType::BadRequest));
    assert!(world.core().member(uid(4)).is_none());
    assert!(world.core().revoke(&mut Registry::new(server::Options::default()), now, "admin", token).is_err());
}

#[test]
fn the_last_admin_stays() {
    let mut world = World::new();
    let now = world.now;
    let first = world.core().tokens().find(|token| token.role == Role::Admin).unwrap().id;
    assert!(world.core.as_mut().unwrap().revoke(&mut world.registry, now, "admin", first).is_err());
    let (second, text) = world.core().make_token(now, "admin", "second", Role::Admin).unwrap();
    assert_eq!(world.core().token(&text).unwrap().id, second.id);
    world.core.as_mut().unwrap().revoke(&mut world.registry, now, "second", first).unwrap();
    world.restart();
    assert_eq!(world.core().token(&text).unwrap().id, second.id, "tokens outlive the process");
    assert!(world.core().make_token(now, "a", "no name!", Role::Viewer).is_err());
}

#[test]
fn nobody_speaks_in_the_name_of_an_agent_that_came_by_another_token_also_while_that_is_away() {
    let mut world = World::with(1);
    let thief = world.make_token("thief");
    let steal = |world: &mut World, principal| {
        world.connections += 1;
        let connection = Connection { id: world.connections, stays: true, principal };
        // It would also have it named anew.
        let flags = AgentToServerFlags::RequestInstanceUid as u64;
        let message =
            AgentToServer { instance_uid: uid(1).to_wire(), sequence_num: 7, flags, ..AgentToServer::default() };
        world.received(connection, &message)
    };
    let before = world.core().member(uid(1)).cloned();
    assert_eq!(refusal(&steal(&mut world, thief)), Some(ServerErrorResponseType::BadRequest));
    assert_eq!(world.core().member(uid(1)).cloned(), before);
    world.leaves(1);
    world.restart();
    assert_eq!(refusal(&steal(&mut world, thief)), Some(ServerErrorResponseType::BadRequest), "also when it is away");
    assert_eq!(world.core().members().count(), 1);
    assert_eq!(world.core().counters.stolen, 1);
    assert_eq!(world.audited("agent.speak").len(), 2);
    // A second token of the same name is the same holder's, so that tokens can be exchanged.
    let renewed = world.make_token("fleet");
    world.agents.get_mut(&1).unwrap().token = renewed;
    world.connect(1);
    assert_eq!(
        world.core().members().map(|(uid, member)| (uid, member.connected)).collect::<Vec<_>>(),
        [(uid(1), true)]
    );
    // Nobody has the name any more when all its tokens are revoked.
    let now = world.now;
    for token in [world.token, renewed] {
        world.core.as_mut().unwrap().revoke(&mut world.registry, now, "admin", i64::try_from(token).unwrap()).unwrap();
    }
    world.settle();
    world.agents.get_mut(&1).unwrap().token = thief;
    world.connect(1);
    assert!(world.core().member(uid(1)).unwrap().connected);
}

#[test]
fn an_agent_that_says_too_much_is_told_to_come_later_and_others_are_heard() {
    let mut world = World::with(2);
    let mut refused = 0;
    for _ in 0..1000 {
        let answer = world.says(1, AgentToServer::default());
        refused += u64::from(refusal(&answer) == Some(ServerErrorResponseType::Unavailable));
    }
    assert!((850..1000).contains(&refused), "{refused}");
    assert_eq!(world.core().counters.too_many, refused);
    assert_eq!(refusal(&world.says(2, AgentToServer::default())), None);
    world.now += 60 * SECOND;
    assert_eq!(refusal(&world.says(1, AgentToServer::default())), None);
}

#[test]
fn an_agent_that_is_named_anew_again_and_again_is_told_to_come_later_too() {
    let mut world = World::with(1);
    let (mut name, token) = (uid(1), world.token);
    let mut taken = 0;
    for number in 0..1000 {
        let connection = Connection { id: 100_000 + number, stays: false, principal: token };
        let flags = AgentToServerFlags::RequestInstanceUid as u64;
        let message = AgentToServer { instance_uid: name.to_wire(), flags, ..AgentToServer::default() };
        let answer = world.received(connection, &message);
        if let Some(new) = answer.agent_identification {
            name = InstanceUid::from_wire(&new.new_instance_uid).unwrap();
            taken += 1;
        }
    }
    assert!((50..150).contains(&taken), "{taken}");
    assert_eq!((world.core().members().count(), world.core().store().agents().unwrap().len()), (1, 1));
}

#[test]
fn what_is_offered_to_many_is_in_memory_once() {
    let mut world = World::with(20);
    let revision = world.save(&"# as long as it likes\n".repeat(1000)).id;
    world.start(revision, &[100.0], OnFailure::Pause).unwrap();
    let texts: BTreeSet<_> = world
        .registry
        .agents()
        .map(|agent| agent.offers.remote_config.as_ref().unwrap().config.as_ref().unwrap().config_map[""].body.as_ptr())
        .collect();
    assert_eq!((world.registry.agents().count(), texts.len()), (20, 1));
}

#[test]
fn an_agent_that_has_nothing_new_to_say_costs_no_writes() {
    let mut world = World::with(1);
    world.settle();
    world.now += 30 * SECOND;
    world.says(1, AgentToServer::default());
    assert!(world.core().unkept.is_empty());
    world.now += 300 * SECOND;
    world.says(1, AgentToServer::default());
    let now = world.now;
    world.core().keep();
    world.restart();
    assert_eq!(world.core().member(uid(1)).unwrap().last_seen, now);
}

#[test]
fn an_agent_that_changes_all_the_time_is_written_now_and_then_and_others_are_too() {
    let mut world = World::with(3);
    let mut writes = 0;
    for number in 0..90 {
        world.now += 200;
        world.agents.get_mut(&1).unwrap().healthy = number % 2 == 0;
        world.says(1, AgentToServer::default());
        let before = world.core().kept_at.clone();
        world.settle();
        writes += usize::from(world.core().kept_at != before);
    }
    assert!((2..=5).contains(&writes), "{writes} in 18 s");
    world.leaves(2);
    world.settle();
    assert!(!world.core().unkept.contains(&uid(2)), "what is rare is written at once");
    assert!(world.core().unkept.contains(&uid(1)));
    let now = world.now;
    world.core().keep();
    world.restart();
    assert_eq!(world.core().member(uid(1)).unwrap().last_seen, now);
}

#[test]
fn so_much_is_written_at_once_and_the_rest_later() {
    let mut world = World::with(3);
    let now = world.now;
    for (number, at) in [(1, now - 50_000), (2, now - 60_000), (3, now - 40_000)] {
        world.core().kept_at.insert(uid(number), at);
        world.core().unkept.insert(uid(number));
    }
    let core = world.core();
    core.write(vec![uid(2)], 1, now);
    assert_eq!(core.unkept, BTreeSet::from([uid(1), uid(3)]));
    core.write(vec![uid(1), uid(3)], 1, now);
    assert_eq!(core.unkept, BTreeSet::from([uid(3)]), "a byte is more than may be");
    core.keep_some(now);
    assert!(core.unkept.is_empty());
}

#[test]
fn thousands_of_names_by_one_token_are_bounded_and_cost_others_nothing() {
    let mut world = World::with(2);
    world.leaves(1);
    let hostile = world.make_token("hostile");
    let (mut taken, mut later) = (0_usize, 0_usize);
    for number in 0..6000_u128 {
        let connection = Connection { id: 100_000 + u64::try_from(number).unwrap(), stays: false, principal: hostile };
        let uid = InstanceUid::from_wire(&(number | 1 << 100).to_be_bytes()).unwrap();
        match refusal(
            &world.received(connection, &AgentToServer { instance_uid: uid.to_wire(), ..AgentToServer::default() }),
        ) {
            None => taken += 1,
            Some(ServerErrorResponseType::Unavailable) => later += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((5000..5100).contains(&taken) && later + taken == 6000, "{taken} {later}");
    assert!(world.audited("agent.enrol").len() <= 110, "the audit log is not filled by it");
    // Its own are forgotten when there is no room; those of others never.
    let (fleet, now) = (world.token, world.now);
    let known = world.core().members().count();
    world.core().places = known;
    assert_eq!(world.core().room(fleet, now), Room::Of(uid(1)));
    assert_eq!(world.core().room(hostile, now), Room::None, "its own are all connected");
    world.connect(1);
    assert!(world.core().member(uid(1)).unwrap().connected);
}

/// With places for so many.
fn crowded(places: usize) -> World {
    let mut world = World::new();
    world.core().places = places;
    world
}

fn come(world: &mut World, token: u64, numbers: std::ops::RangeInclusive<u8>) {
    for number in numbers {
        world.agents.insert(number, Simulated { token, healthy: true, ..Simulated::default() });
        world.connect(number);
    }
}

fn known(world: &World) -> Vec<InstanceUid> {
    world.core.as_ref().unwrap().members().map(|(uid, _)| uid).collect()
}

#[test]
fn who_has_half_of_all_places_leaves_some_to_others() {
    let mut world = crowded(12);
    let (fleet, hostile) = (world.token, world.make_token("hostile"));
    come(&mut world, hostile, 1..=20);
    assert_eq!(known(&world).len(), 9, "the last quarter is not for it");
    come(&mut world, fleet, 21..=24);
    assert_eq!(known(&world).len(), 12);
    assert_eq!(world.core().member(uid(24)), None, "all are connected");
    // Of who has most, those that are gone make room, too.
    world.leaves(5);
    let now = world.now;
    assert_eq!(world.core().room(fleet, now), Room::Of(uid(5)));
    come(&mut world, fleet, 24..=24);
    assert!(known(&world).contains(&uid(24)) && !known(&world).contains(&uid(5)));

    // One name alone has all.
    let mut world = crowded(12);
    let fleet = world.token;
    come(&mut world, fleet, 1..=20);
    assert_eq!(known(&world).len(), 12);
}

#[test]
fn agents_whose_tokens_are_revoked_make_room_first_and_those_of_a_new_token_of_the_same_name_follow() {
    let mut world = crowded(8);
    let (fleet, former, now) = (world.token, world.make_token("former"), world.now);
    come(&mut world, fleet, 1..=4);
    come(&mut world, former, 5..=8);
    world.leaves(1);
    world.leaves(5);
    world.now += SECOND;
    let renewed = world.make_token("fleet");
    assert_eq!(world.core().room(renewed, now), Room::Of(uid(1)), "the same holder's");
    for token in [fleet, former] {
        let (core, token) = (world.core.as_mut().unwrap(), i64::try_from(token).unwrap());
        core.revoke(&mut world.registry, now, "admin", token).unwrap();
    }
    world.settle();
    come(&mut world, renewed, 11..=15);
    let left: Vec<_> = (5..=8).filter(|&number| known(&world).contains(&uid(number))).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!known(&world).contains(&uid(1)) && known(&world).len() == 8);
}

#[test]
fn who_was_gone_for_a_month_makes_room_for_anybody() {
    let mut world = crowded(4);
    let (fleet, other) = (world.token, world.make_token("other"));
    come(&mut world, fleet, 1..=1);
    come(&mut world, other, 2..=2);
    let third = world.make_token("third");
    come(&mut world, third, 3..=4);
    world.leaves(1);
    let now = world.now;
    assert_eq!(world.core().room(other, now + 86_400 * SECOND), Room::None);
    assert_eq!(world.core().room(other, now + 31 * 86_400 * SECOND), Room::Of(uid(1)));
}

#[test]
fn many_agents_of_one_name_are_bounded_as_other_agents_are() {
    let mut world = World::with(1);
    let (token, first) = (world.token, world.core().members().count());
    let mut taken = 0;
    for number in 0..6000 {
        let connection = Connection { id: 100_000 + number, stays: false, principal: token };
        // The first one counts high, all others low: as many machines as there are messages seem to have its name.
        let sequence_num = if number == 0 { 1 << 60 } else { 2 };
        let message = AgentToServer { instance_uid: uid(1).to_wire(), sequence_num, ..AgentToServer::default() };
        taken += usize::from(refusal(&world.received(connection, &message)).is_none());
        // The pace of one name is not what holds it up.
        world.now += i64::from(number % 40 == 0);
        world.core().speaking.clear();
    }
    let known = world.core().members().count();
    assert!((4900..5100).contains(&taken) && known == first + taken - 1, "{taken} {known}");
    assert_eq!(world.registry.agents().count(), known);
}

#[test]
fn what_an_agent_says_of_itself_is_kept_within_bounds() {
    let mut world = World::with(1);
    let attributes = (0..5000).map(|number| KeyValue {
        key: format!("key-{number}"),
        value: Some(AnyValue { value: Some(Value::StringValue("v\u{7}".repeat(100))) }),
    });
    let description =
        AgentDescription { non_identifying_attributes: attributes.collect(), ..AgentDescription::default() };
    world.says(1, AgentToServer { agent_description: Some(description), ..AgentToServer::default() });
    let member = world.core().member(uid(1)).unwrap();
    let bytes: usize = member.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!((1000..=16 << 10).contains(&bytes), "{bytes}");
    assert!(!member.labels.values().any(|value| value.contains('\u{7}')));
    // The registry does not keep it a second time.
    assert!(world.registry.agent(uid(1)).unwrap().description.is_none());
    // What it says of configurations that it was never offered is not kept at all.
    for number in 0..300_u32 {
        world.now += SECOND;
        world.agents.get_mut(&1).unwrap().status = Some(RemoteConfigStatus {
            last_remote_config_hash: number.to_be_bytes().to_vec(),
            status: RemoteConfigStatuses::Failed.into(),
            error_message: "x".repeat(100_000),
        });
        world.says(1, AgentToServer::default());
    }
    assert!(world.core().failures.is_empty() && world.core().store.failures().unwrap().is_empty());
    assert!(world.core().member(uid(1)).unwrap().config.as_ref().unwrap().error.len() <= 2 << 10);
}

#[test]
fn a_forgotten_agent_leaves_nothing_behind() {
    let mut world = World::with(1);
    let revision = world.save("bad");
    world.start(revision.id, &[100.0], OnFailure::Pause).unwrap();
    assert_eq!(world.core().failures(&revision.hash).len(), 1);
    let now = world.now;
    assert!(world.core.as_mut().unwrap().forget(&mut world.registry, now, "op", uid(1)).is_err(), "it is connected");
    world.leaves(1);
    world.core.as_mut().unwrap().forget(&mut world.registry, now, "op", uid(1)).unwrap();
    world.restart();
    assert!(world.core().members().next().is_none() && world.core().failures(&revision.hash).is_empty());
}

#[test]
fn strangers_do_not_fill_the_audit_log() {
    let mut world = World::new();
    let now = world.now;
    for attempt in 0..100_000 {
        world.core().unauthorized(now + attempt / 100, "GET /");
    }
    let entries = world.audited("unauthorized");
    assert_eq!(world.core().counters.unauthorized, 100_000);
    assert!(entries.len() <= 3, "{}", entries.len());
    world.core().unauthorized(now + 60 * SECOND, "GET /");
    assert!(world.audited("unauthorized")[0].detail.contains("more before were not written down"));
}

#[test]
fn who_is_refused_does_not_fill_the_audit_log_and_hides_nobody_else() {
    let mut world = World::new();
    let now = world.now;
    let (token, text) = world.core().make_token(now, "test", "hostile", Role::Agent).unwrap();
    let (other, other_text) = world.core().make_token(now, "test", "clumsy", Role::Operator).unwrap();
    let ask = |world: &mut World, method: http::Method, path: &str, token: &str| {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {token}")).body(()).unwrap();
        let ready = crate::api::Ready { head: request.into_parts().0, body: bytes::Bytes::new() };
        let (core, registry, now) = (world.core.as_mut().unwrap(), &mut world.registry, world.now);
        let Err(problem) = crate::api::answer(core, registry, ready, now) else { panic!("{path} is done") };
        problem.status().as_u16()
    };
    for _ in 0..1000 {
        assert_eq!(ask(&mut world, http::Method::GET, "/api/v1/agents", &text), 403);
        assert_eq!(ask(&mut world, http::Method::POST, "/api/v1/rollouts/0/pause", &other_text), 404);
    }
    let of = |world: &World, token: &Token| {
        let entries = world.core.as_ref().unwrap().store().audit(i64::MAX, 1000).unwrap();
        entries.iter().filter(|entry| entry.who == token.written_name()).count()
    };
    assert_eq!((of(&world, &token), of(&world, &other)), (100, 100));
    assert_eq!(world.core().counters.forbidden, 1000);
    // Another kind, and another token, are not held up by it.
    assert_eq!(ask(&mut world, http::Method::GET, "/api/v1/tokens", &other_text), 403);
    assert_eq!(of(&world, &other), 101);
}

#[test]
fn what_was_done_is_kept_however_much_is_refused() {
    let mut world = World::with(20);
    let now = world.now;
    for number in 0..30 {
        world.core().note(now, "op", "config.save", &format!("revision {number}"), Ok(""));
        world.core().note(now, "op", "rollout.start", "", Err("no"));
    }
    world.core().store().trim_audit(10).unwrap();
    let done: Vec<_> = world.audited("config.save").into_iter().map(|entry| entry.object).collect();
    assert_eq!(done, (20..30).rev().map(|number| format!("revision {number}")).collect::<Vec<_>>());
    assert_eq!(world.audited("rollout.start").len(), 10);
    assert!(world.audited("agent.enrol").is_empty() && world.audited("token.make").is_empty());
}

#[test]
fn revisions_are_listed_without_their_texts_and_the_newest_of_a_name_is_known() {
    let mut world = World::new();
    let now = world.now;
    let (core, big) = (world.core(), "x".repeat(1 << 20));
    let first = core.save(now, "op", "a", &big, "", Some(0)).unwrap().id;
    let second = core.save(now, "op", "b", &big, "", Some(0)).unwrap().id;
    let third = core.save(now, "op", "a", &big, "", Some(first)).unwrap().id;
    core.save(now, "op", "a", &big, "", Some(first)).unwrap_err();
    let listed = |name| {
        let all = core.store().revisions(name).unwrap();
        assert!(all.iter().all(|revision| revision.text.is_empty() && !revision.hash.is_empty()));
        all.iter().map(|revision| revision.id).collect::<Vec<_>>()
    };
    assert_eq!((listed(None), listed(Some("a"))), (vec![third, second, first], vec![third, first]));
    assert_eq!(core.store().revision(third).unwrap().unwrap().text.len(), 1 << 20);
}
