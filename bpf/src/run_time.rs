//! Asking the kernel to count the run time of BPF programs.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::error::{Error, Result};

/// While it lives, the kernel counts how long each BPF program of the host runs; it costs each run two looks at the clock
/// (about 70 ns measured in a virtual machine), so hold it for moments. The counts are in `/proc/self/fdinfo`.
#[derive(Debug)]
pub struct RunTime {
    _stats: OwnedFd,
}

impl RunTime {
    /// Starts counting. Linux 5.8 or newer.
    ///
    /// # Errors
    /// `CAP_SYS_ADMIN` is missing (`CAP_BPF` does not suffice), or the kernel is too old.
    pub fn count() -> Result<Self> {
        // SAFETY: the call takes an enum value and returns a descriptor or a negative errno.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            return Err(Error::io("count the run time of BPF programs", std::io::Error::from_raw_os_error(-fd)));
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self { _stats: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
}
