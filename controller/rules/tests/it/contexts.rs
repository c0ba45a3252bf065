//! The paths of each context, read and written.

use std::{cell::Cell, time::Instant};

use profiler_ottl::{ErrorMode, Gates};
use profiler_rules::{Level, Request, Rules, Tally};

use crate::made::{filter, request, run};

fn holds(level: Level, condition: &str) -> bool {
    let (_, done) = filter(level, condition, true);
    done.dropped == done.contexts
}

#[test]
fn paths_are_read() {
    let conditions: &[(Level, &[&str])] = &[
        (
            Level::Resource,
            &[
                r#"attributes["service.name"] == "shop""#,
                "resource.dropped_attributes_count == 0",
                r#"schema_url == """#,
            ],
        ),
        (
            Level::Scope,
            &[
                r#"name == "profiler""#,
                r#"scope.version == "1""#,
                r#"instrumentation_scope.name == "profiler""#,
                "attributes == {}",
            ],
        ),
        (
            Level::Profile,
            &[
                r#"attributes["secret"] == "hunter2""#,
                "attribute_indices == [4]",
                r#"sample_type.unit == "nanoseconds""#,
                "sample_type == profile.sample_type",
                "sample_type != period_type",
                "time_unix_nano == 1600000000000000000",
                "UnixNano(time) == time_unix_nano",
                "duration == 1000 and duration_unix_nano == duration",
                "period == 10",
                "profile_id == ProfileID(0x07070707070707070707070707070707)",
                r#"profile_id.string == "07070707070707070707070707070707""#,
                r#"resource.attributes["service.name"] == "shop""#,
            ],
        ),
        (
            Level::Sample,
            &[
                "Len(values) > 0",
                "timestamps_unix_nano == [5, 6]",
                "UnixNano(Unix(0, 5)) == 5",
                "Len(profilesample.timestamps) == 2",
                "link_index == 0",
                r#"profile.attributes["secret"] == "hunter2""#,
            ],
        ),
    ];
    for (level, conditions) in conditions {
        for condition in *conditions {
            assert!(holds(*level, condition), "{level}: {condition}");
        }
    }
}

#[test]
fn a_path_of_an_inner_context_is_refused() {
    let refused = |level, rule: &str| {
        Rules::statements(Some(level), &[rule], ErrorMode::Propagate, Gates::default()).unwrap_err().to_string()
    };
    assert!(refused(Level::Resource, "set(profile.period, 1)").contains("there is no profile"));
    assert!(refused(Level::Profile, "set(resource.cache, {})").contains("profile.cache"));
    assert!(refused(Level::Profile, "set(perod, 1)").contains("did you mean `period`?"));
    assert!(refused(Level::Profile, "set(period[1], 1)").contains("has no keys"));
    assert!(refused(Level::Profile, r#"set(otelcol.client.addr, "x")"#).contains("Collector"));
}

#[test]
fn the_context_is_the_innermost_that_is_named() {
    let level =
        |rules: &[&str]| Rules::statements(None, rules, ErrorMode::Propagate, Gates::default()).expect("rules").level();
    assert_eq!(level(&[r#"set(resource.attributes["a"], 1)"#]), Level::Resource);
    assert_eq!(level(&[r#"set(resource.attributes["a"], scope.name)"#]), Level::Scope);
    assert_eq!(level(&["set(period, 1)"]), Level::Profile);
    assert_eq!(level(&[r#"set(resource.attributes["a"], 1)"#, "set(profilesample.values, [1])"]), Level::Sample);
}

#[test]
fn paths_are_written() {
    let all = |request: &Request| request.resource_profiles[0].clone();
    let changed =
        all(&run(Some(Level::Resource), &[r#"set(attributes["team"], {"name": "web"})"#, r#"set(schema_url, "u")"#])
            .unwrap());
    assert_eq!((changed.resource.unwrap().attributes.len(), changed.schema_url.as_str()), (2, "u"));
    let changed = all(&run(Some(Level::Scope), &[r#"set(name, "other")"#, r#"set(attributes["a"], 1)"#]).unwrap());
    assert_eq!(changed.scope_profiles[0].scope.as_ref().unwrap().name, "other");
    let rules = [
        "set(time_unix_nano, 7)",
        "set(duration, 8)",
        "set(period, 9)",
        r#"set(profile_id.string, "0102030405060708090a0b0c0d0e0f10")"#,
        "set(original_payload, 0x0102)",
        r#"set(period_type.type, "clock")"#,
        "set(dropped_attributes_count, 3)",
    ];
    let request = run(Some(Level::Profile), &rules).unwrap();
    let profile = &all(&request).scope_profiles[0].profiles[1];
    assert_eq!((profile.time_unix_nano, profile.duration_nano, profile.period, profile.profile_id[15]), (7, 8, 9, 16));
    assert_eq!((profile.original_payload.as_slice(), profile.dropped_attributes_count), (&[1_u8, 2][..], 3));
    let strings = &request.dictionary.as_ref().unwrap().string_table;
    assert_eq!(strings[usize::try_from(profile.period_type.unwrap().type_strindex).unwrap()], "clock");
    let request =
        run(Some(Level::Sample), &["set(values, [7, 8])", "set(timestamps, [Unix(0, 9)])", "set(link_index, 1)"])
            .unwrap();
    let sample = &all(&request).scope_profiles[0].profiles[0].samples[0];
    assert_eq!(
        (sample.values.as_slice(), sample.timestamps_unix_nano.as_slice(), sample.link_index),
        (&[7_i64, 8][..], &[9_u64][..], 1)
    );
}

#[test]
fn what_cannot_be_is_an_error_and_changes_nothing() {
    for rule in [
        "set(duration, -1)",
        "set(period, nil)",
        r#"set(period, "1")"#,
        "set(profile_id, ProfileID(0x00000000000000000000000000000000))",
        r#"set(profile_id.string, "0102")"#,
        r#"set(attributes["t"], time)"#,
        "set(profilesample.link_index, 2147483647)",
        r#"set(attributes["secret"]["deeper"], 1)"#,
    ] {
        assert!(run(None, &[rule]).is_err(), "{rule}");
    }
}

#[test]
fn a_cache_is_of_one_context() {
    let rules = [
        r#"set(cache["n"], 1) where sample_type.type == "cpu""#,
        r#"set(attributes["n"], cache["n"]) where cache["n"] != nil"#,
    ];
    let request = run(Some(Level::Profile), &rules).unwrap();
    let lengths: Vec<usize> = request.resource_profiles[0].scope_profiles[0]
        .profiles
        .iter()
        .map(|profile| profile.attribute_indices.len())
        .collect();
    assert_eq!(lengths, [2, 1]);
}

#[test]
fn what_is_dropped_takes_what_is_empty_with_it() {
    let profiles = |request: &Request| {
        request
            .resource_profiles
            .iter()
            .flat_map(|all| &all.scope_profiles)
            .map(|all| all.profiles.len())
            .sum::<usize>()
    };
    let (left, done) = filter(Level::Profile, r#"sample_type.type == "alloc""#, true);
    assert_eq!((profiles(&left), done.contexts, done.dropped), (1, 2, 1));
    let (left, _) = filter(Level::Sample, r#"attributes["thread"] == "main""#, false);
    assert_eq!((profiles(&left), left.resource_profiles[0].scope_profiles[0].profiles[0].samples.len()), (1, 1));
    for (level, condition) in
        [(Level::Resource, "true"), (Level::Scope, "true"), (Level::Profile, "true"), (Level::Sample, "true")]
    {
        assert!(filter(level, condition, true).0.resource_profiles.is_empty(), "{level}");
        assert_eq!(
            filter(level, condition, false).0.resource_profiles.len(),
            request().resource_profiles.len(),
            "{level}"
        );
    }
}

#[test]
fn rules_end_soon_after_the_time_is_over() {
    let mut many = request();
    let profile = many.resource_profiles[0].scope_profiles[0].profiles[0].clone();
    many.resource_profiles[0].scope_profiles[0].profiles = vec![profile; 1000];
    let rules = Rules::filter(Some(Level::Profile), &["true"], true, ErrorMode::Propagate, Gates::default());
    let rules = rules.expect("right");
    let asked = Cell::new(0);
    let is_late = || {
        asked.set(asked.get() + 1);
        asked.get() > 10
    };
    let (left, done) = rules.apply_counted(many.clone(), &mut [], &is_late, |_| {}).expect("right");
    assert!(done.is_late && asked.get() == 11 && (11..500).contains(&done.contexts), "{done:?}");
    assert_eq!(left.resource_profiles[0].scope_profiles[0].profiles.len(), 1000 - done.contexts, "as they were");
    let (_, done) = rules.apply_counted(many, &mut [], &|| false, |_| {}).expect("right");
    assert!(!done.is_late && done.contexts == 1000);
}

#[test]
fn a_rule_on_one_context_takes_no_longer_than_all() {
    // To compile that takes most of the time.
    let condition = r#"IsMatch(name, Concat(["(?:a|b){900}", ""], ""))"#;
    let rules =
        Rules::filter(Some(Level::Scope), &[condition], true, ErrorMode::Propagate, Gates::default()).expect("right");
    let mut tallies = [Tally::default()];
    let begun = Instant::now();
    let (_, done) = rules.apply_counted(request(), &mut tallies, &|| false, |_| {}).expect("right");
    let all = begun.elapsed();
    assert_eq!(done.contexts, 1);
    let time = tallies[0].time;
    assert!(!time.is_zero() && time <= all, "{time:?} of {all:?}");
}
