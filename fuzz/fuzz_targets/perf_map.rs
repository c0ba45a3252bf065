//! Perf maps: any bytes, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| profiler_symbolizer::fuzzing::perf_map(bytes));
