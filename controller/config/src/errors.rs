//! What is wrong with a configuration, all of it at once.

use std::fmt;

use super::origin::Origin;

/// More problems than these are only counted.
const SHOWN: usize = 20;
/// Longer texts are cut in messages, characters.
const LONGEST: usize = 60;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// The key, such as `exporters[0].otlp.endpoint`; empty if the whole file is meant.
    pub key: String,
    /// What is wrong, and the right way. Holds no secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.key.is_empty()) {
            (Origin::Default, true) => f.write_str(&self.message),
            (Origin::Default, false) => write!(f, "{}: {}", self.key, self.message),
            (origin, true) => write!(f, "{origin}: {}", self.message),
            (origin, false) => write!(f, "{origin}: {}: {}", self.key, self.message),
        }
    }
}

/// Everything that is wrong with a configuration: one line, or a line each below a first one; in the order of the file.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.problems.as_slice() {
            return only.fmt(f);
        }
        write!(f, "the configuration has {} errors:", self.problems.len())?;
        for problem in self.problems.iter().take(SHOWN) {
            write!(f, "\n  {problem}")?;
        }
        match self.problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl fmt::Debug for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text from outside for a message: in quotes, escaped, cut.
#[must_use]
pub fn quoted(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start:?}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_outside_are_escaped_and_cut() {
        assert_eq!(quoted("a\u{1b}[2Jb"), "\"a\\u{1b}[2Jb\"");
        assert_eq!(quoted(&"x".repeat(1000)).chars().count(), LONGEST + 5);
    }

    #[test]
    fn problems_past_the_twentieth_are_counted() {
        let problem = Problem { origin: Origin::Default, key: "rate".to_owned(), message: "wrong".to_owned() };
        let errors = ConfigErrors { problems: vec![problem; 23] };
        let text = errors.to_string();
        assert_eq!(text.lines().count(), 22);
        assert!(text.ends_with("and 3 more"));
    }
}
