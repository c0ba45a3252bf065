//! What goes wrong with a spool.

use std::{io, path::PathBuf};

/// Why a spool cannot be used, or did not take or give a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process has it.
    #[error("the spool {directory:?} is in use by another process; give each exporter a spool of its own")]
    Locked {
        /// The spool's folder.
        directory: PathBuf,
    },
    /// A file operation that failed.
    #[error("cannot {doing} {path:?}: {source}{}", advice(.source))]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record that alone is larger than the spool may be.
    #[error("a request of {bytes} bytes does not fit into a spool of {limit} bytes; raise its limit")]
    TooLarge {
        /// Bytes of the record.
        bytes: u64,
        /// Bytes that the spool may have.
        limit: u64,
    },
    /// A record whose bytes are not those that were written.
    #[error("a record of {samples} samples in {path:?} is damaged; it is given up")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Samples in the record.
        samples: u64,
    },
}

impl Error {
    /// Whether the record is lost, however often it is read.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
            }
            _ => false,
        }
    }

    /// Whether the disk gives the file but not what is in it, as with a bad sector.
    pub(crate) fn is_of_reading(&self) -> bool {
        matches!(self, Self::File { doing: READ, .. })
    }
}

/// What was being done in an error of a file that was open already.
pub(super) const READ: &str = "read";

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; free space there, or lower the spool's limit"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; the agent needs a folder that it may write to"
        }
        _ => "",
    }
}

/// An [`Error::File`], for `map_err`.
pub(super) fn failed(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { doing, path, source }
}
