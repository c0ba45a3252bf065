//! State over a restart.

use profiler_detectors::{Config, Detector, KeptError, METHODS, Observation, SECOND};
use proptest::prelude::*;
use serde_json::Value;

use crate::simulation::Random;

fn share(second: u64, random: &mut Random) -> Observation {
    let truth = if second % 1_000 > 900 { 0.12 } else { 0.05 };
    let count = (0..400).filter(|_| random.uniform() < truth).count() as u64;
    Observation::share(second * SECOND, count, 400).expect("a share")
}

fn detector(name: &str) -> Detector {
    let config: Config = format!("{name},pool=2s,warm-up=20").parse().expect("a right configuration");
    Detector::new(&config).expect("a right configuration")
}

#[test]
fn one_that_was_kept_says_what_one_that_went_on_says() {
    for name in METHODS {
        let (mut random, mut one) = (Random::new(1), detector(name));
        let (mut events, mut restarts) = (0, 0);
        let mut other = one.clone();
        for second in 0..2_500 {
            if second % 333 == 0 {
                other = Detector::restore(one.config(), &other.keep().unwrap()).unwrap();
                restarts += 1;
            }
            let share = share(second, &mut random);
            let (by_one, by_other) = (one.observe(&share).unwrap(), other.observe(&share).unwrap());
            assert_eq!(by_one.phase, by_other.phase, "{name} {second}");
            assert_eq!(by_one.event.map(|event| event.kind), by_other.event.map(|event| event.kind), "{name} {second}");
            // JSON is read to the last digit but one.
            assert!((by_one.ratio - by_other.ratio).abs() < 1e-9, "{name} {second}: {by_one:?} {by_other:?}");
            events += u32::from(by_one.event.is_some());
        }
        assert!(events >= 2 && restarts == 8, "{name}: {events}");
    }
}

#[test]
fn what_is_no_state_of_this_configuration_is_refused_with_the_way_out() {
    let mut one = detector("robust-z");
    let mut random = Random::new(2);
    for second in 0..100 {
        one.observe(&share(second, &mut random)).unwrap();
    }
    let kept = one.keep().unwrap();
    let config = one.config().clone();
    let restore = |bytes: &[u8]| Detector::restore(&config, bytes).map(|_| ()).unwrap_err();
    for bytes in [&b""[..], b"{}", b"[]", b"null", b"\xff\xfe", &kept[..kept.len() - 1]] {
        assert!(matches!(restore(bytes), KeptError::Malformed(_)), "{:?}", restore(bytes));
    }
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&kept).unwrap();
        change(&mut value);
        restore(&serde_json::to_vec(&value).unwrap())
    };
    assert!(matches!(with(&|kept| kept["version"] = 2.into()), KeptError::OtherVersion { found: 2 }));
    assert!(matches!(with(&|kept| kept["config"] = "ewma".into()), KeptError::OtherConfig { .. }));
    assert!(matches!(with(&|kept| kept["state"]["new"] = 1.into()), KeptError::Malformed(_)));
    let window = |kept: &mut Value, value: Value| kept["state"]["model"]["RobustZ"]["window"] = value;
    assert!(matches!(with(&|kept| window(kept, vec![0.5; 1_000].into())), KeptError::Impossible(None)));
    assert!(matches!(with(&|kept| window(kept, vec![1e300].into())), KeptError::Impossible(None)));
    assert!(matches!(with(&|kept| window(kept, Value::Null)), KeptError::Malformed(_)));
    assert!(matches!(restore(&vec![b' '; 5 << 20]), KeptError::TooLarge { .. }));
    for name in ["cusum", "ewma", "holt-winters"] {
        let kept = detector(name).keep().unwrap();
        let mut value: Value = serde_json::from_slice(&kept).unwrap();
        value["config"] = config.to_string().into();
        assert!(matches!(restore(&serde_json::to_vec(&value).unwrap()), KeptError::Impossible(None)));
    }
    assert!(restore(b"").to_string().contains("begin anew"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_state_with_any_number_changed_is_refused_or_works(
        name in prop::sample::select(METHODS.to_vec()), at in any::<prop::sample::Index>(), text in "-?[0-9]{1,3}(e[0-9]{1,3})?",
    ) {
        let (mut random, mut one) = (Random::new(3), detector(name));
        for second in 0..120 {
            one.observe(&share(second, &mut random)).unwrap();
        }
        let kept = String::from_utf8(one.keep().unwrap()).unwrap();
        let begin = kept.find("\"state\"").unwrap();
        // The numbers of the state, by where they begin and end.
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | 'e');
        let starts: Vec<usize> = kept.char_indices().skip(begin)
            .filter(|(at, c)| is_part(*c) && c.is_ascii_digit() | (*c == '-') && matches!(kept.as_bytes()[at - 1], b':' | b'[' | b','))
            .map(|(at, _)| at).collect();
        let start = *at.get(&starts);
        let end = start + kept[start..].find(|c| !is_part(c)).unwrap();
        let changed = format!("{}{text}{}", &kept[..start], &kept[end..]);
        if let Ok(mut detector) = Detector::restore(one.config(), changed.as_bytes()) {
            for second in 120..200 {
                if let Ok(judgement) = detector.observe(&share(second, &mut random)) {
                    prop_assert!(judgement.ratio.is_finite());
                }
            }
            detector.keep().unwrap();
        }
    }
}
