//! The host: its name, kernel and CPUs.

use std::{fs, io};

/// CPU numbers beyond this are taken for nonsense; Linux is built for at most 8,192.
pub const MAX_CPU: u32 = 65_535;

/// Numbers of the CPUs that are online now, rising.
///
/// # Errors
/// If `/sys` is not mounted or its list unreadable.
pub fn online_cpus() -> io::Result<Vec<u32>> {
    let path = "/sys/devices/system/cpu/online";
    let list = fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))?;
    parse_cpu_list(&list).ok_or_else(|| {
        let list = String::from_utf8_lossy(&list).trim().to_owned();
        io::Error::new(io::ErrorKind::InvalidData, format!("{path} has no list of CPUs but {list:?}"))
    })
}

/// Reads a kernel list of CPUs such as `0-3,5,8-9`, which may be empty; `None` if it is none.
#[must_use]
pub fn parse_cpu_list(list: &[u8]) -> Option<Vec<u32>> {
    let list = std::str::from_utf8(list).ok()?.trim_end_matches(['\n', '\0', ' ']);
    let mut cpus = Vec::new();
    if list.is_empty() {
        return Some(cpus);
    }
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last > MAX_CPU || cpus.len() > MAX_CPU as usize {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

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
    fn cpu_lists() {
        assert_eq!(parse_cpu_list(b"0-3,5,8-9\n"), Some(vec![0, 1, 2, 3, 5, 8, 9]));
        assert_eq!(parse_cpu_list(b"0\n"), Some(vec![0]));
        assert_eq!(parse_cpu_list(b"\n"), Some(vec![]));
        for bad in [&b"3-1"[..], b"0-", b"a", b"0,,1", b"0-4294967295", b"0-99999999999", b"\xff"] {
            assert_eq!(parse_cpu_list(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn this_host_has_a_cpu_a_kernel_and_a_name() {
        let cpus = online_cpus().unwrap();
        assert!(cpus.len() >= std::thread::available_parallelism().unwrap().get());
        assert!(kernel_release().starts_with(|c: char| c.is_ascii_digit()));
        assert!(!hostname().is_empty());
    }
}
