//! Detectors on many series, within a budget of memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError, SECOND};
use crate::detector::{Detector, State};
use crate::event::Event;
use crate::kept::{self, KeptError};
use crate::observation::Observation;

/// The longest name of a series, bytes.
pub const MAX_NAME: usize = 1_024;
/// What a series takes beside its detectors and twice its name: entries of two maps, bytes.
const ENTRY: usize = 256;
/// A series makes room for another one only when it has had no sample for so long, ns: those that come and go do not drive out those that
/// stay.
const IDLE: u64 = 600 * SECOND;

/// The detectors of many series; each series has one of every configuration.
///
/// A series comes with its first sample. Of shares it is known what was before: it was none of all samples, so that what is new and large
/// is told, too. Where there is no room, the series that has had no sample for longest goes, if that is ten minutes or more;
/// otherwise the new one is not taken. Both are counted.
#[derive(Debug)]
pub struct Bank {
    configs: Vec<Arc<Config>>,
    budget: usize,
    used: usize,
    series: HashMap<Arc<str>, Series>,
    /// By time of the last sample, then by age.
    order: BTreeMap<(u64, u64), Arc<str>>,
    added: u64,
    /// Detectors of a series that has had no sample yet.
    absent: Vec<Detector>,
    counts: BankCounts,
}

#[derive(Debug)]
struct Series {
    detectors: Vec<Detector>,
    place: (u64, u64),
}

/// What a [`Bank`] could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankCounts {
    /// Series that made room for others.
    pub evicted: u64,
    /// Observations of series that there was no room for, or whose name is too long.
    pub no_room: u64,
    /// Observations that were none: see [`Unusable`](crate::Unusable).
    pub unusable: u64,
}

/// An event, and the series that it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesEvent {
    /// The name of the series.
    pub series: Arc<str>,
    /// What happened to it.
    pub event: Event,
}

impl Bank {
    /// No series yet; they take at most `budget` bytes.
    ///
    /// # Errors
    /// A configuration is wrong.
    pub fn new(configs: &[Config], budget: usize) -> Result<Self, ConfigError> {
        configs.iter().try_for_each(Config::validate)?;
        let configs: Vec<Arc<Config>> = configs.iter().cloned().map(Arc::new).collect();
        let absent = configs.iter().cloned().map(Detector::of).collect();
        Ok(Self {
            configs,
            budget,
            used: 0,
            series: HashMap::new(),
            order: BTreeMap::new(),
            added: 0,
            absent,
            counts: BankCounts::default(),
        })
    }

    /// Series at present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is a series `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.series.contains_key(name)
    }

    /// From now on the series take at most `bytes`; those that are there stay until others need their place.
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// Whether there is no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Bytes that the series take, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.used
    }

    /// What it could not do.
    #[must_use]
    pub fn counts(&self) -> BankCounts {
        self.counts
    }

    /// Takes the samples of a period that ends at `time` (ns since the Unix epoch): of `total`, so many of each series. A series that is
    /// not named has none. A period without samples is a gap. Those that are named first have the room first.
    pub fn observe_shares<'a>(
        &mut self,
        time: u64,
        total: u64,
        shares: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Vec<SeriesEvent> {
        let mut events = Vec::new();
        let Ok(none) = Observation::share(time, 0, total) else { return events };
        // Each series once, whatever the caller says; in its order, since the first come first where there is no room for all.
        let mut of: HashMap<&str, u64> = HashMap::new();
        let mut order = Vec::new();
        for (name, count) in shares.into_iter().filter(|(_, count)| *count > 0) {
            let sum = of.entry(name).or_insert_with(|| {
                order.push(name);
                0
            });
            *sum = sum.saturating_add(count);
        }
        for name in order {
            let count = of.get(name).copied().unwrap_or_default();
            match Observation::share(time, count, total) {
                Ok(share) => self.observe_one(name, &share, &mut events),
                Err(_) => self.counts.unusable += 1,
            }
        }
        let counts = &mut self.counts;
        for (name, series) in self.series.iter_mut().filter(|(name, _)| !of.contains_key(&***name)) {
            observe_all(name, &mut series.detectors, &none, &mut events, counts);
        }
        for detector in &mut self.absent {
            // It has only ever seen none of all, and has nothing to tell.
            let _ = detector.observe(&none);
        }
        events.sort_by(|one, other| one.series.cmp(&other.series));
        events
    }

    /// Takes an observation of one series.
    pub fn observe(&mut self, name: &str, observation: &Observation) -> Vec<SeriesEvent> {
        let mut events = Vec::new();
        self.observe_one(name, observation, &mut events);
        events
    }

    fn observe_one(&mut self, name: &str, observation: &Observation, events: &mut Vec<SeriesEvent>) {
        if !self.series.contains_key(name) && !self.add(name, observation) {
            self.counts.no_room += 1;
            return;
        }
        let Some((known, series)) = self
            .series
            .get_key_value(name)
            .map(|(known, _)| known.clone())
            .and_then(|known| self.series.get_mut(name).map(|series| (known, series)))
        else {
            return;
        };
        observe_all(&known, &mut series.detectors, observation, events, &mut self.counts);
        self.order.remove(&series.place);
        series.place.0 = observation.time();
        self.order.insert(series.place, known);
    }

    fn add(&mut self, name: &str, observation: &Observation) -> bool {
        let is_share = observation.counts().is_some();
        let detectors =
            if is_share { self.absent.clone() } else { self.configs.iter().cloned().map(Detector::of).collect() };
        self.insert(name, detectors, observation.time())
    }

    fn insert(&mut self, name: &str, detectors: Vec<Detector>, time: u64) -> bool {
        let cost = self.cost(name);
        if name.len() > MAX_NAME || cost > self.budget {
            return false;
        }
        while self.used + cost > self.budget {
            let Some((&(last, _), _)) = self.order.first_key_value() else { return false };
            // A clock that was set back makes none of them idle.
            if time.saturating_sub(last) < IDLE {
                return false;
            }
            let Some((_, victim)) = self.order.pop_first() else { return false };
            self.series.remove(&victim);
            self.used -= self.cost(&victim);
            self.counts.evicted += 1;
        }
        let name: Arc<str> = name.into();
        let place = (time, self.added);
        self.added += 1;
        self.used += cost;
        self.order.insert(place, name.clone());
        self.series.insert(name, Series { detectors, place });
        true
    }

    fn cost(&self, name: &str) -> usize {
        ENTRY + name.len() + self.configs.iter().map(|config| Detector::most_bytes(config)).sum::<usize>()
    }

    /// All that it remembers, as JSON.
    ///
    /// # Errors
    /// None that can happen: its state is of plain numbers.
    pub fn keep(&self) -> Result<Vec<u8>, KeptError> {
        let states = |detectors: &[Detector]| detectors.iter().map(|detector| detector.state.clone()).collect();
        let series = self.order.iter().filter_map(|(place, name)| {
            Some(KeptSeries {
                name: name.to_string(),
                latest: place.0,
                states: states(&self.series.get(name)?.detectors),
            })
        });
        let kept = KeptBank {
            version: kept::version(),
            configs: self.configs.iter().map(|config| config.to_string()).collect(),
            counts: self.counts,
            absent: states(&self.absent),
            series: series.collect(),
        };
        Ok(serde_json::to_vec(&kept)?)
    }

    /// A bank that goes on where the one that [`keep`](Self::keep) was asked of has ended.
    ///
    /// # Errors
    /// `bytes` are no such state, of other configurations, or more than the budget has room for.
    pub fn restore(configs: &[Config], budget: usize, bytes: &[u8]) -> Result<Self, KeptError> {
        let mut bank = Self::new(configs, budget)?;
        // A number is 8 bytes in memory, and up to 25 in JSON; names of fields are longer than what is in them.
        kept::check_version(bytes, budget.saturating_mul(8).saturating_add(1 << 20))?;
        let kept: KeptBank = serde_json::from_slice(bytes)?;
        let now: Vec<String> = bank.configs.iter().map(|config| config.to_string()).collect();
        if kept.configs != now {
            let list = |configs: &[String]| configs.join("; ").chars().take(500).collect();
            return Err(KeptError::OtherConfig { kept: list(&kept.configs), now: list(&now) });
        }
        let revive = |name: Option<&str>, states: Vec<State>| {
            let impossible = || KeptError::Impossible(name.map(|name| name.chars().take(200).collect()));
            if states.len() != configs.len() {
                return Err(impossible());
            }
            let pairs = bank.configs.iter().cloned().zip(states);
            pairs.map(|(config, state)| Detector::with(config, state).ok_or_else(impossible)).collect()
        };
        let absent = revive(None, kept.absent)?;
        let mut all: Vec<(String, u64, Vec<Detector>)> = Vec::new();
        for series in kept.series {
            let detectors = revive(Some(&series.name), series.states)?;
            all.push((series.name, series.latest, detectors));
        }
        bank.absent = absent;
        for (name, latest, detectors) in all {
            if bank.series.contains_key(name.as_str()) || !bank.insert(&name, detectors, latest) {
                return Err(KeptError::Impossible(Some(name.chars().take(200).collect())));
            }
        }
        bank.counts = kept.counts;
        Ok(bank)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptBank {
    version: u32,
    configs: Vec<String>,
    counts: BankCounts,
    absent: Vec<State>,
    /// Those without a sample for longest first.
    series: Vec<KeptSeries>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptSeries {
    name: String,
    latest: u64,
    states: Vec<State>,
}

fn observe_all(
    name: &Arc<str>,
    detectors: &mut [Detector],
    observation: &Observation,
    events: &mut Vec<SeriesEvent>,
    counts: &mut BankCounts,
) {
    for detector in detectors {
        match detector.observe(observation) {
            Ok(judgement) => {
                events.extend(judgement.event.map(|event| SeriesEvent { series: name.clone(), event }));
            }
            Err(_) => counts.unusable += 1,
        }
    }
}
