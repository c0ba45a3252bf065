//! Files of other producers, and files that nobody should produce.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value},
    profiles::v1development::{
        Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary, ResourceProfiles,
        Sample, ScopeProfiles, Stack, ValueType,
    },
    resource::v1::Resource,
};
use profiler_formats::{
    Error,
    format::{self, Format},
    otlp::{self, ExportProfilesServiceRequest},
    pprof,
};
use profiler_model::{FrameKind, LabelValue, Values};
use prost::Message;

fn value(value: any_value::Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn text(text: &str) -> Option<AnyValue> {
    value(any_value::Value::StringValue(text.to_owned()))
}

/// As OpenTelemetry's eBPF profiler would send an off-CPU sample of a JVM, with reference attributes on the resource.
fn request() -> ExportProfilesServiceRequest {
    let strings = [
        "",
        "off_cpu",
        "nanoseconds",
        "Main.run",
        "Main.java",
        "profile.frame.type",
        "thread.name",
        "worker",
        "process.context.label.tenant",
        "process.executable.name",
        "java",
        "ns",
        "wait",
        "ids",
        "host.name",
        "elm",
    ];
    let attribute = |key_strindex, value, unit_strindex| KeyValueAndUnit { key_strindex, value, unit_strindex };
    let ids = ArrayValue { values: vec![text("a").unwrap(), value(any_value::Value::IntValue(2)).unwrap()] };
    let list = KeyValue { key: "k".to_owned(), value: value(any_value::Value::DoubleValue(0.5)), key_strindex: 0 };
    let reference = |key_strindex, value_strindex| KeyValue {
        key: String::new(),
        key_strindex,
        value: value(any_value::Value::StringValueStrindex(value_strindex)),
    };
    let inline = KeyValue {
        key: "deployment".to_owned(),
        value: value(any_value::Value::KvlistValue(KeyValueList { values: vec![list] })),
        key_strindex: 0,
    };
    let pid = KeyValue { key: "process.pid".to_owned(), value: value(any_value::Value::IntValue(7)), key_strindex: 0 };
    let dictionary = ProfilesDictionary {
        mapping_table: vec![Mapping::default()],
        location_table: vec![
            Location::default(),
            Location {
                lines: vec![Line { function_index: 1, line: 12, column: -3 }],
                attribute_indices: vec![1],
                ..Default::default()
            },
        ],
        function_table: vec![
            Function::default(),
            Function { name_strindex: 3, filename_strindex: 4, start_line: 10, ..Default::default() },
        ],
        link_table: vec![Link::default()],
        string_table: strings.map(str::to_owned).to_vec(),
        attribute_table: vec![
            KeyValueAndUnit::default(),
            attribute(5, text("jvm"), 0),
            attribute(6, text("worker"), 0),
            attribute(8, text("blue"), 0),
            attribute(12, value(any_value::Value::IntValue(-5)), 11),
            attribute(13, value(any_value::Value::ArrayValue(ids)), 0),
        ],
        stack_table: vec![Stack::default(), Stack { location_indices: vec![1] }],
    };
    let profile = Profile {
        sample_type: Some(ValueType { type_strindex: 1, unit_strindex: 2 }),
        samples: vec![Sample {
            stack_index: 1,
            attribute_indices: vec![2, 3, 4, 5],
            values: vec![30, 40],
            timestamps_unix_nano: vec![1001, 1002],
            ..Default::default()
        }],
        time_unix_nano: 1000,
        duration_nano: 10,
        ..Default::default()
    };
    ExportProfilesServiceRequest {
        resource_profiles: vec![ResourceProfiles {
            resource: Some(Resource {
                attributes: vec![pid, reference(9, 10), reference(14, 15), inline],
                ..Default::default()
            }),
            scope_profiles: vec![ScopeProfiles {
                scope: Some(InstrumentationScope { name: "otel".to_owned(), ..Default::default() }),
                profiles: vec![profile],
                ..Default::default()
            }],
            ..Default::default()
        }],
        dictionary: Some(dictionary),
    }
}

#[test]
fn a_request_of_another_agent_is_read() {
    let request = request();
    let profile = otlp::decode(&request.encode_to_vec()).unwrap();
    let part = &profile.profiles[0];
    assert_eq!(part.sample_types, [crate::profiles::value_type("off_cpu", "nanoseconds")]);
    assert_eq!((part.start_unix_nanos, part.duration_nanos), (1000, 10));
    assert_eq!((profile.origin.host_name.as_str(), profile.origin.producer.as_str()), ("elm", "otel"));
    let samples: Vec<_> = part.samples.iter().map(|s| (s.time_unix_nanos, s.values.clone())).collect();
    assert_eq!(samples, [(Some(1001), Values::One(30)), (Some(1002), Values::One(40))]);
    let sample = &part.samples[0];
    let thread = &profile.threads[sample.thread.unwrap() as usize];
    let process = &profile.processes[thread.process as usize];
    assert_eq!((process.pid, profile.string(process.name), thread.tid), (Some(7), "java", 0));
    assert_eq!(profile.string(thread.name), "worker");
    let attributes: Vec<_> =
        process.attributes.iter().map(|(key, value)| (profile.string(*key), profile.attribute_text(value))).collect();
    assert_eq!(attributes, [("deployment", "{k:0.5}".into())]);
    let labels: Vec<_> = sample.labels.as_ref().unwrap().iter().collect();
    let spelled: Vec<_> = labels
        .iter()
        .map(|label| match label.value {
            LabelValue::Text(text) => format!("{}={}", profile.string(label.key), profile.string(text)),
            LabelValue::Number(number, unit) => {
                format!("{}={number}{}", profile.string(label.key), profile.string(unit))
            }
        })
        .collect();
    assert_eq!(spelled, ["process.context.label.tenant=blue", "wait=-5ns", "ids=a", "ids=2"]);
    let location = profile.location(profile.stack(sample.stack)[0]).unwrap();
    assert_eq!((location.kind, location.lines[0].line, location.lines[0].column), (FrameKind::Jvm, 12, 0));

    let again = otlp::encode(&profile);
    assert_eq!(otlp::check(&again), vec![]);
    assert_eq!(crate::profiles::samples(&profile), crate::profiles::samples(&otlp::decode(&again).unwrap()));
}

/// The request above with frames of these types, one below the other.
fn with_frame_types(types: &[&str]) -> ExportProfilesServiceRequest {
    let mut request = request();
    let dictionary = request.dictionary.as_mut().unwrap();
    let first = dictionary.location_table.pop().unwrap();
    dictionary.stack_table[1].location_indices.clear();
    for (nth, kind) in types.iter().enumerate() {
        let attribute = KeyValueAndUnit { key_strindex: 5, value: text(kind), unit_strindex: 0 };
        dictionary.attribute_table.push(attribute);
        let attribute_indices = vec![dictionary.attribute_table.len() as i32 - 1];
        let index = dictionary.location_table.len() as i32;
        dictionary.location_table.push(Location { address: nth as u64 + 1, attribute_indices, ..first.clone() });
        dictionary.stack_table[1].location_indices.push(index);
    }
    request
}

/// The frame types of the one stack of a request, innermost first, with what else is said of the frames.
fn frame_types(request: &[u8]) -> Vec<Vec<String>> {
    let request = ExportProfilesServiceRequest::decode(request).unwrap();
    let dictionary = request.dictionary.unwrap();
    let stack = &dictionary.stack_table[1].location_indices;
    let frame = |&location: &i32| {
        let attributes = &dictionary.location_table[location as usize].attribute_indices;
        let value = |&attribute: &i32| match &dictionary.attribute_table[attribute as usize].value {
            Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => text.clone(),
            other => format!("{other:?}"),
        };
        attributes.iter().map(value).collect()
    };
    stack.iter().map(frame).collect()
}

#[test]
fn frame_types_of_other_agents_stay_what_they_are() {
    let types = [
        "ruby",
        "php",
        "phpjit",
        "dotnet",
        "beam",
        "luajit",
        "perl",
        "cpython",
        "v8js",
        "jvm",
        "rust",
        "go",
        "kernel",
        "native",
        "abort-marker",
        "unknown",
        "parrot",
        "ünknown; of tomorrow",
    ];
    let profile = otlp::decode(&with_frame_types(&types).encode_to_vec()).unwrap();
    let expected: Vec<Vec<String>> = types.iter().map(|kind| vec![(*kind).to_owned()]).collect();
    let again = otlp::encode(&profile);
    assert_eq!(otlp::check(&again), vec![]);
    assert_eq!(frame_types(&again), expected);
    // Through pprof.
    let mut packed = Vec::new();
    pprof::encode(&profile, &mut packed).unwrap();
    assert_eq!(frame_types(&otlp::encode(&pprof::decode(&packed).unwrap())), expected);
    // And no file for viewers is without them.
    for format in Format::all() {
        format::write(&profile, format, std::io::sink()).unwrap();
    }
    let mut folded = Vec::new();
    format::write(&profile, Format::Folded, &mut folded).unwrap();
    let folded = String::from_utf8(folded).unwrap();
    assert_eq!((folded.matches("_[j]").count(), folded.matches("_[k]").count()), (6, 1), "{folded}");
}

#[test]
fn damaged_requests_are_refused_with_a_reason() {
    let refused = |change: fn(&mut ExportProfilesServiceRequest)| {
        let mut request = request();
        change(&mut request);
        otlp::decode(&request.encode_to_vec()).unwrap_err().to_string()
    };
    let error = refused(|r| r.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].stack_index = 9);
    assert!(error.contains("stack refers to 9"), "{error}");
    let error = refused(|r| r.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].values.push(1));
    assert!(error.contains("3 values and 2 times"), "{error}");
    let error = refused(|r| r.dictionary.as_mut().unwrap().location_table[1].mapping_index = -4);
    assert!(error.contains("mapping refers to -4"), "{error}");
    let error = refused(|r| r.dictionary = None);
    assert!(error.contains("which does not exist"), "{error}");
}

/// A field of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

#[test]
fn pprof_with_dangling_ids_is_refused_with_a_reason() {
    let strings = [field(6, b""), field(6, b"x")].concat();
    let refused = |bytes: Vec<u8>| pprof::decode(&[bytes, strings.clone()].concat()).unwrap_err().to_string();
    // A sample at location 5.
    let error = refused(field(2, &[0x0a, 1, 5]));
    assert!(error.contains("location refers to 5"), "{error}");
    // A function whose name is string 9.
    let error = refused(field(5, &[8, 1, 16, 9]));
    assert!(error.contains("function refers to 9"), "{error}");
    // A location in mapping 3.
    let error = refused(field(4, &[8, 1, 16, 3]));
    assert!(error.contains("location refers to 3"), "{error}");
    // A sample with a value where there is no type.
    let error = refused(field(2, &[0x12, 1, 5]));
    assert!(error.contains("1 values where the profile has 0 sample types"), "{error}");
    // A string that is cut short.
    let error = refused(vec![0x32, 100, b'x']);
    assert!(error.contains("cut short"), "{error}");
}

/// A few bytes that refer to a long string again and again must not become as many copies of it.
#[test]
fn repeated_references_to_a_long_string_stay_small() {
    let mut bytes = Vec::new();
    for text in [Vec::new(), vec![b'k'; 60_000]] {
        put_field(&mut bytes, 6, &text);
    }
    // 300 comments, all string 1: 18 MB as copies.
    for _ in 0..300 {
        bytes.extend([13 << 3, 1]);
    }
    assert!(matches!(pprof::decode(&bytes), Err(Error::TooLarge { .. })));
    // A string over 64 KiB is cut at a character's boundary.
    let mut bytes = Vec::new();
    let long = "é".repeat(100_000);
    for text in [&b""[..], long.as_bytes()] {
        put_field(&mut bytes, 6, text);
    }
    let profile = pprof::decode(&bytes).unwrap();
    assert!(profile.strings.iter().all(|text| text.len() <= (64 << 10) + 3));
}

/// A field of any length.
fn put_field(bytes: &mut Vec<u8>, number: u8, content: &[u8]) {
    bytes.push(number << 3 | 2);
    prost::encode_length_delimiter(content.len(), bytes).unwrap();
    bytes.extend_from_slice(content);
}
