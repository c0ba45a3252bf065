//! Converters that take lambdas; the feature gate of lambdas must be open.

use super::{Args, Function, Takes, converter, may, needs};
use crate::{
    error::EvalError,
    value::{Map, Value},
};

const SOURCE: super::Parameter = needs("source", Takes::Any);
const PREDICATE: super::Parameter = needs("predicate", Takes::Lambda(2));

pub(super) const ALL: &[Function] = &[
    converter(
        "All",
        &[SOURCE, PREDICATE],
        "bool",
        "Whether a lambda, given index or key and value, holds for all",
        |args| {
            for (key, value) in entries(args)? {
                if !args.holds(1, &[key, value])? {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        },
    ),
    converter("Any", &[SOURCE, PREDICATE], "bool", "Whether it holds for one", |args| {
        for (key, value) in entries(args)? {
            if args.holds(1, &[key, value])? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    converter("Filter", &[SOURCE, PREDICATE], "list or map", "What it holds for", filter),
    converter(
        "Find",
        &[SOURCE, PREDICATE, may("mapper", Takes::Lambda(2))],
        "any",
        "The first value that it holds for, or what another lambda makes of it; nil if there is none",
        find,
    ),
    converter(
        "MapEach",
        &[SOURCE, needs("mapper", Takes::Lambda(2))],
        "list or map",
        "What a lambda makes of each value",
        map_each,
    ),
    converter(
        "MapKeys",
        &[needs("source", Takes::Map), needs("key_mapper", Takes::Lambda(2))],
        "map",
        "A map under the keys that a lambda makes",
        map_keys,
    ),
    converter(
        "Reduce",
        &[SOURCE, needs("seed", Takes::Any), needs("accumulator", Takes::Lambda(3))],
        "any",
        "What a lambda makes of all: it is given what it made so far, index or key, and value",
        reduce,
    ),
    converter(
        "When",
        &[needs("condition", Takes::Lambda(0)), needs("true_value", Takes::Any), needs("false_value", Takes::Any)],
        "any",
        "One value if a lambda holds, and another if not",
        |args| args.value(if args.holds(0, &[])? { 1 } else { 2 }),
    ),
];

type Converted<'a> = Result<Value<'a>, EvalError>;

/// Indices or keys, and values.
fn entries<'a>(args: &Args<'_, 'a>) -> Result<Vec<(Value<'a>, Value<'a>)>, EvalError> {
    Ok(match args.value(0)? {
        Value::List(list) => (0..).zip(list.into_owned()).map(|(at, value)| (Value::Int(at), value)).collect(),
        Value::Map(map) => {
            map.into_owned().into_entries().into_iter().map(|(key, value)| (Value::text(key), value)).collect()
        }
        other => return Err(EvalError::new(format!("source must be a list or map, not {}", other.kind()))),
    })
}

/// `entries` as what they were taken from.
fn like(args: &Args<'_, '_>, entries: Vec<(Value<'_>, Value<'_>)>) -> Result<Value<'static>, EvalError> {
    if matches!(args.value(0)?, Value::List(_)) {
        return Ok(Value::list(entries.into_iter().map(|(_, value)| value.into_owned()).collect()));
    }
    let mut map = Map::new();
    for (key, value) in entries {
        if let Value::Text(key) = key {
            map.push(key, value.into_owned());
        }
    }
    Ok(Value::map(map))
}

fn filter<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let mut kept = Vec::new();
    for (key, value) in entries(args)? {
        if args.holds(1, &[key.borrowed(), value.borrowed()])? {
            kept.push((key, value));
        }
    }
    like(args, kept)
}

fn find<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    for (key, value) in entries(args)? {
        if args.holds(1, &[key.borrowed(), value.borrowed()])? {
            return if args.given(2) { args.lambda(2, &[key, value]) } else { Ok(value) };
        }
    }
    Ok(Value::Nil)
}

fn map_each<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let mut made = Vec::new();
    for (key, value) in entries(args)? {
        let new = args.lambda(1, &[key.borrowed(), value])?;
        new.storable()?;
        made.push((key, new));
    }
    like(args, made)
}

fn map_keys<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    args.map(0)?;
    let mut map = Map::new();
    for (key, value) in entries(args)? {
        match args.lambda(1, &[key, value.borrowed()])? {
            Value::Text(key) => map.insert(key, value.into_owned()),
            other => return Err(EvalError::new(format!("the lambda must return a string, not {}", other.kind()))),
        }
    }
    Ok(Value::map(map))
}

fn reduce<'a>(args: &Args<'_, 'a>) -> Converted<'a> {
    let entries = entries(args)?;
    let mut made = args.value(1)?.into_owned();
    for (key, value) in entries {
        made = args.lambda(2, &[made, key, value])?;
    }
    Ok(made)
}
