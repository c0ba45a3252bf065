//! Samples a second, by format: a large recording of 1,000,000 samples on 100,000 stacks, 30 frames deep, in 200 threads.
//!
//! `cargo bench -p profiler-bench --bench encode`

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use divan::{Bencher, counter::ItemsCount};
use profiler_bench::Random;
use profiler_formats::{
    format::{self, Format},
    otlp, pprof,
};
use profiler_model::{
    FrameKind, Function, Line, Location, Mapping, Process, Profiles, Sample, Thread, ValueType, Values,
    builder::ProfileBuilder,
};

const SAMPLES: u64 = 1_000_000;
const STACKS: u64 = 100_000;
const START: u64 = 1_795_438_015_000_000_000;

static PROFILE: LazyLock<Profiles> = LazyLock::new(profile);

fn main() {
    divan::main();
}

fn profile() -> Profiles {
    let mut random = Random(1);
    let mut b = ProfileBuilder::new();
    let mappings: Vec<u32> = (0..50)
        .map(|index| {
            let file = b.string(&format!("/usr/lib/x86_64-linux-gnu/lib{index}.so.{index}"));
            let build_id_gnu = b.string(&format!("{:040x}", index * 7919));
            b.mapping(Mapping {
                start: 0x1000,
                end: 0x100_0000,
                file_offset: 0x1000,
                file,
                build_id_gnu,
                ..Mapping::default()
            })
        })
        .collect();
    let locations: Vec<u32> = (0..20_000)
        .map(|index: u32| {
            let name = b.string(&format!("library::module_{}::Type<{index}>::method", index % 97));
            let file = b.string(&format!("src/module_{}.rs", index % 97));
            let function = b.function(Function { name, file, start_line: 1, ..Function::default() });
            let kind = if index.is_multiple_of(10) { FrameKind::Kernel } else { FrameKind::Native };
            b.location(Location {
                kind,
                mapping: Some(mappings[index as usize % mappings.len()]),
                address: 0x1000 + u64::from(index) * 16,
                lines: vec![Line { function, line: index % 500, column: 0 }],
                guessed: false,
                tier: None,
            })
        })
        .collect();
    let stacks: Vec<u32> = (0..STACKS)
        .map(|_| {
            // Callers are few, callees are many, as in programs.
            let stack: Vec<u32> = (0..30)
                .map(|depth: u64| locations[random.below(locations.len() as u64 >> (depth / 3)) as usize])
                .collect();
            b.stack(&stack)
        })
        .collect();
    let threads: Vec<u32> = (0..200)
        .map(|tid: u32| {
            let name = b.string(&format!("program-{}", tid / 4));
            let executable = b.string(&format!("/usr/bin/program-{}", tid / 4));
            let process =
                Process { pid: Some(tid / 4), start_unix_nanos: START, name, executable, ..Process::default() };
            let process = b.process(process);
            let name = b.string(&format!("worker-{tid}"));
            b.thread(Thread { process, tid, name })
        })
        .collect();
    let head = b.profile_mut();
    head.start_unix_nanos = START;
    head.duration_nanos = SAMPLES * 1000;
    head.sample_types = vec![ValueType { kind: "samples".to_owned(), unit: "count".to_owned() }];
    head.period_type = ValueType { kind: "cpu".to_owned(), unit: "nanoseconds".to_owned() };
    head.period = 10_101_010;
    for index in 0..SAMPLES {
        // A stack is one process's, and may be any of its threads'.
        let stack = random.below(STACKS);
        let sample = Sample {
            stack: stacks[stack as usize],
            thread: Some(threads[(stack % 50 * 4 + random.below(4)) as usize]),
            cpu: Some(random.below(16) as u32),
            time_unix_nanos: Some(START + index * 1000),
            values: Values::One(1),
            ..Sample::default()
        };
        b.profile_mut().samples.push(sample);
    }
    b.finish()
}

/// Counts bytes and drops them.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[divan::bench(args = Format::all(), sample_count = 3, sample_size = 1)]
fn encode(bencher: Bencher, format: Format) {
    let profile = &*PROFILE;
    bencher.counter(ItemsCount::new(SAMPLES)).bench(|| {
        let mut out = Counter(0);
        format::write(profile, format, &mut out).map(|()| out.0)
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn decode_pprof(bencher: Bencher) {
    let mut bytes = Vec::new();
    pprof::encode(&PROFILE, &mut bytes).expect("a vector takes whatever is written");
    bencher.counter(ItemsCount::new(SAMPLES)).bench(|| pprof::decode(&bytes).map(|profile| profile.sample_entries()));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn decode_otlp(bencher: Bencher) {
    let bytes = otlp::encode(&PROFILE);
    bencher.counter(ItemsCount::new(SAMPLES)).bench(|| otlp::decode(&bytes).map(|profile| profile.sample_entries()));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn summary(bencher: Bencher) {
    bencher.counter(ItemsCount::new(SAMPLES)).bench(|| profiler_model::summary(&PROFILE).samples);
}
