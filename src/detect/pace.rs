//! Whether observations come so that anything can be told of them.

use std::time::Duration;

use profiler_detectors::{Config, keys};

/// How often the first of all series was observed, and at which distances.
#[derive(Debug, Default)]
pub struct Pace {
    series: Option<String>,
    count: u64,
    latest: u64,
    /// Distances, ns: as many as say which is usual.
    distances: Vec<u64>,
}

/// Distances that are kept.
const MAX_DISTANCES: usize = 1_000;

impl Pace {
    /// Takes an observation of `series` at `time`, ns since the Unix epoch.
    pub fn note(&mut self, series: &str, time: u64) {
        if self.series.get_or_insert_with(|| series.to_owned()) != series {
            return;
        }
        if self.count > 0 && self.distances.len() < MAX_DISTANCES {
            self.distances.push(time.saturating_sub(self.latest));
        }
        self.count += 1;
        self.latest = time;
    }

    /// Why detectors of `configs` could tell nothing, and the way out; none if they could.
    pub fn hint(&self, configs: &[Config]) -> Option<String> {
        let mut distances = self.distances.clone();
        distances.sort_unstable();
        let usual = distances.get(distances.len() / 2).copied().unwrap_or(0);
        let of = |config: &Config| {
            let (name, warm_up, gap) = (config.name(), u64::from(config.alarm.warm_up), config.gap);
            let pooled = if config.pool > 0 { config.pool.max(usual) / usual.max(1) } else { 1 };
            if usual > gap {
                let key = keys(config).into_iter().find(|key| key.name == "gap")?;
                let (usual, gap) = (Duration::from_nanos(usual), key.text(config));
                return Some(format!(
                    "{name} drops its evidence over a gap, and observations are {usual:?} apart: more than gap={gap}. Choose a \
                     longer one: -d {name},gap=..."
                ));
            }
            (self.count / pooled.max(1) <= warm_up).then(|| {
                format!(
                    "{name} learns from warm-up={warm_up} observations what is normal, and there are {} observations. Choose \
                     fewer: -d {name},warm-up=...",
                    self.count
                )
            })
        };
        configs.iter().find_map(of)
    }
}
