//! Attributes of a resource, in order of precedence.

use std::borrow::Cow;

use profiler_model::{AttributeValue, StringId, builder::ProfileBuilder};

/// Bytes that a value may have; the rest is cut off.
pub(super) const MAX_VALUE: usize = 1024;
/// Bytes that a key may have; a longer one is refused.
pub(super) const MAX_KEY: usize = 128;
/// Attributes that a resource may have; further ones are dropped.
pub(super) const MAX_ATTRIBUTES: usize = 128;

/// What neither a process nor an annotation can say, since it was measured, or is for Kubernetes and the runtime to say: whole keys, and beginnings of keys.
const MEASURED: &[&str] =
    &["process.pid", "process.parent_pid", "process.creation.time", "process.owner", "process.linux.cgroup"];
const MEASURED_PREFIXES: &[&str] =
    &["process.executable.", "process.environment_variable.", "host.", "os.", "k8s.", "container.", "profiler."];

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text, without control characters.
    Text(String),
    /// A number.
    Integer(i64),
    /// A list of texts.
    Texts(Vec<String>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Attributes by key: the first of a key counts. Whatever is put in, keys are of printable ASCII and values are free of control
/// characters, of bounded length and never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pairs: Vec<(Cow<'static, str>, Value)>,
}

impl Attributes {
    /// Puts `value` under `key`, unless there is one. Returns `false` if it was dropped because it is malformed or one too many.
    pub fn put(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> bool {
        let key = key.into();
        if self.get(&key).is_some() {
            return true;
        }
        let value = match value.into() {
            Value::Text(text) => Value::Text(clean(&text)),
            Value::Texts(texts) => {
                let texts = texts.iter().take(MAX_ATTRIBUTES).map(|text| clean(text));
                Value::Texts(texts.filter(|text| !text.is_empty()).collect())
            }
            number @ Value::Integer(_) => number,
        };
        let empty = match &value {
            Value::Text(text) => text.is_empty(),
            Value::Texts(texts) => texts.is_empty(),
            Value::Integer(_) => false,
        };
        if empty || !is_key(&key) || self.pairs.len() >= MAX_ATTRIBUTES {
            return false;
        }
        self.pairs.push((key, value));
        true
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The value of `key` if it is text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            Value::Integer(_) | Value::Texts(_) => None,
        }
    }

    /// All keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Drops those whose key `keep` is against.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.pairs.retain(|(key, _)| keep(key));
    }

    /// The attributes as the model has them, for [`Process::attributes`](profiler_model::Process::attributes) or
    /// [`Profiles::resource_attributes`](profiler_model::Profiles::resource_attributes).
    #[must_use]
    pub fn in_profile(&self, builder: &mut ProfileBuilder) -> Vec<(StringId, AttributeValue)> {
        let mut pairs = Vec::with_capacity(self.pairs.len());
        for (key, value) in self.iter() {
            let value = match value {
                Value::Text(text) => AttributeValue::Text(builder.string(text)),
                Value::Integer(number) => AttributeValue::Integer(*number),
                Value::Texts(texts) => AttributeValue::Texts(texts.iter().map(|text| builder.string(text)).collect()),
            };
            pairs.push((builder.string(key), value));
        }
        pairs
    }
}

/// Whether somebody can say `key` of himself.
pub(super) fn is_claimable(key: &str) -> bool {
    !MEASURED.contains(&key) && !MEASURED_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Whether `key` is fit for an attribute: printable ASCII without the characters that lists of attributes are made of.
pub(super) fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'=' | b'"' | b'\\'))
}

/// `text` without what could forge a line or reverse one in a terminal or a page, cut to [`MAX_VALUE`] bytes.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(MAX_VALUE));
    for c in text.chars().filter(|&c| !is_deceptive(c)) {
        if clean.len() + c.len_utf8() > MAX_VALUE {
            break;
        }
        clean.push(c);
    }
    clean
}

/// Control characters, and those that change the direction of text.
fn is_deceptive(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_key_counts_and_what_is_malformed_is_dropped() {
        let mut attributes = Attributes::default();
        assert!(attributes.put("service.name", "a"));
        assert!(attributes.put("service.name", "b"));
        for (key, value) in
            [("", "x"), ("sp ace", "x"), ("ü", "x"), ("a,b", "x"), ("empty", ""), ("controls", "\n\u{202e}")]
        {
            assert!(!attributes.put(key, value), "{key}");
        }
        assert!(!attributes.put("k".repeat(MAX_KEY + 1), "x"));
        assert!(attributes.put("list", Value::Texts(vec!["a\0b".into(), String::new()])));
        assert!(attributes.put("number", Value::Integer(0)));
        let all: Vec<_> = attributes.iter().collect();
        let list = Value::Texts(vec!["ab".into()]);
        assert_eq!(all, [("service.name", &"a".into()), ("list", &list), ("number", &Value::Integer(0))]);
    }

    #[test]
    fn size_is_bounded() {
        let mut attributes = Attributes::default();
        for index in 0..1000 {
            assert_eq!(attributes.put(format!("k{index}"), "ä".repeat(10_000)), index < MAX_ATTRIBUTES);
        }
        assert_eq!(attributes.len(), MAX_ATTRIBUTES);
        assert_eq!(attributes.text("k0").map(str::len), Some(MAX_VALUE));
        assert_eq!(clean(&format!("{}ä", "x".repeat(MAX_VALUE - 1))).len(), MAX_VALUE - 1);
    }
}
