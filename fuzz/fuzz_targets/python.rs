//! CPython's code objects, texts and line tables, in memory that is any bytes: names or a reason, within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_unwinders::python;

fuzz_target!(|data: &[u8]| {
    python::fuzz(data);
});
