//! The layers that values come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::errors::Problem;
use super::origin::Origin;
use super::yaml::Place;

/// What stands above the file: values by path.
#[derive(Default)]
pub(super) struct Overlay {
    /// Single values and comma-separated lists.
    pub(super) texts: BTreeMap<String, (String, Origin)>,
    /// Members of maps.
    pub(super) pairs: BTreeMap<String, Vec<(String, String, Origin)>>,
}

/// Where values come from.
pub(super) struct Sources<'a> {
    pub(super) file: Option<&'a Path>,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// OTEL_*: below PROFILER_*, which are looked up by path.
    pub(super) otel: Overlay,
    pub(super) flags: Overlay,
    /// An exporter that is there although the file has none.
    pub(super) implied_exporter: bool,
    /// All keys are asked for, optional ones too, and nothing is refused.
    pub(super) schema: bool,
    /// The name of the remote configuration, if there is one.
    pub(super) remote: Option<&'a str>,
    /// Keys that it may set freely.
    pub(super) allowed: &'a [String],
    /// Every path there is, for hints.
    pub(super) paths: &'a [String],
}

/// What reading found out.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Paths of flags that found their key.
    pub(super) used: BTreeSet<String>,
    /// Files that `${file:...}` named.
    pub(super) files: Vec<PathBuf>,
}

/// A text and where it came from.
pub(super) struct Found {
    pub(super) text: String,
    pub(super) origin: Origin,
    /// What is shown in its stead: the text before substitution.
    pub(super) raw: Option<String>,
}

impl Found {
    /// A text that was not in the file, and so is as it was written.
    pub(super) fn plain(text: String, origin: Origin) -> Self {
        Self { text, origin, raw: None }
    }
}

impl Sources<'_> {
    /// A place in the file.
    pub(super) fn origin(&self, place: Option<Place>) -> Origin {
        match self.file {
            Some(path) => Origin::File { path: path.to_owned(), place },
            None => Origin::Default,
        }
    }
}

impl Sources<'_> {
    /// A place in the remote configuration.
    pub(super) fn remote_origin(&self, place: Option<Place>) -> Origin {
        Origin::Remote { name: self.remote.unwrap_or_default().to_owned(), place }
    }
}

impl Overlay {
    /// The members of the map at `path`.
    pub(super) fn members(&self, path: &str) -> Vec<(String, Found)> {
        let found = self.pairs.get(path).into_iter().flatten();
        found.map(|(name, text, origin)| (name.clone(), Found::plain(text.clone(), origin.clone()))).collect()
    }

    /// Moves what is below `from` to below `to`.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let moved = |name: &String| name.strip_prefix(from).map_or_else(|| name.clone(), |rest| format!("{to}{rest}"));
        self.texts = std::mem::take(&mut self.texts).into_iter().map(|(name, text)| (moved(&name), text)).collect();
        self.pairs = std::mem::take(&mut self.pairs).into_iter().map(|(name, pairs)| (moved(&name), pairs)).collect();
    }

    /// Whether anything below `path` is set.
    pub(super) fn reaches(&self, path: &str) -> bool {
        let prefix = format!("{path}.");
        self.texts.keys().chain(self.pairs.keys()).any(|name| name.starts_with(&prefix))
    }
}
