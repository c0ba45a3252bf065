//! The messages between who samples and the process that reads for it, both ways: whatever the bytes, they are refused or taken in.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    profiler_reader::fuzzing::request(data);
    profiler_reader::fuzzing::answer(data);
});
