//! Why a file could not be read as a profile.

use std::io;

/// Why bytes are not a profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The gzip layer is damaged.
    #[error("cannot decompress the profile: {0}; the file may be cut short: fetch or record it again")]
    Gzip(#[source] io::Error),
    /// More than is accepted.
    #[error("the profile has more than {limit} {what}, which is more than this reader accepts; split it first")]
    TooLarge {
        /// What there is too much of, in the plural.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// Not protobuf, or not the expected message.
    #[error("{what} cannot be decoded: {problem}; the file is damaged or of another format")]
    Malformed {
        /// The message or field.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An index or id that refers to nothing.
    #[error("{what} refers to {index}, which does not exist; the file is damaged, or of another version of its format")]
    Dangling {
        /// The referring field.
        what: &'static str,
        /// The index or id.
        index: i128,
    },
    /// OTLP of another version.
    #[error(
        "{what} is not what OTLP profiles have in opentelemetry-proto 1.10 and 1.11, which can be read: another version wrote this; \
         update the program that wrote it, or this one"
    )]
    Version {
        /// What differs.
        what: String,
    },
    /// Neither pprof nor OTLP.
    #[error(
        "this is neither a pprof profile nor an OTLP profiles request (protobuf or JSON); those can be read, raw or in gzip"
    )]
    Unrecognized,
}

impl Error {
    /// A message that prost refused.
    pub(crate) fn malformed(what: &'static str, problem: impl ToString) -> Self {
        Self::Malformed { what, problem: problem.to_string() }
    }

    /// `index` is out of range in `what`.
    pub(crate) fn dangling(what: &'static str, index: impl Into<i128>) -> Self {
        Self::Dangling { what, index: index.into() }
    }
}
