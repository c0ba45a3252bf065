//! A configuration from elsewhere narrows the host's own, and never widens it.

use std::path::Path;

use proptest::prelude::*;

use super::super::entry::{Content, Entry};
use super::super::{Flags, Loaded, Remote, Symbols, load_remote, schema, sections};
use super::file;

/// The host's `text` under the remote configuration `asked`.
pub(super) fn narrowed(text: &str, asked: &str) -> Loaded {
    let remote = Remote { name: "fleet".to_owned(), text: asked.to_owned() };
    load_remote(&Flags::default(), &|_| None, Some((Path::new("c.yaml"), text)), Some(&remote))
        .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// What is said of `asked`, which changes nothing.
pub(super) fn refusal(text: &str, asked: &str) -> String {
    let loaded = narrowed(text, asked);
    let Some(errors) = loaded.refused else { panic!("taken:\n{asked}\n{}", loaded.describe()) };
    assert_eq!(loaded.config, file(text).config, "{asked}");
    errors.to_string()
}

#[test]
fn what_narrows_is_taken_with_its_origin() {
    let text = "rate: 49\nsymbols: lines\nlimits: {cpu: off}\ntargets: {exclude: [{comms: [sshd]}]}\n\
                resource: {environment_variables: [A, B, C]}";
    let asked = "rate: 19\nsymbols: names\nlimits: {cpu: 1%, memory: 64MiB}\n\
                 targets: {exclude: [{comms: [nginx]}], min_age: 5s}\nresource: {environment_variables: [C, A]}";
    let loaded = narrowed(text, asked);
    assert!(loaded.refused.is_none(), "{:?}", loaded.refused);
    let config = &loaded.config;
    assert_eq!((config.rate, config.symbols), (19, Symbols::Names));
    assert_eq!((config.limits.memory_bytes, config.limits.cpu_fraction), (Some(64 << 20), Some(0.01)));
    let comms: Vec<&str> = config.targets.exclude.iter().map(|rule| rule.comms[0].as_str()).collect();
    assert_eq!(comms, ["sshd", "nginx"]);
    assert_eq!(config.targets.min_age.as_secs(), 5);
    assert_eq!(config.resource.environment_variables, ["C", "A"]);
    assert_eq!(loaded.origin("rate").expect("known").to_string(), "remote fleet:1:7");
    assert!(loaded.describe().contains("memory: 64MiB  # remote fleet:3:27"), "{}", loaded.describe());
    assert!(loaded.describe().contains("comms: [nginx]  # remote fleet:4:29"), "{}", loaded.describe());
    // What the host says by itself is known still.
    assert_eq!(loaded.local().config.rate, 49);
    assert_eq!(loaded.local().origin("rate").expect("known").to_string(), "c.yaml:1:7");
}

#[test]
fn what_widens_is_refused_with_the_key_and_why() {
    for (text, asked, words) in [
        ("rate: 49", "rate: 99", &["remote fleet:1:7: rate: would widen", "(c.yaml:1:7)", "the same or less"][..]),
        ("", "rate: 100", &["rate: would widen", "(default)"]),
        ("symbols: names", "symbols: lines", &["symbols: would widen"]),
        ("", "limits: {memory: 256MiB}", &["limits.memory: would widen"]),
        ("", "limits: {cpu: off}", &["limits.cpu: would widen"]),
        ("targets: {min_age: 5s}", "targets: {min_age: 1s}", &["targets.min_age: would widen", "the same or more"]),
        ("", "resource: {environment_variables: [PATH]}", &["environment_variables: would widen", "some of the items"]),
        ("", "targets: {include: [{comms: [a]}]}", &["targets.include: is the host's own"]),
        ("", "exporters: [{otlp: {endpoint: 'http://evil:4317'}}]", &["exporters: is the host's own"]),
        ("", "telemetry: {listen: '0.0.0.0:9464'}", &["telemetry.listen: is the host's own"]),
        ("", "telemetry: {otlp: {endpoint: 'http://evil:1'}}", &["telemetry.otlp: is the host's own"]),
        (
            "",
            "resource: {kubernetes: {token_file: /etc/shadow}}",
            &["resource.kubernetes.token_file: is the host's own"],
        ),
        ("", "resource: {attributes: {a: b}}", &["resource.attributes: is the host's own"]),
        ("", "opamp: {endpoint: 'ws://evil:1'}", &["opamp: is the host's own"]),
        ("opamp: {endpoint: 'ws://h'}", "opamp: {accept_config: true}", &["opamp: is the host's own"]),
        ("", "kill_switch: /tmp/x", &["kill_switch: is the host's own"]),
        ("", "labels: {team: evil}", &["labels: is the host's own", "remote.allow of the host names labels"]),
        ("", "remote: {allow: [labels]}\nlabels: {a: b}", &["remote.allow: is the host's own", "labels: is"]),
        ("", "rate: ${env:RATE}", &["rate: holds ${...}"]),
        ("", "targets: {exclude: [{comms: ['${file:/etc/hostname}']}]}", &["comms: holds ${...}"]),
        ("", "widnow: 3s", &["remote fleet:1:1: there is no key \"widnow\"; did you mean window?"]),
        ("", "rate: fast", &["remote fleet:1:7: rate: \"fast\" is no whole number"]),
        ("", "rate: [1]", &["rate: a list stands where one value is wanted"]),
        ("", "rate: [", &["remote fleet:", "no YAML"]),
        ("", "targets: {exclude: 3}", &["targets.exclude: "]),
        ("", "targets: {exclude: [{}]}", &["remote fleet:1:21: targets.exclude[0]: names nothing"]),
    ] {
        let said = refusal(text, asked);
        for word in words {
            assert!(said.contains(word), "{asked}\nno {word:?} in: {said}");
        }
    }
}

#[test]
fn one_wrong_key_refuses_all_of_it() {
    let said = refusal("rate: 49", "rate: 19\nkill_switch: /x\nlimits: {memory: 1TiB}");
    assert!(said.contains("kill_switch") && said.contains("limits.memory") && !said.contains(" rate:"), "{said}");
}

#[test]
fn what_the_host_gives_away_is_set_and_its_own_labels_stay() {
    let text = "remote: {allow: [labels, window, log.level]}\nlabels: {team: web}\nwindow: 10s";
    let loaded = narrowed(text, "labels: {canary: '7'}\nwindow: 20s\nlog: {level: debug}");
    assert!(loaded.refused.is_none(), "{:?}", loaded.refused);
    assert_eq!(loaded.config.window.as_secs(), 20);
    assert_eq!(loaded.config.labels["canary"], "7");
    assert_eq!(loaded.config.labels["team"], "web");
    let said = refusal(text, "labels: {team: evil}");
    assert!(said.contains("labels.team: is set by the host's own configuration"), "{said}");
    // Not named there.
    assert!(refusal(text, "jitter: 1%").contains("jitter: is the host's own"));
    // Values are checked together, as in the file.
    assert!(refusal("jitter: 5s\nremote: {allow: [window]}", "window: 2s").contains("more than half of the window"));
}

#[test]
fn flags_are_narrowed_too() {
    let mut flags = Flags::default();
    flags.rate("--rate", "49");
    let load = |asked: &str| {
        let remote = Remote { name: "fleet".to_owned(), text: asked.to_owned() };
        load_remote(&flags, &|_| None, None, Some(&remote)).expect("right")
    };
    assert_eq!(load("rate: 19").config.rate, 19);
    let refused = load("rate: 50");
    assert_eq!(refused.config.rate, 49);
    assert!(refused.refused.expect("more").to_string().contains("(flag --rate)"));
}

/// The paths of keys that are read with `if_allowed`.
fn given_away(entries: &[Entry], at: &str, found: &mut Vec<String>) {
    for entry in entries {
        let path = if at.is_empty() { entry.key.to_owned() } else { format!("{at}.{}", entry.key) };
        if schema::remote(entry).contains("remote.allow") {
            found.push(path.clone());
        }
        match &entry.content {
            Content::Section { entries, .. } => given_away(entries, &path, found),
            Content::Sections { items, .. } => items.iter().for_each(|entries| given_away(entries, &path, found)),
            _ => {}
        }
    }
}

#[test]
fn what_can_be_given_away_is_what_asks_whether_it_is() {
    let mut found = Vec::new();
    given_away(&super::super::blank(), "", &mut found);
    found.sort_unstable();
    let mut listed = sections::ALLOWABLE.to_vec();
    listed.sort_unstable();
    assert_eq!(found, listed);
}

proptest! {
    #[test]
    fn nothing_ever_widens(
        own in (1_u64..10_000, 32_u64..4096, 1_u64..1000, 0_u64..100),
        asked in (1_u64..10_000, 32_u64..4096, 1_u64..1000, 0_u64..100),
    ) {
        let text = |(rate, memory, cpu, age): (u64, u64, u64, u64)| {
            format!("rate: {rate}\nlimits: {{memory: {memory}MiB, cpu: {}.{}%}}\ntargets: {{min_age: {age}s}}", cpu / 10, cpu % 10)
        };
        let loaded = narrowed(&text(own), &text(asked));
        let (config, local) = (&loaded.config, file(&text(own)).config);
        prop_assert!(config.rate <= local.rate);
        prop_assert!(config.limits.memory_bytes <= local.limits.memory_bytes);
        prop_assert!(config.limits.cpu_fraction <= local.limits.cpu_fraction);
        prop_assert!(config.targets.min_age >= local.targets.min_age);
        let narrows = asked.0 <= own.0 && asked.1 <= own.1 && asked.2 <= own.2 && asked.3 >= own.3;
        prop_assert_eq!(loaded.refused.is_none(), narrows);
        if narrows {
            prop_assert_eq!(config.rate, asked.0);
        }
    }

    #[test]
    fn no_text_makes_it_panic_or_changes_what_is_not_to_be(text in "[a-z:{}\\[\\] ,0-9\n$-]{0,80}") {
        let loaded = narrowed("rate: 49", &text);
        let mut config = loaded.config.clone();
        config.rate = 49;
        config.symbols = Symbols::Names;
        prop_assert_eq!(config.exporters, file("rate: 49").config.exporters);
        prop_assert!(loaded.config.rate <= 49);
    }
}
