//! What must hold on every kernel.

mod clock;
mod privilege;

use std::fs;

use profiler_integration::rows::{Row, is_function, rows, total};
use profiler_integration::shares::group_of;
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{Verdict, verdict};
use profiler_model::FrameKind;

use crate::loaded::Loaded;
use crate::table::Column;
use crate::transcript::{Step, Steps};

/// Of the stacks of each program, so many must be complete, with the callers that the program knows.
const COMPLETE: f64 = 0.99;
/// Of the ticks that are due by a program's CPU time, so many must be there: whenever the host does not run an emulated CPU, the guest
/// loses ticks and accounts the time all the same. A busy host of half the speed left 79 %. What native recordings count is the
/// integration tests' to judge.
pub(crate) const TICKS: f64 = 0.5;
/// As `guest/steps` has it.
const DEPTH: usize = 900;
/// The steps that record a program, and at how many Hz.
const PROGRAMS: &[(&str, u32)] =
    &[("c", 199), ("cpp", 199), ("rust", 199), ("syscalls", 199), ("depth", 99), ("go", 199)];
/// The ceiling of what the verifier walks through in any program, a twentieth of its limit of a million.
const MAX_INSTRUCTIONS: u32 = 50_000;

/// What `steps` show of a kernel; it stops at the first assertion that fails.
#[must_use]
pub fn judge(name: &str, version: &str, steps: &Steps) -> Column {
    let mut column = Column { name: name.into(), version: version.into(), ..Column::default() };
    column.failure = assertions(&mut column, steps).err();
    column
}

/// What `steps` show of an arm64 kernel, on which guest/arm64/walk.c judges: a line for each thing that it proved.
#[must_use]
pub fn judge_arm64(name: &str, version: &str, steps: &Steps) -> Column {
    let mut column = Column { name: name.into(), version: format!("{version} (arm64)"), ..Column::default() };
    column.failure = arm64(&mut column, steps).err();
    column
}

fn arm64(column: &mut Column, steps: &Steps) -> Result<(), String> {
    let walk = step(steps, "walk")?;
    for (feature, found) in walk.stdout.lines().filter_map(|line| line.split_once('\t')) {
        column.fact(feature.to_owned(), found);
    }
    require(walk.status == 0, || walk.stderr.lines().last().unwrap_or("no word of why").to_owned())
}

fn assertions(column: &mut Column, steps: &Steps) -> Result<(), String> {
    let release = step(steps, "kernel")?.stdout.trim().to_owned();
    let doctor = step(steps, "doctor")?;
    require(doctor.status == 0, || format!("`profiler doctor` says:\n{}", doctor.stdout))?;
    column.fact("Loads", "yes");
    programs(column, steps, &release)?;

    let (mut samples, mut complete, mut all) = (0, 0, 0);
    let mut deep = 0;
    for &(name, hertz) in PROGRAMS {
        let (rows, mut truth) = recorded(steps, name)?;
        // Attached to, and its scheduler, which works between the groups on their threads, is slow in an emulator.
        if name != "go" {
            ticks(name, &rows, &truth, hertz)?;
        }
        truth.is_partial = true;
        let found = verdict(&rows, &truth, hertz, COMPLETE, |_| false);
        samples += found.samples;
        complete += found.completeness.complete;
        all += found.completeness.complete + found.completeness.incomplete;
        // Shares alone are off by more than three sigma once in some hundred runs, by noise.
        require(found.problems.is_empty() || found.is_noise_perhaps() && shares_are_near(&truth, &found), || {
            format!("{name}: {}\n  {}", found.summary(), found.problems.join("\n  "))
        })?;
        match name {
            "syscalls" => in_the_kernel(&rows)?,
            "depth" => deep = depth(&rows, &truth)?,
            _ => {}
        }
    }
    column.fact("Samples of C, C++, Rust, Go", samples.to_string());
    column.fact("Complete stacks", format!("{:.2} %", complete as f64 * 100.0 / all as f64));
    column.fact("Recursion of 900", format!("{deep} frames"));
    rate(column, steps)?;
    hotplug(steps)?;
    column.fact("CPU off and on", "followed");
    clock::assertions(column, steps)?;
    privilege::assertions(column, steps)?;
    steps.died.as_ref().map_or(Ok(()), |at| Err(format!("the guest died at {at}")))
}

/// What the verifier walked through, and where registers come from in a system call: by what the loaded program calls.
fn programs(column: &mut Column, steps: &Steps, release: &str) -> Result<(), String> {
    let step = step(steps, "loaded")?;
    require(step.status == 0, || format!("loaded: {}", step.stderr))?;
    let programs: Vec<Loaded> = step.stdout.lines().filter_map(Loaded::parse).collect();
    let sampling = programs.iter().find(|program| program.name == "sample_cpu");
    let sampling = sampling.ok_or_else(|| format!("loaded: no sample_cpu in {}", step.stdout))?;

    let count = |program: &Loaded| program.verified.map_or_else(|| "not told".into(), |count| count.to_string());
    let counts: Vec<String> = programs.iter().map(|program| format!("{} {}", program.name, count(program))).collect();
    for program in &programs {
        require(program.verified.is_none_or(|count| count <= MAX_INSTRUCTIONS), || {
            format!("the verifier walks through more than {MAX_INSTRUCTIONS} instructions: {}", counts.join(", "))
        })?;
    }
    // The kernel tells from 5.16 on.
    let told = sampling.verified.is_some() == (version(release) >= (5, 16));
    require(told, || format!("Linux {release} has {} instructions for its programs", counts.join(", ")))?;
    column
        .fact("Verifier instructions", if sampling.verified.is_some() { counts.join(", ") } else { "not told".into() });

    let by_helper = sampling.helpers.contains("bpf_task_pt_regs");
    let by_arithmetic = sampling.helpers.contains("bpf_probe_read_kernel");
    require(by_helper == (version(release) >= (5, 15)) && by_helper != by_arithmetic, || {
        format!("on Linux {release} sample_cpu calls {:?}", sampling.helpers)
    })?;
    column
        .fact("User registers in system calls", if by_helper { "bpf_task_pt_regs" } else { "top of the kernel stack" });
    Ok(())
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A change of rate while a program is recorded, which kernel-check makes and judges.
fn rate(column: &mut Column, steps: &Steps) -> Result<(), String> {
    let step = step(steps, "rate")?;
    require(step.status == 0, || format!("rate: {}", step.stderr))?;
    column.fact("99 Hz to 9 and back, live", step.stdout.trim());
    Ok(())
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn step<'a>(steps: &'a Steps, name: &str) -> Result<&'a Step, String> {
    let died = steps.died.as_deref().unwrap_or("nothing");
    steps.steps.get(name).ok_or_else(|| format!("{name} did not run: the guest died at {died}"))
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
    profiler_formats::pprof::decode(&bytes).map(|profile| rows(&profile)).map_err(|error| format!("{name}: {error}"))
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

/// Time in the kernel is shown with the kernel's own functions, and the user's below them, in `rows` of `c/syscalls`.
///
/// # Errors
/// Less than four samples in five do.
pub fn in_the_kernel(rows: &[Row]) -> Result<(), String> {
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

/// `rows` of a program, recorded at `hertz`, are no more than are due and not far fewer.
fn ticks(name: &str, rows: &[Row], truth: &Truth, hertz: u32) -> Result<(), String> {
    let (samples, due) = (total(rows), truth.cpu_ns as f64 * f64::from(hertz) / 1e9);
    let groups: Vec<&str> = truth.shares.keys().map(String::as_str).collect();
    let in_groups = total(rows.iter().filter(|row| group_of(row, &groups).is_some()));
    require(samples as f64 >= due * TICKS && in_groups as f64 <= due * 1.05 + 3.0, || {
        format!("{name}: {samples} samples, {in_groups} of them in the groups, where {due:.0} are due")
    })
}

/// A program that ran on a CPU which had been away was sampled there.
fn hotplug(steps: &Steps) -> Result<(), String> {
    let (rows, truth) = recorded(steps, "cpus")?;
    ticks("cpus", &rows, &truth, 99)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare() {
        assert_eq!(version("5.10.0-46-cloud-amd64"), (5, 10));
        assert_eq!(version("7.2.13+deb14-cloud-amd64"), (7, 2));
        assert!(version("5.4.0") < version("5.15"));
    }

    #[test]
    fn a_guest_that_died_is_named() {
        let steps = Steps { died: Some("boot".into()), ..Steps::default() };
        let column = judge("5.10", "5.10.1", &steps);
        assert!(column.failure.is_some_and(|failure| failure.contains("boot")));
    }
}
