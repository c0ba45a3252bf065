//! The kill switch: a file that stops sampling for as long as it exists.

use std::io;
use std::path::{Path, PathBuf};

/// A file whose existence means: do not sample.
#[derive(Debug)]
pub struct KillSwitch {
    path: PathBuf,
    is_on: bool,
}

impl KillSwitch {
    /// Looks at `path`; anything of that name counts, whatever it holds. It is off until the first look.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_on: false }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks whether sampling is to stop. One `lstat`: cheap enough for every second.
    ///
    /// # Errors
    /// The kernel does not tell; nothing has changed then.
    pub fn look(&mut self) -> io::Result<bool> {
        self.is_on = match self.path.symlink_metadata() {
            Ok(_) => true,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => false,
            Err(error) => return Err(error),
        };
        Ok(self.is_on)
    }

    /// What the last look said.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_while_the_file_exists() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disabled");
        let mut switch = KillSwitch::new(&path);
        assert!(!switch.look().unwrap());
        std::fs::write(&path, "").unwrap();
        assert!(switch.look().unwrap() && switch.is_on());
        std::fs::remove_file(&path).unwrap();
        assert!(!switch.look().unwrap());
        // Also a link to nowhere, and a folder.
        std::os::unix::fs::symlink("/nonexistent", &path).unwrap();
        assert!(switch.look().unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(switch.look().unwrap());
        // Its folder goes, or becomes a file.
        drop(folder);
        assert!(!switch.look().unwrap());
        assert!(!KillSwitch::new("/dev/null/disabled").look().unwrap());
    }

    #[test]
    fn when_the_kernel_does_not_tell_nothing_changes() {
        let mut switch = KillSwitch::new("x".repeat(300));
        assert!(switch.look().is_err() && !switch.is_on());
        switch.is_on = true;
        assert!(switch.look().is_err() && switch.is_on());
    }
}
