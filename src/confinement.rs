//! What the profiler's processes give up after their start: see [`profiler_confine`]. Readers and senders give up more by themselves.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use profiler_confine::{CapabilitySet, Report, Rights, Role};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `kernel.perf_event_paranoid` from which on only `CAP_SYS_ADMIN` opens events, on Debian and Ubuntu.
const ADMIN_ONLY: i64 = 3;
/// `RLIMIT_NICE` for a nice value of -15, the lowest that a thread asks for.
const NICE: u64 = 35;

/// A process that was confined, or a thread of the agent's that gave up more than the agent.
#[derive(Clone, Debug)]
pub struct Confined {
    /// What it is, in a word.
    pub name: &'static str,
    /// Whose it is, if there may be several.
    pub of: Option<String>,
    /// Its pid; none of a thread.
    pub pid: Option<u32>,
    /// What is in force.
    pub report: Report,
}

impl Confined {
    fn new(name: &'static str, rights: &Rights) -> Self {
        Self { name, of: None, pid: Some(std::process::id()), report: profiler_confine::process(rights) }
    }
}

/// Threads of this process that gave up more, by what they are.
static THREADS: Mutex<BTreeMap<&'static str, Report>> = Mutex::new(BTreeMap::new());

/// Confines the calling thread, which is `name`, for good.
pub fn thread(name: &'static str, rights: &Rights) {
    let report = profiler_confine::thread(rights);
    tracing::debug!("Confined, the thread {name}: {report}.");
    for refused in report.refused() {
        tracing::warn!(
            "The kernel or the container refuses a part of the confinement of the thread {name}, and it goes on without: {refused}."
        );
    }
    THREADS.lock().unwrap_or_else(PoisonError::into_inner).insert(name, report);
}

/// Threads that [`thread`] confined.
pub fn threads() -> Vec<Confined> {
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let one =
        |(&name, report): (&&'static str, &Report)| Confined { name, of: None, pid: None, report: report.clone() };
    threads.iter().map(one).collect()
}

/// What the agent's process may do once it has started.
fn of_agent() -> Rights {
    of(&[Role::Sampler, Role::Reader, Role::Network])
}

/// What a recording may do once its command waits to be let go.
fn of_recording() -> Rights {
    of(&[Role::Sampler, Role::Reader, Role::Recorder])
}

fn of(roles: &[Role]) -> Rights {
    let mut rights = Rights::of(roles);
    if profiler_bpf::paranoid().is_some_and(|level| level >= ADMIN_ONLY) {
        rights = rights.keep(CapabilitySet::SYS_ADMIN);
    }
    if !is_enough(getrlimit(Resource::Nice).current, Some(NICE)) {
        // Root without CAP_SYS_RESOURCE could not raise the limit. Threads ask for their priority whenever sampling starts anew.
        rights = rights.keep(CapabilitySet::SYS_NICE);
    }
    rights
}

/// Confines the agent. To be called before there are threads.
pub fn agent() -> Confined {
    raise_limits();
    let confined = Confined::new("agent", &of_agent());
    tracing::info!("Confined: {}.", confined.report);
    for refused in confined.report.refused() {
        tracing::warn!(
            "The kernel or the container refuses a part of the confinement, and the agent goes on without: {refused}."
        );
    }
    confined
}

/// Confines a recording. To be called once its command has been started, and before there are threads.
pub fn recording(quiet: bool) {
    raise_limits();
    let confined = Confined::new("record", &of_recording());
    tracing::debug!("Confined: {}.", confined.report);
    if !quiet {
        for refused in confined.report.refused() {
            eprintln!("profiler: the recording keeps rights that it does not need: {refused}");
        }
    }
}

/// Limits that the process may need to be higher later, when it has no right to raise them any more.
fn raise_limits() {
    // Of maps before Linux 5.11, and of the side band's rings.
    raise(Resource::Memlock, None);
    raise(Resource::Nice, Some(NICE));
}

/// As far as it is permitted.
fn raise(resource: Resource, wanted: Option<u64>) {
    let limit = getrlimit(resource);
    if is_enough(limit.current, wanted) {
        return;
    }
    let maximum = if is_enough(limit.maximum, wanted) { limit.maximum } else { wanted };
    let whole = Rlimit { current: wanted, maximum };
    if setrlimit(resource, whole).is_err() {
        // What stays low is told where it is in the way.
        let _ = setrlimit(resource, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// None: no limit.
fn is_enough(have: Option<u64>, wanted: Option<u64>) -> bool {
    have.is_none_or(|have| wanted.is_some_and(|wanted| have >= wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The capabilities that the unit, the chart and `doctor` name; more is a hole, less would be missed.
    #[test]
    fn what_is_kept_is_what_the_documentation_asks_for() {
        let asked =
            ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE", "CAP_SYSLOG"];
        let kept = Rights::of(&[Role::Sampler, Role::Reader, Role::Network]);
        assert!(kept.at_need.is_empty());
        let mut names: Vec<_> = profiler_confine::names(kept.capabilities).split(", ").map(str::to_owned).collect();
        names.sort_unstable();
        let mut sorted = asked;
        sorted.sort_unstable();
        assert_eq!(names, sorted);
        let unit = include_str!("../deploy/systemd/profiler.service");
        let line = unit.lines().find(|line| line.starts_with("CapabilityBoundingSet=")).expect("it has one");
        let mut of_unit: Vec<_> = line.trim_start_matches("CapabilityBoundingSet=").split(' ').collect();
        of_unit.sort_unstable();
        assert_eq!(of_unit, sorted);
    }
}
