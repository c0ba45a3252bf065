//! Many series within a budget.

use profiler_detectors::{Bank, Config, Direction, KeptError, Kind, MAX_NAME, Observation, SECOND};

const BUDGET: usize = 64 << 10;

fn bank(budget: usize) -> Bank {
    Bank::new(&[Config::default()], budget).expect("a right configuration")
}

#[test]
fn a_function_that_is_new_and_large_is_told() {
    let mut bank = bank(BUDGET);
    let mut events = Vec::new();
    for second in 0..400 {
        let new = if second < 300 { 0 } else { 40 };
        events.extend(bank.observe_shares(second * SECOND, 400, [("old", 300), ("new", new)]));
    }
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    assert_eq!((&*event.series, event.event.kind, event.event.direction), ("new", Kind::Changed, Direction::Up));
    assert!(event.event.time <= 303 * SECOND && event.event.from.value < 0.001, "{event:?}");
    assert_eq!(bank.len(), 2);
}

#[test]
fn what_is_not_named_has_no_samples() {
    let mut bank = bank(BUDGET);
    let mut events = Vec::new();
    for second in 0..400 {
        let shares = [("gone", 100), ("stays", 100)];
        events.extend(bank.observe_shares(second * SECOND, 400, shares.into_iter().skip(usize::from(second >= 300))));
    }
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    assert_eq!((&*event.series, event.event.direction), ("gone", Direction::Down));
}

#[test]
fn those_that_come_and_go_do_not_drive_out_those_that_stay() {
    let mut bank = bank(BUDGET);
    for second in 0..2_000_u64 {
        let fleeting = format!("fleeting {second}");
        bank.observe_shares(second * SECOND, 100, [("stays", 50), (fleeting.as_str(), 1)]);
        assert!(bank.bytes() <= BUDGET, "{}", bank.bytes());
    }
    let counts = bank.counts();
    assert!(counts.evicted > 0 && counts.no_room > 0 && counts.unusable == 0, "{counts:?}");
    assert!(bank.len() > 10, "{}", bank.len());
    let shares = |count| [("stays", count)];
    let events: Vec<_> =
        (2_000..2_010).flat_map(|second| bank.observe_shares(second * SECOND, 100, shares(95))).collect();
    // It knows what was normal.
    let told = events.iter().find(|event| &*event.series == "stays").expect("it grew");
    assert!((told.event.from.value - 0.5).abs() < 0.01, "{told:?}");
}

#[test]
fn those_that_are_named_first_have_the_room() {
    let names: Vec<String> = (0..200).map(|n| format!("function {n}")).collect();
    let mut bank = bank(BUDGET);
    bank.observe_shares(SECOND, 1_000, names.iter().map(|name| (name.as_str(), 5)));
    let taken = bank.len();
    assert!((10..200).contains(&taken), "{taken}");
    assert!(names.iter().take(taken).all(|name| bank.contains(name)));
}

#[test]
fn names_and_counts_that_cannot_be_are_counted() {
    let mut bank = bank(BUDGET);
    let long = "x".repeat(MAX_NAME + 1);
    assert!(bank.observe_shares(0, 10, [(long.as_str(), 1), ("more than all", 11)]).is_empty());
    assert!(bank.observe_shares(1, 0, [("of nothing", 1)]).is_empty());
    let counts = bank.counts();
    assert_eq!((counts.no_room, counts.unusable, bank.len()), (1, 1, 0));
    bank.observe("value", &Observation::measured(5, 1.0, 0.0).unwrap());
    bank.observe("value", &Observation::measured(4, 1.0, 0.0).unwrap());
    assert_eq!(bank.counts().unusable, 2);
    assert!(Bank::new(&[Config::default()], 10).unwrap().observe_shares(0, 1, [("a", 1)]).is_empty());
}

#[test]
fn it_goes_on_after_a_restart() {
    let configs = ["cusum", "robust-z"].map(|name| Config::new(name).unwrap());
    let mut bank = Bank::new(&configs, 1 << 20).unwrap();
    let seconds = |bank: &mut Bank, seconds: std::ops::Range<u64>, of_b: u64| -> Vec<_> {
        let shares = |second: u64| [("a", 100 + second % 7), ("b", of_b + second % 3)];
        seconds.flat_map(|second| bank.observe_shares(second * SECOND, 400, shares(second))).collect()
    };
    assert!(seconds(&mut bank, 0..1_000, 20).is_empty());
    let kept = bank.keep().unwrap();
    let mut other = Bank::restore(&configs, 1 << 20, &kept).unwrap();
    assert_eq!((other.len(), other.bytes(), other.counts()), (bank.len(), bank.bytes(), bank.counts()));
    let events = seconds(&mut other, 1_005..1_060, 60);
    assert!(events.iter().all(|event| &*event.series == "b"), "{events:#?}");
    let names: Vec<_> = events.iter().map(|event| event.event.detector).collect();
    assert_eq!(names, ["cusum", "robust-z"]);
    // Other configurations, other budgets, another version: begin anew.
    assert!(matches!(Bank::restore(&configs[..1], 1 << 20, &kept), Err(KeptError::OtherConfig { .. })));
    assert!(matches!(Bank::restore(&configs, 1 << 10, &kept), Err(KeptError::Impossible(Some(_)))));
    let text = String::from_utf8(kept).unwrap();
    let changed = |from: &str, to: &str| text.replacen(from, to, 1).into_bytes();
    assert!(matches!(
        Bank::restore(&configs, 1 << 20, &changed("\"version\":1", "\"version\":9")),
        Err(KeptError::OtherVersion { found: 9 })
    ));
    assert!(matches!(
        Bank::restore(&configs, 1 << 20, &changed("\"name\":\"b\"", "\"name\":\"a\"")),
        Err(KeptError::Impossible(_))
    ));
}
