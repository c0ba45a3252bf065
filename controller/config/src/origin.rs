//! Where a value came from.

use std::fmt;
use std::path::PathBuf;

use super::yaml::Place;

/// Where a value came from, in ascending precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The configuration file.
    File {
        /// Which file.
        path: PathBuf,
        /// Where in it; none if it could not be read.
        place: Option<Place>,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A flag, such as `--rate`.
    Flag(String),
    /// A configuration from elsewhere, which narrows what all others say.
    Remote {
        /// Which.
        name: String,
        /// Where in it.
        place: Option<Place>,
    },
}

impl Origin {
    /// Higher wins.
    #[must_use]
    pub fn precedence(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
            Self::Remote { .. } => 4,
        }
    }

    /// Somebody wrote it for this program: in its file or on its command line. Variables may be meant for others.
    pub(super) fn is_deliberate(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Flag(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, place: None } => write!(f, "{}", path.display()),
            Self::File { path, place: Some(place) } => {
                write!(f, "{}:{}:{}", path.display(), place.line, place.column)
            }
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Remote { name, place: None } => write!(f, "remote {name}"),
            Self::Remote { name, place: Some(place) } => write!(f, "remote {name}:{}:{}", place.line, place.column),
        }
    }
}
