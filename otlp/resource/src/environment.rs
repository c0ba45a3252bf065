//! What a process's environment says of its resource.

use percent_encoding::percent_decode_str;

/// Name of the service; counts before what [`RESOURCE_ATTRIBUTES`] says.
pub const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// Attributes as `key=value,key=value`, values percent-encoded.
pub const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// Attributes that are taken from one variable.
const MAX_PAIRS: usize = 64;

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

    #[test]
    fn lists_are_bounded() {
        let text: String = (0..1000).map(|index| format!("k{index}=v,")).collect();
        let list = attribute_list(&text);
        assert_eq!((list.pairs.len(), list.dropped), (MAX_PAIRS, 1000 - MAX_PAIRS as u64));
    }
}
