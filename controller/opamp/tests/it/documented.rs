//! The list of what the specification demands, in docs/opamp.md, names tests that there are.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_test_in_the_documentation_exists() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(here.join("../../docs/opamp.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.ends_with('|'));
    let mut named = BTreeSet::new();
    for row in rows.filter(|row| !row.contains("| What |")) {
        let tests = row.trim_end_matches(['|', ' ']).rsplit("| ").next().unwrap();
        let tests: Vec<_> = tests.split('`').filter(|word| word.contains("::")).collect();
        assert!(!tests.is_empty(), "no test in {row}");
        named.extend(tests);
    }
    assert!(named.len() > 50, "{}", named.len());
    for test in named {
        let (module, name) = test.split_once("::").unwrap();
        let source = fs::read_to_string(here.join(format!("tests/it/{module}.rs"))).unwrap();
        assert!(source.contains(&format!("fn {name}(")), "{test}");
    }
}
