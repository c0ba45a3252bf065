//! Notices that files of the configuration changed.
//!
//! Looks rather than listens: a ConfigMap changes by the swap of a symbolic link two folders away, editors write another
//! file and rename it, network file systems tell nothing. A look costs one `stat` a file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{read_bytes, yaml};

/// What a look at the files told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The content is another, and has been the same for two looks: nobody is writing it now.
    Changed,
    /// A file is gone, which is said once. It may be on its way; what runs had better go on.
    Gone,
}

/// Watches the files of a configuration. Ask it about once a second.
#[derive(Debug)]
pub struct Watcher {
    files: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// The content that the caller knows of.
    known: Option<Vec<u8>>,
    /// What the last look saw.
    seen: Option<Stamp>,
    /// What the look at which the content was last read saw.
    read: Option<Stamp>,
    gone: bool,
}

/// Another stamp, and the content may be another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

impl Watched {
    fn new(path: &Path) -> Self {
        let mut watched = Self { path: path.to_owned(), known: None, seen: None, read: None, gone: false };
        watched.learn();
        watched
    }

    /// What is there now is known.
    fn learn(&mut self) {
        // The stamp first: a change in between shows at the next look.
        let stamp = stamp(&self.path);
        self.known = content(&self.path);
        self.seen = stamp;
        self.read = stamp;
        self.gone = stamp.is_none();
    }

    fn look(&mut self) -> Option<Change> {
        let now = stamp(&self.path);
        let before = std::mem::replace(&mut self.seen, now);
        let Some(now) = now else {
            let said = std::mem::replace(&mut self.gone, true);
            self.read = None;
            return (!said).then_some(Change::Gone);
        };
        self.gone = false;
        // Still being written, or as it was read.
        if before != Some(now) || self.read == Some(now) {
            return None;
        }
        self.read = Some(now);
        let content = content(&self.path);
        // Written again, or replaced, with the same content.
        if content == self.known {
            return None;
        }
        self.known = content;
        Some(Change::Changed)
    }
}

/// The content; none if it cannot be read or is too large, which loading will tell.
fn content(path: &Path) -> Option<Vec<u8>> {
    // What is no file, such as a pipe, is read once and never again.
    stamp(path)?;
    read_bytes(path).ok().filter(|bytes| bytes.len() <= yaml::MAX_BYTES)
}

impl Watcher {
    /// Watches `files` (see [`Loaded::files`](super::Loaded::files)); what they hold now is known.
    #[must_use]
    pub fn new<P: AsRef<Path>>(files: &[P]) -> Self {
        Self { files: files.iter().map(|path| Watched::new(path.as_ref())).collect() }
    }

    /// Watches `files` from now on: those of a new configuration. What is known of files that were watched before stays.
    pub fn watch<P: AsRef<Path>>(&mut self, files: &[P]) {
        self.files.retain(|watched| files.iter().any(|path| path.as_ref() == watched.path));
        for path in files {
            if !self.files.iter().any(|watched| watched.path == path.as_ref()) {
                self.files.push(Watched::new(path.as_ref()));
            }
        }
    }

    /// What is there now is known: after a reload for another reason, such as a signal.
    pub fn learn(&mut self) {
        for watched in &mut self.files {
            watched.learn();
        }
    }

    /// Looks. A change is told once, whether or not what is there now can be used.
    pub fn poll(&mut self) -> Option<Change> {
        // Each file is looked at, whatever the others tell.
        let told: Vec<Change> = self.files.iter_mut().filter_map(Watched::look).collect();
        told.iter().copied().find(|change| *change == Change::Changed).or(told.first().copied())
    }
}
