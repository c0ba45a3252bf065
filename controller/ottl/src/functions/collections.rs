//! Converters of lists and maps.

use std::cmp::Ordering;

use super::{Args, Function, Prepared, Takes, converter, may, needs};
use crate::{
    compare::compare,
    error::EvalError,
    syntax::Comparison,
    text::attribute,
    value::{Map, Value},
};

pub(super) const ALL: &[Function] = &[
    converter("ContainsValue", &[needs("target", Takes::List), needs("item", Takes::Any)], "bool", "Whether a list has a value", |args| {
        let list = args.list(0)?;
        let item = args.value(1)?;
        Ok(Value::Bool(list.iter().any(|value| compare(value, Comparison::Equal, &item))))
    }),
    converter(
        "Index",
        &[needs("target", Takes::Any), needs("value", Takes::Any)],
        "int",
        "Where a string (in bytes) or list has a value first; -1 if nowhere",
        index,
    ),
    converter("Keys", &[needs("target", Takes::Map)], "list", "The keys of a map", |args| {
        Ok(Value::list(args.map(0)?.iter().map(|(key, _)| Value::text(key)).collect()))
    }),
    converter("Values", &[needs("target", Takes::Map)], "list", "The values of a map", |args| {
        Ok(Value::list(args.map(0)?.iter().map(|(_, value)| value.clone()).collect()))
    }),
    converter(
        "SliceToMap",
        &[needs("target", Takes::List), may("key_path", Takes::LiteralTexts), may("value_path", Takes::LiteralTexts)],
        "map",
        "A map of a list's values under their indices, or under what is found in them",
        slice_to_map,
    ),
    converter(
        "Sort",
        &[needs("target", Takes::List), may("order", Takes::LiteralText)],
        "list",
        "A list in order, `asc` or `desc`: numbers by size; with strings, bools or nil in it, all as strings. Lists and maps are not sorted",
        sort,
    )
    .prepared(|literals| match literals.text(1) {
        None | Some("asc" | "desc") => Ok(Prepared::Nothing),
        Some(other) => Err((1, format!("an order is asc or desc, not {other:?}"))),
    }),
    converter(
        "ToKeyValueString",
        &[
            needs("target", Takes::Map),
            may("delimiter", Takes::LiteralText),
            may("pair_delimiter", Takes::LiteralText),
            may("sort_output", Takes::LiteralBool),
        ],
        "string",
        "A map as `key=value` with spaces between, or with other delimiters",
        to_key_value,
    )
    .prepared(super::formats::delimiters_differ),
];

type Converted<'a> = Result<Value<'a>, EvalError>;

fn index<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let target = args.value(0)?;
    let value = args.value(1)?;
    let at = match (&target, &value) {
        (Value::Text(text), Value::Text(part)) => text.find(&**part),
        (Value::Text(_), other) => {
            return Err(EvalError::new(format!("a string has strings in it, not {}", other.kind())));
        }
        (Value::List(list), _) => list.iter().position(|known| compare(known, Comparison::Equal, &value)),
        (other, _) => return Err(EvalError::new(format!("target must be a string or list, not {}", other.kind()))),
    };
    Ok(Value::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
}

fn slice_to_map<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let list = args.list(0)?;
    let (by_key, by_value) = (args.given(1), args.given(2));
    let key_path = if by_key { args.texts(1)? } else { Vec::new() };
    let value_path = if by_value { args.texts(2)? } else { Vec::new() };
    let mut made = Map::new();
    for (at, element) in list.iter().enumerate() {
        let map = match element {
            Value::Map(map) => Some(map),
            _ if by_key || by_value => {
                return Err(EvalError::new(format!("element {at} must be a map, not {}", element.kind())));
            }
            _ => None,
        };
        let key = match map.filter(|_| by_key) {
            Some(map) => match within(map, &key_path)? {
                Value::Text(key) => key.clone().into_owned(),
                other => {
                    return Err(EvalError::new(format!(
                        "the key of element {at} must be a string, not {}",
                        other.kind()
                    )));
                }
            },
            None => at.to_string(),
        };
        let value = match map.filter(|_| by_value) {
            Some(map) => within(map, &value_path)?,
            None => element,
        };
        made.insert(key, value.clone());
    }
    Ok(Value::map(made))
}

fn within<'m>(map: &'m Map, path: &[std::borrow::Cow<'_, str>]) -> Result<&'m Value<'static>, EvalError> {
    let missing = || EvalError::new(format!("nothing at {path:?}"));
    let (first, rest) = path.split_first().ok_or_else(missing)?;
    let mut value = map.get(first).ok_or_else(missing)?;
    for name in rest {
        let Value::Map(map) = value else { return Err(missing()) };
        value = map.get(name).ok_or_else(missing)?;
    }
    Ok(value)
}

fn sort<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let mut list = args.list(0)?.into_owned();
    let descending = args.text_or(1, "asc")? == "desc";
    let ordered = |ordering: Ordering| if descending { ordering.reverse() } else { ordering };
    let as_text = list.iter().any(|value| matches!(value, Value::Text(_) | Value::Bool(_) | Value::Nil));
    let floats = list.iter().any(|value| matches!(value, Value::Float(_)));
    if list.iter().any(|value| matches!(value, Value::List(_) | Value::Map(_) | Value::Bytes(_))) {
        return Ok(Value::list(list));
    }
    if as_text {
        list.sort_by(|left, right| ordered(attribute(left).cmp(&attribute(right))));
    } else if floats {
        // NaN is less than any other.
        list.sort_by(|left, right| {
            ordered(
                number(left)
                    .partial_cmp(&number(right))
                    .unwrap_or_else(|| number(right).is_nan().cmp(&number(left).is_nan())),
            )
        });
    } else {
        list.sort_by(|left, right| match (left, right) {
            (Value::Int(left), Value::Int(right)) | (Value::Duration(left), Value::Duration(right)) => {
                ordered(left.cmp(right))
            }
            (Value::Time(left), Value::Time(right)) => ordered(left.nanos().cmp(&right.nanos())),
            _ => Ordering::Equal,
        });
    }
    Ok(Value::list(list))
}

#[allow(clippy::cast_precision_loss)]
fn number(value: &Value<'_>) -> f64 {
    match value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        _ => f64::NAN,
    }
}

fn to_key_value<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let map = args.map(0)?;
    let (delimiter, pairs) = (args.text_or(1, "=")?, args.text_or(2, " ")?);
    let mut entries: Vec<(&str, &Value<'static>)> = map.iter().collect();
    if args.bool_or(3, false)? {
        entries.sort_by_key(|(key, _)| *key);
    }
    let quoted = |text: &str| {
        let text = text.replace('"', "\\\"");
        if text.contains(&*pairs) || text.contains(&*delimiter) { format!("\"{text}\"") } else { text }
    };
    let all: Vec<String> = entries
        .into_iter()
        .map(|(key, value)| format!("{}{delimiter}{}", quoted(key), quoted(&attribute(value))))
        .collect();
    super::strings::bounded(all.join(&pairs))
}
