//! Why an exporter or a folder of profiles cannot be had.

use std::{io, path::PathBuf};

/// What is wrong with the options, or with what they name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint is no URL that can be sent to.
    #[error("endpoint {endpoint:?} {problem}")]
    Endpoint {
        /// As given, without what may be a secret.
        endpoint: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A header that HTTP does not allow.
    #[error("header {name:?} {problem}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong; never its value.
        problem: &'static str,
    },
    /// A line of the file of headers.
    #[error("line {line} of the headers file {path:?} {problem}")]
    HeadersFile {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong; never the value.
        problem: &'static str,
    },
    /// A file that cannot be read.
    #[error("cannot read the {what} {path:?}: {source}")]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] profiler_http::TlsError),
    /// An option outside its range, or one that another rules out.
    #[error("{option} {problem}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The spool's folder.
    #[error(transparent)]
    Spool(#[from] crate::spool::Error),
    /// The exporter's thread.
    #[error("cannot start a thread for exporter {name:?}: {source}; raise the limit of threads (ulimit -u, TasksMax=)")]
    Thread {
        /// The exporter.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A file or folder of a [`FileSink`](super::FileSink).
    #[error("cannot {doing} {path:?}: {source}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
