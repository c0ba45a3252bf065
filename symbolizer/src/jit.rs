//! Names of code that JITs make at run time: from perf maps (`/tmp/perf-PID.map`) and jitdumps (`jit-PID.dump`).
//!
//! Both are files that the process writes while it runs. They are read as far as they go at each lookup, kept while the process
//! is asked about, and read no further when it is gone; so what was read in its life survives it.

pub(crate) mod jitdump;
pub(crate) mod perf_map;
mod source;

use crate::{
    frame::{Language, Symbolized},
    symbolizer::Stats,
};
use jitdump::JitDump;
use perf_map::PerfMap;
use profiler_address::UserAddr;
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

/// Files that do not exist are looked for no more often than this.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Process {
    map: Option<(Source, PerfMap)>,
    dump: Option<(Source, JitDump)>,
    searched: Option<Instant>,
    refused: bool,
    used: u64,
}

/// The JIT tables of processes.
#[derive(Default)]
pub(crate) struct Jit {
    processes: FxHashMap<(u32, u64), Process>,
    clock: u64,
}

impl Jit {
    pub fn symbolize(&mut self, of: &JitProcess, addresses: &[(UserAddr, u64)], stats: &mut Stats) -> Vec<Symbolized> {
        let process = self.refreshed(of, stats);
        let look_up = |(address, time): &(UserAddr, u64)| {
            // A jitdump says more, and when; a perf map has what the JIT's stubs and interpreter are called.
            let frame = process.dump.as_ref().and_then(|(_, dump)| dump.find(address.0, *time));
            let frame = frame.or_else(|| process.map.as_ref().and_then(|(_, map)| map.find(address.0)));
            Symbolized { frames: frame.into_iter().collect(), language: Language::Jit, module: None }
        };
        addresses.iter().map(look_up).collect()
    }

    /// Reads what the process has written since.
    pub fn refresh(&mut self, of: &JitProcess, stats: &mut Stats) {
        self.refreshed(of, stats);
    }

    fn refreshed(&mut self, of: &JitProcess, stats: &mut Stats) -> &Process {
        self.clock += 1;
        let process = self.processes.entry((of.pid, of.start_time)).or_default();
        process.used = self.clock;
        if process.searched.is_none_or(|at| at.elapsed() > SEARCH_INTERVAL) {
            process.searched = Some(Instant::now());
            process.search(of, stats);
        }
        if let Some((source, map)) = &mut process.map {
            map.read(source);
        }
        if let Some((source, dump)) = &mut process.dump
            && dump.read(source).is_err()
        {
            stats.jit_refused += 1;
            process.dump = None;
            process.refused = true;
        }
        process
    }

    pub fn bytes(&self) -> u64 {
        self.processes.values().map(Process::bytes).sum()
    }

    /// Drops the process used longest ago, if there are several; says whether it did.
    pub fn drop_oldest(&mut self) -> bool {
        if self.processes.len() < 2 {
            return false;
        }
        let oldest = self.processes.iter().min_by_key(|(_, process)| process.used).map(|(key, _)| *key);
        oldest.is_some_and(|key| self.processes.remove(&key).is_some())
    }
}

impl Process {
    fn bytes(&self) -> u64 {
        let map = self.map.as_ref().map_or(0, |(_, map)| map.bytes());
        map + self.dump.as_ref().map_or(0, |(_, dump)| dump.bytes()) + 256
    }

    /// Finds the files, or finds that another has taken the place of the one that is being read.
    fn search(&mut self, of: &JitProcess, stats: &mut Stats) {
        match source::perf_map(of) {
            Ok(Some(source)) => {
                if self.map.as_ref().is_none_or(|(known, _)| !known.is(&source)) {
                    self.map = Some((source, PerfMap::default()));
                }
            }
            Ok(None) => {}
            Err(reason) => self.refuse(of, &reason, stats),
        }
        if self.dump.is_none() && !self.refused {
            match source::jit_dump(of) {
                Ok(source) => self.dump = source.map(|source| (source, JitDump::default())),
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
