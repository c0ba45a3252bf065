//! Profiles of any shape, and what two of them have to agree in.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;

use profiler_model::{
    AttributeValue, FrameKind, Function, Label, LabelValue, Line, Location, Loss, Mapping, Measure, Origin, Process,
    Profile, Profiles, Sample, Thread, Tier, ValueType, Values, builder::ProfileBuilder,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

pub const START: u64 = 1_795_438_015_000_000_000;
pub const DURATION: u64 = 10_000_000_000;

pub fn value_type(kind: &str, unit: &str) -> ValueType {
    ValueType { kind: kind.to_owned(), unit: unit.to_owned() }
}

/// What a recorder makes: one count a sample, the CPU clock's period.
pub fn recording() -> ProfileBuilder {
    let mut builder = ProfileBuilder::new();
    builder.begin(Profile {
        start_unix_nanos: START,
        duration_nanos: DURATION,
        ..Profile::of(&Measure::cpu_clock(10_101_010))
    });
    let profile = builder.set_mut();
    profile.origin = Origin {
        host_name: "alder".to_owned(),
        kernel_release: "6.18.0".to_owned(),
        arch: "amd64".to_owned(),
        cpus: 2,
        frequency: 99,
        target: "all processes".to_owned(),
        producer: "profiler 0.1.0".to_owned(),
    };
    profile.losses = vec![Loss { reason: "lost: ring full".to_owned(), count: 3 }];
    builder
}

/// Names as programs have them, and as nobody should.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec!["main", "malloc", "core::fmt::write", "std::vector<int; 3>::push_back", "_start", "a b 12", "# x", "ünï"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => any::<String>().prop_map(|text| text.chars().take(20).collect()),
        1 => (1_usize..4000).prop_map(|length| "x".repeat(length)),
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[a-z]{1,6}"
}

type LocationParts = (u8, Option<usize>, u64, Vec<(usize, u32, u32)>, bool, u8);

/// Values, time and labels of a sample, and indices of its stack and thread.
type SampleParts = (usize, Option<usize>, Option<u32>, Option<u64>, Vec<i64>, Vec<(String, Result<String, i64>)>);

fn label() -> impl Strategy<Value = (String, Result<String, i64>)> {
    let key = select(vec![
        "request",
        "k",
        "pid",
        "thread.id",
        "thread.name",
        "cpu.logical_number",
        "cpu",
        "tid",
        "thread",
        "timestamp",
        "label.x",
        "",
        "label.",
        "resource.a",
        "process_start",
        "executable",
    ]);
    (key.prop_map(str::to_owned), prop_oneof![word().prop_map(Ok), any::<i64>().prop_map(Err)])
}

/// Another measure than CPU time.
pub fn page_faults() -> Measure {
    Measure {
        source: "page-faults".to_owned(),
        sample_type: value_type("page-faults", "count"),
        period_type: value_type("page-faults", "count"),
        period: 1,
    }
}

fn kinds() -> impl Strategy<Value = (Vec<ValueType>, ValueType, i64)> {
    select(vec![
        (vec![value_type("samples", "count")], value_type("cpu", "nanoseconds"), 10_101_010),
        (vec![value_type("off_cpu", "nanoseconds")], ValueType::default(), 0),
        (
            vec![value_type("alloc_objects", "count"), value_type("alloc_space", "bytes")],
            value_type("space", "bytes"),
            512,
        ),
    ])
}

/// Any profile that a recorder or a reader could make, times within its window.
pub fn profile() -> impl Strategy<Value = Profiles> {
    let mappings = vec((any::<u32>(), 1_u32.., any::<u32>(), name(), option::of(word()), option::of(word())), 1..4);
    let functions = vec((name(), name(), name(), any::<u16>()), 1..6);
    let lines = vec((0_usize..100, any::<u32>(), any::<u32>()), 0..4);
    let locations = vec((0_u8..20, option::of(0_usize..100), any::<u64>(), lines, any::<bool>(), 0_u8..8), 1..10);
    let stacks = vec(vec(0_usize..100, 0..40), 1..8);
    let processes = vec((any::<u32>(), 0_u64..1 << 62, name(), name(), name(), vec((word(), word()), 0..3)), 1..4);
    let threads = vec((0_usize..100, prop_oneof![Just(0_u32), any::<u32>()], name()), 1..6);
    let values = vec(prop_oneof![Just(1_i64), 0_i64..1 << 30], 2);
    let sample = (
        0_usize..100,
        option::of(0_usize..100),
        option::of(any::<u32>()),
        option::of(0..DURATION),
        values,
        vec(label(), 0..3),
    );
    let samples = vec(sample, 0..30);
    let head = (
        kinds(),
        vec((name(), any::<u32>()), 0..3),
        vec("[A-Z ]{0,10}", 0..3),
        name(),
        name(),
        any::<(u16, u16, bool)>(),
    );
    ((mappings, functions, locations, stacks), (processes, threads, samples), head).prop_map(
        |((mappings, functions, locations, stacks), (processes, threads, samples), head)| {
            let (kinds, losses, comments, host, target, (cpus, frequency, several)) = head;
            let mut builder = recording();
            let types = kinds.0.len();
            let profile = builder.profile_mut();
            (profile.sample_types, profile.period_type, profile.period) = kinds;
            if profile.period_type.kind != "cpu" {
                profile.source.clear();
            }
            let profile = builder.set_mut();
            profile.comments = comments;
            profile.losses.clear();
            for (reason, count) in losses {
                if profile.losses.iter().all(|known| known.reason != reason) {
                    profile.losses.push(Loss { reason, count: count.into() });
                }
            }
            (profile.origin.host_name, profile.origin.target) = (host, target);
            (profile.origin.cpus, profile.origin.frequency) = (cpus.into(), frequency.into());
            let mappings: Vec<u32> = mappings
                .into_iter()
                .map(|(start, length, offset, file, gnu, htlhash)| {
                    let mapping = Mapping {
                        start: start.into(),
                        end: u64::from(start) + u64::from(length),
                        file_offset: offset.into(),
                        file: builder.string(&file),
                        build_id_gnu: builder.string(&gnu.unwrap_or_default()),
                        build_id_htlhash: builder.string(&htlhash.unwrap_or_default()),
                        build_id_go: 0,
                    };
                    builder.mapping(mapping)
                })
                .collect();
            let functions: Vec<u32> = functions
                .into_iter()
                .map(|(name, system_name, file, start_line)| {
                    let function = Function {
                        name: builder.string(&name),
                        system_name: builder.string(&system_name),
                        file: builder.string(&file),
                        start_line: start_line.into(),
                    };
                    builder.function(function)
                })
                .collect();
            let locations: Vec<u32> = locations
                .into_iter()
                .map(|location| {
                    let other = builder.string("parrot");
                    builder.location(location_of(location, other, &mappings, &functions))
                })
                .collect();
            let stacks: Vec<u32> = stacks
                .into_iter()
                .map(|stack| {
                    let stack: Vec<u32> = stack.into_iter().map(|index| locations[index % locations.len()]).collect();
                    builder.stack(&stack)
                })
                .collect();
            let processes: Vec<u32> = processes
                .into_iter()
                .map(|(pid, start, name, executable, container, mut attributes)| {
                    attributes.sort();
                    attributes.dedup_by(|a, b| a.0 == b.0);
                    let attributes = attributes.iter().map(|(key, value)| {
                        let text = builder.string(value);
                        let value = match key.len() % 3 {
                            0 => AttributeValue::Integer(value.len() as i64 - 3),
                            1 => AttributeValue::Texts(vec![text, builder.string(key)]),
                            _ => AttributeValue::Text(text),
                        };
                        (builder.string(key), value)
                    });
                    let process = Process {
                        pid: Some(pid),
                        start_unix_nanos: start,
                        attributes: attributes.collect(),
                        name: builder.string(&name),
                        executable: builder.string(&executable),
                        container_id: builder.string(&container),
                    };
                    builder.process(process)
                })
                .collect();
            let threads: Vec<u32> = threads
                .into_iter()
                .map(|(process, tid, name)| {
                    let thread =
                        Thread { process: processes[process % processes.len()], tid, name: builder.string(&name) };
                    builder.thread(thread)
                })
                .collect();
            if several && types == 1 {
                builder.begin(Profile {
                    start_unix_nanos: START,
                    duration_nanos: DURATION,
                    ..Profile::of(&page_faults())
                });
            }
            for (nth, sample) in samples.into_iter().enumerate() {
                let sample = sample_of(sample, types, &stacks, &threads, &mut builder);
                let profiles = &mut builder.set_mut().profiles;
                let at = nth % profiles.len();
                profiles[at].samples.push(sample);
            }
            builder.finish()
        },
    )
}

fn location_of(
    (kind, mapping, address, lines, guessed, tier): LocationParts,
    other: u32,
    mappings: &[u32],
    functions: &[u32],
) -> Location {
    let line = |(function, line, column): (usize, u32, u32)| Line {
        function: functions[function % functions.len()],
        line,
        column,
    };
    Location {
        kind: FrameKind::of_number(kind.into()).unwrap_or(FrameKind::Other(other)),
        mapping: mapping.map(|mapping| mappings[mapping % mappings.len()]),
        address,
        lines: lines.into_iter().map(line).collect(),
        guessed,
        tier: Tier::of_number(tier.into()),
    }
}

fn sample_of(
    (stack, thread, cpu, time, values, labels): SampleParts,
    types: usize,
    stacks: &[u32],
    threads: &[u32],
    builder: &mut ProfileBuilder,
) -> Sample {
    let labels: Vec<Label> = labels
        .into_iter()
        .map(|(key, value)| Label {
            key: builder.string(&key),
            value: match value {
                Ok(text) => LabelValue::Text(builder.string(&text)),
                Err(number) => LabelValue::Number(number, 0),
            },
        })
        .collect();
    Sample {
        stack: stacks[stack % stacks.len()],
        thread: thread.map(|thread| threads[thread % threads.len()]),
        cpu,
        time_unix_nanos: time.map(|time| START + time),
        link: 0,
        values: if types == 1 { Values::One(values[0]) } else { Values::Many(values.into()) },
        labels: (!labels.is_empty()).then(|| Box::new(labels)),
    }
}

/// Every value of every sample with all that it refers to, spelled out; equal ones without time added up, as both formats ask for.
/// Where several things are counted, a value of 0 says nothing.
pub fn samples(profile: &Profiles) -> BTreeMap<String, Vec<i64>> {
    let mut all: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let several = profile.measured().len() > 1;
    for (part, sample) in profile.samples() {
        for (kind, &value) in part.sample_types.iter().zip(sample.values.as_slice()) {
            if value == 0 && several {
                continue;
            }
            let of = format!("{kind:?} {} {:?} {}", part.source, part.period_type, part.period);
            let values = all.entry(format!("{of} {}", describe(profile, sample))).or_default();
            match values.first_mut() {
                Some(sum) if sample.time_unix_nanos.is_none() => *sum = sum.saturating_add(value),
                _ => values.push(value),
            }
        }
    }
    all.values_mut().for_each(|values| values.sort());
    all
}

fn describe(profile: &Profiles, sample: &Sample) -> String {
    let text = |id| profile.string(id);
    let stack: Vec<_> = profile.stack(sample.stack).iter().map(|&id| location(profile, id)).collect();
    let thread = sample.thread.map(|id| {
        let thread = &profile.threads[id as usize];
        let process = &profile.processes[thread.process as usize];
        let mut attributes: Vec<_> =
            process.attributes.iter().map(|(key, value)| (text(*key), profile.attribute_text(value))).collect();
        attributes.sort();
        let names = [process.name, process.executable, process.container_id, thread.name].map(text);
        format!("{:?} {} {names:?} {attributes:?} {}", process.pid, process.start_unix_nanos, thread.tid)
    });
    let mut labels: Vec<_> = sample
        .labels
        .iter()
        .flat_map(|labels| labels.iter())
        .map(|label| match label.value {
            LabelValue::Text(value) => (text(label.key), format!("{:?}", text(value))),
            LabelValue::Number(number, unit) => (text(label.key), format!("{number} {}", text(unit))),
        })
        .collect();
    labels.sort_by_key(|(key, _)| *key);
    format!("{stack:?} {thread:?} {:?} {:?} {labels:?}", sample.cpu, sample.time_unix_nanos)
}

fn location(profile: &Profiles, id: u32) -> String {
    let location = &profile.locations[id as usize];
    let text = |id| profile.string(id);
    let mapping = location.mapping.map(|id| {
        let mapping = &profile.mappings[id as usize];
        let ids = [mapping.build_id_gnu, mapping.build_id_htlhash, mapping.build_id_go].map(text);
        format!("{} {} {} {:?} {ids:?}", mapping.start, mapping.end, mapping.file_offset, text(mapping.file))
    });
    let line = |line: &Line| {
        let function = &profile.functions[line.function as usize];
        let names = [function.name, function.system_name, function.file].map(text);
        format!("{names:?} {} {} {}", function.start_line, line.line, line.column)
    };
    let lines: Vec<_> = location.lines.iter().map(line).collect();
    let kind = match location.kind {
        FrameKind::Other(name) => text(name).to_owned(),
        known => format!("{known:?}"),
    };
    format!("{kind} {mapping:?} {} {lines:?} {} {:?}", location.address, location.guessed, location.tier)
}

/// All of a profile that is no sample, in a form that compares. A profile without samples is none, where there is another.
pub fn head(profile: &Profiles) -> String {
    let mut losses = profile.losses.clone();
    losses.sort_by(|a, b| a.reason.cmp(&b.reason));
    let empty = profile.sample_entries() == 0;
    let parts = profile.profiles.iter().filter(|part| {
        let says = |sample: &Sample| sample.values.as_slice().iter().any(|&value| value != 0);
        empty || profile.measured().len() == 1 || part.samples.iter().any(says)
    });
    let mut parts: Vec<String> = parts
        .flat_map(|part| {
            part.sample_types.iter().map(move |kind| {
                let time = (part.start_unix_nanos, part.duration_nanos);
                format!("{time:?} {:?} {kind:?} {:?} {}", part.source, part.period_type, part.period)
            })
        })
        .collect();
    parts.sort();
    format!("{parts:?} {:?} {losses:?} {:?}", profile.origin, profile.comments)
}

/// What is shown first.
pub fn first(profile: &Profiles) -> String {
    let shown = profile.shown(None).unwrap();
    format!("{:?} {}", shown.sample_type(), shown.source())
}

/// A recording of two processes with all that recordings have: kernel, inlined and run-time generated frames, a frame without a
/// name, an unfinished stack, threads, a container. `count` samples with times.
pub fn small(count: u64) -> Profiles {
    let mut b = recording();
    let mut mapping = |file: &str, start: u64, gnu: &str| {
        let mapping = Mapping {
            start,
            end: start + 0x10_0000,
            file_offset: 0x1000,
            file: b.string(file),
            build_id_gnu: b.string(gnu),
            build_id_htlhash: if gnu.is_empty() { 0 } else { b.string(&format!("{gnu:0<32}")) },
            ..Mapping::default()
        };
        b.mapping(mapping)
    };
    let kernel = mapping("[kernel.kallsyms]", 0xffff_ffff_8100_0000, "aa00");
    let libc = mapping("/usr/lib/libc.so.6", 0x2_8000, "bb11");
    let server = mapping("/usr/bin/server", 0x1000, "cc22");
    let jit = mapping("//anon", 0x7f00_0000_0000, "");
    let mut location = |kind, mapping: Option<u32>, address: u64, functions: &[(&str, &str, u32)]| {
        let lines = functions.iter().map(|(name, file, line)| {
            let function =
                Function { name: b.string(name), file: b.string(file), start_line: 1, ..Function::default() };
            Line { function: b.function(function), line: *line, column: 0 }
        });
        let lines = lines.collect();
        b.location(Location { kind, mapping, address, lines, ..Location::default() })
    };
    let write = location(FrameKind::Kernel, Some(kernel), 0xffff_ffff_8100_1234, &[("ksys_write", "", 0)]);
    let libc_write = location(FrameKind::Native, Some(libc), 0x2_9000, &[("write", "", 0)]);
    let unnamed = location(FrameKind::Native, Some(libc), 0x2_a000, &[]);
    let handle = location(
        FrameKind::Native,
        Some(server),
        0x1200,
        &[("core::ptr::read", "core/ptr.rs", 9), ("server::handle", "src/main.rs", 40)],
    );
    let main = location(FrameKind::Native, Some(server), 0x1100, &[("main", "src/main.rs", 7)]);
    let script = location(FrameKind::Jit, Some(jit), 0x7f00_0000_1000, &[("LazyCompile:~go /a.js:1", "", 0)]);
    let marker = location(FrameKind::Marker, None, 0, &[("unwind: no mapping", "", 0)]);
    let stacks =
        [vec![write, libc_write, handle, main], vec![handle, main], vec![script, handle, main], vec![unnamed, marker]];
    let stacks: Vec<u32> = stacks.iter().map(|stack| b.stack(stack)).collect();
    let container = b.string(&"f".repeat(64));
    let (name, path, worker) = (b.string("server"), b.string("/usr/bin/server"), b.string("worker"));
    let shell = b.string("sh");
    let server = Process {
        pid: Some(100),
        start_unix_nanos: START - 5,
        name,
        executable: path,
        container_id: container,
        ..Default::default()
    };
    let server = b.process(server);
    let other = b.process(Process { pid: Some(200), start_unix_nanos: START, name: shell, ..Process::default() });
    let threads = [(server, 100, name), (server, 101, worker), (other, 200, shell)]
        .map(|(process, tid, name)| b.thread(Thread { process, tid, name }));
    for index in 0..count {
        let sample = Sample {
            stack: stacks[(index % 4) as usize],
            thread: Some(threads[(index % 3) as usize]),
            cpu: Some((index % 2) as u32),
            time_unix_nanos: Some(START + index * DURATION / count),
            link: 0,
            values: Values::One(1),
            labels: None,
        };
        b.profile_mut().samples.push(sample);
    }
    b.finish()
}
