//! The kill switch: a file that stops sampling for as long as it exists.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A file whose existence means: do not sample.
#[derive(Debug)]
pub struct KillSwitch {
    path: PathBuf,
    last: AtomicBool,
}

impl KillSwitch {
    /// Looks at `path`; anything of that name counts, whatever it holds. It is off until the first look.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), last: AtomicBool::new(false) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether sampling is to stop. One `lstat`: cheap enough for every second. When the kernel does not tell, nothing changes.
    #[must_use]
    pub fn is_on(&self) -> bool {
        match self.path.symlink_metadata() {
            Ok(_) => self.last.store(true, Ordering::Relaxed),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.last.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                let path = self.path.display();
                crate::once_a_minute!(warn, "kill switch", %path, %error, "The kill switch cannot be looked at.");
            }
        }
        self.last.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_while_the_file_exists() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disabled");
        let switch = KillSwitch::new(&path);
        assert!(!switch.is_on());
        std::fs::write(&path, "").unwrap();
        assert!(switch.is_on() && switch.is_on());
        std::fs::remove_file(&path).unwrap();
        assert!(!switch.is_on());
        // Also a link to nowhere, and a folder.
        std::os::unix::fs::symlink("/nonexistent", &path).unwrap();
        assert!(switch.is_on());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(switch.is_on());
        // Its folder goes, or becomes a file.
        drop(folder);
        assert!(!switch.is_on());
        assert!(!KillSwitch::new("/dev/null/disabled").is_on());
    }

    #[test]
    fn when_the_kernel_does_not_tell_nothing_changes() {
        let switch = KillSwitch::new("x".repeat(300));
        assert!(!switch.is_on());
        switch.last.store(true, Ordering::Relaxed);
        assert!(switch.is_on());
    }
}
