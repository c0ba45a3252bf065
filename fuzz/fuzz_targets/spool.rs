//! A spool's segment: whatever its bytes, the spool opens, what it gives can be asked for and ended, and it takes new records.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use profiler_export::{Compression, spool::{Record, Spool, SpoolOptions}};

fuzz_target!(|data: &[u8]| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = parent.join(format!("profiler-fuzz-spool-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).expect("there is room for a folder");
    // A first segment of these bytes, and a second one that has them behind a good beginning.
    std::fs::write(directory.join(format!("{:016x}.spool", 1)), data).expect("there is room");
    let behind = [b"PRFSPOOL\x01\0\0\0".as_slice(), data].concat();
    std::fs::write(directory.join(format!("{:016x}.spool", 2)), behind).expect("there is room");

    let options = SpoolOptions { directory: directory.clone(), max_bytes: 1 << 20 };
    let mut spool = Spool::open(&options).expect("no bytes keep a spool from opening");
    let new = Record {
        bytes: b"new"[..].into(),
        compression: Compression::None,
        raw_bytes: 3,
        samples: 1,
        start_unix_nanos: 0,
        end_unix_nanos: 1,
    };
    let waiting = spool.stats().samples;
    assert_eq!(spool.append(&new).expect("there is room"), 0);
    assert_eq!(spool.stats().samples, waiting + 1);
    let mut last = None;
    while let Some((id, record)) = spool.take() {
        last = record.ok();
        spool.finish(id);
    }
    assert_eq!(last, Some(new));
    assert_eq!((spool.stats().samples, spool.stats().records), (0, 0));
    drop(spool);
    // What has ended does not come back.
    let mut spool = Spool::open(&options).expect("it opened before");
    assert!(spool.take().is_none());
    drop(spool);
    let _ = std::fs::remove_dir_all(&directory);
});
