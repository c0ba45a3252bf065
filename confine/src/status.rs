//! What the kernel says that the threads of a process may do: `/proc/PID/task/TID/status`.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rustix::thread::CapabilitySet;

use crate::capabilities::names;

/// Threads of a process that may do the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Their names.
    pub names: Vec<String>,
    /// Capabilities in force.
    pub effective: CapabilitySet,
    /// Capabilities in force or ready.
    pub permitted: CapabilitySet,
    /// What an exec could give back.
    pub bounding: CapabilitySet,
    /// What an exec would leave.
    pub ambient: CapabilitySet,
    /// Whether `no_new_privs` is set.
    pub no_new_privs: bool,
    /// Seccomp filters that are installed, one on top of the other; 1 where the kernel (before 5.9) does not say how many.
    pub filters: u32,
}

/// The threads of process `pid`, those together that may do the same.
///
/// # Errors
/// There is no such process, or it may not be looked at.
pub fn threads(pid: u32) -> io::Result<Vec<Threads>> {
    let mut groups: Vec<Threads> = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // One that has just ended.
        let Ok(text) = fs::read(thread.path().join("status")) else { continue };
        let Some(one) = parse(&String::from_utf8_lossy(&text)) else { continue };
        match groups.iter_mut().find(|group| Threads { names: one.names.clone(), ..(*group).clone() } == one) {
            Some(group) => group.names.extend(one.names),
            None => groups.push(one),
        }
    }
    Ok(groups)
}

/// Processes of this program beside this one, by pid, with their first two words.
#[must_use]
pub fn profilers() -> Vec<(u32, String)> {
    let own = fs::read_link("/proc/self/exe").ok();
    let own = own.as_deref().and_then(Path::file_name);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = processes.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok().filter(|&pid| pid != std::process::id())?;
        let exe = fs::read_link(process.path().join("exe")).ok()?;
        if exe.file_name() != own {
            return None;
        }
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let words: Vec<_> = line.split(|&byte| byte == 0).take(2).map(String::from_utf8_lossy).collect();
        Some((pid, words.join(" ").escape_default().to_string()))
    });
    found.collect()
}

fn parse(status: &str) -> Option<Threads> {
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    let set = |key| u64::from_str_radix(value(key)?, 16).ok().map(CapabilitySet::from_bits_retain);
    Some(Threads {
        // The kernel escapes what is not printable.
        names: vec![value("Name")?.to_owned()],
        effective: set("CapEff")?,
        permitted: set("CapPrm")?,
        bounding: set("CapBnd")?,
        ambient: set("CapAmb")?,
        no_new_privs: value("NoNewPrivs") == Some("1"),
        // 2: filters.
        filters: if value("Seccomp") == Some("2") {
            value("Seccomp_filters").and_then(|count| count.parse().ok()).unwrap_or(1)
        } else {
            0
        },
    })
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "capabilities {}", names(self.effective))?;
        let ready = self.permitted - self.effective;
        if !ready.is_empty() {
            write!(f, " (ready: {})", names(ready))?;
        }
        write!(f, "; no_new_privs {}", if self.no_new_privs { "set" } else { "NOT set" })?;
        write!(f, "; seccomp {}", if self.filters > 0 { "filter" } else { "NONE" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_as_the_kernel_has_them() {
        let text = "Name:\tprofiler\nUmask:\t0022\nCapInh:\t0000000000000000\nCapPrm:\t000000c000080000\nCapEff:\t000000c000000000\n\
                    CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";
        let one = parse(text).expect("whole");
        assert_eq!(one.effective, CapabilitySet::BPF | CapabilitySet::PERFMON);
        assert_eq!(
            one.to_string(),
            "capabilities CAP_PERFMON, CAP_BPF (ready: CAP_SYS_PTRACE); no_new_privs set; seccomp filter"
        );
        assert_eq!(parse("Name:\tx\nCapEff:\tzz\n"), None);
        let own = threads(std::process::id()).expect("ours");
        assert!(own.iter().map(|group| group.names.len()).sum::<usize>() >= 2, "{own:?}");
    }
}
