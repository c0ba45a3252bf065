//! What a process's environment says of its resource.

use percent_encoding::percent_decode_str;

/// Name of the service; counts before what [`RESOURCE_ATTRIBUTES`] says.
pub const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// Attributes as `key=value,key=value`, values percent-encoded.
pub const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// Bytes of one variable that are looked at.
const MAX_VARIABLE: usize = 16 << 10;
/// Attributes that are taken from one variable.
const MAX_PAIRS: usize = 64;

/// Those of the variables in `environ`, the text of `/proc/PID/environ`, that are `wanted`. As for `getenv`, the first of a name counts.
pub(super) fn variables(environ: &[u8], wanted: &[String]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for entry in environ.split(|&byte| byte == 0) {
        let Some(equals) = entry.iter().position(|&byte| byte == b'=') else { continue };
        let (name, value) = entry.split_at(equals);
        let Some(name) = wanted.iter().find(|wanted| wanted.as_bytes() == name) else { continue };
        if found.iter().any(|(known, _)| known == name) {
            continue;
        }
        let value = value.get(1..).unwrap_or_default();
        let value = value.get(..MAX_VARIABLE).unwrap_or(value);
        found.push((name.clone(), String::from_utf8_lossy(value).into_owned()));
        if found.len() == wanted.len() {
            break;
        }
    }
    found
}

/// What a list of attributes says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AttributeList {
    /// Keys and values in order; a key occurs once, with its last value.
    pub pairs: Vec<(String, String)>,
    /// Entries without `=` or key, and entries beyond the 64th.
    pub dropped: u64,
}

/// Reads the value of `OTEL_RESOURCE_ATTRIBUTES` as the SDKs do (held against those of Python and Go): white space around keys
/// and values goes, values are percent-decoded, the last value of a key counts, and an entry that is malformed costs no other.
#[must_use]
pub fn attribute_list(text: &str) -> AttributeList {
    let mut list = AttributeList::default();
    for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
        let Some((key, value)) = entry.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
            list.dropped += 1;
            continue;
        };
        let key = key.trim();
        let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
        if let Some((_, known)) = list.pairs.iter_mut().find(|(known, _)| known == key) {
            *known = value;
        } else if list.pairs.len() < MAX_PAIRS {
            list.pairs.push((key.to_owned(), value));
        } else {
            list.dropped += 1;
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn only_what_is_wanted_leaves_the_environment() {
        let environ = b"SECRET=hunter2\0OTEL_SERVICE_NAME=shop\0OTEL_SERVICE_NAME_=no\0XOTEL_SERVICE_NAME=no\0OTEL_SERVICE_NAME=second\0A=b=c\0";
        let found = variables(environ, &wanted(&["A", SERVICE_NAME, "MISSING"]));
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [(SERVICE_NAME, "shop"), ("A", "b=c")]);
    }

    #[test]
    fn an_environment_overwritten_by_its_process_is_harmless() {
        assert_eq!(variables(b"nginx: worker process\0\0\0=\0==\xff\xfe", &wanted(&["A"])), []);
        assert_eq!(variables(b"", &wanted(&["A"])), []);
        assert_eq!(variables(b"A=\xff", &wanted(&["A"])), [("A".to_owned(), "\u{fffd}".to_owned())]);
        let long = [b"A=".as_slice(), &[b'x'; MAX_VARIABLE * 2]].concat();
        assert_eq!(variables(&long, &wanted(&["A"])).first().map(|(_, value)| value.len()), Some(MAX_VARIABLE));
    }

    #[test]
    fn lists_are_bounded() {
        let text: String = (0..1000).map(|index| format!("k{index}=v,")).collect();
        let list = attribute_list(&text);
        assert_eq!((list.pairs.len(), list.dropped), (MAX_PAIRS, 1000 - MAX_PAIRS as u64));
    }
}
