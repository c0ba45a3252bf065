//! An aggregate and names become a profile.

use std::sync::Arc;

use profiler_bpf::abi;
use profiler_bpf::record::comm_bytes;
use profiler_model::builder::ProfileBuilder;
use profiler_model::{
    FrameKind, Function, Line, Location, LocationId, Mapping, MappingId, Measure, Process, Profile, Profiles, Sample,
    Thread, Tier, Values,
};
use profiler_resource::Resources;
use profiler_symbolizer::{Generation, Language, Symbolized};
use profiler_unwinders::executable::ExecutableId;
use profiler_unwinders::process::Clock;
use profiler_unwinders::runtime::{self, FrameName};
use rustc_hash::FxHashMap;

use super::aggregate::{Aggregate, Frame, FrameId, Image, RawSample, StackId};
use super::facts::sampled_facts;
use super::names::{Files, Names};

/// Names every frame of `aggregate` and lays it out, a profile for each measure that has samples; `clock` turns its times into
/// Unix times. The caller fills in origin and losses.
#[must_use]
pub fn assemble(
    aggregate: &Aggregate,
    names: &mut Names,
    files: &Files,
    resources: &Resources,
    clock: Clock,
) -> Profiles {
    lay_out(aggregate, names, files, resources, clock).finish()
}

/// The same, not finished: what is built can be edited.
pub(super) fn lay_out(
    aggregate: &Aggregate,
    names: &mut Names,
    files: &Files,
    resources: &Resources,
    clock: Clock,
) -> ProfileBuilder {
    let mut builder = ProfileBuilder::new();
    let (symbols, generations) = names.of(aggregate, files);
    let mut mappings = Mappings { aggregate, of_executable: FxHashMap::default(), of_module: FxHashMap::default() };
    let locations: Vec<LocationId> = aggregate
        .frames
        .iter()
        .zip(&symbols)
        .zip(0..)
        .map(|((frame, symbolized), id)| {
            let location = location(&mut builder, &mut mappings, (id, frame), symbolized.as_ref());
            builder.location(location)
        })
        .collect();

    let mut turns = Turns::default();
    for (&frame, generations) in &generations {
        let Some(of) = aggregate.frames.get(frame as usize) else { continue };
        let mut located = |generation: &Generation| {
            let location = location(&mut builder, &mut mappings, (frame, of), Some(&generation.symbolized));
            (generation.until, builder.location(location))
        };
        turns.of_frame.insert(frame, generations.iter().map(&mut located).collect());
    }

    let processes: Vec<u32> = aggregate.images.iter().map(|image| process(&mut builder, image, resources)).collect();
    let threads: Vec<u32> = aggregate
        .threads
        .iter()
        .map(|thread| {
            let name = builder.string(&String::from_utf8_lossy(comm_bytes(&thread.comm)));
            let process = processes.get(thread.image as usize).copied().unwrap_or_default();
            builder.thread(Thread { process, tid: thread.tid, name })
        })
        .collect();
    let mut stack = Vec::new();
    let stacks: Vec<u32> = aggregate
        .stacks
        .iter()
        .map(|frames| {
            stack.clear();
            stack.extend(frames.iter().filter_map(|&frame| locations.get(frame as usize).copied()));
            builder.stack(&stack)
        })
        .collect();

    let as_of_time = turns.stacks(aggregate, &locations, &stacks, &mut builder);

    let shared = resources.shared().in_profile(&mut builder);
    builder.set_mut().resource_attributes = shared;
    for (index, series) in aggregate.series.iter().enumerate().filter(|(_, series)| !series.samples.is_empty()) {
        let mut profile = Profile::of(&series.measure);
        profile.samples = series
            .samples
            .iter()
            .enumerate()
            .filter_map(|(at, sample)| {
                let as_of_time = as_of_time.get(index).and_then(|stacks| stacks.get(at));
                Some(Sample {
                    stack: *as_of_time.or_else(|| stacks.get(sample.stack as usize))?,
                    thread: threads.get(sample.thread as usize).copied(),
                    cpu: Some(sample.cpu()),
                    time_unix_nanos: Some(clock.unix_from_monotonic(sample.time)),
                    link: 0,
                    values: Values::One(i64::try_from(sample.value()).unwrap_or(i64::MAX)),
                    labels: None,
                })
            })
            .collect();
        builder.begin(profile);
    }
    builder
}

/// Frames in JIT code that meant one thing after another: up to which time, and what.
#[derive(Default)]
struct Turns {
    of_frame: FxHashMap<FrameId, Vec<(u64, LocationId)>>,
}

impl Turns {
    /// The stack of each sample as of its time, by series and sample; none if nothing changed.
    fn stacks(
        &self,
        aggregate: &Aggregate,
        locations: &[LocationId],
        stacks: &[u32],
        builder: &mut ProfileBuilder,
    ) -> Vec<Vec<u32>> {
        if self.of_frame.is_empty() {
            return Vec::new();
        }
        let changes = |frames: &Arc<[FrameId]>| frames.iter().any(|frame| self.of_frame.contains_key(frame));
        let changing: Vec<bool> = aggregate.stacks.iter().map(changes).collect();
        let mut known: FxHashMap<(StackId, u64), u32> = FxHashMap::default();
        let mut as_of_time = |sample: &RawSample| {
            let id = sample.stack as usize;
            if !changing.get(id).copied().unwrap_or(false) {
                return stacks.get(id).copied().unwrap_or_default();
            }
            let frames = aggregate.stacks.get(id).map(|frames| &**frames).unwrap_or_default();
            let meaning = |frame: &FrameId| {
                let generations = self.of_frame.get(frame)?;
                generations.iter().find(|(until, _)| sample.time < *until).or(generations.last())
            };
            // The stack holds until the first of its frames means something else.
            let until = frames.iter().filter_map(meaning).map(|(until, _)| *until).min().unwrap_or(u64::MAX);
            *known.entry((sample.stack, until)).or_insert_with(|| {
                let location = |frame: &FrameId| {
                    meaning(frame).map(|(_, location)| *location).or(locations.get(*frame as usize).copied())
                };
                builder.stack(&frames.iter().filter_map(location).collect::<Vec<_>>())
            })
        };
        aggregate.series.iter().map(|series| series.samples.iter().map(&mut as_of_time).collect()).collect()
    }
}

struct Mappings<'a> {
    aggregate: &'a Aggregate,
    of_executable: FxHashMap<ExecutableId, MappingId>,
    of_module: FxHashMap<String, MappingId>,
}

impl Mappings<'_> {
    /// One mapping an executable: its text as the ELF file places it.
    fn executable(&mut self, builder: &mut ProfileBuilder, id: ExecutableId) -> Option<MappingId> {
        if let Some(&mapping) = self.of_executable.get(&id) {
            return Some(mapping);
        }
        let executable = self.aggregate.executables.get(&id)?;
        let (start, end) = executable.code_range().map_or((0, 0), |(start, end)| (start.0, end.0));
        let first = executable.segments.iter().find(|segment| segment.vaddr.0 == start);
        let offset = first.map_or(0, |segment| segment.offset.0);
        let mapping = Mapping {
            start,
            end,
            file_offset: offset,
            file: builder.string(&executable.path_text()),
            build_id_gnu: builder.string(executable.build_id_gnu.as_deref().unwrap_or("")),
            build_id_htlhash: builder.string(executable.build_id_htlhash().unwrap_or("")),
            build_id_go: builder.string(executable.build_id_go.as_deref().unwrap_or("")),
        };
        let mapping = builder.mapping(mapping);
        self.of_executable.insert(id, mapping);
        Some(mapping)
    }

    fn kernel(&mut self, builder: &mut ProfileBuilder, module: Option<&str>) -> MappingId {
        let name = module.map_or_else(|| "[kernel.kallsyms]".to_owned(), |module| format!("[{module}]"));
        if let Some(&mapping) = self.of_module.get(&name) {
            return mapping;
        }
        let file = builder.string(&name);
        let mapping = builder.mapping(Mapping { file, ..Mapping::default() });
        self.of_module.insert(name, mapping);
        mapping
    }
}

/// What files call the frames of each runtime: a row for each kind but native code.
const KINDS: [(abi::FrameKind, FrameKind); abi::FrameKind::NAMED.len() - 1] = [
    (abi::FrameKind::CPYTHON, FrameKind::Cpython),
    (abi::FrameKind::HOTSPOT, FrameKind::Jvm),
    (abi::FrameKind::V8, FrameKind::V8js),
];

fn location(
    builder: &mut ProfileBuilder,
    mappings: &mut Mappings<'_>,
    (id, frame): (FrameId, &Frame),
    symbolized: Option<&Symbolized>,
) -> Location {
    let mut lines: Vec<Line> = Vec::new();
    for frame in symbolized.into_iter().flat_map(|symbolized| &symbolized.frames) {
        let function = Function {
            name: builder.string(&frame.name),
            system_name: if frame.system_name == frame.name { 0 } else { builder.string(&frame.system_name) },
            file: frame.file.as_deref().map_or(0, |file| builder.string(file)),
            start_line: frame.start_line,
        };
        lines.push(Line { function: builder.function(function), line: frame.line, column: frame.column });
    }
    match *frame {
        Frame::Native { executable, address, guessed } => {
            let go = symbolized.is_some_and(|symbolized| symbolized.language == Language::Go);
            let kind = if go { FrameKind::Go } else { FrameKind::Native };
            let mapping = mappings.executable(builder, executable);
            Location { kind, mapping, address: address.0, lines, guessed, tier: None }
        }
        Frame::Unopened { path, offset, guessed } => {
            let path = mappings.aggregate.paths.get(path as usize);
            let file = builder.string(&path.map(|path| String::from_utf8_lossy(path)).unwrap_or_default());
            let mapping = Some(builder.mapping(Mapping { file, ..Mapping::default() }));
            Location { kind: FrameKind::Native, mapping, address: offset.0, lines, guessed, tier: None }
        }
        Frame::Jit { address, guessed, .. } => {
            let file = builder.string("//anon");
            let mapping = Some(builder.mapping(Mapping { file, ..Mapping::default() }));
            Location { kind: FrameKind::Jit, mapping, address: address.0, lines, guessed, tier: None }
        }
        Frame::Runtime { frame, .. } => {
            if let Some(why) = mappings.aggregate.unnamed.get(&id).map(|unnamed| &unnamed.why) {
                return marker(builder, why);
            }
            let names = mappings.aggregate.names.get(&id).map(|names| &**names).unwrap_or_default();
            let lines = names.iter().map(|name| runtime_line(builder, name)).collect();
            let kind = KINDS.iter().find(|(kind, _)| *kind == frame.kind).map_or(FrameKind::Jit, |(_, kind)| *kind);
            let tier = names.first().and_then(|name| name.tier).map(tier);
            Location { kind, mapping: None, address: frame.object.0, lines, guessed: false, tier }
        }
        Frame::Unmapped { address } => {
            Location { kind: FrameKind::Native, mapping: None, address: address.0, lines, guessed: false, tier: None }
        }
        Frame::Kernel { address } => {
            let module = symbolized.and_then(|symbolized| symbolized.module.as_deref());
            let mapping = Some(mappings.kernel(builder, module));
            Location { kind: FrameKind::Kernel, mapping, address: address.0, lines, guessed: false, tier: None }
        }
        Frame::Marker(end) => marker(builder, end.reason()),
    }
}

/// What a profile calls how a runtime runs code.
const fn tier(of: runtime::Tier) -> Tier {
    match of {
        runtime::Tier::Interpreted => Tier::Interpreted,
        runtime::Tier::C1 => Tier::C1,
        runtime::Tier::C2 => Tier::C2,
        runtime::Tier::Sparkplug => Tier::Sparkplug,
        runtime::Tier::Maglev => Tier::Maglev,
        runtime::Tier::Turbofan => Tier::Turbofan,
    }
}

/// A function as its runtime named it.
fn runtime_line(builder: &mut ProfileBuilder, name: &FrameName) -> Line {
    let function = Function {
        name: builder.string(&name.function),
        file: builder.string(&name.file),
        start_line: name.start_line,
        ..Function::default()
    };
    Line { function: builder.function(function), line: name.line, column: 0 }
}

/// The frame that says why there is none above it, or in its place.
fn marker(builder: &mut ProfileBuilder, why: &str) -> Location {
    let name = builder.string(&format!("[{why}]"));
    let function = builder.function(Function { name, ..Function::default() });
    let lines = vec![Line { function, line: 0, column: 0 }];
    Location { kind: FrameKind::Marker, mapping: None, address: 0, lines, guessed: false, tier: None }
}

/// One sample of `image`, on no stack: what its resource says, and nothing else.
#[must_use]
pub fn alone(image: &Image, resources: &Resources) -> Profiles {
    let mut builder = ProfileBuilder::new();
    let process = process(&mut builder, image, resources);
    let thread = Some(builder.thread(Thread { process, tid: image.pid, name: 0 }));
    let shared = resources.shared().in_profile(&mut builder);
    builder.set_mut().resource_attributes = shared;
    let samples = vec![Sample { thread, ..Sample::default() }];
    builder.begin(Profile { samples, ..Profile::of(&Measure::cpu_clock(1)) });
    builder.finish()
}

fn process(builder: &mut ProfileBuilder, image: &Image, resources: &Resources) -> u32 {
    let comm = image.comm.to_text();
    let attributes = resources.attributes(&sampled_facts(image, &comm)).in_profile(builder);
    let process = Process {
        pid: Some(image.pid),
        start_unix_nanos: image.start_unix_ns,
        name: builder.string(&comm),
        executable: builder.string(&String::from_utf8_lossy(&image.exe)),
        container_id: image.container_id.as_deref().map_or(0, |id| builder.string(id)),
        attributes,
    };
    builder.process(process)
}

#[cfg(test)]
mod tests {
    use profiler_address::UserAddr;
    use profiler_bpf::record::RuntimeFrame;

    use super::*;

    #[test]
    fn a_runtimes_frame_is_the_functions_that_it_named() {
        let mut aggregate = Aggregate::default();
        let frame = RuntimeFrame {
            kind: profiler_bpf::abi::FrameKind::new(5).unwrap(),
            object: UserAddr(0x1000),
            position: 3,
            cookie: 4,
        };
        let name = |function: &str, line| FrameName {
            function: function.into(),
            file: "a.py".into(),
            line,
            start_line: 1,
            tier: Some(runtime::Tier::C2),
        };
        let named = aggregate.runtime_frame(0, frame, || Ok(vec![name("inlined", 7), name("caller", 9)]));
        let unnamed = aggregate.runtime_frame(0, RuntimeFrame { cookie: 5, ..frame }, || Err("python: gone".into()));
        let mut builder = ProfileBuilder::new();
        let mut mappings =
            Mappings { aggregate: &aggregate, of_executable: FxHashMap::default(), of_module: FxHashMap::default() };
        let mut of = |id: FrameId| location(&mut builder, &mut mappings, (id, &aggregate.frames[id as usize]), None);
        let (named, unnamed) = (of(named), of(unnamed));
        let profile = builder.finish();
        let why = profile.function(unnamed.lines[0].function).unwrap();
        assert_eq!((unnamed.kind, profile.string(why.name)), (FrameKind::Marker, "[python: gone]"));
        assert_eq!((named.tier, unnamed.tier), (Some(Tier::C2), None));
        let lines = named.lines.iter().map(|line| {
            let function = profile.function(line.function).unwrap();
            (profile.string(function.name), profile.string(function.file), line.line)
        });
        assert!(lines.eq([("inlined", "a.py", 7), ("caller", "a.py", 9)]));
    }
}
