//! State over a restart: JSON, with a version. What is read back is foreign input: bounded, and checked against the configuration.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError};
use crate::detector::{Detector, State};

/// Of what is written here. Another one is not read.
const VERSION: u32 = 1;
/// No state of one detector is larger, bytes.
const LARGEST: usize = 4 << 20;

/// Why a state that was kept is not taken up. The way out is always to begin anew: without it, a detector warms up again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// It is larger than any can be.
    #[error("the kept state has {bytes} bytes, and none has more than {most}; remove it to begin anew")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// It is no JSON, or not of this form.
    #[error("the kept state cannot be read ({0}); remove it to begin anew")]
    Malformed(#[from] serde_json::Error),
    /// It is of another version of the format.
    #[error("the kept state is of version {found}, and this program reads version {VERSION}; remove it to begin anew")]
    OtherVersion {
        /// The version.
        found: u32,
    },
    /// It was made by another configuration.
    #[error("the kept state is of {kept}, and the detector is {now}; remove it to begin anew")]
    OtherConfig {
        /// The configuration that made it.
        kept: String,
        /// The configuration that shall take it up.
        now: String,
    },
    /// It has numbers that no detector of the configuration comes to.
    #[error("the kept state{of} is none that a detector can have; remove it to begin anew", of = series_text(.0))]
    Impossible(Option<String>),
    /// The configuration itself is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

fn series_text(series: &Option<String>) -> String {
    series.as_ref().map_or_else(String::new, |series| format!(" of {series:?}"))
}

#[derive(Serialize)]
struct Keeping<'a> {
    version: u32,
    config: String,
    state: &'a State,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[serde(rename = "version")]
    _version: u32,
    config: String,
    state: State,
}

/// The version alone: the rest of another one may be anything.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

pub(crate) fn check_version(bytes: &[u8], most: usize) -> Result<(), KeptError> {
    if bytes.len() > most {
        return Err(KeptError::TooLarge { bytes: bytes.len(), most });
    }
    match serde_json::from_slice::<Version>(bytes)?.version {
        VERSION => Ok(()),
        found => Err(KeptError::OtherVersion { found }),
    }
}

pub(crate) const fn version() -> u32 {
    VERSION
}

impl Detector {
    /// All that it remembers, as JSON.
    ///
    /// # Errors
    /// None that can happen: its state is of plain numbers.
    pub fn keep(&self) -> Result<Vec<u8>, KeptError> {
        let keeping = Keeping { version: VERSION, config: self.config().to_string(), state: &self.state };
        Ok(serde_json::to_vec(&keeping)?)
    }

    /// A detector that goes on where the one that [`keep`](Self::keep) was asked of has ended.
    ///
    /// # Errors
    /// `bytes` are no such state, or of another configuration.
    pub fn restore(config: &Config, bytes: &[u8]) -> Result<Self, KeptError> {
        config.validate()?;
        check_version(bytes, LARGEST)?;
        let kept: Kept = serde_json::from_slice(bytes)?;
        let now = config.to_string();
        if kept.config != now {
            return Err(KeptError::OtherConfig { kept: kept.config.chars().take(500).collect(), now });
        }
        Self::with(Arc::new(config.clone()), kept.state).ok_or(KeptError::Impossible(None))
    }
}
