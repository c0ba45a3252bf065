//! Values of OTLP as values of rules, and back.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value as Any};
use profiler_ottl::{EvalError, Key, Map, Value};

/// How deep values may be in each other; protobuf allows no more than 100 messages.
const MAX_DEPTH: usize = 64;

/// What `value` is. Texts may be in `strings`.
pub(crate) fn value<'a>(value: Option<&'a AnyValue>, strings: &'a [String]) -> Value<'a> {
    nested(value, strings, 0)
}

fn nested<'a>(value: Option<&'a AnyValue>, strings: &'a [String], depth: usize) -> Value<'a> {
    match value.and_then(|value| value.value.as_ref()) {
        None => Value::Nil,
        _ if depth > MAX_DEPTH => Value::Nil,
        Some(Any::StringValue(text)) => Value::from(text.as_str()),
        Some(Any::StringValueStrindex(index)) => Value::from(string(*index, strings)),
        Some(Any::BoolValue(truth)) => Value::Bool(*truth),
        Some(Any::IntValue(number)) => Value::Int(*number),
        Some(Any::DoubleValue(number)) => Value::Float(*number),
        Some(Any::BytesValue(bytes)) => Value::Bytes(Cow::Borrowed(bytes)),
        Some(Any::ArrayValue(list)) => {
            Value::list(list.values.iter().map(|value| nested(Some(value), strings, depth + 1).into_owned()).collect())
        }
        Some(Any::KvlistValue(list)) => {
            let mut map = Map::new();
            for entry in &list.values {
                map.push(key(entry, strings), nested(entry.value.as_ref(), strings, depth + 1).into_owned());
            }
            Value::map(map)
        }
    }
}

fn string(index: i32, strings: &[String]) -> &str {
    usize::try_from(index).ok().and_then(|index| strings.get(index)).map_or("", String::as_str)
}

/// The key of `entry`, which may be in `strings`.
pub(crate) fn key<'a>(entry: &'a KeyValue, strings: &'a [String]) -> &'a str {
    if entry.key.is_empty() { string(entry.key_strindex, strings) } else { &entry.key }
}

/// What is behind `keys` in `inner`; only what is meant is copied.
pub(crate) fn within<'a>(
    inner: Option<&'a AnyValue>,
    keys: &[Key<'_>],
    strings: &'a [String],
) -> Result<Value<'a>, EvalError> {
    let mut inner = inner;
    for asked in keys {
        match inner.and_then(|inner| inner.value.as_ref()) {
            Some(Any::KvlistValue(list)) => {
                let name = asked.name()?;
                match list.values.iter().find(|entry| key(entry, strings) == name) {
                    Some(entry) => inner = entry.value.as_ref(),
                    None => return Ok(Value::Nil),
                }
            }
            Some(Any::ArrayValue(list)) => inner = list.values.get(asked.index(list.values.len())?),
            _ => return Err(EvalError::new(format!("{} has no keys", value(inner, strings).kind()))),
        }
    }
    Ok(value(inner, strings))
}

/// The attributes `entries` at `keys`, or all of them.
pub(crate) fn attributes<'a>(
    entries: &'a [KeyValue],
    keys: &[Key<'_>],
    strings: &'a [String],
) -> Result<Value<'a>, EvalError> {
    let Some((first, rest)) = keys.split_first() else { return Ok(Value::map(map(entries, strings))) };
    let name = first.name()?;
    match entries.iter().find(|entry| key(entry, strings) == name) {
        Some(entry) => within(entry.value.as_ref(), rest, strings),
        None => Ok(Value::Nil),
    }
}

/// All of `entries`.
pub(crate) fn map(entries: &[KeyValue], strings: &[String]) -> Map {
    let mut map = Map::new();
    for entry in entries {
        map.push(key(entry, strings), value(entry.value.as_ref(), strings).into_owned());
    }
    map
}

/// `map` as attributes.
pub(crate) fn entries(map: Map) -> Vec<KeyValue> {
    map.into_entries()
        .into_iter()
        .map(|(key, value)| KeyValue { key, value: Some(any(value)), ..KeyValue::default() })
        .collect()
}

/// `value` as OTLP has it; what OTLP has nothing for is nothing, and is refused before.
pub(crate) fn any(value: Value<'static>) -> AnyValue {
    let value = match value {
        Value::Bool(truth) => Some(Any::BoolValue(truth)),
        Value::Int(number) => Some(Any::IntValue(number)),
        Value::Float(number) => Some(Any::DoubleValue(number)),
        Value::Text(text) => Some(Any::StringValue(text.into_owned())),
        Value::Bytes(bytes) => Some(Any::BytesValue(bytes.into_owned())),
        Value::List(list) => {
            Some(Any::ArrayValue(ArrayValue { values: list.into_owned().into_iter().map(any).collect() }))
        }
        Value::Map(map) => Some(Any::KvlistValue(KeyValueList { values: entries(map.into_owned()) })),
        Value::Nil | Value::Time(_) | Value::Duration(_) | Value::Id(_) | Value::Opaque(_) => None,
    };
    AnyValue { value }
}
