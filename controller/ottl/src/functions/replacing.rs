//! Editors that replace text.

use super::{
    Args, Function, Literals, Parameter, Prepared, Takes, editor,
    editors::{edited, regex, regex_of, regex_second},
    may, needs,
};
use crate::{
    error::EvalError,
    glob::Glob,
    pattern::{expand, replace},
    sprintf::sprintf,
    value::{Map, Value},
};

const FUNCTION: Parameter = may("function", Takes::Function);
const FORMAT: Parameter = may("replacement_format", Takes::Text);

pub(super) const ALL: &[Function] = &[
    editor(
        "replace_pattern",
        &[needs("target", Takes::Target), needs("regex_pattern", Takes::Text), needs("replacement", Takes::Text), FUNCTION, FORMAT],
        "Replaces what a regular expression matches of a text; `$1`, `$name` are its groups, `$0` the match. A converter is given the replacement, as in `SHA256` of `\"$0\"`, and a format with one `%s` its result",
        replace_pattern,
    )
    .prepared(regex_second),
    editor(
        "replace_all_patterns",
        &[
            needs("target", Takes::MapTarget),
            needs("mode", Takes::LiteralText),
            needs("regex_pattern", Takes::Text),
            needs("replacement", Takes::Text),
            FUNCTION,
            FORMAT,
        ],
        "The same for all keys (mode `key`) or all texts (mode `value`) of a map",
        replace_all_patterns,
    )
    .prepared(mode_is_one),
    editor(
        "replace_match",
        &[needs("target", Takes::Target), needs("pattern", Takes::Text), needs("replacement", Takes::Text), FUNCTION, FORMAT],
        "Replaces a text that a pattern with `*`, `?`, `[a-z]`, `{one,other}` matches as a whole; a converter is given the replacement",
        replace_match,
    )
    .prepared(glob_second),
    editor(
        "replace_all_matches",
        &[needs("target", Takes::MapTarget), needs("pattern", Takes::Text), needs("replacement", Takes::Text), FUNCTION, FORMAT],
        "The same for all texts of a map",
        replace_all_matches,
    )
    .prepared(glob_second),
];

type Edited = Result<Option<Value<'static>>, EvalError>;

fn mode_is_one(literals: &Literals<'_>) -> Result<Prepared, (usize, String)> {
    let prepared = regex_of(literals, 2)?;
    match literals.text(1) {
        Some("key" | "value") => Ok(prepared),
        other => Err((1, format!("a mode is key or value, not {:?}", other.unwrap_or_default()))),
    }
}

fn glob_second(literals: &Literals<'_>) -> Result<Prepared, (usize, String)> {
    match literals.text(1) {
        Some(pattern) => Glob::new(pattern).map(Prepared::Glob).map_err(|message| (1, message)),
        None => Ok(Prepared::Nothing),
    }
}

/// The result of the converter at `function` for `input`, in the format behind it.
fn converted(args: &Args<'_, '_>, function: usize, input: &str) -> Result<String, EvalError> {
    let result = match args.function(function, input)? {
        Value::Text(text) => text.into_owned(),
        other => return Err(EvalError::new(format!("the replacement must be a string, not {}", other.kind()))),
    };
    if !args.given(function + 1) {
        return Ok(result);
    }
    let format = args.text(function + 1)?;
    let line = !format.contains('\n');
    let verbs = format.matches("%s").count();
    let others = format.as_bytes().windows(2).any(|pair| pair[0] == b'%' && pair[1] != b's');
    if !line || verbs == 0 || others {
        return Err(EvalError::new("replacement_format must have one %s and no other verb"));
    }
    sprintf(&format, &[Value::text(result)])
}

/// `text` with what `regex` matches replaced, or nothing if it does not match.
fn replaced(
    args: &Args<'_, '_>,
    regex: &regex::Regex,
    text: &str,
    replacement: &str,
    function: usize,
) -> Result<Option<String>, EvalError> {
    if !regex.is_match(text) {
        return Ok(None);
    }
    let mut length = 0;
    replace(regex, text, |captures| {
        let mut expanded = String::new();
        expand(&mut expanded, replacement, regex, captures);
        length += expanded.len();
        if length > crate::MAX_TEXT {
            return Err(EvalError::new(format!("a text of more than {} bytes", crate::MAX_TEXT)));
        }
        if args.given(function) { converted(args, function, &expanded) } else { Ok(expanded) }
    })
    .map(Some)
}

fn replace_pattern(args: &Args<'_, '_>) -> Edited {
    let target = args.value(0)?;
    if matches!(target, Value::Nil) {
        return Ok(None);
    }
    let replacement = args.text(2)?;
    let Value::Text(text) = target else { return Ok(None) };
    let regex = regex(args, 1)?;
    Ok(replaced(args, &regex, &text, &replacement, 3)?.map(Value::text))
}

fn replace_all_patterns(args: &Args<'_, '_>) -> Edited {
    let mut map = args.map(0)?.into_owned();
    let replacement = args.text(3)?;
    let regex = regex(args, 2)?;
    if args.text(1)? == "key" {
        let mut renamed = Map::new();
        for (key, value) in map.into_entries() {
            // A key whose replacement fails goes, and so does its value.
            match replaced(args, &regex, &key, &replacement, 4) {
                Ok(None) => renamed.insert(key, value),
                Ok(Some(key)) => renamed.insert(key, value),
                Err(_) => {}
            }
        }
        return edited(renamed);
    }
    for (_, value) in map.iter_mut() {
        let Value::Text(text) = value else { continue };
        match replaced(args, &regex, text, &replacement, 4) {
            Ok(None) => {}
            Ok(Some(text)) => *value = Value::text(text),
            // A value whose replacement fails stays.
            Err(_) if args.given(4) => {}
            Err(error) => return Err(error),
        }
    }
    edited(map)
}

/// The replacement of a whole text.
fn whole(args: &Args<'_, '_>) -> Result<String, EvalError> {
    let replacement = args.text(2)?;
    if args.given(3) { converted(args, 3, &replacement) } else { Ok(replacement.into_owned()) }
}

fn glob(args: &Args<'_, '_>) -> Result<Glob, EvalError> {
    match args.prepared {
        Prepared::Glob(glob) => Ok(glob.clone()),
        _ => Glob::new(&args.text(1)?).map_err(EvalError::new),
    }
}

fn replace_match(args: &Args<'_, '_>) -> Edited {
    let glob = glob(args)?;
    let target = args.value(0)?;
    let replacement = whole(args)?;
    match target {
        Value::Text(text) if glob.matches(&text) => Ok(Some(Value::text(replacement))),
        _ => Ok(None),
    }
}

fn replace_all_matches(args: &Args<'_, '_>) -> Edited {
    let glob = glob(args)?;
    let mut map = args.map(0)?.into_owned();
    let replacement = whole(args)?;
    for (_, value) in map.iter_mut() {
        if matches!(value, Value::Text(text) if glob.matches(text)) {
            *value = Value::text(replacement.as_str());
        }
    }
    edited(map)
}
