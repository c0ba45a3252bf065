//! Rules in order, and their errors.

use profiler_ottl::{Conditions, ErrorMode, Logic, Map, Statements, Value};

use crate::attributes::{Attributes, language, statement};

const FAILS: &str = r#"set(attributes["b"], 1 / 0)"#;

fn run(mode: ErrorMode) -> (Attributes, Vec<usize>, bool) {
    let rules = [r#"set(attributes["a"], 1)"#, FAILS, r#"set(attributes["c"], 3)"#];
    let statements = Statements::new(rules.map(|rule| statement(rule).unwrap()).into(), mode);
    let mut context = Attributes::default();
    let mut told = Vec::new();
    let result = statements.execute(&mut context, |error| told.push(error.index));
    if let Err(error) = &result {
        assert_eq!((error.index, error.text.as_str()), (1, FAILS));
        assert!(error.to_string().contains("division by zero"), "{error}");
    }
    (context, told, result.is_ok())
}

#[test]
fn an_error_mode_says_what_an_error_ends() {
    let (context, told, ended_well) = run(ErrorMode::Propagate);
    assert!(!ended_well && told.is_empty() && context.map.get("a").is_some() && context.map.get("c").is_none());
    let (context, told, ended_well) = run(ErrorMode::Ignore);
    assert!(ended_well && told == [1] && context.map.get("c").is_some());
    let (context, told, ended_well) = run(ErrorMode::Silent);
    assert!(ended_well && told.is_empty() && context.map.get("c").is_some());
}

#[test]
fn a_statement_whose_condition_fails_does_not_run() {
    let rule = statement(r#"set(attributes["a"], 1) where Len(nil) == 1"#).unwrap();
    let mut context = Attributes::default();
    assert!(rule.execute(&mut context).is_err());
    assert!(context.map.is_empty());
    assert!(!statement(r#"set(attributes["a"], 1) where false"#).unwrap().execute(&mut context).unwrap());
}

#[test]
fn conditions_hold_together() {
    let hold = |rules: &[&str], mode, logic| {
        let all = rules.iter().map(|rule| language().condition::<Attributes>(rule).unwrap()).collect();
        Conditions::new(all, mode, logic).hold(&Attributes::default(), |_| {}).map_err(|error| error.index)
    };
    let fails = "Len(nil) == 1";
    assert_eq!(hold(&["1 == 2", "1 == 1"], ErrorMode::Propagate, Logic::Any), Ok(true));
    assert_eq!(hold(&["1 == 2", "1 == 1"], ErrorMode::Propagate, Logic::All), Ok(false));
    assert_eq!(hold(&[], ErrorMode::Propagate, Logic::All), Ok(false));
    assert_eq!(hold(&[fails, "1 == 1"], ErrorMode::Propagate, Logic::Any), Err(0));
    assert_eq!(hold(&[fails, "1 == 1"], ErrorMode::Ignore, Logic::Any), Ok(true));
    assert_eq!(hold(&[fails, "1 == 1"], ErrorMode::Silent, Logic::All), Ok(true));
    assert_eq!(hold(&[fails], ErrorMode::Silent, Logic::All), Ok(false));
}

#[test]
fn nil_empties_unless_the_gate_is_closed() {
    let rule = r#"set(attributes["a"], nil)"#;
    let mut context = Attributes { map: Map::from_iter([("a".to_owned(), Value::Int(1))]) };
    let closed = profiler_ottl::Gates { allow_nil: false, lambda: false };
    language().with_gates(closed).statement::<Attributes>(rule).unwrap().execute(&mut context).unwrap();
    assert!(matches!(context.map.get("a"), Some(Value::Int(1))));
    statement(rule).unwrap().execute(&mut context).unwrap();
    assert!(matches!(context.map.get("a"), Some(Value::Nil)));
}
