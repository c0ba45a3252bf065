//! What `/proc/PID` says now. Reading only; what it means is the table's affair.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashSet;

use super::{AddressSpace, Cgroup, Comm};
use crate::maps::{self, Keep, Mapping};

/// Longest file other than `maps` that is read whole.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// A process or thread that is about to end (`include/linux/sched.h`).
const PF_EXITING: u64 = 0x0000_0004;
/// A thread of the kernel.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The process has ended.
    #[error("process {pid} has ended")]
    Gone {
        /// The process.
        pid: u32,
    },
    /// An exec is half done: the program has no code or stack yet.
    #[error("process {pid} is in the middle of an exec: try again")]
    Executing {
        /// The process.
        pid: u32,
    },
    /// The kernel refused.
    #[error("not allowed to read {path}: run as root or grant CAP_SYS_PTRACE")]
    Denied {
        /// The file.
        path: String,
    },
    /// Reading failed for another reason.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Whoever reads for us does not read this process for now.
    #[error("process {pid} is not read for now: {problem}")]
    SetAside {
        /// The process.
        pid: u32,
        /// Why.
        problem: String,
    },
    /// A file is not what the kernel is known to print.
    #[error("cannot understand {path}: is /proc the kernel's proc file system?")]
    Malformed {
        /// The file.
        path: String,
    },
}

impl ScanError {
    fn new(pid: u32, path: &str, source: io::Error) -> Self {
        match (source.kind(), source.raw_os_error().map(rustix::io::Errno::from_raw_os_error)) {
            (io::ErrorKind::NotFound, _) | (_, Some(rustix::io::Errno::SRCH)) => Self::Gone { pid },
            (io::ErrorKind::PermissionDenied, _) => Self::Denied { path: path.to_owned() },
            _ => Self::Read { path: path.to_owned(), source },
        }
    }
}

/// Fields of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 2.
    pub comm: Comm,
    /// Field 3; `Z` for a zombie.
    pub state: u8,
    /// Field 4.
    pub parent: u32,
    /// From field 9.
    pub kthread: bool,
    /// Field 20.
    pub threads: u32,
    /// Field 22, in ns since boot; the kernel cuts it to ticks of 10 ms.
    pub start_time_ns: u64,
    /// Fields 26 and 28. Zeros for zombies, kernel threads and where reading the process's memory is not allowed.
    pub address_space: AddressSpace,
}

impl Stat {
    /// Ended, but not yet waited for.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// What identifies the image, once there is one: in the middle of an exec the kernel has set neither field or only one
    /// (`load_elf_binary` sets them last).
    #[must_use]
    pub fn image(&self) -> Option<AddressSpace> {
        let AddressSpace { start_code, start_stack } = self.address_space;
        (start_code != 0 && start_stack != 0).then_some(self.address_space)
    }

    /// Reads the text of the file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        // The name is in parentheses and may hold anything, parentheses and newlines too.
        let open = memchr::memchr(b'(', text)?;
        let close = memchr::memrchr(b')', text)?;
        let comm = text.get(open.checked_add(1)?..close)?;
        let rest = std::str::from_utf8(text.get(close.checked_add(1)?..)?).ok()?;
        let mut fields = [""; 50];
        for (to, from) in fields.iter_mut().zip(rest.split_ascii_whitespace()) {
            *to = from;
        }
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        let ns_per_tick = 1_000_000_000 / ticks_per_second;
        Some(Self {
            comm: Comm::new(comm),
            state: *fields.first()?.as_bytes().first()?,
            parent: u32::try_from(field(4)?).ok()?,
            kthread: field(9)? & PF_KTHREAD != 0,
            threads: u32::try_from(field(20)?).ok()?,
            start_time_ns: field(22)?.checked_mul(ns_per_tick)?,
            address_space: AddressSpace { start_code: field(26)?, start_stack: field(28)? },
        })
    }

    /// Reads `/proc/PID/stat`.
    ///
    /// # Errors
    /// If the process has ended or `/proc` is not to be read.
    pub fn read(pid: u32) -> Result<Self, ScanError> {
        let path = format!("/proc/{pid}/stat");
        Self::parse(&read_small(pid, &path)?).ok_or(ScanError::Malformed { path })
    }
}

/// Everything that `/proc` says of a process at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// `/proc/PID/stat`.
    pub stat: Stat,
    /// Executable mappings; none of kernel threads.
    pub mappings: Vec<Mapping>,
    /// There are more mappings, which were not read.
    pub truncated: bool,
    /// Path of the program; empty if there is none.
    pub exe: Vec<u8>,
    /// The control group.
    pub cgroup: Option<Cgroup>,
    /// The process's id in its innermost pid namespace.
    pub namespace_pid: u32,
}

impl Scan {
    /// Reads all of it.
    ///
    /// # Errors
    /// If the process has ended or may not be read.
    pub fn read(pid: u32) -> Result<Self, ScanError> {
        let mut stat = Stat::read(pid)?;
        let cgroup = cgroup(pid)?;
        let mut scan =
            Self { stat, mappings: Vec::new(), truncated: false, exe: Vec::new(), cgroup, namespace_pid: pid };
        if stat.kthread {
            return Ok(scan);
        }
        scan.namespace_pid = namespace_pid(pid)?;
        let mut paths: FxHashSet<Arc<[u8]>> = FxHashSet::default();
        let mut intern = |path: &[u8]| match paths.get(path) {
            Some(known) => Arc::clone(known),
            None => {
                let path: Arc<[u8]> = Arc::from(path);
                paths.insert(Arc::clone(&path));
                path
            }
        };
        // Mappings and image must belong together; a process that executes meanwhile is read again, though not for ever.
        for _ in 0..3 {
            let parsed = read_mappings(pid, &stat, &mut intern)?;
            scan.exe = exe_path(pid).unwrap_or_default();
            (scan.mappings, scan.truncated) = (parsed.mappings, parsed.truncated);
            scan.stat = Stat::read(pid)?;
            if scan.stat.address_space == stat.address_space {
                break;
            }
            stat = scan.stat;
        }
        Ok(scan)
    }
}

/// Where a process is: its control group, and its id in its innermost pid namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The control group.
    pub cgroup: Option<Cgroup>,
    /// See [`namespace_pid`].
    pub namespace_pid: u32,
}

impl Place {
    /// Reads it.
    ///
    /// # Errors
    /// If the process has ended or may not be read.
    pub fn read(pid: u32) -> Result<Self, ScanError> {
        Ok(Self { cgroup: cgroup(pid)?, namespace_pid: namespace_pid(pid)? })
    }
}

/// Ids of all processes of the pid namespace that `/proc` belongs to, rising.
#[must_use]
pub fn existing_pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// The executable mappings of a process.
///
/// # Errors
/// If the process has ended or may not be read.
pub fn read_mappings(
    pid: u32,
    stat: &Stat,
    intern: &mut dyn FnMut(&[u8]) -> Arc<[u8]>,
) -> Result<maps::Parsed, ScanError> {
    let mut path = format!("/proc/{pid}/maps");
    // When the main thread has ended before the others, memory is reached only through those.
    if stat.is_zombie()
        && let Some(tid) = thread_ids(pid).into_iter().find(|&tid| tid != pid)
    {
        path = format!("/proc/{pid}/task/{tid}/maps");
    }
    let mut read = || -> io::Result<maps::Parsed> {
        // The kernel fills at most a page a read; a bigger buffer saves nothing.
        let reader = BufReader::with_capacity(4096, File::open(&path)?);
        maps::parse_with(reader, Keep::Executable, intern)
    };
    read().map_err(|error| ScanError::new(pid, &path, error))
}

/// Thread ids of a process; empty if it has ended.
#[must_use]
pub fn thread_ids(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.take(super::MAX_THREADS).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The path of a process's program, without ` (deleted)`; `None` for kernel threads.
#[must_use]
pub fn exe_path(pid: u32) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?.into_os_string().into_vec();
    Some(maps::without_deleted(&path).to_vec())
}

/// The process's id in its innermost pid namespace.
///
/// # Errors
/// If the process has ended.
pub fn namespace_pid(pid: u32) -> Result<u32, ScanError> {
    // A link is read in a fraction of the time that the kernel takes to write `status`.
    static OURS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let ours = OURS.get_or_init(|| fs::read_link("/proc/self/ns/pid").ok());
    if ours.is_some() && *ours == fs::read_link(format!("/proc/{pid}/ns/pid")).ok() {
        return Ok(pid);
    }
    let text = read_small(pid, &format!("/proc/{pid}/status"))?;
    Ok(parse_namespace_pid(&text).unwrap_or(pid))
}

fn parse_namespace_pid(status: &[u8]) -> Option<u32> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next_back()?.parse().ok()
}

/// The text of `/proc/PID/cgroup`.
///
/// # Errors
/// If the process has ended.
pub fn cgroup_text(pid: u32) -> Result<Vec<u8>, ScanError> {
    read_small(pid, &format!("/proc/{pid}/cgroup"))
}

/// [`Cgroup::parse`] of a process; none of one that is about to end in a hierarchy of v1, where the kernel shows the root then.
///
/// # Errors
/// If the process has ended.
pub fn cgroup(pid: u32) -> Result<Option<Cgroup>, ScanError> {
    let text = cgroup_text(pid)?;
    let is_v1 = text.split(|byte| *byte == b'\n').any(|line| !line.is_empty() && !line.starts_with(b"0::"));
    // Asked afterwards: what is not exiting now was not when the text was written.
    Ok(Cgroup::parse(&text).filter(|_| !is_v1 || !is_exiting(pid)))
}

/// Field 9 of `/proc/PID/stat`; true of what has ended.
fn is_exiting(pid: u32) -> bool {
    read_small(pid, &format!("/proc/{pid}/stat")).map_or(true, |text| exits(&text) != Some(false))
}

fn exits(stat: &[u8]) -> Option<bool> {
    let rest = std::str::from_utf8(stat.get(memchr::memrchr(b')', stat)?.checked_add(1)?..)?).ok()?;
    let flags: u64 = rest.split_ascii_whitespace().nth(6)?.parse().ok()?;
    Some(flags & PF_EXITING != 0)
}

fn read_small(pid: u32, path: &str) -> Result<Vec<u8>, ScanError> {
    // One read(2) takes in any of these files: `fs::read` would ask for the size first and read twice.
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(4096);
        File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    read().map_err(|error| ScanError::new(pid, path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "4242 (a) b (c)\n) S 17 4242 4242 34816 4242 4194560 99 0 0 0 1 2 0 0 20 0 3 0 5000 1000 10 \
        18446744073709551615 94000000000000 94000000001000 140737488351000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 1 2 3 4 5 6 7 0";

    #[test]
    fn stat_with_a_name_full_of_parentheses() {
        let stat = Stat::parse(LINE.as_bytes()).unwrap();
        assert_eq!(stat.comm.as_bytes(), b"a) b (c)\n");
        assert_eq!((stat.state, stat.parent, stat.threads, stat.kthread), (b'S', 17, 3, false));
        assert_eq!(stat.start_time_ns, 50_000_000_000);
        assert_eq!(
            stat.address_space,
            AddressSpace { start_code: 94_000_000_000_000, start_stack: 140_737_488_351_000 }
        );
    }

    #[test]
    fn stat_cut_anywhere_is_refused_or_read_but_never_panics() {
        for end in 0..LINE.len() {
            let _ = Stat::parse(&LINE.as_bytes()[..end]);
        }
        assert_eq!(Stat::parse(b")("), None);
    }

    #[test]
    fn what_ends_has_no_control_group_of_v1() {
        let own = cgroup_text(std::process::id()).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        // Not waited for, it is a zombie for as long as we like.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !Stat::read(pid).unwrap().is_zombie() {
            assert!(std::time::Instant::now() < until);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(exits(&read_small(pid, &format!("/proc/{pid}/stat")).unwrap()), Some(true));
        assert!(!is_exiting(std::process::id()));
        let is_v1 = own.split(|byte| *byte == b'\n').any(|line| !line.is_empty() && !line.starts_with(b"0::"));
        assert_eq!(cgroup(pid).unwrap().is_none(), is_v1);
        // What was known stays.
        let mut table = crate::process::ProcessTable::new();
        let alive = Scan::read(std::process::id()).unwrap();
        let known = Cgroup::parse(b"5:memory:/pods/one\n0::/\n").unwrap();
        let mut scan = Scan { stat: Stat { state: b'S', ..alive.stat }, cgroup: Some(known), ..alive };
        table.take_scan(pid, 1, Ok(scan.clone())).unwrap();
        scan.cgroup = None;
        table.take_scan(pid, 2, Ok(scan)).unwrap();
        let process = table.get(pid).unwrap();
        assert_eq!(process.cgroup.as_ref().map(|cgroup| &*cgroup.path), Some("/pods/one"));
        child.wait().unwrap();
    }

    #[test]
    fn namespace_pids() {
        assert_eq!(parse_namespace_pid(b"Name:\tx\nNSpid:\t4242\t17\t1\nNSpgid:\t1\n"), Some(1));
        assert_eq!(parse_namespace_pid(b"Name:\tx\n"), None);
    }

    #[test]
    fn this_process_and_one_that_never_was() {
        let pid = std::process::id();
        let stat = Stat::read(pid).unwrap();
        assert!(stat.address_space.start_stack > 0 && !stat.kthread);
        assert!(existing_pids().contains(&pid));
        assert!(exe_path(pid).is_some_and(|path| path.starts_with(b"/")));
        assert!(matches!(Stat::read(u32::MAX), Err(ScanError::Gone { .. })));
    }
}
