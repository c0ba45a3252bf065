//! Patterns of `replace_match`: `*` and `**` for any text, `?` for one character, `[a-z]`, `[!a-z]`, `{one,other}`; a backslash quotes.

use regex::Regex;

/// The most bytes of a pattern.
const MAX_LENGTH: usize = 4 * 1024;

/// A pattern, ready to be held against texts.
#[derive(Clone, Debug)]
pub(crate) struct Glob {
    /// It never backtracks, and takes linear time.
    regex: Regex,
}

impl Glob {
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_LENGTH {
            return Err(format!("a pattern is at most {MAX_LENGTH} bytes long"));
        }
        let letters: Vec<char> = pattern.chars().collect();
        let mut out = String::from("(?s)\\A");
        let mut at = 0;
        let mut terms = 0_usize;
        while let Some(letter) = letters.get(at) {
            at += 1;
            match letter {
                '*' => {
                    at += usize::from(letters.get(at) == Some(&'*'));
                    out.push_str(".*");
                }
                '?' => out.push('.'),
                '\\' => {
                    if let Some(quoted) = letters.get(at) {
                        out.push_str(&regex::escape(&quoted.to_string()));
                        at += 1;
                    }
                }
                '{' => {
                    terms += 1;
                    out.push_str("(?:");
                }
                ',' if terms > 0 => out.push('|'),
                '}' if terms > 0 => {
                    terms -= 1;
                    out.push(')');
                }
                '[' => at = class(&letters, at, &mut out)?,
                _ => out.push_str(&regex::escape(&letter.to_string())),
            }
        }
        // One that is not closed ends where the pattern does.
        out.push_str(&")".repeat(terms));
        out.push_str("\\z");
        let regex = regex::RegexBuilder::new(&out)
            .size_limit(1 << 20)
            .nest_limit(100)
            .build()
            .map_err(|error| format!("not a pattern: {error}"))?;
        Ok(Self { regex })
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// Writes the class that begins at `at`; where it ends.
fn class(letters: &[char], mut at: usize, out: &mut String) -> Result<usize, String> {
    let mut take = || {
        let letter = letters.get(at).copied();
        at += 1;
        letter.ok_or_else(|| "a class has no closing bracket".to_owned())
    };
    out.push('[');
    let mut letter = take()?;
    if letter == '!' {
        out.push('^');
        letter = take()?;
    }
    let escaped = |letter: char| format!("\\x{{{:x}}}", u32::from(letter));
    let mut next = take()?;
    if next == '-' {
        let high = take()?;
        if high < letter {
            return Err(format!("a range from {letter:?} to {high:?} is empty"));
        }
        if take()? != ']' {
            return Err("a class has one range, or characters".to_owned());
        }
        out.push_str(&format!("{}-{}]", escaped(letter), escaped(high)));
        return Ok(at);
    }
    if letter == ']' {
        return Err("a class has no characters".to_owned());
    }
    loop {
        if letter == '\\' {
            letter = next;
            next = take()?;
        }
        out.push_str(&escaped(letter));
        if next == ']' {
            break;
        }
        letter = next;
        next = take()?;
    }
    out.push(']');
    Ok(at)
}
