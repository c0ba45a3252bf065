//! All series and their detectors, within one budget of memory.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use profiler_detectors::{Bank, BankCounts, Config, Detector, MAX_NAME, Observation, SECOND, SeriesEvent};
use rustc_hash::FxHashMap;

/// What a service takes beside the series of its functions, bytes: names, and entries of maps.
const ENTRY: usize = 1_024;
/// A service makes room for another one only if it has had no sample for so long, ns.
const IDLE: u64 = 600 * SECOND;
/// A series begins with so many samples in one tick, ...
const FEWEST: u64 = 2;
/// ... if they are at least one in so many: half of the smallest change that is told by default.
const LEAST: u64 = 200;

/// What a series is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Host,
    Service,
    Process,
    Cgroup,
    Function,
    Pressure,
}

impl Level {
    pub const ALL: [Self; 6] = [Self::Host, Self::Service, Self::Process, Self::Cgroup, Self::Function, Self::Pressure];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Service => "service",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Function => "function",
            Self::Pressure => "pressure",
        }
    }
}

/// An event, and what its series is of.
#[derive(Clone, Debug)]
pub struct Told {
    pub level: Level,
    /// Of a function: its service.
    pub service: Option<Arc<str>>,
    pub event: SeriesEvent,
}

/// The series.
pub struct Watch {
    configs: Vec<Config>,
    pressure: Vec<Config>,
    budget: usize,
    /// Bytes of all of them, at most.
    used: usize,
    /// What a service takes without series, bytes.
    base: usize,
    banks: BTreeMap<Level, Bank>,
    functions: HashMap<Arc<str>, Functions>,
    /// Of services that are gone.
    past: BankCounts,
    /// Observations of functions whose service there was no room for.
    no_room: u64,
}

/// The functions of a service.
struct Functions {
    bank: Bank,
    /// Of its last sample, ns since the Unix epoch.
    latest: u64,
}

impl Watch {
    /// No series yet. Those of `pressure` have detectors of their own. The configurations are validated.
    pub fn new(configs: &[Config], pressure: &[Config], budget: usize) -> Self {
        Self {
            configs: configs.to_vec(),
            pressure: pressure.to_vec(),
            budget,
            used: 0,
            base: ENTRY + configs.iter().map(Detector::most_bytes).sum::<usize>(),
            banks: BTreeMap::new(),
            functions: HashMap::new(),
            past: BankCounts::default(),
            no_room: 0,
        }
    }

    /// Takes the samples of a period that ended at `time`, of `total` that could be, by name.
    pub fn shares(&mut self, level: Level, time: u64, total: u64, of: &FxHashMap<Arc<str>, u64>) -> Vec<Told> {
        let room = self.room();
        let Some(bank) = self.bank(level) else { return Vec::new() };
        let before = bank.bytes();
        let events = observe(bank, room, (time, total), of, level == Level::Host);
        let after = bank.bytes();
        self.used = self.used - before + after;
        events.into_iter().map(|event| Told { level, service: None, event }).collect()
    }

    /// Takes an observation that is no share of samples.
    pub fn value(&mut self, level: Level, name: &str, observation: &Observation) -> Vec<Told> {
        let room = self.room();
        let Some(bank) = self.bank(level) else { return Vec::new() };
        let before = bank.bytes();
        bank.set_budget(before + room);
        let events = bank.observe(name, observation);
        let after = bank.bytes();
        self.used = self.used - before + after;
        events.into_iter().map(|event| Told { level, service: None, event }).collect()
    }

    /// Takes the samples of the functions of `service`: of `total`, by name.
    pub fn functions(&mut self, service: &Arc<str>, time: u64, total: u64, of: &FxHashMap<Arc<str>, u64>) -> Vec<Told> {
        if self.configs.is_empty() || total == 0 {
            return Vec::new();
        }
        if !self.functions.contains_key(service) && !self.add(service, time) {
            self.no_room += 1;
            return Vec::new();
        }
        let room = self.room();
        let Some(functions) = self.functions.get_mut(service) else { return Vec::new() };
        functions.latest = time;
        let before = functions.bank.bytes();
        let events = observe(&mut functions.bank, room, (time, total), of, false);
        self.used = self.used - before + functions.bank.bytes();
        let told = |event| Told { level: Level::Function, service: Some(Arc::clone(service)), event };
        events.into_iter().map(told).collect()
    }

    fn bank(&mut self, level: Level) -> Option<&mut Bank> {
        let configs = if level == Level::Pressure { &self.pressure } else { &self.configs };
        if configs.is_empty() {
            return None;
        }
        match self.banks.entry(level) {
            Entry::Occupied(bank) => Some(bank.into_mut()),
            Entry::Vacant(place) => Some(place.insert(Bank::new(configs, 0).ok()?)),
        }
    }

    fn add(&mut self, service: &Arc<str>, time: u64) -> bool {
        while self.room() < self.base {
            let idle = self.functions.iter().min_by_key(|(_, functions)| functions.latest);
            let Some((victim, _)) = idle.filter(|(_, functions)| time.saturating_sub(functions.latest) >= IDLE) else {
                return false;
            };
            let victim = Arc::clone(victim);
            if let Some(gone) = self.functions.remove(&victim) {
                self.used -= gone.bank.bytes() + self.base;
                let counts = gone.bank.counts();
                self.past.evicted += counts.evicted + gone.bank.len() as u64;
                self.past.no_room += counts.no_room;
                self.past.unusable += counts.unusable;
            }
        }
        let Ok(bank) = Bank::new(&self.configs, 0) else { return false };
        self.used += self.base;
        self.functions.insert(Arc::clone(service), Functions { bank, latest: time });
        true
    }

    fn room(&self) -> usize {
        self.budget.saturating_sub(self.used)
    }

    /// Bytes of all series, at most.
    pub const fn bytes(&self) -> usize {
        self.used
    }

    /// Series by what they are of.
    pub fn series(&self) -> BTreeMap<&'static str, u64> {
        let mut series: BTreeMap<&'static str, u64> = Level::ALL.map(|level| (level.name(), 0)).into();
        for (level, bank) in &self.banks {
            series.insert(level.name(), bank.len() as u64);
        }
        let functions: usize = self.functions.values().map(|functions| functions.bank.len()).sum();
        series.insert(Level::Function.name(), functions as u64);
        series
    }

    /// What could not be looked at, by reason.
    pub fn skipped(&self) -> BTreeMap<&'static str, u64> {
        let banks = self.banks.values().chain(self.functions.values().map(|functions| &functions.bank));
        let mut sum = self.past;
        for counts in banks.map(Bank::counts) {
            sum.evicted += counts.evicted;
            sum.no_room += counts.no_room;
            sum.unusable += counts.unusable;
        }
        [
            ("no room for the series", sum.no_room + self.no_room),
            ("idle series made room", sum.evicted),
            ("time or kind of another series", sum.unusable),
        ]
        .into()
    }

    /// Each bank with its level, its service and what it remembers, as lines of JSON.
    pub fn keep(&self) -> Vec<(Level, Option<Arc<str>>, Vec<u8>)> {
        let banks = self.banks.iter().map(|(level, bank)| (*level, None, bank));
        let functions = self.functions.iter();
        let functions = functions.map(|(service, of)| (Level::Function, Some(Arc::clone(service)), &of.bank));
        let kept = banks.chain(functions).filter(|(_, _, bank)| !bank.is_empty());
        kept.filter_map(|(level, service, bank)| Some((level, service, bank.keep().ok()?))).collect()
    }

    /// Goes on with a bank of [`Self::keep`], last used at `time`; why not, if not.
    pub fn restore(&mut self, level: Level, service: Option<&str>, time: u64, kept: &[u8]) -> Result<(), String> {
        let configs = if level == Level::Pressure { &self.pressure } else { &self.configs };
        let bank = Bank::restore(configs, self.room(), kept).map_err(|error| error.to_string())?;
        match service {
            Some(service) if level == Level::Function => {
                let bytes = bank.bytes() + self.base;
                if bytes > self.room() || self.functions.contains_key(cut(service)) {
                    return Err("there is no room for it".to_owned());
                }
                self.used += bytes;
                self.functions.insert(cut(service).into(), Functions { bank, latest: time });
            }
            None if level != Level::Function && !self.banks.contains_key(&level) => {
                self.used += bank.bytes();
                self.banks.insert(level, bank);
            }
            _ => return Err("it is of no service, or there twice".to_owned()),
        }
        Ok(())
    }
}

/// The name of a series, as much of it as is kept.
pub fn cut(name: &str) -> &str {
    const MOST: usize = MAX_NAME / 4;
    let end = (0..=MOST.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..end).unwrap_or_default()
}

/// Only what is large enough to matter begins a series: rare functions are many, and would have all the room.
fn observe(
    bank: &mut Bank,
    room: usize,
    (time, total): (u64, u64),
    of: &FxHashMap<Arc<str>, u64>,
    all: bool,
) -> Vec<SeriesEvent> {
    bank.set_budget(bank.bytes() + room);
    let mut counts: Vec<(&str, u64)> = Vec::with_capacity(of.len().min(1_024));
    for (name, count) in of {
        let is_large = *count >= FEWEST && count.saturating_mul(LEAST) >= total;
        if all || is_large || bank.contains(name) {
            counts.push((name, *count));
        }
    }
    // The largest come first where there is no room for all.
    counts.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
    bank.observe_shares(time, total, counts)
}

#[cfg(test)]
mod tests {
    use profiler_detectors::Kind;

    use super::*;

    fn counts(of: &[(&str, u64)]) -> FxHashMap<Arc<str>, u64> {
        of.iter().map(|(name, count)| (Arc::from(*name), *count)).collect()
    }

    #[test]
    fn a_function_of_one_service_that_doubles_is_told_with_its_service() {
        let mut watch = Watch::new(&[Config::default()], &[], 1 << 20);
        let (shop, other): (Arc<str>, Arc<str>) = ("shop".into(), "other".into());
        let mut told = Vec::new();
        for second in 1..400_u64 {
            let hot = if second < 300 { 20 } else { 40 };
            let time = second * SECOND;
            told.extend(watch.functions(&shop, time, 400, &counts(&[("hot", hot), ("cold", 400 - hot)])));
            told.extend(watch.functions(&other, time, 100, &counts(&[("hot", 5), ("main", 95)])));
            told.extend(watch.shares(Level::Service, time, 800, &counts(&[("shop", 400), ("other", 100)])));
        }
        let [event] = told.as_slice() else { panic!("{told:#?}") };
        assert_eq!(
            (event.level, event.service.as_deref(), &*event.event.series),
            (Level::Function, Some("shop"), "hot")
        );
        assert_eq!(event.event.event.kind, Kind::Changed);
        assert!(event.event.event.time <= 310 * SECOND, "{event:?}");
    }

    #[test]
    fn memory_is_bounded_and_the_large_are_looked_at() {
        for name in profiler_detectors::METHODS {
            let config = Config::new(name).expect("a method");
            let budget = 40 * (Detector::most_bytes(&config) + ENTRY);
            let mut watch = Watch::new(&[config], &[], budget);
            for tick in 1..50_u64 {
                for service in 0..30 {
                    // The nth function has a sample more than the one before: 50 of them, of 1,275 samples.
                    let of: Vec<(String, u64)> = (1..=50).map(|n| (format!("{n} of {service}"), n)).collect();
                    let of: Vec<(&str, u64)> = of.iter().map(|(name, count)| (name.as_str(), *count)).collect();
                    let service: Arc<str> = format!("service {service}").into();
                    let _ = watch.functions(&service, tick * SECOND, 1_275, &counts(&of));
                    assert!(watch.bytes() <= budget, "{name}: {} of {budget}", watch.bytes());
                }
            }
            assert!(watch.series()["function"] >= 5, "{name}: {:?}", watch.series());
            assert!(watch.functions[&Arc::from("service 0")].bank.contains("50 of 0"), "{name}");
            assert!(watch.skipped()["no room for the series"] > 0, "{name}");
            // Another one takes the place of what is idle.
            let late = (50 * SECOND) + IDLE;
            let _ = watch.functions(&"late".into(), late, 100, &counts(&[("f", 50)]));
            assert!(watch.functions.contains_key("late") && watch.bytes() <= budget, "{name}");
        }
    }

    #[test]
    fn what_is_rare_begins_no_series() {
        let mut watch = Watch::new(&[Config::default()], &[], 1 << 20);
        let service: Arc<str> = "s".into();
        for second in 1..100_u64 {
            let rare = format!("rare {second}");
            let _ = watch.functions(&service, second * SECOND, 1_000, &counts(&[(&rare, 4), ("main", 996)]));
        }
        assert_eq!(watch.series()["function"], 1);
    }

    #[test]
    fn what_is_normal_goes_on_after_a_restart() {
        let config = Config::default();
        let shop: Arc<str> = "shop".into();
        let observe = |watch: &mut Watch, second: u64, hot: u64| {
            let of = counts(&[("hot", hot), ("cold", 400 - hot)]);
            let mut told = watch.functions(&shop, second * SECOND, 400, &of);
            told.extend(watch.shares(Level::Service, second * SECOND, 800, &counts(&[("shop", 400)])));
            told
        };
        let mut before = Watch::new(std::slice::from_ref(&config), &[], 1 << 20);
        (1..200).for_each(|second| assert!(observe(&mut before, second, 20).is_empty()));
        let kept = before.keep();
        assert_eq!(kept.len(), 2);
        let mut after = Watch::new(std::slice::from_ref(&config), &[], 1 << 20);
        for (level, service, bytes) in &kept {
            after.restore(*level, service.as_deref(), 200 * SECOND, bytes).expect("its own");
        }
        assert_eq!(after.series(), before.series());
        // Told without another warm-up.
        let told: Vec<_> = (210..225).flat_map(|second| observe(&mut after, second, 40)).collect();
        assert!(told.iter().any(|told| &*told.event.series == "hot"), "{told:?}");
        let other = Watch::new(&[Config::new("ewma").expect("a method")], &[], 1 << 20);
        for (level, service, bytes) in &kept {
            let mut other = Watch::new(&other.configs, &[], 1 << 20);
            assert!(other.restore(*level, service.as_deref(), 0, bytes).is_err());
            assert!(other.restore(*level, service.as_deref(), 0, b"{").is_err());
        }
    }
}
