//! The formats of `Time` and `FormatTime`: `%Y-%m-%d`, by way of Go's layouts.

use std::time::SystemTime;

use super::{
    Place, Time,
    layout::{self, Misfit},
};

/// What a directive is written as, and the forms that it is read in.
struct Directive {
    letter: char,
    layout: &'static str,
    read: &'static [&'static [&'static str]],
}

const fn same(letter: char, layout: &'static str) -> Directive {
    Directive { letter, layout, read: &[] }
}

const fn lenient(letter: char, layout: &'static str, read: &'static [&'static [&'static str]]) -> Directive {
    Directive { letter, layout, read }
}

const DATES: &[&[&str]] = &[&["1", "/", "2", "/", "2006"], &["1", "/", "2", "/", "06"]];

const DIRECTIVES: &[Directive] = &[
    same('Y', "2006"),
    same('y', "06"),
    lenient('m', "01", &[&["1"]]),
    lenient('o', "_1", &[&["1"]]),
    lenient('q', "1", &[&["1"]]),
    same('b', "Jan"),
    same('h', "Jan"),
    same('B', "January"),
    lenient('d', "02", &[&["2"]]),
    lenient('e', "_2", &[&["2"]]),
    lenient('g', "2", &[&["2"]]),
    same('a', "Mon"),
    same('A', "Monday"),
    same('H', "15"),
    same('l', "3"),
    lenient('I', "03", &[&["3"]]),
    same('p', "PM"),
    same('P', "pm"),
    lenient('M', "04", &[&["4"]]),
    lenient('S', "05", &[&["5"]]),
    same('L', "999"),
    same('f', "999999"),
    same('s', "999999999"),
    same('Z', "MST"),
    lenient('z', "Z0700", &[&["Z0700"], &["Z07:00"], &["Z07"]]),
    same('w', "-070000"),
    same('i', "-07"),
    same('j', "-07:00"),
    same('k', "-07:00:00"),
    lenient('D', "01/02/2006", DATES),
    lenient('x', "01/02/2006", DATES),
    lenient('F', "2006-01-02", &[&["2006", "-", "1", "-", "2"]]),
    lenient('T', "15:04:05", &[&["15", ":", "4", ":", "5"]]),
    lenient('X', "15:04:05", &[&["15", ":", "4", ":", "5"]]),
    lenient('r', "03:04:05 pm", &[&["3", ":", "4", ":", "5", " ", "pm"]]),
    lenient('R', "15:04", &[&["15", ":", "4"]]),
    same('n', "\n"),
    same('t', "\t"),
    same('%', "%"),
    lenient(
        'c',
        "Mon Jan 02 15:04:05 2006",
        &[&["Mon", " ", "Jan", " ", "2", " ", "15", ":", "4", ":", "5", " ", "2006"]],
    ),
];

/// The most directives of a format: each may be read in three forms.
const MAX_DIRECTIVES: usize = 32;

/// A format, cut at its directives.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    /// Text, and the directive behind it.
    parts: Vec<(String, char)>,
    rest: String,
    /// Whether it says that times are UTC.
    pub zulu: bool,
}

impl Format {
    pub(crate) fn new(format: &str) -> Result<Self, String> {
        if format.is_empty() {
            return Err("a format may not be empty".to_owned());
        }
        if format.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err("a format may not have digits".to_owned());
        }
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut letters = format.chars();
        let mut before = None;
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                before = Some(letter);
                continue;
            }
            let Some(directive) = letters.next() else {
                text.push('%');
                break;
            };
            if !DIRECTIVES.iter().any(|known| known.letter == directive) {
                return Err(format!("%{directive} is no directive of a format"));
            }
            if matches!(directive, 'L' | 'f' | 's') && before.is_some_and(|before| !matches!(before, '.' | ',')) {
                return Err(format!("%{directive} must follow a point or comma"));
            }
            before = Some(directive);
            parts.push((std::mem::take(&mut text), directive));
        }
        if parts.len() > MAX_DIRECTIVES {
            return Err(format!("a format has at most {MAX_DIRECTIVES} directives"));
        }
        Ok(Self { parts, rest: text, zulu: format.ends_with('Z') })
    }

    pub(crate) fn write(&self, time: &Time) -> String {
        let mut whole = String::new();
        for (text, letter) in &self.parts {
            whole.push_str(text);
            whole.push_str(directive(*letter).layout);
        }
        whole.push_str(&self.rest);
        layout::format(&whole, time)
    }

    pub(crate) fn read(&self, text: &str, place: &Place) -> Result<Time, String> {
        self.attempt(String::new(), 0, text, place).map_err(|misfit| misfit.message)
    }

    /// Reads `text` with the directives from `at` on in all their forms.
    fn attempt(&self, before: String, at: usize, text: &str, place: &Place) -> Result<Time, Misfit> {
        let Some((literal, letter)) = self.parts.get(at) else { return read_in(&(before + &self.rest), text, place) };
        let before = before + literal;
        let directive = directive(*letter);
        let plain: &[&[&str]] = &[&[directive.layout]];
        let mut last = Misfit { element: String::new(), found: String::new(), message: String::new() };
        for form in if directive.read.is_empty() { plain } else { directive.read } {
            let mut elements: Vec<String> = form.iter().map(|element| (*element).to_owned()).collect();
            loop {
                let mut misfit = match self.attempt(before.clone() + &elements.concat(), at + 1, text, place) {
                    Ok(time) => return Ok(time),
                    Err(misfit) => misfit,
                };
                // It is this directive that does not fit, and perhaps for spaces in front of it.
                let wrong =
                    elements.iter().position(|element| !misfit.element.is_empty() && *element == misfit.element);
                let Some(wrong) = wrong else { return Err(misfit) };
                let spaces: String = misfit
                    .found
                    .chars()
                    .take_while(|letter| matches!(letter, ' ' | '\t' | '\n' | '\r' | '\u{c}'))
                    .collect();
                let number = elements[wrong].starts_with(|letter: char| letter.is_ascii_digit() || letter == 'Z');
                if number && !spaces.is_empty() && elements.len() < 64 {
                    elements.insert(wrong, spaces);
                    continue;
                }
                misfit.element = format!("%{letter}");
                last = misfit;
                break;
            }
        }
        Err(last)
    }
}

fn directive(letter: char) -> &'static Directive {
    DIRECTIVES.iter().find(|known| known.letter == letter).unwrap_or(&DIRECTIVES[0])
}

/// Reads `text`, in the zone that it names if that has an offset, and in this year if it names none.
fn read_in(form: &str, text: &str, place: &Place) -> Result<Time, Misfit> {
    let mut time = layout::parse(form, text, place)?;
    let (offset, zone) = time.zone();
    let (_, local) = place.at(time.nanos());
    if offset == 0 && &*zone != "UTC" && zone != local {
        let Some(named) = Place::named(&zone) else {
            return Err(Misfit {
                element: String::new(),
                found: String::new(),
                message: format!("{zone:?} is no time zone"),
            });
        };
        time = layout::parse(form, text, &named).unwrap_or(time);
    }
    Ok(with_year(time))
}

fn with_year(time: Time) -> Time {
    let mut civil = time.civil();
    if civil.year > 0 {
        return time;
    }
    let now = now();
    civil.year = now.civil().year;
    let week = 7 * 86_400 * super::NANOS;
    let at = |civil: super::Civil| Time::told_in(time.place.when(civil.nanos()), time.place.clone());
    if at(civil).nanos() > now.nanos() + week {
        civil.year -= 1;
    }
    at(civil)
}

/// The time now, told in this machine's zone.
pub(crate) fn now() -> Time {
    let nanos = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or_default());
    Time::told_in(nanos, Place::local())
}
