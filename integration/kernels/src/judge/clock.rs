//! The agent while the wall clock is stepped: nothing is lost, and every window is told at a time that the clock showed.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use profiler_integration::rows::{Row, rows};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::verdict;
use profiler_model::{Profile, Profiles};

use super::{require, shares_are_near, step, ticks};
use crate::table::Column;
use crate::transcript::{Step, Steps};

/// As `guest/steps` has it, Hz.
const HERTZ: u32 = 199;
/// A window of 1 s, and far more than an emulated agent is late with its end; a step of the clock is an hour.
const LONGEST_NS: u64 = 30_000_000_000;
/// The shell tells whole seconds, of a moment before or after.
const SLACK_NS: u64 = 10_000_000_000;

/// Of the stacks, so many must be complete. What is judged here is times; an agent that has just begun is late with the tables of a new
/// program in an emulator, a second and more on a slow host.
const WHOLE: f64 = 0.7;

/// What the clock showed between two steps, ns since the Unix epoch.
type Era = RangeInclusive<u64>;

pub(super) fn assertions(column: &mut Column, steps: &Steps) -> Result<(), String> {
    let step = step(steps, "clock")?;
    let found = if step.stdout.contains("not ours to set") { "not tried".to_owned() } else { judged(step)? };
    column.fact("Clock 1 h on and 2 h back under the agent", found);
    Ok(())
}

fn judged(step: &Step) -> Result<String, String> {
    require(step.status == 0, || format!("clock: ended with {}: {}{}", step.status, step.stdout, step.stderr))?;
    let mut truth = Truth::find("clock", &step.stdout).map_err(|error| error.to_string())?;
    let windows = windows(&step.folder.join("windows"))?;
    let parts: Vec<Profile> = windows.iter().flat_map(|window| window.profiles.clone()).collect();
    let counts = times(&parts, &eras(&step.stdout)?)?;

    let all: u64 = windows.iter().map(|window| window.sample_entries() as u64).sum();
    let counted = counted(&step.stderr).ok_or_else(|| format!("clock: the agent did not end well: {}", step.stderr))?;
    require(all == counted, || format!("clock: {all} samples in the files where the agent counts {counted}"))?;

    let own: Vec<Row> = windows.iter().flat_map(rows).filter(|row| row.pid == truth.pid_on_host()).collect();
    ticks("clock", &own, &truth, HERTZ)?;
    truth.is_partial = true;
    let found = verdict(&own, &truth, HERTZ, WHOLE, |_| false);
    require(found.problems.is_empty() || found.is_noise_perhaps() && shares_are_near(&truth, &found), || {
        format!("clock: {}\n  {}", found.summary(), found.problems.join("\n  "))
    })?;
    let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
    Ok(format!("{} windows, all {all} samples", counts.join(" + ")))
}

fn windows(folder: &Path) -> Result<Vec<Profiles>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("clock: {}: {error}", folder.display());
    let mut windows = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(&error))? {
        let path = entry.map_err(|error| failed(&error))?.path();
        let bytes = fs::read(&path).map_err(|error| failed(&error))?;
        windows.push(profiler_formats::otlp::decode(&bytes).map_err(|error| failed(&error))?);
    }
    Ok(windows)
}

/// Lines `clock FROM TO`, s.
fn eras(stdout: &str) -> Result<Vec<Era>, String> {
    let second = |word: &str| word.parse::<u64>().ok()?.checked_mul(1_000_000_000);
    let era = |line: &str| {
        let (from, to) = line.strip_prefix("clock ")?.split_once(' ')?;
        Some(second(from)?.saturating_sub(SLACK_NS)..=second(to)?.saturating_add(SLACK_NS))
    };
    let eras: Vec<Era> = stdout.lines().filter_map(era).collect();
    require(eras.len() == 3, || format!("clock: the guest tells no three times: {stdout}"))?;
    Ok(eras)
}

/// The number of `windows` in each of `eras`, or what is wrong with their times.
fn times(windows: &[Profile], eras: &[Era]) -> Result<Vec<usize>, String> {
    let mut counts = vec![0; eras.len()];
    for window in windows {
        let (start, duration) = (window.start_unix_nanos, window.duration_nanos);
        require(duration <= LONGEST_NS, || format!("clock: a window at {start} ns lasts {duration} ns"))?;
        let end = start.checked_add(duration).ok_or("clock: a window has no end")?;
        // A window is told by the clock at its end.
        let era = eras.iter().position(|era| era.contains(&end));
        let era =
            era.ok_or_else(|| format!("clock: a window ends at {end} ns, where the clock showed only {eras:?}"))?;
        counts[era] += 1;
        let stray = window
            .samples
            .iter()
            .find(|sample| sample.time_unix_nanos.is_none_or(|time| !(start..end).contains(&time)));
        require(stray.is_none(), || format!("clock: a sample at {stray:?} is not within {start}..{end} ns"))?;
    }
    // There is work all the time.
    require(counts.iter().all(|&count| count > 0), || format!("clock: {counts:?} windows in the times {eras:?}"))?;
    Ok(counts)
}

/// What the agent says at its end that it sampled.
fn counted(log: &str) -> Option<u64> {
    let line = log.lines().find(|line| line.contains("The agent has ended"))?;
    let (_, rest) = line.split_once("samples=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use profiler_model::Sample;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const TOLD: &str = "clock 7200 7203\nclock 10803 10806\n{\"x\": 1}\nclock 3606 3609\n";

    fn window(start: u64, seconds: u64) -> Profile {
        let sample = Sample { time_unix_nanos: Some(start * SECOND), ..Sample::default() };
        Profile {
            start_unix_nanos: start * SECOND,
            duration_nanos: seconds * SECOND,
            samples: vec![sample],
            ..Profile::default()
        }
    }

    #[test]
    fn windows_belong_to_what_the_clock_showed() {
        let eras = eras(TOLD).unwrap();
        let good = [window(7200, 2), window(10_801, 1), window(10_804, 1), window(3604, 2)];
        assert_eq!(times(&good, &eras), Ok(vec![1, 2, 1]));
        let problem = |wrong: Profile| times(&[&good[..], &[wrong]].concat(), &eras).unwrap_err();
        assert!(problem(window(7200, 3602)).contains("lasts"), "stretched by a step");
        assert!(problem(window(7300, 1)).contains("ends at"), "still by the clock from before the step");
        assert!(problem(Profile { duration_nanos: 0, ..window(7201, 1) }).contains("not within"));
        assert!(times(&good[1..], &eras).unwrap_err().contains("[0, 2, 1] windows"));
        assert!(super::eras("clock 1 2\n").is_err());
    }

    #[test]
    fn the_agents_last_words_are_understood() {
        assert_eq!(counted("INFO x\nINFO profiler::agent: The agent has ended. samples=1234\n"), Some(1234));
        assert_eq!(counted("ERROR samples=1\n"), None);
    }
}
