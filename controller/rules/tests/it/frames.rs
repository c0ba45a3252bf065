//! Rules on stacks and frames: what they read, what they make, and how often they are asked.

use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Location, Mapping, Profile, ProfilesDictionary, Sample, Stack,
};
use profiler_ottl::{ErrorMode, Gates};
use profiler_rules::{Done, Level, Request, Rules};
use proptest::prelude::*;
use prost::Message;

use crate::made::{self, text};

/// A function, its file and its line.
type Inlined = (&'static str, &'static str, i64);

/// Locations from the leaf, and what is inlined there, from the innermost.
const STACKS: [&[&[Inlined]]; 4] = [
    &[&[("malloc", "", 0)], &[("push", "vec.rs", 7), ("work", "main.rs", 20)], &[("main", "main.rs", 3)]],
    &[&[("lock", "", 0)], &[("wait", "", 0)], &[("secret_work", "secret.rs", 9)], &[("main", "main.rs", 3)]],
    &[&[("sys_read", "", 0)], &[("read", "", 0)], &[("main", "main.rs", 3)]],
    &[&[], &[("main", "main.rs", 3)]],
];

fn module(function: &str) -> (i32, &'static str) {
    match function {
        "malloc" | "lock" | "wait" | "read" => (1, "native"),
        "sys_read" => (2, "kernel"),
        "secret_work" => (4, "native"),
        _ => (3, "native"),
    }
}

const MODULES: [&str; 5] = ["", "/lib/libc.so", "[kernel]", "/bin/app", "/opt/secret/lib.so"];

/// Services `shop` and `cart`; each has, of each thread, a sample of each of [`STACKS`].
fn request(threads: &[&str]) -> Request {
    let mut strings = vec![String::new()];
    let string = |strings: &mut Vec<String>, text: &str| {
        let at = strings.iter().position(|known| known == text).unwrap_or_else(|| {
            strings.push(text.to_owned());
            strings.len() - 1
        });
        i32::try_from(at).unwrap()
    };
    let mut attribute_table = vec![KeyValueAndUnit::default()];
    let mut attribute = |strings: &mut Vec<String>, key: &str, value: &str| {
        let row = KeyValueAndUnit { key_strindex: string(strings, key), value: text(value), unit_strindex: 0 };
        attribute_table.push(row);
        i32::try_from(attribute_table.len() - 1).unwrap()
    };
    let threads: Vec<i32> = threads.iter().map(|name| attribute(&mut strings, "thread.name", name)).collect();
    let kinds = ["native", "kernel"].map(|kind| attribute(&mut strings, "profile.frame.type", kind));
    let build_id = attribute(&mut strings, "process.executable.build_id.gnu", "beef");
    let mapping_table = MODULES.iter().enumerate().map(|(at, file)| Mapping {
        filename_strindex: string(&mut strings, file),
        attribute_indices: if at == 3 { vec![build_id] } else { Vec::new() },
        ..Mapping::default()
    });
    let mapping_table: Vec<Mapping> = mapping_table.collect();
    let mut function_table = vec![Function::default()];
    let mut location_table = vec![Location::default()];
    let mut stack_table = vec![Stack::default()];
    for stack in STACKS {
        let mut location_indices = Vec::new();
        for location in stack {
            let lines = location.iter().map(|(function, file, line)| {
                let name_strindex = string(&mut strings, function);
                let system_name_strindex = string(&mut strings, &format!("_{function}"));
                let filename_strindex = string(&mut strings, file);
                let row = Function { name_strindex, system_name_strindex, filename_strindex, start_line: 1 };
                let at = function_table.iter().position(|known| *known == row).unwrap_or_else(|| {
                    function_table.push(row);
                    function_table.len() - 1
                });
                Line { function_index: i32::try_from(at).unwrap(), line: *line, column: 2 }
            });
            let (mapping_index, kind) = module(location.last().map_or("", |line| line.0));
            let row = Location {
                mapping_index,
                address: 0x100 + location.len() as u64,
                lines: lines.collect(),
                attribute_indices: vec![kinds[usize::from(kind == "kernel")]],
            };
            let at = location_table.iter().position(|known| *known == row).unwrap_or_else(|| {
                location_table.push(row);
                location_table.len() - 1
            });
            location_indices.push(i32::try_from(at).unwrap());
        }
        stack_table.push(Stack { location_indices });
    }
    let sample = |stack: usize, thread: &i32| Sample {
        stack_index: i32::try_from(stack).unwrap(),
        attribute_indices: vec![*thread],
        values: vec![1],
        ..Sample::default()
    };
    let samples: Vec<Sample> =
        threads.iter().flat_map(|thread| (1..=STACKS.len()).map(move |stack| sample(stack, thread))).collect();
    let mut of_shop = made::request().resource_profiles.remove(0);
    of_shop.scope_profiles[0].profiles = vec![Profile { samples, ..Profile::default() }];
    let mut of_cart = of_shop.clone();
    of_cart.resource.as_mut().unwrap().attributes[0].value = text("cart");
    Request {
        resource_profiles: vec![of_shop, of_cart],
        dictionary: Some(ProfilesDictionary {
            mapping_table,
            location_table,
            function_table,
            link_table: vec![Default::default()],
            string_table: strings,
            attribute_table,
            stack_table,
        }),
    }
}

fn row<T>(table: &[T], index: i32) -> &T {
    &table[usize::try_from(index).unwrap()]
}

/// The stacks of all samples, as [`STACKS`] has them, in one text each: `malloc|push work|main`.
fn stacks(request: &Request) -> Vec<String> {
    let of = request.dictionary.as_ref().unwrap();
    let function = |line: &Line| row(&of.string_table, row(&of.function_table, line.function_index).name_strindex);
    let location = |index: &i32| {
        let names: Vec<&str> =
            row(&of.location_table, *index).lines.iter().map(|line| function(line).as_str()).collect();
        names.join(" ")
    };
    let stack = |sample: &Sample| {
        let locations = &row(&of.stack_table, sample.stack_index).location_indices;
        locations.iter().map(location).collect::<Vec<_>>().join("|")
    };
    samples(request).map(stack).collect()
}

fn samples(request: &Request) -> impl Iterator<Item = &Sample> {
    let scopes = request.resource_profiles.iter().flat_map(|of| &of.scope_profiles);
    scopes.flat_map(|of| &of.profiles).flat_map(|of| &of.samples)
}

/// All that is said of frames and samples, whichever rows it is in.
fn said(request: &Request) -> Vec<String> {
    let of = request.dictionary.as_ref().unwrap();
    let string = |index: i32| row(&of.string_table, index).as_str();
    let attributes = |indices: &[i32]| {
        let all = indices.iter().map(|index| row(&of.attribute_table, *index));
        all.map(|row| format!("{}={:?}", string(row.key_strindex), row.value)).collect::<Vec<_>>()
    };
    let location = |index: &i32| {
        let at = row(&of.location_table, *index);
        let mapping = row(&of.mapping_table, at.mapping_index);
        let lines = at.lines.iter().map(|line| {
            let function = row(&of.function_table, line.function_index);
            let texts = [function.name_strindex, function.system_name_strindex, function.filename_strindex].map(string);
            format!("{texts:?}:{}:{}", line.line, line.column)
        });
        let lines: Vec<_> = lines.collect();
        let of_mapping = (string(mapping.filename_strindex), attributes(&mapping.attribute_indices));
        format!("{lines:?} {} {of_mapping:?} {:?}", at.address, attributes(&at.attribute_indices))
    };
    let sample = |sample: &Sample| {
        let stack: Vec<_> = row(&of.stack_table, sample.stack_index).location_indices.iter().map(location).collect();
        format!("{stack:?} {:?}", attributes(&sample.attribute_indices))
    };
    let resources = request.resource_profiles.iter().flat_map(|of| of.resource.iter());
    samples(request).map(sample).chain(resources.map(|resource| format!("{resource:?}"))).collect()
}

fn edited(threads: &[&str], statements: &[&str]) -> (Request, Done) {
    let rules = Rules::statements(None, statements, ErrorMode::Propagate, Gates::default())
        .unwrap_or_else(|error| panic!("{error}"));
    rules.apply(request(threads), |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

fn kept(condition: &str, drop: bool) -> Vec<String> {
    let rules = Rules::filter(None, &[condition], drop, ErrorMode::Propagate, Gates::default())
        .unwrap_or_else(|error| panic!("{error}"));
    let (left, _) = rules.apply(request(&["one"]), |_| {}).unwrap();
    stacks(&left)
}

fn refused(statement: &str) -> String {
    Rules::statements(None, &[statement], ErrorMode::Propagate, Gates::default()).expect_err(statement).to_string()
}

fn has(request: &Request, word: &str) -> bool {
    request.encode_to_vec().windows(word.len()).any(|bytes| bytes == word.as_bytes())
}

const OF: [&str; 4] = ["malloc|push work|main", "lock|wait|secret_work|main", "sys_read|read|main", "|main"];

#[test]
fn a_condition_on_frames_holds_for_samples_that_have_one() {
    let both = |stacks: &[usize]| -> Vec<&str> { stacks.iter().chain(stacks).map(|at| OF[*at]).collect() };
    for (condition, of) in [
        (r#"frame.function == "work""#, &[0][..]),
        (r#"IsMatch(frame.module, "libc")"#, &[0, 1, 2]),
        // Of one frame both.
        (r#"frame.function == "main" and IsMatch(frame.module, "libc")"#, &[]),
        (r#"frame.function == "malloc" and frame.module == "/lib/libc.so""#, &[0]),
        (r#"frame.type == "kernel""#, &[2]),
        (r#"frame.build_id == "beef" and frame.file == "vec.rs" and frame.line == 7"#, &[0]),
        (r#"frame.function == """#, &[3]),
        (r#"frame.index == 1 and frame.function == "main""#, &[3]),
        (r#"frame.index == 0 and frame.function == stack.leaf.function and frame.type == "kernel""#, &[2]),
        ("stack.depth == 4", &[0, 1]),
        (r#"stack.root.function == "main" and stack.leaf.module == "[kernel]""#, &[2]),
        (r#"ContainsValue(stack.functions, "wait") and stack.depth > 1"#, &[1]),
        (r#"IsMatch(Concat(stack.functions, ";"), "^lock;.*;main$")"#, &[1]),
        ("frame.address == 256", &[3]),
    ] {
        assert_eq!(kept(condition, false), both(of), "{condition}");
        let others: Vec<usize> = (0..4).filter(|at| !of.contains(at)).collect();
        assert_eq!(kept(condition, true), both(&others), "{condition}");
    }
    // With what is around it, bare or by its name.
    for of_resource in [
        r#"resource.attributes["service.name"] == "cart" and frame.function == "work""#,
        r#"frame.function == "work" and resource.attributes["service.name"] == "cart" and attributes["thread.name"] == "one""#,
    ] {
        assert_eq!(kept(of_resource, false), [OF[0]], "{of_resource}");
    }
}

#[test]
fn samples_are_tagged_by_their_frames() {
    let tag = r#"set(profilesample.attributes["allocates"], true) where frame.function == "malloc""#;
    let (after, _) = edited(&["one", "two"], &[tag]);
    let of = after.dictionary.as_ref().unwrap();
    let tagged = |sample: &&Sample| {
        let keys = sample.attribute_indices.iter().map(|at| row(&of.attribute_table, *at).key_strindex);
        keys.map(|key| row(&of.string_table, key)).any(|key| key == "allocates")
    };
    let stacks = stacks(&after);
    let of_tagged = samples(&after).zip(&stacks).filter(|(sample, _)| tagged(sample)).map(|(_, stack)| stack);
    assert_eq!(of_tagged.collect::<Vec<_>>(), [OF[0]; 4]);
}

#[test]
fn what_a_frame_was_called_is_in_no_byte() {
    let (after, done) = edited(
        &["one", "two"],
        &[
            r#"set(frame.function, "[hidden]") where IsMatch(frame.module, "secret")"#,
            r#"set(frame.file, "") where IsMatch(frame.file, "secret")"#,
            r#"replace_pattern(frame.module, "^/opt/[a-z]+/", "/")"#,
            r#"set(frame.build_id, "")"#,
        ],
    );
    assert_eq!(stacks(&after)[1], "lock|wait|[hidden]|main");
    for word in ["secret", "beef"] {
        assert!(has(&request(&["one"]), word) && !has(&after, word), "{word}");
    }
    for word in ["/lib.so", "/bin/app", "vec.rs", "_main"] {
        assert!(has(&after, word), "{word}");
    }
    // Each frame of the dictionary once, however many samples have it.
    assert_eq!(done.contexts, 10);
}

#[test]
fn a_rule_on_one_service_leaves_the_frames_of_others() {
    let rule =
        r#"set(frame.function, "x") where frame.function == "work" and resource.attributes["service.name"] == "cart""#;
    let (after, done) = edited(&["one", "two"], &[rule]);
    let mut expected: Vec<String> = [OF, OF, OF, OF].concat().into_iter().map(str::to_owned).collect();
    expected[8] = OF[0].replace("work", "x");
    expected[12] = OF[0].replace("work", "x");
    assert_eq!(stacks(&after), expected);
    assert_eq!(done.contexts, 20, "once a frame and service");
}

#[test]
fn frames_go_collapse_and_stacks_are_cut() {
    let edit = |statement: &str| stacks(&edited(&["one"], &[statement]).0)[..4].to_vec();
    assert_eq!(
        edit(r#"set(frame.drop, true) where IsMatch(frame.module, "libc|kernel")"#),
        ["push work|main", "secret_work|main", "main", "|main"]
    );
    assert_eq!(edit(r#"set(frame.drop, true) where frame.file == "vec.rs""#)[0], "malloc|work|main");
    assert_eq!(edit("set(frame.drop, true)"), ["", "", "", ""]);
    let (collapsed, _) = edited(&["one"], &[r#"set(frame.collapse, "[libc]") where IsMatch(frame.module, "libc")"#]);
    assert_eq!(
        stacks(&collapsed)[..4],
        ["[libc]|push work|main", "[libc]|secret_work|main", "sys_read|[libc]|main", "|main"]
    );
    assert!(!has(&collapsed, "malloc") && has(&collapsed, "libc.so"));
    // A run may begin within what is inlined.
    let run = r#"set(frame.collapse, "[app]") where frame.function == "work" or frame.function == "main""#;
    assert_eq!(edit(run), ["malloc|push|[app]", "lock|wait|secret_work|[app]", "sys_read|read|[app]", "|[app]"]);
    assert_eq!(
        edit("set(stack.depth, 2) where stack.depth > 2"),
        ["malloc|push|[truncated]", "lock|wait|[truncated]", "sys_read|read|[truncated]", "|main"]
    );
    assert_eq!(edit("set(stack.depth_from_root, 1)"), ["[truncated]|main"; 4]);
    // Again it is what it was.
    let rules = |request| {
        let rules = Rules::statements(None, &["set(stack.depth, 2)"], ErrorMode::Propagate, Gates::default()).unwrap();
        rules.apply(request, |_| {}).unwrap().0
    };
    let once = rules(request(&["one"]));
    assert_eq!(said(&rules(once.clone())), said(&once));
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    for (statement, says) in [
        (r#"set(frame.type, "x")"#, "`type` cannot be changed"),
        (r#"set(stack.leaf.function, "x")"#, "its frames can, in the context frame"),
        ("set(stack.depth, 3) where frame.line > 3", "changed by rules of the context stack"),
        (r#"set(frame.fuction, "x")"#, "did you mean `frame.function`?"),
        (r#"set(frame.function["a"], "x")"#, "has no keys"),
    ] {
        let told = refused(statement);
        assert!(told.contains(says), "{statement}: {told}");
    }
    for (statement, says) in [
        (r#"set(frame.function, "")"#, "give it one such as [redacted]"),
        (r#"set(frame.build_id, "cafe")"#, "can be emptied"),
        ("set(frame.line, -1)", "a line is not -1"),
        ("set(stack.depth, 0)", "at least one frame"),
        (r#"set(frame.drop, "yes")"#, "a bool"),
    ] {
        let rules = Rules::statements(None, &[statement], ErrorMode::Propagate, Gates::default()).unwrap();
        let told = rules.apply(request(&["one"]), |_| {}).expect_err(statement).to_string();
        assert!(told.contains(says), "{statement}: {told}");
    }
}

#[test]
fn a_stack_that_leads_nowhere_stays_one() {
    let mut broken = request(&["one"]);
    broken.dictionary.as_mut().unwrap().stack_table[1].location_indices.push(99);
    broken.resource_profiles[0].scope_profiles[0].profiles[0].samples[1].stack_index = 77;
    let rules = Rules::statements(None, &[r#"set(frame.collapse, "x")"#], ErrorMode::Propagate, Gates::default());
    let (after, _) = rules.unwrap().apply_only(broken.clone(), |_| {}).unwrap();
    let indices = |request: &Request| samples(request).map(|sample| sample.stack_index).collect::<Vec<_>>();
    assert_eq!(indices(&after)[..2], [1, 77]);
    assert_eq!(after.dictionary.unwrap().stack_table[..5], broken.dictionary.unwrap().stack_table[..]);
}

/// Conditions on frames, on stacks, and on what is around them.
const CONDITIONS: [&str; 9] = [
    "true",
    r#"IsMatch(frame.module, "libc")"#,
    r#"frame.function == "main""#,
    r#"frame.type == "kernel" or frame.line > 5"#,
    "frame.index == 1",
    "stack.depth > 3",
    r#"resource.attributes["service.name"] == "cart""#,
    r#"profilesample.attributes["thread.name"] == "two""#,
    r#"stack.leaf.function == "lock""#,
];

const EDITS: [&str; 10] = [
    r#"set(frame.function, "renamed")"#,
    r#"set(frame.function, Concat([frame.function, "x"], ""))"#,
    r#"set(frame.file, "")"#,
    r#"set(frame.module, "/new")"#,
    "set(frame.drop, true)",
    r#"set(frame.collapse, "[run]")"#,
    r#"set(frame.collapse, frame.module)"#,
    r#"set(resource.attributes["seen"], frame.module)"#,
    r#"set(profilesample.attributes["seen"], stack.depth)"#,
    "set(frame.address, 0)",
];

proptest! {
    #[test]
    fn what_is_remembered_of_rows_changes_nothing(
        picked in prop::collection::vec((0..EDITS.len(), 0..CONDITIONS.len(), 0..CONDITIONS.len()), 1..4),
    ) {
        let statements = |also: &str| -> Vec<String> {
            let one = |(edit, first, second): &(usize, usize, usize)| {
                format!("{} where ({} or {}) {also}", EDITS[*edit], CONDITIONS[*first], CONDITIONS[*second])
            };
            picked.iter().map(one).collect()
        };
        let apply = |statements: &[String]| {
            let rules = Rules::statements(Some(Level::Frame), statements, ErrorMode::Propagate, Gates::default());
            rules.unwrap().apply(request(&["one", "two"]), |_| {}).unwrap()
        };
        // What calls for a new id each time is asked each time.
        let (each, of_each) = apply(&statements(r#"and UUID() != """#));
        let (kept, of_kept) = apply(&statements(""));
        prop_assert_eq!(said(&kept), said(&each));
        prop_assert!(of_kept.contexts <= of_each.contexts);

        for (_, first, second) in &picked {
            let condition = format!("{} and {}", CONDITIONS[*first], CONDITIONS[*second]);
            let filter = |condition: &str| {
                let rules = Rules::filter(Some(Level::Frame), &[condition], true, ErrorMode::Propagate, Gates::default());
                let (left, done) = rules.unwrap().apply(request(&["one", "two"]), |_| {}).unwrap();
                (said(&left), done.dropped, done.samples)
            };
            prop_assert_eq!(filter(&condition), filter(&format!(r#"{condition} and UUID() != """#)));
        }
    }

    #[test]
    fn no_byte_of_what_edits_removed_is_left(
        picked in prop::collection::vec(0..EDITS.len(), 0..4),
    ) {
        // Whatever other rules make of it before.
        let mut statements: Vec<String> = picked.iter().map(|edit| EDITS[*edit].to_owned()).collect();
        for field in ["function", "file", "module"] {
            statements.push(format!(r#"replace_pattern(frame.{field}, "secret", "hidden")"#));
        }
        statements.push(r#"replace_pattern(frame.collapse, "secret", "hidden")"#.to_owned());
        statements.push(r#"replace_pattern(resource.attributes["seen"], "secret", "hidden")"#.to_owned());
        // The name of a symbol goes with its function's.
        statements.push(r#"set(frame.function, frame.function) where frame.function != """#.to_owned());
        let rules = Rules::statements(Some(Level::Frame), &statements, ErrorMode::Propagate, Gates::default());
        let (after, _) = rules.unwrap().apply(request(&["one", "two"]), |_| {}).unwrap();
        prop_assert!(!has(&after, "secret"));
    }
}
