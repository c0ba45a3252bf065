//! What a process of the profiler may do, as plain values ([`Role`], [`Rights`]), and giving up the rest in one call.
//!
//! ```text
//!  Role ── rights ──► Rights { capabilities, at need, calls, files, ports } ── process / thread ──► Report { what is in force, what is refused }
//! ```
//!
//! Four walls, each of which stands without the others:
//!
//! | Wall | What it takes away | Where it is not to be had |
//! |---|---|---|
//! | capabilities | root's rights, but for those of the role; also from what root would execute | never refused |
//! | no new privileges | set-user-id programs and file capabilities | never refused |
//! | system calls (seccomp) | every call that no role makes: the answer is `EPERM` | kernels without seccomp, some sandboxes |
//! | files (Landlock) | every file but those of the role, and every TCP port | before Linux 5.13 (ports: 6.7), or where it is switched off |
//!
//! What is refused is in the [`Report`], with the reason; it is for the caller to say it. Nothing here ends a process.
//!
//! Capabilities, filters and domains belong to threads. [`process`] is therefore called before there are threads that matter; it filters
//! the calls of all threads, and says which of them kept capabilities. [`thread`] confines the calling thread, and those that it starts.
//!
//! Non-goals: namespaces, users, memory limits, and starting processes.
#![forbid(unsafe_code)]

mod capabilities;
mod files;
mod report;
mod role;
mod seccomp;
mod status;

pub use capabilities::{handed_down, names, raised};
pub use report::{Entry, Force, Report, Wall};
pub use role::{Calls, Files, Rights, Role};
pub use rustix::thread::CapabilitySet;
pub use status::{Threads, profilers, threads};

/// Confines the whole process to `rights`, for good.
///
/// Call it before threads are started: the threads that there are keep their capabilities and their files, which the report says.
pub fn process(rights: &Rights) -> Report {
    confine(rights, seccomp::Whose::Process)
}

/// Confines the calling thread to `rights`, for good, and all threads that it will start.
pub fn thread(rights: &Rights) -> Report {
    confine(rights, seccomp::Whose::Thread)
}

/// Gives up all capabilities of the calling thread: for one that runs already when [`process`] is called, which reaches it with the rest.
pub fn early_thread() -> Report {
    let mut report = Report::default();
    report.add(Wall::Capabilities, capabilities::reduce(&Rights::of(&[])));
    report
}

/// What this kernel, and the container around, would permit of [`process`]; nothing is given up.
///
/// # Errors
/// There can be no thread to try it on.
pub fn probe(rights: &Rights) -> std::io::Result<Report> {
    let rights = rights.clone();
    let trial = std::thread::Builder::new().name("confine".to_owned()).spawn(move || thread(&rights))?;
    trial.join().map_err(|_| std::io::Error::other("the attempt ended in a panic"))
}

fn confine(rights: &Rights, whose: seccomp::Whose) -> Report {
    let mut report = Report::default();
    // Files first: what opens them needs no right that is then gone. Capabilities before the filter, which refuses nothing of this.
    report.add(Wall::NoNewPrivileges, no_new_privileges());
    report.add(Wall::Files, files::restrict(rights));
    report.add(Wall::Capabilities, capabilities::reduce(rights));
    report.add(Wall::Calls, seccomp::install(&rights.calls, whose));
    if matches!(whose, seccomp::Whose::Process) {
        report.look_at_threads(rights);
    }
    report
}

fn no_new_privileges() -> Force {
    match rustix::thread::set_no_new_privs(true) {
        Ok(()) => Force::Full("execve grants nothing".to_owned()),
        Err(error) => Force::None(format!("prctl(PR_SET_NO_NEW_PRIVS): {error}")),
    }
}
