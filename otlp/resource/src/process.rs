//! What `/proc` says of a process, while it lives.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    time::{Duration, Instant},
};

use super::{
    attributes::{clean, is_key},
    claimed, environment,
};

/// Bytes of an environment that are read.
const MAX_ENVIRONMENT: u64 = 256 << 10;
/// How often, and how long after each other, who is in the midst of an exec is looked at again.
const EXEC_LOOKS: usize = 20;
const EXEC_PAUSE: Duration = Duration::from_millis(1);
/// ns in a tick of `/proc/PID/stat`: `USER_HZ` is 100 on every architecture that this runs on.
const TICK: u64 = 10_000_000;

/// A process image, as the sampler knows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFacts<'a> {
    /// Process id in the profiler's pid namespace.
    pub pid: u32,
    /// When the process was forked, ns on `CLOCK_BOOTTIME`; 0 if unknown.
    pub start_time_ns: u64,
    /// A number that differs between the images (from exec to exec) of one process; 0 if the caller does not tell them apart.
    pub image: u32,
    /// The kernel's name of the main thread.
    pub comm: &'a str,
    /// Path of the executable; empty if unknown.
    pub exe: &'a [u8],
    /// Container id; `None` outside containers.
    pub container_id: Option<&'a str>,
    /// Unit of systemd, with its suffix.
    pub systemd_unit: Option<&'a str>,
    /// Path of the control group; without it, and where nothing was learnt, the container's name is believed.
    pub cgroup: Option<&'a str>,
    /// GNU build id of the executable, hex.
    pub build_id_gnu: Option<&'a str>,
    /// Go build id of the executable.
    pub build_id_go: Option<&'a str>,
    /// Hash of head, tail and length of the executable, hex.
    pub build_id_htlhash: Option<&'a str>,
}

/// What tells process images apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pid: u32,
    start_time_ns: u64,
    image: u32,
}

impl ProcessFacts<'_> {
    pub(super) fn identity(&self) -> Identity {
        Identity { pid: self.pid, start_time_ns: self.start_time_ns, image: self.image }
    }

    /// Start in ticks since boot.
    pub(super) fn start_ticks(&self) -> u64 {
        self.start_time_ns / TICK
    }
}

/// What was learnt of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
    /// What `OTEL_RESOURCE_ATTRIBUTES` says.
    pub claims: Vec<(String, String)>,
    /// Other wanted variables, name and value.
    pub variables: Vec<(String, String)>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Start in ticks since boot, as `/proc` has it; 0 if nothing was read.
    pub start_ticks: u64,
    /// Unit of systemd, and control group, as whoever asked for the reading knew them.
    pub systemd_unit: Option<Box<str>>,
    pub cgroup: Option<Box<str>>,
    /// The container and the pod that the control group names are claims.
    pub is_claimed: bool,
    /// The environment is longer than what was read.
    pub cut: bool,
    /// Claims that were malformed or too many.
    pub dropped: u64,
}

/// Why nothing was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The process has ended.
    Gone,
    /// The pid or the program is another's by now.
    Changed,
    /// The kernel refuses to show it.
    Denied,
}

impl Learned {
    /// What is known without reading.
    pub(super) fn told(facts: &ProcessFacts<'_>) -> Self {
        let owned = |text: Option<&str>| text.map(|text| Box::from(clean(text)));
        Self {
            systemd_unit: owned(facts.systemd_unit),
            cgroup: owned(facts.cgroup),
            is_claimed: is_claimed(facts),
            ..Self::default()
        }
    }
}

/// Whether the container and the pod that the control group names are claims.
pub(super) fn is_claimed(facts: &ProcessFacts<'_>) -> bool {
    facts.cgroup.is_some_and(|cgroup| claimed::is_claimed(cgroup, facts.container_id))
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Gone,
        }
    }
}

/// Reads what is `wanted` of the process, and makes sure that it was this process all the time.
///
/// Reading an environment reads the process's memory, but only anonymous one (the kernel refuses to follow mapped files), so a
/// process cannot make it wait for a file system of its own.
pub(super) fn read(facts: &ProcessFacts<'_>, wanted: &[String]) -> Result<Learned, Trouble> {
    let before = settled(facts)?;
    if facts.start_time_ns != 0 && before.start_ticks.abs_diff(facts.start_ticks()) > 1 {
        return Err(Trouble::Changed);
    }
    if !facts.exe.is_empty()
        && let Ok(exe) = fs::read_link(format!("/proc/{}/exe", facts.pid))
        && file_name(exe.as_os_str().as_encoded_bytes()) != file_name(facts.exe)
    {
        return Err(Trouble::Changed);
    }
    let mut environ = Vec::new();
    if !wanted.is_empty() {
        let file = File::open(format!("/proc/{}/environ", facts.pid))?;
        file.take(MAX_ENVIRONMENT).read_to_end(&mut environ)?;
    }
    let uid = read_bounded(&format!("/proc/{}/status", facts.pid), 8 << 10).ok().and_then(|text| effective_uid(&text));
    if stat(facts.pid)? != before {
        return Err(Trouble::Changed);
    }
    let cut = environ.len() as u64 == MAX_ENVIRONMENT;
    let mut learned = Learned { uid, start_ticks: before.start_ticks, cut, ..Learned::told(facts) };
    for (name, value) in environment::variables(&environ, wanted) {
        match name.as_str() {
            environment::SERVICE_NAME => {
                learned.service_name = Some(clean(value.trim())).filter(|name| !name.is_empty())
            }
            environment::RESOURCE_ATTRIBUTES => {
                let list = environment::attribute_list(&value);
                learned.dropped = list.dropped;
                for (key, value) in list.pairs {
                    if is_key(&key) {
                        learned.claims.push((key, clean(&value)));
                    } else {
                        learned.dropped += 1;
                    }
                }
            }
            _ => learned.variables.push((name, clean(&value))),
        }
    }
    Ok(learned)
}

/// The last part of a path, without the kernel's note that the file is gone.
pub(super) fn file_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// What `/proc` says of a process once its exec is over: in its midst the process has its program already, and no environment yet.
fn settled(facts: &ProcessFacts<'_>) -> Result<Stat, Trouble> {
    let mut found = stat(facts.pid)?;
    // Kernel threads and the dead have no program, and of others' memory that we must not read this says nothing.
    let is_in_exec = |found: &Stat| {
        let file = |name: &str| format!("/proc/{}/{name}", facts.pid);
        found.environment == (0, 0) && fs::read_link(file("exe")).is_ok() && File::open(file("environ")).is_ok()
    };
    for _ in 0..EXEC_LOOKS {
        if !is_in_exec(&found) {
            break;
        }
        std::thread::sleep(EXEC_PAUSE);
        found = stat(facts.pid)?;
    }
    Ok(found)
}

/// What stays the same in `/proc/PID/stat` until the next exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    start_ticks: u64,
    /// Where the environment is; moves with each exec. 0 without the right to read memory.
    environment: (u64, u64),
}

fn stat(pid: u32) -> Result<Stat, Trouble> {
    parse_stat(&read_bounded(&format!("/proc/{pid}/stat"), 4 << 10)?).ok_or(Trouble::Gone)
}

/// Fields 22, 50 and 51 (proc_pid_stat(5)), counted from behind the name, which can hold anything.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let behind = text.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(text.get(behind..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    let environment = (field(50).unwrap_or(0), field(51).unwrap_or(0));
    Some(Stat { start_ticks: field(22)?, environment })
}

fn effective_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The first `limit` bytes of a file.
pub(super) fn read_bounded(path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Names of the host's users.
#[derive(Debug, Default)]
pub(super) struct Users {
    names: BTreeMap<u32, String>,
    read_at: Option<Instant>,
}

impl Users {
    const MAX: usize = 4096;
    const REST: Duration = Duration::from_secs(60);

    /// The name of `uid`; reads `/etc/passwd` again, at most once a minute, if it is not known.
    pub(super) fn name(&mut self, uid: u32) -> Option<&str> {
        if !self.names.contains_key(&uid) && self.read_at.is_none_or(|at| at.elapsed() >= Self::REST) {
            self.read_at = Some(Instant::now());
            // Of the host, where the agent is in a container that sees the host's processes.
            let host = read_bounded("/proc/1/root/etc/passwd", 1 << 20);
            self.names = parse_users(&host.or_else(|_| read_bounded("/etc/passwd", 1 << 20)).unwrap_or_default());
        }
        self.names.get(&uid).map(String::as_str)
    }
}

fn parse_users(passwd: &[u8]) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in passwd.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else { continue };
        let Some(uid) = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok()) else { continue };
        if names.len() < Users::MAX {
            names.entry(uid).or_insert_with(|| String::from_utf8_lossy(name).into_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let numbers: String = (4..=52).map(|number| format!(" {number}")).collect();
        let text = format!("17 (a) R 1 (b)) R{numbers}\n");
        assert_eq!(parse_stat(text.as_bytes()), Some(Stat { start_ticks: 22, environment: (50, 51) }));
        assert_eq!(parse_stat(b"17 (a) R 1 2"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn users_by_id() {
        let users = parse_users(b"root:x:0:0:root:/root:/bin/sh\nbad\n::\nweb:x:33:33::/:\nalias:x:0:0::/:\n\xff:x:5:");
        let users: Vec<_> = users.iter().map(|(uid, name)| (*uid, name.as_str())).collect();
        assert_eq!(users, [(0, "root"), (5, "\u{fffd}"), (33, "web")]);
        assert_eq!(effective_uid(b"Name:\tx\nUid:\t1\t2\t3\t4\n"), Some(2));
        assert_eq!(effective_uid(b"Name:\tx\n"), None);
    }

    #[test]
    fn names_of_files() {
        assert_eq!(file_name(b"/usr/bin/cat (deleted)"), b"cat");
        assert_eq!(file_name(b"cat"), b"cat");
        assert_eq!(file_name(b""), b"");
    }
}
