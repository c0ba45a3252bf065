//! Jitdumps: any bytes, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| profiler_symbolizer::fuzzing::jitdump(bytes));
