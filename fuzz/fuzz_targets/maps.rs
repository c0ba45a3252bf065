//! `/proc/PID/maps` and the other texts of `/proc/PID`: whatever the bytes, they are read, counted or refused, and what comes out
//! of one buffer size comes out of every other.
#![no_main]

use std::io::BufReader;

use libfuzzer_sys::fuzz_target;
use profiler_unwinders::maps::{self, Keep, MappingSet};
use profiler_unwinders::process::procfs::Stat;
use profiler_unwinders::process::Cgroup;

fuzz_target!(|data: &[u8]| {
    let whole = maps::parse(data, Keep::All).expect("reading a slice does not fail");
    let pieces = maps::parse(BufReader::with_capacity(7, data), Keep::All).expect("reading a slice does not fail");
    assert_eq!(whole, pieces);
    assert!(whole.malformed <= whole.lines);
    let executable = maps::parse(data, Keep::Executable).expect("reading a slice does not fail");
    assert!(executable.mappings.len() <= whole.mappings.len());

    let last = whole.mappings.last().cloned();
    let set: MappingSet = whole.mappings.into_iter().collect();
    assert!(set.iter().all(|mapping| mapping.start < mapping.end));
    assert!(set.as_slice().is_sorted_by(|a, b| a.end <= b.start));
    if let Some(last) = last {
        let found = set.find(last.start).expect("the newest mapping is there");
        assert_eq!(found.file_offset(last.start), last.file_offset(last.start));
    }

    let _ = Stat::parse(data);
    let _ = Cgroup::parse(data);
});
