//! Files for viewers, against what the viewers say they read.

use std::io::Read;

use crate::profiles::small;
use profiler_formats::{
    firefox,
    folded::{self, Root},
    format::{self, Format},
    speedscope, svg,
};
use profiler_model::{
    FrameKind, Function, Line, Location, Profiles, Sample, Tier, Values, builder::ProfileBuilder, summary,
};
use proptest::prelude::*;
use serde_json::Value;

fn text(profile: &Profiles, encode: impl Fn(&Profiles, &mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut bytes = Vec::new();
    encode(profile, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The part of JSON Schema (draft 7) that speedscope's schema is written in; another keyword is an error of this test.
fn validate(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().unwrap() {
        let holds = match keyword.as_str() {
            "title" | "description" | "definitions" | "$schema" | "required" | "default" => true,
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#").unwrap();
                validate(root, root.pointer(name).unwrap(), value)?;
                true
            }
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                other => panic!("type {other}"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "anyOf" => rule.as_array().unwrap().iter().any(|schema| validate(root, schema, value).is_ok()),
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items.map(|item| validate(root, rule, item)).collect::<Result<Vec<_>, _>>()?;
                true
            }
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        validate(root, schema, value)?;
                    }
                }
                true
            }
            other => panic!("keyword {other}"),
        };
        if !holds {
            return Err(format!("{keyword} {rule}: {value}"));
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            return Err(format!("{name} is missing in {value}"));
        }
    }
    Ok(())
}

fn speedscope(profile: &Profiles) -> Value {
    let file: Value = serde_json::from_str(&text(profile, |profile, out| speedscope::encode(profile, out))).unwrap();
    // From the npm package speedscope 1.25.0 (MIT, Jamie Wong), dist/release/file-format-schema.json.
    let schema: Value = serde_json::from_str(include_str!("data/speedscope-schema.json")).unwrap();
    validate(&schema, &schema, &file).unwrap();
    for profile in file["profiles"].as_array().unwrap() {
        let weights: u64 = profile["weights"].as_array().unwrap().iter().map(|weight| weight.as_u64().unwrap()).sum();
        assert_eq!(profile["endValue"], weights);
        assert_eq!(profile["samples"].as_array().unwrap().len(), profile["weights"].as_array().unwrap().len());
        let frames = file["shared"]["frames"].as_array().unwrap().len() as u64;
        let used = profile["samples"].as_array().unwrap().iter().flat_map(|sample| sample.as_array().unwrap());
        assert!(used.into_iter().all(|frame| frame.as_u64().unwrap() < frames));
    }
    file
}

#[test]
fn speedscope_has_all_samples_and_each_thread_in_time() {
    let file = speedscope(&small(12));
    let profiles = file["profiles"].as_array().unwrap();
    let names: Vec<_> = profiles.iter().map(|profile| profile["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["All samples", "server (100) / server (100)", "server (100) / worker (101)", "sh (200) / sh (200)"]
    );
    let ends: Vec<_> = profiles.iter().map(|profile| profile["endValue"].as_u64().unwrap()).collect();
    assert_eq!(ends, [121_212_120, 40_404_040, 40_404_040, 40_404_040]);
    let frames = file["shared"]["frames"].as_array().unwrap();
    let sample: Vec<_> = profiles[1]["samples"][0].as_array().unwrap().iter().collect();
    let names: Vec<_> =
        sample.iter().map(|id| frames[id.as_u64().unwrap() as usize]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["main", "server::handle", "core::ptr::read [inlined]", "write", "ksys_write [kernel]"]);
    assert!(file["name"].as_str().unwrap().contains("99 Hz"));
    assert!(file["name"].as_str().unwrap().contains("3 lost: ring full"));
}

#[test]
fn folded_lines_are_root_first_and_marked() {
    let lines = text(&small(12), |profile, out| folded::encode(profile, out));
    let mut found: Vec<_> = lines.lines().collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "server;main;server::handle;core::ptr::read_[i] 2",
            "server;main;server::handle;core::ptr::read_[i];LazyCompile:~go /a.js:1_[j] 2",
            "server;main;server::handle;core::ptr::read_[i];write;ksys_write_[k] 2",
            "server;unwind: no mapping;[libc.so.6+0x2a000] 2",
            "sh;main;server::handle;core::ptr::read_[i] 1",
            "sh;main;server::handle;core::ptr::read_[i];LazyCompile:~go /a.js:1_[j] 1",
            "sh;main;server::handle;core::ptr::read_[i];write;ksys_write_[k] 1",
            "sh;unwind: no mapping;[libc.so.6+0x2a000] 1",
        ]
    );
    let mut by_thread = Vec::new();
    let small = small(12);
    folded::encode_by(&small, &small.shown(None).unwrap(), Root::Thread, &mut by_thread).unwrap();
    assert!(String::from_utf8(by_thread).unwrap().contains("server;worker (101);main;"));
}

#[test]
fn a_flame_graph_says_where_how_and_what_is_missing() {
    let drawn = text(&small(400), |profile, out| svg::encode(profile, out));
    let document = roxmltree::Document::parse_with_options(
        &drawn,
        roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() },
    )
    .unwrap();
    let texts: Vec<_> = document.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect();
    let all = texts.join("\n");
    for expected in [
        "all processes on alder",
        "Linux 6.18.0 amd64",
        "99 Hz",
        "10.0 s",
        "400 samples",
        "3 lost: ring full",
        "ksys_write",
    ] {
        assert!(all.contains(expected), "{expected}");
    }
    // Colours are by kind: orange for the kernel, aqua for what is inlined.
    let fill = |name: &str| {
        let title = document.descendants().find(|node| node.text().is_some_and(|text| text.starts_with(name))).unwrap();
        let group = title.ancestors().find(|node| node.has_tag_name("g")).unwrap();
        let rect = group.descendants().find(|node| node.has_tag_name("rect")).unwrap();
        let numbers = rect.attribute("fill").unwrap().trim_start_matches("rgb(").trim_end_matches(')').split(',');
        numbers.map(|number| number.trim().parse().unwrap()).collect::<Vec<u8>>()
    };
    let (kernel, inlined, native) = (fill("ksys_write"), fill("core::ptr::read"), fill("main"));
    assert!(kernel[0] > 200 && kernel[1] > 120 && kernel[2] < 60, "{kernel:?}");
    assert!(inlined[0] < 120 && inlined[1] > 170 && inlined[2] > 170, "{inlined:?}");
    assert!(native[0] > 200 && native[1] < 130, "{native:?}");
}

#[test]
fn a_flame_graph_of_nothing_is_drawn() {
    let drawn = text(&crate::profiles::recording().finish(), |profile, out| svg::encode(profile, out));
    assert!(drawn.contains("no samples"));
}

#[test]
fn huge_counts_are_written_in_every_format() {
    let mut profile = small(12);
    for sample in &mut profile.profiles[0].samples {
        sample.values = Values::One(i64::MAX);
    }
    for format in Format::all() {
        format::write(&profile, format, std::io::sink()).unwrap();
    }
    assert_eq!(summary(&profile).samples, u64::MAX);
}

#[test]
fn deep_stacks_and_long_names_are_written_in_every_format() {
    let mut b = crate::profiles::recording();
    let functions = ["recurse".to_owned(), "n".repeat(64 << 10)].map(|name| {
        let name = b.string(&name);
        b.function(Function { name, ..Function::default() })
    });
    let stack: Vec<u32> = (0..1200)
        .map(|address| {
            let lines = vec![Line { function: functions[usize::from(address == 7)], line: 1, column: 0 }];
            b.location(Location { address, lines, ..Location::default() })
        })
        .collect();
    let stack = b.stack(&stack);
    b.profile_mut().samples.push(Sample { stack, ..Sample::default() });
    let profile = b.finish();
    for format in Format::all() {
        let mut bytes = Vec::new();
        format::write(&profile, format, &mut bytes).unwrap();
        if format.is_readable() {
            let back = format::read(&bytes).unwrap();
            assert_eq!(crate::profiles::samples(&profile), crate::profiles::samples(&back));
        }
    }
}

fn firefox(profile: &Profiles) -> Value {
    let mut bytes = Vec::new();
    firefox::encode(profile, &mut bytes).unwrap();
    let mut json = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut json).unwrap();
    serde_json::from_str(&json).unwrap()
}

#[test]
fn the_firefox_profiler_gets_threads_libraries_and_categories() {
    let file = firefox(&small(12));
    let threads = file["threads"].as_array().unwrap();
    let names: Vec<_> = threads.iter().map(|thread| (thread["processName"].clone(), thread["name"].clone())).collect();
    assert_eq!(names.len(), 3);
    assert!(names.contains(&("server".into(), "worker".into())), "{names:?}");
    let samples: u64 = threads.iter().map(|thread| thread["samples"]["length"].as_u64().unwrap()).sum();
    assert_eq!(samples, 12);
    let libraries: Vec<_> = file["libs"].as_array().unwrap().iter().map(|library| library["codeId"].clone()).collect();
    assert!(libraries.contains(&"cc22".into()), "{libraries:?}");
    let categories: Vec<_> = file["meta"]["categories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|category| category["name"].as_str().unwrap())
        .collect();
    for expected in ["Native", "Kernel", "Inlined", "JIT", "Incomplete"] {
        assert!(categories.contains(&expected));
    }
    let strings = file["shared"]["stringArray"].as_array().or(file["threads"][0]["stringArray"].as_array()).unwrap();
    for expected in ["ksys_write", "core::ptr::read", "server::handle", "unwind: no mapping", "[libc.so.6+0x2a000]"] {
        assert!(strings.contains(&expected.into()), "{expected}: {strings:?}");
    }
}

#[test]
fn the_firefox_profiler_gets_tiers_as_subcategories() {
    let mut b: ProfileBuilder = crate::profiles::recording();
    let name = b.string("com.acme.Shop.checkout");
    let function = b.function(Function { name, ..Default::default() });
    let lines = vec![Line { function, ..Default::default() }];
    for tier in [None, Some(Tier::C1), Some(Tier::C2)] {
        let location = b.location(Location { kind: FrameKind::Jvm, lines: lines.clone(), tier, ..Default::default() });
        let stack = b.stack(&[location]);
        b.profile_mut().samples.push(Sample { stack, ..Sample::default() });
    }
    let file = firefox(&b.finish());
    let categories = file["meta"]["categories"].as_array().unwrap();
    let of_jvm = categories.iter().position(|category| category["name"] == "JVM").unwrap();
    assert_eq!(categories[of_jvm]["subcategories"], serde_json::json!(["Other", "C1", "C2"]));
    let tables = [&file["shared"]["frameTable"], &file["threads"][0]["frameTable"]];
    let table = tables.into_iter().find(|table| table["subcategory"].is_array()).expect("a table of frames");
    let mut pairs: Vec<_> =
        (0..3).map(|at| (table["category"][at].as_u64(), table["subcategory"][at].as_u64())).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, [0, 1, 2].map(|tier| (Some(of_jvm as u64), Some(tier))));
}

#[test]
fn a_summary_counts_functions_once_a_stack() {
    let mut b: ProfileBuilder = crate::profiles::recording();
    let mut location = |name: &str, kind| {
        let name = b.string(name);
        let function = b.function(Function { name, ..Default::default() });
        let line = Line { function, ..Default::default() };
        b.location(Location { kind, lines: vec![line], ..Default::default() })
    };
    let recurse = location("recurse", FrameKind::Native);
    let root = location("_start", FrameKind::Native);
    let marker = location("unwind: no mapping", FrameKind::Marker);
    let kernel = location("schedule", FrameKind::Kernel);
    for (stack, count) in [(vec![recurse, recurse, recurse, root], 3), (vec![kernel, recurse, marker], 2)] {
        let stack = b.stack(&stack);
        for _ in 0..count {
            b.profile_mut().samples.push(Sample { stack, ..Sample::default() });
        }
    }
    let figures = summary(&b.finish());
    assert_eq!((figures.samples, figures.complete, figures.kernel), (5, 3, 2));
    assert!((figures.complete_share() - 0.6).abs() < 1e-9);
    let functions: Vec<_> = figures.functions.iter().map(|f| (f.name.as_str(), f.own, f.total)).collect();
    assert_eq!(functions, [("recurse", 3, 5), ("schedule", 2, 2), ("_start", 0, 3), ("unwind: no mapping", 0, 2)]);
    assert_eq!(figures.losses.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_profile_gives_valid_files(profile in crate::profiles::profile()) {
        speedscope(&profile);
        firefox(&profile);
        let drawn = text(&profile, |profile, out| svg::encode(profile, out));
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        if let Err(error) = roxmltree::Document::parse_with_options(&drawn, options) {
            return Err(TestCaseError::fail(format!("{error}\n{drawn}")));
        }
        let lines = text(&profile, |profile, out| folded::encode(profile, out));
        let sum = lines.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum::<u64>();
        let expected = profile.shown(None).unwrap().total();
        prop_assert_eq!(sum, expected);
    }
}
