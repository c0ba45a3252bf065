//! What the command line sets.

use std::path::PathBuf;

use super::Remote;
use super::environment::EXPORTER;
use super::layers::Overlay;
use super::origin::Origin;

/// Values from the command line. Each is text, read like the value of the file; a later one replaces an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// A file with a configuration from elsewhere, which narrows all others; there need not be one.
    pub remote: Option<PathBuf>,
    /// A configuration from elsewhere that is at hand, and counts where there is no file for one.
    pub offered: Option<Remote>,
    /// The files may be anybody's: they are only looked at. Otherwise what others than root and the user of this process may have
    /// written is refused.
    pub whosever: bool,
    values: Vec<(String, String, String)>,
}

impl Flags {
    /// None but the configuration file, if there is one.
    #[must_use]
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// `flag` sets the key at `path`, such as `limits.memory`, `labels.team` or `exporters.NAME.otlp.timeout`.
    pub fn set(&mut self, flag: &str, path: &str, text: &str) {
        self.values.push((flag.to_owned(), path.to_owned(), text.to_owned()));
    }

    /// Sets [`rate`](super::Config::rate).
    pub fn rate(&mut self, flag: &str, text: &str) {
        self.set(flag, "rate", text);
    }

    /// Sets a key of the OTLP exporter: the one named `otlp`, else the first one of the file, else a new one.
    pub fn otlp(&mut self, flag: &str, key: &str, text: &str) {
        self.set(flag, &format!("{EXPORTER}.{key}"), text);
    }

    pub(super) fn overlay(&self) -> Overlay {
        let mut overlay = Overlay::default();
        for (flag, path, text) in &self.values {
            overlay.texts.insert(path.clone(), (text.clone(), Origin::Flag(flag.clone())));
        }
        overlay
    }
}
