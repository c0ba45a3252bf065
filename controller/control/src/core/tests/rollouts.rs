//! Rollouts with simulated agents, and a server that is killed meanwhile.

use super::*;

#[test]
fn a_good_revision_walks_its_steps_and_who_comes_later_gets_it() {
    let mut world = World::with(10);
    let revision = world.save("rate: 49");
    world.pass(3);
    assert_eq!(world.running("rate: 49"), 0, "saving distributes nothing");
    let id = world.start(revision.id, &[10.0, 50.0, 100.0], OnFailure::Revert).unwrap();
    assert_eq!(world.running("rate: 49"), 1, "the canary");
    world.pass(4);
    assert_eq!(world.running("rate: 49"), 1);
    world.pass(3);
    assert_eq!(world.running("rate: 49"), 5);
    world.pass(7);
    assert_eq!(world.running("rate: 49"), 10);
    world.pass(7);
    assert_eq!(world.rollout(id).phase, Phase::Done);
    world.connect(11);
    world.settle();
    assert_eq!(world.running("rate: 49"), 11);
    // Taken back when it is done: everybody has the own configuration again, and the next one to come, too.
    world.core.as_mut().unwrap().change(&mut world.registry, world.now, "op", (id, None), Verb::Revert, "no").unwrap();
    world.settle();
    assert_eq!(
        (world.running("rate: 49"), world.agents.values().filter(|agent| agent.text.is_none()).count()),
        (0, 11)
    );
}

#[test]
fn a_bad_revision_stops_at_the_canary_which_goes_back_to_what_it_had() {
    let mut world = World::with(10);
    let good = world.save("rate: 49");
    world.start(good.id, &[100.0], OnFailure::Pause).unwrap();
    world.pass(10);
    assert_eq!(world.running("rate: 49"), 10);
    for (text, why) in [("bad", "it is bad"), ("sick", "no samples"), ("slow", "within 30 s")] {
        let revision = world.save(text);
        let id = world.start(revision.id, &[10.0, 100.0], OnFailure::Revert).unwrap();
        world.pass(32);
        let rollout = world.rollout(id).clone();
        assert_eq!(rollout.phase, Phase::Reverted, "{text}");
        assert!(rollout.reason.as_ref().unwrap().contains(why), "{rollout:?}");
        let given = world.agents.values().filter(|agent| agent.given.contains(&revision.hash)).count();
        assert_eq!(given, 1, "nobody but the canary was given {text}");
        assert_eq!(world.running("rate: 49"), 10, "{text} was taken back");
        world.pass(5);
    }
    // What has failed is not offered again until somebody says so.
    let bad =
        world.core().store().revisions(None).unwrap().into_iter().find(|revision| revision.text == "bad").unwrap();
    let refused = world.start(bad.id, &[100.0], OnFailure::Pause).unwrap_err();
    assert!(refused.to_string().contains("agents have failed with revision"), "{refused}");
    world.restart();
    assert!(world.start(bad.id, &[100.0], OnFailure::Pause).is_err(), "also after a restart");
    let now = world.now;
    let again = world.core().retry(now, "op", bad.id).unwrap();
    assert_ne!(again.hash, bad.hash);
    world.start(again.id, &[100.0], OnFailure::Pause).unwrap();
}

#[test]
fn a_paused_rollout_waits_for_somebody_and_a_lost_agent_is_told() {
    let mut world = World::with(4);
    let revision = world.save("rate: 49");
    let id = world.start(revision.id, &[25.0, 100.0], OnFailure::Pause).unwrap();
    let canary = *world.agents.iter().find(|(_, agent)| agent.text.is_some()).unwrap().0;
    world.leaves(canary);
    world.pass(19);
    assert_eq!(world.rollout(id).phase, Phase::Running);
    world.pass(3);
    assert_eq!(world.rollout(id).phase, Phase::Paused);
    world.pass(30);
    assert_eq!(world.running("rate: 49"), 1);
    world.connect(canary);
    let version = world.rollout(id).version;
    let change = |world: &mut World, version| {
        world.core.as_mut().unwrap().change(&mut world.registry, world.now, "op", (id, Some(version)), Verb::Resume, "")
    };
    assert!(matches!(change(&mut world, version - 1), Err(Problem::Conflict(_))), "somebody else has changed it");
    change(&mut world, version).unwrap();
    world.pass(20);
    assert_eq!((world.rollout(id).phase, world.running("rate: 49")), (Phase::Done, 4));
}

#[test]
fn two_rollouts_do_not_fight_for_the_same_agents() {
    let mut world = World::with(4);
    let revision = world.save("rate: 49");
    let id = world.start(revision.id, &[25.0, 100.0], OnFailure::Pause).unwrap();
    let refused = world.start(revision.id, &[100.0], OnFailure::Pause).unwrap_err();
    assert!(refused.to_string().contains(&format!("rollout {id} is under way")), "{refused}");
    // Two people save at once: the second is told.
    let now = world.now;
    let refused = world.core().save(now, "other", "fleet", "rate: 19", "", Some(revision.id - 1)).unwrap_err();
    assert!(matches!(refused, Problem::Conflict(_)), "{refused}");
}

/// Goes through a rollout second by second, and has the server killed after each second in `kills`; what became of it.
fn walked(text: &str, kills: &[i64]) -> (Phase, usize, usize, Vec<usize>, Vec<(String, String)>) {
    let mut world = World::with(10);
    let base = world.save("base");
    world.start(base.id, &[100.0], OnFailure::Pause).unwrap();
    world.pass(8);
    let revision = world.save(text);
    let id = world.start(revision.id, &[10.0, 50.0, 100.0], OnFailure::Revert).unwrap();
    let mut most = Vec::new();
    for second in 0..45 {
        if kills.contains(&second) {
            world.restart();
            (1..=10).for_each(|number| world.connect(number));
        }
        world.settle();
        let given = world.agents.values().filter(|agent| agent.given.contains(&revision.hash)).count();
        if most.last() != Some(&given) {
            most.push(given);
        }
        world.pass(1);
    }
    let twice =
        world.agents.values().filter(|agent| agent.given.iter().filter(|hash| **hash == revision.hash).count() > 1);
    let twice = twice.count();
    let wanted = ["rollout.assign", "rollout.advance", "rollout.done", "rollout.revert"];
    let object = format!("rollout {id}");
    let all = wanted.iter().flat_map(|action| world.audited(action));
    let audit = all.filter(|entry| entry.object == object).map(|entry| (entry.action, entry.detail)).collect();
    (world.rollout(id).phase, world.running(text), twice, most, audit)
}

#[test]
fn a_server_that_is_killed_at_any_step_goes_on_where_it_was() {
    for (text, phase, having, most) in [
        ("good", Phase::Done, 10, &[1, 5, 10][..]),
        ("bad", Phase::Reverted, 0, &[1]),
        ("sick", Phase::Reverted, 0, &[1]),
    ] {
        let undisturbed = walked(text, &[]);
        assert_eq!((undisturbed.0, undisturbed.1, undisturbed.2), (phase, having, 0), "{text}");
        assert_eq!(undisturbed.3, most, "{text}");
        for second in 0..16 {
            assert_eq!(walked(text, &[second]), undisturbed, "{text}, killed after {second} s");
        }
        assert_eq!(walked(text, &[0, 1, 2, 6, 7, 11, 12, 13]), undisturbed, "{text}, killed often");
    }
}

#[test]
fn what_happened_while_the_server_was_away_is_nobodys_fault() {
    let mut world = World::with(4);
    let revision = world.save("rate: 49");
    let id = world.start(revision.id, &[50.0, 100.0], OnFailure::Revert).unwrap();
    world.now += 3600 * SECOND;
    world.restart();
    world.pass(10);
    assert_eq!(world.rollout(id).phase, Phase::Running, "its agents have time to come back");
    (1..=4).for_each(|number| world.connect(number));
    world.pass(20);
    assert_eq!((world.rollout(id).phase, world.running("rate: 49")), (Phase::Done, 4));
}

#[test]
fn an_agent_that_is_named_anew_keeps_what_it_is_to_have() {
    let mut world = World::with(1);
    let revision = world.save("rate: 49");
    world.start(revision.id, &[100.0], OnFailure::Pause).unwrap();
    let flags = AgentToServerFlags::RequestInstanceUid as u64;
    let answer = world.says(1, AgentToServer { flags, ..AgentToServer::default() });
    let new = InstanceUid::from_wire(&answer.agent_identification.unwrap().new_instance_uid).unwrap();
    world.restart();
    let known: Vec<_> = world.core().members().map(|(uid, member)| (uid, member.assignments.len())).collect();
    assert_eq!(known, [(new, 1)]);
}
