//! ELF files, with all that names come from: symbol tables, PLT, Go's line table, DWARF, compressed and mini debug info.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| profiler_symbolizer::fuzzing::elf(bytes));
