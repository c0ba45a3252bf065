//! Text of others, made harmless before it reaches a terminal or a log.
//!
//! Who is profiled chooses the names of his functions, processes, files and groups; who receives, what he answers. Written as they are
//! they could drive a terminal, forge a line of the log, or turn the direction of what follows. So they are written with escapes, here
//! and nowhere else; what goes into a profile stays as it is, and is escaped by whoever shows that.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

/// What stands before each further line of a text: no line of a log begins so.
const FURTHER: &str = "\n    ";

/// Control characters (C0, DEL, C1), ends of lines and paragraphs, and what turns the direction of text or is not seen.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{061c}')
}

/// `text` in one line, with escapes such as `\u{1b}` and `\n` for what is deceptive.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_deceptive) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_deceptive(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// `text` as [`one_line`], but its lines stay lines, each further one indented: it may be a list of ours, or a forged line of his.
#[must_use]
pub fn lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            shown.push_str(FURTHER);
        }
        shown.push_str(&one_line(line));
    }
    shown
}

/// A path, as [`one_line`].
#[must_use]
pub fn path(path: &Path) -> String {
    one_line(&path.to_string_lossy()).into_owned()
}

/// JSON with escapes for what it leaves as it is; an end of a line ends an object.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    let is_left = |c| c != '\n' && is_deceptive(c);
    if !text.contains(is_left) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_left(c) {
            // None of them is beyond 16 bits.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deceptive_is_escaped_and_the_rest_stays() {
        let hostile = "a\u{1b}]0;x\u{7}b\rc\nd\u{9b}2Je\u{202e}f\u{2066}g\u{7f}h\u{2028}i";
        let shown = one_line(hostile);
        assert_eq!(shown, r"a\u{1b}]0;x\u{7}b\rc\nd\u{9b}2Je\u{202e}f\u{2066}g\u{7f}h\u{2028}i");
        assert_eq!(one_line("operator<=>(Größe, 字)"), "operator<=>(Größe, 字)");
        assert_eq!(lines("a\nERROR b\r\n  c"), "a\n    ERROR b\\r\n      c");
        assert_eq!(path(Path::new("/tmp/a\nb")), r"/tmp/a\nb");
    }

    #[test]
    fn json_stays_json_and_means_the_same() {
        let hostile = "\u{1b}[2J\u{9b}\u{202e}\u{7f}\n\"ü";
        let line = format!("{}\n", serde_json::json!({ "message": hostile }));
        let shown = json(&line);
        assert!(shown.trim_end().chars().all(|c| !is_deceptive(c)), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(read["message"], hostile);
    }
}
