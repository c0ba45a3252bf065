//! What is merged, what is folded, and what it is worth.

use std::cell::Cell;
use std::collections::BTreeMap;

use opentelemetry_proto::tonic::profiles::v1development::{Profile, Sample, Stack};
use profiler_rules::{Aggregate, Aggregated, Request, WHOLE, compact};
use proptest::prelude::*;
use prost::Message;

use crate::made::{request, text};

fn row<T>(table: &[T], index: i32) -> &T {
    &table[usize::try_from(index).unwrap()]
}

/// Functions from the leaf.
fn functions(request: &Request, stack: i32) -> Vec<String> {
    let of = request.dictionary.as_ref().unwrap();
    let lines = row(&of.stack_table, stack).location_indices.iter().flat_map(|at| &row(&of.location_table, *at).lines);
    let names = lines.map(|line| row(&of.function_table, line.function_index).name_strindex);
    names.map(|name| row(&of.string_table, name).clone()).collect()
}

/// What makes a sample that one: functions, attributes, link.
type Identity = (Vec<String>, Vec<String>, i32);
/// The sum of samples without times, times and values of the others.
type Worth = (i128, Vec<(u64, i64)>);

/// What samples of all profiles say, whatever rows it is in and in whatever order.
fn said(request: &Request) -> BTreeMap<Identity, Worth> {
    let of = request.dictionary.as_ref().unwrap();
    let mut all: BTreeMap<Identity, Worth> = BTreeMap::new();
    for sample in profiles(request).flat_map(|profile| &profile.samples) {
        let mut attributes: Vec<String> = sample
            .attribute_indices
            .iter()
            .map(|at| row(&of.attribute_table, *at))
            .map(|row_of| format!("{}={:?}", row(&of.string_table, row_of.key_strindex), row_of.value))
            .collect();
        attributes.sort();
        let (sum, times) =
            all.entry((functions(request, sample.stack_index), attributes, sample.link_index)).or_default();
        if sample.timestamps_unix_nano.is_empty() {
            *sum += sample.values.iter().map(|value| i128::from(*value)).sum::<i128>();
        } else {
            let value = |at| sample.values.get(at).copied().unwrap_or(1);
            times.extend(sample.timestamps_unix_nano.iter().enumerate().map(|(at, time)| (*time, value(at))));
            times.sort_unstable();
        }
    }
    all
}

fn profiles(request: &Request) -> impl Iterator<Item = &Profile> {
    request.resource_profiles.iter().flat_map(|of| &of.scope_profiles).flat_map(|of| &of.profiles)
}

fn samples(request: &Request) -> Vec<&Sample> {
    profiles(request).flat_map(|profile| &profile.samples).collect()
}

fn total(said: &BTreeMap<Identity, Worth>) -> i128 {
    said.values().map(|(sum, times)| sum + times.iter().map(|(_, value)| i128::from(*value)).sum::<i128>()).sum()
}

/// `samples` in one profile; the stack 3 is another row of what is in 2.
fn made(samples: Vec<Sample>) -> Request {
    let mut made = request();
    made.dictionary.as_mut().unwrap().stack_table.push(Stack { location_indices: vec![2, 1] });
    let profiles = &mut made.resource_profiles[0].scope_profiles[0].profiles;
    profiles.truncate(1);
    profiles[0].samples = samples;
    made
}

fn apply(aggregate: Aggregate, request: Request) -> (Request, Aggregated) {
    let (mut request, done) = aggregate.apply(request, &|| false);
    assert!(compact(&mut request) && !done.is_late);
    (request, done)
}

fn counted(stack_index: i32, value: i64) -> Sample {
    Sample { stack_index, values: vec![value], ..Sample::default() }
}

/// A share in percent.
fn other_below(percent: u32) -> Aggregate {
    Aggregate { other_below: percent * (WHOLE / 100), ..Aggregate::default() }
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let attributes = prop_oneof![Just(vec![]), Just(vec![1]), Just(vec![1, 3]), Just(vec![3, 1]), Just(vec![2])];
    let entries = prop::collection::vec((0_u64..4, -3_i64..50), 1..4);
    (0..4, attributes, 0..2, 0..3, entries).prop_map(|(stack_index, attribute_indices, link_index, shape, entries)| {
        let (times, values): (Vec<u64>, Vec<i64>) = entries.into_iter().unzip();
        Sample {
            stack_index,
            attribute_indices,
            link_index,
            values: if shape == 0 { vec![] } else { values },
            timestamps_unix_nano: if shape == 1 { vec![] } else { times },
        }
    })
}

proptest! {
    #[test]
    fn what_is_merged_is_worth_the_same_in_any_order(
        given in prop::collection::vec(any_sample(), 0..30),
        order in any::<prop::sample::Index>(),
        drop_timestamps in any::<bool>(),
        percent in 0_u32..40,
    ) {
        let aggregate = Aggregate { drop_timestamps, ..other_below(percent) };
        let before = made(given.clone());
        let (after, done) = apply(aggregate, before.clone());
        prop_assert_eq!(total(&said(&after)), total(&said(&before)));
        prop_assert_eq!(samples(&after).len() as u64 + done.merged, given.len() as u64);

        let mut turned = given;
        if !turned.is_empty() {
            let by = order.index(turned.len());
            turned.rotate_left(by);
            turned.reverse();
        }
        let (other, also) = apply(aggregate, made(turned));
        prop_assert_eq!(said(&other), said(&after));
        prop_assert_eq!((also.merged, also.folded), (done.merged, done.folded));

        // Again there is nothing to do, but that what was folded has a share by now.
        let (again, done) = apply(Aggregate { other_below: 0, ..aggregate }, after.clone());
        prop_assert_eq!((said(&again), done.merged), (said(&after), 0));
        if percent == 0 && !drop_timestamps {
            prop_assert_eq!(said(&after), said(&before));
        }
        if drop_timestamps {
            prop_assert!(samples(&after).iter().all(|sample| sample.timestamps_unix_nano.is_empty()));
        }
        // No two are equal.
        let mut seen: Vec<_> = samples(&after).into_iter().map(|sample| {
            (functions(&after, sample.stack_index), &sample.attribute_indices, sample.link_index, sample.timestamps_unix_nano.is_empty())
        }).collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        prop_assert_eq!(seen.len(), all);
    }
}

#[test]
fn rare_stacks_become_one_and_keep_what_they_are_worth() {
    // Of 100: 89, and 6 and 5 of one that is in two rows.
    let given = vec![counted(1, 89), counted(2, 6), counted(3, 5)];
    let shares = |percent| {
        let (after, done) = apply(other_below(percent), made(given.clone()));
        let said = said(&after).into_iter().map(|((functions, ..), (sum, _))| (functions.join(";"), sum));
        (said.collect::<Vec<_>>(), done.merged, done.folded)
    };
    let of = |name: &str, sum| (name.to_owned(), sum);
    assert_eq!(shares(11), (vec![of("main", 89), of("work;main", 11)], 1, 0));
    assert_eq!(shares(12), (vec![of("[other]", 11), of("main", 89)], 1, 1));
    assert_eq!(shares(90), (vec![of("[other]", 100)], 2, 2));

    // What the folded ones were is in no byte.
    let (after, _) = apply(other_below(12), made(given));
    let bytes = after.encode_to_vec();
    assert!(!bytes.windows(4).any(|bytes| bytes == b"work"));
    // Folded already, it stays one.
    let (again, done) = apply(other_below(50), after.clone());
    assert_eq!((said(&again), done.folded), (said(&after), 0));
}

#[test]
fn times_are_kept_unless_they_are_to_be_dropped() {
    let timed = |times: &[u64]| Sample { stack_index: 1, timestamps_unix_nano: times.to_vec(), ..Sample::default() };
    let given = vec![timed(&[9, 5]), timed(&[7]), counted(1, 4)];
    let (kept, done) = apply(Aggregate::default(), made(given.clone()));
    assert_eq!(
        samples(&kept).iter().map(|sample| sample.timestamps_unix_nano.clone()).collect::<Vec<_>>(),
        [vec![5, 7, 9], vec![]]
    );
    assert_eq!((samples(&kept)[0].values.len(), done.merged), (0, 1), "each is worth 1, as before");
    let (dropped, _) = apply(Aggregate { drop_timestamps: true, ..Aggregate::default() }, made(given));
    assert_eq!(*samples(&dropped), [&counted(1, 7)]);
}

#[test]
fn resources_and_profiles_that_have_become_equal_are_one() {
    let mut twice = made(vec![counted(1, 1), counted(2, 2)]);
    let attributes = |of: &mut Request| {
        of.resource_profiles[0].resource.as_mut().unwrap().attributes.push(
            opentelemetry_proto::tonic::common::v1::KeyValue {
                key: "a".to_owned(),
                value: text("b"),
                ..Default::default()
            },
        );
    };
    attributes(&mut twice);
    let mut other = twice.resource_profiles[0].clone();
    // In another order, and from another run.
    other.resource.as_mut().unwrap().attributes.reverse();
    other.scope_profiles[0].profiles[0].profile_id = vec![8; 16];
    twice.resource_profiles.push(other.clone());
    other.resource.as_mut().unwrap().attributes.pop();
    twice.resource_profiles.push(other);
    let (after, done) = apply(Aggregate::default(), twice);
    assert_eq!((after.resource_profiles.len(), profiles(&after).count(), done.merged), (2, 2, 2));
    let values: Vec<_> = samples(&after).iter().map(|sample| sample.values[0]).collect();
    assert_eq!(values, [2, 4, 1, 2]);
    assert_eq!(profiles(&after).next().unwrap().profile_id, Vec::<u8>::new());
}

#[test]
fn what_is_no_sample_by_the_format_stays_as_it_is() {
    let broken = Sample { stack_index: 1, values: vec![1, 2], timestamps_unix_nano: vec![3], ..Sample::default() };
    let nothing = Sample { stack_index: 1, ..Sample::default() };
    let far = Sample { stack_index: 77, attribute_indices: vec![99], values: vec![1], ..Sample::default() };
    let (after, done) =
        Aggregate::default().apply(made(vec![broken.clone(), nothing.clone(), far.clone(), far.clone()]), &|| false);
    assert_eq!(*samples(&after), [&broken, &nothing, &Sample { values: vec![2], ..far }]);
    assert_eq!(done.merged, 1);
}

#[test]
fn a_sum_that_does_not_fit_is_the_largest_that_does() {
    let given = vec![counted(1, i64::MAX), counted(1, i64::MAX), counted(2, i64::MAX), counted(2, 5), counted(2, -5)];
    let (after, _) = apply(Aggregate::default(), made(given));
    assert_eq!(*samples(&after), [&counted(1, i64::MAX), &counted(2, i64::MAX)]);
}

#[test]
fn it_ends_when_the_time_is_over() {
    let mut given = made(vec![counted(1, 1), counted(3, 1)]);
    given.resource_profiles.push(given.resource_profiles[0].clone());
    // Not at all; rows of the dictionary alone; resources, too.
    for (in_time, rows, resources) in [(0, false, false), (1, true, false), (2, true, true)] {
        let asked = Cell::new(0);
        let is_late = || asked.replace(asked.get() + 1) >= in_time;
        let (after, done) = Aggregate::default().apply(given.clone(), &is_late);
        assert!(done.is_late && asked.get() == in_time + 1);
        assert_eq!(
            (after.dictionary != given.dictionary, after.resource_profiles.len() < given.resource_profiles.len()),
            (rows, resources)
        );
    }
}
