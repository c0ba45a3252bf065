//! How the process's allocator behaves: memory that a profiler used once is the host's again.

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
