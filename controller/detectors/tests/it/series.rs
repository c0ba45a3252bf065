//! Strange series: what is defined, for every method.

use profiler_detectors::{Config, Detector, Direction, Judgement, Kind, METHODS, Observation, Phase, SECOND, Unusable};
use proptest::prelude::*;

use crate::simulation::Random;

/// Every method, looking at each observation.
fn each(extra: &str) -> Vec<Detector> {
    METHODS
        .iter()
        .map(|name| {
            let config: Config = format!("{name},pool=0s,warm-up=30{extra}").parse().expect("a right configuration");
            Detector::new(&config).expect("a right configuration")
        })
        .collect()
}

fn value(second: u64, value: f64) -> Observation {
    Observation::measured(second * SECOND, value, 0.0).expect("a value")
}

fn observe(detector: &mut Detector, observation: &Observation) -> Judgement {
    detector.observe(observation).unwrap_or_else(|error| panic!("{}: {error}", detector.config()))
}

#[test]
fn a_constant_series_is_normal_and_any_change_of_it_is_told() {
    for mut detector in each("") {
        for second in 0..5_000 {
            let judgement = observe(&mut detector, &value(second, 0.1 + 0.2));
            assert_eq!(judgement.event, None, "{}", detector.config());
        }
        let mut events = (5_000..5_010).filter_map(|second| observe(&mut detector, &value(second, 0.4)).event);
        let event = events.next().unwrap_or_else(|| panic!("nothing"));
        assert_eq!((event.kind, event.direction), (Kind::Changed, Direction::Up));
        assert!(event.score.is_finite());
    }
}

#[test]
fn a_series_of_zeros_that_wakes_is_told_and_settles() {
    for mut detector in each("") {
        let mut random = Random::new(5);
        let mut kinds = Vec::new();
        for second in 0..20_000 {
            let now = if second < 500 { 0.0 } else { 10.0 + random.normal() };
            kinds.extend(observe(&mut detector, &value(second, now)).event.map(|event| event.kind));
        }
        assert_eq!(kinds.first(), Some(&Kind::Changed), "{}", detector.config());
        assert_eq!(kinds.last(), Some(&Kind::Settled), "{}: {kinds:?}", detector.config());
        assert!(kinds.len() <= 4, "{}: {kinds:?}", detector.config());
    }
}

#[test]
fn less_than_the_smallest_change_that_matters_is_not_told() {
    for mut detector in each(",min-change=5") {
        for second in 0..2_000 {
            let now = if second < 1_000 { 100.0 } else { 103.0 };
            assert_eq!(observe(&mut detector, &value(second, now)).event, None, "{}", detector.config());
        }
    }
}

#[test]
fn a_change_and_its_end_are_told_once_each() {
    for mut detector in each("") {
        let mut random = Random::new(11);
        let mut events = Vec::new();
        for second in 0..2_000_u64 {
            let level = if (1_000..1_020).contains(&second) { 130.0 } else { 100.0 };
            events.extend(observe(&mut detector, &value(second, level + random.normal())).event);
        }
        let kinds: Vec<Kind> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [Kind::Changed, Kind::Returned], "{}: {events:#?}", detector.config());
        let (begin, end) = (&events[0], &events[1]);
        assert_eq!(begin.direction, Direction::Up);
        assert!((1_000..1_010).contains(&(begin.time / SECOND)), "{begin:?}");
        // A short average remembers some seconds before, too.
        assert!((975..=1_001).contains(&(begin.since / SECOND)), "{begin:?}");
        assert!((1_020..1_080).contains(&(end.time / SECOND)), "{end:?}");
        assert!((begin.from.value - 100.0).abs() < 5.0 && begin.to.value > 103.0, "{begin:?}");
    }
}

#[test]
fn nothing_is_told_while_warming_up_and_not_twice_in_a_cool_down() {
    for mut detector in each(",cool-down=10min") {
        let mut random = Random::new(12);
        let mut told = Vec::new();
        for second in 0..1_600_u64 {
            // Ten seconds of more each two minutes; before the 30th second everything is strange.
            let level = match second {
                0..30 => 1_000.0 * (second % 7) as f64,
                900.. if second % 120 < 10 => 200.0,
                _ => 100.0,
            };
            let judgement = observe(&mut detector, &value(second, level + random.normal()));
            assert!(second >= 29 || judgement.phase == Phase::WarmingUp, "{second} {judgement:?}");
            told.extend(judgement.event.filter(|event| event.kind == Kind::Changed && second >= 880));
        }
        assert!(told.windows(2).all(|pair| pair[1].time - pair[0].time >= 600 * SECOND), "{told:#?}");
    }
    let mut detector = Detector::new(&"cusum,cool-down=10min".parse().unwrap()).unwrap();
    let (mut told, mut random) = (0, Random::new(13));
    for second in 0..1_500_u64 {
        let level = if second >= 900 && second % 120 < 10 { 120.0 } else { 100.0 };
        let event = observe(&mut detector, &value(second, level + random.normal())).event;
        told += u32::from(event.is_some_and(|event| event.kind == Kind::Changed));
    }
    assert_eq!(told, 1);
    assert!(detector.suppressed() >= 2, "{}", detector.suppressed());
}

#[test]
fn hysteresis_needs_as_many_in_a_row_as_it_says() {
    let mut detector = Detector::new(&"ewma,lambda=1,raise-after=3,warm-up=30".parse().unwrap()).unwrap();
    let mut random = Random::new(14);
    for second in 0..300 {
        observe(&mut detector, &value(second, 100.0 + random.normal()));
    }
    for (second, level) in [(300, 150.0), (301, 150.0), (302, 100.0), (303, 150.0), (304, 150.0)] {
        assert_eq!(observe(&mut detector, &value(second, level)).event, None, "{second}");
    }
    assert!(observe(&mut detector, &value(305, 150.0)).event.is_some());
}

#[test]
fn time_that_goes_backwards_is_refused_and_a_clock_that_was_set_is_followed() {
    for mut detector in each("") {
        for second in 1_000..1_100 {
            observe(&mut detector, &value(second, 5.0));
        }
        for second in [1_099, 0, 500, 3] {
            assert_eq!(detector.observe(&value(second, 1e9)), Err(Unusable::Backwards));
        }
        assert_eq!(detector.refused(), 4);
        assert_eq!(observe(&mut detector, &value(1_100, 5.0)).event, None);
        // Ten in a row, each after the other.
        let refused = (0..50).filter(|second| detector.observe(&value(*second, 5.0)).is_err()).count();
        assert_eq!(refused, 9, "{}", detector.config());
        assert_eq!(observe(&mut detector, &value(50, 5.0)).event, None);
        // And a clock that goes far ahead and comes back does not blind it.
        observe(&mut detector, &Observation::measured(u64::MAX, 5.0, 0.0).unwrap());
        let refused = (51..100).filter(|second| detector.observe(&value(*second, 5.0)).is_err()).count();
        assert_eq!(refused, 9);
    }
}

#[test]
fn evidence_does_not_add_up_over_a_gap_and_what_is_normal_is_kept() {
    let mut detector = Detector::new(&"cusum,gap=10s".parse().unwrap()).unwrap();
    let mut random = Random::new(15);
    for second in 0..600 {
        observe(&mut detector, &value(second, 100.0 + random.normal()));
    }
    // Each pair gives evidence of some 6 to 12 nats; without the gaps two are enough.
    for pair in 1..6 {
        for second in 0..2 {
            let judgement = observe(&mut detector, &value(600 + 100 * pair + second, 104.0));
            assert_eq!(judgement.event, None, "pair {pair}");
            let expected = judgement.expected.expect("it is warm").value;
            assert!((99.0..103.0).contains(&expected), "{expected}");
        }
    }
    let told = (3_000..3_010).any(|second| observe(&mut detector, &value(second, 110.0)).event.is_some());
    assert!(told);
}

#[test]
fn a_season_goes_on_through_a_gap() {
    for season in ["season=24", "season=find:100"] {
        let config: Config = format!("holt-winters,pool=0s,warm-up=30,gap=365d,{season}").parse().unwrap();
        let mut detector = Detector::new(&config).unwrap();
        let mut random = Random::new(16);
        let wave = |hour: u64| 100.0 + 40.0 * (std::f64::consts::TAU * hour as f64 / 24.0).sin();
        let mut told = Vec::new();
        for hour in (0..2_000).filter(|hour| !(1_000..1_007).contains(hour) && *hour != 1_500) {
            let now = if (1_800..1_803).contains(&hour) { 60.0 } else { 0.0 } + wave(hour) + random.normal();
            told.extend(observe(&mut detector, &value(3_600 * hour, now)).event.filter(|_| hour > 320));
        }
        let hours: Vec<u64> = told.iter().map(|event| event.time / SECOND / 3_600).collect();
        assert_eq!(hours.first(), Some(&1_800), "{season}: {told:#?}");
        assert!(told.len() <= 2, "{season}: {told:#?}");
    }
}

#[test]
fn a_multiplicative_season_follows_its_level_and_refuses_what_is_not_above_0() {
    let config: Config = "holt-winters,pool=0s,form=multiplicative,season=12,alpha=0.3,threshold=6".parse().unwrap();
    let mut detector = Detector::new(&config).unwrap();
    let mut random = Random::new(17);
    for second in 0..1_200_u64 {
        let level = 100.0 + second as f64;
        let season = 1.0 + 0.5 * (std::f64::consts::TAU * second as f64 / 12.0).sin();
        let judgement = observe(&mut detector, &value(second, level * season * (1.0 + 0.01 * random.normal())));
        assert_eq!(judgement.event, None, "{second}");
    }
    assert_eq!(detector.observe(&value(1_200, 0.0)), Err(Unusable::NotPositive));
    assert_eq!(detector.observe(&value(1_200, -5.0)), Err(Unusable::NotPositive));
}

#[test]
fn the_season_is_found_and_none_where_there_is_none() {
    let mut random = Random::new(18);
    let mut noise = || random.normal();
    let wave = |step: usize, season: usize| (std::f64::consts::TAU * step as f64 / season as f64).sin();
    let found = |values: &[f64]| profiler_detectors::season(values, 300);
    for season in [5, 24, 60, 288] {
        let values: Vec<f64> =
            (0..1_000).map(|step| 7.0 + 0.01 * step as f64 + 3.0 * wave(step, season) + noise()).collect();
        let found = found(&values).expect("there is one");
        assert!(found.abs_diff(season) <= season / 20, "{found}, and not {season}");
    }
    let white: Vec<f64> = (0..1_000).map(|_| noise()).collect();
    assert_eq!(found(&white), None);
    let mut level = 0.0;
    let walk: Vec<f64> = (0..1_000)
        .map(|_| {
            level = 0.9 * level + noise();
            level
        })
        .collect();
    assert_eq!(found(&walk), None);
    for flat in [vec![], vec![1.0; 5], vec![0.1; 1_000], (0..1_000).map(f64::from).collect()] {
        assert_eq!(found(&flat), None);
    }
    assert_eq!(
        found(&[1e100, -1e100, 1e100, 0.0, -1e100, 1e100, 1e100, 3.0, 1e100]).filter(|season| *season > 3),
        None
    );
}

#[test]
fn shares_and_values_are_not_one_series() {
    for mut detector in each("") {
        observe(&mut detector, &value(0, 1.0));
        assert_eq!(detector.observe(&Observation::share(SECOND, 1, 2).unwrap()), Err(Unusable::OtherKind));
        observe(&mut detector, &value(1, 1.0));
    }
}

#[test]
fn a_drift_that_no_single_observation_shows_is_told_by_the_sum() {
    // Half a standard deviation in all, over an hour; the memory is of a day.
    let config: Config = "cusum,memory=24h,sigmas=0.5,threshold=17,warm-up=600".parse().unwrap();
    let mut detector = Detector::new(&config).unwrap();
    let mut random = Random::new(19);
    let mut told = None;
    for second in 0..14_400_u64 {
        let drift = 0.5 * (second.saturating_sub(7_200) as f64 / 3_600.0).min(1.0);
        told = told.or(observe(&mut detector, &value(second, 100.0 + drift + random.normal())).event);
    }
    let told = told.expect("it drifted");
    assert_eq!(told.direction, Direction::Up);
    assert!((7_200..12_000).contains(&(told.time / SECOND)), "{told:?}");
}

#[test]
fn a_pool_is_judged_as_one_observation() {
    let mut detector = Detector::new(&"robust-z,pool=10s,warm-up=10,window=20".parse().unwrap()).unwrap();
    let mut judged = 0;
    for second in 0..300 {
        let share = Observation::share(second * SECOND, 5 + second % 3, 100).unwrap();
        judged += u32::from(observe(&mut detector, &share).expected.is_some());
    }
    // 29 pools are closed, and of the first there is nothing to compare it with.
    assert_eq!(judged, 28);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_all_stays_finite_and_can_be_kept(
        points in prop::collection::vec((0_u64..4, any::<u64>(), any::<f64>(), any::<f64>(), 0_u32..12), 1..300),
        extra in prop::sample::select(vec!["", ",pool=3s", ",raise-after=2,cool-down=0s"]),
    ) {
        for mut detector in each(extra) {
            let mut time = 0_u64;
            for (kind, jump, number, variance, scale) in &points {
                time = match kind {
                    0 => *jump,
                    1 => time.wrapping_sub(jump % 100_000_000_000),
                    _ => time.saturating_add(SECOND),
                };
                let number = if *scale < 6 { number % 10_f64.powi(*scale as i32) } else { *number };
                let Ok(observation) = Observation::measured(time, number, variance.abs()) else { continue };
                let Ok(judgement) = detector.observe(&observation) else { continue };
                prop_assert!(judgement.ratio.is_finite());
                if let Some(event) = judgement.event {
                    let all = [event.from.value, event.from.error, event.to.value, event.to.error, event.score];
                    prop_assert!(all.iter().all(|number| number.is_finite()), "{event:?}");
                }
            }
            let kept = detector.keep().unwrap();
            prop_assert!(Detector::restore(detector.config(), &kept).is_ok(), "{}", String::from_utf8_lossy(&kept));
        }
    }
}
