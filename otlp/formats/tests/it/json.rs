//! OTLP in JSON, and OTLP of other versions.

use opentelemetry_proto::tonic::profiles::v1development::{Profile, Sample};
use profiler_formats::{
    Error,
    format::{self, Format},
    otlp::{self, ExportProfilesServiceRequest},
};
use profiler_model::{Link, Profiles};
use prost::Message;
use serde_json::{Value, json};

use crate::profiles::{head, samples, small};

fn json(profile: &Profiles) -> Value {
    let mut out = Vec::new();
    format::write(profile, Format::OtlpJson, &mut out).unwrap();
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line, and its end");
    serde_json::from_slice(&out).unwrap()
}

fn read(value: &Value) -> Result<Profiles, Error> {
    format::read(value.to_string().as_bytes())
}

/// Each value of `value` whose name `is` one, changed.
fn changed(value: &mut Value, is: &impl Fn(&str) -> bool, change: &impl Fn(&mut Value)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if is(name) {
                    change(value);
                } else {
                    changed(value, is, change);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| changed(value, is, change)),
        _ => {}
    }
}

#[test]
fn names_and_numbers_are_those_of_otlp() {
    let mut profile = small(12);
    profile.links.push(Link { trace_id: [0xab; 16], span_id: [0x01; 8] });
    profile.profiles[0].samples[0].link = 1;
    let value = json(&profile);
    let message = otlp::request(&profile);
    let (dictionary, expected) = (&value["dictionary"], message.dictionary.as_ref().unwrap());
    assert_eq!(dictionary["stringTable"].as_array().unwrap().len(), expected.string_table.len());
    assert_eq!(dictionary["mappingTable"][0], json!({}));
    assert_eq!(dictionary["linkTable"][1], json!({ "traceId": "ab".repeat(16), "spanId": "01".repeat(8) }));
    for (location, expected) in dictionary["locationTable"].as_array().unwrap().iter().zip(&expected.location_table) {
        let address = location.get("address").map_or("0", |address| address.as_str().unwrap());
        assert_eq!(address, expected.address.to_string());
        assert_eq!(
            location.get("mappingIndex").map_or(0, |index| index.as_i64().unwrap()),
            i64::from(expected.mapping_index)
        );
    }
    let first = &value["resourceProfiles"][0]["scopeProfiles"][0]["profiles"][0];
    assert_eq!(first["timeUnixNano"], crate::profiles::START.to_string());
    assert_eq!(first["period"], "10101010");
    assert_eq!(first["samples"][0]["timestampsUnixNano"][0], crate::profiles::START.to_string());
    assert_eq!(first["samples"][0]["linkIndex"], 1);
    let pid = &value["resourceProfiles"][0]["resource"]["attributes"][0];
    assert_eq!(*pid, json!({ "key": "process.pid", "value": { "intValue": "100" } }));
}

#[test]
fn what_is_written_otherwise_but_means_the_same_is_read() {
    let profile = small(12);
    let expected = samples(&profile);
    let value = json(&profile);
    assert_eq!(samples(&read(&value).unwrap()), expected);
    assert_eq!(head(&read(&value).unwrap()), head(&profile));
    // Integers of 64 bits as numbers.
    let mut numbers = value.clone();
    let is_integer = |name: &str| ["address", "period", "durationNano", "line"].contains(&name);
    changed(&mut numbers, &is_integer, &|value| {
        let number: u64 = value.as_str().unwrap().parse().unwrap();
        *value = number.into();
    });
    assert_eq!(samples(&read(&numbers).unwrap()), expected);
    // Names as the definition of the messages has them, in gzip, behind a byte order mark and white space.
    let text = value.to_string();
    let mut snake = text.clone();
    for name in ["resourceProfiles", "scopeProfiles", "timeUnixNano", "stackIndex", "timestampsUnixNano", "stringTable"]
    {
        let own: String = name
            .chars()
            .flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain([c.to_ascii_lowercase()]))
            .collect();
        snake = snake.replace(&format!("\"{name}\""), &format!("\"{own}\""));
    }
    assert_ne!(snake, text);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, format!("\u{feff}\n {snake} \n").as_bytes()).unwrap();
    assert_eq!(samples(&format::read(&gzip.finish().unwrap()).unwrap()), expected);
    // What is absent, and what a stable message has in addition.
    let mut more = value;
    more["resourceProfiles"][0]["resource"]["entityRefs"] = json!([{ "type": "process", "idKeys": ["process.pid"] }]);
    more["resourceProfiles"][0]["schemaUrl"] = Value::Null;
    assert_eq!(samples(&read(&more).unwrap()), expected);
}

/// As the Collector's `file` exporter writes a stream.
#[test]
fn several_requests_are_one_profile() {
    let (first, second) = (small(12), small(40));
    let mut file = Vec::new();
    format::write(&first, Format::OtlpJson, &mut file).unwrap();
    format::write(&second, Format::OtlpJson, &mut file).unwrap();
    let both = format::read(&file).unwrap();
    assert_eq!(both.sample_count(), 52);
    assert_eq!(both.profiles.len(), 1);
    assert_eq!(both.losses[0].count, first.losses[0].count + second.losses[0].count);
    // What both have is there once.
    assert_eq!(both.locations.len(), otlp::decode(&otlp::encode(&second)).unwrap().locations.len());
    assert_eq!(otlp::check(&otlp::encode(&both)), []);
}

#[test]
fn values_of_all_types_keep_their_meaning() {
    let mut value = json(&small(1));
    let attributes = json!([
        { "key": "process.pid", "value": { "intValue": 7 } },
        { "key": "double", "value": { "doubleValue": 0.25 } },
        { "key": "bool", "value": { "boolValue": true } },
        { "key": "bytes", "value": { "bytesValue": "AP8=" } },
        { "key": "bare", "value": { "bytesValue": "_w" } },
        { "key": "list", "value": { "arrayValue": { "values": [{ "stringValue": "a" }, { "stringValue": "b" }] } } },
        { "key": "map", "value": { "kvlistValue": { "values": [{ "key": "k", "value": { "intValue": "-3" } }] } } },
        { "key": "odd", "value": { "doubleValue": "NaN" } },
    ]);
    value["resourceProfiles"][0]["resource"]["attributes"] = attributes;
    let profile = read(&value).unwrap();
    let process = &profile.processes[0];
    assert_eq!(process.pid, Some(7));
    let said: Vec<_> =
        process.attributes.iter().map(|(key, value)| (profile.string(*key), profile.attribute_text(value))).collect();
    let expected = [
        ("double", "0.25"),
        ("bool", "true"),
        ("bytes", "00ff"),
        ("bare", "ff"),
        ("list", "a,b"),
        ("map", "{k:-3}"),
        ("odd", "NaN"),
    ];
    assert_eq!(said, expected.map(|(key, value)| (key, value.into())));
}

#[test]
fn a_request_of_nothing_among_others_is_one_of_nothing() {
    let whole = json(&small(1)).to_string();
    let text = format!("{{\"resourceProfiles\":[]}}\n{whole}\n{{}}\n");
    let entries = |read: &Profiles| read.sample_entries();
    let (alone, among) = (format::read(whole.as_bytes()).unwrap(), format::read(text.as_bytes()).unwrap());
    assert!(entries(&alone) > 0 && entries(&alone) == entries(&among));
}

#[test]
fn json_that_is_no_request_is_refused_with_a_reason() {
    for other in
        ["{}", r#"{"meta":{"version":1}}"#, r#"{"resourceSpans":[]}"#, r#"{"$schema":"https://www.speedscope.app"}"#]
    {
        assert!(matches!(format::read(other.as_bytes()), Err(Error::Unrecognized)), "{other}");
    }
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut value = json(&small(1));
        change(&mut value);
        read(&value).unwrap_err().to_string()
    };
    let profile =
        |value: &mut Value| std::mem::take(&mut value["resourceProfiles"][0]["scopeProfiles"][0]["profiles"][0]);
    let set = |name: &'static str, to: Value| {
        move |value: &mut Value| {
            let mut one = profile(value);
            one[name] = to.clone();
            value["resourceProfiles"][0]["scopeProfiles"][0]["profiles"][0] = one;
        }
    };
    let error = refused(&set("durationNano", json!(-1)));
    assert!(error.contains("durationNano: -1 is out of range") && error.contains("column"), "{error}");
    let error = refused(&set("period", json!("often")));
    assert!(error.contains("period: not a value of this field"), "{error}");
    let error = refused(&set("samples", json!([[]])));
    assert!(error.contains("a list where there should be none"), "{error}");
    let error = refused(&set("profileId", json!("abc")));
    assert!(error.contains("profileId"), "{error}");
    let error = refused(&|value| value["dictionary"]["stringTable"][0] = Value::Null);
    assert!(error.contains("stringTable"), "{error}");
    // Cut short, and deeper than anybody writes.
    let text = json(&small(1)).to_string();
    assert!(format::read(&text.as_bytes()[..text.len() / 2]).unwrap_err().to_string().contains("EOF"));
    let deep = r#"{"resourceProfiles":[{"resource":{"attributes":[{"key":"a","value":"#.to_owned()
        + &r#"{"arrayValue":{"values":["#.repeat(100_000);
    assert!(format::read(deep.as_bytes()).unwrap_err().to_string().contains("recursion"));
}

fn is_other_version(read: Result<Profiles, Error>, field: &str) {
    match read {
        Err(error @ Error::Version { .. }) => {
            let text = error.to_string();
            assert!(text.contains(field) && text.contains("1.10") && text.contains("update"), "{text}");
        }
        other => panic!("{field}: {other:?}"),
    }
}

#[test]
fn json_of_other_versions_is_called_that() {
    // 1.9 and older: `sample`; 1.7: the stack's locations on the profile; tomorrow: who knows.
    for name in ["sample", "locationIndices", "aggregationTemporality", "isFolded", "sampleWeights"] {
        let mut value = json(&small(1));
        value["resourceProfiles"][0]["scopeProfiles"][0]["profiles"][0][name] = json!([{}]);
        is_other_version(read(&value), name);
    }
    let mut value = json(&small(1));
    value["dictionary"]["attributeUnits"] = json!([]);
    is_other_version(read(&value), "attributeUnits");
}

/// A field of a message: its number, and bytes.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encode_length_delimiter(bytes.len(), &mut out).unwrap();
    out.extend(bytes);
    out
}

/// A request with the dictionary of a real one and a single profile, of these bytes.
fn with_profile(profile: &[u8]) -> Vec<u8> {
    let dictionary = otlp::request(&small(12)).dictionary.unwrap().encode_to_vec();
    [field(1, &field(2, &field(2, profile))), field(2, &dictionary)].concat()
}

/// A sample as 1.8 and 1.9 number its fields: stack 1, values 2, attributes 3, link 4, times 5.
fn old_sample(values: &[u8], attributes: &[u8], link: Option<u8>) -> Vec<u8> {
    let link = link.map_or(Vec::new(), |link| vec![4 << 3, link]);
    let attributes = if attributes.is_empty() { Vec::new() } else { field(3, attributes) };
    let time = field(5, &crate::profiles::START.to_le_bytes());
    [&[1 << 3, 1][..], &field(2, values), &attributes, &link, &time].concat()
}

#[test]
fn protobuf_of_other_versions_is_called_that() {
    let current = Profile {
        samples: vec![Sample { stack_index: 1, values: vec![5], ..Sample::default() }],
        ..Profile::default()
    };
    let read = otlp::decode(&with_profile(&current.encode_to_vec())).unwrap();
    assert_eq!(read.profiles[0].samples[0].first_value(), 5);
    // Samples of 1.9 with attributes, with a link, and with nothing but values.
    is_other_version(otlp::decode(&with_profile(&field(2, &old_sample(&[1], &[1, 2], None)))), "linkIndex");
    is_other_version(otlp::decode(&with_profile(&field(2, &old_sample(&[1], &[], Some(3))))), "values");
    is_other_version(otlp::decode(&with_profile(&field(2, &old_sample(&[1, 1, 1], &[], None)))), "attributes");
    // A profile of 1.7: times and durations are other numbers of other types.
    is_other_version(otlp::decode(&with_profile(&field(3, &[1, 2, 3]))), "timeUnixNano");
    // And what the next one may bring, in each message that is not stable.
    for number in [12, 77, 1000] {
        is_other_version(otlp::decode(&with_profile(&field(number, b"x"))), &number.to_string());
    }
    let mut request = with_profile(&current.encode_to_vec());
    request.extend(field(2, &field(9, b"x")));
    is_other_version(otlp::decode(&request), "the field 9 of a ProfilesDictionary");
}

#[test]
fn protobuf_is_not_taken_for_json() {
    // A first resource of 123 bytes: its length is the number of `{`, behind a line's end.
    for filler in 0..200 {
        let mut request = otlp::request(&small(1));
        request.resource_profiles[0].schema_url = "x".repeat(filler);
        request.resource_profiles[0].scope_profiles[0].scope = None;
        request.resource_profiles[0].resource.as_mut().unwrap().attributes.truncate(1);
        let bytes = request.encode_to_vec();
        if bytes.starts_with(b"\n{") {
            assert_eq!(format::read(&bytes).unwrap().sample_count(), 1);
            return;
        }
    }
    panic!("no resource of 123 bytes");
}

#[test]
fn a_request_of_json_is_the_request_of_protobuf() {
    let profile = small(300);
    let through = otlp::decode_json(json(&profile).to_string().as_bytes()).unwrap();
    let request = |profile: &Profiles| -> ExportProfilesServiceRequest { otlp::request(profile) };
    assert_eq!(request(&through), request(&otlp::decode(&otlp::encode(&profile)).unwrap()));
}
