//! The score of any configuration on the Numenta Anomaly Benchmark (Lavin and Ahmad 2015, github.com/numenta/NAB), by its standard profile.
//!
//! usage: cargo run --release -p profiler-detectors --example nab -- NAB [DETECTOR[,KEY=VALUE...]]...
//!
//! NAB is a folder with `data` and `labels` of a checkout. A detection is the beginning of an event. Scores are NAB's: each window gives up to 1,
//! the earlier in it the more, once; a detection outside of all costs up to 0.11, less right after a window; a window without one costs
//! 1; 0 is a detector that tells nothing and 100 a perfect one. NAB chooses each detector's threshold on all of its series; so may you.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use profiler_detectors::{Config, Detector, Kind, Observation, SECOND};

const FALSE_POSITIVE: f64 = 0.11;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, detectors @ ..] = arguments.as_slice() else {
        return Err("usage: nab NAB [DETECTOR[,KEY=VALUE...]]...".into());
    };
    let folder = Path::new(folder);
    let windows: BTreeMap<String, Vec<[String; 2]>> =
        serde_json::from_slice(&fs::read(folder.join("labels/combined_windows.json"))?)?;
    for text in detectors {
        let config: Config = text.parse()?;
        let (mut score, mut count, mut hit, mut strays) = (0.0, 0.0, 0, 0);
        for (name, windows) in &windows {
            let rows = rows(&fs::read_to_string(folder.join("data").join(name))?)
                .ok_or_else(|| format!("{name}: no series"))?;
            let windows: Option<Vec<[u64; 2]>> = windows.iter().map(|[a, b]| Some([time(a)?, time(b)?])).collect();
            let windows = windows.ok_or_else(|| format!("{name}: no windows"))?;
            let found = judge(&rows, &windows, &detections(&config, &rows));
            score += found.0;
            hit += found.1;
            strays += found.2;
            count += windows.len() as f64;
        }
        // A detector that tells nothing has -1 for each window.
        let normalized = 100.0 * (score + count) / (2.0 * count);
        println!("{text}: score {normalized:.1}; {hit} of {count} windows, {strays} detections outside");
    }
    Ok(())
}

/// Rows at which an event begins, after the probation that NAB gives.
fn detections(config: &Config, rows: &[(u64, f64)]) -> Vec<usize> {
    let probation = (0.15 * rows.len().min(5_000) as f64) as usize;
    let mut detector = Detector::new(config).expect("a right configuration");
    let told = rows.iter().enumerate().filter_map(|(row, (time, value))| {
        let observation = Observation::measured(*time, *value, 0.0).ok()?;
        let event = detector.observe(&observation).ok()?.event?;
        (event.kind == Kind::Changed && row >= probation).then_some(row)
    });
    told.collect()
}

/// Score, windows that were hit, and detections outside of all.
fn judge(rows: &[(u64, f64)], windows: &[[u64; 2]], detections: &[usize]) -> (f64, usize, usize) {
    let row_of = |time: u64| rows.partition_point(|(at, _)| *at < time);
    let windows: Vec<[usize; 2]> = windows.iter().map(|[begin, end]| [row_of(*begin), row_of(*end)]).collect();
    let (mut score, mut strays) = (0.0, 0);
    let mut best = vec![None; windows.len()];
    for row in detections {
        if let Some(window) = windows.iter().position(|[begin, end]| (*begin..=*end).contains(row)) {
            // The first in a window is the one that counts.
            let [begin, end] = windows[window];
            let place = (*row as f64 - end as f64 - 1.0) / (end - begin + 1) as f64;
            best[window].get_or_insert(sigmoid(place) / sigmoid(-1.0));
            continue;
        }
        strays += 1;
        let before = windows.iter().rfind(|[_, end]| end < row);
        let cost = before.map_or(-1.0, |[begin, end]| sigmoid((row - end) as f64 / (end - begin).max(1) as f64));
        score += FALSE_POSITIVE * cost;
    }
    let hit = best.iter().flatten().count();
    score += best.iter().map(|found| found.unwrap_or(-1.0)).sum::<f64>();
    (score, hit, strays)
}

/// NAB's scaled sigmoid: 1 well before the end of a window, 0 at it, -1 well after it.
fn sigmoid(place: f64) -> f64 {
    if place > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * place).exp()) - 1.0 }
}

/// `timestamp,value`, the first line left out.
fn rows(text: &str) -> Option<Vec<(u64, f64)>> {
    text.lines()
        .skip(1)
        .map(|line| {
            let (at, value) = line.split_once(',')?;
            Some((time(at)?, value.trim().parse().ok()?))
        })
        .collect()
}

/// `2014-04-01 00:00:00[.000000]`, ns since the Unix epoch.
fn time(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let second = number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
    // Days by the calendar, from March, so that leap days come last.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day - 1;
    Some((days.checked_sub(719_468)? * 86_400 + second) * SECOND)
}
