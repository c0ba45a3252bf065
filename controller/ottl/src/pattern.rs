//! Regular expressions as Go has them, and their replacements.
//!
//! Both engines take linear time, and agree on most of the syntax; what differs is rewritten here: `\d`, `\w`, `\s` and `\b` are of ASCII, `\Q…\E`
//! quotes, octal escapes are characters, brackets and ampersands in a class stand for themselves.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt::Write,
};

use regex::{Captures, Regex, RegexBuilder};

/// The most bytes of a pattern.
pub(crate) const MAX_LENGTH: usize = 8 * 1024;
/// Bytes of a compiled pattern, and of what it remembers while it searches.
const MAX_SIZE: usize = 4 << 20;
/// Of a pattern that is made while a rule runs.
const MAX_MADE: usize = 1 << 20;
/// All that one rule has, and makes while it runs.
pub(crate) const MAX_OF_RULE: usize = 8 << 20;
/// What a pattern is compiled within and counts as, the first that does: the library does not tell how much it took.
const SIZES: [usize; 3] = [128 << 10, MAX_MADE, MAX_SIZE];
/// Patterns made while rules run that are kept, a thread: as many as one rule can make.
const KEPT: usize = MAX_OF_RULE / MAX_MADE;
/// The most times that Go lets a part be repeated by number.
const MAX_REPEAT: u32 = 1000;

/// Compiles the patterns of one rule, and counts what they take.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    taken: Cell<usize>,
}

impl Patterns {
    /// Bytes that they count as.
    pub(crate) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Compiles `pattern`, which is at most `most` bytes long.
    pub(crate) fn compile(&self, pattern: &str, most: usize) -> Result<Regex, String> {
        let left = MAX_OF_RULE.saturating_sub(self.taken.get());
        match sized(pattern, most, left) {
            Ok((regex, size)) => self.take(size).map(|()| regex),
            Err(Refused::TooBig) if left < MAX_SIZE => Err(over()),
            Err(refused) => Err(refused.told(MAX_SIZE)),
        }
    }

    /// Counts one that is made while the rule runs.
    pub(crate) fn reserve(&self) -> Result<(), String> {
        self.take(MAX_MADE)
    }

    fn take(&self, size: usize) -> Result<(), String> {
        let taken = self.taken.get().saturating_add(size);
        if taken > MAX_OF_RULE {
            return Err(over());
        }
        self.taken.set(taken);
        Ok(())
    }
}

thread_local! {
    static MADE: RefCell<VecDeque<(String, Result<Regex, String>)>> = const { RefCell::new(VecDeque::new()) };
}

/// Compiles `pattern`, which is at most `most` bytes long, while a rule runs. Some are kept: on the next context it may be the same.
pub(crate) fn made(pattern: &str, most: usize) -> Result<Regex, String> {
    if pattern.len() > most {
        return Err(too_long(most));
    }
    MADE.with_borrow_mut(|kept| {
        if let Some(known) = kept.iter().position(|(text, _)| text == pattern).and_then(|at| kept.remove(at)) {
            let regex = known.1.clone();
            kept.push_back(known);
            return regex;
        }
        let compiled = sized(pattern, most, MAX_MADE).map(|(regex, _)| regex).map_err(|refused| refused.told(MAX_MADE));
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((pattern.to_owned(), compiled.clone()));
        compiled
    })
}

/// Why a pattern is not compiled.
#[derive(Debug)]
enum Refused {
    TooBig,
    Wrong(String),
}

impl Refused {
    fn told(self, limit: usize) -> String {
        match self {
            Self::TooBig => format!("the regular expression needs more than {limit} bytes"),
            Self::Wrong(message) => message,
        }
    }
}

fn over() -> String {
    format!("the regular expressions of one rule need more than {MAX_OF_RULE} bytes")
}

fn too_long(most: usize) -> String {
    format!("a regular expression is at most {most} bytes long")
}

/// Compiles `pattern` within the first of [`SIZES`] that does and is no more than `limit`.
fn sized(pattern: &str, most: usize, limit: usize) -> Result<(Regex, usize), Refused> {
    if pattern.len() > most {
        return Err(Refused::Wrong(too_long(most)));
    }
    let letters = pattern.chars().collect();
    let rewritten = Rewriter { letters, at: 0, out: String::new(), repeated: false }.whole().map_err(Refused::Wrong)?;
    for size in SIZES.into_iter().filter(|size| *size <= limit) {
        match RegexBuilder::new(&rewritten).size_limit(size).dfa_size_limit(size).nest_limit(100).build() {
            Ok(regex) => return Ok((regex, size)),
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(other) => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or(&text).trim_start_matches("error: ");
                return Err(Refused::Wrong(format!("not a regular expression: {last}")));
            }
        }
    }
    Err(Refused::TooBig)
}

struct Rewriter {
    letters: Vec<char>,
    at: usize,
    out: String,
    /// Whether what was just written is a repetition.
    repeated: bool,
}

impl Rewriter {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.letters.get(self.at + ahead).copied()
    }

    fn literal(&mut self, letter: char) {
        self.out.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
    }

    fn whole(mut self) -> Result<String, String> {
        while let Some(letter) = self.peek(0) {
            let repeats = std::mem::take(&mut self.repeated);
            match letter {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    if repeats {
                        return Err(format!("`{letter}` repeats what is already repeated"));
                    }
                    self.repetition(letter.to_string());
                }
                '{' => match self.counted()? {
                    Some(_) if repeats => return Err("`{` repeats what is already repeated".to_owned()),
                    Some(counted) => self.repetition(counted),
                    None => {
                        self.out.push_str("\\{");
                        self.at += 1;
                    }
                },
                '}' => {
                    self.out.push_str("\\}");
                    self.at += 1;
                }
                '(' => self.group()?,
                _ => {
                    self.out.push(letter);
                    self.at += 1;
                }
            }
        }
        Ok(self.out)
    }

    /// A repetition of the last part, and the `?` that makes it lazy.
    fn repetition(&mut self, spelled: String) {
        self.at += spelled.chars().count();
        self.out.push_str(&spelled);
        if self.peek(0) == Some('?') {
            self.out.push('?');
            self.at += 1;
        }
        self.repeated = true;
    }

    /// `{n}`, `{n,}` or `{n,m}`; anything else in braces stands for itself.
    fn counted(&self) -> Result<Option<String>, String> {
        let inner: String = self.letters[self.at + 1..]
            .iter()
            .take_while(|letter| letter.is_ascii_digit() || **letter == ',')
            .collect();
        if self.letters.get(self.at + 1 + inner.len()) != Some(&'}') {
            return Ok(None);
        }
        let (low, high) = inner.split_once(',').unwrap_or((&inner, &inner));
        if low.is_empty() || high.contains(',') {
            return Ok(None);
        }
        let number = |text: &str| {
            text.parse::<u32>()
                .ok()
                .filter(|number| *number <= MAX_REPEAT)
                .ok_or(format!("a part is repeated at most {MAX_REPEAT} times"))
        };
        let least = number(low)?;
        if !high.is_empty() && number(high)? < least {
            return Err("a part is repeated at least more often than at most".to_owned());
        }
        Ok(Some(format!("{{{inner}}}")))
    }

    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        self.at += 1;
        if self.peek(0) != Some('?') {
            return Ok(());
        }
        match (self.peek(1), self.peek(2)) {
            (Some('P'), Some('<')) | (Some('<'), Some(_)) => {}
            _ => {
                let flags = self.letters[self.at + 1..].iter().take_while(|letter| !matches!(letter, ':' | ')'));
                if let Some(flag) = flags.clone().find(|flag| !matches!(flag, 'i' | 'm' | 's' | 'U' | '-')) {
                    return Err(format!("`(?{flag}` is no group"));
                }
                if flags.count() == 0 && self.peek(1) == Some(')') {
                    return Err("`(?)` sets no flag".to_owned());
                }
            }
        }
        // Looking ahead and behind is refused by both.
        self.out.push('?');
        self.at += 1;
        while let Some(letter) = self.peek(0).filter(|letter| !matches!(letter, ':' | ')' | '>')) {
            self.out.push(letter);
            self.at += 1;
        }
        if let Some(end) = self.peek(0) {
            self.out.push(end);
            self.at += 1;
        }
        Ok(())
    }

    /// A backslash and what follows; `inside` a class.
    fn escape(&mut self, inside: bool) -> Result<(), String> {
        let Some(letter) = self.peek(1) else { return Err("a backslash at the end".to_owned()) };
        self.at += 2;
        let perl = match letter {
            'd' => Some(("0-9", false)),
            'D' => Some(("0-9", true)),
            'w' => Some(("0-9A-Za-z_", false)),
            'W' => Some(("0-9A-Za-z_", true)),
            's' => Some((r"\t\n\f\r ", false)),
            'S' => Some((r"\t\n\f\r ", true)),
            _ => None,
        };
        if let Some((class, negated)) = perl {
            let _ = match (inside, negated) {
                (true, false) => write!(self.out, "{class}"),
                (_, true) => write!(self.out, "[^{class}]"),
                (false, false) => write!(self.out, "[{class}]"),
            };
            return Ok(());
        }
        match letter {
            'b' | 'B' if !inside => {
                let _ = write!(self.out, r"(?-u:\{letter})");
            }
            'A' | 'z' if !inside => {
                let _ = write!(self.out, r"\{letter}");
            }
            'a' | 'f' | 'n' | 'r' | 't' | 'v' => {
                let _ = write!(self.out, r"\{letter}");
            }
            'p' | 'P' => {
                let _ = write!(self.out, r"\{letter}");
                if self.peek(0) == Some('{') {
                    while let Some(inner) = self.peek(0) {
                        self.out.push(inner);
                        self.at += 1;
                        if inner == '}' {
                            break;
                        }
                    }
                } else if let Some(name) = self.peek(0) {
                    self.out.push(name);
                    self.at += 1;
                }
            }
            'x' => self.hexadecimal()?,
            'Q' if !inside => self.quoted(),
            'E' if !inside => {}
            '0'..='7' => self.octal(letter)?,
            _ if letter.is_ascii_alphanumeric() => {
                return Err(format!(r"`\{letter}` is no escape of a regular expression"));
            }
            _ if !letter.is_ascii() => return Err(format!(r"`\{letter}` is no escape of a regular expression")),
            _ => {
                let _ = write!(self.out, r"\x{{{:x}}}", u32::from(letter));
            }
        }
        Ok(())
    }

    fn hexadecimal(&mut self) -> Result<(), String> {
        let braced = self.peek(0) == Some('{');
        self.at += usize::from(braced);
        let digits: String = self.letters[self.at..]
            .iter()
            .take(if braced { 8 } else { 2 })
            .take_while(|letter| letter.is_ascii_hexdigit())
            .collect();
        self.at += digits.len();
        let closed = !braced || self.peek(0) == Some('}');
        self.at += usize::from(braced && closed);
        if !closed || digits.is_empty() || (!braced && digits.len() != 2) {
            return Err(r"`\x` is followed by two hexadecimal digits, or more in braces".to_owned());
        }
        let _ = write!(self.out, r"\x{{{digits}}}");
        Ok(())
    }

    fn octal(&mut self, first: char) -> Result<(), String> {
        let more: String =
            self.letters[self.at..].iter().take(2).take_while(|letter| matches!(letter, '0'..='7')).collect();
        if first != '0' && more.is_empty() {
            return Err(format!(r"`\{first}` refers back, which no regular expression here may"));
        }
        self.at += more.len();
        let value = u32::from_str_radix(&format!("{first}{more}"), 8).map_err(|error| error.to_string())?;
        let _ = write!(self.out, r"\x{{{value:x}}}");
        Ok(())
    }

    fn quoted(&mut self) {
        while let Some(letter) = self.peek(0) {
            if letter == '\\' && self.peek(1) == Some('E') {
                self.at += 2;
                return;
            }
            self.literal(letter);
            self.at += 1;
        }
    }

    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        self.at += 1;
        if self.peek(0) == Some('^') {
            self.out.push('^');
            self.at += 1;
        }
        let mut first = true;
        loop {
            match self.peek(0) {
                None => return Err("a class has no closing bracket".to_owned()),
                Some(']') if !first => {
                    self.out.push(']');
                    self.at += 1;
                    return Ok(());
                }
                Some('\\') => self.escape(true)?,
                Some('[') if self.peek(1) == Some(':') => {
                    let name: String = self.letters[self.at..].iter().collect();
                    let Some(end) = name.find(":]") else {
                        self.out.push_str("\\[");
                        self.at += 1;
                        continue;
                    };
                    let name = &name[..end + 2];
                    self.out.push_str(name);
                    self.at += name.chars().count();
                }
                Some('-') => {
                    // Go has it stand for itself only at the ends.
                    if !first && self.peek(1) != Some(']') && self.peek(1).is_some() {
                        let last = self.letters.get(self.at.wrapping_sub(1)).copied();
                        if self.peek(1) == Some('-') || last.is_none() {
                            return Err("a class has a range without an end".to_owned());
                        }
                        self.out.push('-');
                    } else {
                        self.out.push_str("\\-");
                    }
                    self.at += 1;
                }
                Some(letter) => {
                    match letter {
                        '[' | ']' | '&' | '~' | '^' => {
                            let _ = write!(self.out, "\\{letter}");
                        }
                        _ => self.out.push(letter),
                    }
                    self.at += 1;
                }
            }
            first = false;
        }
    }
}

/// Appends `template` to `text`, `$1`, `$name` and `${name}` in it being what `captures` has of `groups`.
pub(crate) fn expand(text: &mut String, template: &str, pattern: &Regex, captures: &Captures<'_>) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        text.push_str(rest.get(..at).unwrap_or_default());
        rest = rest.get(at..).unwrap_or_default();
        if let Some(behind) = rest.strip_prefix("$$") {
            text.push('$');
            rest = behind;
            continue;
        }
        let Some((name, behind)) = reference(rest) else {
            text.push('$');
            rest = rest.get(1..).unwrap_or_default();
            continue;
        };
        rest = behind;
        text.push_str(group(name, pattern, captures));
    }
    text.push_str(rest);
}

/// The name that `text`, which begins with a dollar, refers to, and what follows.
fn reference(text: &str) -> Option<(&str, &str)> {
    let behind = text.get(1..)?;
    let (braced, behind) = behind.strip_prefix('{').map_or((false, behind), |behind| (true, behind));
    let end = behind
        .find(|letter: char| !(letter.is_alphabetic() || letter.is_numeric() || letter == '_'))
        .unwrap_or(behind.len());
    let name = behind.get(..end).filter(|name| !name.is_empty())?;
    let rest = behind.get(end..)?;
    if braced { rest.strip_prefix('}').map(|rest| (name, rest)) } else { Some((name, rest)) }
}

fn group<'t>(name: &str, pattern: &Regex, captures: &Captures<'t>) -> &'t str {
    let number = name.bytes().all(|byte| byte.is_ascii_digit()) && (name.len() == 1 || !name.starts_with('0'));
    if number {
        return name.parse::<usize>().ok().and_then(|at| captures.get(at)).map_or("", |found| found.as_str());
    }
    pattern
        .capture_names()
        .zip(captures.iter())
        .find_map(|(known, found)| found.filter(|_| known == Some(name)))
        .map_or("", |found| found.as_str())
}

/// `text` with each match of `pattern` replaced by what `replace` makes of it.
pub(crate) fn replace<E>(
    pattern: &Regex,
    text: &str,
    mut replace: impl FnMut(&Captures<'_>) -> Result<String, E>,
) -> Result<String, E> {
    let mut replaced = String::with_capacity(text.len());
    let mut last = 0;
    for captures in pattern.captures_iter(text) {
        let Some(found) = captures.get(0) else { continue };
        replaced.push_str(text.get(last..found.start()).unwrap_or_default());
        replaced.push_str(&replace(&captures)?);
        last = found.end();
    }
    replaced.push_str(text.get(last..).unwrap_or_default());
    Ok(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_while_a_rule_runs_is_compiled_once_and_a_bounded_number_is_kept() {
        let kept = || MADE.with_borrow(|kept| kept.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>());
        for _ in 0..3 {
            assert!(made("^a+$", MAX_LENGTH).unwrap().is_match("aa"));
            // What is wrong takes as long to compile.
            assert!(made("(a", MAX_LENGTH).is_err() && made("((a{1000}){1000}){1000}", MAX_LENGTH).is_err());
            assert!(made(&"a".repeat(MAX_LENGTH + 1), MAX_LENGTH).is_err(), "not kept");
        }
        assert_eq!(kept(), ["^a+$", "(a", "((a{1000}){1000}){1000}"]);
        for count in 0..2 * KEPT {
            made(&format!("b{{{count}}}"), MAX_LENGTH).unwrap();
            made("^a+$", MAX_LENGTH).unwrap();
            assert!(kept().len() <= KEPT && kept().contains(&"^a+$".to_owned()), "what is used stays");
        }
    }

    #[test]
    fn the_patterns_of_a_rule_count_together() {
        let patterns = Patterns::default();
        for count in 1..=4 {
            patterns.compile("^(shop|cart)$", MAX_LENGTH).unwrap();
            assert_eq!(patterns.taken(), count * SIZES[0]);
        }
        // What one counts as is enough for it.
        for pattern in ["a", r"\pL", r"\pL{30}", "(?:a|b){900}"] {
            let (_, size) = sized(pattern, MAX_LENGTH, MAX_SIZE).expect(pattern);
            assert!(RegexBuilder::new(pattern).size_limit(size).build().is_ok(), "{pattern}");
        }
        for _ in 0..6 {
            patterns.reserve().unwrap();
        }
        let before = patterns.taken();
        let error = patterns.compile(r"\pL{300}", MAX_LENGTH).unwrap_err();
        assert!(error.contains("of one rule need more than 8388608 bytes"), "{error}");
        assert_eq!(patterns.taken(), before);
        let error = Patterns::default().compile("((a{1000}){1000}){1000}", MAX_LENGTH).unwrap_err();
        assert!(error.contains("the regular expression needs more than 4194304 bytes"), "{error}");
    }
}
