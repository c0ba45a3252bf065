//! A rollout against agents that do as they are told, or not.

use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1000;
const NOW: i64 = 1_700_000_000_000;

fn uid(number: u8) -> InstanceUid {
    InstanceUid::from_wire(&[number; 16]).unwrap()
}

fn plan(weights: &[f64], on_failure: OnFailure) -> Plan {
    let steps = weights.iter().map(|&weight| Step { weight, soak_seconds: 10 }).collect();
    Plan { revision: 1, selector: Selector::default(), steps, gates: Gates::default(), on_failure }
}

fn rollout(weights: &[f64]) -> Rollout {
    Rollout::new(1, plan(weights, OnFailure::Pause), "somebody".to_owned(), NOW, String::new())
}

/// Well for as long as there is any rollout: its time is what the step says.
const WELL: Standing = Standing::Well { for_ms: i64::MAX };

fn outside(number: u8) -> Seat {
    Seat { uid: uid(number), standing: Standing::Outside { is_ready: true }, assigned: None }
}

fn seats(count: u8) -> Vec<Seat> {
    (1..=count).map(outside).collect()
}

fn put(seats: &mut [Seat], who: &[InstanceUid], standing: &Standing) {
    for seat in seats.iter_mut().filter(|seat| who.contains(&seat.uid)) {
        seat.standing = standing.clone();
    }
}

/// Who is assigned next; they are then well.
fn assigned(rollout: &mut Rollout, seats: &mut [Seat], now: i64) -> Vec<InstanceUid> {
    let Some(Change::Assign(who)) = rollout.look(now, seats) else { panic!("nobody is assigned: {rollout:?}") };
    put(seats, &who, &WELL);
    seats.iter_mut().filter(|seat| who.contains(&seat.uid)).for_each(|seat| seat.assigned = Some(now));
    who
}

/// With the first step's agents assigned and well, and the soak begun at [`NOW`].
fn soaking(weights: &[f64], count: u8) -> (Rollout, Vec<Seat>, Vec<InstanceUid>) {
    let (mut rollout, mut seats) = (rollout(weights), seats(count));
    let who = assigned(&mut rollout, &mut seats, NOW);
    assert_eq!(rollout.look(NOW, &seats), Some(Change::Soak));
    assert_eq!(rollout.look(NOW, &seats), None);
    (rollout, seats, who)
}

#[test]
fn a_canary_is_first_then_waves_each_after_a_soak() {
    let (mut rollout, mut seats, canary) = soaking(&[1.0, 50.0, 100.0], 10);
    assert_eq!(canary.len(), 1, "of any agents at least one");
    assert_eq!(rollout.look(NOW + 10 * SECOND - 1, &seats), None);
    let mut now = NOW + 10 * SECOND;
    for wanted in [4, 5] {
        assert_eq!(rollout.look(now, &seats), Some(Change::Advanced));
        assert_eq!(assigned(&mut rollout, &mut seats, now).len(), wanted);
        assert_eq!(rollout.look(now, &seats), Some(Change::Soak));
        assert_eq!(rollout.look(now, &seats), None, "its soak has only begun");
        now += 10 * SECOND;
    }
    assert_eq!(rollout.look(now, &seats), Some(Change::Done));
    assert_eq!((rollout.phase, rollout.look(now, &seats)), (Phase::Done, None));
}

#[test]
fn a_gate_that_falls_stops_it_and_says_who_and_why() {
    let falls = [
        (Standing::Failed("rate: would widen".into()), "FAILED: rate: would widen"),
        (Standing::Unhealthy("no samples".into()), "unhealthy: no samples"),
        (Standing::Gone { for_ms: 90 * SECOND }, "not connected for 90 s"),
        (Standing::Waiting { since: NOW - 900 * SECOND }, "not applied the revision within 900 s"),
    ];
    for (standing, reason) in falls {
        for (on_failure, phase) in [(OnFailure::Pause, Phase::Paused), (OnFailure::Revert, Phase::Reverted)] {
            let (mut rollout, mut seats, canary) = soaking(&[10.0, 100.0], 10);
            rollout.plan.on_failure = on_failure;
            put(&mut seats, &canary, &standing);
            assert_eq!(rollout.look(NOW, &seats), Some(Change::Stopped), "{standing:?}");
            assert_eq!(rollout.phase, phase);
            let told = rollout.reason.clone().unwrap();
            assert!(told.contains(reason) && told.contains(&canary[0].to_string()), "{told}");
            assert_eq!(rollout.look(NOW + 1000 * SECOND, &seats), None, "nobody else gets it");
        }
    }
}

#[test]
fn a_gate_lets_as_many_pass_as_it_says() {
    let (mut rollout, mut seats, first) = soaking(&[50.0, 100.0], 10);
    rollout.plan.gates = Gates { failed: 1, unhealthy: 1, lost: 1, ..Gates::default() };
    put(&mut seats, &first[..1], &Standing::Failed("a".into()));
    put(&mut seats, &first[1..2], &Standing::Unhealthy("b".into()));
    put(&mut seats, &first[2..3], &Standing::Gone { for_ms: 100 * SECOND });
    assert_eq!(rollout.look(NOW + 10 * SECOND, &seats), Some(Change::Advanced));
    put(&mut seats, &first[3..4], &Standing::Failed("c".into()));
    assert_eq!(rollout.look(NOW + 10 * SECOND, &seats), Some(Change::Stopped));
}

#[test]
fn each_agent_has_a_time_of_its_own() {
    let (mut rollout, mut seats, first) = soaking(&[50.0, 100.0], 10);
    // One has come back, or was unwell for a moment within what its gate lets pass: the step waits for that one's time alone.
    put(&mut seats, &first[..1], &Standing::Well { for_ms: 3 * SECOND });
    assert_eq!(rollout.look(NOW + 10 * SECOND, &seats), None);
    put(&mut seats, &first[..1], &Standing::Well { for_ms: 10 * SECOND });
    assert_eq!(rollout.look(NOW + 17 * SECOND, &seats), Some(Change::Advanced));
}

#[test]
fn who_is_away_and_not_lost_yet_holds_a_step_up_but_for_as_many_as_may_be_lost() {
    let (mut rollout, mut seats, first) = soaking(&[50.0, 100.0], 10);
    put(&mut seats, &first[..1], &Standing::Gone { for_ms: SECOND });
    assert_eq!(rollout.look(NOW + 100 * SECOND, &seats), None);
    rollout.plan.gates.lost = 1;
    assert_eq!(rollout.look(NOW + 100 * SECOND, &seats), Some(Change::Advanced));
}

#[test]
fn who_comes_to_a_step_later_does_not_hold_it_up_and_is_judged_all_the_same() {
    let (mut rollout, mut seats, _) = soaking(&[10.0, 100.0], 10);
    // Ten more agents come: a tenth of them is one more.
    seats.extend((11..=20).map(outside));
    let late = assigned(&mut rollout, &mut seats, NOW + 9 * SECOND);
    assert_eq!(late.len(), 1);
    put(&mut seats, &late, &Standing::Failed("a".into()));
    let mut judged = rollout.clone();
    assert_eq!(judged.look(NOW + 10 * SECOND, &seats), Some(Change::Stopped));
    put(&mut seats, &late, &Standing::Waiting { since: NOW + 9 * SECOND });
    assert_eq!(rollout.look(NOW + 10 * SECOND, &seats), Some(Change::Advanced));
}

#[test]
fn who_says_goodbye_is_not_lost_and_nobody_else_takes_its_place() {
    let (mut rollout, mut seats, first) = soaking(&[50.0, 100.0], 10);
    put(&mut seats, &first[..2], &Standing::Left);
    assert_eq!(rollout.look(NOW + 9 * SECOND, &seats), None, "nobody is assigned for them");
    assert_eq!(rollout.look(NOW + 10 * SECOND, &seats), Some(Change::Advanced));
    // A configuration with which all end proves nothing, however politely.
    let (mut rollout, mut seats, first) = soaking(&[50.0, 100.0], 10);
    put(&mut seats, &first[..3], &Standing::Left);
    assert_eq!(rollout.look(NOW + 100 * SECOND, &seats), None);
    put(&mut seats, &first[..1], &WELL);
    assert_eq!(rollout.look(NOW + 100 * SECOND, &seats), Some(Change::Advanced));
}

#[test]
fn agents_do_not_know_who_is_the_canary() {
    let canaries: std::collections::BTreeSet<_> = (0..20)
        .map(|salt| {
            let mut rollout = Rollout { salt: format!("{salt}"), ..rollout(&[1.0, 100.0]) };
            assigned(&mut rollout, &mut seats(20), NOW)
        })
        .collect();
    assert!(canaries.len() > 5, "{canaries:?}");
}

#[test]
fn a_step_that_nobody_is_in_is_not_walked() {
    let mut rollout = rollout(&[10.0, 100.0]);
    let away = [Seat { standing: Standing::Outside { is_ready: false }, ..outside(1) }];
    for after in [0, 10, 1000] {
        assert_eq!(rollout.look(NOW + after * SECOND, &[]), None);
        assert_eq!(rollout.look(NOW + after * SECOND, &away), None, "who is away or unwell is not given anything");
    }
    assert_eq!(rollout.step, 0);
}

#[test]
fn somebody_pauses_resumes_and_reverts_it() {
    let (mut rollout, seats, _) = soaking(&[10.0, 100.0], 10);
    let version = rollout.version;
    rollout.pause("by me".into()).unwrap();
    assert!(rollout.version > version && rollout.pause(String::new()).is_err());
    assert_eq!(rollout.look(NOW + 100 * SECOND, &seats), None);
    rollout.resume(NOW + 100 * SECOND).unwrap();
    assert!(rollout.resume(NOW).is_err());
    assert_eq!(
        rollout.look(NOW + 100 * SECOND, &seats),
        Some(Change::Soak),
        "the time in which it was paused is no soak"
    );
    assert_eq!(rollout.look(NOW + 110 * SECOND, &seats), Some(Change::Advanced));
    rollout.revert("by me".into()).unwrap();
    assert!(rollout.revert(String::new()).is_err() && rollout.pause(String::new()).is_err());
    assert!(rollout.resume(NOW).is_err(), "what is reverted stays so");
    assert_eq!(rollout.look(NOW + 200 * SECOND, &seats), None);
}

#[test]
fn resumed_with_what_made_its_gate_fall_it_stops_again() {
    let (mut rollout, mut seats, canary) = soaking(&[10.0, 100.0], 10);
    put(&mut seats, &canary, &Standing::Failed("a".into()));
    assert_eq!(rollout.look(NOW, &seats), Some(Change::Stopped));
    rollout.resume(NOW).unwrap();
    assert_eq!(rollout.look(NOW, &seats), Some(Change::Stopped));
}

#[test]
fn plans_that_cannot_be_walked_are_refused() {
    let good = plan(&[1.0, 100.0], OnFailure::Pause);
    good.check().unwrap();
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        plan.check()
    };
    for weights in [&[][..], &[0.0], &[-1.0], &[101.0], &[f64::NAN], &[10.0, 10.0], &[50.0, 20.0]] {
        assert!(plan(weights, OnFailure::Pause).check().is_err(), "{weights:?}");
    }
    assert!(plan(&(1..=33).map(f64::from).collect::<Vec<_>>(), OnFailure::Pause).check().is_err());
    assert!(with(&|plan| plan.steps[0].soak_seconds = u64::MAX).is_err());
    assert!(with(&|plan| plan.gates.lost_seconds = u64::MAX).is_err());
    assert!(with(&|plan| plan.gates.answer_seconds = 0).is_err());
}

proptest! {
    /// Whatever agents do: never more have it than the step's share of those that could, nobody is given it twice, a step is left only
    /// when all that it had at first are well for its time or said goodbye, and after a gate has fallen nobody gets it.
    #[test]
    fn a_rollout_keeps_to_its_plan(
        weights in prop::collection::btree_set(1_u8..=100, 1..5),
        count in 1_u8..40,
        deeds in prop::collection::vec((any::<u8>(), 0_u8..8, 0_i64..15), 0..60),
    ) {
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let mut rollout = rollout(&weights);
        let mut seats = seats(count);
        let mut now = NOW;
        let mut had: Vec<InstanceUid> = Vec::new();
        for (who, deed, seconds) in deeds {
            now += seconds * SECOND;
            let at = usize::from(who) % seats.len();
            let is_in = !matches!(seats[at].standing, Standing::Outside { .. });
            seats[at].standing = match deed {
                _ if !is_in => Standing::Outside { is_ready: deed != 0 },
                0 => Standing::Failed("a".into()),
                1 => Standing::Unhealthy("b".into()),
                2 => Standing::Gone { for_ms: 91 * SECOND },
                3 => Standing::Gone { for_ms: SECOND },
                4 => Standing::Waiting { since: now },
                5 => Standing::Left,
                _ => Standing::Well { for_ms: seconds * SECOND },
            };
            let mut moves = 0;
            let (before, was) = (seats.clone(), rollout.phase);
            loop {
                let filled = rollout.filled;
                let Some(change) = rollout.look(now, &seats) else { break };
                moves += 1;
                prop_assert!(moves < 20, "it does not come to rest");
                match change {
                    Change::Assign(who) => {
                        prop_assert_eq!(was, Phase::Running);
                        for uid in &who {
                            prop_assert!(!had.contains(uid));
                            had.push(*uid);
                        }
                        put(&mut seats, &who, &Standing::Waiting { since: now });
                        seats.iter_mut().filter(|seat| who.contains(&seat.uid)).for_each(|seat| seat.assigned = Some(now));
                        let step = rollout.plan.steps[rollout.step];
                        let could = seats.iter().filter(|seat| seat.standing != Standing::Outside { is_ready: false });
                        prop_assert!(had.len() <= (could.count() as f64 * step.weight / 100.0).ceil() as usize);
                    }
                    Change::Advanced | Change::Done => {
                        let filled = filled.unwrap();
                        prop_assert!(now - filled >= 10 * SECOND);
                        let is_of_it = |seat: &&Seat| seat.assigned.is_some_and(|at| at <= filled);
                        let is_so = |seat: &Seat| match seat.standing {
                            Standing::Well { for_ms } => for_ms >= 10 * SECOND,
                            Standing::Left => true,
                            _ => false,
                        };
                        prop_assert!(before.iter().filter(is_of_it).all(is_so));
                        let count = |is: &dyn Fn(&Standing) -> bool| before.iter().filter(|seat| is(&seat.standing)).count();
                        let left = count(&|standing| *standing == Standing::Left);
                        let well = count(&|standing| matches!(standing, Standing::Well { .. }));
                        prop_assert!(left <= well);
                    }
                    Change::Stopped => prop_assert!(!rollout.is_under_way() || rollout.phase == Phase::Paused),
                    Change::Soak => {}
                }
            }
        }
    }
}
