//! The effective configuration, with where each value came from.

use std::fmt::Write;

use super::entry::{Content, Entry, Shown};
use super::origin::Origin;

/// YAML that, where it holds no secrets and substitutions, means the same as what it describes.
pub(super) fn describe(entries: &[Entry]) -> String {
    let mut text = String::new();
    section(&mut text, entries, &[], 0);
    text
}

fn section(text: &mut String, entries: &[Entry], alternatives: &[&str], indent: usize) {
    let pad = " ".repeat(indent);
    for Entry { key, content, .. } in entries {
        match content {
            Content::Scalar { value: Some(shown), .. } => {
                line(text, &format!("{pad}{key}: {}", scalar(shown)), &shown.origin)
            }
            Content::Scalar { value: None, .. } => comment(text, &format!("{pad}# {key}: not set")),
            Content::List { values, origin, .. } => {
                let items: Vec<String> = values.iter().map(scalar).collect();
                line(text, &format!("{pad}{key}: [{}]", items.join(", ")), origin);
            }
            Content::Map { values, .. } if values.is_empty() => {
                line(text, &format!("{pad}{key}: {{}}"), &Origin::Default)
            }
            Content::Map { values, .. } => {
                comment(text, &format!("{pad}{key}:"));
                for (name, shown) in values {
                    line(text, &format!("{pad}  {}: {}", plain(name), scalar(shown)), &shown.origin);
                }
            }
            // Where another one was chosen, this one could not be set.
            Content::Section { present: false, .. } if alternatives.contains(key) => {}
            Content::Section { present: false, .. } => comment(text, &format!("{pad}# {key}: not set")),
            Content::Section { entries, exactly_one, .. } => {
                comment(text, &format!("{pad}{key}:"));
                section(text, entries, exactly_one, indent + 2);
            }
            Content::Sections { items, .. } if items.is_empty() => {
                line(text, &format!("{pad}{key}: []"), &Origin::Default)
            }
            Content::Sections { items, exactly_one, .. } => {
                comment(text, &format!("{pad}{key}:"));
                for entries in items {
                    let begin = text.len();
                    section(text, entries, exactly_one, indent + 2);
                    if text.get(begin + indent..begin + indent + 2).is_some() {
                        text.replace_range(begin + indent..begin + indent + 2, "- ");
                    }
                }
            }
        }
    }
}

// Writing to a String does not fail.
fn comment(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}");
}

fn line(text: &mut String, line: &str, origin: &Origin) {
    let origin = origin.to_string().escape_debug().to_string();
    let _ = writeln!(text, "{line}  # {origin}");
}

fn scalar(shown: &Shown) -> String {
    plain(&shown.text)
}

/// The text as it is, or in quotes where it would mean something else.
fn plain(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_./%+@-:".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    let word = matches!(text.to_ascii_lowercase().as_str(), "null" | "~");
    if begins && !word && text.chars().all(harmless) && !text.ends_with(':') {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

/// The origin of the value at `path`.
pub(super) fn origin<'a>(entries: &'a [Entry], path: &str) -> Option<&'a Origin> {
    entries.iter().find_map(|Entry { key, content, .. }| {
        let rest = path.strip_prefix(key)?;
        match content {
            Content::Scalar { value, .. } if rest.is_empty() => value.as_ref().map(|shown| &shown.origin),
            Content::List { origin, .. } if rest.is_empty() => Some(origin),
            Content::Map { values, .. } => {
                let member = rest.strip_prefix('.')?;
                values.iter().find(|(name, _)| name == member).map(|(_, shown)| &shown.origin)
            }
            Content::Section { entries, .. } => origin(entries, rest.strip_prefix('.')?),
            Content::Sections { items, .. } => {
                let (index, rest) = rest.strip_prefix('[')?.split_once("].")?;
                origin(items.get(index.parse::<usize>().ok()?)?, rest)
            }
            _ => None,
        }
    })
}
