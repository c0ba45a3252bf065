//! Rules of the file: which are right, what is said of the others, and what a configuration from elsewhere adds.

use super::super::{Config, ErrorMode, Level, Processor, ProcessorKind, RuleGroup};
use super::remote::{narrowed, refusal as refused_remote};
use super::{file, refusal};

fn groups(processor: &Processor) -> &[RuleGroup] {
    match &processor.kind {
        ProcessorKind::Filter(groups) | ProcessorKind::Transform(groups) => groups,
        ProcessorKind::Aggregate(_) => &[],
    }
}

fn names(config: &Config) -> Vec<&str> {
    config.processors.iter().map(|processor| processor.name.as_str()).collect()
}

fn refused(text: &str, words: &[&str]) {
    let said = refusal(text);
    for word in words {
        assert!(said.contains(word), "{text}\nno {word:?} in: {said}");
    }
}

#[test]
fn rules_are_written_as_for_the_collector() {
    let text = r#"
processors:
- filter:
    error_mode: silent
    profile_conditions:
    - profile.duration_unix_nano < 0
    - resource.attributes["service.name"] == "batch"
    sample_conditions:
    - |
      attributes["thread.name"] == "idle" or
      attributes["thread.name"] == "sleeper"
- transform:
    profile_statements:
    - set(resource.attributes["team"], "web") where resource.attributes["team"] == nil
    - delete_key(profilesample.attributes, "thread.name")
- name: transform/groups
  transform:
    error_mode: propagate
    profile_statements:
    - context: resource
      statements: ['delete_key(attributes, "a")', 'delete_key(attributes, "b")']
    - conditions: [profile.period > 0]
      error_mode: ignore
      statements: ['set(profile.period, 1)']
"#;
    let config = file(text).config;
    assert_eq!(names(&config), ["filter", "transform", "transform/groups"]);
    let [filter, transform, grouped] = config.processors.as_slice() else { panic!("three") };
    // From the outermost context, and by the places in the file all the same.
    let seen: Vec<_> = groups(filter).iter().map(|group| (group.place.as_str(), group.error_mode)).collect();
    let silent = |place| (place, ErrorMode::Silent);
    assert_eq!(seen, ["profile_conditions[1]", "profile_conditions[0]", "sample_conditions[0]"].map(silent));
    let levels: Vec<Level> = groups(filter).iter().map(|group| group.compile(true).expect("right").level()).collect();
    assert_eq!(levels, [Level::Resource, Level::Profile, Level::Sample]);
    let levels: Vec<Level> =
        groups(transform).iter().map(|group| group.compile(false).expect("right").level()).collect();
    assert_eq!(levels, [Level::Resource, Level::Sample]);
    let modes: Vec<ErrorMode> = groups(grouped).iter().map(|group| group.error_mode).collect();
    assert_eq!(modes, [ErrorMode::Propagate, ErrorMode::Ignore]);
    assert_eq!(groups(grouped)[0].statements.len(), 2);
}

#[test]
fn a_key_is_of_its_processor_and_never_shown() {
    let hashes = |key: &str| {
        format!(
            "processors:\n- transform:\n    {key}\n    profile_statements:\n    \
             - set(resource.attributes[\"a\"], KeyedHash(resource.attributes[\"a\"]))\n"
        )
    };
    let loaded = file(&hashes("hash_key: 0123456789-secret"));
    let group = &groups(&loaded.config.processors[0])[0];
    assert!(group.compile(false).is_ok());
    for shown in [loaded.describe(), format!("{:?}", loaded.config)] {
        assert!(!shown.contains("0123456789"), "{shown}");
    }
    refused(
        &hashes("error_mode: silent"),
        &["profile_statements[0]", "give one as `hash_key`", "column 41 of the rule"],
    );
    let said = refusal(&hashes("hash_key: too-short"));
    assert!(said.contains("hash_key") && said.contains("at least 16 bytes") && !said.contains("too-short"), "{said}");
    // What another processor has is not this one's.
    refused(
        &format!(
            "{}- filter: {{sample_conditions: ['KeyedHash(\"a\") == \"b\"']}}\n",
            hashes("hash_key: 0123456789abcdef")
        ),
        &["processors[1].filter.sample_conditions[0]", "give one as `hash_key`"],
    );
}

#[test]
fn what_is_aggregated_is_a_step_like_others() {
    let aggregates = |text: &str| -> Vec<(String, bool, u32)> {
        let of = |processor: &Processor| match processor.kind {
            ProcessorKind::Aggregate(of) => (processor.name.clone(), of.drop_timestamps, of.other_below),
            _ => panic!("an aggregate"),
        };
        file(text).config.processors.iter().map(of).collect()
    };
    assert_eq!(aggregates("processors:\n- aggregate: {}\n"), [("aggregate".to_owned(), false, 0)]);
    assert_eq!(
        aggregates("processors:\n- name: a/b\n  aggregate:\n    drop_timestamps: true\n    other_below: 0.1%\n"),
        [("a/b".to_owned(), true, 1_000)]
    );
    assert_eq!(aggregates("processors:\n- aggregate: {other_below: 0.0001%}\n")[0].2, 1);
    assert_eq!(aggregates("processors:\n- aggregate: {other_below: 'off'}\n")[0].2, 0);
    let of = |keys: &str| format!("processors:\n- aggregate: {{{keys}}}\n");
    refused(&of("other_below: 0%"), &["processors[0].aggregate.other_below", "outside of 0.0001% to 100%"]);
    refused(&of("other_below: 0.1"), &["has no unit", "0.1%"]);
    refused(&of("other_belw: 1%"), &["did you mean other_below?"]);
    refused("processors:\n- aggregate: {}\n  filter: {sample_conditions: ['true']}\n", &["aggregate"]);
}

#[test]
fn a_wrong_rule_is_refused_with_place_column_and_nearest_name() {
    let filter = |condition: &str| format!("processors:\n- filter:\n    sample_conditions:\n    - '{condition}'\n");
    refused(
        &filter(r#"IsMach(attributes["a"], "b")"#),
        &["c.yaml:4:7: processors[0].filter.sample_conditions[0]", "did you mean IsMatch?", "column 1 of the rule"],
    );
    refused(&filter(r#"atributes["a"] == 1"#), &["did you mean `attributes`?"]);
    refused(&filter(r#"attributes["a"]"#), &["column"]);
    refused(&filter(""), &["is empty"]);
    refused(
        &format!("processors:\n- filter:\n    sample_conditions: ['{} == 1']\n", "1 + ".repeat(20_000)),
        &["longer than 65536 bytes"],
    );
    // A regular expression that would take much memory.
    refused(&filter(r#"IsMatch(attributes["a"], "((a{1000}){1000}){1000}")"#), &["sample_conditions[0]"]);
    let all = "processors:\n- transform:\n    profile_statements:\n    - set(profile.perod, 1)\n    - |\n      \
               set(profile.period,\n        Nw())\n";
    refused(
        all,
        &[
            "2 errors",
            "c.yaml:4:7: processors[0].transform.profile_statements[0]",
            "did you mean `profile.period`?",
            "profile_statements[1]",
            "did you mean Now?",
            "line 2, column 3 of the rule",
        ],
    );
}

#[test]
fn a_rule_has_to_stand_where_it_can_run() {
    let of = |key: &str, items: &str| format!("processors:\n- filter:\n    {key}: [{items}]\n");
    refused(
        &of("profile_conditions", r#"'profilesample.attributes["a"] == 1'"#),
        &["names a profilesample", "sample_conditions is for it"],
    );
    refused(&of("profile_conditions", "{context: profilesample, conditions: ['true']}"), &["sample_conditions is"]);
    refused(&of("sample_conditions", "{context: resource, conditions: ['true']}"), &["profile_conditions is for it"]);
    refused(
        &of("profile_conditions", "{context: location, conditions: ['true']}"),
        &["\"location\" is none of resource"],
    );
    refused(&of("profile_conditions", "{context: resource}"), &["conditions: is empty"]);
    refused(&of("profile_conditions", "'true', {conditions: ['true']}"), &["a list has the one or the other"]);
    refused("processors: [{filter: {}}]", &["has no rules and would do nothing"]);
    refused("processors: [{name: a}]", &["needs exactly one of filter, transform"]);
    refused(
        "processors: [{filter: {profile_conditions: ['true']}, transform: {profile_statements: ['clear(cache)']}}]",
        &["exactly one of filter, transform, aggregate; there are 2"],
    );
    let twice = "{filter: {sample_conditions: ['true']}}";
    refused(&format!("processors: [{twice}, {twice}]"), &["two processors are named \"filter\""]);
    refused("processors: [{name: 'a b', filter: {sample_conditions: ['true']}}]", &["\"a b\" is no name"]);
    refused("processors: [{filter: {sample_condition: ['true']}}]", &["did you mean sample_conditions?"]);
    refused("processors: [{filter: {error_mode: stop, sample_conditions: ['true']}}]", &["none of ignore, silent"]);
    let many = "'true', ".repeat(600);
    refused(
        &format!("processors: [{{filter: {{sample_conditions: [{many}]}}}}]"),
        &["sample_conditions[512]", "one rule more than the 512 that run"],
    );
}

#[test]
fn a_configuration_from_elsewhere_adds_filters_and_nothing_else() {
    let own = r#"processors: [{transform: {profile_statements: ['delete_key(resource.attributes, "a")']}}]"#;
    let asked = r#"processors: [{filter: {sample_conditions: ['attributes["thread.name"] == "idle"']}}]"#;
    let loaded = narrowed(own, asked);
    assert!(loaded.refused.is_none(), "{:?}", loaded.refused);
    // Behind what the host says by itself.
    assert_eq!(names(&loaded.config), ["transform", "remote"]);
    assert!(matches!(loaded.config.processors[1].kind, ProcessorKind::Filter(_)));
    assert!(loaded.describe().contains("# remote fleet:1:"), "{}", loaded.describe());
    assert_eq!(loaded.local().config.processors.len(), 1);

    let refused = |asked: &str, words: &[&str]| {
        let said = refused_remote(own, asked);
        for word in words {
            assert!(said.contains(word), "{asked}\nno {word:?} in: {said}");
        }
    };
    refused(
        "processors: [{transform: {profile_statements: ['set(profile.period, 1)']}}]",
        &["remote fleet:1:", "transform: is the host's own", "adds filters"],
    );
    refused("processors: [{aggregate: {}}]", &["remote fleet:1:", "aggregate: is the host's own", "adds filters"]);
    refused(
        "processors: [{name: transform, filter: {sample_conditions: ['true']}}]",
        &["two processors are named \"transform\""],
    );
    refused("processors: [{filter: {sample_conditions: ['Nw() == 1']}}]", &["remote fleet:1:", "did you mean Now?"]);
    let many = "'true', ".repeat(65);
    refused(
        &format!("processors: [{{filter: {{sample_conditions: [{many}]}}}}]"),
        &["one rule more than the 64 that run"],
    );
    // Few rules, of which each has many patterns, and one that is large: all are kept, and compiled by the thread that samples.
    let one =
        |pattern: &str, times: usize| format!("'{}'", vec![format!(r#"IsMatch("", "{pattern}")"#); times].join(" or "));
    let of = |rules: &[String]| format!("processors: [{{filter: {{sample_conditions: [{}]}}}}]", rules.join(", "));
    refused(&of(&[one(r"\\pL{30}", 500)]), &["sample_conditions[0]", "expressions of one rule need more than"]);
    let rules: Vec<_> = (0..64).map(|at| one(&format!("a{at}"), 20)).collect();
    refused(&of(&rules), &["one regular expression too many: those of all rules may take 8388608 bytes"]);
    // The first that is wrong is told, and the others are not compiled.
    let said = refused_remote(own, &of(&["'Nw() == 1'".to_owned(), "'Nw() == 2'".to_owned()]));
    assert_eq!(said.matches("did you mean Now?").count(), 1, "{said}");
}
