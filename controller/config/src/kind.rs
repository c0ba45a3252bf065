//! What a single value may be: how its text is read and shown, and what the schema says of it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value as Json, json};

use profiler_receiver::{HIDDEN, Secret};

use super::errors::quoted;
use super::model::{Jitter, Percent};
use super::units;

/// The value of a text, or what is wrong with it and the right way.
type Parse<T> = Box<dyn Fn(&str) -> Result<T, String>>;

/// A kind of value.
pub(super) struct Kind<T> {
    pub(super) parse: Parse<T>,
    pub(super) show: fn(&T) -> String,
    /// JSON Schema of the value.
    pub(super) schema: Json,
    /// For people: unit and range.
    pub(super) what: String,
    /// Never shown.
    pub(super) secret: bool,
}

impl<T: 'static> Kind<T> {
    /// Also refuses what `check` refuses.
    pub(super) fn checked(self, check: impl Fn(&T) -> Result<(), String> + 'static) -> Self {
        let parse = self.parse;
        let parse = move |text: &str| parse(text).and_then(|value| check(&value).map(|()| value));
        Self { parse: Box::new(parse), ..self }
    }
}

/// What a configuration from elsewhere may make of a value: narrow it, never widen it.
pub(super) enum Narrowing<V: ?Sized> {
    /// Nothing: the value is the host's own.
    Local,
    /// Anything, where the host's own `remote.allow` names the key.
    IfAllowed,
    /// Another one for which `narrows(local, remote)` holds; in words.
    Narrows { narrows: fn(&V, &V) -> bool, words: &'static str },
}

impl<V: ?Sized> Narrowing<V> {
    /// For people: what a remote configuration may do; empty if nothing.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::Local => "",
            Self::IfAllowed => "any, where `remote.allow` names it",
            Self::Narrows { words, .. } => words,
        }
    }
}

/// A kind of value and what a remote configuration may make of it. A key cannot be read without saying so.
pub(super) struct Declared<T, V: ?Sized = T> {
    pub(super) kind: Kind<T>,
    pub(super) narrowing: Narrowing<V>,
}

impl<T: 'static> Kind<T> {
    /// The host's own: a remote configuration does not set it.
    pub(super) fn local<V: ?Sized>(self) -> Declared<T, V> {
        Declared { kind: self, narrowing: Narrowing::Local }
    }

    /// A remote configuration sets it where the host's own `remote.allow` names it.
    pub(super) fn if_allowed<V: ?Sized>(self) -> Declared<T, V> {
        Declared { kind: self, narrowing: Narrowing::IfAllowed }
    }

    /// A remote configuration may lower it.
    pub(super) fn at_most(self) -> Declared<T>
    where
        T: PartialOrd,
    {
        let narrows = |local: &T, remote: &T| remote <= local;
        Declared { kind: self, narrowing: Narrowing::Narrows { narrows, words: "the same or less" } }
    }

    /// A remote configuration may raise it.
    pub(super) fn at_least(self) -> Declared<T>
    where
        T: PartialOrd,
    {
        let narrows = |local: &T, remote: &T| remote >= local;
        Declared { kind: self, narrowing: Narrowing::Narrows { narrows, words: "the same or more" } }
    }

    /// A remote configuration may take items of the list away.
    pub(super) fn subset(self) -> Declared<T, Vec<T>>
    where
        T: PartialEq,
    {
        let narrows = |local: &Vec<T>, remote: &Vec<T>| remote.iter().all(|item| local.contains(item));
        Declared { kind: self, narrowing: Narrowing::Narrows { narrows, words: "some of the items" } }
    }
}

impl<T: PartialOrd + 'static> Kind<Option<T>> {
    /// A limit, which a remote configuration may lower, or set where there is none.
    pub(super) fn limit(self) -> Declared<Option<T>> {
        let narrows = |local: &Option<T>, remote: &Option<T>| match (local, remote) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(local), Some(remote)) => remote <= local,
        };
        Declared { kind: self, narrowing: Narrowing::Narrows { narrows, words: "the same or less" } }
    }
}

/// What a remote configuration may do to a list of groups of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Items {
    /// Nothing.
    Local,
    /// Add items, where more items mean that less is done.
    Add,
}

/// A whole number.
pub(super) fn whole<T>(from: T, to: T, unit: &'static str) -> Kind<T>
where
    T: Copy + Display + FromStr + PartialOrd + Into<Json> + 'static,
{
    let range = if unit.is_empty() { format!("{from} to {to}") } else { format!("{from} to {to} {unit}") };
    let what = format!("whole number, {range}");
    let parse = move |text: &str| {
        let found = text.parse().ok().filter(|value: &T| *value >= from && *value <= to);
        found.ok_or_else(|| {
            // `99Hz`: the number alone was meant.
            let digits = text.find(|c: char| !c.is_ascii_digit()).and_then(|end| text.get(..end)).unwrap_or_default();
            let hint = if digits.is_empty() { String::new() } else { format!("; perhaps {digits}") };
            format!("{} is no whole number from {range}{hint}", quoted(text))
        })
    };
    Kind {
        parse: Box::new(parse),
        show: T::to_string,
        schema: json!({ "type": "integer", "minimum": from.into(), "maximum": to.into() }),
        what,
        secret: false,
    }
}

/// A time, such as `10s`.
pub(super) fn time(from: Duration, to: Duration) -> Kind<Duration> {
    let parse = move |text: &str| {
        let value = units::parse_time(text)?;
        if value < from || value > to {
            return Err(format!("{text} is outside of {} to {}", units::show_time(&from), units::show_time(&to)));
        }
        Ok(value)
    };
    Kind {
        parse: Box::new(parse),
        show: units::show_time,
        schema: json!({ "type": "string", "pattern": units::TIME_PATTERN }),
        what: format!("time, {} to {}", units::show_time(&from), units::show_time(&to)),
        secret: false,
    }
}

/// A number of bytes, such as `4MiB`.
pub(super) fn size(from: u64, to: u64) -> Kind<u64> {
    let parse = move |text: &str| {
        let value = units::parse_size(text)?;
        if value < from || value > to {
            return Err(format!("{text} is outside of {} to {}", units::show_size(&from), units::show_size(&to)));
        }
        Ok(value)
    };
    Kind {
        parse: Box::new(parse),
        show: units::show_size,
        schema: json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB)$" }),
        what: format!("size, {} to {}", units::show_size(&from), units::show_size(&to)),
        secret: false,
    }
}

/// A share, such as `2%`.
pub(super) fn percent(from: f64, to: f64) -> Kind<Percent> {
    let parse = move |text: &str| {
        let value = units::parse_percent(text)?;
        if value < from || value > to {
            return Err(format!("{text} is outside of {from}% to {to}%"));
        }
        Ok(Percent(value))
    };
    Kind {
        parse: Box::new(parse),
        show: Percent::to_string,
        schema: json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?%$" }),
        what: format!("share, {from}% to {to}%"),
        secret: false,
    }
}

/// A share of the window, or a time.
pub(super) fn jitter() -> Kind<Jitter> {
    let parse = |text: &str| {
        if text.ends_with('%') {
            let value = units::parse_percent(text)?;
            if value > 50.0 {
                return Err(format!("{text} is more than half of the window"));
            }
            return Ok(Jitter::Share(Percent(value)));
        }
        match units::parse_time(text) {
            Ok(value) => Ok(Jitter::Time(value)),
            Err(error) => Err(format!("{error}; or a share of the window, like 10%")),
        }
    };
    Kind {
        parse: Box::new(parse),
        show: Jitter::to_string,
        schema: json!({ "type": "string", "pattern": format!(r"^[0-9]+(\.[0-9]+)? ?%$|{}", units::TIME_PATTERN) }),
        what: "share of the window up to 50%, or a time up to half of it".to_owned(),
        secret: false,
    }
}

/// The word for none.
pub(super) const OFF: &str = "off";

/// A value of `kind`, or `off`.
pub(super) fn or_off<T: 'static>(kind: Kind<T>, show: fn(&Option<T>) -> String) -> Kind<Option<T>> {
    let parse = kind.parse;
    let parse = move |text: &str| match text {
        // YAML 1.1, which Helm speaks, makes the second of the first.
        OFF | "false" => Ok(None),
        _ => parse(text).map(Some).map_err(|error| format!("{error}; or off")),
    };
    Kind {
        parse: Box::new(parse),
        show,
        schema: json!({ "anyOf": [kind.schema, { "enum": [OFF, false] }] }),
        what: format!("{}; or off", kind.what),
        secret: kind.secret,
    }
}

/// A value that is one of some words, in the file and on the command line.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every word and what it means.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of a value.
    fn word(&self) -> String {
        let found = Self::WORDS.iter().find(|(_, value)| value == self);
        found.map_or_else(String::new, |(word, _)| (*word).to_owned())
    }
}

/// One of the words of `T`.
pub(super) fn choice<T: Choice>() -> Kind<T> {
    let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
    let listed = words.join(", ");
    let mut allowed: Vec<Json> = words.iter().map(|word| json!(word)).collect();
    let off = words.contains(&OFF);
    if off {
        allowed.push(json!(false));
    }
    let schema = json!({ "enum": allowed });
    let what = words.join(" | ");
    let parse = move |text: &str| {
        // As for `or_off`.
        let text = if off && text == "false" { OFF } else { text };
        let found = T::WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let near = super::nearest::nearest(text, T::WORDS.iter().map(|(word, _)| *word));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            format!("{} is none of {listed}{hint}", quoted(text))
        })
    };
    Kind { parse: Box::new(parse), show: T::word, schema, what, secret: false }
}

/// `true` or `false`.
pub(super) fn boolean() -> Kind<bool> {
    let parse = |text: &str| match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("{} is neither true nor false", quoted(text))),
    };
    Kind {
        parse: Box::new(parse),
        show: bool::to_string,
        schema: json!({ "type": "boolean" }),
        what: "true | false".to_owned(),
        secret: false,
    }
}

/// A text that is not empty and holds no control characters.
pub(super) fn text(what: &'static str) -> Kind<String> {
    Kind {
        parse: Box::new(|text: &str| plain(text).map(str::to_owned)),
        show: String::clone,
        schema: json!({ "type": ["string", "number", "boolean"] }),
        what: what.to_owned(),
        secret: false,
    }
}

/// Like [`text`], but never shown.
pub(super) fn secret(what: &'static str) -> Kind<Secret> {
    Kind {
        parse: Box::new(|text: &str| plain(text).map(Secret::new)),
        show: |_| HIDDEN.to_owned(),
        schema: json!({ "type": ["string", "number", "boolean"] }),
        what: what.to_owned(),
        secret: true,
    }
}

fn plain(text: &str) -> Result<&str, String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("holds a control character or line end".to_owned());
    }
    Ok(text)
}

/// A file or directory.
pub(super) fn path() -> Kind<PathBuf> {
    Kind {
        parse: Box::new(|text: &str| plain(text).map(PathBuf::from)),
        show: |path| path.display().to_string(),
        schema: json!({ "type": "string", "minLength": 1 }),
        what: "path".to_owned(),
        secret: false,
    }
}

/// An address to listen on.
pub(super) fn address() -> Kind<SocketAddr> {
    let parse = |text: &str| {
        text.parse().map_err(|_| {
            format!("{} is no address to listen on: write IP:PORT, like 127.0.0.1:9464 or [::]:9464", quoted(text))
        })
    };
    Kind {
        parse: Box::new(parse),
        show: SocketAddr::to_string,
        schema: json!({ "type": "string", "pattern": r":[0-9]+$" }),
        what: "IP:PORT".to_owned(),
        secret: false,
    }
}
