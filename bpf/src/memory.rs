//! Memory: how the process's own allocator behaves, so that what a profiler used once is the host's again, and another process's, read.

use std::io;

/// Makes glibc's allocator return large blocks at once. By default it raises its threshold to the largest block freed, up to
/// 32 MiB, and the tens of MiB that reading one large executable takes would stay with us. To be called before threads start.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets numbers of the allocator; both options and values are documented.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Fills `bytes` with what is at `address` of the process `pid`.
///
/// Where a page has to be waited for, of a file system that a user serves say, the process may go on meanwhile and whoever waits may be
/// killed: `process_vm_readv(2)` lets go of the address space, which a read of `/proc/PID/mem` keeps locked.
///
/// # Errors
/// The process is gone or may not be read, or not all of it is there.
pub fn read_of(pid: u32, address: u64, bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let local = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
        let remote = libc::iovec { iov_base: address.wrapping_add(done as u64) as *mut _, iov_len: rest.len() };
        // SAFETY: `local` is all of `rest`, which nobody else has; `remote` is of another process, and the kernel checks it.
        let read = unsafe { libc::process_vm_readv(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
        match usize::try_from(read) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_read_and_what_is_not_there_is_an_error() {
        let place = [7_u8; 10_000];
        let mut found = [0; 10_000];
        read_of(std::process::id(), place.as_ptr() as u64, &mut found).unwrap();
        assert_eq!(found, place);
        assert!(read_of(std::process::id(), 16, &mut found).is_err());
        assert!(read_of(u32::MAX >> 1, place.as_ptr() as u64, &mut found).is_err());
    }
}
