//! A profile in parts is the whole profile: each part is a request of its own, and together they have every sample.

use std::collections::BTreeMap;

use crate::profiles::{profile, samples, small};
use profiler_formats::otlp::{self, split};
use profiler_model::Profiles;
use proptest::prelude::*;

/// Sums of the values of each sample, spelled out, over `profiles`.
fn sums<'a>(profiles: impl IntoIterator<Item = &'a Profiles>) -> BTreeMap<String, i64> {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for (sample, values) in profiles.into_iter().flat_map(samples) {
        *sums.entry(sample).or_default() += values.into_iter().sum::<i64>();
    }
    // Where several things are counted, 0 is as good as nothing.
    sums.retain(|_, sum| *sum != 0);
    sums
}

/// How many samples have a time.
fn timed<'a>(profiles: impl IntoIterator<Item = &'a Profiles>) -> usize {
    profiles.into_iter().flat_map(Profiles::samples).filter(|(_, sample)| sample.time_unix_nanos.is_some()).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_parts_are_the_whole(profile in profile(), share in 1_usize..40) {
        let whole = otlp::encode(&profile);
        let limit = whole.len() * share / 20;
        let split = split(&profile, limit);
        let mut parts = Vec::new();
        for request in &split.requests {
            prop_assert!(request.bytes.len() <= limit);
            prop_assert!(request.samples > 0);
            prop_assert_eq!(otlp::check(&request.bytes), vec![]);
            prop_assert!(request.start_unix_nanos <= request.end_unix_nanos);
            let part = otlp::decode(&request.bytes).unwrap();
            prop_assert_eq!(part.window().0, request.start_unix_nanos);
            prop_assert_eq!(part.window().1, request.end_unix_nanos);
            parts.push(part);
        }
        let counted: u64 = split.requests.iter().map(|request| request.samples).sum();
        prop_assert_eq!(counted + split.oversized_samples, profile.sample_entries() as u64);
        let (whole_sums, sums) = (sums([&profile]), sums(&parts));
        if split.oversized_samples == 0 {
            prop_assert_eq!(timed([&otlp::decode(&whole).unwrap()]), timed(&parts));
            prop_assert_eq!(whole_sums, sums);
        } else {
            // What is missing was too large; what is there is right.
            for (sample, sum) in sums {
                prop_assert!(sum <= whole_sums[&sample]);
            }
        }
        if limit >= whole.len() {
            prop_assert_eq!(split.requests.len(), usize::from(profile.sample_entries() > 0));
        }
    }
}

#[test]
fn a_profile_without_samples_is_no_request() {
    assert_eq!(split(&small(0), 1 << 20), otlp::Split::default());
}

#[test]
fn a_profile_that_fits_is_one_request_and_the_same_as_ever() {
    let profile = small(600);
    let split = split(&profile, 4 << 20);
    assert_eq!(split.requests.len(), 1);
    assert_eq!(split.requests[0].samples, 600);
    assert_eq!(split.requests[0].bytes, otlp::encode(&profile));
}

#[test]
fn processes_stay_whole_where_they_fit() {
    let profile = small(6000);
    let whole = otlp::encode(&profile).len();
    let split = split(&profile, whole * 3 / 4);
    assert_eq!(split.requests.len(), 2);
    let processes: Vec<usize> =
        split.requests.iter().map(|request| otlp::decode(&request.bytes).unwrap().processes.len()).collect();
    assert_eq!(processes, [1, 1]);
}

#[test]
fn one_process_is_divided_by_stacks() {
    let profile = small(60_000);
    let split = split(&profile, 64 << 10);
    assert!(split.requests.len() >= 8 && split.requests.len() <= 40, "{}", split.requests.len());
    assert_eq!(split.oversized_samples, 0);
    assert_eq!(split.requests.iter().map(|request| request.samples).sum::<u64>(), 60_000);
    // Three processes' threads and four stacks meet in twelve ways; a part has few of them.
    let stacks: Vec<usize> =
        split.requests.iter().map(|request| otlp::decode(&request.bytes).unwrap().stacks.len()).collect();
    assert!(stacks.iter().all(|&stacks| stacks <= 3), "{stacks:?}");
}

#[test]
fn a_sample_that_alone_is_too_large_is_dropped_and_counted() {
    let mut profile = small(8);
    let long = profile.strings.iter().position(|text| text == "ksys_write").unwrap();
    profile.strings[long] = "x".repeat(100_000);
    let split = split(&profile, 50_000);
    assert_eq!(split.oversized_samples, 2);
    assert_eq!(split.requests.iter().map(|request| request.samples).sum::<u64>(), 6);
}
