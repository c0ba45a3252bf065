//! Samples a second that the agent works off end to end: made records through the kernel's ring of the agent's size, its collector
//! thread, the session, the aggregate, and windows that are named, assembled and encoded as OTLP. Needs root.
//!
//! ```sh
//! cargo build --release -p profiler-integration --example ring && sudo target/release/examples/ring [--without-wake] [RATE]...
//! ```
//!
//! What sends the records has CPU 0, what takes them CPU 1. CPU time is that of the taking side, from the first record to the last
//! window's encoding. `--without-wake` leaves the reader to its 200 ms, as it was before the ring called it.

use std::error::Error;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use profiler::pipeline::{
    Aggregate, Budgets, Files, Names, Session, SessionOptions, Tally, Totals, assemble, files, process_facts,
};
use profiler_bpf::feed::Fed;
use profiler_bpf::{Options, Source, Targets};
use profiler_formats::format::{self, Format};
use profiler_integration::made;
use profiler_resource::{KubernetesOptions, KubernetesSource, ResourceOptions, Resources};
use profiler_symbolizer::Symbolizer;
use profiler_unwinders::executable::Executables;
use profiler_unwinders::process::Clock;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

const PROCESSES: usize = 200;
const STACKS: usize = 4_000;
const WARM_UP: Duration = Duration::from_secs(3);
const TIME: Duration = Duration::from_secs(10);
/// What the agent's budget for samples that were not taken yet, 32 MiB, holds at 150 k/s.
const WINDOW: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(200);

type Job = (Aggregate, Files, Clock);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wake = !arguments.iter().any(|argument| argument == "--without-wake");
    let rates = arguments.iter().filter(|argument| *argument != "--without-wake");
    let mut rates: Vec<u64> = rates.map(|rate| rate.parse()).collect::<Result<_, _>>()?;
    if rates.is_empty() {
        rates = vec![150_000];
    }
    pin(1)?;
    let made = made::make(PROCESSES, STACKS)?;
    println!(
        "{PROCESSES} processes, {STACKS} stacks, {} bytes a record, a ring of 2 MiB{}",
        made.records.bytes() / made.records.len(),
        if wake { "" } else { ", reader not woken" }
    );
    println!(
        "{:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:>12}  {:>14}",
        "offered/s", "encoded/s", "ring full", "dropped", "ns/sample", "a core, /s", "send, ns/rec"
    );
    for rate in rates {
        run(&made, rate, wake)?;
    }
    Ok(())
}

fn run(made: &made::Made, rate: u64, wake: bool) -> Result<(), Box<dyn Error>> {
    // As the agent has them at 99 Hz on a small host.
    let mut session = Session::new(SessionOptions {
        sampler: Options {
            sources: vec![Source::cpu_clock(99)],
            targets: Targets::Rules,
            ring_bytes: 2 << 20,
            btf: None,
            without_task_pt_regs: false,
        },
        budgets: Budgets { waiting: 32 << 20, ..Budgets::default() },
        sideband_bytes: 1 << 18,
        reading: Box::new(Executables::new()),
    })?;
    let kubernetes = KubernetesOptions { source: KubernetesSource::Off, ..KubernetesOptions::default() };
    let resources = Resources::start(ResourceOptions { kubernetes, ..ResourceOptions::default() })?;
    let mut feed = session.feed(&made.records, wake)?;

    let (jobs, inbox) = channel::<Job>();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| -> Result<u64, String> {
            let mut names = Names::kept(Symbolizer::new(profiler_symbolizer::Options::default()), 32 << 20);
            let mut encoded = 0;
            for (aggregate, files, clock) in inbox {
                let profile = assemble(&aggregate, &mut names, &files, &resources, clock);
                drop(aggregate);
                format::write(&profile, Format::Otlp, std::io::sink()).map_err(|error| error.to_string())?;
                encoded += profile.sample_entries() as u64;
            }
            Ok(encoded)
        });
        let publish = |session: &mut Session| -> Result<u64, Box<dyn Error>> {
            let aggregate = session.take_aggregate();
            let samples = aggregate.sample_count() as u64;
            let files = files(&aggregate, session.reading());
            jobs.send((aggregate, files, session.clock()))?;
            Ok(samples)
        };

        // Rows, names and resources are loaded once, as in an agent that has run for a while.
        let warming = scope.spawn(move || {
            pin(0).map_err(|error| error.to_string())?;
            let sent = made::send_at(&mut feed, rate.min(20_000), WARM_UP).map_err(|error| error.to_string())?;
            Ok::<_, String>((feed, sent.0))
        });
        step_until(&mut session, &resources, || warming.is_finished())?;
        let (mut feed, warm) = warming.join().map_err(|_| "the feed has ended")??;
        while session.totals().samples() < warm.sent {
            step(&mut session, &resources)?;
        }
        publish(&mut session)?;

        let before = session.totals();
        let cpu_before = cpu(ClockId::ProcessCPUTime);
        let sending = scope.spawn(move || {
            pin(0).map_err(|error| error.to_string())?;
            let own = cpu(ClockId::ThreadCPUTime);
            let sent = made::send_at(&mut feed, rate, TIME).map_err(|error| error.to_string())?;
            Ok::<_, String>((sent.0, sent.1, cpu(ClockId::ThreadCPUTime) - own))
        });
        let mut taken = 0;
        while !sending.is_finished() {
            let window = Instant::now();
            step_until(&mut session, &resources, || sending.is_finished() || window.elapsed() >= WINDOW)?;
            taken += publish(&mut session)?;
        }
        let (fed, time, sender_cpu): (Fed, Duration, Duration) = sending.join().map_err(|_| "the feed has ended")??;
        session.finish()?;
        taken += publish(&mut session)?;
        let totals = session.totals();
        drop(jobs);
        let encoded = publisher.join().map_err(|_| "the publisher has ended")?? - warm.sent;
        let taker_cpu = cpu(ClockId::ProcessCPUTime) - cpu_before - sender_cpu;
        let dropped = lost(&totals) - lost(&before);
        assert_eq!(taken, encoded, "what is taken is encoded");
        assert_eq!(fed.sent, taken + dropped, "what reached the ring is taken, or counted");
        let a_sample = taker_cpu.as_nanos() as f64 / encoded as f64;
        println!(
            "{:>10.0}  {:>10.0}  {:>10}  {:>10}  {:>10.0}  {:>12.0}  {:>14.0}",
            (fed.sent + fed.full) as f64 / time.as_secs_f64(),
            encoded as f64 / time.as_secs_f64(),
            fed.full,
            dropped,
            a_sample,
            1e9 / a_sample,
            sender_cpu.as_nanos() as f64 / (fed.sent + fed.full) as f64,
        );
        Ok(())
    })
}

/// Samples that reached the session and were dropped there.
fn lost(totals: &Totals) -> u64 {
    totals.session(Tally::IntakeDropped) + totals.session(Tally::OverBudget)
}

fn step_until(session: &mut Session, resources: &Resources, done: impl Fn() -> bool) -> Result<(), Box<dyn Error>> {
    while !done() {
        step(session, resources)?;
    }
    Ok(())
}

/// As the agent's thread does.
fn step(session: &mut Session, resources: &Resources) -> Result<(), Box<dyn Error>> {
    session.step(STEP)?;
    for image in session.new_images() {
        resources.learn(&process_facts(&image, &image.comm.to_text()));
    }
    Ok(())
}

/// This thread, and those that it starts, on one CPU.
fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
