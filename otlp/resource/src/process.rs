//! What is known of a process.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use profiler_environ::{Asked, Said, read_bounded};

use super::{
    attributes::{clean, is_key},
    claimed, environment,
};

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

    /// What whoever reads the process has to know.
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { pid: self.pid, start_ticks: self.start_ticks(), exe: self.exe }
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

impl Learned {
    /// Takes in what a process said.
    pub(super) fn of(said: Said, facts: &ProcessFacts<'_>) -> Self {
        let Said { variables, uid, start_ticks, cut } = said;
        let mut learned = Self { uid, start_ticks, cut, ..Self::told(facts) };
        for (name, value) in variables {
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
        learned
    }
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
    fn users_by_id() {
        let users = parse_users(b"root:x:0:0:root:/root:/bin/sh\nbad\n::\nweb:x:33:33::/:\nalias:x:0:0::/:\n\xff:x:5:");
        let users: Vec<_> = users.iter().map(|(uid, name)| (*uid, name.as_str())).collect();
        assert_eq!(users, [(0, "root"), (5, "\u{fffd}"), (33, "web")]);
    }
}
