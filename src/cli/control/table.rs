//! What the server says, for people. All of it may be an agent's words, and is shown without what drives a terminal.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::shown;

/// Text as it is, whatever else as JSON; nothing for null. In one line.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => shown::one_line(text).into_owned(),
        other => shown::one_line(&other.to_string()).into_owned(),
    }
}

/// How long ago a time was, ms since 1970.
fn ago(value: &Value) -> String {
    let Some(at) = value.as_u64().map(Duration::from_millis) else { return String::new() };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{} ago", span(now.saturating_sub(at).as_secs()))
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Columns as wide as what is in them; the last one is as it is.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut widths: Vec<usize> = head.iter().map(|name| name.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    let mut all = String::new();
    for row in std::iter::once(head).chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        all += cells.collect::<Vec<_>>().join("  ").trim_end();
        all.push('\n');
    }
    all
}

fn rows(value: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    value.as_array().into_iter().flatten().map(row).collect()
}

/// In one word, how an agent is.
fn state(agent: &Value) -> String {
    match (agent["connected"].as_bool(), agent["healthy"].as_bool()) {
        (Some(true), Some(true)) => "healthy".to_owned(),
        (Some(true), Some(false)) => "UNHEALTHY".to_owned(),
        (Some(true), None) => "connected".to_owned(),
        _ => format!("gone, {}", ago(&agent["last_seen"])),
    }
}

/// What an agent is to have, and what became of it.
fn wanted(agent: &Value) -> String {
    let wanted = &agent["wanted"];
    if !wanted.is_object() {
        return if agent["can_be_managed"] == true { "its own" } else { "its own, not managed" }.to_owned();
    }
    let has = agent["config"]["hash"] == wanted["hash"];
    let status = if wanted["failed"] == true {
        "FAILED".to_owned()
    } else if has {
        text(&agent["config"]["status"])
    } else {
        "offered".to_owned()
    };
    format!("revision {} {status}", text(&wanted["revision"]))
}

pub(super) fn agents(answer: &Value) -> String {
    let rows = rows(&answer["agents"], |agent| {
        vec![
            text(&agent["uid"]),
            text(&agent["labels"]["host.name"]),
            text(&agent["version"]),
            state(agent),
            wanted(agent),
            text(&agent["status"]),
            text(&agent["last_error"]),
        ]
    });
    table(&["AGENT", "HOST", "VERSION", "STATE", "CONFIGURATION", "DOES", "LAST ERROR"], rows)
}

pub(super) fn agent(agent: &Value) -> String {
    let mut pairs = vec![
        ("agent".to_owned(), text(&agent["uid"])),
        ("version".to_owned(), text(&agent["version"])),
        ("state".to_owned(), state(agent)),
        ("does".to_owned(), text(&agent["status"])),
        ("last seen".to_owned(), ago(&agent["last_seen"])),
        ("token".to_owned(), text(&agent["token"])),
        ("configuration".to_owned(), wanted(agent)),
        ("last error".to_owned(), text(&agent["last_error"])),
        ("refused because".to_owned(), text(&agent["config"]["error"])),
    ];
    for (name, trouble) in agent["components"].as_object().into_iter().flatten() {
        let trouble = text(trouble);
        let trouble = if trouble.is_empty() { "healthy".to_owned() } else { trouble };
        pairs.push((format!("part {}", shown::one_line(name)), trouble));
    }
    for (name, value) in agent["labels"].as_object().into_iter().flatten() {
        pairs.push((format!("label {}", shown::one_line(name)), text(value)));
    }
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let lines = pairs.iter().filter(|(_, value)| !value.is_empty());
    let mut all: String = lines.map(|(name, value)| format!("{name:width$}  {value}\n")).collect();
    if let Some(config) = agent["effective_config"].as_str() {
        all += "\nwhat runs:\n";
        config.lines().for_each(|line| all += &format!("  {}\n", shown::one_line(line)));
    }
    all
}

pub(super) fn revisions(answer: &Value) -> String {
    let rows = rows(&answer["revisions"], |revision| {
        ["id", "name"]
            .map(|key| text(&revision[key]))
            .into_iter()
            .chain([ago(&revision["created"]), text(&revision["by"]), text(&revision["note"])])
            .collect()
    });
    table(&["REVISION", "NAME", "SAVED", "BY", "NOTE"], rows)
}

pub(super) fn revision(answer: &Value) -> String {
    let lines = answer["text"].as_str().unwrap_or_default().lines();
    lines.map(|line| format!("{}\n", shown::one_line(&line.replace('\t', "    ")))).collect()
}

pub(super) fn saved(answer: &Value) -> String {
    let (id, name) = (text(&answer["id"]), text(&answer["name"]));
    format!("revision {id} of {name} is saved; `profiler control rollouts start {id}` brings it to agents\n")
}

/// A rollout in one line.
pub(super) fn progress(rollout: &Value) -> String {
    let count = |key: &str| rollout["agents"][key].as_u64().unwrap_or_default();
    let steps = rollout["plan"]["steps"].as_array().map_or(0, Vec::len);
    let step = rollout["step"].as_u64().unwrap_or_default() + 1;
    let mut line = format!(
        "rollout {} {}, step {step} of {steps}: {} of {} agents have it, {} well",
        text(&rollout["id"]),
        text(&rollout["phase"]),
        count("assigned"),
        count("eligible"),
        count("well")
    );
    for key in ["waiting", "unhealthy", "failed", "lost", "left"] {
        if count(key) > 0 {
            line += &format!(", {} {key}", count(key));
        }
    }
    line
}

pub(super) fn rollout(rollout: &Value) -> String {
    let mut all = progress(rollout) + "\n";
    let reason = text(&rollout["reason"]);
    if !reason.is_empty() {
        all += &format!("{reason}\n");
    }
    all
}

pub(super) fn rollouts(answer: &Value) -> String {
    let rows = rows(&answer["rollouts"], |rollout| {
        let selector = text(&rollout["plan"]["selector"]);
        let steps = rollout["plan"]["steps"].as_array().map_or(0, Vec::len);
        vec![
            text(&rollout["id"]),
            text(&rollout["plan"]["revision"]),
            if selector.is_empty() { "all".to_owned() } else { selector },
            text(&rollout["phase"]),
            format!("{} of {steps}", rollout["step"].as_u64().unwrap_or_default() + 1),
            format!("{} of {}", text(&rollout["agents"]["assigned"]), text(&rollout["agents"]["eligible"])),
            text(&rollout["by"]),
            text(&rollout["reason"]),
        ]
    });
    table(&["ROLLOUT", "REVISION", "FOR", "PHASE", "STEP", "AGENTS", "BY", "WHY"], rows)
}

pub(super) fn tokens(answer: &Value) -> String {
    let rows = rows(&answer["tokens"], |token| {
        let revoked = if token["revoked"].is_null() { String::new() } else { ago(&token["revoked"]) };
        vec![
            text(&token["id"]),
            text(&token["name"]),
            text(&token["role"]),
            ago(&token["created"]),
            text(&token["by"]),
            revoked,
        ]
    });
    table(&["TOKEN", "NAME", "ROLE", "MADE", "BY", "REVOKED"], rows)
}

pub(super) fn audit(answer: &Value) -> String {
    let rows = rows(&answer["entries"], |entry| {
        let done = if entry["outcome"] == "done" { String::new() } else { text(&entry["outcome"]) };
        vec![
            ago(&entry["at"]),
            text(&entry["who"]),
            text(&entry["action"]),
            text(&entry["object"]),
            done,
            text(&entry["detail"]),
        ]
    });
    table(&["WHEN", "WHO", "WHAT", "OF WHAT", "", "MORE"], rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_agent_says_does_not_drive_the_terminal() {
        let hostile = json!({"agents": [{"uid": "a", "labels": {"host.name": "\u{1b}[2J\nroot"}, "connected": true, "healthy": false,
                                         "last_error": "\u{202e}x", "can_be_managed": true}]});
        let shown = agents(&hostile);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{202e}']) && shown.contains("UNHEALTHY"), "{shown}");
        let whole = agent(&json!({"uid": "a", "labels": {"\u{1b}k": "v"}, "components": {"\u{1b}c": ""},
                                  "effective_config": "rate: 9\n\u{1b}]0;x\u{7}"}));
        assert!(!whole.contains(['\u{1b}', '\u{7}']), "{whole}");
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let text = table(&["A", "LONG"], vec![vec!["xyz".into(), "b".into()], vec!["é".into(), String::new()]]);
        assert_eq!(text, "A    LONG\nxyz  b\né\n");
    }
}
