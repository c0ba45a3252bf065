//! Entrances for the fuzz targets; not part of the interface.

use crate::{
    jit::{jitdump::JitDump, perf_map::PerfMap},
    native::Native,
    symbolizer::{Options, Stats},
};
use profiler_address::ElfVaddr;

/// Reads bytes as a perf map, in two pieces, and looks up what it may have named.
pub fn perf_map(bytes: &[u8]) {
    let (cut, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let first = bytes.len() * usize::from(*cut) / 255;
    let mut map = PerfMap::new(64 * 16);
    let used = map.add_block(bytes.get(..first).unwrap_or_default());
    map.add_block(bytes.get(used..).unwrap_or_default());
    for address in [0, 1, 0x1000, u64::MAX] {
        let _ = map.find(bytes, address, 1);
    }
}

/// Reads bytes as a jitdump that grows, and looks up what it may have named.
pub fn jitdump(bytes: &[u8]) {
    let (cut, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let first = bytes.len() * usize::from(*cut) / 255;
    let mut dump = JitDump::new(4 << 10);
    if dump.read(bytes.get(..first).unwrap_or_default()).is_ok() {
        let _ = dump.read(bytes);
    }
    for (address, time) in [(0, 0), (0x1000, 1), (0x1010, u64::MAX), (u64::MAX, 5)] {
        let _ = dump.find(bytes, address, time, &mut (1 << 20));
    }
}

/// Reads bytes as an ELF file, and looks up addresses all over it.
pub fn elf(bytes: &[u8]) {
    let options = Options { source_lines: true, debug_dirs: Vec::new(), ..Options::default() };
    let mut stats = Stats::default();
    let Ok(mut native) = Native::load_bytes(bytes.into(), &options, &mut stats) else { return };
    native.begin(&options);
    for step in 0..64u64 {
        native.symbolize(ElfVaddr(step * 0x53), &options, &mut stats);
        native.symbolize(ElfVaddr(0x40_0000 + step * 0x35), &options, &mut stats);
    }
}
