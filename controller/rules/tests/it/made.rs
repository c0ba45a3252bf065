//! A request with a row or two in each table.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any},
    profiles::v1development::{
        Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary, ResourceProfiles,
        Sample, ScopeProfiles, Stack, ValueType,
    },
    resource::v1::Resource,
};
use profiler_ottl::{ErrorMode, Gates};
use profiler_rules::{Done, Level, Request, Rules};

pub fn text(text: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Any::StringValue(text.to_owned())) })
}

/// One resource and scope; two profiles; samples with the attributes `thread` (`main`, `worker`) and `bytes` with a unit.
pub fn request() -> Request {
    let strings = [
        "",
        "cpu",
        "nanoseconds",
        "thread",
        "bytes",
        "By",
        "secret",
        "main.rs",
        "main",
        "work",
        "/bin/app",
        "alloc",
        "unused",
    ]
    .map(str::to_owned);
    let row = |key_strindex, value, unit_strindex| KeyValueAndUnit { key_strindex, value, unit_strindex };
    let number = |number| Some(AnyValue { value: Some(Any::IntValue(number)) });
    let sample = |stack_index, attributes: &[i32], values: &[i64]| Sample {
        stack_index,
        attribute_indices: attributes.to_vec(),
        values: values.to_vec(),
        timestamps_unix_nano: vec![5, 6],
        ..Sample::default()
    };
    let function = |name_strindex| Function { name_strindex, filename_strindex: 7, ..Function::default() };
    let location = |function_index| Location {
        mapping_index: 1,
        lines: vec![Line { function_index, ..Line::default() }],
        ..Location::default()
    };
    let dictionary = ProfilesDictionary {
        mapping_table: vec![Mapping::default(), Mapping { filename_strindex: 10, ..Mapping::default() }],
        location_table: vec![Location::default(), location(1), location(2)],
        function_table: vec![Function::default(), function(8), function(9)],
        link_table: vec![Link::default(), Link { trace_id: vec![1; 16], span_id: vec![1; 8] }],
        string_table: strings.into(),
        attribute_table: vec![
            KeyValueAndUnit::default(),
            row(3, text("main"), 0),
            row(3, text("worker"), 0),
            row(4, number(512), 5),
            row(6, text("hunter2"), 0),
        ],
        stack_table: vec![
            Stack::default(),
            Stack { location_indices: vec![1] },
            Stack { location_indices: vec![2, 1] },
        ],
    };
    let profile = |type_strindex, samples| Profile {
        sample_type: Some(ValueType { type_strindex, unit_strindex: 2 }),
        samples,
        time_unix_nano: 1_600_000_000_000_000_000,
        duration_nano: 1_000,
        period: 10,
        profile_id: vec![7; 16],
        attribute_indices: vec![4],
        ..Profile::default()
    };
    let profiles = vec![
        profile(1, vec![sample(1, &[1, 3], &[1, 2]), sample(2, &[2], &[3])]),
        profile(11, vec![sample(2, &[2, 3], &[4])]),
    ];
    let attributes = vec![KeyValue { key: "service.name".to_owned(), value: text("shop"), ..KeyValue::default() }];
    let scope = InstrumentationScope {
        name: "profiler".to_owned(),
        version: "1".to_owned(),
        ..InstrumentationScope::default()
    };
    Request {
        resource_profiles: vec![ResourceProfiles {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_profiles: vec![ScopeProfiles { scope: Some(scope), profiles, ..ScopeProfiles::default() }],
            ..ResourceProfiles::default()
        }],
        dictionary: Some(dictionary),
    }
}

/// What statements make of [`request`].
pub fn run(level: Option<Level>, rules: &[&str]) -> Result<Request, String> {
    let rules =
        Rules::statements(level, rules, ErrorMode::Propagate, Gates::default()).map_err(|error| error.to_string())?;
    rules.apply(request(), |_| {}).map(|(request, _)| request).map_err(|error| error.to_string())
}

/// What is left of it when what a condition holds for is dropped, or kept.
pub fn filter(level: Level, condition: &str, drop: bool) -> (Request, Done) {
    let rules =
        Rules::filter(Some(level), &[condition], drop, ErrorMode::Propagate, Gates::default()).expect(condition);
    rules.apply(request(), |_| {}).expect(condition)
}
