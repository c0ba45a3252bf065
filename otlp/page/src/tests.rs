//! The page as a whole. What it does in a browser is tried by `otlp/page/viewer/test/browser.mjs`.

use std::io::Read;

use profiler_model::builder::ProfileBuilder;
use profiler_model::{
    FrameKind, Function, Line, Location, Loss, Mapping, Process, Profile, Sample, Thread, Tier, ValueType, Values,
};

use super::*;

const HOSTILE: &[&str] = &[
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "https://evil.example/x.js",
    "\u{202e}gpj.exe",
    "a\u{0}b\u{1b}[2J\u{2028}",
    "]]><!--",
];

fn sample_types(profile: &mut Profile, kinds: &[&str]) {
    profile.sample_types = kinds.iter().map(|&kind| ValueType { kind: kind.into(), unit: "count".into() }).collect();
}

/// Two threads, an inlined call, a place without a symbol, and names that want to be markup.
fn profile() -> Profiles {
    let mut builder = ProfileBuilder::new();
    let file = builder.string("/usr/bin/</style><b>");
    let mapping = Some(builder.mapping(Mapping { start: 0x1000, end: 0x9000, file, ..Mapping::default() }));
    let mut lines = Vec::new();
    for (nth, name) in HOSTILE.iter().enumerate() {
        let (name, source) = (builder.string(name), builder.string("src/<x>.c"));
        let function = builder.function(Function { name, system_name: 0, file: source, start_line: 10 });
        lines.push(Line { function, line: 11 + nth as u32, column: 0 });
    }
    let mut locations = Vec::new();
    for (nth, &line) in lines.iter().enumerate() {
        let lines = if nth == 1 { vec![line, lines[0]] } else { vec![line] };
        let address = 0x2000 + nth as u64;
        locations.push(builder.location(Location {
            kind: FrameKind::Native,
            mapping,
            address,
            lines,
            guessed: nth == 2,
            tier: None,
        }));
    }
    let bare = Location { kind: FrameKind::Kernel, address: 0xffff_ffff_8100_0000, mapping, ..Location::default() };
    locations.push(builder.location(bare));
    let name = builder.string(HOSTILE[0]);
    let process = builder.process(Process { pid: Some(7), name, ..Process::default() });
    let threads = [8, 9].map(|tid| builder.thread(Thread { process, tid, name }));
    for nth in 0..40_usize {
        let leaf = locations[nth % 7];
        let stack = builder.stack(&[leaf, locations[nth * 3 % 7], locations[1]]);
        let thread = Some(threads[nth % 2]);
        builder.profile_mut().samples.push(Sample { stack, thread, ..Sample::default() });
    }
    let profile = builder.profile_mut();
    sample_types(profile, &["samples"]);
    let profile = builder.set_mut();
    profile.origin.host_name = HOSTILE[0].into();
    profile.losses.push(Loss { reason: HOSTILE[1].into(), count: u64::MAX });
    profile.comments.push(HOSTILE[2].into());
    builder.finish()
}

fn page(profile: &Profiles) -> String {
    let mut out = Vec::new();
    encode(profile, &mut out).expect("a vector takes all");
    String::from_utf8(out).expect("a page is UTF-8")
}

/// The data block of a page: header and columns.
fn block(page: &str) -> (serde_json::Value, Vec<u64>) {
    let start = page.find("id=\"profile\">").expect("the block") + "id=\"profile\">".len();
    let text = page[start..].split('<').next().expect("an end");
    let packed = BASE64_STANDARD.decode(text).expect("base64");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).expect("gzip");
    let length = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    let header = serde_json::from_slice(&bytes[4..4 + length]).expect("JSON");
    let mut numbers = Vec::new();
    let (mut value, mut shift) = (0_u64, 0);
    for &byte in &bytes[4 + length..] {
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            numbers.push(value);
            (value, shift) = (0, 0);
        }
    }
    (header, numbers)
}

/// The page without its data, script and style sheet: its own markup.
fn markup(page: &str) -> String {
    page.replacen(SCRIPT, "", 1).replacen(STYLE, "", 1)
}

#[test]
fn the_same_profile_gives_the_same_bytes() {
    assert_eq!(page(&profile()), page(&profile()));
}

#[test]
fn the_page_is_well_formed() {
    let page = page(&profile());
    assert!(page.starts_with("<!doctype html>\n") && page.ends_with("</html>\n"));
    let markup = markup(&page);
    for element in ["html", "head", "body", "style", "title", "noscript", "div"] {
        assert_eq!(markup.matches(&format!("<{element}")).count(), 1, "<{element}>");
        assert_eq!(markup.matches(&format!("</{element}>")).count(), 1, "</{element}>");
    }
    assert_eq!(page.matches("<script").count(), 2, "the data and the viewer");
    assert_eq!(page.matches("</script").count(), 2);
    assert_eq!(page.matches("</style").count(), 1);
}

#[test]
fn the_page_names_no_other_place() {
    let page = page(&profile());
    for scheme in ["http://", "https://", "ftp://", "ws://", "wss://"] {
        for (at, _) in page.match_indices(scheme) {
            // The namespace of SVG is a name; nothing is fetched from it.
            assert!(page[at..].starts_with("http://www.w3.org/2000/svg"), "{}", &page[at..page.len().min(at + 60)]);
        }
    }
    assert!(!page.contains("@import") && !markup(&page).contains("src="));
    assert!(page.contains("default-src 'none'"));
    assert!(!STYLE.contains("url("));
}

#[test]
fn the_policy_names_exactly_the_script_and_the_style_of_the_page() {
    let page = page(&profile());
    let between = |start: &str, end: &str| {
        let from = page.rfind(start).expect(start) + start.len();
        &page[from..from + page[from..].find(end).expect(end)]
    };
    let script = between("<script>", "</script>");
    let style = between("<style>", "</style>");
    assert!(page.contains(&format!("script-src '{}'", source_hash(script))));
    assert!(page.contains(&format!("style-src '{}'", source_hash(style))));
}

#[test]
fn hostile_names_stay_inside_the_data() {
    let profile = profile();
    let page = page(&profile);
    for name in HOSTILE {
        assert!(!page.contains(name), "{name:?} is on the page");
    }
    let (header, _) = block(&page);
    let strings = header["strings"].as_array().expect("strings");
    for name in HOSTILE {
        assert!(strings.iter().any(|string| string == name), "{name:?} is not in the data");
    }
}

#[test]
fn every_value_arrives() {
    let (header, numbers) = block(&page(&profile()));
    let count = |key: &str| header["counts"][key].as_u64().expect(key) as usize;
    let (functions, frames, places) = (count("functions"), count("frames"), count("places"));
    let (nodes, rows) = (count("nodes"), count("rows"));
    assert_eq!(numbers.len(), 4 * functions + 2 * frames + 5 * places + 2 * nodes + 4 * rows);
    assert_eq!(numbers[numbers.len() - rows..].iter().sum::<u64>(), 40);
    let depths = &numbers[4 * functions + 2 * frames + 5 * places..][..nodes];
    assert_eq!(depths[0], 1);
    assert!(depths.windows(2).all(|pair| pair[1] <= pair[0] + 1), "not a preorder: {depths:?}");
}

#[test]
fn an_empty_profile_is_a_page_too() {
    let (header, numbers) = block(&page(&Profiles::default()));
    assert_eq!(header["counts"]["rows"], 0);
    assert!(numbers.is_empty());
}

#[test]
fn samples_without_a_stack_and_values_below_zero_do_no_harm() {
    let mut builder = ProfileBuilder::new();
    let stack = builder.stack(&[]);
    sample_types(builder.profile_mut(), &["a", "b"]);
    for values in [Values::Many([5, -3].into()), Values::Many([i64::MAX, i64::MIN].into()), Values::One(2)] {
        builder.profile_mut().samples.push(Sample { stack, values, ..Sample::default() });
    }
    let (header, numbers) = block(&page(&builder.finish()));
    assert_eq!(header["negative"], 2);
    // node, thread, place, then the two values; what JavaScript cannot hold is cut to what it can.
    assert_eq!(numbers, [0, 0, 0, (1 << 53) - 1, 0]);
}

#[test]
fn references_to_nothing_are_errors() {
    let broken: [fn(&mut Profiles); 7] = [
        |profile| profile.profiles[0].samples[0].stack = 9_999,
        |profile| profile.profiles[0].samples[0].thread = Some(u32::MAX),
        |profile| profile.stacks[0][0] = 9_999,
        |profile| profile.locations[0].mapping = Some(9_999),
        |profile| profile.locations[0].lines[0].function = 9_999,
        |profile| profile.functions[0].name = 9_999,
        |profile| profile.threads[0].process = 9_999,
    ];
    for (nth, break_it) in broken.iter().enumerate() {
        let mut profile = profile();
        break_it(&mut profile);
        let error = encode(&profile, io::sink()).expect_err("a broken profile");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{nth}");
    }
}

#[test]
fn a_stack_as_deep_as_memory_lets_it_is_packed() {
    let mut builder = ProfileBuilder::new();
    let name = builder.string("f");
    let function = builder.function(Function { name, ..Function::default() });
    let lines = vec![Line { function, line: 1, column: 0 }];
    let location = builder.location(Location { lines, ..Location::default() });
    let stack = builder.stack(&vec![location; 100_000]);
    sample_types(builder.profile_mut(), &["samples"]);
    builder.profile_mut().samples.push(Sample { stack, ..Sample::default() });
    let (header, _) = block(&page(&builder.finish()));
    assert_eq!(header["counts"]["nodes"], 100_000);
}

#[test]
fn tiers_of_a_function_are_places_of_one_node() {
    let mut builder = ProfileBuilder::new();
    let name = builder.string("com.acme.Shop.checkout");
    let function = builder.function(Function { name, ..Function::default() });
    let lines = vec![Line { function, ..Line::default() }];
    for (tier, count) in [(Tier::C1, 1), (Tier::C2, 3)] {
        let kind = FrameKind::Jvm;
        let location =
            builder.location(Location { kind, lines: lines.clone(), tier: Some(tier), ..Location::default() });
        let stack = builder.stack(&[location]);
        for _ in 0..count {
            builder.profile_mut().samples.push(Sample { stack, ..Sample::default() });
        }
    }
    sample_types(builder.profile_mut(), &["samples"]);
    let (header, numbers) = block(&page(&builder.finish()));
    assert_eq!((&header["tiers"][1], &header["tiers"][2]), (&"C1".into(), &"C2".into()));
    assert_eq!((&header["counts"]["nodes"], &header["counts"]["places"]), (&1.into(), &2.into()));
    // Behind four columns of one function, two of one frame, and four of two places.
    let (places, nodes) = (4 + 2 + 8, 4 + 2 + 10);
    assert_eq!(numbers[places..][..2], [2, 3], "C1 and C2");
    assert_eq!(numbers[nodes..][..2], [1, 1 << 2 | 3], "most of it the second place, other tiers too");
}

#[test]
fn kinds_of_frames_and_addresses_are_called_as_in_all_formats() {
    let mut builder = ProfileBuilder::new();
    let (file, parrot) = (builder.string("/usr/lib/libruby.so.3"), builder.string("parrot"));
    let mapping = Some(builder.mapping(Mapping { start: 0x1000, end: 0x9000, file, ..Mapping::default() }));
    let kinds = [FrameKind::Ruby, FrameKind::Other(parrot)];
    let locations =
        kinds.map(|kind| builder.location(Location { kind, mapping, address: 0x2000, ..Location::default() }));
    let stack = builder.stack(&locations);
    builder.profile_mut().samples.push(Sample { stack, ..Sample::default() });
    let (header, numbers) = block(&page(&builder.finish()));
    let row = |kind: FrameKind, paint: &str| {
        let names = kind.names().expect("a row");
        serde_json::json!([kind.number(), paint, names.name, names.about])
    };
    let other = FrameKind::Other(0).number();
    let expected = serde_json::json!([
        row(FrameKind::Native, "native"),
        row(FrameKind::Marker, "marker"),
        row(FrameKind::Ruby, "script"),
        [other, "other", "Other", "code of a kind that is not known"],
    ]);
    assert_eq!(header["kinds"], expected);
    // One function, called by its file and address, and its frames: the flags are behind four columns of functions and one of frames.
    assert_eq!(header["counts"]["functions"], 1);
    let name = numbers[0] as usize / 2;
    assert_eq!(header["strings"][name], "[libruby.so.3+0x2000]");
    assert_eq!(numbers[4 + 2..][..2], [FrameKind::Ruby.number(), other].map(|number| u64::from(number) << 2));
}
