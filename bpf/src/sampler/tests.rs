//! The kernel half on this machine's kernel; needs root.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use profiler_need::{have, have_root};

use super::*;
use crate::cpus::online_cpus;

const TIME: Duration = Duration::from_millis(600);

/// What one of these tests does is counted by another: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `count` at its least of three attempts: what other threads and processes do meanwhile only adds to it.
fn least(mut enough: impl FnMut(u64) -> bool, mut count: impl FnMut() -> u64) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..3 {
        least = least.min(count());
        if enough(least) {
            break;
        }
    }
    least
}

fn sampler(sources: &[&str]) -> Sampler {
    let sources = sources.iter().map(|text| Source::parse(text, 997).unwrap()).collect();
    let targets = Targets::Processes(vec![std::process::id()]);
    Sampler::load(Options { sources, targets, ring_bytes: 1 << 22, btf: None, without_task_pt_regs: false }).unwrap()
}

/// Works on the CPU until `work` was done for `time`; returns how often.
fn work(time: Duration, mut work: impl FnMut()) -> u64 {
    let until = Instant::now() + time;
    let mut times = 0;
    while Instant::now() < until {
        work();
        times += 1;
    }
    times
}

/// Touches 64 pages that were not there.
fn fault() {
    const BYTES: usize = 64 << 12;
    // SAFETY: a new mapping of the kernel's choice, written within its bounds and taken away again; nothing refers to it after.
    unsafe {
        let pages = libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(pages, libc::MAP_FAILED);
        libc::madvise(pages, BYTES, libc::MADV_NOHUGEPAGE);
        for page in 0..64 {
            std::ptr::write_volatile(pages.cast::<u8>().add(page << 12), 1);
        }
        libc::munmap(pages, BYTES);
    }
}

#[test]
fn root_a_busy_slot_refuses_and_counts_and_is_free_again() {
    if !have_root("root_a_busy_slot_refuses_and_counts_and_is_free_again") {
        return;
    }
    let _alone = alone();
    let mut sampler = sampler(&["cpu-clock", "page-faults@64"]);
    sampler.hold(0, true);
    sampler.follow_cpus(&online_cpus().unwrap()).unwrap();
    work(TIME, fault);
    let [clock, faults] = sampler.counters()[..] else { panic!("two sources") };
    assert!(clock[Counter::Busy] > 100 && clock[Counter::Samples] == 0, "{clock:?}");
    assert!(faults[Counter::Busy] == 0 && faults[Counter::Samples] > 100, "{faults:?}");
    sampler.hold(0, false);
    work(TIME, fault);
    let after = sampler.counters()[0];
    assert!(after[Counter::Samples] > 100, "{after:?}");
    assert!(after[Counter::Busy] <= clock[Counter::Busy] + 2, "released after each sample: {after:?}");
}

#[test]
fn root_a_flood_of_page_faults_loses_no_tick_of_the_clock() {
    if !have_root("root_a_flood_of_page_faults_loses_no_tick_of_the_clock") {
        return;
    }
    let _alone = alone();
    let mut sampler = sampler(&["cpu-clock", "page-faults@1"]);
    let mut rings = sampler.rings().unwrap();
    sampler.follow_cpus(&online_cpus().unwrap()).unwrap();
    let begun = cpu_time();
    let mut clock = 0.0;
    let pid = std::process::id();
    for _ in 0..10 {
        work(Duration::from_millis(200), fault);
        for sample in rings[0].take().unwrap().samples().filter(|sample| sample.head.pid == pid) {
            assert_eq!(sample.head.source, 0);
            clock += sample.head.value as f64;
        }
    }
    // Not in time for a ring that is full long before.
    let values: u64 = rings[1].take().unwrap().samples().map(|sample| sample.head.value).sum();
    let used = (cpu_time() - begun).as_nanos() as f64;
    sampler.stop();
    let [ticks, faults] = sampler.counters()[..] else { panic!("two sources") };
    println!("{clock} ns sampled of {used} ns used; {ticks:?}; {faults:?}");
    assert!(values > 5_000 && faults[Counter::RingFull] > 0, "a flood: {faults:?}");
    // Whether the kernel runs the clock's program within another one, or that one takes its sample, differs from kernel to kernel.
    assert_eq!(ticks[Counter::RingFull], 0, "{ticks:?}");
    assert!(ticks[Counter::Refused] * 100 <= ticks[Counter::Samples], "{ticks:?}");
    let noise = 0.05 + 3.0 / (used / 1e9 * 997.0).sqrt();
    assert!((clock / used - 1.0).abs() < noise, "{clock} ns sampled of {used} ns used");
}

/// Of this process.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists, and `time` is ours to be written.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn root_every_fault_is_counted() {
    if !have_root("root_every_fault_is_counted") {
        return;
    }
    let _alone = alone();
    for (source, every) in [("page-faults@1", 1), ("minor-faults@16", 16)] {
        let right = |counted| counted + 64 * every >= 6400 && counted < 6400 + 3000;
        let counted = least(right, || {
            let mut sampler = sampler(&[source]);
            let mut rings = sampler.rings().unwrap();
            sampler.follow_cpus(&online_cpus().unwrap()).unwrap();
            (0..100).for_each(|_| fault());
            sampler.stop();
            let batch = rings[0].take().unwrap();
            assert_eq!(sampler.counters()[0][Counter::RingFull], 0);
            let own = batch.samples().filter(|sample| sample.head.pid == std::process::id());
            own.map(|sample| sample.head.value).sum()
        });
        assert!(right(counted), "{source}: {counted} of 6400");
    }
}

#[test]
fn root_a_tracepoint_is_counted_hit_by_hit() {
    if !have_root("root_a_tracepoint_is_counted_hit_by_hit") {
        return;
    }
    let _alone = alone();
    for (source, exact) in [("@1", true), ("@10", true), ("@200Hz", false)] {
        let text = format!("tracepoint:raw_syscalls:sys_enter{source}");
        if let Err(error) = crate::perf::probe(&Source::parse(&text, 1).unwrap()) {
            assert!(!have("root_a_tracepoint_is_counted_hit_by_hit", false, &format!("tracefs ({error})")));
            return;
        }
        let mut sampler = sampler(&[&text]);
        let mut rings = sampler.rings().unwrap();
        sampler.follow_cpus(&online_cpus().unwrap()).unwrap();
        let calls = work(Duration::from_millis(300), || {
            // SAFETY: a call without arguments.
            (0..100).for_each(|_| assert!(unsafe { libc::syscall(libc::SYS_getppid) } >= 0));
        }) * 100;
        sampler.stop();
        let counters = sampler.counters()[0];
        let mut samples = 0;
        let mut counted = 0;
        for sample in rings[0].take().unwrap().samples() {
            samples += 1;
            counted += sample.head.value;
        }
        println!("{source}: {calls} calls, {counted} counted in {samples} samples; {counters:?}");
        if exact {
            let seen = counters[Counter::Samples] + counters[Counter::RingFull];
            let every = if source == "@1" { 1 } else { 10 };
            assert!(seen * every + 40 >= calls && seen * every < calls + calls / 50 + 500, "{seen} of {calls}");
        } else {
            // All but what came after the last sample, at most 4 gaps on each CPU.
            assert!(counted as f64 > calls as f64 * 0.9 && (counted as f64) < calls as f64 * 1.02 + 500.0);
            assert!((20..400).contains(&samples), "{samples} samples of 0.3 s at 200 Hz");
        }
    }
}

#[test]
fn root_events_a_second_stand_for_all_events() {
    if !have_root("root_events_a_second_stand_for_all_events") {
        return;
    }
    let _alone = alone();
    // In thousandths of the faults that there were.
    let right = |share: u64| (900..1100).contains(&share);
    let share = least(right, || {
        let mut sampler = sampler(&["page-faults@500Hz"]);
        let mut rings = sampler.rings().unwrap();
        sampler.follow_cpus(&online_cpus().unwrap()).unwrap();
        let faults = work(Duration::from_secs(2), fault) * 64;
        sampler.stop();
        let batch = rings[0].take().unwrap();
        let counted: u64 = batch.samples().map(|sample| sample.head.value).sum();
        println!("{faults} faults, {counted} counted in {} samples", batch.len());
        assert!(batch.len() < 6000, "{} samples", batch.len());
        counted * 1000 / faults
    });
    assert!(right(share), "{share} of 1000");
}

#[test]
fn what_cannot_be_sampled_is_told_before_anything_is_loaded() {
    let load = |sources: Vec<Source>| {
        let options = Options { sources, targets: Targets::All, ring_bytes: 0, btf: None, without_task_pt_regs: false };
        Sampler::load(options).map(drop).unwrap_err().to_string()
    };
    let source = |text: &str| Source::parse(text, 99).unwrap();
    assert!(load(Vec::new()).contains("1 to 8"));
    assert!(load((0..9).map(|at| source(&format!("r{at}"))).collect()).contains("9 events"));
    assert!(load(vec![source("page-faults"), source("page-faults@1")]).contains("given twice"));
    assert!(load(vec![source("cpu-clock@1000000000Hz")]).contains("perf_event_max_sample_rate"));
    let missing = crate::perf::probe(&source("tracepoint:none:such")).unwrap_err().to_string();
    assert!(missing.contains("mount -t tracefs") || missing.contains("available_events"), "{missing}");
}
