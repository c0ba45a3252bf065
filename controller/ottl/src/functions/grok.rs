//! `ExtractGrokPatterns`: regular expressions made of named ones.

use std::{collections::HashMap, sync::OnceLock};

use regex::Regex;

use super::{Args, Function, Literals, Prepared, Takes, converter, may, needs, types};
use crate::{
    error::EvalError,
    pattern,
    value::{Map, Value},
};

pub(super) const ALL: &[Function] = &[converter(
    "ExtractGrokPatterns",
    &[
        needs("target", Takes::Text),
        needs("pattern", Takes::Text),
        may("named_captures_only", Takes::LiteralBool),
        may("pattern_definitions", Takes::LiteralTexts),
    ],
    "map",
    "What a pattern such as `%{IP:client} %{NUMBER:bytes:int}` matches; definitions are `NAME=expression`",
    extract,
)
.prepared(prepare)];

/// The most bytes that a pattern grows to.
const MAX_EXPANDED: usize = 64 * 1024;
/// Stands for a point in the name of a group.
const POINT: &str = "___";

/// A pattern, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Grok {
    regex: Regex,
    /// What the text of a group is converted to.
    kinds: HashMap<String, String>,
}

fn known() -> &'static HashMap<&'static str, &'static str> {
    static KNOWN: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        include_str!("grok-patterns.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(' '))
            .collect()
    })
}

fn reference() -> &'static Regex {
    static REFERENCE: OnceLock<Regex> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        Regex::new(r"%\{([0-9A-Za-z_]+)(?::([0-9A-Za-z_+.]+)(?::([0-9A-Za-z_]+))?)?\}")
            .unwrap_or_else(|error| unreachable!("a constant: {error}"))
    })
}

impl Grok {
    fn new(
        text: &str,
        named_only: bool,
        own: &HashMap<String, String>,
        compile: impl FnOnce(&str, usize) -> Result<Regex, String>,
    ) -> Result<Self, String> {
        let mut kinds = HashMap::new();
        let mut expanded = text.to_owned();
        for _ in 0..100 {
            let mut unknown = None;
            let next = reference().replace_all(&expanded, |found: &regex::Captures<'_>| {
                let name = found.get(1).map_or("", |name| name.as_str());
                let Some(expression) = own.get(name).map(String::as_str).or_else(|| known().get(name).copied()) else {
                    unknown = Some(name.to_owned());
                    return String::new();
                };
                let target = found.get(2).map_or_else(|| name.to_owned(), |target| target.as_str().replace('.', POINT));
                if let Some(kind) = found.get(3) {
                    kinds.insert(target.clone(), kind.as_str().to_owned());
                }
                if named_only && found.get(2).is_none() {
                    format!("({expression})")
                } else {
                    format!("(?P<{target}>{expression})")
                }
            });
            let done = matches!(next, std::borrow::Cow::Borrowed(_));
            expanded = next.into_owned();
            if let Some(name) = unknown {
                return Err(format!("there is no pattern {name}"));
            }
            if expanded.len() > MAX_EXPANDED {
                return Err(format!("the pattern grows to more than {MAX_EXPANDED} bytes"));
            }
            if done {
                break;
            }
        }
        let regex = compile(&expanded, MAX_EXPANDED)?;
        if named_only && regex.capture_names().flatten().next().is_none() {
            return Err("the pattern needs a group with a name".to_owned());
        }
        Ok(Self { regex, kinds })
    }

    fn extract(&self, text: &str) -> Result<Map, EvalError> {
        let mut map = Map::new();
        let Some(captures) = self.regex.captures(text) else { return Ok(map) };
        for (name, found) in self.regex.capture_names().zip(captures.iter()) {
            let (Some(name), Some(found)) = (name, found.filter(|found| !found.is_empty())) else { continue };
            map.insert(name.replace(POINT, "."), self.convert(name, found.as_str())?);
        }
        Ok(map)
    }

    fn convert(&self, name: &str, text: &str) -> Result<Value<'static>, EvalError> {
        let Some(kind) = self.kinds.get(name) else { return Ok(Value::text(text)) };
        let value = match kind.as_str() {
            "string" => Some(Value::text(text)),
            "double" | "float" => types::float(text).map(Value::Float),
            "int" | "long" => types::decimal(text).map(Value::Int),
            "bool" | "boolean" => types::boolean(text).map(Value::Bool),
            _ => {
                return Err(EvalError::new(format!(
                    "{kind:?} is no kind of a group: string, double, float, int, long, bool, boolean"
                )));
            }
        };
        value.ok_or_else(|| EvalError::new(format!("{text:?} of {name} is no {kind}")))
    }
}

fn definition(text: &str) -> Result<(String, String), String> {
    let (name, expression) = text.split_once('=').ok_or_else(|| format!("{text:?} is no `NAME=expression`"))?;
    if name.contains(':') {
        return Err(format!("the name {name:?} has a colon"));
    }
    Ok((name.to_owned(), expression.to_owned()))
}

fn prepare(literals: &Literals<'_>) -> Result<Prepared, (usize, String)> {
    let mut own = HashMap::new();
    for value in literals.list(3).unwrap_or_default() {
        if let Value::Text(text) = value {
            own.extend([definition(text).map_err(|message| (3, message))?]);
        }
    }
    let named_only = matches!(literals.get(2), Some(Value::Bool(true)));
    let prepared = match literals.text(1) {
        Some(text) => {
            let compile = |text: &str, most| literals.patterns.compile(text, most);
            Grok::new(text, named_only, &own, compile).map(|grok| Prepared::Grok(Box::new(grok)))
        }
        None => literals.patterns.reserve().map(|()| Prepared::Nothing),
    };
    prepared.map_err(|message| (1, message))
}

fn extract<'a>(args: &Args<'_, 'a>) -> Result<Value<'a>, EvalError> {
    if let Prepared::Grok(grok) = args.prepared {
        return grok.extract(&args.text(0)?).map(Value::map);
    }
    let own = if args.given(3) { args.texts(3)? } else { Vec::new() };
    let own = own.iter().map(|text| definition(text)).collect::<Result<_, _>>().map_err(EvalError::new)?;
    let grok = Grok::new(&args.text(1)?, args.bool_or(2, false)?, &own, pattern::made).map_err(EvalError::new)?;
    grok.extract(&args.text(0)?).map(Value::map)
}
