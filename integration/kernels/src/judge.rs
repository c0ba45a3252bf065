//! What must hold on every kernel.

use std::fs;

use profiler_integration::rows::{Row, is_function, rows, total};
use profiler_integration::shares::group_of;
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{Verdict, verdict};
use profiler_otlp::model::FrameKind;

use crate::table::Line;
use crate::transcript::{Step, Steps};

/// Of the stacks of each program, so many must be complete, with the callers that the program knows.
const COMPLETE: f64 = 0.99;
/// As `guest/init` has it.
const DEPTH: usize = 900;
/// The steps that record a program, and at how many Hz.
const PROGRAMS: &[(&str, u32)] = &[("c", 199), ("cpp", 199), ("syscalls", 199), ("depth", 99), ("go", 199)];
/// The ceiling of what the verifier walks through, a twentieth of its limit of a million.
const MAX_INSTRUCTIONS: u64 = 50_000;

/// The row of a kernel; it stops at the first assertion that fails.
pub fn judge(name: &str, version: &str, steps: &Steps) -> Line {
    let mut line = Line { name: name.into(), version: version.into(), ..Line::default() };
    line.failure = assertions(&mut line, steps).err();
    line
}

fn assertions(line: &mut Line, steps: &Steps) -> Result<(), String> {
    let doctor = step(steps, "doctor")?;
    require(doctor.status == 0, || format!("`profiler doctor` says:\n{}", doctor.stdout))?;
    line.loads = true;
    let kernel = doctor.stdout.lines().find(|line| line.contains(" kernel ")).unwrap_or_default();
    line.registers = kernel.rsplit_once(": ").map_or("", |(_, registers)| registers).to_owned();

    let loaded = step(steps, "instructions")?;
    line.instructions = verified_instructions(&loaded.stdout);
    require(line.instructions.is_none_or(|count| count <= MAX_INSTRUCTIONS), || {
        format!("the verifier walks through {:?} instructions, more than {MAX_INSTRUCTIONS}", line.instructions)
    })?;

    for &(name, hertz) in PROGRAMS {
        let (rows, mut truth) = recorded(steps, name)?;
        // Attached to, and its scheduler, which works between the groups on their threads, is slow in an emulator.
        truth.is_partial = name == "go";
        let found = verdict(&rows, &truth, hertz, COMPLETE, |_| false);
        line.samples += found.samples;
        line.complete.0 += found.completeness.complete;
        line.complete.1 += found.completeness.complete + found.completeness.incomplete;
        // Shares alone are off by more than three sigma once in some hundred runs, by noise.
        require(found.problems.is_empty() || found.is_noise_perhaps() && shares_are_near(&truth, &found), || {
            format!("{name}: {}\n  {}", found.summary(), found.problems.join("\n  "))
        })?;
        match name {
            "syscalls" => in_the_kernel(&rows)?,
            "depth" => line.depth = Some(depth(&rows, &truth)?),
            _ => {}
        }
    }
    hotplug(steps)?;
    line.hotplug = true;
    line.paranoid = paranoid(steps)?;
    steps.died.as_ref().map_or(Ok(()), |at| Err(format!("the guest died at {at}")))
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn step<'a>(steps: &'a Steps, name: &str) -> Result<&'a Step, String> {
    let died = steps.died.as_deref().unwrap_or("nothing");
    steps.steps.get(name).ok_or_else(|| format!("{name} did not run: the guest died at {died}"))
}

/// The most instructions of any program that the profiler's descriptors stand for.
fn verified_instructions(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().filter_map(|line| line.strip_prefix("verified_insns:")?.trim().parse().ok()).max()
}

/// The rows of the program that step `name` recorded, and what the program says.
fn recorded(steps: &Steps, name: &str) -> Result<(Vec<Row>, Truth), String> {
    let step = step(steps, name)?;
    require(step.status == 0, || format!("{name}: recording ended with {}: {}", step.status, step.stderr))?;
    let truth = Truth::find(name, &step.stdout).map_err(|error| error.to_string())?;
    let own = all_rows(step, name)?.into_iter().filter(|row| row.pid == truth.pid_on_host()).collect();
    Ok((own, truth))
}

fn all_rows(step: &Step, name: &str) -> Result<Vec<Row>, String> {
    let path = step.profile.as_ref().ok_or_else(|| format!("{name}: no profile was written: {}", step.stderr))?;
    let bytes = fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    profiler_otlp::pprof::decode(&bytes).map(|profile| rows(&profile)).map_err(|error| format!("{name}: {error}"))
}

/// True if every share is within five sigma. The matrix looks at some hundred shares, so that three are met by noise alone.
fn shares_are_near(truth: &Truth, found: &Verdict) -> bool {
    truth.shares.iter().all(|(group, &ns)| {
        let expected = ns as f64 / truth.shares.values().sum::<u64>() as f64;
        let seen = found.counts.get(group).copied().unwrap_or(0) as f64 / found.in_groups as f64;
        let sigma = (expected * (1.0 - expected) / found.in_groups as f64).sqrt();
        (seen - expected).abs() <= 5.0 * sigma + 1.0 / found.in_groups as f64
    })
}

/// Time in the kernel is shown with the kernel's own functions, and the user's below them.
fn in_the_kernel(rows: &[Row]) -> Result<(), String> {
    let reading = |row: &&Row| group_of(row, &["read_zeros"]).is_some();
    let in_kernel = |row: &&Row| {
        row.frames.first().is_some_and(|frame| frame.kind == FrameKind::Kernel && !frame.functions.is_empty())
    };
    let all = total(rows.iter().filter(reading));
    let inside = total(rows.iter().filter(reading).filter(in_kernel));
    require(inside * 10 > all * 8, || {
        format!("syscalls: {inside} of {all} samples of read_zeros show a named kernel stack")
    })
}

/// The recursion's frames, where all but one stack in a hundred show them all.
fn depth(rows: &[Row], truth: &Truth) -> Result<usize, String> {
    let groups: Vec<&str> = truth.shares.keys().map(String::as_str).collect();
    let frames = |row: &Row| {
        row.user_frames().flat_map(|frame| &frame.functions).filter(|name| is_function(name, "descend")).count()
    };
    let inside = || rows.iter().filter(|row| group_of(row, &groups).is_some());
    let (whole, all) = (total(inside().filter(|row| frames(row) == DEPTH)), total(inside()));
    let problem = || format!("depth: {whole} of {all} stacks show {DEPTH} frames of the recursion");
    require(all > 100 && whole as f64 >= all as f64 * COMPLETE, problem)?;
    Ok(DEPTH)
}

/// A program that ran on a CPU which had been away was sampled there.
fn hotplug(steps: &Steps) -> Result<(), String> {
    let (rows, truth) = recorded(steps, "cpus")?;
    let (samples, due) = (total(&rows), truth.cpu_ns as f64 * 99.0 / 1e9);
    require(samples as f64 >= due * 0.9, || {
        format!("cpus: {samples} samples where {due:.0} are due on the CPU that came back")
    })
}

/// Without CAP_SYS_ADMIN at paranoid 2 and 3: recorded, or refused in words that name the way out.
fn paranoid(steps: &Steps) -> Result<[&'static str; 2], String> {
    let mut results = [""; 2];
    for (result, name) in results.iter_mut().zip(["paranoid2", "paranoid3"]) {
        let step = step(steps, name)?;
        *result = if step.status == 0 {
            let samples = total(&all_rows(step, name)?);
            require(samples > 20, || format!("{name}: {samples} samples"))?;
            "records"
        } else {
            let says = ["kernel.perf_event_paranoid is 3", "CAP_SYS_ADMIN", "sysctl kernel.perf_event_paranoid=2"];
            require(name == "paranoid3" && says.iter().all(|words| step.stderr.contains(words)), || {
                format!("{name}: refused with {}, in these words: {}", step.status, step.stderr)
            })?;
            "refused, told why"
        };
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_program_counts() {
        let fdinfo = "prog_type:\t7\nverified_insns:\t10748\npos:\t0\nverified_insns:\t12\n";
        assert_eq!(verified_instructions(fdinfo), Some(10748));
        assert_eq!(verified_instructions("prog_type:\t7\n"), None);
    }

    #[test]
    fn a_guest_that_died_is_named() {
        let steps = Steps { died: Some("boot".into()), ..Steps::default() };
        let line = judge("5.10", "5.10.1", &steps);
        assert!(line.failure.is_some_and(|failure| failure.contains("boot")));
    }
}
