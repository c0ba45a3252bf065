//! False events and delays of any configuration, over as many simulated weeks and trials as are asked for: how the defaults were chosen.
//!
//! usage: cargo run --release -p profiler-detectors --example bars -- SAMPLES-A-SECOND WEEKS TRIALS [DETECTOR[,KEY=VALUE...]]...

#[path = "../tests/it/simulation.rs"]
mod simulation;

use profiler_detectors::{Config, METHODS};
use simulation::{Change, Service, delays, false_events, quantile};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [total, weeks, trials, detectors @ ..] = arguments.as_slice() else {
        return Err("usage: bars SAMPLES-A-SECOND WEEKS TRIALS [DETECTOR[,KEY=VALUE...]]...".into());
    };
    let (total, weeks, trials): (u64, f64, u64) = (total.parse()?, weeks.parse()?, trials.parse()?);
    let detectors = if detectors.is_empty() { METHODS.map(str::to_owned).to_vec() } else { detectors.to_vec() };
    let service = Service::zipf(200);
    for text in detectors {
        let config: Config = text.parse()?;
        let events = false_events(&config, &service, total, (weeks * 604_800.0) as u64, 1);
        print!("{text}: {} false events in {weeks} weeks of {total} samples/s", events.len());
        for (before, after, patience) in [(0.05, 0.10, 120), (0.01, 0.03, 300)] {
            let change = Change { before, after, total, steady: 900 };
            if trials == 0 {
                continue;
            }
            let found = delays(&config, change, trials, patience, 7);
            let [half, most] = [0.5, 0.99].map(|share| quantile(&found, share));
            print!("; {before} to {after}: p50 {half} s, p99 {most} s");
        }
        println!();
        for (function, event) in events.iter().take(10) {
            let (from, to, at) = (event.from.value, event.to.value, event.time / 1_000_000_000);
            println!("    function {function}, second {at}: {from:.5} to {to:.5}");
        }
    }
    Ok(())
}
