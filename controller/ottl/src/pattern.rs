//! Regular expressions as Go has them, and their replacements.
//!
//! Both engines take linear time, and agree on most of the syntax; what differs is rewritten here: `\d`, `\w`, `\s` and `\b` are of ASCII, `\Q…\E`
//! quotes, octal escapes are characters, brackets and ampersands in a class stand for themselves.

use std::fmt::Write;

use regex::{Captures, Regex, RegexBuilder};

/// The most bytes of a pattern.
pub(crate) const MAX_LENGTH: usize = 8 * 1024;
/// Bytes of a compiled pattern, and of what it remembers while it searches.
const MAX_SIZE: usize = 4 << 20;
/// The most times that Go lets a part be repeated by number.
const MAX_REPEAT: u32 = 1000;

/// Compiles `pattern`.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    compile_long(pattern, MAX_LENGTH)
}

/// Compiles `pattern`, which is at most `most` bytes long.
pub(crate) fn compile_long(pattern: &str, most: usize) -> Result<Regex, String> {
    if pattern.len() > most {
        return Err(format!("a regular expression is at most {most} bytes long"));
    }
    let rewritten =
        Rewriter { letters: pattern.chars().collect(), at: 0, out: String::new(), repeated: false }.whole()?;
    RegexBuilder::new(&rewritten).size_limit(MAX_SIZE).dfa_size_limit(MAX_SIZE).nest_limit(100).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(limit) => format!("the regular expression needs more than {limit} bytes"),
            other => {
                let text = other.to_string();
                format!(
                    "not a regular expression: {}",
                    text.lines().last().unwrap_or(&text).trim_start_matches("error: ")
                )
            }
        },
    )
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
