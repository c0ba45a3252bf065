//! Samples a second that one core works off: synthetic records through the decoder of the ring's records, the session and the
//! aggregate, and on into OTLP. Needs root, since a session loads the kernel half; nothing is sampled.
//!
//! ```sh
//! cargo build --release --example throughput && sudo target/release/examples/throughput
//! ```
//!
//! The records are those of this process: kernel and user frames, 30 in all, at addresses of its own code, in as many distinct
//! stacks as a busy host shows in a window. The first column is a window's first pass, in which every stack is new.

use std::time::{Duration, Instant};

use profiler::pipeline::{Budgets, Names, Session, SessionOptions, assemble, files};
use profiler_bpf::{Batch, Source, Targets};
use profiler_formats::format::{self, Format};
use profiler_resource::{KubernetesOptions, KubernetesSource, ResourceOptions, Resources};
use profiler_symbolizer::Symbolizer;
use profiler_unwinders::executable::Executables;
use profiler_unwinders::process::{Clock, procfs::Stat};

const SAMPLES: usize = 300_000;
const KERNEL_FRAMES: u64 = 5;
const USER_FRAMES: u64 = 25;
const ROUNDS: u32 = 5;

fn main() -> anyhow::Result<()> {
    let kubernetes = KubernetesOptions { source: KubernetesSource::Off, ..KubernetesOptions::default() };
    let resources = Resources::start(ResourceOptions { kubernetes, ..ResourceOptions::default() })?;
    println!("{:>8}  {:>14}  {:>14}  {:>14}", "stacks", "first/s", "then/s", "with OTLP/s");
    for stacks in [100, 1_000, 10_000] {
        let mut session = Session::new(SessionOptions {
            sampler: profiler_bpf::Options {
                sources: vec![Source::cpu_clock(99)],
                targets: Targets::Rules,
                ring_bytes: 1 << 20,
                btf: None,
                without_task_pt_regs: false,
            },
            budgets: Budgets { aggregate: usize::MAX, raw_stacks: 16 << 20, ..Budgets::default() },
            sideband_bytes: 1 << 18,
            reading: Box::new(Executables::new()),
        })?;
        let mut batch = batch(stacks)?;
        session.step(Duration::ZERO)?;
        let mut names = Names::kept(Symbolizer::new(profiler_symbolizer::Options::default()), 64 << 20);
        let (mut first, mut then, mut whole) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        for _ in 0..ROUNDS {
            let started = Instant::now();
            batch = session.replay(batch);
            first = first.min(started.elapsed().as_secs_f64());
            let again = Instant::now();
            batch = session.replay(batch);
            then = then.min(again.elapsed().as_secs_f64());
            session.take_aggregate();

            let started = Instant::now();
            batch = session.replay(batch);
            let aggregate = session.take_aggregate();
            let files = files(&aggregate, session.reading());
            let profile = assemble(&aggregate, &mut names, &files, &resources, session.clock());
            format::write(&profile, Format::Otlp, std::io::sink())?;
            whole = whole.min(started.elapsed().as_secs_f64());
        }
        let rate = |seconds: f64| SAMPLES as f64 / seconds;
        println!("{stacks:>8}  {:>14.0}  {:>14.0}  {:>14.0}", rate(first), rate(then), rate(whole));
    }
    Ok(())
}

/// Records as `struct sample` lays them out (`bpf/src/bpf/abi.h`).
fn batch(stacks: u64) -> anyhow::Result<Batch> {
    let pid = std::process::id();
    let space = Stat::read(pid)?.address_space;
    // Somewhere in this program's code.
    let code = main as fn() -> anyhow::Result<()> as usize as u64;
    let mut batch = Batch::default();
    let mut record = Vec::new();
    let start = Clock::monotonic_now();
    for index in 0..SAMPLES as u64 {
        let stack = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) % stacks;
        record.clear();
        // time, start_time, start_code, start_stack, value, cgroup
        for word in [start + index * 1000, 0, space.start_code, space.start_stack, 10_101_010, 0] {
            record.extend(word.to_ne_bytes());
        }
        // pid, tid, parent_pid, cpu, version, stack_bytes
        for word in [pid, pid + (index % 8) as u32, 1, (index % 2) as u32, 1, 0] {
            record.extend(word.to_ne_bytes());
        }
        record.extend((KERNEL_FRAMES as u16).to_ne_bytes());
        record.extend((USER_FRAMES as u16).to_ne_bytes());
        record.extend([0; 4]);
        record.extend(*b"throughput\0\0\0\0\0\0");
        for frame in 0..KERNEL_FRAMES {
            record.extend((0xffff_ffff_8100_0000 + (stack % 64) * 64 + frame * 4096).to_ne_bytes());
        }
        for frame in 0..USER_FRAMES {
            // The leaf tells stacks apart, the others are shared by many.
            let spread = if frame == 0 { stack } else { stack % (frame + 7) + frame * 97 };
            let is_ip = if frame == 0 { 1 << 63 } else { 0 };
            record.extend(((code + spread) | is_ip).to_ne_bytes());
        }
        batch.push(&record);
    }
    Ok(batch)
}
