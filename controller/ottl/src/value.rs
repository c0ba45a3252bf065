//! What expressions have: values, borrowed where they can be.

use std::borrow::Cow;

use crate::{error::EvalError, time::Time};

/// A value of the language.
///
/// Text, bytes, lists and maps are borrowed from the rule or from what it runs on, until they are changed.
#[derive(Clone, Debug, Default)]
pub enum Value<'a> {
    /// Nothing: a key that is not there, an attribute without a value.
    #[default]
    Nil,
    /// True or false.
    Bool(bool),
    /// A whole number; arithmetic wraps.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A list.
    List(Cow<'a, [Value<'static>]>),
    /// A map.
    Map(Cow<'a, Map>),
    /// A point in time.
    Time(Time),
    /// A span of time, in ns.
    Duration(i64),
    /// The id of a profile, trace or span.
    Id(Id),
    /// Something of what the rule runs on that can only be copied and compared.
    Opaque(Opaque),
}

/// An id of 8 or 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// Of a profile.
    Profile([u8; 16]),
    /// Of a trace.
    Trace([u8; 16]),
    /// Of a span.
    Span([u8; 8]),
}

impl Id {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Profile(bytes) | Self::Trace(bytes) => bytes,
            Self::Span(bytes) => bytes,
        }
    }
}

/// Something that has no value of its own in the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opaque {
    /// What it is.
    pub kind: &'static str,
    /// What tells it from others of its kind, and lets it be copied.
    pub words: [i64; 3],
}

/// A map that keeps the order of its keys. One that came from outside may have a key twice; the first is meant.
#[derive(Clone, Debug, Default)]
pub struct Map {
    entries: Vec<(String, Value<'static>)>,
}

impl Map {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value<'static>> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The value of `key`, which is made if there is none.
    pub fn entry(&mut self, key: &str) -> &mut Value<'static> {
        let at = self.entries.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            self.entries.push((key.to_owned(), Value::Nil));
            self.entries.len() - 1
        });
        &mut self.entries[at].1
    }

    /// Gives `key` a value.
    pub fn insert(&mut self, key: impl Into<String>, value: Value<'static>) {
        let key = key.into();
        match self.entries.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => self.entries.push((key, value)),
        }
    }

    /// Adds an entry without looking whether its key is there.
    pub fn push(&mut self, key: impl Into<String>, value: Value<'static>) {
        self.entries.push((key.into(), value));
    }

    /// Takes the first `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value<'static>> {
        let at = self.entries.iter().position(|(known, _)| known == key)?;
        Some(self.entries.remove(at).1)
    }

    /// Keeps the entries that `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Value<'static>) -> bool) {
        self.entries.retain(|(key, value)| keep(key, value));
    }

    /// The entries in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value<'static>)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The entries in their order, to change their values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Value<'static>)> {
        self.entries.iter_mut().map(|(key, value)| (key.as_str(), value))
    }

    /// The entries themselves.
    #[must_use]
    pub fn into_entries(self) -> Vec<(String, Value<'static>)> {
        self.entries
    }
}

impl FromIterator<(String, Value<'static>)> for Map {
    /// A map in which the last of equal keys is what counts.
    fn from_iter<I: IntoIterator<Item = (String, Value<'static>)>>(entries: I) -> Self {
        let mut map = Self::new();
        entries.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

impl<'a> Value<'a> {
    /// A list that owns its values.
    #[must_use]
    pub fn list(values: Vec<Value<'static>>) -> Self {
        Self::List(Cow::Owned(values))
    }

    /// A map that owns its values.
    #[must_use]
    pub fn map(map: Map) -> Self {
        Self::Map(Cow::Owned(map))
    }

    /// A text that is owned.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    /// This value, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Nil => Value::Nil,
            Self::Bool(truth) => Value::Bool(truth),
            Self::Int(number) => Value::Int(number),
            Self::Float(number) => Value::Float(number),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Self::List(list) => Value::List(Cow::Owned(list.into_owned())),
            Self::Map(map) => Value::Map(Cow::Owned(map.into_owned())),
            Self::Time(time) => Value::Time(time),
            Self::Duration(nanos) => Value::Duration(nanos),
            Self::Id(id) => Value::Id(id),
            Self::Opaque(opaque) => Value::Opaque(opaque),
        }
    }

    /// The same value, borrowed.
    #[must_use]
    pub fn borrowed<'b>(&'b self) -> Value<'b>
    where
        'a: 'b,
    {
        match self {
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
            Self::List(list) => Value::List(Cow::Borrowed(list)),
            Self::Map(map) => Value::Map(Cow::Borrowed(map)),
            Self::Nil => Value::Nil,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Int(number) => Value::Int(*number),
            Self::Float(number) => Value::Float(*number),
            Self::Time(time) => Value::Time(time.clone()),
            Self::Duration(nanos) => Value::Duration(*nanos),
            Self::Id(id) => Value::Id(*id),
            Self::Opaque(opaque) => Value::Opaque(*opaque),
        }
    }

    /// What it is called in messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Time(_) => "a time",
            Self::Duration(_) => "a duration",
            Self::Id(_) => "an id",
            Self::Opaque(opaque) => opaque.kind,
        }
    }

    /// Whether it can be stored as an attribute: no time, duration, id or opaque part of anything is in it.
    ///
    /// # Errors
    ///
    /// What it is, or has in it.
    pub fn storable(&self) -> Result<(), EvalError> {
        match self {
            Self::List(list) => list.iter().try_for_each(Value::storable),
            Self::Map(map) => map.iter().try_for_each(|(_, value)| value.storable()),
            Self::Time(_) | Self::Duration(_) | Self::Id(_) | Self::Opaque(_) => Err(EvalError::new(format!(
                "{} cannot be stored as an attribute; String, UnixNano or Nanoseconds make something of it that can",
                self.kind()
            ))),
            _ => Ok(()),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}
