//! Bytes of a sample on the wire, and samples a second of what an exporter does before it sends: encoding, dividing, compressing.
//!
//! `cargo bench -p profiler-bench --bench wire`
//!
//! The load is a busy host of 8 CPUs at 99 Hz: 40 processes, half of the samples on 30 hot stacks and the others on 4,000 cold ones
//! with names as C++ and Rust have them, in windows of 10 s and 60 s.

use std::{io::Write, sync::LazyLock};

use divan::{Bencher, counter::ItemsCount};
use profiler_bench::Random;
use profiler_formats::otlp::{self, split};
use profiler_model::{
    FrameKind, Function, Line, Location, Mapping, Measure, Process, Profile, Profiles, Sample, Thread,
    builder::ProfileBuilder,
};

const RATE: u64 = 99;
const CPUS: u64 = 8;
const START: u64 = 1_795_438_015_000_000_000;
/// What the Collector's gRPC receiver takes.
const MAX_REQUEST: usize = 4 << 20;

static WINDOW: LazyLock<Profiles> = LazyLock::new(|| profile(10));
/// 1,000,000 samples, divided into many requests.
static LARGE: LazyLock<Profiles> = LazyLock::new(|| profile(1_000_000 / RATE / CPUS + 1));

fn main() {
    println!(
        "window  samples   requests        raw       gzip       zstd   raw B/sample  gzip B/sample  zstd B/sample"
    );
    for seconds in [10, 60] {
        let profile = profile(seconds);
        let requests = split(&profile, MAX_REQUEST).requests;
        let samples = profile.sample_entries();
        let raw: usize = requests.iter().map(|request| request.bytes.len()).sum();
        let gzip: usize = requests.iter().map(|request| gzip(&request.bytes)).sum();
        let zstd: usize = requests.iter().map(|request| zstd(&request.bytes)).sum();
        let each = |bytes: usize| bytes as f64 / samples as f64;
        println!(
            "{seconds:>4} s {samples:>9} {:>10} {raw:>10} {gzip:>10} {zstd:>10} {:>14.1} {:>14.1} {:>14.1}",
            requests.len(),
            each(raw),
            each(gzip),
            each(zstd)
        );
    }
    divan::main();
}

fn gzip(bytes: &[u8]) -> usize {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("a vector takes whatever is written");
    encoder.finish().expect("a vector takes whatever is written").len()
}

fn zstd(bytes: &[u8]) -> usize {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest).len()
}

fn profile(seconds: u64) -> Profiles {
    let mut random = Random(1);
    let mut b = ProfileBuilder::new();
    let mut processes = Vec::new();
    for number in 0..40_u64 {
        let file = b.string(&format!("/usr/bin/program-{number}"));
        let build_id_gnu = b.string(&format!("{:016x}{:024x}", random.below(u64::MAX), random.below(u64::MAX)));
        let mapping = b.mapping(Mapping { start: 0x1000, end: 0x80_0000, file, build_id_gnu, ..Mapping::default() });
        let locations: Vec<u32> = (0..300_u64)
            .map(|index| {
                let name = b.string(&format!(
                    "program_{number}::module_{}::Type{index}<T>::method_{}",
                    index % 17,
                    index % 23
                ));
                let file = b.string(&format!("src/module_{}.rs", index % 17));
                let function = b.function(Function { name, file, start_line: 1, ..Function::default() });
                let lines = vec![Line { function, line: (index * 7 % 900) as u32, column: 0 }];
                b.location(Location {
                    kind: FrameKind::Native,
                    mapping: Some(mapping),
                    address: 0x1000 + index * 160 + random.below(16),
                    lines,
                    guessed: false,
                    tier: None,
                })
            })
            .collect();
        let stacks: Vec<u32> = (0..100)
            .map(|_| {
                let depth = 8 + random.below(30);
                let stack: Vec<u32> = (0..depth)
                    .map(|level| locations[random.below(300 >> (level * 8 / depth).min(7)) as usize])
                    .collect();
                b.stack(&stack)
            })
            .collect();
        let name = b.string(&format!("program-{number}"));
        let executable = b.string(&format!("/usr/bin/program-{number}"));
        let pid = 1000 + number as u32 * 37;
        let process =
            b.process(Process { pid: Some(pid), start_unix_nanos: START, name, executable, ..Process::default() });
        let threads: Vec<u32> = (0..4)
            .map(|index| {
                let name = b.string(&format!("worker-{index}"));
                b.thread(Thread { process, tid: pid + index, name })
            })
            .collect();
        processes.push((stacks, threads));
    }
    b.begin(Profile::of(&Measure::cpu_clock(1_000_000_000 / RATE)));
    let head = b.profile_mut();
    (head.start_unix_nanos, head.duration_nanos) = (START, seconds * 1_000_000_000);
    for tick in 0..seconds * RATE {
        for cpu in 0..CPUS {
            let is_hot = random.below(2) == 0;
            let (stacks, threads) = &processes[random.below(if is_hot { 10 } else { 40 }) as usize];
            let stack = stacks[random.below(if is_hot { 3 } else { 100 }) as usize];
            let sample = Sample {
                stack,
                thread: Some(threads[random.below(4) as usize]),
                cpu: Some(cpu as u32),
                // Ticks jitter.
                time_unix_nanos: Some(START + tick * 1_000_000_000 / RATE + random.below(50_000)),
                ..Sample::default()
            };
            b.profile_mut().samples.push(sample);
        }
    }
    b.finish()
}

fn counted(bencher: Bencher, profile: &'static Profiles, work: impl Fn(&Profiles) -> usize + Sync) {
    bencher.counter(ItemsCount::new(profile.sample_entries())).bench(|| work(profile));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn encode_a_window(bencher: Bencher) {
    counted(bencher, &WINDOW, |profile| otlp::encode(profile).len());
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn split_and_gzip_a_window(bencher: Bencher) {
    counted(bencher, &WINDOW, |profile| {
        split(profile, MAX_REQUEST).requests.iter().map(|part| gzip(&part.bytes)).sum()
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn split_a_million_samples(bencher: Bencher) {
    counted(bencher, &LARGE, |profile| split(profile, MAX_REQUEST).requests.len());
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn split_and_gzip_a_million_samples(bencher: Bencher) {
    counted(bencher, &LARGE, |profile| split(profile, MAX_REQUEST).requests.iter().map(|part| gzip(&part.bytes)).sum());
}
