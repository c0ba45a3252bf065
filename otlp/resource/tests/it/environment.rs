//! `OTEL_RESOURCE_ATTRIBUTES` as the SDKs read it. The answers are those of the resource detectors of Python (opentelemetry-sdk
//! 1.45.2) and Go (sdk/resource v1.47.0), asked once.

use profiler_resource::attribute_list;
use proptest::prelude::*;

type Pairs = &'static [(&'static str, &'static str)];

/// Text and what both say.
const BOTH: &[(&str, Pairs)] = &[
    ("", &[]),
    ("a=b", &[("a", "b")]),
    ("key1=value1,key2=value2", &[("key1", "value1"), ("key2", "value2")]),
    (" a = b , c = d ", &[("a", "b"), ("c", "d")]),
    ("a=b=c", &[("a", "b=c")]),
    ("a", &[]),
    ("a,b=c", &[("b", "c")]),
    ("=x", &[]),
    ("a=", &[("a", "")]),
    ("a=b,a=c", &[("a", "c")]),
    (",,a=b,,", &[("a", "b")]),
    ("a=%20b%20", &[("a", " b ")]),
    ("a=%2C%3D%25", &[("a", ",=%")]),
    ("a=%zz", &[("a", "%zz")]),
    ("a=%", &[("a", "%")]),
    ("a=%4", &[("a", "%4")]),
    ("a=100%", &[("a", "100%")]),
    ("a=%C3%A9", &[("a", "é")]),
    ("a=%ff", &[("a", "\u{fffd}")]),
    ("a=é", &[("a", "é")]),
    (
        "service.name=shop,service.namespace=eu%2Fwest,service.version=1.2.3",
        &[("service.name", "shop"), ("service.namespace", "eu/west"), ("service.version", "1.2.3")],
    ),
    ("a=b;c=d", &[("a", "b;c=d")]),
    ("a=\"quoted\"", &[("a", "\"quoted\"")]),
    ("a=b+c", &[("a", "b+c")]),
    ("a= b c ", &[("a", "b c")]),
    ("a =b", &[("a", "b")]),
    ("a=\tb\t", &[("a", "b")]),
    ("deployment.environment.name=prod,team=a%26b", &[("deployment.environment.name", "prod"), ("team", "a&b")]),
    ("a=%00b", &[("a", "\0b")]),
    ("k8s.pod.label.app.kubernetes.io/name=x", &[("k8s.pod.label.app.kubernetes.io/name", "x")]),
];

/// Where the two differ, what Python says.
const PYTHON: &[(&str, Pairs)] = &[
    // Go: the value as it is, since a part of it is no encoding.
    ("a=%41%zz%42", &[("a", "A%zzB")]),
    // Go: two of U+FFFD.
    ("a=%E2%82", &[("a", "\u{fffd}")]),
];

#[test]
fn lists_are_read_as_the_sdks_read_them() {
    for (text, pairs) in BOTH.iter().chain(PYTHON) {
        let mut list = attribute_list(text).pairs;
        list.sort();
        let mut expected: Vec<_> = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        expected.sort();
        assert_eq!(list, expected, "{text:?}");
    }
}

#[test]
fn entries_that_are_none_are_counted() {
    assert_eq!(attribute_list("a,b=c,=d,, ,e=f").dropped, 2);
}

/// As everybody encodes: what is not unreserved becomes `%XX`.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        })
        .collect()
}

proptest! {
    #[test]
    fn any_value_survives_encoding(values in proptest::collection::vec(any::<String>(), 0..20)) {
        let pairs: Vec<_> = values.into_iter().enumerate().map(|(index, value)| (format!("k{index}"), value)).collect();
        let text: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        let list = attribute_list(&text.join(","));
        prop_assert_eq!(list.pairs, pairs);
        prop_assert_eq!(list.dropped, 0);
    }

    #[test]
    fn whatever_the_text_what_comes_out_is_bounded(text in "([a-c =,%0-9é]|.){0,2000}") {
        let list = attribute_list(&text);
        prop_assert!(list.pairs.len() <= 64);
        prop_assert!(list.pairs.iter().all(|(key, _)| !key.is_empty()));
        prop_assert!(list.pairs.len() as u64 + list.dropped <= text.split(',').count() as u64);
    }
}
