//! The messages between an exporter and the process that speaks to its receiver, both ways: whatever the bytes, they are refused or taken in.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    profiler_export::fuzzing::messages(data);
});
