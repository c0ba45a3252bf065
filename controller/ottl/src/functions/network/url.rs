//! The parts of a URL, as Go's parser has them.

use crate::value::{Map, Value};

/// The parts of `text`, by the names of OpenTelemetry's conventions; of `?a=b`, the values of its parameters.
pub(super) fn parts(text: &str) -> Result<Map, String> {
    if text.is_empty() {
        return Err("an empty string is no URL".to_owned());
    }
    if let Some(query) = text.strip_prefix('?') {
        return parameters(query);
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("a URL has no control characters".to_owned());
    }
    let (rest, fragment) = text.split_once('#').map_or((text, None), |(rest, fragment)| (rest, Some(fragment)));
    let fragment = fragment.map(|fragment| unescape(fragment, Part::Fragment)).transpose()?.unwrap_or_default();
    let (scheme, rest) = scheme(rest)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url { scheme: scheme.to_ascii_lowercase(), query, fragment, ..Url::default() };
    let rooted = rest.starts_with('/');
    if !rooted && !url.scheme.is_empty() {
        // What has no slash behind the scheme is opaque, and has no path.
        return url.map(text);
    }
    if !rooted && rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
        return Err("the first part of a path has a colon".to_owned());
    }
    let authority = rest.strip_prefix("//").filter(|_| !url.scheme.is_empty() || !rest.starts_with("///"));
    let path = match authority {
        Some(behind) => {
            let (authority, path) = behind.find('/').map_or((behind, ""), |at| behind.split_at(at));
            url.authority(authority)?;
            path
        }
        None => rest,
    };
    url.path = unescape(path, Part::Path)?;
    url.map(text)
}

/// The scheme in front of a colon, if there is one.
fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, letter) in text.bytes().enumerate() {
        match letter {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("a URL has no scheme in front of its colon".to_owned()),
            b':' => return Ok((text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default())),
            _ => break,
        }
    }
    Ok(("", text))
}

#[derive(Default)]
struct Url<'t> {
    scheme: String,
    user: Option<(String, Option<String>)>,
    host: String,
    port: String,
    path: String,
    query: &'t str,
    fragment: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Fragment,
    User,
    Host,
    Query,
}

fn unescape(text: &str, part: Part) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'%' => {
                let digits =
                    rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(crate::text::from_hex);
                let Some(&[value]) = digits.as_deref() else {
                    return Err("a per cent sign is followed by two hexadecimal digits".to_owned());
                };
                if part == Part::Host && value < 0x80 && value != b'%' {
                    return Err("a host has no escapes of ASCII".to_owned());
                }
                bytes.push(value);
                rest = rest.get(2..).unwrap_or_default();
            }
            b'+' if part == Part::Query => bytes.push(b' '),
            b' ' | b'"' | b'\\' | b'^' | b'`' | b'{' | b'}' | b'|' if part == Part::Host => {
                return Err("this host has characters that none has".to_owned());
            }
            _ => bytes.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A user or password as a URL has it.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,;=".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&crate::text::hex(&[byte]).to_uppercase());
        }
        out
    })
}

impl Url<'_> {
    fn authority(&mut self, authority: &str) -> Result<(), String> {
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        if let Some(user) = user {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
            if !user.bytes().all(good) {
                return Err("a user has characters that none has".to_owned());
            }
            self.user = Some(match user.split_once(':') {
                Some((name, password)) => (unescape(name, Part::User)?, Some(unescape(password, Part::User)?)),
                None => (unescape(user, Part::User)?, None),
            });
        }
        let (name, port) = match host.strip_prefix('[') {
            Some(inner) => {
                let (address, behind) =
                    inner.rsplit_once(']').ok_or_else(|| "a bracket of a host is not closed".to_owned())?;
                (address.to_owned(), behind)
            }
            None => {
                let at = host.rfind(':').unwrap_or(host.len());
                (unescape(host.get(..at).unwrap_or_default(), Part::Host)?, host.get(at..).unwrap_or_default())
            }
        };
        let digits = port.strip_prefix(':').unwrap_or(port);
        if !(port.is_empty() || port.starts_with(':')) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("{port:?} is no port"));
        }
        self.host = name;
        digits.clone_into(&mut self.port);
        Ok(())
    }

    fn map(self, text: &str) -> Result<Map, String> {
        let mut map = Map::new();
        map.push("url.original", Value::text(text));
        map.push("url.domain", Value::text(self.host));
        map.push("url.scheme", Value::text(self.scheme));
        map.push("url.path", Value::text(self.path.as_str()));
        if !self.port.is_empty() {
            let port: i64 = self.port.parse().map_err(|_| format!("{:?} is no port", self.port))?;
            map.push("url.port", Value::Int(port));
        }
        if !self.fragment.is_empty() {
            map.push("url.fragment", Value::text(self.fragment));
        }
        if let Some((name, password)) = self.user {
            let shown = password
                .as_ref()
                .map_or_else(|| escaped(&name), |password| format!("{}:{}", escaped(&name), escaped(password)));
            map.push("url.user_info", Value::text(shown));
            if !name.is_empty() {
                map.push("url.username", Value::text(name));
            }
            if let Some(password) = password {
                map.push("url.password", Value::text(password));
            }
        }
        if !self.query.is_empty() {
            map.push("url.query", Value::text(self.query));
        }
        if let Some((_, extension)) = self.path.rsplit_once('.')
            && !extension.is_empty()
        {
            map.push("url.extension", Value::text(extension));
        }
        Ok(map)
    }
}

/// The values of the parameters of a query.
fn parameters(query: &str) -> Result<Map, String> {
    let mut values: Vec<(String, Vec<Value<'static>>)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if pair.contains(';') {
            return Err("a query has semicolons".to_owned());
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (unescape(key, Part::Query)?, Value::text(unescape(value, Part::Query)?));
        match values.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => known.push(value),
            None => values.push((key, vec![value])),
        }
    }
    let mut map = Map::new();
    if !values.is_empty() {
        map.push("query", Value::map(values.into_iter().map(|(key, values)| (key, Value::list(values))).collect()));
    }
    Ok(map)
}
