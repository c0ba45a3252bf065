//! Rules that are made to take long, much, or the program down.

use profiler_ottl::{MAX_PATTERNS, Map, Value};
use proptest::prelude::*;

use crate::attributes::{Attributes, language, statement};

#[test]
fn deep_rules_are_refused() {
    for rule in [
        format!("set(attributes, {}1{})", "(".repeat(5_000), ")".repeat(5_000)),
        format!("set(attributes, {}1{})", "[".repeat(5_000), "]".repeat(5_000)),
        format!("set(attributes, 1) where {}1 == 1{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("set(attributes, {}1{})", "Int(".repeat(5_000), ")".repeat(5_000)),
        format!("set(attributes{})", "[attributes".repeat(5_000)),
        format!("set(attributes, {}1)", "-".repeat(10_000)),
    ] {
        assert!(statement(&rule).is_err());
    }
    // Parentheses may begin arithmetic, a lambda or a condition: not all ways are tried at each.
    let depth = 30;
    let nested = format!("{}attributes == 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(language().condition::<Attributes>(&nested).is_ok());
    assert!(statement(&format!("set(attributes, \"{}\")", "x".repeat(100_000))).is_err());
}

#[test]
fn large_patterns_are_refused() {
    for pattern in ["((a{1000}){1000}){1000}", "a{1001}", "(a*)*{2}{3}", &"(x+".repeat(2_000), "\\\\pN{1000}{1000}"] {
        assert!(statement(&format!("delete_matching_keys(attributes, \"{pattern}\")")).is_err(), "{pattern}");
    }
    // A pattern that is exponential for engines that backtrack is not for this one.
    let rule = statement(r#"set(attributes["b"], IsMatch(attributes["a"], "^(a+)+$"))"#).unwrap();
    let mut context = Attributes { map: Map::from_iter([("a".to_owned(), Value::text("a".repeat(50_000) + "!"))]) };
    assert!(rule.execute(&mut context).unwrap());
    assert!(matches!(context.map.get("b"), Some(Value::Bool(false))));
}

#[test]
fn the_patterns_of_one_rule_are_bounded_together() {
    let rule = |pattern: &str, times: usize| {
        let one = format!(r#"IsMatch("", "{pattern}")"#);
        language().condition::<Attributes>(&vec![one; times].join(" or "))
    };
    for (pattern, times) in [(r"\\pL{30}", 1000), ("a", 1000)] {
        let error = rule(pattern, times).unwrap_err();
        assert!(error.message().contains("of one rule need more than"), "{error}");
    }
    let patterns = rule("a", 40).unwrap().pattern_bytes();
    assert!(patterns > 0 && patterns <= MAX_PATTERNS, "{patterns}");
    // Those that are made while it runs, too.
    let made = |times| {
        let rule = vec![r#"IsMatch("", attributes["a"])"#; times].join(" or ");
        language().condition::<Attributes>(&rule)
    };
    assert!(made(5).is_ok() && made(500).is_err());
}

#[test]
fn results_are_bounded() {
    let mut context = Attributes { map: Map::from_iter([("a".to_owned(), Value::text("x".repeat(1_000_000)))]) };
    for rule in [
        r#"set(attributes["b"][99999999999], 1)"#,
        r#"set(attributes["b"], Format("%99999999d", [1]))"#,
        r#"replace_pattern(attributes["a"], "", "0123456789")"#,
        r#"set(attributes["b"], Concat([attributes["a"], attributes["a"], attributes["a"], attributes["a"], attributes["a"]], ""))"#,
        r#"set(attributes["b"], Reduce(Split(attributes["a"], ""), 0, (s, _, v) => Reduce(Split(attributes["a"], ""), s, (t, _, w) => t + 1)))"#,
    ] {
        assert!(statement(rule).map_or(true, |rule| rule.execute(&mut context).is_err()), "{rule}");
        assert!(context.map.get("b").is_none(), "{rule}");
    }
}

#[test]
fn the_least_whole_number_divides() {
    let least = "(-9223372036854775807 - 1)";
    for rule in [format!("{least} / -1"), format!("{least} * -1"), format!("-{least}")] {
        let value = language().value::<Attributes>(&rule).unwrap().value(&Attributes::default()).unwrap();
        assert!(matches!(value, Value::Int(i64::MIN)), "{rule}: {value:?}");
    }
}

/// Pieces of rules, so that what is made of them is often nearly one.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "set(",
        "attributes",
        "[\"a\"]",
        "[1]",
        ")",
        "(",
        ",",
        " where ",
        "and ",
        "or ",
        "not ",
        "==",
        "<",
        "=>",
        "=",
        "1",
        "2.5",
        "\"x\"",
        "nil",
        "true",
        "{",
        "}",
        "[",
        "]",
        ":",
        "+",
        "-",
        "*",
        "/",
        "Int(",
        "Split(",
        "Concat(",
        "Format(\"%",
        "Time(",
        "IsMatch(",
        "\\",
        "\"",
        "_",
        ".",
        "0x0",
        "All(",
        "(a, b) =>",
        "ParseJSON(",
        "Substring(",
        "é",
        " ",
        "\n",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_panics(rule in pieces(), begun in any::<bool>()) {
        let rule = if begun { format!("set(attributes[\"a\"], {rule})") } else { rule };
        let mut context = Attributes { map: Map::from_iter([("a".to_owned(), Value::text("é1,2"))]) };
        match statement(&rule) {
            Ok(statement) => { let _ = statement.execute(&mut context); }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        if let Ok(value) = language().value::<Attributes>(&rule) {
            let _ = value.value(&context);
        }
    }
}
