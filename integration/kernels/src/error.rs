//! Why a kernel could not be tried, as opposed to what was found on it.

use std::io;
use std::path::PathBuf;

/// Something around the test failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--only` names no kernel.
    #[error("there is no kernel {name}; there are {known}")]
    UnknownKernel {
        /// What was asked for.
        name: String,
        /// What can be asked for.
        known: String,
    },
    /// A program to put into the guest is missing or cannot run there.
    #[error("{path} {problem}: {remedy}")]
    Guest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// apt knows no such package.
    #[error("apt finds no {what} in {release}; is the mirror reachable? (`apt-get update` says)")]
    NoPackage {
        /// What was looked for.
        what: String,
        /// Where.
        release: &'static str,
    },
    /// No source of this machine's apt has the release, which says nothing of any kernel.
    #[error(
        "no source of this machine's apt is an archive of Debian that has {release}: name one with --archive, and with \
         --security-archive the one of security updates"
    )]
    NoArchive {
        /// Whose packages were to be fetched.
        release: &'static str,
    },
    /// The mirror cannot be asked, which says nothing of any kernel.
    #[error("cannot fetch packages of {release}: {source}")]
    Unreachable {
        /// What was to be fetched.
        release: &'static str,
        /// What apt says.
        source: profiler_integration::Error,
    },
    /// The time given to all kernels was over before this one.
    #[error("not tried: the {minutes} minutes for all kernels were over")]
    NoTimeLeft {
        /// As given.
        minutes: u64,
    },
    /// qemu failed.
    #[error("qemu ended with {status}: {output}")]
    Emulator {
        /// How.
        status: String,
        /// What it said.
        output: String,
    },
    /// The guest did not end by itself.
    #[error("the guest still ran after {seconds} s; its console is in {log}")]
    Hangs {
        /// The patience that it was given, s.
        seconds: u64,
        /// What it printed.
        log: PathBuf,
    },
    /// The console's output is not what the guest's script prints.
    #[error("the console of the guest in {log} {problem}")]
    Console {
        /// What it printed.
        log: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The kernel says nothing of the programs that are loaded.
    #[error("cannot tell what the loaded programs are: {0}")]
    Loaded(&'static str),
    /// A change of rate did not do what it promises.
    #[error("the live change of rate: {0}")]
    Rate(String),
    /// The kernel half failed.
    #[error(transparent)]
    Sampler(#[from] profiler_bpf::Error),
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be built or a command failed.
    #[error(transparent)]
    Command(#[from] profiler_integration::Error),
}

impl Error {
    /// True if packages cannot be had, which says nothing of any kernel.
    #[must_use]
    pub fn is_of_packages(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoArchive { .. })
    }

    /// A file operation that failed.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
