//! A row of comma-separated values, as Go's reader has it; of several lines, the last field of one and the first of the next are one.

/// The fields of `text`.
pub(super) fn row(text: &str, comma: char, lazy: bool) -> Result<Vec<String>, String> {
    if matches!(comma, '"' | '\r' | '\n' | '\u{fffd}') {
        return Err(format!("{comma:?} cannot be a delimiter"));
    }
    let mut row: Vec<String> = Vec::new();
    let mut lines = text.split_inclusive('\n').map(ended);
    let mut any = false;
    while let Some(line) = lines.next() {
        // A line with nothing on it is passed over.
        if line == "\n" {
            continue;
        }
        let fields = record(line, &mut lines, comma, lazy)?;
        if any {
            let mut fields = fields.into_iter();
            if let (Some(last), Some(first)) = (row.last_mut(), fields.next()) {
                last.push('\n');
                last.push_str(&first);
            }
            row.extend(fields);
        } else {
            row = fields;
        }
        any = true;
    }
    if any { Ok(row) } else { Err("there is no row".to_owned()) }
}

/// A line whose end is `\n`, or nothing at the end of the text.
fn ended(line: &str) -> String {
    match line.strip_suffix("\r\n") {
        Some(rest) => format!("{rest}\n"),
        // The last line of all may end so.
        None => line.strip_suffix('\r').unwrap_or(line).to_owned(),
    }
}

fn record(
    line: String,
    lines: &mut impl Iterator<Item = String>,
    comma: char,
    lazy: bool,
) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut line = line;
    let mut at = 0;
    loop {
        let rest = line.get(at..).unwrap_or_default();
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(comma);
            let field = match end {
                Some(end) => rest.get(..end).unwrap_or_default(),
                None => rest.strip_suffix('\n').unwrap_or(rest),
            };
            if !lazy && field.contains('"') {
                return Err("a quote in a field that does not begin with one".to_owned());
            }
            fields.push(field.to_owned());
            match end {
                Some(end) => at += end + comma.len_utf8(),
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut inner = quoted.to_owned();
        loop {
            let Some(quote) = inner.find('"') else {
                if inner.is_empty() {
                    // The text ends within quotes.
                    if !lazy {
                        return Err("a quote is not closed".to_owned());
                    }
                    fields.push(field);
                    return Ok(fields);
                }
                field.push_str(&inner);
                inner = lines.next().unwrap_or_default();
                continue;
            };
            field.push_str(inner.get(..quote).unwrap_or_default());
            let behind = inner.get(quote + 1..).unwrap_or_default();
            if let Some(rest) = behind.strip_prefix('"') {
                field.push('"');
                inner = rest.to_owned();
            } else if let Some(rest) = behind.strip_prefix(comma) {
                fields.push(field);
                line = rest.to_owned();
                at = 0;
                break;
            } else if behind.is_empty() || behind == "\n" {
                fields.push(field);
                return Ok(fields);
            } else if lazy {
                field.push('"');
                inner = behind.to_owned();
            } else {
                return Err("a quote within a field in quotes".to_owned());
            }
        }
    }
}
