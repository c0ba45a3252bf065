//! Labels whose key an encoding needs for itself.
//!
//! Threads, processes and times travel as labels too, under keys that mean them. A label of a user with such a key is written
//! behind `label.`, which reading takes off again.

use std::borrow::Cow;

const ESCAPE: &str = "label.";

/// The key to write for a label `key`, where `reserved` keys have a meaning of their own.
pub(crate) fn escaped<'a>(key: &'a str, reserved: &[&str]) -> Cow<'a, str> {
    if key.is_empty() || key.starts_with(ESCAPE) || reserved.contains(&key) {
        format!("{ESCAPE}{key}").into()
    } else {
        key.into()
    }
}

/// The key of the label that was written as `key`.
pub(crate) fn unescaped(key: &str) -> &str {
    key.strip_prefix(ESCAPE).unwrap_or(key)
}
