//! The keys for other readers: a JSON Schema for editors and checks, and the reference for people.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use super::entry::{About, Content, Entry};
use super::kind::Items;

/// JSON Schema (2020-12) of the file.
#[must_use]
pub fn schema() -> Json {
    let mut schema = object(&super::blank(), &[]);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        schema.insert("title".to_owned(), json!("Configuration of `profiler agent`"));
        let put_in = json!({ "type": "string", "pattern": r"\$\{(env|file):" });
        schema.insert("$defs".to_owned(), json!({ "put_in": put_in }));
    }
    schema
}

fn object(entries: &[Entry], exactly_one: &[&str]) -> Json {
    let properties: Map<String, Json> = entries.iter().map(|entry| (entry.key.to_owned(), property(entry))).collect();
    let required: Vec<&str> = entries.iter().filter(|entry| entry.required).map(|entry| entry.key).collect();
    let mut object = json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false });
    if let Some(object) = object.as_object_mut() {
        if !required.is_empty() {
            object.insert("required".to_owned(), json!(required));
            // Nothing cannot have what is required.
            object.insert("type".to_owned(), json!("object"));
        }
        if !exactly_one.is_empty() {
            let alternatives: Vec<Json> = exactly_one.iter().map(|key| json!({ "required": [key] })).collect();
            object.insert("oneOf".to_owned(), json!(alternatives));
            object.insert("type".to_owned(), json!("object"));
        }
    }
    object
}

fn property(entry: &Entry) -> Json {
    let mut property = match &entry.content {
        Content::Scalar { about, default, .. } => {
            let mut property = scalar(about);
            if let (Some(default), Some(property)) = (default, property.as_object_mut()) {
                property.insert("default".to_owned(), typed(&about.schema, default));
            }
            property
        }
        Content::List { about, default, .. } => {
            json!({ "type": "array", "items": scalar(about), "default": default })
        }
        Content::Map { about, .. } => {
            json!({ "type": ["object", "null"], "additionalProperties": scalar(about) })
        }
        Content::Section { entries, exactly_one, .. } => object(entries, exactly_one),
        Content::Sections { items, exactly_one, short, .. } => {
            let item = items.first().map_or_else(|| json!({}), |entries| object(entries, exactly_one));
            let alone = short.and_then(|short| {
                let list = items.first()?.iter().find(|entry| entry.key == short)?;
                let Content::List { about, .. } = &list.content else { return None };
                Some(scalar(about))
            });
            let item = match alone {
                Some(alone) => json!({ "anyOf": [alone, item] }),
                None => item,
            };
            json!({ "type": ["array", "null"], "items": item })
        }
    };
    if let Some(property) = property.as_object_mut() {
        property.insert("description".to_owned(), json!(entry.doc));
    }
    property
}

/// A value as its kind has it, or put in from elsewhere.
fn scalar(about: &About) -> Json {
    if about.schema.get("type").is_some_and(Json::is_array) {
        return about.schema.clone();
    }
    json!({ "anyOf": [about.schema, { "$ref": "#/$defs/put_in" }] })
}

/// The default as the type that the schema wants.
fn typed(schema: &Json, text: &str) -> Json {
    match schema.get("type").and_then(Json::as_str) {
        Some("integer" | "boolean") => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        _ => json!(text),
    }
}

/// The paths of all keys, as `exporters[].otlp.endpoint`.
pub(super) fn paths(entries: &[Entry]) -> Vec<String> {
    let mut paths = Vec::new();
    for Entry { key, content, .. } in entries {
        paths.push((*key).to_owned());
        let (below, join) = match content {
            Content::Section { entries, .. } => (self::paths(entries), "."),
            Content::Sections { items, .. } => {
                (items.first().map(|entries| self::paths(entries)).unwrap_or_default(), "[].")
            }
            _ => continue,
        };
        paths.extend(below.into_iter().map(|path| format!("{key}{join}{path}")));
    }
    paths
}

/// The reference of all keys as Markdown: one table a section.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    tables(&mut text, "", "", &super::blank());
    text
}

fn tables(text: &mut String, path: &str, doc: &str, entries: &[Entry]) {
    // Writing to a String does not fail.
    if !path.is_empty() {
        let _ = write!(text, "### `{path}`\n\n{doc}.\n\n");
    }
    let variables = entries.iter().any(|entry| variable(entry).is_some());
    let (head, rule) = if variables { (" Variable |", "---|") } else { ("", "") };
    let _ = writeln!(text, "| Key | Value | Default |{head} Meaning |\n|---|---|---|{rule}---|");
    for entry in entries {
        let key = entry.key;
        let (what, default) = match &entry.content {
            Content::Scalar { about, default, .. } => {
                let missing = if entry.required { "**required**" } else { "" };
                (
                    about.what.clone(),
                    default.as_ref().map_or_else(|| missing.to_owned(), |default| format!("`{default}`")),
                )
            }
            Content::List { about, default, .. } => {
                (format!("list of: {}", about.what), format!("`[{}]`", default.join(", ")))
            }
            Content::Map { about, .. } => (format!("names with values: {}", about.what), "`{}`".to_owned()),
            Content::Section { .. } => ("[keys](#".to_owned() + &anchor(path, key, "") + ")", String::new()),
            Content::Sections { short, .. } => {
                let keys = format!("[keys](#{})", anchor(path, key, "[]"));
                let what = match short {
                    Some(short) => format!("list of texts, each as one of `{short}`, or of {keys}"),
                    None => format!("list of {keys}"),
                };
                (what, String::new())
            }
        };
        let variable = match (variables, variable(entry)) {
            (false, _) => String::new(),
            (true, None) => " |".to_owned(),
            (true, Some(variable)) => format!(" `{variable}` |"),
        };
        let remote = match remote(entry) {
            "" => String::new(),
            words => format!(". Remote: {words}"),
        };
        let doc = format!("{}{remote}", entry.doc).replace('|', "\\|");
        let row = format!("{} | {} |{variable} {doc}", what.replace('|', "\\|"), default);
        let _ = writeln!(text, "| `{key}` | {row} |");
    }
    text.push('\n');
    for Entry { key, doc, content, .. } in entries {
        let below = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
        match content {
            Content::Section { entries, .. } => tables(text, &below, doc, entries),
            Content::Sections { items, .. } => {
                for entries in items {
                    tables(text, &format!("{below}[]"), doc, entries);
                }
            }
            _ => {}
        }
    }
}

fn variable(entry: &Entry) -> Option<&str> {
    match &entry.content {
        Content::Scalar { about, .. } | Content::List { about, .. } | Content::Map { about, .. } => {
            about.variable.as_deref()
        }
        _ => None,
    }
}

/// What a remote configuration may make of it.
pub(super) fn remote(entry: &Entry) -> &'static str {
    match &entry.content {
        Content::Scalar { about, .. } | Content::List { about, .. } | Content::Map { about, .. } => about.remote,
        Content::Sections { remote: Items::Add, .. } => "further ones",
        _ => "",
    }
}

/// The anchor that Markdown makes of the heading of a section.
fn anchor(path: &str, key: &str, suffix: &str) -> String {
    format!("{path}{key}{suffix}").chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}
