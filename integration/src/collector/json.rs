//! The JSON of the Collector's file exporter, which is OTLP's JSON of today: fields by name, 64-bit numbers as text, and strings by
//! their index in the dictionary (`...Strindex`).

use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary, ResourceProfiles, Sample,
    ScopeProfiles, Stack, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use profiler_formats::otlp::ExportProfilesServiceRequest;
use serde_json::Value;

/// The request of one line.
pub(super) fn request(line: &str) -> Result<ExportProfilesServiceRequest, String> {
    let json: Value = serde_json::from_str(line).map_err(|error| format!("a line that is no JSON: {error}"))?;
    known(&json, "request", &["resourceProfiles", "dictionary"])?;
    Ok(ExportProfilesServiceRequest {
        resource_profiles: list(&json, "resourceProfiles", resource_profiles)?,
        dictionary: json.get("dictionary").map(dictionary).transpose()?,
    })
}

type Parsed<T> = Result<T, String>;

/// A field that is not read would be a difference that is not seen.
fn known(json: &Value, of: &str, fields: &[&str]) -> Parsed<()> {
    let object = json.as_object().ok_or_else(|| format!("{of} is no object: {json}"))?;
    match object.keys().find(|key| !fields.contains(&key.as_str())) {
        Some(key) => Err(format!("{of} has a field that this does not read: {key}")),
        None => Ok(()),
    }
}

fn list<T>(json: &Value, field: &str, read: impl Fn(&Value) -> Parsed<T>) -> Parsed<Vec<T>> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(read).collect(),
        Some(other) => Err(format!("{field} is no list: {other}")),
    }
}

/// A number, as such or as text; 0 if absent.
fn number<T: TryFrom<i128>>(json: &Value, field: &str) -> Parsed<T> {
    json.get(field).map_or(Ok(0), parsed).and_then(|value| T::try_from(value).map_err(|_| format!("{field}: {value}")))
}

fn parsed(json: &Value) -> Parsed<i128> {
    let text = match json {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.parse().map_err(|_| format!("no whole number: {json}"))
}

fn numbers<T: TryFrom<i128>>(json: &Value, field: &str) -> Parsed<Vec<T>> {
    list(json, field, |item| T::try_from(parsed(item)?).map_err(|_| format!("{field}: {item}")))
}

fn string(json: &Value, field: &str) -> String {
    json.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn bytes(json: &Value, field: &str) -> Parsed<Vec<u8>> {
    let hex = string(json, field);
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs.map(|pair| u8::from_str_radix(pair, 16).map_err(|_| format!("{field} is not hexadecimal: {hex}"))).collect()
}

fn resource_profiles(json: &Value) -> Parsed<ResourceProfiles> {
    known(json, "resourceProfiles", &["resource", "scopeProfiles", "schemaUrl"])?;
    Ok(ResourceProfiles {
        resource: json.get("resource").map(resource).transpose()?,
        scope_profiles: list(json, "scopeProfiles", scope_profiles)?,
        schema_url: string(json, "schemaUrl"),
    })
}

fn resource(json: &Value) -> Parsed<Resource> {
    known(json, "resource", &["attributes"])?;
    Ok(Resource { attributes: list(json, "attributes", attribute)?, ..Resource::default() })
}

fn scope_profiles(json: &Value) -> Parsed<ScopeProfiles> {
    known(json, "scopeProfiles", &["scope", "profiles", "schemaUrl"])?;
    Ok(ScopeProfiles {
        scope: json.get("scope").map(scope).transpose()?,
        profiles: list(json, "profiles", profile)?,
        schema_url: string(json, "schemaUrl"),
    })
}

fn scope(json: &Value) -> Parsed<InstrumentationScope> {
    known(json, "scope", &["name", "version", "attributes"])?;
    Ok(InstrumentationScope {
        name: string(json, "name"),
        version: string(json, "version"),
        attributes: list(json, "attributes", attribute)?,
        dropped_attributes_count: 0,
    })
}

fn attribute(json: &Value) -> Parsed<KeyValue> {
    known(json, "attribute", &["key", "keyStrindex", "value"])?;
    Ok(KeyValue {
        key: string(json, "key"),
        key_strindex: number(json, "keyStrindex")?,
        value: json.get("value").map(any_value).transpose()?,
    })
}

fn any_value(json: &Value) -> Parsed<AnyValue> {
    let object = json.as_object().ok_or_else(|| format!("no value: {json}"))?;
    let Some((kind, inner)) = object.iter().next() else { return Ok(AnyValue { value: None }) };
    let wrong = || format!("not a {kind}: {inner}");
    let value = match kind.as_str() {
        "stringValue" => any_value::Value::StringValue(inner.as_str().ok_or_else(wrong)?.to_owned()),
        "stringValueStrindex" => any_value::Value::StringValueStrindex(number(json, kind)?),
        "intValue" => any_value::Value::IntValue(number(json, kind)?),
        "boolValue" => any_value::Value::BoolValue(inner.as_bool().ok_or_else(wrong)?),
        "doubleValue" => any_value::Value::DoubleValue(inner.as_f64().ok_or_else(wrong)?),
        "arrayValue" => any_value::Value::ArrayValue(ArrayValue { values: list(inner, "values", any_value)? }),
        "kvlistValue" => any_value::Value::KvlistValue(KeyValueList { values: list(inner, "values", attribute)? }),
        _ => return Err(format!("a kind of value that this does not read: {kind}")),
    };
    Ok(AnyValue { value: Some(value) })
}

const PROFILE: &[&str] = &[
    "sampleType",
    "samples",
    "timeUnixNano",
    "durationNano",
    "periodType",
    "period",
    "profileId",
    "attributeIndices",
    "droppedAttributesCount",
    "originalPayloadFormat",
    "originalPayload",
];

fn profile(json: &Value) -> Parsed<Profile> {
    known(json, "profile", PROFILE)?;
    Ok(Profile {
        sample_type: json.get("sampleType").map(value_type).transpose()?,
        samples: list(json, "samples", sample)?,
        time_unix_nano: number(json, "timeUnixNano")?,
        duration_nano: number(json, "durationNano")?,
        period_type: json.get("periodType").map(value_type).transpose()?,
        period: number(json, "period")?,
        profile_id: bytes(json, "profileId")?,
        attribute_indices: numbers(json, "attributeIndices")?,
        ..Profile::default()
    })
}

fn value_type(json: &Value) -> Parsed<ValueType> {
    known(json, "valueType", &["typeStrindex", "unitStrindex"])?;
    Ok(ValueType { type_strindex: number(json, "typeStrindex")?, unit_strindex: number(json, "unitStrindex")? })
}

fn sample(json: &Value) -> Parsed<Sample> {
    known(json, "sample", &["stackIndex", "values", "attributeIndices", "linkIndex", "timestampsUnixNano"])?;
    Ok(Sample {
        stack_index: number(json, "stackIndex")?,
        values: numbers(json, "values")?,
        attribute_indices: numbers(json, "attributeIndices")?,
        link_index: number(json, "linkIndex")?,
        timestamps_unix_nano: numbers(json, "timestampsUnixNano")?,
    })
}

fn dictionary(json: &Value) -> Parsed<ProfilesDictionary> {
    let tables =
        ["mappingTable", "locationTable", "functionTable", "linkTable", "stringTable", "attributeTable", "stackTable"];
    known(json, "dictionary", &tables)?;
    let text = |item: &Value| item.as_str().map(str::to_owned).ok_or_else(|| format!("no string: {item}"));
    Ok(ProfilesDictionary {
        mapping_table: list(json, "mappingTable", mapping)?,
        location_table: list(json, "locationTable", location)?,
        function_table: list(json, "functionTable", function)?,
        link_table: list(json, "linkTable", link)?,
        string_table: list(json, "stringTable", text)?,
        attribute_table: list(json, "attributeTable", attribute_and_unit)?,
        stack_table: list(json, "stackTable", stack)?,
    })
}

fn mapping(json: &Value) -> Parsed<Mapping> {
    let fields = ["memoryStart", "memoryLimit", "fileOffset", "filenameStrindex", "attributeIndices"];
    known(json, "mapping", &fields)?;
    Ok(Mapping {
        memory_start: number(json, "memoryStart")?,
        memory_limit: number(json, "memoryLimit")?,
        file_offset: number(json, "fileOffset")?,
        filename_strindex: number(json, "filenameStrindex")?,
        attribute_indices: numbers(json, "attributeIndices")?,
    })
}

fn location(json: &Value) -> Parsed<Location> {
    known(json, "location", &["mappingIndex", "address", "lines", "attributeIndices"])?;
    Ok(Location {
        mapping_index: number(json, "mappingIndex")?,
        address: number(json, "address")?,
        lines: list(json, "lines", line)?,
        attribute_indices: numbers(json, "attributeIndices")?,
    })
}

fn line(json: &Value) -> Parsed<Line> {
    known(json, "line", &["functionIndex", "line", "column"])?;
    Ok(Line {
        function_index: number(json, "functionIndex")?,
        line: number(json, "line")?,
        column: number(json, "column")?,
    })
}

fn function(json: &Value) -> Parsed<Function> {
    known(json, "function", &["nameStrindex", "systemNameStrindex", "filenameStrindex", "startLine"])?;
    Ok(Function {
        name_strindex: number(json, "nameStrindex")?,
        system_name_strindex: number(json, "systemNameStrindex")?,
        filename_strindex: number(json, "filenameStrindex")?,
        start_line: number(json, "startLine")?,
    })
}

fn link(json: &Value) -> Parsed<Link> {
    known(json, "link", &["traceId", "spanId"])?;
    Ok(Link { trace_id: bytes(json, "traceId")?, span_id: bytes(json, "spanId")? })
}

fn attribute_and_unit(json: &Value) -> Parsed<KeyValueAndUnit> {
    known(json, "attributeTable", &["keyStrindex", "value", "unitStrindex"])?;
    let value = json.get("value").map(any_value).transpose()?;
    Ok(KeyValueAndUnit {
        key_strindex: number(json, "keyStrindex")?,
        // The Collector writes no value at all as an empty one.
        value: value.filter(|value| value.value.is_some()),
        unit_strindex: number(json, "unitStrindex")?,
    })
}

fn stack(json: &Value) -> Parsed<Stack> {
    known(json, "stack", &["locationIndices"])?;
    Ok(Stack { location_indices: numbers(json, "locationIndices")? })
}
