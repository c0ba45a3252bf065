//! What processors make of windows, and what they count.

use std::process::Command;

use profiler_config::RuleGroup;
use profiler_formats::otlp;
use profiler_model::builder::ProfileBuilder;
use profiler_model::{AttributeValue, Measure, Process, Profile, Sample, Thread};

use super::*;
use crate::rules::FILTERED;

/// More CPU time than any of these takes.
const LONG: Duration = Duration::from_secs(600);

/// Services `shop` and `cart`; of each three samples.
fn window() -> Profiles {
    let mut builder = ProfileBuilder::new();
    let mut samples = Vec::new();
    for (cpu, service) in (0..).zip(["shop", "cart"]) {
        let (key, value) = (builder.string("service.name"), builder.string(service));
        let attributes = vec![(key, AttributeValue::Text(value))];
        let process = builder.process(Process { pid: Some(cpu + 1), attributes, ..Process::default() });
        let name = builder.string(&format!("thread of {service}"));
        let thread = Some(builder.thread(Thread { process, tid: cpu + 1, name }));
        let sample = |at| Sample { thread, cpu: Some(cpu), time_unix_nanos: Some(at), ..Sample::default() };
        samples.extend((10..13).map(sample));
    }
    builder.begin(Profile { samples, start_unix_nanos: 10, duration_nanos: 10, ..Profile::of(&Measure::cpu_clock(1)) });
    builder.finish()
}

fn group(mode: ErrorMode, conditions: &[&str], statements: &[&str]) -> RuleGroup {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    RuleGroup {
        place: "rules[0]".to_owned(),
        context: None,
        error_mode: mode,
        conditions: owned(conditions),
        statements: owned(statements),
        key: None,
    }
}

fn filter(name: &str, mode: ErrorMode, conditions: &[&str]) -> Processor {
    Processor { name: name.to_owned(), kind: ProcessorKind::Filter(vec![group(mode, conditions, &[])]) }
}

fn transform(name: &str, mode: ErrorMode, conditions: &[&str], statements: &[&str]) -> Processor {
    Processor { name: name.to_owned(), kind: ProcessorKind::Transform(vec![group(mode, conditions, statements)]) }
}

fn compiled(processors: &[Processor]) -> Processors {
    Processors::compile(processors).expect("right")
}

/// Fails on each sample: no thread has such a long name.
const FAILS: &str = r#"Substring(profilesample.attributes["thread.name"], 0, 100) == "x""#;

fn tally(counts: &Counts, processor: &str, place: &str) -> Tally {
    counts.by_rule.get(&(processor.to_owned(), place.to_owned())).copied().unwrap_or_default()
}

fn dropped(counts: &Counts, processor: &str, why: &'static str) -> u64 {
    counts.filtered.get(&(processor.to_owned(), why)).copied().unwrap_or(0)
}

#[test]
fn without_processors_a_window_is_as_it_was() {
    let mut counts = Counts::default();
    assert_eq!(Processors::default().apply(window(), LONG, &mut counts), Some(window()));
    assert!(counts.by_rule.is_empty() && counts.filtered.is_empty());
}

#[test]
fn what_processors_take_away_is_counted_and_in_no_byte() {
    let processors = compiled(&[
        filter("filter", ErrorMode::Ignore, &["false", r#"resource.attributes["service.name"] == "cart""#]),
        transform(
            "transform",
            ErrorMode::Ignore,
            &[r#"resource.attributes["service.name"] == "shop""#],
            &[r#"delete_key(profilesample.attributes, "thread.name")"#],
        ),
    ]);
    let mut counts = Counts::default();
    for _ in 0..2 {
        let left = processors.apply(window(), LONG, &mut counts).expect("something");
        assert_eq!(left.samples().count(), 3);
        assert_eq!(
            left.losses.iter().map(|loss| (loss.reason.as_str(), loss.count)).collect::<Vec<_>>(),
            [(FILTERED, 3)]
        );
        let bytes = otlp::encode(&left);
        let has = |text: &str| bytes.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        assert!(has("shop") && !has("cart") && !has("thread of"));
    }
    assert_eq!(dropped(&counts, "filter", CONDITION), 6);
    let of = |processor, place| {
        let tally = tally(&counts, processor, place);
        (tally.matched, tally.dropped, tally.errors)
    };
    assert_eq!(of("filter", "rules[0].conditions[0]"), (0, 0, 0));
    assert_eq!(of("filter", "rules[0].conditions[1]"), (2, 6, 0));
    // The three of a thread are one sample with three times.
    assert_eq!(of("transform", "rules[0].conditions[0]"), (2, 0, 0));
    assert_eq!(of("transform", "rules[0].statements[0]"), (2, 0, 0));
    let time = tally(&counts, "transform", "rules[0].statements[0]").time;
    assert!(!time.is_zero(), "no time was taken");
}

#[test]
fn what_rules_made_equal_is_merged_and_counted() {
    let keys = ["service.name", "process.pid"].map(|key| format!("delete_key(resource.attributes, \"{key}\")"));
    let of_samples = ["thread.name", "thread.id", "cpu.logical_number"]
        .map(|key| format!("delete_key(profilesample.attributes, \"{key}\")"));
    let statements: Vec<&str> = keys.iter().chain(&of_samples).map(String::as_str).collect();
    let transforms = statements
        .iter()
        .enumerate()
        .map(|(at, statement)| transform(&format!("transform/{at}"), ErrorMode::Propagate, &[], &[statement]));
    let aggregate = |drop_timestamps| Processor {
        name: "aggregate".to_owned(),
        kind: ProcessorKind::Aggregate(Aggregate { drop_timestamps, other_below: 0 }),
    };
    for drop_timestamps in [false, true] {
        let all: Vec<Processor> = transforms.clone().chain([aggregate(drop_timestamps)]).collect();
        let mut counts = Counts::default();
        let left = compiled(&all).apply(window(), LONG, &mut counts).expect("something");
        assert_eq!((left.sample_count(), samples(&left)), (6, 6));
        assert_eq!(left.sample_entries(), if drop_timestamps { 1 } else { 6 });
        let request = otlp::request(&left);
        assert_eq!(request.resource_profiles.len(), 1);
        assert_eq!(request.resource_profiles[0].scope_profiles[0].profiles[0].samples.len(), 1);
        // The three of a thread are one sample with three times.
        assert_eq!(tally(&counts, "aggregate", "merged").matched, 1);
        assert_eq!(tally(&counts, "aggregate", "other_below"), Tally::default());
        assert!(counts.filtered.is_empty() && left.losses.is_empty());
    }
    let mut counts = Counts::default();
    assert_eq!(compiled(&[aggregate(true)]).apply(window(), Duration::ZERO, &mut counts), None);
    assert_eq!(dropped(&counts, "aggregate", FAILED), 6);
}

#[test]
fn a_window_of_which_nothing_is_left_goes_nowhere() {
    let mut counts = Counts::default();
    assert_eq!(compiled(&[filter("all", ErrorMode::Ignore, &["true"])]).apply(window(), LONG, &mut counts), None);
    assert_eq!(dropped(&counts, "all", CONDITION), 6);
}

#[test]
fn a_rule_that_fails_is_counted_and_does_what_its_error_mode_says() {
    let fails = r#"set(profile.duration, -1)"#;
    for mode in [ErrorMode::Ignore, ErrorMode::Silent] {
        let mut counts = Counts::default();
        let processors = compiled(&[
            filter("filter", mode, &[FAILS, r#"resource.attributes["service.name"] == "cart""#]),
            transform("transform", mode, &[], &[fails, "set(profile.period, 7)"]),
        ]);
        let left = processors.apply(window(), LONG, &mut counts).expect("something");
        // The next rule has run.
        assert_eq!((left.samples().count(), left.profiles[0].period), (3, 7));
        assert_eq!(tally(&counts, "filter", "rules[0].conditions[0]").errors, 2);
        assert_eq!(tally(&counts, "transform", "rules[0].statements[0]").errors, 1);
        assert_eq!(dropped(&counts, "filter", FAILED), 0);
        let told: Vec<_> = processors.failed(&counts).collect();
        let all = [("filter", "rules[0].conditions[0]", 2), ("transform", "rules[0].statements[0]", 1)];
        assert_eq!(told, if mode == ErrorMode::Silent { &[][..] } else { &all });
    }
    // What a condition fails on, its statements do not run on.
    let mut counts = Counts::default();
    let set = "set(profilesample.attributes[\"thread.name\"], \"x\")";
    let given = [FAILS, r#"resource.attributes["service.name"] == "shop""#];
    let left = compiled(&[transform("given", ErrorMode::Silent, &given, &[set])]).apply(window(), LONG, &mut counts);
    let bytes = otlp::encode(&left.expect("all"));
    let has = |text: &str| bytes.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(has("thread of cart") && !has("thread of shop"));
    assert_eq!(tally(&counts, "given", "rules[0].conditions[0]").errors, 2);
    assert_eq!(tally(&counts, "given", "rules[0].statements[0]").matched, 1);

    // Nobody knows what rules would have taken away: all of the window goes, and is counted.
    let mut counts = Counts::default();
    let processors = compiled(&[
        filter("first", ErrorMode::Ignore, &[r#"resource.attributes["service.name"] == "shop""#]),
        transform("second", ErrorMode::Propagate, &["true"], &["set(profile.period, 7)", fails]),
    ]);
    assert_eq!(processors.apply(window(), LONG, &mut counts), None);
    assert_eq!(tally(&counts, "second", "rules[0].statements[1]").errors, 1);
    assert_eq!((dropped(&counts, "first", CONDITION), dropped(&counts, "second", FAILED)), (3, 3));
}

#[test]
fn rules_that_take_too_long_cost_their_window() {
    let mut counts = Counts::default();
    let first = filter("first", ErrorMode::Ignore, &[r#"resource.attributes["service.name"] == "shop""#]);
    let processors = compiled(&[first, transform("second", ErrorMode::Silent, &[], &["set(profile.period, 7)"])]);
    assert_eq!(processors.apply(window(), Duration::ZERO, &mut counts), None);
    assert_eq!((dropped(&counts, "first", FAILED), dropped(&counts, "first", CONDITION)), (6, 0));
    assert_eq!(processors.apply(window(), LONG, &mut counts).expect("something").samples().count(), 3);
    assert_eq!((dropped(&counts, "first", FAILED), dropped(&counts, "first", CONDITION)), (6, 3));
}

#[test]
fn an_index_that_leads_nowhere_drops_the_window() {
    let mut counts = Counts::default();
    let rule = ["set(profilesample.attribute_indices, [1000000])"];
    let processors = compiled(&[transform("broken", ErrorMode::Ignore, &[], &rule)]);
    assert_eq!(processors.apply(window(), LONG, &mut counts), None);
    assert_eq!(dropped(&counts, "broken", FAILED), 6);
}

#[test]
fn a_rule_that_takes_the_place_of_another_begins_at_0() {
    let mut counts = Counts::default();
    let cart = r#"resource.attributes["service.name"] == "cart""#;
    let set = |condition| {
        let stays = transform("stays", ErrorMode::Ignore, &[], &["set(profile.period, 7)"]);
        compiled(&[filter("filter", ErrorMode::Ignore, &[condition, "false"]), stays])
    };
    let (first, second) = (set(cart), set("false"));
    first.apply(window(), LONG, &mut counts).expect("something");
    let ran = tally(&counts, "stays", "rules[0]");
    counts.keep(&first, &second);
    assert_eq!((ran.matched, ran), (1, tally(&counts, "stays", "rules[0]")), "it is the same in both");
    assert_eq!(tally(&counts, "filter", "rules[0].conditions[0]"), Tally::default());
    second.apply(window(), LONG, &mut counts).expect("something");
    assert_eq!(tally(&counts, "filter", "rules[0].conditions[0]").matched, 0);
    assert_eq!(dropped(&counts, "filter", CONDITION), 3, "of the processor, whatever its rules");
    counts.keep(&second, &Processors::default());
    assert!(counts.by_rule.is_empty());
}

/// Sets of rules that never repeat, one after another: all samples are somewhere, and what is kept of the past is bounded.
fn swapped(times: usize, counts: &mut Counts) {
    let mut before = Processors::default();
    for time in 0..times {
        let name = format!("set-{}", counts.filtered.len() + counts.by_rule.len() + time);
        let pattern = format!(r#"IsMatch(resource.attributes["service.name"], "^(cart|other{time}[a-z]+)$")"#);
        let processors = compiled(&[
            filter(&name, ErrorMode::Ignore, &[&pattern, "false"]),
            transform("tag", ErrorMode::Ignore, &[], &[&format!("set(resource.attributes[\"set\"], \"{time}\")")]),
        ]);
        let filtered: u64 = counts.filtered.values().sum();
        counts.keep(&before, &processors);
        let left = processors.apply(window(), LONG, counts).expect("something");
        assert_eq!(left.samples().count() as u64 + counts.filtered.values().sum::<u64>() - filtered, 6);
        assert_eq!(counts.by_rule.len(), 3);
        assert!(counts.filtered.len() <= MAX_NAMES + 1);
        before = processors;
    }
}

/// In a process of its own, whose memory is nobody else's: the test below starts this one.
#[test]
fn rules_are_swapped_in_a_child() {
    if std::env::var_os("PROFILER_TEST_SWAPS").is_none() {
        return;
    }
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("readable");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
    };
    let mut counts = Counts::default();
    swapped(200, &mut counts);
    let before = resident();
    swapped(3000, &mut counts);
    let after = resident();
    println!("resident {before} bytes, {after} after 3,000 swaps");
    // How much of what is free the allocator keeps is its own matter; a set that stays each time is several times as much.
    assert!(after < before + (16 << 20), "{before} bytes became {after}");
}

#[test]
fn thousands_of_sets_of_rules_lose_no_sample_and_leave_no_memory_behind() {
    let mut child = Command::new(std::env::current_exe().expect("known"));
    child.args(["--exact", "agent::processors::tests::rules_are_swapped_in_a_child", "--nocapture"]);
    let output = child.env("PROFILER_TEST_SWAPS", "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("after 3,000 swaps"), "{said}\n{output:?}");
    println!("{said}");
}

/// In a process of its own, in which rules panic: the test below starts this one.
#[test]
fn rules_panic_in_a_child() {
    if std::env::var_os("PROFILER_FAULT").is_none_or(|at| at != "rules") {
        return;
    }
    profiler_elf::contain::end_process_on_panic();
    let mut counts = Counts::default();
    let processors = compiled(&[filter("broken", ErrorMode::Silent, &["false"])]);
    assert_eq!(processors.apply(window(), LONG, &mut counts), None);
    println!("failed {}", dropped(&counts, "broken", FAILED));
}

#[test]
fn a_rule_that_panics_costs_its_window_and_is_counted() {
    let mut child = Command::new(std::env::current_exe().expect("known"));
    child.args(["--exact", "agent::processors::tests::rules_panic_in_a_child", "--nocapture"]);
    let output = child.env("PROFILER_FAULT", "rules").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("failed 6"), "{said}\n{output:?}");
}

#[test]
fn conditions_on_who_a_process_is_are_decided_early_as_far_as_nothing_before_them_changes_it() {
    let cart = r#"resource.attributes["service.name"] == "cart""#;
    let of = |processors: &[Processor]| {
        let (compiled, explained) = Processors::explained(processors).expect("right");
        let why = explained.into_iter().map(|rule| (format!("{} {}", rule.processor, rule.place), rule.why));
        (compiled.early(), why.collect::<Vec<_>>())
    };
    let first = filter("first", ErrorMode::Ignore, &[FAILS, cart]);
    let (early, why) = of(&[first.clone(), transform("changes", ErrorMode::Ignore, &[], &["set(profile.period, 7)"])]);
    assert!(!early.is_empty() && early.name(0) == "first");
    let told: Vec<_> = why.iter().map(|(place, why)| (place.as_str(), why.as_deref())).collect();
    assert_eq!(
        told,
        [
            (
                "first rules[0].conditions[0]",
                Some("it reads profilesample.attributes, which is not the same in all samples of a process")
            ),
            ("first rules[0].conditions[1]", None),
            ("changes rules[0]", Some("it changes what was sampled")),
        ]
    );
    let (early, why) = of(&[transform("changes", ErrorMode::Ignore, &[], &["set(profile.period, 7)"]), first]);
    assert!(early.is_empty() && why.iter().all(|(_, why)| why.is_some()), "{why:?}");
    assert!(why[1].1.as_deref().is_some_and(|why| why.starts_with("changes, which runs before it")), "{why:?}");
}
