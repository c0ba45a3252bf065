//! What the kernel half uses: bytes of its maps, run time of its programs.

use std::collections::BTreeMap;
use std::fs;

use super::parse::value;
use super::read;

/// Maps and programs that this process holds, read from `/proc/self/fdinfo`. It takes about 7 us a descriptor: not for every
/// second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BpfUse {
    /// Bytes by kind of map (`array`, `hash`, `ringbuf`, ...), as the kernel charges them.
    pub maps: BTreeMap<&'static str, u64>,
    /// Time that the programs ran, ns; stands still while the kernel counts none.
    pub run_time_ns: u64,
    /// How often they ran while the kernel counted.
    pub runs: u64,
}

impl BpfUse {
    /// Looks at all descriptors of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let folder = fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten();
        Self::of(folder.filter_map(|entry| read(&entry.path().to_string_lossy())))
    }

    /// Bytes of all maps.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        self.maps.values().fold(0, |sum, &bytes| sum.saturating_add(bytes))
    }

    fn of(files: impl Iterator<Item = String>) -> Self {
        let mut sum = Self::default();
        // A map or program may be open more than once.
        let (mut maps, mut programs) = (Vec::new(), Vec::new());
        for file in files {
            let number = |key| value(&file, key)?.parse::<u64>().ok();
            // An owner's own number comes last where the kernel tells two (a program in a prog array).
            if let Some(id) = number("map_id") {
                if !maps.contains(&id) {
                    maps.push(id);
                    let bytes = sum.maps.entry(map_kind(number("map_type").unwrap_or_default())).or_default();
                    *bytes = bytes.saturating_add(number("memlock").unwrap_or_default());
                }
            } else if let Some(id) = number("prog_id")
                // Links name their program too.
                && number("prog_type").is_some()
                && !programs.contains(&id)
            {
                programs.push(id);
                sum.run_time_ns = sum.run_time_ns.saturating_add(number("run_time_ns").unwrap_or_default());
                sum.runs = sum.runs.saturating_add(number("run_cnt").unwrap_or_default());
            }
        }
        sum
    }
}

/// `enum bpf_map_type` of `linux/bpf.h`, as far as the kernel half uses it.
const fn map_kind(kind: u64) -> &'static str {
    match kind {
        1 => "hash",
        2 => "array",
        4 => "perf_event_array",
        5 => "percpu_hash",
        6 => "percpu_array",
        8 => "cgroup_array",
        9 => "lru_hash",
        11 => "lpm_trie",
        12 => "array_of_maps",
        13 => "hash_of_maps",
        27 => "ringbuf",
        _ => "other",
    }
}

/// Assumed before anything was measured, ns a run: a sample of some 35 frames with an ordinary share of cache misses.
const ASSUMED_RUN_NS: f64 = 4_000.0;

/// CPU time of the kernel half since the start.
///
/// The kernel counts run times only while somebody asks for it, since counting costs each run of each BPF program of the host
/// about 70 ns. So it is asked for a moment now and then (`profiler_bpf::RunTime`); in between each run is taken to last as long
/// as the measured ones did.
#[derive(Clone, Debug, Default)]
pub struct BpfTime {
    last: BpfUse,
    last_runs: u64,
    seconds: f64,
    /// The most that was told: time only grows, also where an estimate was too high.
    told: f64,
}

impl BpfTime {
    /// Nothing has run yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// CPU time up to now, s. `runs` is how often the sampling program ran since the start, as known without the kernel's
    /// counting: samples kept, lost and left out.
    pub fn observe(&mut self, now: &BpfUse, runs: u64) -> f64 {
        let measured_ns = grown(self.last.run_time_ns, now.run_time_ns);
        let measured_runs = grown(self.last.runs, now.runs);
        let others = grown(self.last_runs, runs).saturating_sub(measured_runs);
        self.seconds += (measured_ns as f64 + others as f64 * mean_ns(now)) / 1e9;
        (self.last, self.last_runs) = (now.clone(), runs);
        self.tell(self.seconds)
    }

    /// The same between two looks at what the kernel counted: `runs` since the last one took as long as those before.
    pub fn estimate(&mut self, runs: u64) -> f64 {
        self.tell(self.seconds + grown(self.last_runs, runs) as f64 * mean_ns(&self.last) / 1e9)
    }

    fn tell(&mut self, seconds: f64) -> f64 {
        self.told = self.told.max(seconds);
        self.told
    }

    /// Whether any run has been measured; until then the time is an assumption.
    #[must_use]
    pub const fn is_measured(&self) -> bool {
        self.last.runs > 0
    }
}

/// What a run takes on average, ns.
fn mean_ns(used: &BpfUse) -> f64 {
    if used.runs == 0 { ASSUMED_RUN_NS } else { used.run_time_ns as f64 / used.runs as f64 }
}

/// How much a count grew; one that is smaller than before began anew.
const fn grown(last: u64, now: u64) -> u64 {
    if now >= last { now - last } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(run_time_ns: u64, runs: u64) -> BpfUse {
        BpfUse { run_time_ns, runs, ..BpfUse::default() }
    }

    #[test]
    fn descriptors_of_one_map_count_once() {
        let array = "pos:\t0\nmap_type:\t2\nkey_size:\t4\nmemlock:\t4096\nmap_id:\t7\nfrozen:\t0\n";
        let ring = "pos:\t0\nmap_type:\t27\nmemlock:\t8192\nmap_id:\t8\n";
        let program = "pos:\t0\nprog_type:\t7\nmemlock:\t12288\nprog_id:\t3\nrun_time_ns:\t500\nrun_cnt:\t5\n";
        let link = "pos:\t0\nlink_type:\tperf\nlink_id:\t1\nprog_tag:\tabc\nprog_id:\t4\n";
        let files = [array, array, ring, program, program, link, "pos:\t0\nflags:\t02\n", "memlock:\tx\nmap_id:\t9\n"];
        let sum = BpfUse::of(files.into_iter().map(str::to_owned));
        assert_eq!(sum.maps, BTreeMap::from([("array", 4096), ("ringbuf", 8192), ("other", 0)]));
        assert_eq!((sum.map_bytes(), sum.run_time_ns, sum.runs), (12_288, 500, 5));
    }

    #[test]
    fn what_is_measured_stands_for_what_is_not() {
        let mut time = BpfTime::new();
        // Nothing measured: assumed.
        assert!((time.observe(&used(0, 0), 1000) - 0.004).abs() < 1e-12);
        assert!(!time.is_measured());
        // 100 runs at 2 us measured, 50 more before the kernel counted.
        assert!((time.observe(&used(200_000, 100), 1150) - 0.0043).abs() < 1e-12);
        assert!(time.is_measured());
        // None counted: the mean holds.
        assert!((time.observe(&used(200_000, 100), 1650) - 0.0053).abs() < 1e-12);
        // All counted.
        assert!((time.observe(&used(1_200_000, 600), 2150) - 0.0063).abs() < 1e-12);
    }

    #[test]
    fn between_two_looks_time_goes_on_with_the_runs() {
        let mut time = BpfTime::new();
        assert!((time.observe(&used(200_000, 100), 100) - 0.0002).abs() < 1e-12);
        // A second each, at the mean of 2 us.
        assert!((time.estimate(200) - 0.0004).abs() < 1e-12);
        assert!((time.estimate(300) - 0.0006).abs() < 1e-12);
        // They took half as long: it does not go back, and is right again when it has caught up.
        assert!((time.observe(&used(400_000, 300), 300) - 0.0006).abs() < 1e-12);
        assert!((time.observe(&used(900_000, 800), 800) - 0.0009).abs() < 1e-12);
    }

    #[test]
    fn programs_that_are_loaded_anew_begin_at_0() {
        let mut time = BpfTime::new();
        let first = time.observe(&used(10_000, 10), 10);
        let second = time.observe(&used(2_000, 2), 2);
        assert!((first - 10e-6).abs() < 1e-12 && (second - 12e-6).abs() < 1e-12, "{first} {second}");
    }
}
