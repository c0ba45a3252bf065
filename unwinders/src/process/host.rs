//! The host: its name and kernel.

use std::fs;

/// `uname -r`.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The host's name in the profiler's UTS namespace.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `uname -m`, such as `x86_64`.
#[must_use]
pub fn machine() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

/// Which boot this is, as the kernel names it; pids and times since boot mean something only within one.
#[must_use]
pub fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_kernel_and_a_name() {
        assert!(kernel_release().starts_with(|c: char| c.is_ascii_digit()));
        assert!(!hostname().is_empty());
    }
}
