//! Reads keys from their layers: flag, environment, file, default.
//!
//! A section of the configuration is a function that asks a [`Reader`] for each of its keys, giving kind, default and
//! meaning. That one definition serves to read, to refuse unknown keys, to show the effective configuration, and to
//! write the schema and the reference.

use std::collections::BTreeMap;

use profiler_receiver::HIDDEN;

use super::entry::{About, Content, Entry, Shown};
use super::errors::{Problem, quoted};
use super::kind::Kind;
use super::layers::{Findings, Found, Sources};
use super::nearest::unknown_key;
use super::origin::Origin;
use super::substitute::substitute;
use super::yaml::{Key, Node, Place, Value};

/// The most items of one list or map: more is no configuration but an accident.
const MAX_ITEMS: usize = 1024;

/// Reads the keys of one section.
pub(super) struct Reader<'a> {
    sources: &'a Sources<'a>,
    findings: &'a mut Findings,
    items: &'a [(Key, Node)],
    place: Option<Place>,
    /// As shown: `exporters[0].otlp`.
    path: String,
    /// As flags and variables name it: `exporters.NAME.otlp`.
    name: String,
    /// Whether PROFILER_* reach here; they do not reach into lists.
    variables: bool,
    /// A key that is there although the file has it not.
    implied: Option<&'static str>,
    exactly_one: &'static [&'static str],
    entries: Vec<Entry>,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'a> Reader<'a> {
    /// The reader of the whole file; `root` is none where there is no file.
    pub(super) fn root(sources: &'a Sources<'a>, findings: &'a mut Findings, root: Option<&'a Node>) -> Self {
        let mut reader = Self {
            sources,
            findings,
            items: &[],
            place: root.map(|node| node.place),
            path: String::new(),
            name: String::new(),
            variables: true,
            implied: None,
            exactly_one: &[],
            entries: Vec::new(),
        };
        reader.items = reader.mapping(root, "");
        reader
    }

    /// Refuses keys that nobody asked for; what was read.
    pub(super) fn finish(self) -> Vec<Entry> {
        let known: Vec<&str> = self.entries.iter().map(|entry| entry.key).collect();
        for (key, _) in self.items {
            if !known.contains(&key.text.as_str()) {
                let message = unknown_key(&key.text, &known, self.sources.paths.iter().map(String::as_str));
                let origin = self.sources.origin(Some(key.place));
                self.findings.problems.push(Problem { origin, key: self.path.clone(), message });
            }
        }
        if !self.exactly_one.is_empty() && !self.sources.schema {
            let there = self.exactly_one.iter().filter(|key| self.is_present(key)).count();
            if there != 1 {
                let all = self.exactly_one.join(", ");
                let message = format!("needs exactly one of {all}; there are {there}");
                let origin = self.sources.origin(self.place);
                self.findings.problems.push(Problem { origin, key: self.path.clone(), message });
            }
        }
        self.entries
    }

    /// Reports a problem with `key`, at `origin`.
    pub(super) fn problem(&mut self, origin: Origin, key: &str, message: impl Into<String>) {
        let key = if key.is_empty() { self.path.clone() } else { join(&self.path, key) };
        self.findings.problems.push(Problem { origin, key, message: message.into() });
    }

    /// How many problems there are so far.
    pub(super) fn problems(&self) -> usize {
        self.findings.problems.len()
    }

    /// Where this section is in the file.
    pub(super) fn origin(&self) -> Origin {
        self.sources.origin(self.place)
    }

    /// Exactly one of these keys must be there.
    pub(super) fn exactly_one(&mut self, keys: &'static [&'static str]) {
        self.exactly_one = keys;
    }

    /// Regards `key`, an optional section, as there.
    pub(super) fn imply(&mut self, key: &'static str) {
        self.implied = Some(key);
    }

    /// Whether the file has this key.
    pub(super) fn is_present(&self, key: &str) -> bool {
        self.implied == Some(key) || self.node(key).is_some()
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.items.iter().find(|(there, _)| there.text == key).map(|(_, node)| node)
    }

    fn mapping(&mut self, node: Option<&'a Node>, key: &str) -> &'a [(Key, Node)] {
        match node.map(|node| (&node.value, node)) {
            None | Some((Value::Nothing, _)) => &[],
            Some((Value::Map(items), _)) => items,
            Some((_, node)) => {
                let message = format!("{} stands where keys are wanted: write key: value, indented", node.what());
                self.problem(self.sources.origin(Some(node.place)), key, message);
                &[]
            }
        }
    }

    /// The items, or none if they are too many.
    fn bounded<T>(&mut self, items: &'a [T], node: &Node, key: &str) -> &'a [T] {
        if items.len() <= MAX_ITEMS {
            return items;
        }
        self.problem(self.sources.origin(Some(node.place)), key, format!("has more than {MAX_ITEMS} items"));
        &[]
    }

    fn variable(&self, key: &str) -> Option<String> {
        self.variables.then(|| format!("PROFILER_{}", join(&self.name, key).replace('.', "_").to_uppercase()))
    }

    fn about<T>(&self, key: &str, kind: &Kind<T>) -> About {
        About { schema: kind.schema.clone(), what: kind.what.clone(), variable: self.variable(key) }
    }

    /// What stands above the file for `key`.
    fn above(&mut self, key: &str) -> Option<(String, Origin)> {
        let name = join(&self.name, key);
        if let Some(found) = self.sources.flags.texts.get(&name) {
            self.findings.used.insert(name);
            return Some(found.clone());
        }
        if let Some(variable) = self.variable(key)
            && let Some(text) = (self.sources.env)(&variable).filter(|text| !text.is_empty())
        {
            return Some((text, Origin::Environment(variable)));
        }
        self.sources.otel.texts.get(&name).cloned()
    }

    /// The text of a scalar of the file, with `${...}` put in.
    fn scalar(&mut self, node: &Node, key: &str) -> Option<Found> {
        let origin = self.sources.origin(Some(node.place));
        match &node.value {
            Value::Nothing => {
                self.problem(origin, key, "has no value: write one, or take the line away");
                None
            }
            Value::Scalar { text, .. } => match substitute(text, self.sources.env) {
                Ok(substituted) => {
                    self.findings.files.extend(substituted.files);
                    let raw = substituted.changed.then(|| text.clone());
                    Some(Found { text: substituted.text, origin, raw })
                }
                Err(message) => {
                    self.problem(origin, key, message);
                    None
                }
            },
            _ => {
                self.problem(origin, key, format!("{} stands where one value is wanted", node.what()));
                None
            }
        }
    }

    fn found(&mut self, key: &str) -> Option<Found> {
        if let Some((text, origin)) = self.above(key) {
            return Some(Found::plain(text, origin));
        }
        let node = self.node(key)?;
        self.scalar(node, key)
    }

    /// The value of `found`, and how it is shown; a problem otherwise.
    fn parsed<T>(&mut self, key: &str, kind: &Kind<T>, found: Found) -> Option<(T, Shown)> {
        match (kind.parse)(&found.text) {
            Ok(value) => {
                let text = found.raw.unwrap_or_else(|| (kind.show)(&value));
                let text = if kind.secret { HIDDEN.to_owned() } else { text };
                Some((value, Shown { text, origin: found.origin }))
            }
            Err(message) => {
                // The text may be secret then, and the message may repeat it.
                let message = match found.raw {
                    Some(raw) => format!("what {} stands for is wrong; wanted: {}", quoted(&raw), kind.what),
                    None => message,
                };
                self.problem(found.origin, key, message);
                None
            }
        }
    }

    /// A value with a default.
    pub(super) fn value<T>(&mut self, key: &'static str, kind: Kind<T>, default: T, doc: &'static str) -> T {
        self.located(key, kind, default, doc).0
    }

    /// A value with a default, and where it came from.
    pub(super) fn located<T>(
        &mut self,
        key: &'static str,
        kind: Kind<T>,
        default: T,
        doc: &'static str,
    ) -> (T, Origin) {
        let default_text = (kind.show)(&default);
        let found = self.found(key).and_then(|found| self.parsed(key, &kind, found));
        let (value, shown) =
            found.unwrap_or_else(|| (default, Shown { text: default_text.clone(), origin: Origin::Default }));
        let origin = shown.origin.clone();
        let content =
            Content::Scalar { value: Some(shown), default: Some(default_text), about: self.about(key, &kind) };
        self.entries.push(Entry { key, doc, required: false, content });
        (value, origin)
    }

    /// A value without a default, and where it came from.
    pub(super) fn optional<T>(&mut self, key: &'static str, kind: Kind<T>, doc: &'static str) -> Option<(T, Origin)> {
        self.perhaps(key, &kind, doc, false)
    }

    /// A value that must be there; a problem otherwise.
    pub(super) fn required<T>(&mut self, key: &'static str, kind: Kind<T>, doc: &'static str) -> Option<(T, Origin)> {
        let before = self.problems();
        let found = self.perhaps(key, &kind, doc, true);
        if found.is_none() && self.problems() == before {
            let message = format!("is missing; wanted: {}", kind.what);
            self.problem(self.origin(), key, message);
        }
        found
    }

    fn perhaps<T>(
        &mut self,
        key: &'static str,
        kind: &Kind<T>,
        doc: &'static str,
        required: bool,
    ) -> Option<(T, Origin)> {
        let found = self.found(key).and_then(|found| self.parsed(key, kind, found));
        let (value, shown) = found.unzip();
        let origin = shown.as_ref().map(|shown| shown.origin.clone());
        let content = Content::Scalar { value: shown, default: None, about: self.about(key, kind) };
        self.entries.push(Entry { key, doc, required, content });
        value.zip(origin)
    }

    /// A list of values.
    pub(super) fn list<T>(&mut self, key: &'static str, kind: Kind<T>, default: Vec<T>, doc: &'static str) -> Vec<T> {
        let default_texts: Vec<String> = default.iter().map(kind.show).collect();
        let mut origin = Origin::Default;
        let found = if let Some((text, above)) = self.above(key) {
            origin = above.clone();
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            let parts: Vec<Found> = parts.map(|part| Found::plain(part.to_owned(), above.clone())).collect();
            Some(parts)
        } else if let Some(node) = self.node(key) {
            origin = self.sources.origin(Some(node.place));
            match &node.value {
                Value::List(items) => {
                    let items = self.bounded(items, node, key);
                    Some(items.iter().filter_map(|item| self.scalar(item, key)).collect())
                }
                Value::Nothing => {
                    self.problem(origin.clone(), key, "has no value: write a list, [] for an empty one");
                    None
                }
                _ => {
                    let message = format!("{} stands where a list is wanted: write [a, b]", node.what());
                    self.problem(origin.clone(), key, message);
                    None
                }
            }
        } else {
            None
        };
        let (values, shown) = match found {
            Some(found) => found.into_iter().filter_map(|found| self.parsed(key, &kind, found)).unzip(),
            None => {
                let shown = |text: &String| Shown { text: text.clone(), origin: Origin::Default };
                let shown = default_texts.iter().map(shown).collect();
                (default, shown)
            }
        };
        let content = Content::List { values: shown, origin, default: default_texts, about: self.about(key, &kind) };
        self.entries.push(Entry { key, doc, required: false, content });
        values
    }

    /// Values under names that the user chooses. The layers are merged name by name.
    pub(super) fn map<T>(
        &mut self,
        key: &'static str,
        normal: impl Fn(&str) -> Result<String, String>,
        kind: Kind<T>,
        doc: &'static str,
    ) -> BTreeMap<String, T> {
        let mut layers: Vec<(String, Found)> = Vec::new();
        let node = self.node(key);
        let mut items = self.mapping(node, key);
        if let Some(node) = node {
            items = self.bounded(items, node, key);
        }
        for (name, node) in items {
            let at = format!("{key}.{}", name.text.escape_debug());
            layers.extend(self.scalar(node, &at).map(|found| (name.text.clone(), found)));
        }
        let path = join(&self.name, key);
        layers.extend(self.sources.otel.members(&path));
        if let Some(variable) = self.variable(key)
            && let Some(text) = (self.sources.env)(&variable).filter(|text| !text.is_empty())
        {
            let origin = Origin::Environment(variable);
            match super::environment::parse_pairs(&text) {
                Ok(found) => {
                    layers.extend(found.into_iter().map(|(name, text)| (name, Found::plain(text, origin.clone()))))
                }
                Err(message) => self.problem(origin, key, message),
            }
        }
        layers.extend(self.sources.flags.members(&path));
        let members = format!("{path}.");
        for (name, (text, origin)) in self.sources.flags.texts.range(members.clone()..) {
            let Some(member) = name.strip_prefix(&members) else { break };
            self.findings.used.insert(name.clone());
            layers.push((member.to_owned(), Found::plain(text.clone(), origin.clone())));
        }
        let mut values = BTreeMap::new();
        let mut shown = BTreeMap::new();
        for (name, found) in layers {
            match normal(&name) {
                Ok(name) => {
                    let at = format!("{key}.{}", name.escape_debug());
                    if let Some((value, text)) = self.parsed(&at, &kind, found) {
                        values.insert(name.clone(), value);
                        shown.insert(name, text);
                    }
                }
                Err(message) => self.problem(found.origin, key, message),
            }
        }
        let content = Content::Map { values: shown.into_iter().collect(), about: self.about(key, &kind) };
        self.entries.push(Entry { key, doc, required: false, content });
        values
    }

    fn nested<T>(
        &mut self,
        path: &str,
        name: &str,
        variables: bool,
        node: Option<&'a Node>,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> (T, Vec<Entry>, &'static [&'static str]) {
        let items = self.mapping(node, path);
        let mut reader = Reader {
            sources: self.sources,
            findings: self.findings,
            items,
            place: node.map(|node| node.place).or(self.place),
            path: join(&self.path, path),
            name: join(&self.name, name),
            variables: self.variables && variables,
            implied: None,
            exactly_one: &[],
            entries: Vec::new(),
        };
        let value = read(&mut reader);
        let exactly_one = reader.exactly_one;
        (value, reader.finish(), exactly_one)
    }

    /// Further keys.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        let node = self.node(key);
        let (value, entries, exactly_one) = self.nested(key, key, true, node, read);
        let content = Content::Section { present: true, entries, exactly_one };
        self.entries.push(Entry { key, doc, required: false, content });
        value
    }

    /// Further keys that need not be there: they are if the file has them, or a flag or variable sets one of them.
    pub(super) fn optional_section<T>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<T> {
        let node = self.node(key);
        let path = join(&self.name, key);
        let overlaid = [&self.sources.flags, &self.sources.otel].iter().any(|overlay| overlay.reaches(&path));
        // `key:` with nothing behind it is what remains when all keys are commented out; but a choice it is.
        let choice = self.exactly_one.contains(&key);
        let written = node.is_some_and(|node| choice || node.value != Value::Nothing);
        let there = written || overlaid || self.implied == Some(key) || self.sources.schema;
        let (value, content) = if there {
            let (value, entries, exactly_one) = self.nested(key, key, true, node, read);
            (Some(value), Content::Section { present: true, entries, exactly_one })
        } else {
            (None, Content::Section { present: false, entries: Vec::new(), exactly_one: &[] })
        };
        self.entries.push(Entry { key, doc, required: false, content });
        value
    }

    /// A list of groups of keys. `name` gives the name by which flags reach an item.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        name: impl Fn(&Node) -> Option<String>,
        mut read: impl FnMut(&mut Reader<'_>) -> T,
    ) -> Vec<T> {
        let nodes: &[Node] = match self.node(key) {
            None => &[],
            Some(node) => match &node.value {
                Value::List(nodes) => self.bounded(nodes, node, key),
                // As for a section.
                Value::Nothing => &[],
                _ => {
                    let message = format!("{} stands where a list is wanted: begin each item with `- `", node.what());
                    self.problem(self.sources.origin(Some(node.place)), key, message);
                    &[]
                }
            },
        };
        let mut values = Vec::new();
        let mut items = Vec::new();
        let mut alternatives: &'static [&'static str] = &[];
        for (index, node) in nodes.iter().enumerate() {
            let name = name(node).unwrap_or_else(|| index.to_string());
            let path = format!("{key}[{index}]");
            let (value, entries, exactly_one) =
                self.nested(&path, &format!("{key}.{name}"), false, Some(node), &mut read);
            values.push(value);
            items.push(entries);
            alternatives = exactly_one;
        }
        if self.sources.schema {
            let (value, entries, exactly_one) = self.nested(&format!("{key}[]"), key, false, None, &mut read);
            values.push(value);
            items.push(entries);
            alternatives = exactly_one;
        }
        let content = Content::Sections { items, exactly_one: alternatives };
        self.entries.push(Entry { key, doc, required: false, content });
        values
    }

    /// One more item of the list `key`, which was read before.
    pub(super) fn further<T>(&mut self, key: &'static str, name: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let (value, entries, _) = self.nested(&format!("{key}[{name}]"), &format!("{key}.{name}"), false, None, read);
        let list = self.entries.iter_mut().find(|entry| entry.key == key);
        if let Some(Entry { content: Content::Sections { items, .. }, .. }) = list {
            items.push(entries);
        }
        value
    }

    /// Whether an exporter is there although the file has none.
    pub(super) fn has_implied_exporter(&self) -> bool {
        self.sources.implied_exporter
    }
}
