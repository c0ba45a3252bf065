//! Text of the other side that goes into errors and logs.

use std::error::Error;

/// Characters of an answer that are shown.
const MAX_SHOWN: usize = 200;

/// `error` and what is behind it, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    excerpt(text.as_bytes())
}

/// The beginning of `bytes` as one line of at most 200 characters: no control characters, no runs of blanks.
#[must_use]
pub fn excerpt(bytes: &[u8]) -> String {
    line(bytes, MAX_SHOWN)
}

/// As [`excerpt`], of at most `most` characters.
#[must_use]
pub fn line(bytes: &[u8], most: usize) -> String {
    let head = bytes.get(..most.saturating_mul(4)).unwrap_or(bytes);
    let mut shown = String::new();
    let mut count = 0;
    for character in String::from_utf8_lossy(head).chars() {
        let character = if character.is_control() || character.is_whitespace() { ' ' } else { character };
        // Characters that change the direction of what follows, or that nobody sees.
        if matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
            || character == ' ' && (shown.is_empty() || shown.ends_with(' '))
        {
            continue;
        }
        if count == most {
            shown.push('…');
            break;
        }
        shown.push(character);
        count += 1;
    }
    shown.truncate(shown.trim_end().len());
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_one_short_harmless_line() {
        assert_eq!(excerpt(b"<html>\r\n\t<body>\x1b[31m  x\x00\xff"), "<html> <body> [31m x \u{fffd}");
        assert_eq!(excerpt("a\u{202e}b".as_bytes()), "ab");
        assert_eq!(excerpt(&[b'y'; 10_000]), format!("{}…", "y".repeat(200)));
        assert_eq!(excerpt(b" \n "), "");
    }
}
