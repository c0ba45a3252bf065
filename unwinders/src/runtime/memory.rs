//! The memory of another process, as it is now.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use profiler_address::UserAddr;

/// Reads a process's memory. What is read is whatever the process has put there: every length and pointer in it is bounded by who reads.
#[derive(Debug)]
pub struct ProcessMemory {
    file: File,
}

impl ProcessMemory {
    /// The memory of `pid`. A later exec leaves it that of the image that there is now.
    ///
    /// # Errors
    /// The process is gone, or may not be read.
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/mem"))? })
    }

    /// Fills `bytes` from `address`.
    ///
    /// # Errors
    /// Some of it cannot be read.
    pub fn read(&self, address: UserAddr, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, address.0)
    }

    /// The word at `address`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn word(&self, address: UserAddr) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
