//! A change of rate while a program runs: counts and weights before, between and after, against the CPU time that the kernel
//! accounts to the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_bpf::{Counter, Options, SampleRing, Sampler, Source, Targets, online_cpus};
use profiler_unwinders::process::Clock;

use crate::error::Error;
use crate::favour;
use crate::judge::TICKS;

/// Rates and for how long each, in CPU time of the program.
const PHASES: [(u64, Duration); 3] =
    [(99, Duration::from_millis(2000)), (9, Duration::from_millis(4000)), (99, Duration::from_millis(2000))];
/// Between two looks at the ring, which holds copies of stacks.
const STEP: Duration = Duration::from_millis(20);
/// Patience with all phases.
const PATIENCE: Duration = Duration::from_secs(120);

/// A sample as it matters here.
#[derive(Clone, Copy, Debug)]
struct Tick {
    time: u64,
    period: u64,
}

/// What the program used at one rate.
#[derive(Clone, Copy, Debug)]
struct Phase {
    hertz: u64,
    /// `CLOCK_MONOTONIC`, ns: after the rate was set, and before the next was.
    from: u64,
    until: u64,
    cpu_ns: u64,
}

/// Samples `program` at 99 Hz, at 9 Hz and at 99 Hz again, with the same events, and checks what came of it. Returns a line of figures.
///
/// # Errors
/// Something is not as promised.
pub fn change_live(program: &Path) -> Result<String, Error> {
    let total: Duration = PHASES.iter().map(|(_, lasts)| *lasts).sum();
    let ms = (total + Duration::from_secs(2)).as_millis().to_string();
    // A tick meets a program that shares its CPU only by chance; this one is to have a CPU for itself.
    let running = favour::start(Command::new(program).args(["--ms", &ms]))?;
    let pid = running.pid();
    let mut sampler = Sampler::load(Options {
        sources: vec![Source::cpu_clock(PHASES[0].0)],
        targets: Targets::Processes(vec![pid]),
        ring_bytes: 1 << 24,
        btf: None,
        without_task_pt_regs: false,
    })?;
    let Some(mut ring) = sampler.rings()?.pop() else { return Err(Error::Rate("there is no ring".into())) };
    let mut ticks = Vec::new();
    let until = Instant::now() + PATIENCE;
    sampler.follow_cpus(&online_cpus()?)?;
    let events = events()?;
    let mut phases = Vec::new();
    for (hertz, lasts) in PHASES {
        sampler.set_frequency(hertz)?;
        let (from, start) = (Clock::monotonic_now(), cpu_time(pid)?);
        let mut cpu_ns = 0;
        while u128::from(cpu_ns) < lasts.as_nanos() && Instant::now() < until {
            sleep(STEP);
            drain(&mut ring, pid, &mut ticks)?;
            cpu_ns = cpu_time(pid)?.saturating_sub(start);
        }
        phases.push(Phase { hertz, from, until: Clock::monotonic_now(), cpu_ns });
    }
    let after = self::events()?;
    sampler.stop();
    drain(&mut ring, pid, &mut ticks)?;
    if events.is_empty() || events != after {
        return Err(Error::Rate(format!("events were opened anew: {events:?}, then {after:?}")));
    }
    let lost = sampler.counters();
    if lost.iter().any(|counters| counters[Counter::RingFull] > 0) {
        return Err(Error::Rate(format!("samples were lost: {lost:?}")));
    }
    drop(running);
    check(&phases, &ticks).map_err(Error::Rate)
}

/// The line of figures, or what is wrong.
fn check(phases: &[Phase], ticks: &[Tick]) -> Result<String, String> {
    let mut counts = Vec::new();
    let (mut weighed, mut used) = (0, 0);
    for phase in phases {
        let period = 1_000_000_000 / phase.hertz;
        let own: Vec<&Tick> = ticks.iter().filter(|tick| (phase.from..phase.until).contains(&tick.time)).collect();
        if let Some(wrong) = own.iter().find(|tick| tick.period != period) {
            return Err(format!("a sample at {} Hz weighs {} ns instead of {period}", phase.hertz, wrong.period));
        }
        // A change begins a new period, and an emulated CPU loses ticks.
        let due = phase.cpu_ns as f64 / period as f64;
        let count = own.len() as f64;
        if count < due * TICKS - 3.0 || count > due * 1.05 + 3.0 {
            return Err(format!(
                "{count} samples at {} Hz in {} ms of CPU time",
                phase.hertz,
                phase.cpu_ns / 1_000_000
            ));
        }
        counts.push(format!("{count}"));
        weighed += own.iter().map(|tick| tick.period).sum::<u64>();
        used += phase.cpu_ns;
    }
    let ratio = weighed as f64 / used as f64;
    if !(TICKS..=1.1).contains(&ratio) {
        return Err(format!("the samples weigh {weighed} ns where {used} ns were used"));
    }
    Ok(format!("{} samples, weighing {:.1} % of the CPU time", counts.join(" + "), ratio * 100.0))
}

fn drain(ring: &mut SampleRing, pid: u32, ticks: &mut Vec<Tick>) -> Result<(), Error> {
    let batch = ring.take()?;
    let own = batch.samples().filter(|sample| sample.head.pid == pid);
    ticks.extend(own.map(|sample| Tick { time: sample.head.time, period: sample.head.value }));
    Ok(())
}

/// CPU time of the program's only thread, ns, as the scheduler accounts it.
fn cpu_time(pid: u32) -> Result<u64, Error> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let ended = || Error::Rate("the program ended early".into());
    text.split_ascii_whitespace().next().and_then(|ns| ns.parse().ok()).ok_or_else(ended)
}

/// This process's perf events and BPF links: descriptors, and ids where the kernel tells (from 5.15 on).
fn events() -> Result<BTreeSet<String>, Error> {
    let folder = Path::new("/proc/self/fd");
    let mut events = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(Error::file("read", folder))? {
        let entry = entry.map_err(Error::file("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let target = fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
        if target.contains("perf_event") || target.contains("bpf_link") || target.contains("bpf-link") {
            let told = fs::read_to_string(format!("/proc/self/fdinfo/{name}")).unwrap_or_default();
            let id = told.lines().find(|line| line.starts_with("link_id")).unwrap_or_default().to_owned();
            events.insert(format!("{name} {target} {id}"));
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(hertz: u64, from: u64) -> (Phase, Vec<Tick>) {
        let period = 1_000_000_000 / hertz;
        let phase = Phase { hertz, from, until: from + 2_000_000_000, cpu_ns: 2_000_000_000 };
        (phase, (1..hertz * 2).map(|n| Tick { time: from + n * period, period }).collect())
    }

    #[test]
    fn what_is_promised_passes_and_what_is_not_does_not() {
        let ((fast, mut ticks), (slow, slow_ticks)) = (phase(99, 0), phase(9, 3_000_000_000));
        ticks.extend(slow_ticks);
        assert!(check(&[fast, slow], &ticks).is_ok_and(|line| line.contains("197 + 17 samples")));
        let heavy: Vec<Tick> = ticks.iter().map(|tick| Tick { period: 1_000_000_000 / 99, ..*tick }).collect();
        assert!(check(&[fast, slow], &heavy).is_err_and(|error| error.contains("weighs")));
        assert!(check(&[fast, slow], &ticks[120..]).is_err_and(|error| error.contains("77 samples")));
    }
}
