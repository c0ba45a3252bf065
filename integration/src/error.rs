//! Why a test could not be carried out, as opposed to what it found.

use std::io;
use std::path::PathBuf;

/// Something around a test failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A command could not be started.
    #[error("cannot start `{command}`: {source}; `scripts/setup --tests` installs what the tests need")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed ({status}):\n{output}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote to standard error, then to standard output.
        output: String,
    },
    /// A command did not end in time.
    #[error("`{command}` still ran after {seconds} s and was killed")]
    Timeout {
        /// The command line.
        command: String,
        /// The patience that it was given, s.
        seconds: u64,
    },
    /// A command did not say in time what was awaited.
    #[error("`{command}` did not say \"{text}\" within {seconds} s")]
    Silent {
        /// The command line.
        command: String,
        /// What was awaited.
        text: String,
        /// The patience that it was given, s.
        seconds: u64,
    },
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
    /// A ground-truth program did not print its report.
    #[error("no line of truth in the output of {program}: {problem}\n{output}")]
    NoTruth {
        /// The program.
        program: String,
        /// What is wrong.
        problem: String,
        /// All that it printed.
        output: String,
    },
    /// The file that the profiler wrote is not a profile.
    #[error("{path} is not a profile: {source}")]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: profiler_formats::pprof::Error,
    },
    /// The Collector or another receiver of a test failed.
    #[error("{problem}\n{log}")]
    Collector {
        /// What is wrong.
        problem: String,
        /// What it said.
        log: String,
    },
    /// An executable could not be read.
    #[error("cannot read the symbols of {path}: {problem}")]
    Symbols {
        /// The executable.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// A file operation that failed.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
