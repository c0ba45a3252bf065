//! What rules do to a dictionary that samples share.

use profiler_rules::{Level, Request, compact};
use prost::Message;

use crate::made::{filter, request, run};

/// The thread and the bytes (with their unit) of each sample.
fn samples(request: &Request) -> Vec<String> {
    let dictionary = request.dictionary.as_ref().unwrap();
    let string = |index: i32| dictionary.string_table[usize::try_from(index).unwrap()].as_str();
    let row = |index: &i32| {
        let row = &dictionary.attribute_table[usize::try_from(*index).unwrap()];
        format!(
            "{}={:?} {}",
            string(row.key_strindex),
            row.value.as_ref().and_then(|value| value.value.as_ref()),
            string(row.unit_strindex)
        )
    };
    let profiles = request.resource_profiles.iter().flat_map(|all| &all.scope_profiles).flat_map(|all| &all.profiles);
    profiles
        .flat_map(|profile| &profile.samples)
        .map(|sample| sample.attribute_indices.iter().map(row).collect::<Vec<_>>().join(";"))
        .collect()
}

fn has(request: &Request, word: &str) -> bool {
    request.encode_to_vec().windows(word.len()).any(|bytes| bytes == word.as_bytes())
}

#[test]
fn a_row_that_others_share_stays_what_it_is() {
    let before = samples(&request());
    let changed = run(Some(Level::Sample), &[r#"set(attributes["thread"], "pool") where Len(values) == 2"#]).unwrap();
    let after = samples(&changed);
    assert_eq!(after[0], before[0].replace("main", "pool"));
    assert_eq!(after[1..], before[1..]);
}

#[test]
fn a_unit_is_kept_when_its_value_is_written() {
    for rule in [r#"set(attributes["bytes"], 7)"#, r#"replace_all_matches(attributes, "main", "x")"#] {
        let changed = run(Some(Level::Sample), &[rule]).unwrap();
        assert!(samples(&changed)[0].contains(" By"), "{rule}: {:?}", samples(&changed));
    }
}

#[test]
fn no_byte_of_what_was_removed_is_left() {
    assert!(has(&request(), "hunter2"));
    for rule in [
        r#"delete_key(profile.attributes, "secret")"#,
        r#"set(profile.attributes["secret"], SHA256(profile.attributes["secret"]))"#,
        r#"replace_all_patterns(profile.attributes, "value", "^hunt.*", "***")"#,
        r#"clear(profile.attributes)"#,
    ] {
        let changed = run(None, &[rule]).unwrap();
        assert!(!has(&changed, "hunter2"), "{rule}");
        assert!(has(&changed, "main.rs") && has(&changed, "/bin/app"), "{rule}");
    }
    // Frames that only dropped samples had are gone, too.
    let (left, _) = filter(Level::Sample, r#"attributes["thread"] == "worker""#, true);
    assert!(!has(&left, "work") && has(&left, "main"));
}

#[test]
fn a_compacted_request_says_the_same() {
    let mut compacted = request();
    assert!(compact(&mut compacted));
    assert_eq!(samples(&compacted), samples(&request()));
    let strings = &compacted.dictionary.as_ref().unwrap().string_table;
    assert!(!strings.iter().any(|string| string == "unused") && strings[0].is_empty());
    assert_eq!(compacted.dictionary.as_ref().unwrap().link_table.len(), 1);
    let again = compacted.clone();
    assert!(compact(&mut compacted));
    assert_eq!(compacted, again);
}

#[test]
fn an_index_that_leads_nowhere_stays_one() {
    let mut broken = request();
    broken.resource_profiles[0].scope_profiles[0].profiles[0].samples[0].attribute_indices = vec![99];
    let before = broken.clone();
    assert!(!compact(&mut broken));
    assert_eq!(broken, before);
    assert!(
        profiler_rules::Rules::statements(
            Some(Level::Sample),
            &[r#"set(attributes["a"], 1)"#],
            Default::default(),
            profiler_rules::Dialect::default()
        )
        .unwrap()
        .apply(broken, |_| {})
        .is_err()
    );
}
