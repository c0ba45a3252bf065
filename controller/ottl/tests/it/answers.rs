//! What rules come to, against what `pkg/ottl` 0.161 of the Collector's contrib repository made of them (Go 1.26): `answers.jsonl` was written by
//! running it on each. An answer of the form `{"int": "1"}` keeps the type of what JSON has no type for.

use profiler_ottl::{Map, Value};
use serde_json::{Value as Json, json};

use crate::attributes::{Attributes, language};

const ANSWERS: &str = include_str!("answers.jsonl");

/// Rules of which more is made here, and why.
const MORE: &[(&str, &str)] = &[(
    r#"SliceToMap([{"name": "a", "value": 1}, {"name": "b", "value": 2}], ["name"], ["value"])"#,
    "maps in a list that is written out are of a type that Go's function does not take",
)];

fn value(json: &Json) -> Value<'static> {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap()), Value::Int),
        Json::String(text) => Value::text(text.as_str()),
        Json::Array(values) => Value::list(values.iter().map(value).collect()),
        Json::Object(entries) => Value::map(entries.iter().map(|(key, one)| (key.clone(), value(one))).collect()),
    }
}

/// `value` as the answers have it.
fn tagged(value: &Value<'_>) -> Json {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match value {
        Value::Nil => Json::Null,
        Value::Bool(truth) => json!(truth),
        Value::Text(text) => json!(text),
        Value::Int(number) => json!({"int": number.to_string()}),
        Value::Float(number) => json!({"float": number}),
        Value::Bytes(bytes) => json!({"bytes": hex(bytes)}),
        Value::Id(id) => json!({"id": hex(id.bytes())}),
        Value::Duration(nanos) => json!({"duration": nanos.to_string()}),
        Value::Time(time) => json!({"time": time.nanos().to_string()}),
        Value::List(list) => Json::Array(list.iter().map(tagged).collect()),
        Value::Map(map) => {
            json!({"map": map.iter().map(|(key, value)| (key.to_owned(), tagged(value))).collect::<serde_json::Map<_, _>>()})
        }
        Value::Opaque(opaque) => json!({"other": opaque.kind}),
    }
}

/// An answer with its numbers and times as [`tagged`] has them.
fn normal(answer: &Json) -> Json {
    match answer {
        Json::Array(values) => Json::Array(values.iter().map(normal).collect()),
        Json::Object(entries) => {
            if let Some(Json::String(float)) = entries.get("float") {
                return json!({"float": float.parse::<f64>().unwrap()});
            }
            if let Some(Json::String(time)) = entries.get("time") {
                return json!({"time": instant(time)});
            }
            Json::Object(entries.iter().map(|(key, value)| (key.clone(), normal(value))).collect())
        }
        other => other.clone(),
    }
}

/// Nanoseconds since 1970 of a time in RFC 3339, by the language itself.
fn instant(time: &str) -> String {
    let condition = format!(r#"UnixNano(Time("{time}", "%Y-%m-%dT%H:%M:%S%z"))"#);
    match language().value::<Attributes>(&condition).unwrap().value(&Attributes::default()).unwrap() {
        Value::Int(nanos) => nanos.to_string(),
        other => panic!("{other:?}"),
    }
}

fn ours(kind: &str, rule: &str, fixture: &Map) -> Result<Json, &'static str> {
    let mut context = Attributes { map: fixture.clone() };
    match kind {
        "value" => {
            let value =
                language().value::<Attributes>(rule).map_err(|_| "compile")?.value(&context).map_err(|_| "run")?;
            Ok(tagged(&value))
        }
        "condition" => {
            let held =
                language().condition::<Attributes>(rule).map_err(|_| "compile")?.holds(&context).map_err(|_| "run")?;
            Ok(json!(held))
        }
        _ => {
            language()
                .statement::<Attributes>(rule)
                .map_err(|_| "compile")?
                .execute(&mut context)
                .map_err(|_| "run")?;
            Ok(tagged(&Value::map(context.map)))
        }
    }
}

#[test]
fn rules_come_to_what_go_makes_of_them() {
    let mut lines = ANSWERS.lines().map(|line| serde_json::from_str::<Json>(line).expect(line));
    let first = lines.next().expect("a fixture");
    let Value::Map(fixture) = value(&first["fixture"]) else { panic!("a map") };
    // In the order of the text, which `limit` goes by; whoever reads JSON may have sorted it.
    let text = ANSWERS.lines().next().unwrap_or_default();
    let mut entries: Vec<_> = fixture.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
    entries.sort_by_key(|(key, _)| text.find(&format!("\"{key}\":")));
    let fixture: Map = entries.into_iter().collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in lines {
        count += 1;
        let rule = line["rule"].as_str().expect("a rule");
        let answer = ours(line["kind"].as_str().expect("a kind"), rule, &fixture);
        if MORE.iter().any(|(known, _)| *known == rule) {
            assert!(answer.is_ok(), "{rule}: {answer:?}");
            continue;
        }
        let expected = match line["error"].as_str() {
            Some(error) => Err(error),
            None => Ok(normal(&line["answer"])),
        };
        if answer.clone().map_err(str::to_owned) != expected.clone().map_err(str::to_owned) {
            wrong.push(format!("{rule}\n  ours {answer:?}\n  Go's {expected:?}"));
        }
    }
    assert!(count > 250, "{count} answers");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}
