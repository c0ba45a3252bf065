//! Whether anonymous memory is the code of a file.

use std::os::unix::fs::FileExt;

use profiler_address::FileOffset;

use super::{Executable, Executables};
use crate::maps::Mapping;
use crate::memory::{Memory, ProcessMemory};

/// Places that are compared.
const PLACES: u64 = 8;
/// Bytes compared at each.
const COMPARED: u64 = 64;

/// The bias (address minus ELF virtual address) at which `mapping` of `pid` holds the code of `executable`, of which `file` is a
/// mapping nearby: it lies where that code belongs, and most places are as in the file. Programs patch their code, so not all need be.
pub(super) fn bias_of_copy(
    pid: u32,
    mapping: &Mapping,
    file: &Mapping,
    executable: &Executable,
    executables: &mut Executables,
) -> Option<u64> {
    let bias = file.start.0.wrapping_sub(executable.vaddr_of(file.offset)?.0);
    let (start, end) = (mapping.start.0.wrapping_sub(bias), mapping.end.0.wrapping_sub(bias));
    let code = executable.segments.iter().filter(|segment| segment.executable());
    // The last page of a segment is only in part its own.
    let (segment, first, last) = code
        .map(|segment| {
            let segment_end = segment.vaddr.0.saturating_add(segment.file_size);
            (segment, start.max(segment.vaddr.0), end.min(segment_end))
        })
        .find(|(_, first, last)| last.saturating_sub(*first) >= COMPARED)?;
    let content = executables.file(executable).ok()?;
    let memory = ProcessMemory::open(pid).ok()?;
    let step = (last - first - COMPARED) / (PLACES - 1);
    let same = (0..PLACES).filter(|place| {
        let address = first + place * step;
        let offset = FileOffset(segment.offset.0.wrapping_add(address - segment.vaddr.0));
        let (mut here, mut there) = ([0; COMPARED as usize], [0; COMPARED as usize]);
        memory.read(address.wrapping_add(bias), &mut here).is_ok()
            && content.read_exact_at(&mut there, offset.0).is_ok()
            && here == there
            && here != [0; COMPARED as usize]
    });
    (same.count() as u64 * 2 > PLACES).then_some(bias)
}
