//! The vDSO: code that the kernel maps into every process, and which is in no file.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt;

use crate::maps::{self, Backing, Keep};

/// It has two pages on most kernels.
const MAX_BYTES: u64 = 1 << 20;

/// This process's own copy, which is byte for byte that of every other 64-bit process.
pub(super) fn read() -> io::Result<Vec<u8>> {
    let parsed = maps::parse(BufReader::new(File::open("/proc/self/maps")?), Keep::Executable)?;
    let vdso = parsed.mappings.into_iter().find(|mapping| mapping.backing == Backing::Vdso);
    let Some(vdso) = vdso else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "this kernel maps no vDSO (booted with vdso=0?)"));
    };
    let length = (vdso.end.0 - vdso.start.0).min(MAX_BYTES);
    // SANITY: at most MAX_BYTES.
    let mut bytes = vec![0; length as usize];
    File::open("/proc/self/mem")?.read_exact_at(&mut bytes, vdso.start.0)?;
    Ok(bytes)
}
