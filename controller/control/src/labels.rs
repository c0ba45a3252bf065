//! Label selectors: which agents are meant, as Kubernetes writes it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Requirements of a selector.
const MAX_REQUIREMENTS: usize = 64;

/// A selector: all of its requirements have to hold. The empty one means every agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// It is there.
    Exists,
    /// It is not.
    Absent,
    /// It has one of these values.
    In(Vec<String>),
    /// It has none of these, or is not there.
    NotIn(Vec<String>),
}

/// A text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no selector: {problem}; such as env=prod,region!=eu,zone in (a,b),!canary")]
pub struct WrongSelector {
    text: String,
    problem: &'static str,
}

impl Selector {
    /// Whether an agent with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|Requirement { key, condition }| {
            let value = labels.get(key);
            match condition {
                Condition::Exists => value.is_some(),
                Condition::Absent => value.is_none(),
                Condition::In(values) => value.is_some_and(|value| values.contains(value)),
                Condition::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.text
    }
}

impl TryFrom<String> for Selector {
    type Error = WrongSelector;

    fn try_from(text: String) -> Result<Self, WrongSelector> {
        text.parse()
    }
}

impl FromStr for Selector {
    type Err = WrongSelector;

    fn from_str(text: &str) -> Result<Self, WrongSelector> {
        let wrong = |problem| WrongSelector { text: text.chars().take(200).collect(), problem };
        let mut requirements = Vec::new();
        for part in parts(text).map_err(wrong)? {
            requirements.push(requirement(part).map_err(wrong)?);
        }
        if requirements.len() > MAX_REQUIREMENTS {
            return Err(wrong("it has more than 64 requirements"));
        }
        Ok(Self { text: text.trim().to_owned(), requirements })
    }
}

/// The requirements, at commas that are not in parentheses.
fn parts(text: &str) -> Result<Vec<&str>, &'static str> {
    let (mut found, mut start, mut is_inside) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' if is_inside => return Err("parentheses in parentheses"),
            '(' => is_inside = true,
            ')' if !is_inside => return Err("a parenthesis that nothing opens"),
            ')' => is_inside = false,
            ',' if !is_inside => {
                found.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    if is_inside {
        return Err("a parenthesis that nothing closes");
    }
    found.push(text.get(start..).unwrap_or_default());
    if found.len() == 1 && text.trim().is_empty() {
        found.clear();
    }
    Ok(found)
}

fn requirement(part: &str) -> Result<Requirement, &'static str> {
    let part = part.trim();
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement { key: key_of(key)?, condition: Condition::Absent });
    }
    if let Some(list) = part.strip_suffix(')') {
        let (head, values) = list.split_once('(').ok_or("a parenthesis that nothing opens")?;
        let values: Vec<_> = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace).ok_or("no `in` or `notin` before a list")?;
        let condition = match word {
            "in" => Condition::In(values),
            "notin" => Condition::NotIn(values),
            _ => return Err("no `in` or `notin` before a list"),
        };
        return Ok(Requirement { key: key_of(key)?, condition });
    }
    let value = |text: &str| vec![text.trim().to_owned()];
    if let Some((key, text)) = part.split_once("!=") {
        return Ok(Requirement { key: key_of(key)?, condition: Condition::NotIn(value(text)) });
    }
    if let Some((key, text)) = part.split_once('=') {
        let text = text.strip_prefix('=').unwrap_or(text);
        return Ok(Requirement { key: key_of(key)?, condition: Condition::In(value(text)) });
    }
    Ok(Requirement { key: key_of(part)?, condition: Condition::Exists })
}

fn key_of(text: &str) -> Result<String, &'static str> {
    let key = text.trim();
    let is_right = !key.is_empty()
        && key.chars().all(|character| character.is_alphanumeric() || matches!(character, '.' | '_' | '-' | '/'));
    if is_right { Ok(key.to_owned()) } else { Err("a key has letters, digits, dots, slashes, - and _") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str) -> bool {
        let labels = [("env", "prod"), ("host.name", "a"), ("k8s.io/zone", "eu-1")];
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        selector.parse::<Selector>().unwrap().matches(&labels)
    }

    #[test]
    fn selectors_mean_what_they_say() {
        for right in [
            "",
            "env",
            "env=prod",
            "env == prod",
            "env!=dev",
            "none!=x",
            "!none",
            "env in (dev, prod)",
            "k8s.io/zone notin (us-1),host.name=a",
            "none notin (a)",
        ] {
            assert!(matches(right), "{right}");
        }
        for wrong in
            ["none", "!env", "env=dev", "env!=prod", "env in (dev)", "env notin (prod)", "env=prod,host.name=b"]
        {
            assert!(!matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["=a", "env=prod,", "env in (a", "env in a)", "env in ((a))", "a b", "!", "env of (a)", ",", "(a)"]
        {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
        let many = vec!["a"; 65].join(",");
        assert!(many.parse::<Selector>().is_err());
    }
}
