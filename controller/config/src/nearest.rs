//! The name that was probably meant.

use super::errors::quoted;

/// The one of `names` that `wrong` is a slip of, if it is near enough to be one.
#[must_use]
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A name longer than any of ours would only cost time.
    if wrong.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', ' ', '.'], "_");
    let wrong = plain(wrong);
    let distance = |name: &str| strsim::damerau_levenshtein(&wrong, &plain(name));
    let near = |(distance, name): &(usize, &str)| *distance <= (name.len().max(wrong.len()) / 3).max(1);
    names.into_iter().map(|name| (distance(name), name)).filter(near).min().map(|(_, name)| name)
}

/// The message for a key that does not exist: `names` are those that do at this place, `elsewhere` all paths.
pub(super) fn unknown_key<'a>(wrong: &str, names: &[&'a str], elsewhere: impl IntoIterator<Item = &'a str>) -> String {
    let shown = quoted(wrong);
    if let Some(near) = nearest(wrong, names.iter().copied()) {
        return format!("there is no key {shown}; did you mean {near}?");
    }
    let tail = format!(".{wrong}");
    if let Some(path) = elsewhere.into_iter().find(|path| *path == wrong || path.ends_with(&tail)) {
        return format!("there is no key {shown} here; there is {path}");
    }
    format!("there is no key {shown}; here may stand: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let names = ["rate", "window", "exporters", "kill_switch"];
        for (wrong, right) in
            [("raet", "rate"), ("Rate", "rate"), ("exporter", "exporters"), ("kill-switch", "kill_switch")]
        {
            assert_eq!(nearest(wrong, names), Some(right), "{wrong}");
        }
        assert_eq!(nearest("processors", names), None);
        assert_eq!(nearest(&"rate".repeat(100), names), None);
    }
}
