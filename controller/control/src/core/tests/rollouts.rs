//! Rollouts with simulated agents, and a server that is killed meanwhile.

use super::*;
use crate::rollout::Counts;

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
    let bad = written("bad");
    let bad = world.core().store().revisions(None).unwrap().into_iter().find(|revision| revision.hash == bad).unwrap();
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
fn who_was_away_or_unwell_during_a_rollout_gets_it_later() {
    let mut world = World::with(4);
    let (old, new) = (world.save("rate: 49").id, world.save("rate: 19").id);
    world.start(old, &[100.0], OnFailure::Pause).unwrap();
    world.pass(8);
    assert_eq!(world.running("rate: 49"), 4);
    world.leaves(1);
    world.agents.get_mut(&2).unwrap().healthy = false;
    world.says(2, AgentToServer::default());
    let id = world.start(new, &[100.0], OnFailure::Pause).unwrap();
    world.pass(8);
    assert_eq!((world.rollout(id).phase, world.running("rate: 19")), (Phase::Done, 2));
    world.restart();
    (1..=4).for_each(|number| world.connect(number));
    world.settle();
    assert_eq!(world.running("rate: 19"), 3, "one is still unwell");
    world.agents.get_mut(&2).unwrap().healthy = true;
    let answer = world.says(2, AgentToServer::default());
    world.hears(2, &answer);
    world.settle();
    assert_eq!(world.running("rate: 19"), 4);
    // Taken back, they have what they had, and stay so.
    world.core.as_mut().unwrap().change(&mut world.registry, world.now, "op", (id, None), Verb::Revert, "no").unwrap();
    world.settle();
    world.leaves(3);
    world.connect(3);
    world.pass(3);
    assert_eq!(world.running("rate: 49"), 4);
}

#[test]
fn a_rollout_to_some_stays_with_those_that_it_reached() {
    let mut world = World::with(10);
    let revision = world.save("rate: 49").id;
    let id = world.start(revision, &[10.0, 30.0], OnFailure::Revert).unwrap();
    world.pass(20);
    assert_eq!((world.rollout(id).phase, world.running("rate: 49")), (Phase::Done, 3));
    (1..=10).for_each(|number| world.leaves(number));
    (1..=11).for_each(|number| world.connect(number));
    world.pass(3);
    assert_eq!(world.running("rate: 49"), 3, "by no way around the steps and their gates");
    // The same revision to all.
    world.start(revision, &[100.0], OnFailure::Revert).unwrap();
    assert_eq!(world.running("rate: 49"), 11);
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

#[test]
fn an_agent_that_comes_to_be_meant_by_two_rollouts_stays_in_the_one_that_has_it() {
    let mut world = World::with(4);
    let (one, other) = (world.save("rate: 49").id, world.save("rate: 19").id);
    let first = world.start_for("env=prod", one, &[100.0], OnFailure::Revert).unwrap();
    let second = world.start_for("env=test", other, &[100.0], OnFailure::Revert).unwrap();
    assert_eq!((world.running("rate: 49"), world.running("rate: 19")), (2, 2));
    let third = world.start_for("zone=a", other, &[100.0], OnFailure::Revert).unwrap();
    // Agent 2 has labels that the first and the third mean, and agent 5 comes with them.
    world.describes(2, &[("env", "prod"), ("zone", "a")]);
    world.connect(5);
    world.describes(5, &[("env", "prod"), ("zone", "a")]);
    world.pass(4);
    let given = |world: &World, number| world.agents[&number].given.len();
    assert_eq!((given(&world, 2), given(&world, 5)), (1, 1), "nobody takes them from the other");
    assert_eq!(world.audited("rollout.assign").len(), 3);
    // So that both end, also if the one that has it is paused.
    world.pass(10);
    assert_eq!((world.rollout(first).phase, world.rollout(second).phase), (Phase::Done, Phase::Done));
    assert_eq!(world.rollout(third).phase, Phase::Done, "it had nobody before the first was done");
}

#[test]
fn a_gate_that_falls_stops_a_rollout_also_if_nothing_can_be_written() {
    let mut world = World::with(4);
    let revision = world.save("rate: 49");
    let id = world.start(revision.id, &[25.0, 100.0], OnFailure::Revert).unwrap();
    let canary = *world.agents.iter().find(|(_, agent)| agent.text.is_some()).unwrap().0;
    world.leaves(canary);
    world.core().store().break_audit(true);
    world.pass(25);
    assert_eq!((world.rollout(id).phase, world.running("rate: 49")), (Phase::Reverted, 1));
    assert!(world.core().check().is_err());
    let lost = world.core().counters.lost_writes;
    world.pass(100);
    let lost = world.core().counters.lost_writes - lost;
    assert!((1..=6).contains(&lost), "tried {lost} times");
    // There is room again.
    world.core().store().break_audit(false);
    world.pass(60);
    world.core().check().unwrap();
    world.restart();
    assert_eq!((world.rollout(id).phase, world.audited("rollout.revert").len()), (Phase::Reverted, 1));
    world.connect(canary);
    world.settle();
    assert_eq!(world.running("rate: 49"), 0);
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
    // Who the canary is differs from rollout to rollout.
    let nameless =
        |detail: String| (1..=10).fold(detail, |detail, number| detail.replace(&uid(number).to_string(), "one"));
    let audit =
        all.filter(|entry| entry.object == object).map(|entry| (entry.action, nameless(entry.detail))).collect();
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
    // As late as agents that have tried for long may be, each with its own time.
    for number in 1..=4 {
        world.pass(100);
        assert_ne!(world.rollout(id).phase, Phase::Reverted, "its agents have time to come back");
        world.connect(number);
    }
    world.pass(20);
    assert_eq!((world.rollout(id).phase, world.running("rate: 49")), (Phase::Done, 4));
}

#[test]
fn who_does_not_come_back_after_the_server_was_away_is_lost_in_the_end() {
    let mut world = World::with(4);
    let revision = world.save("rate: 49");
    let id = world.start(revision.id, &[100.0], OnFailure::Pause).unwrap();
    world.restart();
    (1..=3).for_each(|number| world.connect(number));
    world.pass(465);
    assert_eq!(world.rollout(id).phase, Phase::Running);
    world.pass(10);
    assert_eq!(world.rollout(id).phase, Phase::Paused);
    // One that was heard since has no more time than ever.
    world.connect(4);
    let version = world.rollout(id).version;
    let resumed = (id, Some(version));
    world.core.as_mut().unwrap().change(&mut world.registry, world.now, "op", resumed, Verb::Resume, "").unwrap();
    world.leaves(1);
    world.pass(25);
    assert_eq!(world.rollout(id).phase, Phase::Paused);
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

#[test]
fn an_agent_that_is_named_anew_keeps_what_it_has_failed_with() {
    let mut world = World::with(1);
    let revision = world.save("bad");
    world.start(revision.id, &[100.0], OnFailure::Pause).unwrap();
    let flags = AgentToServerFlags::RequestInstanceUid as u64;
    let answer = world.says(1, AgentToServer { flags, ..AgentToServer::default() });
    let new = InstanceUid::from_wire(&answer.agent_identification.unwrap().new_instance_uid).unwrap();
    for _ in 0..2 {
        assert_eq!(world.core().failures(&revision.hash), [(new, "it is bad")]);
        world.restart();
    }
}

#[test]
fn taken_back_an_agent_has_the_last_that_it_has_not_failed_with() {
    for first in [None, Some("rate: 49")] {
        let mut world = World::with(2);
        if let Some(text) = first {
            let revision = world.save(text).id;
            world.start(revision, &[100.0], OnFailure::Pause).unwrap();
            world.pass(8);
        }
        // One that agents may fail with.
        let plan = Plan {
            revision: world.save("bad").id,
            selector: "".parse().unwrap(),
            steps: vec![Step { weight: 100.0, soak_seconds: 5 }],
            gates: Gates { failed: 2, ..Gates::default() },
            on_failure: OnFailure::Pause,
        };
        let bad = world.core.as_mut().unwrap().start(&mut world.registry, world.now, "op", plan).unwrap();
        world.pass(8);
        assert_eq!(world.rollout(bad.id).phase, Phase::Done);
        let good = world.save("rate: 19").id;
        let id = world.start(good, &[100.0], OnFailure::Pause).unwrap();
        world.pass(8);
        assert_eq!(world.running("rate: 19"), 2);
        let (core, registry) = (world.core.as_mut().unwrap(), &mut world.registry);
        core.change(registry, world.now, "op", (id, None), Verb::Revert, "").unwrap();
        world.settle();
        let texts: Vec<_> = world.agents.values().map(|agent| agent.text.as_deref()).collect();
        assert_eq!(texts, [first, first]);
    }
}

#[test]
fn an_agent_that_fails_with_its_first_revision_runs_its_own_and_is_not_asked_to_try_that() {
    let mut world = World::with(1);
    let bad = world.save("bad");
    world.start(bad.id, &[100.0], OnFailure::Pause).unwrap();
    for _ in 0..2 {
        world.pass(8);
        assert_eq!(world.agents[&1].given, std::slice::from_ref(&bad.hash));
        let (_, member) = world.core().members().next().unwrap();
        assert_eq!(member.config.as_ref().map(|status| status.status.as_str()), Some("FAILED"));
        // The same when the server was away.
        world.restart();
        world.connect(1);
    }
}

#[test]
fn a_rollout_that_has_ended_says_how_its_agents_were() {
    let mut world = World::with(10);
    let (good, bad) = (world.save("rate: 49").id, world.save("bad").id);
    let done = world.start(good, &[100.0], OnFailure::Pause).unwrap();
    assert_eq!(world.rollout(done).ended, None);
    world.pass(8);
    let reverted = world.start(bad, &[20.0, 100.0], OnFailure::Revert).unwrap();
    world.pass(2);
    world.restart();
    let all =
        |counts: Option<Counts>| counts.map(|counts| (counts.eligible, counts.assigned, counts.well, counts.failed));
    assert_eq!(all(world.rollout(done).ended), Some((10, 10, 10, 0)));
    assert_eq!(all(world.rollout(reverted).ended), Some((10, 2, 0, 2)));
}

#[test]
fn a_clock_that_was_ahead_holds_up_no_gate_after_a_restart() {
    for text in ["slow", "rate: 49"] {
        let mut world = World::with(2);
        world.now += 86_400 * SECOND;
        let revision = world.save(text).id;
        let id = world.start(revision, &[50.0, 100.0], OnFailure::Pause).unwrap();
        world.core().keep();
        world.now -= 86_400 * SECOND;
        world.restart();
        (1..=2).for_each(|number| world.connect(number));
        let phase = if text == "slow" { Phase::Paused } else { Phase::Done };
        world.pass(490);
        assert_eq!(world.rollout(id).phase, phase, "{text}");
    }
}

#[test]
fn the_time_of_an_agent_that_was_away_for_a_moment_goes_on_and_that_of_one_that_was_started_anew_begins_again() {
    for (is_anew, rest) in [(false, 2), (true, 5)] {
        let mut world = World::with(4);
        let revision = world.save("rate: 49");
        let id = world.start(revision.id, &[100.0], OnFailure::Revert).unwrap();
        world.pass(3);
        world.leaves(1);
        world.pass(4);
        assert_eq!(world.rollout(id).phase, Phase::Running, "it is not lost yet, and has not had its time");
        if is_anew {
            world.agents.get_mut(&1).unwrap().sequence = 0;
        }
        world.connect(1);
        world.pass(rest - 1);
        assert_eq!(world.rollout(id).phase, Phase::Running, "{is_anew}");
        world.pass(2);
        assert_eq!(world.rollout(id).phase, Phase::Done, "{is_anew}");
    }
}

#[test]
fn an_agent_that_says_goodbye_stops_nothing() {
    let mut world = World::with(4);
    let revision = world.save("rate: 49");
    let id = world.start(revision.id, &[50.0, 100.0], OnFailure::Revert).unwrap();
    let canary = *world.agents.iter().find(|(_, agent)| agent.text.is_some()).unwrap().0;
    let goodbye = AgentToServer { agent_disconnect: Some(AgentDisconnect::default()), ..AgentToServer::default() };
    world.says(canary, goodbye);
    world.leaves(canary);
    world.pass(40);
    assert_eq!((world.rollout(id).phase, world.running("rate: 49")), (Phase::Done, 4));
    // The next one of the same, also after the server was away.
    world.restart();
    (1..=4).filter(|number| *number != canary).for_each(|number| world.connect(number));
    let counts = {
        let (rollout, now) = (world.rollout(id).clone(), world.now);
        world.core().counts(&rollout, now).unwrap()
    };
    assert_eq!((counts.well, counts.left, counts.lost), (3, 1, 0));
}

#[test]
fn a_revision_that_an_agent_has_failed_with_before_it_was_to_have_it_stops_at_once() {
    let mut world = World::with(1);
    let bad = world.save("bad");
    let status = RemoteConfigStatus {
        last_remote_config_hash: crate::token::unhex(&bad.hash),
        status: RemoteConfigStatuses::Failed.into(),
        error_message: "it was bad".to_owned(),
    };
    world.agents.get_mut(&1).unwrap().status = Some(status);
    world.says(1, AgentToServer::default());
    assert_eq!(world.core().failures(&bad.hash), [], "nobody has offered it that");
    let id = world.start(bad.id, &[100.0], OnFailure::Pause).unwrap();
    assert_eq!(world.rollout(id).phase, Phase::Paused);
    assert_eq!(world.core().failures(&bad.hash), [(uid(1), "it was bad")]);
    assert!(world.agents[&1].given.is_empty());
}

#[test]
fn metrics_tell_how_rollouts_under_way_get_on() {
    let mut world = World::with(4);
    let revision = world.save("rate: 49");
    let id = world.start(revision.id, &[50.0, 100.0], OnFailure::Pause).unwrap();
    let told = |world: &mut World| {
        let now = world.now;
        let page = crate::metrics::page(world.core(), now);
        let name = format!(r#"profiler_control_rollout_agents{{rollout="{id}",state=""#);
        let lines = page.lines().filter_map(|line| line.strip_prefix(&name)).filter(|line| !line.ends_with(" 0"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut world), [r#"eligible"} 4"#, r#"assigned"} 2"#, r#"well"} 2"#]);
    let canary = *world.agents.iter().find(|(_, agent)| agent.text.is_some()).unwrap().0;
    world.leaves(canary);
    world.pass(25);
    assert_eq!(world.rollout(id).phase, Phase::Paused);
    assert_eq!(told(&mut world), [r#"eligible"} 4"#, r#"assigned"} 2"#, r#"well"} 1"#, r#"lost"} 1"#]);
    world.pass(1);
    let (core, registry) = (world.core.as_mut().unwrap(), &mut world.registry);
    core.change(registry, world.now, "op", (id, None), Verb::Revert, "").unwrap();
    assert!(told(&mut world).is_empty(), "of one that has ended nothing");
}
