//! Reads keys from their layers: flag, environment, file, default.
//!
//! A section of the configuration is a function that asks a [`Reader`] for each of its keys, giving kind, default and
//! meaning. That one definition serves to read, to refuse unknown keys, to show the effective configuration, and to
//! write the schema and the reference.

use std::collections::BTreeMap;

use profiler_receiver::HIDDEN;

use super::entry::{About, Content, Entry, Shown};
use super::errors::{Problem, quoted};
use super::kind::{Declared, Items, Kind, Narrowing};
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
    /// What the remote configuration has here.
    remote: &'a [(Key, Node)],
    /// The items themselves are the remote configuration's.
    is_remote: bool,
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
    pub(super) fn root(
        sources: &'a Sources<'a>,
        findings: &'a mut Findings,
        root: Option<&'a Node>,
        remote: Option<&'a Node>,
    ) -> Self {
        let mut reader = Self {
            sources,
            findings,
            items: &[],
            place: root.map(|node| node.place),
            remote: &[],
            is_remote: false,
            path: String::new(),
            name: String::new(),
            variables: true,
            implied: None,
            exactly_one: &[],
            entries: Vec::new(),
        };
        reader.items = reader.mapping(root, "", false);
        reader.remote = reader.mapping(remote, "", true);
        reader
    }

    /// Refuses keys that nobody asked for; what was read.
    pub(super) fn finish(self) -> Vec<Entry> {
        let known: Vec<&str> = self.entries.iter().map(|entry| entry.key).collect();
        let own = self.items.iter().map(|item| (item, self.is_remote));
        for ((key, _), is_remote) in own.chain(self.remote.iter().map(|item| (item, true))) {
            if !known.contains(&key.text.as_str()) {
                let message = unknown_key(&key.text, &known, self.sources.paths.iter().map(String::as_str));
                let origin = self.origin_at(Some(key.place), is_remote);
                self.findings.problems.push(Problem { origin, key: self.path.clone(), message });
            }
        }
        if !self.exactly_one.is_empty() && !self.sources.schema {
            let there = self.exactly_one.iter().filter(|key| self.is_present(key)).count();
            if there != 1 {
                let all = self.exactly_one.join(", ");
                let message = format!("needs exactly one of {all}; there are {there}");
                let origin = self.at(self.place);
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

    fn at(&self, place: Option<Place>) -> Origin {
        self.origin_at(place, self.is_remote)
    }

    fn origin_at(&self, place: Option<Place>, is_remote: bool) -> Origin {
        if is_remote { self.sources.remote_origin(place) } else { self.sources.origin(place) }
    }

    /// How many problems there are so far.
    pub(super) fn problems(&self) -> usize {
        self.findings.problems.len()
    }

    /// Whether this is of the remote configuration.
    pub(super) fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// Where this section is in the file.
    pub(super) fn origin(&self) -> Origin {
        self.at(self.place)
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

    fn mapping<'n>(&mut self, node: Option<&'n Node>, key: &str, is_remote: bool) -> &'n [(Key, Node)] {
        match node.map(|node| (&node.value, node)) {
            None | Some((Value::Nothing, _)) => &[],
            Some((Value::Map(items), _)) => items,
            Some((_, node)) => {
                let message = format!("{} stands where keys are wanted: write key: value, indented", node.what());
                self.problem(self.origin_at(Some(node.place), is_remote), key, message);
                &[]
            }
        }
    }

    /// What the remote configuration has for `key`.
    fn remote_node(&self, key: &str) -> Option<&'a Node> {
        self.remote.iter().find(|(there, _)| there.text == key).map(|(_, node)| node)
    }

    /// The text of a scalar of the remote configuration: as it stands, since it must not read variables or files of this host.
    fn remote_scalar(&mut self, node: &Node, key: &str) -> Option<Found> {
        let origin = self.sources.remote_origin(Some(node.place));
        match &node.value {
            Value::Scalar { text, .. } if text.contains("${") => {
                let message =
                    "holds ${...}: a remote configuration puts nothing in from variables and files of the host";
                self.problem(origin, key, message);
                None
            }
            Value::Scalar { text, .. } => Some(Found::plain(text.clone(), origin)),
            _ => {
                self.problem(origin, key, format!("{} stands where one value is wanted", node.what()));
                None
            }
        }
    }

    /// Whether the remote configuration may make `remote` of `local`, which came from `origin`; a problem otherwise.
    fn may<V: ?Sized>(
        &mut self,
        key: &str,
        narrowing: &Narrowing<V>,
        (local, origin): (Option<&V>, &Origin),
        (remote, place): (&V, Option<Place>),
    ) -> bool {
        let message = match narrowing {
            Narrowing::Local => "is the host's own: a remote configuration cannot set it".to_owned(),
            Narrowing::IfAllowed => {
                let path = join(&self.path, key);
                if self.sources.allowed.contains(&path) {
                    return true;
                }
                format!(
                    "is the host's own: a remote configuration sets it only where remote.allow of the host names {path}"
                )
            }
            Narrowing::Narrows { narrows, words } => {
                if local.is_some_and(|local| narrows(local, remote)) {
                    return true;
                }
                format!("would widen what the host's own configuration says ({origin}): wanted: {words}")
            }
        };
        self.problem(self.sources.remote_origin(place), key, message);
        false
    }

    /// The items of a list of the remote configuration.
    fn remote_items(&mut self, node: &'a Node, key: &str) -> &'a [Node] {
        let Value::List(items) = &node.value else {
            let message = format!("{} stands where a list is wanted: write [a, b]", node.what());
            self.problem(self.sources.remote_origin(Some(node.place)), key, message);
            return &[];
        };
        self.bounded(items, node, key)
    }

    /// Nothing of the remote configuration may stand at `key`.
    fn refuse_remote(&mut self, key: &str) {
        if let Some(node) = self.remote_node(key) {
            self.may::<()>(key, &Narrowing::Local, (None, &Origin::Default), (&(), Some(node.place)));
        }
    }

    /// The items, or none if they are too many.
    fn bounded<T>(&mut self, items: &'a [T], node: &Node, key: &str) -> &'a [T] {
        if items.len() <= MAX_ITEMS {
            return items;
        }
        self.problem(self.at(Some(node.place)), key, format!("has more than {MAX_ITEMS} items"));
        &[]
    }

    fn variable(&self, key: &str) -> Option<String> {
        self.variables.then(|| format!("PROFILER_{}", join(&self.name, key).replace('.', "_").to_uppercase()))
    }

    fn about<T, V: ?Sized>(&self, key: &str, Declared { kind, narrowing }: &Declared<T, V>) -> About {
        let remote = narrowing.words();
        About { schema: kind.schema.clone(), what: kind.what.clone(), remote, variable: self.variable(key) }
    }

    /// What stands above the file for `key`.
    fn above(&mut self, key: &str) -> Option<(String, Origin)> {
        if self.is_remote {
            return None;
        }
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
        if self.is_remote {
            return self.remote_scalar(node, key);
        }
        let origin = self.at(Some(node.place));
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
    pub(super) fn value<T>(&mut self, key: &'static str, declared: Declared<T>, default: T, doc: &'static str) -> T {
        self.located(key, declared, default, doc).0
    }

    /// A value with a default, and where it came from.
    pub(super) fn located<T>(
        &mut self,
        key: &'static str,
        declared: Declared<T>,
        default: T,
        doc: &'static str,
    ) -> (T, Origin) {
        let default_text = (declared.kind.show)(&default);
        let found = self.found(key).and_then(|found| self.parsed(key, &declared.kind, found));
        let local = found.unwrap_or_else(|| (default, Shown { text: default_text.clone(), origin: Origin::Default }));
        let about = self.about(key, &declared);
        let (value, shown) = match self.remote_node(key) {
            None => local,
            Some(node) => {
                let remote = self.remote_scalar(node, key).and_then(|text| self.parsed(key, &declared.kind, text));
                let place = Some(node.place);
                match remote {
                    Some((value, shown))
                        if self.may(key, &declared.narrowing, (Some(&local.0), &local.1.origin), (&value, place)) =>
                    {
                        (value, shown)
                    }
                    _ => local,
                }
            }
        };
        let origin = shown.origin.clone();
        let content = Content::Scalar { value: Some(shown), default: Some(default_text), about };
        self.entries.push(Entry { key, doc, required: false, content });
        (value, origin)
    }

    /// A value without a default, and where it came from.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        declared: Declared<T>,
        doc: &'static str,
    ) -> Option<(T, Origin)> {
        self.perhaps(key, &declared, doc, false)
    }

    /// A value that must be there; a problem otherwise.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        declared: Declared<T>,
        doc: &'static str,
    ) -> Option<(T, Origin)> {
        let before = self.problems();
        let found = self.perhaps(key, &declared, doc, true);
        if found.is_none() && self.problems() == before {
            let message = format!("is missing; wanted: {}", declared.kind.what);
            self.problem(self.origin(), key, message);
        }
        found
    }

    fn perhaps<T>(
        &mut self,
        key: &'static str,
        declared: &Declared<T>,
        doc: &'static str,
        required: bool,
    ) -> Option<(T, Origin)> {
        let found = self.found(key).and_then(|found| self.parsed(key, &declared.kind, found));
        // What has no default says where something is, and is the host's own.
        self.refuse_remote(key);
        let (value, shown) = found.unzip();
        let origin = shown.as_ref().map(|shown| shown.origin.clone());
        let content = Content::Scalar { value: shown, default: None, about: self.about(key, declared) };
        self.entries.push(Entry { key, doc, required, content });
        value.zip(origin)
    }

    /// A list of values.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        declared: Declared<T, Vec<T>>,
        default: Vec<T>,
        doc: &'static str,
    ) -> Vec<T> {
        let about = self.about(key, &declared);
        let Declared { kind, narrowing } = declared;
        let default_texts: Vec<String> = default.iter().map(kind.show).collect();
        let mut origin = Origin::Default;
        let found = if let Some((text, above)) = self.above(key) {
            origin = above.clone();
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            let parts: Vec<Found> = parts.map(|part| Found::plain(part.to_owned(), above.clone())).collect();
            Some(parts)
        } else if let Some(node) = self.node(key) {
            origin = self.at(Some(node.place));
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
        let (mut values, mut shown): (Vec<T>, Vec<Shown>) = match found {
            Some(found) => found.into_iter().filter_map(|found| self.parsed(key, &kind, found)).unzip(),
            None => {
                let shown = |text: &String| Shown { text: text.clone(), origin: Origin::Default };
                let shown = default_texts.iter().map(shown).collect();
                (default, shown)
            }
        };
        if let Some(node) = self.remote_node(key) {
            let items = self.remote_items(node, key);
            let found: Vec<Found> = items.iter().filter_map(|item| self.remote_scalar(item, key)).collect();
            let (remote, remote_shown): (Vec<T>, Vec<Shown>) =
                found.into_iter().filter_map(|found| self.parsed(key, &kind, found)).unzip();
            if self.may(key, &narrowing, (Some(&values), &origin), (&remote, Some(node.place))) {
                (values, shown) = (remote, remote_shown);
                origin = self.sources.remote_origin(Some(node.place));
            }
        }
        let content = Content::List { values: shown, origin, default: default_texts, about };
        self.entries.push(Entry { key, doc, required: false, content });
        values
    }

    /// Values under names that the user chooses. The layers are merged name by name.
    pub(super) fn map<T>(
        &mut self,
        key: &'static str,
        normal: impl Fn(&str) -> Result<String, String>,
        declared: Declared<T, ()>,
        doc: &'static str,
    ) -> BTreeMap<String, T> {
        let about = self.about(key, &declared);
        let Declared { kind, narrowing } = declared;
        let mut layers: Vec<(String, Found)> = Vec::new();
        let node = self.node(key);
        let mut items = self.mapping(node, key, self.is_remote);
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
        if let Some(node) = self.remote_node(key)
            && self.may(key, &narrowing, (None, &Origin::Default), (&(), Some(node.place)))
        {
            let items = self.mapping(Some(node), key, true);
            for (name, node) in self.bounded(items, node, key) {
                let at = format!("{key}.{}", name.text.escape_debug());
                let Some(found) = self.remote_scalar(node, &at) else { continue };
                match normal(&name.text) {
                    // Whatever is allowed: what the host says of itself stays.
                    Ok(name) if values.contains_key(&name) => {
                        let message = "is set by the host's own configuration, which goes before";
                        self.problem(found.origin, &at, message);
                    }
                    Ok(name) => {
                        if let Some((value, text)) = self.parsed(&at, &kind, found) {
                            values.insert(name.clone(), value);
                            shown.insert(name, text);
                        }
                    }
                    Err(message) => self.problem(found.origin, key, message),
                }
            }
        }
        let content = Content::Map { values: shown.into_iter().collect(), about };
        self.entries.push(Entry { key, doc, required: false, content });
        values
    }

    fn nested<'n, T>(
        &mut self,
        path: &str,
        name: &str,
        variables: bool,
        (node, remote, is_remote): (Option<&'n Node>, Option<&'n Node>, bool),
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> (T, Vec<Entry>, &'static [&'static str]) {
        let items = self.mapping(node, path, is_remote);
        let remote = self.mapping(remote, path, true);
        let mut reader = Reader {
            sources: self.sources,
            findings: self.findings,
            items,
            place: node.map(|node| node.place).or(self.place),
            remote,
            is_remote,
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
        let layers = (self.node(key), self.remote_node(key), self.is_remote);
        let (value, entries, exactly_one) = self.nested(key, key, true, layers, read);
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
        self.refuse_remote(key);
        let path = join(&self.name, key);
        let overlaid = [&self.sources.flags, &self.sources.otel].iter().any(|overlay| overlay.reaches(&path));
        // `key:` with nothing behind it is what remains when all keys are commented out; but a choice it is.
        let choice = self.exactly_one.contains(&key);
        let written = node.is_some_and(|node| choice || node.value != Value::Nothing);
        let there = written || overlaid || self.implied == Some(key) || self.sources.schema;
        let (value, content) = if there {
            let (value, entries, exactly_one) = self.nested(key, key, true, (node, None, self.is_remote), read);
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
        remote: Items,
        doc: &'static str,
        name: impl Fn(&Node) -> Option<String>,
        read: impl FnMut(&mut Reader<'_>) -> T,
    ) -> Vec<T> {
        self.groups(key, (remote, None), doc, name, read)
    }

    /// A list of groups of keys. An item that is one value stands for a group whose list `short` has that value alone; a list has either.
    pub(super) fn short_sections<T>(
        &mut self,
        key: &'static str,
        short: &'static str,
        doc: &'static str,
        read: impl FnMut(&mut Reader<'_>) -> T,
    ) -> Vec<T> {
        self.groups(key, (Items::Local, Some(short)), doc, |_| None, read)
    }

    fn groups<T>(
        &mut self,
        key: &'static str,
        (remote, short): (Items, Option<&'static str>),
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
                    self.problem(self.at(Some(node.place)), key, message);
                    &[]
                }
            },
        };
        let mut values = Vec::new();
        let mut items = Vec::new();
        let mut alternatives: &'static [&'static str] = &[];
        let is_one = |node: &Node| short.is_some() && matches!(node.value, Value::Scalar { .. });
        if let Some(first) = nodes.first()
            && let Some(other) = nodes.iter().find(|node| is_one(node) != is_one(first))
        {
            let message = format!("{} stands beside {}: a list has the one or the other", other.what(), first.what());
            self.problem(self.at(Some(other.place)), key, message);
        }
        for (index, node) in nodes.iter().enumerate() {
            let name = name(node).unwrap_or_else(|| index.to_string());
            let path = format!("{key}[{index}]");
            let alone = short.filter(|_| is_one(node)).map(|short| node.clone().alone(short));
            let node = alone.as_ref().unwrap_or(node);
            let (value, entries, exactly_one) =
                self.nested(&path, &format!("{key}.{name}"), false, (Some(node), None, self.is_remote), &mut read);
            values.push(value);
            items.push(entries);
            alternatives = exactly_one;
        }
        match (remote, self.remote_node(key)) {
            (_, None) => {}
            (Items::Local, Some(_)) => self.refuse_remote(key),
            (Items::Add, Some(node)) => {
                for node in self.remote_items(node, key) {
                    let path = format!("{key}[{}]", items.len());
                    let (value, entries, exactly_one) =
                        self.nested(&path, key, false, (Some(node), None, true), &mut read);
                    values.push(value);
                    items.push(entries);
                    alternatives = exactly_one;
                }
            }
        }
        if self.sources.schema {
            let (value, entries, exactly_one) =
                self.nested(&format!("{key}[]"), key, false, (None, None, false), &mut read);
            values.push(value);
            items.push(entries);
            alternatives = exactly_one;
        }
        let content = Content::Sections { items, exactly_one: alternatives, remote, short };
        self.entries.push(Entry { key, doc, required: false, content });
        values
    }

    /// One more item of the list `key`, which was read before.
    pub(super) fn further<T>(&mut self, key: &'static str, name: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let (value, entries, _) =
            self.nested(&format!("{key}[{name}]"), &format!("{key}.{name}"), false, (None, None, false), read);
        let list = self.entries.iter_mut().find(|entry| entry.key == key);
        if let Some(Entry { content: Content::Sections { items, .. }, .. }) = list {
            items.push(entries);
        }
        value
    }

    /// Whether keys are asked for, and not values.
    pub(super) fn is_schema(&self) -> bool {
        self.sources.schema
    }

    /// Whether an exporter is there although the file has none.
    pub(super) fn has_implied_exporter(&self) -> bool {
        self.sources.implied_exporter
    }
}
