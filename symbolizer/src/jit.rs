//! Names of code that JITs make at run time: from perf maps (`/tmp/perf-PID.map`) and jitdumps (`jit-PID.dump`).
//!
//! Both are files that the process writes while it runs. They are read as far as they go at each lookup, kept while the process
//! is asked about, and read no further when it is gone; so what was read in its life survives it, unless the file is emptied.

pub(crate) mod jitdump;
pub(crate) mod perf_map;
mod source;

use crate::{
    frame::{Language, Symbolized},
    symbolizer::Stats,
};
use jitdump::{JitDump, MAX_DEBUG_BYTES};
pub use perf_map::MapRead;
use perf_map::{PerfMap, Said};
use profiler_address::UserAddr;
use profiler_measure::Clock;
use rustc_hash::FxHashMap;
use source::Source;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// A process that has JIT code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitProcess {
    /// Process id in our namespace.
    pub pid: u32,
    /// When it started, in any unit: with the pid, the identity of the process.
    pub start_time: u64,
    /// Its root directory: `/proc/PID/root`.
    pub root: PathBuf,
    /// Its process id in its own (innermost) pid namespace, which is the one in the names of files it writes.
    pub namespace_pid: u32,
}

/// What an address in JIT code meant up to a time: addresses are used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Samples before this are of it (CLOCK_MONOTONIC, ns); the last one has `u64::MAX`.
    pub until: u64,
    /// What was there.
    pub symbolized: Symbolized,
}

/// Generations of one address that are told apart, the newest.
const MAX_GENERATIONS: usize = 64;
/// Perf maps kept that another file has since taken the place of.
const MAX_EARLIER: usize = 2;
/// Files that do not exist are looked for no more often than this.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// A process whose tables were dropped is not read anew before this.
const REST: Duration = Duration::from_secs(10);
/// After much was read no more is until as much time has passed as this many bytes a second take; a little is free.
const READ_RATE: u64 = 8 << 20;
const READ_FREE: u64 = 1 << 20;
/// Bytes that a record of a jitdump counts for.
const RECORD_COST: u64 = 64;
/// Most processes known.
const MAX_PROCESSES: usize = 4096;
/// Earlier meanings that are given at one call, over all addresses; past that, addresses have the last one only.
const MAX_GENERATIONS_A_CALL: usize = 64 << 10;

#[derive(Default)]
struct Process {
    map: Option<(Source, PerfMap)>,
    /// Perf maps before that one, the oldest first.
    earlier: Vec<(Source, PerfMap)>,
    dump: Option<(Source, JitDump)>,
    searched: Option<Instant>,
    /// When a jitdump was last looked for in vain, and how often: that takes a reading of all mappings.
    dump_searched: Option<(Instant, u32)>,
    /// How far another had read the perf map.
    resume: Option<MapRead>,
    refused: bool,
    /// Said that names were left out.
    told: bool,
    /// Nothing is read before this.
    rest_until: Option<Instant>,
    used: u64,
}

/// The JIT tables of processes.
pub(crate) struct Jit {
    /// For one file, bytes.
    budget: u64,
    processes: FxHashMap<(u32, u64), Process>,
    clock: u64,
}

impl Jit {
    /// Each file may take `budget` bytes.
    pub fn new(budget: u64) -> Self {
        Self { budget, processes: FxHashMap::default(), clock: 0 }
    }

    pub fn symbolize(&mut self, of: &JitProcess, addresses: &[(UserAddr, u64)], stats: &mut Stats) -> Vec<Symbolized> {
        let process = self.refreshed(of, stats);
        let mut lines_left = MAX_DEBUG_BYTES;
        addresses.iter().map(|(address, time)| process.symbolize(address.0, *time, &mut lines_left)).collect()
    }

    /// All that each address has meant, in the order of time.
    pub fn generations(&mut self, of: &JitProcess, addresses: &[UserAddr], stats: &mut Stats) -> Vec<Vec<Generation>> {
        let process = self.refreshed(of, stats);
        let mut lines_left = MAX_DEBUG_BYTES;
        let mut left = MAX_GENERATIONS_A_CALL;
        let of = |address: &UserAddr| {
            let (generations, tried) = process.generations(address.0, MAX_GENERATIONS.min(1 + left), &mut lines_left);
            left = left.saturating_sub(tried - 1);
            generations
        };
        addresses.iter().map(of).collect()
    }

    /// Reads what the process has written since.
    pub fn refresh(&mut self, of: &JitProcess, stats: &mut Stats) {
        self.refreshed(of, stats);
    }

    fn refreshed(&mut self, of: &JitProcess, stats: &mut Stats) -> &Process {
        self.clock += 1;
        let key = (of.pid, of.start_time);
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&key) {
            self.remove_oldest(|_| true);
        }
        let budget = self.budget;
        let process = self.processes.entry(key).or_default();
        process.used = self.clock;
        if process.rest_until.is_none_or(|until| Instant::now() >= until) {
            process.refresh(of, budget, stats);
        }
        process
    }

    /// Tells how far another had read the perf map of a process, which was not read here yet.
    pub fn resume(&mut self, of: &JitProcess, read: MapRead) {
        let key = (of.pid, of.start_time);
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&key) {
            self.remove_oldest(|_| true);
        }
        let process = self.processes.entry(key).or_default();
        if process.map.is_none() {
            process.resume.get_or_insert(read);
        }
    }

    /// How far the perf map of a process was read, here or by another.
    pub fn so_far(&self, of: &JitProcess) -> Option<MapRead> {
        self.processes.get(&(of.pid, of.start_time)).and_then(Process::so_far)
    }

    pub fn bytes(&self) -> u64 {
        self.processes.values().map(Process::bytes).sum()
    }

    /// Drops the tables of the process used longest ago, the last ones too; says whether there were any. They are not read anew
    /// at once: what is too much now will be too much then.
    pub fn drop_oldest(&mut self) -> bool {
        let with_tables = self.processes.values_mut().filter(|process| process.map.is_some() || process.dump.is_some());
        if let Some(process) = with_tables.min_by_key(|process| process.used) {
            process.resume = process.so_far();
            (process.map, process.dump, process.searched) = (None, None, None);
            process.dump_searched = None;
            process.earlier.clear();
            process.rest_until = Some(Instant::now() + REST);
            return true;
        }
        self.remove_oldest(|process| process.rest_until.is_none_or(|until| Instant::now() >= until))
    }

    fn remove_oldest(&mut self, may_go: impl Fn(&Process) -> bool) -> bool {
        let oldest = self.processes.iter().filter(|(_, process)| may_go(process)).min_by_key(|(_, p)| p.used);
        oldest.map(|(key, _)| *key).is_some_and(|key| self.processes.remove(&key).is_some())
    }
}

impl Process {
    fn so_far(&self) -> Option<MapRead> {
        let Some((source, map)) = &self.map else { return self.resume.clone() };
        let read = map.so_far(source.inode());
        // What earlier files said is known to this process alone.
        let lost = self.earlier.iter().map(|(_, map)| map.seen()).fold(read.lost, u64::max);
        Some(MapRead { lost, ..read })
    }

    fn symbolize(&self, address: u64, time: u64, lines_left: &mut u64) -> Symbolized {
        // A jitdump says more, and when; a perf map has what the JIT's stubs and interpreter are called.
        let dump = self.dump.as_ref().and_then(|(source, dump)| dump.find(source, address, time, lines_left));
        let earlier = self.earlier.iter().filter(|(_, map)| time < map.seen());
        let maps = earlier.chain(&self.map);
        // What an earlier map knows no more, a newer one does not know either.
        let said = || maps.map(|(source, map)| map.find(source, address, time)).find(|said| *said != Said::Nothing);
        let frame = dump.or_else(|| said().and_then(Said::frame));
        Symbolized { frames: frame.into_iter().collect(), language: Language::Jit, module: None }
    }

    /// The last `most` meanings at most, and how many times were looked at (1 or more).
    fn generations(&self, address: u64, most: usize, lines_left: &mut u64) -> (Vec<Generation>, usize) {
        let mut turns: Vec<u64> = self.dump.as_ref().map(|(_, dump)| dump.turns(address)).unwrap_or_default();
        turns.extend(self.earlier.iter().chain(&self.map).flat_map(|(_, map)| map.turns(address)));
        turns.extend(self.earlier.iter().map(|(_, map)| map.seen()));
        turns.push(u64::MAX);
        turns.sort_unstable();
        turns.dedup();
        let mut generations: Vec<Generation> = Vec::new();
        let turns = turns.split_off(turns.len().saturating_sub(most));
        let tried = turns.len();
        for until in turns {
            // At the last moment before the turn.
            let symbolized = self.symbolize(address, until.saturating_sub(1), lines_left);
            match generations.last_mut() {
                Some(last) if last.symbolized == symbolized => last.until = until,
                _ => generations.push(Generation { until, symbolized }),
            }
        }
        (generations, tried)
    }

    /// Reads what was written since.
    fn refresh(&mut self, of: &JitProcess, budget: u64, stats: &mut Stats) {
        if self.searched.is_none_or(|at| at.elapsed() > SEARCH_INTERVAL) {
            self.searched = Some(Instant::now());
            self.search(of, budget, stats);
        }
        let (mut read, mut left_out) = (0, 0);
        if let Some((source, map)) = &mut self.map {
            let before = map.left_out();
            read += map.read(source, Clock::monotonic_now());
            stats.jit_forgotten += u64::from(map.take_lost());
            left_out += map.left_out() - before;
        }
        if let Some((source, dump)) = &mut self.dump {
            let before = dump.left_out();
            match dump.read(source) {
                Ok(records) => {
                    read += records * RECORD_COST;
                    left_out += dump.left_out() - before;
                }
                Err(_) => {
                    stats.jit_refused += 1;
                    self.dump = None;
                    self.refused = true;
                }
            }
        }
        stats.jit_left_out += left_out;
        if left_out > 0 && !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                pid = of.pid,
                "The names of this process's JIT code take more memory than the budget has for them: the oldest are left out. Raise \
                 `limits.memory` to keep them."
            );
        }
        if read > READ_FREE {
            self.rest_until = Some(Instant::now() + Duration::from_millis(read.saturating_mul(1000) / READ_RATE));
        }
    }

    /// Drops the oldest of the earlier maps that are too many or too large; those that stay know what is not known any more.
    fn drop_earlier(&mut self, budget: u64, stats: &mut Stats) {
        while self.earlier.len() > MAX_EARLIER
            || self.earlier.iter().map(|(_, map)| map.bytes()).sum::<u64>() > budget / 2
        {
            let (_, gone) = self.earlier.remove(0);
            match (self.earlier.first_mut(), &mut self.map) {
                (Some((_, next)), _) => {
                    next.follow(gone);
                    next.compare();
                    stats.jit_forgotten += u64::from(next.take_lost());
                }
                // Compared when it is read.
                (None, Some((_, map))) => map.follow(gone),
                (None, None) => {}
            }
        }
    }

    fn bytes(&self) -> u64 {
        let maps: u64 = self.earlier.iter().chain(&self.map).map(|(_, map)| map.bytes()).sum();
        maps + self.dump.as_ref().map_or(0, |(_, dump)| dump.bytes()) + 256
    }

    /// Finds the files, or finds that another has taken the place of the one that is being read.
    fn search(&mut self, of: &JitProcess, budget: u64, stats: &mut Stats) {
        match source::perf_map(of) {
            Ok(Some(source)) => {
                if self.map.as_ref().is_none_or(|(known, _)| !known.is(&source)) {
                    let map = match self.resume.take() {
                        Some(read) => PerfMap::resumed(budget, &source, source.inode(), &read),
                        None => PerfMap::new(budget),
                    };
                    // The file that was there is still open: what it said of the time before stays true.
                    self.earlier.extend(self.map.replace((source, map)));
                    self.drop_earlier(budget, stats);
                }
            }
            Ok(None) => {}
            Err(reason) => self.refuse(of, &reason, stats),
        }
        // Those that write one map it when they start.
        let due = self.dump_searched.is_none_or(|(at, times)| at.elapsed() > SEARCH_INTERVAL * (1 << times.min(6)));
        if self.dump.is_none() && !self.refused && due {
            let times = self.dump_searched.map_or(0, |(_, times)| times + 1);
            self.dump_searched = Some((Instant::now(), times));
            match source::jit_dump(of) {
                Ok(source) => self.dump = source.map(|source| (source, JitDump::new(budget))),
                Err(reason) => self.refuse(of, &reason, stats),
            }
        }
    }

    /// Counts and tells once a process.
    fn refuse(&mut self, of: &JitProcess, reason: &std::io::Error, stats: &mut Stats) {
        if !self.refused {
            self.refused = true;
            stats.jit_refused += 1;
            tracing::debug!(pid = of.pid, %reason, "JIT symbols refused");
        }
    }
}
