//! What the defaults promise, simulated with fixed seeds. More weeks and trials, by hand: `examples/bars.rs`.

use profiler_detectors::{Config, METHODS};

use crate::simulation::{Change, Service, delays, false_events, quantile};

/// Samples a second of a service that keeps one CPU busy, or four, at 99 Hz.
const ONE_CPU: u64 = 99;
const FOUR_CPUS: u64 = 4 * ONE_CPU;

#[test]
fn a_steady_day_of_200_functions_has_no_false_event() {
    let config = Config::default();
    let events = false_events(&config, &Service::zipf(200), ONE_CPU, 86_400, 20);
    assert!(events.is_empty(), "{events:#?}");
}

#[test]
fn two_steady_hours_have_no_false_event_by_any_method() {
    for name in METHODS {
        let config = Config::new(name).expect("a method");
        let events = false_events(&config, &Service::zipf(200), FOUR_CPUS, 7_200, 3);
        assert!(events.is_empty(), "{name}: {events:#?}");
    }
}

#[test]
fn a_function_that_doubles_from_5_percent_is_told_within_10_s() {
    let change = Change { before: 0.05, after: 0.10, total: FOUR_CPUS, steady: 300 };
    let found = delays(&Config::default(), change, 200, 60, 1);
    assert!(quantile(&found, 0.99) <= 10.0, "{found:?}");
    // One busy CPU gives a quarter of the evidence.
    let found = delays(&Config::default(), Change { total: ONE_CPU, ..change }, 200, 120, 2);
    assert!(quantile(&found, 0.5) <= 10.0 && quantile(&found, 0.99) <= 25.0, "{found:?}");
}

#[test]
fn a_function_that_goes_from_1_to_3_percent_is_told_within_60_s() {
    let change = Change { before: 0.01, after: 0.03, total: ONE_CPU, steady: 300 };
    let found = delays(&Config::default(), change, 200, 300, 3);
    assert!(quantile(&found, 0.99) <= 60.0, "{found:?}");
}

#[test]
fn what_is_told_has_the_true_shares_within_its_errors() {
    let config = Config::default();
    let mut inside = 0;
    for seed in 0..100 {
        let mut random = crate::simulation::Random::new(seed);
        let mut detector = profiler_detectors::Detector::new(&config).expect("a right configuration");
        let event = (0..1_000_u64).find_map(|second| {
            let truth = if second < 600 { 0.05 } else { 0.10 };
            let count = (0..FOUR_CPUS).filter(|_| random.uniform() < truth).count() as u64;
            let share = profiler_detectors::Observation::share(second * profiler_detectors::SECOND, count, FOUR_CPUS);
            detector.observe(&share.expect("a share")).expect("in order").event
        });
        let event = event.expect("it doubled");
        let within =
            |estimate: profiler_detectors::Estimate, truth: f64| (estimate.value - truth).abs() <= 3.0 * estimate.error;
        // The error of "from" is that of the mean, which has taken in a little of the change.
        assert!((event.from.value - 0.05).abs() < 0.004, "{event:?}");
        inside += u32::from(within(event.to, 0.10));
        let began = event.since as f64 / profiler_detectors::SECOND as f64;
        assert!((590.0..=605.0).contains(&began), "{event:?}");
    }
    // That a change is told when it looks large makes it look larger than it is; not much.
    assert!(inside >= 95, "{inside}");
}
