//! Samples of several measures and periods stay what they are in every format.

use std::collections::BTreeMap;

use profiler_formats::{
    folded::{self, Root},
    format::{self, Format},
    otlp, pprof,
};
use profiler_model::{
    Function, Line, Link, Location, Measure, Profile, Profiles, Sample, ValueType, Values, builder::ProfileBuilder,
};
use serde_json::Value;

use crate::profiles::{page_faults, recording, samples, value_type};

fn stack(b: &mut ProfileBuilder, name: &str) -> u32 {
    let name = b.string(name);
    let function = b.function(Function { name, ..Function::default() });
    let lines = vec![Line { function, line: 0, column: 0 }];
    let location = b.location(Location { lines, ..Location::default() });
    b.stack(&[location])
}

/// 100 samples of `f99`, then the rate changed, 100 of `f49`; each in a span.
fn two_periods() -> Profiles {
    let mut b = ProfileBuilder::new();
    let link = b.link(Link { trace_id: [1; 16], span_id: [2; 8] });
    for (name, period) in [("f99", 10_101_010), ("f49", 20_408_163)] {
        let stack = stack(&mut b, name);
        let mut profile = Profile::of(&Measure::cpu_clock(period));
        profile.samples.push(Sample { stack, link, values: Values::One(100), ..Sample::default() });
        b.begin(profile);
    }
    b.finish()
}

/// CPU samples and page faults of one recording.
fn two_measures() -> Profiles {
    let mut b = recording();
    let (cpu, both) = (stack(&mut b, "computes"), stack(&mut b, "allocates"));
    let sample = |stack, value| Sample { stack, values: Values::One(value), ..Sample::default() };
    b.profile_mut().samples = vec![sample(cpu, 7), sample(both, 3)];
    let start = b.profile_mut().start_unix_nanos;
    b.begin(Profile { start_unix_nanos: start, duration_nanos: 5, ..Profile::of(&page_faults()) });
    b.profile_mut().samples = vec![sample(both, 1000)];
    b.finish()
}

/// CPU time by two clocks, the scheduler's shown first if `second`, and page faults.
pub fn two_clocks(second: bool) -> Profiles {
    let mut b = recording();
    let (busy, faults) = (stack(&mut b, "busy"), stack(&mut b, "faults"));
    let sample = |stack, value| Sample { stack, values: Values::One(value), ..Sample::default() };
    b.profile_mut().samples = vec![sample(busy, 20), sample(faults, 5)];
    let task_clock = Measure { source: "task-clock".to_owned(), ..Measure::cpu_clock(1_000_000) };
    b.begin(Profile { default_sample_type: second.then_some(0), ..Profile::of(&task_clock) });
    b.profile_mut().samples = vec![sample(busy, 190), sample(faults, 60)];
    b.begin(Profile::of(&page_faults()));
    b.profile_mut().samples = vec![sample(faults, 4000)];
    b.finish()
}

/// Go's heap profile: four values a sample, bytes last, and the file says that one is the default.
fn heap(default: usize) -> Profiles {
    let mut b = ProfileBuilder::new();
    let (big, small) = (stack(&mut b, "big"), stack(&mut b, "small"));
    let types =
        [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")];
    b.begin(Profile {
        sample_types: types.iter().map(|(kind, unit)| value_type(kind, unit)).collect(),
        default_sample_type: Some(default),
        period_type: ValueType::new("space", "bytes"),
        period: 4096,
        ..Profile::default()
    });
    let values = |values: [i64; 4]| Values::Many(values.into());
    b.profile_mut().samples = vec![
        Sample { stack: big, values: values([1, 10 << 20, 1, 10 << 20]), ..Sample::default() },
        Sample { stack: small, values: values([2000, 128_000, 1500, 96_000]), ..Sample::default() },
    ];
    b.finish()
}

/// Value sums of a folded file by function.
fn folded(profile: &Profiles, sample_type: Option<&str>) -> BTreeMap<String, u64> {
    let mut out = Vec::new();
    folded::encode_by(profile, &profile.shown(sample_type).unwrap(), Root::Process, &mut out).unwrap();
    let lines = String::from_utf8(out).unwrap();
    let one = |line: &str| {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        (stack.rsplit(';').next().unwrap().to_owned(), count.parse().unwrap())
    };
    lines.lines().map(one).collect()
}

fn as_pprof(profile: &Profiles) -> Vec<u8> {
    let mut out = Vec::new();
    pprof::encode(profile, &mut out).unwrap();
    out
}

#[test]
fn two_periods_of_one_measure_add_up_to_the_truth() {
    let profile = two_periods();
    let truth = BTreeMap::from([("f49".to_owned(), 2_040_816_300), ("f99".to_owned(), 1_010_101_000)]);
    assert_eq!(folded(&profile, None), truth);
    // In pprof each sample is worth its own period, and no period is said of all.
    let back = pprof::decode(&as_pprof(&profile)).unwrap();
    assert_eq!(folded(&back, Some("cpu")), truth);
    assert_eq!(folded(&back, Some("samples")), BTreeMap::from([("f49".to_owned(), 100), ("f99".to_owned(), 100)]));
    assert_eq!(back.profiles[0].period, 0);
    assert_eq!(back.shown(None).unwrap().sample_type().kind, "cpu");
}

#[test]
fn otlp_keeps_profiles_periods_and_links() {
    let profile = two_periods();
    let bytes = otlp::encode(&profile);
    assert_eq!(otlp::check(&bytes), []);
    let back = otlp::decode(&bytes).unwrap();
    assert_eq!(back.profiles.iter().map(|part| part.period).collect::<Vec<_>>(), [10_101_010, 20_408_163]);
    assert_eq!(samples(&back), samples(&profile));
    for (_, sample) in back.samples() {
        assert_eq!(back.links[sample.link as usize], Link { trace_id: [1; 16], span_id: [2; 8] });
    }
    let request = otlp::request(&profile);
    assert_eq!(request.resource_profiles[0].scope_profiles[0].profiles.len(), 2);
    assert_eq!(request.dictionary.unwrap().link_table.len(), 2);
}

#[test]
fn measures_are_sample_types_of_one_pprof_file() {
    let profile = two_measures();
    let back = pprof::decode(&as_pprof(&profile)).unwrap();
    assert_eq!(samples(&back), samples(&profile));
    let kinds: Vec<_> = back.measured().iter().map(|measured| measured.name().to_owned()).collect();
    assert_eq!(kinds, ["samples", "page-faults"]);
    assert_eq!(back.shown(None).unwrap().title(), "CPU profile");
    // Periods and times are each measure's own.
    for (one, other) in back.profiles.iter().zip(&profile.profiles) {
        assert_eq!((one.period, &one.source, one.duration_nanos), (other.period, &other.source, other.duration_nanos));
    }
}

#[test]
fn what_is_shown_is_a_choice_and_is_called_by_its_name() {
    let profile = two_measures();
    assert_eq!(folded(&profile, None), BTreeMap::from([("allocates".to_owned(), 3), ("computes".to_owned(), 7)]));
    assert_eq!(folded(&profile, Some("page-faults")), BTreeMap::from([("allocates".to_owned(), 1000)]));
    let error = profile.shown(Some("cycles")).unwrap_err().to_string();
    assert!(error.contains("samples, page-faults"), "{error}");
    let mut drawn = Vec::new();
    let shown = profile.shown(Some("page-faults")).unwrap();
    format::write_shown(&profile, &shown, Format::Svg, &mut drawn).unwrap();
    let drawn = String::from_utf8(drawn).unwrap();
    assert!(drawn.contains("page faults: all processes") && drawn.contains("1000 page faults"), "{drawn}");

    let mut file = Vec::new();
    format::write_shown(&profile, &shown, Format::Speedscope, &mut file).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let profiles: Vec<_> = file["profiles"].as_array().unwrap().iter().collect();
    let ends: Vec<_> =
        profiles.iter().map(|one| (one["name"].as_str().unwrap(), one["endValue"].as_u64().unwrap())).collect();
    assert_eq!(ends, [("All samples", 10 * 10_101_010), ("All page-faults", 1000)]);
    assert_eq!(file["activeProfileIndex"], 1);
}

#[test]
fn a_heap_profile_is_its_default_type_and_no_product() {
    for (default, name, title) in [(3, "inuse_space", "inuse space"), (1, "alloc_space", "alloc space")] {
        let profile = heap(default);
        for read in [
            pprof::decode(&as_pprof(&profile)).unwrap(),
            otlp::decode(&otlp::encode(&profile)).unwrap(),
            pprof::decode(&as_pprof(&otlp::decode(&otlp::encode(&profile)).unwrap())).unwrap(),
        ] {
            assert_eq!(samples(&read), samples(&profile));
            let shown = read.shown(None).unwrap();
            assert_eq!((shown.name(), shown.title().as_str()), (name, title));
            assert_eq!(folded(&read, None)["big"], 10 << 20);
            assert_eq!(folded(&read, Some("inuse_objects"))["small"], 1500);
            let mut file = Vec::new();
            format::write(&read, Format::Speedscope, &mut file).unwrap();
            let file: Value = serde_json::from_slice(&file).unwrap();
            assert!(file["name"].as_str().unwrap().starts_with(title), "{}", file["name"]);
            let bytes = file["profiles"].as_array().unwrap().iter().find(|one| one["name"] == format!("All {name}"));
            assert_eq!(bytes.unwrap()["endValue"], shown.total());
            let mut drawn = Vec::new();
            format::write(&read, Format::Svg, &mut drawn).unwrap();
            let drawn = String::from_utf8(drawn).unwrap();
            assert!(drawn.contains(title) && !drawn.contains("CPU profile"));
        }
    }
}

#[test]
fn two_clocks_are_told_apart_by_name() {
    for second in [false, true] {
        let profile = two_clocks(second);
        let shown = |profile: &Profiles| profile.shown(None).unwrap().source().to_owned();
        let names = |profile: &Profiles| -> Vec<String> {
            profile.measured().iter().map(|measured| measured.name().to_owned()).collect()
        };
        let back = pprof::decode(&as_pprof(&profile)).unwrap();
        assert_eq!(samples(&back), samples(&profile));
        assert_eq!(names(&back), ["cpu-clock", "task-clock", "page-faults"]);
        assert_eq!(shown(&back), if second { "task-clock" } else { "cpu-clock" });
        assert_eq!(shown(&otlp::decode(&otlp::encode(&profile)).unwrap()), shown(&profile));
        for (name, busy) in [("cpu-clock", 20), ("task-clock", 190)] {
            assert_eq!(folded(&back, Some(name))["busy"], busy, "{name}");
        }
    }
}

#[test]
fn what_has_no_name_of_its_own_gets_one() {
    let mut b = ProfileBuilder::new();
    let stack = stack(&mut b, "f");
    for (every, value) in [("cpu", 1), ("wall", 2), ("wall", 3)] {
        let period = if value == 3 { 0 } else { 10 };
        let sample = Sample { stack, values: Values::One(value), ..Sample::default() };
        b.begin(Profile {
            sample_types: vec![value_type("samples", "count")],
            period_type: value_type(every, "nanoseconds"),
            period,
            samples: vec![sample],
            ..Profile::default()
        });
    }
    let mut profile = b.finish();
    let names: Vec<String> = profile.measured().iter().map(|measured| measured.name().to_owned()).collect();
    assert_eq!(names, ["samples", "wall", "samples_2"]);
    let values = names.iter().map(|name| folded(&profile, Some(name))["f"]).collect::<Vec<_>>();
    assert_eq!(values, [1, 2, 3]);
    // What is shown first stays so, though three are called samples.
    for (nth, value) in [(0, 1), (1, 2), (2, 3)] {
        profile.profiles.iter_mut().for_each(|part| part.default_sample_type = None);
        profile.profiles[nth].default_sample_type = Some(0);
        for back in [otlp::decode(&otlp::encode(&profile)).unwrap(), pprof::decode(&as_pprof(&profile)).unwrap()] {
            assert_eq!(folded(&back, None)["f"], value, "{nth}");
        }
    }
}
