//! What is said of a rule that is refused.

use profiler_ottl::{CompileError, Gates, Language};

use crate::attributes::{Attributes, Names, language, statement};

fn refused(rule: &str) -> CompileError {
    statement(rule).expect_err(rule)
}

#[test]
fn an_error_marks_its_place_and_names_the_nearest_function() {
    let error = refused(r#"set(attributes["a"], 1) where IsMach(attributes["b"], "x")"#);
    assert_eq!(error.message(), "there is no converter IsMach; did you mean IsMatch?");
    assert_eq!(error.column(), 31);
    let shown = error.to_string();
    let marks = shown.lines().nth(2).expect("a line of marks");
    assert_eq!(marks.find('^').map(|at| at - 4), Some(30), "{shown}");
    assert_eq!(marks.matches('^').count(), "IsMach".len(), "{shown}");
}

#[test]
fn an_error_names_the_nearest_path_and_parameter() {
    assert_eq!(
        refused(r#"set(atributes["a"], 1)"#).message(),
        "there is no path `atributes`; did you mean `attributes`?"
    );
    let error = refused(r#"set(attributes["a"], Trim("x", replacment="y"))"#);
    assert!(error.message().contains("did you mean `replacement`?"), "{error}");
    assert!(refused("drop(attributes)").message().starts_with("there is no editor drop"));
}

#[test]
fn an_error_says_the_kind_that_is_expected() {
    let cases = [
        (r#"set(attributes["a"], SHA256(5))"#, "SHA256: target must be a string, not an int"),
        (r#"limit(attributes, attributes["n"], [])"#, "limit: limit must be an int that is written out, not a path"),
        (
            r#"keep_keys(attributes, ["a", 1])"#,
            "keep_keys: keys must be a list of strings that is written out, not a list with an int",
        ),
        (r#"set("a", 1)"#, "set: target must be a path, not a string"),
        (r#"set(attributes["a"], All([1], true))"#, "All: predicate must be a lambda of two parameters, not a bool"),
        (
            r#"replace_pattern(attributes["a"], "x", "y", Hex)"#,
            "Hex takes bytes or what converts to them, and here one is needed that takes a string",
        ),
    ];
    for (rule, message) in cases {
        assert_eq!(refused(rule).message(), message, "{rule}");
    }
}

#[test]
fn places_are_told_by_line_and_character() {
    let error = refused("set(attributes[\"ä\"],\n  Nope(1))");
    assert_eq!((error.line(), error.column()), (2, 3));
    assert!(error.to_string().contains("(line 2, column 3)"), "{error}");
    assert_eq!(refused(r#"set(attributes["ä"], Nope(1))"#).column(), 22);
}

#[test]
fn a_backslash_that_escapes_nothing_is_pointed_at() {
    let error = refused(r#"delete_matching_keys(attributes, "a\d")"#);
    assert_eq!(error.message(), r"`\d` is no escape; a backslash is written `\\`");
    assert_eq!(error.column(), 36);
}

#[test]
fn what_is_required_is_not_replaced_by_what_is_optional() {
    // Go counts the arguments alone, and then empties every string.
    assert!(refused("truncate_all(attributes, utf8_safe=true)").message().contains("lacks `limit`"));
}

#[test]
fn lambdas_need_their_gate() {
    let rule = r#"Any([1], (_, v) => v == 1)"#;
    assert!(language().condition::<Attributes>(rule).is_ok());
    let error = Language::new(&Names).condition::<Attributes>(rule).unwrap_err();
    assert!(error.message().contains("ottl.functions.enableLambda"), "{error}");
    let gates: Gates = "ottl.functions.enableLambda,-ottl.set.allowNil".parse().unwrap();
    assert!(gates.lambda && !gates.allow_nil);
    assert!("ottl.nothing".parse::<Gates>().is_err());
}
