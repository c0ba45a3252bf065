//! Editors of values, lists and maps.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Args, Function, Literals, Prepared, Takes, editor, may, needs};
use crate::{
    error::EvalError,
    pattern::{self, MAX_LENGTH},
    text::attribute,
    time::Time,
    value::{Map, Value},
};

pub(super) const ALL: &[Function] = &[
    editor("set", &[needs("target", Takes::Target), needs("value", Takes::Any)], "Sets the target; nil empties it, or is an error where it cannot be empty", set),
    editor("clear", &[needs("target", Takes::Target)], "Empties the target: a map or list of what it has, text to none, a number to 0", clear),
    editor(
        "append",
        &[needs("target", Takes::Target), may("value", Takes::Any), may("values", Takes::Values)],
        "Adds to a list; what is no list becomes the first of one. Needs `value` or `values`",
        append,
    )
    .prepared(append_something),
    editor(
        "delete_index",
        &[needs("target", Takes::ListTarget), needs("start_index", Takes::Int), may("end_index", Takes::Int)],
        "Takes the value at an index out of a list, or those up to, and not at, an end",
        delete_index,
    ),
    editor("delete_key", &[needs("target", Takes::MapTarget), needs("key", Takes::Text)], "Takes a key out of a map", delete_key),
    editor(
        "delete_matching_keys",
        &[needs("target", Takes::MapTarget), needs("pattern", Takes::Text)],
        "Takes the keys out of a map that a regular expression matches",
        delete_matching_keys,
    )
    .prepared(regex_second),
    editor("keep_keys", &[needs("target", Takes::MapTarget), needs("keys", Takes::Texts)], "Keeps of a map these keys alone", keep_keys),
    editor(
        "keep_matching_keys",
        &[needs("target", Takes::MapTarget), needs("pattern", Takes::Text)],
        "Keeps of a map the keys alone that a regular expression matches",
        keep_matching_keys,
    )
    .prepared(regex_second),
    editor(
        "limit",
        &[needs("target", Takes::MapTarget), needs("limit", Takes::LiteralInt), needs("priority_keys", Takes::LiteralTexts)],
        "Keeps of a map so many entries: those with priority, and of the others the first",
        limit,
    )
    .prepared(limit_fits),
    editor(
        "merge_maps",
        &[needs("target", Takes::MapTarget), needs("source", Takes::Map), needs("strategy", Takes::LiteralText)],
        "Puts a map's entries into another: `insert` those whose keys are new, `update` those whose keys are there, `upsert` all",
        merge_maps,
    )
    .prepared(strategy_is_one),
    editor(
        "flatten",
        &[
            needs("target", Takes::MapTarget),
            may("prefix", Takes::LiteralText),
            may("depth", Takes::LiteralInt),
            may("resolve_conflicts", Takes::LiteralBool),
        ],
        "Brings what is nested up, under keys with points between them; keys that meet are numbered, or the last counts",
        flatten,
    )
    .prepared(depth_is_positive),
    editor("stringify_all", &[needs("target", Takes::MapTarget)], "Makes text of a map's values", stringify_all),
    editor(
        "truncate_all",
        &[
            needs("target", Takes::MapTarget),
            needs("limit", Takes::LiteralInt),
            may("utf8_safe", Takes::LiteralBool),
            may("truncation_marker", Takes::LiteralText),
        ],
        "Cuts the texts of a map to so many bytes, between characters unless `utf8_safe` is false; the marker stands at the cut",
        truncate_all,
    )
    .prepared(marker_fits),
];

type Edited = Result<Option<Value<'static>>, EvalError>;
type Prepare = Result<Prepared, (usize, String)>;

/// A map as a target's new value.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn edited(map: Map) -> Edited {
    Ok(Some(Value::map(map)))
}

/// The regular expression of argument `at`, if it is literal; if not, there is room for it.
pub(super) fn regex_of(literals: &Literals<'_>, at: usize) -> Prepare {
    let prepared = match literals.text(at) {
        Some(text) => literals.patterns.compile(text, MAX_LENGTH).map(Prepared::Regex),
        None => literals.patterns.reserve().map(|()| Prepared::Nothing),
    };
    prepared.map_err(|message| (at, message))
}

pub(super) fn regex_second(literals: &Literals<'_>) -> Prepare {
    regex_of(literals, 1)
}

/// The regular expression that was prepared, or is compiled now. A copy of one has nothing of what it remembers of searches, and makes it anew: that
/// takes longer than to search a text.
pub(super) fn regex<'a>(args: &Args<'_, 'a>, at: usize) -> Result<Cow<'a, regex::Regex>, EvalError> {
    match args.prepared {
        Prepared::Regex(regex) => Ok(Cow::Borrowed(regex)),
        _ => pattern::made(&args.text(at)?, MAX_LENGTH).map(Cow::Owned).map_err(EvalError::new),
    }
}

fn set(args: &Args<'_, '_>) -> Edited {
    let value = args.value(1)?;
    if matches!((args.prepared, &value), (Prepared::SkipNil, Value::Nil)) {
        return Ok(None);
    }
    Ok(Some(value.into_owned()))
}

fn clear(args: &Args<'_, '_>) -> Edited {
    Ok(Some(match args.value(0)? {
        Value::Nil => Value::Nil,
        Value::Bool(_) => Value::Bool(false),
        Value::Int(_) => Value::Int(0),
        Value::Float(_) => Value::Float(0.0),
        Value::Text(_) => Value::Text("".into()),
        Value::Bytes(_) => Value::Bytes(Vec::new().into()),
        Value::List(_) => Value::list(Vec::new()),
        Value::Map(_) => Value::map(Map::new()),
        Value::Time(_) => Value::Time(Time::from_nanos(0)),
        Value::Duration(_) => Value::Duration(0),
        other @ (Value::Id(_) | Value::Opaque(_)) => {
            return Err(EvalError::new(format!("{} cannot be empty", other.kind())));
        }
    }))
}

fn append_something(literals: &Literals<'_>) -> Prepare {
    if literals.absent(1) && literals.absent(2) {
        return Err((0, "`value` or `values` must be given".to_owned()));
    }
    Ok(Prepared::Nothing)
}

fn append(args: &Args<'_, '_>) -> Edited {
    let mut list = match args.value(0)? {
        Value::Nil => Vec::new(),
        Value::List(list) => list.into_owned(),
        other => vec![other.into_owned()],
    };
    if args.given(1) {
        list.push(args.value(1)?.into_owned());
    }
    if args.given(2) {
        list.extend(args.items(2)?.into_iter().map(Value::into_owned));
    }
    Ok(Some(Value::list(list)))
}

fn delete_index(args: &Args<'_, '_>) -> Edited {
    let mut list = args.list(0)?.into_owned();
    let start = args.int(1)?;
    let end = if args.given(2) { args.int(2)? } else { start.saturating_add(1) };
    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
    if start == 0 && end == length {
        return Ok(Some(Value::list(Vec::new())));
    }
    if start < 0 || start >= length || end < start || end > length {
        return Err(EvalError::new(format!("indices {start} to {end} are out of bounds of a list of {length}")));
    }
    let bound = |index| usize::try_from(index).unwrap_or_default();
    list.drain(bound(start)..bound(end));
    Ok(Some(Value::list(list)))
}

fn delete_key(args: &Args<'_, '_>) -> Edited {
    let mut map = args.map(0)?.into_owned();
    map.remove(&args.text(1)?);
    edited(map)
}

fn delete_matching_keys(args: &Args<'_, '_>) -> Edited {
    let regex = regex(args, 1)?;
    let mut map = args.map(0)?.into_owned();
    map.retain(|key, _| !regex.is_match(key));
    edited(map)
}

fn keep_matching_keys(args: &Args<'_, '_>) -> Edited {
    let regex = regex(args, 1)?;
    let mut map = args.map(0)?.into_owned();
    map.retain(|key, _| regex.is_match(key));
    edited(map)
}

fn keep_keys(args: &Args<'_, '_>) -> Edited {
    let mut map = args.map(0)?.into_owned();
    let keys = args.texts(1)?;
    map.retain(|key, _| keys.iter().any(|kept| kept == key));
    edited(map)
}

fn limit_fits(literals: &Literals<'_>) -> Prepare {
    let limit = literals.int(1).unwrap_or_default();
    let priority = literals.list(2).map_or(0, |keys| keys.len());
    match usize::try_from(limit) {
        Err(_) => Err((1, format!("a limit cannot be {limit}"))),
        Ok(limit) if limit < priority => {
            Err((1, format!("a limit of {limit} leaves no room for {priority} keys with priority")))
        }
        Ok(_) => Ok(Prepared::Nothing),
    }
}

fn limit(args: &Args<'_, '_>) -> Edited {
    let map = args.map(0)?;
    let limit = usize::try_from(args.int(1)?).unwrap_or_default();
    if map.len() <= limit {
        return Ok(None);
    }
    let mut map = map.into_owned();
    let priority = args.texts(2)?;
    let mut kept = priority.iter().filter(|key| map.get(key).is_some()).count();
    map.retain(|key, _| {
        if priority.iter().any(|known| known == key) {
            return true;
        }
        kept += 1;
        kept <= limit
    });
    edited(map)
}

fn strategy_is_one(literals: &Literals<'_>) -> Prepare {
    match literals.text(2) {
        Some("insert" | "update" | "upsert") => Ok(Prepared::Nothing),
        other => Err((2, format!("a strategy is insert, update or upsert, not {:?}", other.unwrap_or_default()))),
    }
}

fn merge_maps(args: &Args<'_, '_>) -> Edited {
    let mut map = args.map(0)?.into_owned();
    let source = args.map(1)?;
    let strategy = args.text(2)?;
    for (key, value) in source.iter() {
        let there = map.get(key).is_some();
        if match &*strategy {
            "insert" => !there,
            "update" => there,
            _ => true,
        } {
            *map.entry(key) = value.clone();
        }
    }
    edited(map)
}

fn depth_is_positive(literals: &Literals<'_>) -> Prepare {
    match literals.int(2) {
        Some(depth) if depth < 1 => Err((2, format!("a depth is at least 1, not {depth}"))),
        _ => Ok(Prepared::Nothing),
    }
}

/// A map that is flattened.
struct Flat {
    map: Map,
    /// How often a key was met again.
    met: HashMap<String, usize>,
    number: bool,
    depth: i64,
}

impl Flat {
    fn put(&mut self, key: String, value: &Value<'static>) {
        if !self.number {
            self.map.insert(key, value.clone());
        } else if self.map.get(&key).is_some() {
            let times = self.met.entry(key.clone()).or_default();
            let numbered = format!("{key}.{times}");
            *times += 1;
            self.map.insert(numbered, value.clone());
        } else {
            self.met.insert(key.clone(), 0);
            self.map.insert(key, value.clone());
        }
    }

    fn map(&mut self, map: &Map, prefix: &str, depth: i64) {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        for (key, value) in map.iter() {
            self.value(key, value, &prefix, depth);
        }
    }

    fn value(&mut self, key: &str, value: &Value<'static>, prefix: &str, depth: i64) {
        let full = format!("{prefix}{key}");
        match value {
            Value::Map(map) if depth < self.depth => self.map(map, &full, depth + 1),
            Value::List(list) if depth < self.depth => {
                for (at, value) in list.iter().enumerate() {
                    match value {
                        Value::Map(map) if depth + 1 < self.depth => self.map(map, &format!("{full}.{at}"), depth + 2),
                        // There is no point between the indices of lists in lists.
                        Value::List(list) if depth + 1 < self.depth => {
                            for (inner, value) in list.iter().enumerate() {
                                self.value(&inner.to_string(), value, &format!("{full}.{at}"), depth + 3);
                            }
                        }
                        _ if self.number => self.put(full.clone(), value),
                        _ => self.map.insert(format!("{full}.{at}"), value.clone()),
                    }
                }
            }
            _ => self.put(full, value),
        }
    }
}

fn flatten(args: &Args<'_, '_>) -> Edited {
    let map = args.map(0)?;
    let prefix = args.text_or(1, "")?;
    let depth = if args.given(2) { args.int(2)? } else { i64::MAX - 8 };
    let mut flat = Flat { map: Map::new(), met: HashMap::new(), number: args.bool_or(3, false)?, depth };
    flat.map(&map, &prefix, 0);
    edited(flat.map)
}

fn stringify_all(args: &Args<'_, '_>) -> Edited {
    let mut map = args.map(0)?.into_owned();
    for (_, value) in map.iter_mut() {
        if !matches!(value, Value::Text(_)) {
            *value = Value::text(attribute(value));
        }
    }
    edited(map)
}

fn marker_fits(literals: &Literals<'_>) -> Prepare {
    let limit = literals.int(1).unwrap_or_default();
    let marker = literals.text(3).unwrap_or_default();
    match usize::try_from(limit) {
        Err(_) => Err((1, format!("a limit cannot be {limit}"))),
        Ok(limit) if marker.len() > limit => {
            Err((3, format!("a marker of {} bytes does not fit into {limit}", marker.len())))
        }
        Ok(_) => Ok(Prepared::Nothing),
    }
}

fn truncate_all(args: &Args<'_, '_>) -> Edited {
    let mut map = args.map(0)?.into_owned();
    let limit = usize::try_from(args.int(1)?).unwrap_or_default();
    let safe = args.bool_or(2, true)?;
    let marker = args.text_or(3, "")?;
    for (_, value) in map.iter_mut() {
        let Value::Text(text) = value else { continue };
        if text.len() <= limit {
            continue;
        }
        let mut cut = limit.saturating_sub(marker.len());
        while safe && !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut kept = String::from_utf8_lossy(text.as_bytes().get(..cut).unwrap_or_default()).into_owned();
        kept.push_str(&marker);
        *value = Value::text(kept);
    }
    edited(map)
}
