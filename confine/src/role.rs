//! Roles, and what each may do. This is the one place that says so.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rustix::thread::CapabilitySet;

/// A part that a process plays; a process may play several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Keeps BPF programs, perf events and rings; reads the kernel's symbols; starts readers.
    Sampler,
    /// Opens and parses what belongs to targets: executables, `/proc` texts, memory.
    Reader,
    /// Keeps spools and files of profiles; speaks with Kubernetes, a control server and whoever asks for metrics.
    Network,
    /// Speaks with one receiver: sends what it is handed, and says what became of it.
    Sender,
    /// `profiler record`'s own: writes where its user asks, passes signals on to the command that it started.
    Recorder,
}

/// What a process may do; the rest is given up.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Capabilities in force all the time.
    pub capabilities: CapabilitySet,
    /// Capabilities that lie ready and are in force only within [`crate::raised`].
    pub at_need: CapabilitySet,
    /// System calls; beside those that every process makes.
    pub calls: BTreeSet<Calls>,
    /// Files. None: whatever its user and capabilities permit.
    pub files: Option<Files>,
    /// Ports to which TCP connections may be made, by who has `files`. None: any.
    pub ports: Option<BTreeSet<u16>>,
}

/// System calls that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Calls {
    /// Loading BPF programs, opening events, ruling their thread's priority.
    Sample,
    /// Reading the memory of other processes.
    Memory,
    /// Taking descriptors from other readers.
    Borrow,
    /// Making, writing, moving and removing files.
    Write,
    /// Sockets of the Internet.
    Sockets,
    /// Sockets of this host (`AF_UNIX`): who may connect to a service manager's or a container runtime's has what these give to root.
    Local,
    /// Signals to and news of a process that was started before.
    Command,
    /// Starting processes, and passing descriptors between them and us.
    Start,
}

/// Files that a process may open; a folder stands for all that is below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// To be read. Those that do not exist are passed over.
    pub read: Vec<PathBuf>,
    /// To be read, made, written and removed. They have to exist.
    pub write: Vec<PathBuf>,
}

impl Role {
    /// What the role needs after its start, on any kernel from 5.10 on.
    ///
    /// Of the sampler: programs are loaded again after a pause, and events opened for CPUs that come online. Where
    /// `kernel.perf_event_paranoid` is 3 or more (Debian, Ubuntu), only `CAP_SYS_ADMIN` opens events: see [`Rights::keep`].
    #[must_use]
    pub fn rights(self) -> Rights {
        use CapabilitySet as Cap;
        let (capabilities, at_need, calls): (_, _, &[Calls]) = match self {
            Self::Sampler => (Cap::BPF | Cap::PERFMON | Cap::SYSLOG, Cap::empty(), &[Calls::Sample, Calls::Start]),
            // For `/proc` and memory of others; files and folders that others alone may enter; files that are deleted, by `map_files`.
            // No Landlock domain: who is in one may not look at processes outside of it.
            Self::Reader => (
                Cap::SYS_PTRACE | Cap::DAC_READ_SEARCH | Cap::CHECKPOINT_RESTORE,
                Cap::empty(),
                &[Calls::Memory, Calls::Borrow],
            ),
            Self::Network => (Cap::empty(), Cap::empty(), &[Calls::Sockets, Calls::Local, Calls::Write]),
            Self::Sender => (Cap::empty(), Cap::empty(), &[Calls::Sockets]),
            // A profile belongs into its user's folder, and the command runs as that user.
            Self::Recorder => (
                Cap::empty(),
                Cap::DAC_OVERRIDE | Cap::CHOWN | Cap::FOWNER | Cap::KILL,
                &[Calls::Write, Calls::Command],
            ),
        };
        Rights { capabilities, at_need, calls: calls.iter().copied().collect(), files: None, ports: None }
    }
}

impl Rights {
    /// Of a process that plays all of `roles`.
    #[must_use]
    pub fn of(roles: &[Role]) -> Self {
        let none = Self {
            capabilities: CapabilitySet::empty(),
            at_need: CapabilitySet::empty(),
            calls: BTreeSet::new(),
            files: None,
            ports: None,
        };
        roles.iter().fold(none, |mut all, role| {
            let Self { capabilities, at_need, calls, files: _, ports: _ } = role.rights();
            all.capabilities |= capabilities;
            all.at_need |= at_need;
            all.calls.extend(calls);
            all
        })
    }

    /// Keeps `capabilities` too.
    #[must_use]
    pub fn keep(mut self, capabilities: CapabilitySet) -> Self {
        self.capabilities |= capabilities;
        self
    }

    /// May make `calls` too.
    #[must_use]
    pub fn call(mut self, calls: Calls) -> Self {
        self.calls.insert(calls);
        self
    }

    /// May open `files` only.
    #[must_use]
    pub fn within(mut self, files: Files) -> Self {
        self.files = Some(files);
        self
    }

    /// May make TCP connections to `ports` only.
    #[must_use]
    pub fn connect(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports = Some(ports.into_iter().collect());
        self
    }

    /// All capabilities that are kept, in force or not.
    #[must_use]
    pub fn kept(&self) -> CapabilitySet {
        self.capabilities | self.at_need
    }
}
