//! Each rule of profcheck is broken once, and found.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value},
    profiles::v1development::{Function, Link, Mapping, Profile, ProfilesDictionary, Sample},
};
use profiler_formats::otlp::{self, ExportProfilesServiceRequest, Violation, check_message};

fn request() -> ExportProfilesServiceRequest {
    otlp::request(&crate::profiles::small(12))
}

fn dictionary(request: &mut ExportProfilesServiceRequest) -> &mut ProfilesDictionary {
    request.dictionary.as_mut().unwrap()
}

fn profile(request: &mut ExportProfilesServiceRequest) -> &mut Profile {
    &mut request.resource_profiles[0].scope_profiles[0].profiles[0]
}

fn sample(request: &mut ExportProfilesServiceRequest) -> &mut Sample {
    &mut profile(request).samples[0]
}

/// The rules that a request breaks after `change`.
fn broken(change: impl Fn(&mut ExportProfilesServiceRequest)) -> Vec<u8> {
    let mut request = request();
    assert_eq!(check_message(&request), vec![]);
    change(&mut request);
    let mut rules: Vec<u8> = check_message(&request).iter().map(|Violation { rule, .. }| *rule).collect();
    rules.dedup();
    rules
}

#[test]
fn rule_0_bytes_that_are_no_request() {
    assert_eq!(otlp::check(b"\xff\xff")[0].rule, 0);
}

#[test]
fn rule_1_empty_levels() {
    assert!(broken(|request| request.resource_profiles.clear()).contains(&1));
    assert!(broken(|request| request.resource_profiles[0].scope_profiles.clear()).contains(&1));
    assert!(broken(|request| request.resource_profiles[0].scope_profiles[0].profiles.clear()).contains(&1));
}

#[test]
fn rule_2_indices_out_of_range() {
    assert!(broken(|request| sample(request).stack_index = 1000).contains(&2));
    assert!(broken(|request| sample(request).stack_index = -1).contains(&2));
    assert_eq!(broken(|request| sample(request).link_index = 1), [2]);
    assert_eq!(broken(|request| sample(request).attribute_indices.push(1000)), [2]);
    assert!(broken(|request| dictionary(request).stack_table[1].location_indices[0] = 1000).contains(&2));
    assert!(broken(|request| dictionary(request).location_table[1].mapping_index = 1000).contains(&2));
    assert!(broken(|request| dictionary(request).location_table[1].lines[0].function_index = 1000).contains(&2));
    assert!(broken(|request| dictionary(request).function_table[1].name_strindex = 1000).contains(&2));
    assert!(broken(|request| dictionary(request).attribute_table[1].key_strindex = 1000).contains(&2));
    assert!(broken(|request| dictionary(request).mapping_table[1].filename_strindex = 1000).contains(&2));
    assert!(broken(|request| profile(request).sample_type.as_mut().unwrap().type_strindex = 1000).contains(&2));
    assert!(broken(|request| profile(request).period_type.as_mut().unwrap().unit_strindex = 1000).contains(&2));
    assert_eq!(broken(|request| profile(request).period_type = None), [0_u8; 0]);
}

#[test]
fn rule_3_a_key_twice() {
    let double = |request: &mut ExportProfilesServiceRequest| {
        let first = sample(request).attribute_indices[0];
        sample(request).attribute_indices.push(first);
    };
    assert_eq!(broken(double), [3]);
}

#[test]
fn rule_4_times_outside_the_window() {
    let at = |time: u64| broken(move |request| sample(request).timestamps_unix_nano[0] = time);
    assert_eq!(at(crate::profiles::START - 1), [4]);
    assert_eq!(at(crate::profiles::START + crate::profiles::DURATION), [4]);
    assert_eq!(at(crate::profiles::START + crate::profiles::DURATION - 1), [0_u8; 0]);
}

#[test]
fn rule_5_shapes() {
    assert_eq!(broken(|request| sample(request).timestamps_unix_nano.clear()), [5]);
    assert_eq!(broken(|request| sample(request).values = vec![1, 2, 3]), [5]);
    let one = |request: &mut ExportProfilesServiceRequest| {
        let samples = &mut profile(request).samples;
        samples.iter_mut().for_each(|sample| {
            sample.timestamps_unix_nano.clear();
            sample.values = vec![2];
        });
        samples[0].values.push(3);
    };
    assert_eq!(broken(one), [5]);
    assert_eq!(
        broken(|request| sample(request).values = vec![1; sample(&mut request.clone()).timestamps_unix_nano.len()]),
        [5]
    );
}

#[test]
fn rule_6_null_entries() {
    assert!(broken(|request| request.dictionary = None).contains(&6));
    assert!(broken(|request| dictionary(request).link_table.clear()).contains(&6));
    let zeros = Link { trace_id: vec![0; 16], span_id: vec![0; 8] };
    assert_eq!(broken(move |request| dictionary(request).link_table[0] = zeros.clone()), [6]);
    assert!(broken(|request| dictionary(request).string_table[0].push('x')).contains(&6));
    let value = AnyValue { value: Some(any_value::Value::BoolValue(true)) };
    assert_eq!(broken(move |request| dictionary(request).attribute_table[0].value = Some(value.clone())), [6]);
}

#[test]
fn rule_7_ranges() {
    assert_eq!(broken(|request| dictionary(request).mapping_table[1].memory_limit = 0), [7]);
    assert_eq!(broken(|request| dictionary(request).location_table[1].lines[0].line = -1), [7]);
    assert_eq!(broken(|request| dictionary(request).function_table[1].start_line = -1), [7]);
}

#[test]
fn rule_8_links() {
    let link = Link { trace_id: vec![1; 15], span_id: vec![1; 8] };
    let add = move |request: &mut ExportProfilesServiceRequest| {
        dictionary(request).link_table.push(link.clone());
        sample(request).link_index = 1;
    };
    assert_eq!(broken(add), [8]);
}

#[test]
fn rules_9_and_10_entries_that_are_there_twice_or_for_nobody() {
    let twice = |request: &mut ExportProfilesServiceRequest| {
        let d = dictionary(request);
        d.string_table.push(d.string_table[1].clone());
        d.function_table.push(d.function_table[1]);
        d.mapping_table.push(d.mapping_table[1].clone());
        d.location_table.push(d.location_table[1].clone());
        d.stack_table.push(d.stack_table[1].clone());
        d.attribute_table.push(d.attribute_table[1].clone());
    };
    let mut request = request();
    twice(&mut request);
    let violations = check_message(&request);
    assert_eq!(violations.iter().filter(|violation| violation.rule == 9).count(), 6, "{violations:?}");
    assert_eq!(violations.iter().filter(|violation| violation.rule == 10).count(), 6, "{violations:?}");
    assert_eq!(broken(|request| dictionary(request).string_table.push("orphan".to_owned())), [10]);
    let function = Function { start_line: 77, ..Function::default() };
    assert_eq!(broken(move |request| dictionary(request).function_table.push(function)), [10]);
    let mapping = Mapping { memory_limit: 1, ..Mapping::default() };
    assert_eq!(broken(move |request| dictionary(request).mapping_table.push(mapping.clone())), [10]);
}
