//! Folders that stay the same whatever others do to their paths, and files in them that are not finished.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use profiler_confine::raised;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};

/// Random characters in the names of what is not finished, and of folders for what found no room.
const RANDOM: usize = 16;

/// An open folder: what is done in it is done there, also where its path leads elsewhere meanwhile.
#[derive(Debug)]
pub(super) struct Folder {
    opened: File,
}

impl Folder {
    /// The folder at `path`, to make files in.
    pub fn open(path: &Path) -> io::Result<Self> {
        // With O_PATH it need not be readable.
        let flags = (OFlags::PATH | OFlags::DIRECTORY).bits().cast_signed();
        Ok(Self { opened: OpenOptions::new().read(true).custom_flags(flags).open(path)? })
    }

    /// Owner and mode.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.opened.metadata()
    }

    /// The folder itself, of those that [`Self::make_folder`] made.
    pub fn file(&self) -> &File {
        &self.opened
    }

    /// A new file for its owner alone, under a name that nobody knows.
    pub fn unfinished(self) -> io::Result<Unfinished> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |name: &OsStr| openat(&self.opened, name, flags, Mode::from_raw_mode(0o600));
        let (name, file) = under_random_name(".profiler-", |name| Ok(File::from(create(name)?)))?;
        Ok(Unfinished { folder: self, name: Some(name), file })
    }

    /// A new folder for its owner alone, and its name.
    pub fn make_folder(&self) -> io::Result<(OsString, Self)> {
        let make = |name: &OsStr| Ok(mkdirat(&self.opened, name, Mode::from_raw_mode(0o700))?);
        let (name, ()) = under_random_name("profiler-", make)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = File::from(openat(&self.opened, &name, flags, Mode::empty())?);
        let found = opened.metadata()?;
        // Who may rename in this folder may have put another one in its place.
        if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another folder took the new one's place"));
        }
        Ok((name, Self { opened }))
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, name: &OsStr) {
        let _ = unlinkat(&self.opened, name, AtFlags::REMOVEDIR);
    }

    /// Whether what has this name, if it is a file, may be written to.
    pub fn check_writable(&self, name: &OsStr) -> io::Result<()> {
        let is_file = statat(&self.opened, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode).is_file());
        if is_file {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            drop(openat(&self.opened, name, flags, Mode::empty())?);
        }
        Ok(())
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { opened: self.opened.try_clone()? })
    }
}

/// A file that is removed unless it gets its name: a torn one is of no use and takes space.
#[derive(Debug)]
pub(super) struct Unfinished {
    folder: Folder,
    name: Option<OsString>,
    file: File,
}

impl Unfinished {
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Takes the place of whatever has this name in the folder.
    pub fn finish(mut self, name: &OsStr) -> io::Result<()> {
        if let Some(own) = &self.name {
            renameat(&self.folder.opened, own, &self.folder.opened, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Never written, as the recording failed: the folder may be that of whoever called sudo.
            let _ = raised(|| unlinkat(&self.folder.opened, name, AtFlags::empty()));
        }
    }
}

/// What `make` makes under the first name that is free.
fn under_random_name<T>(prefix: &str, make: impl Fn(&OsStr) -> io::Result<T>) -> io::Result<(OsString, T)> {
    let mut taken = OsString::new();
    let mut names = tempfile::Builder::new();
    names.prefix(prefix).rand_bytes(RANDOM).disable_cleanup(true);
    let made = names.make_in("/", |path| {
        taken = path.file_name().unwrap_or_default().to_owned();
        make(&taken)
    })?;
    let (made, path) = made.into_parts();
    // What the path says is not where it is.
    let _ = path.keep();
    Ok((taken, made))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Puts a link to `precious` where the folder was.
    fn swap(path: &Path, precious: &Path) {
        fs::rename(path, path.with_extension("moved")).unwrap();
        symlink(precious, path).unwrap();
    }

    #[test]
    fn what_takes_a_folders_place_gets_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (path, precious) = (place.path().join("folder"), place.path().join("precious"));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("name"), "precious").unwrap();
        let dropped = Folder::open(&path).unwrap().unfinished().unwrap();
        let kept = Folder::open(&path).unwrap().unfinished().unwrap();
        let folder = Folder::open(&path).unwrap();
        swap(&path, &precious);
        kept.file().write_all(b"profile").unwrap();
        kept.finish(OsStr::new("name")).unwrap();
        drop(dropped);
        let (name, own) = folder.make_folder().unwrap();
        own.try_clone().unwrap().unfinished().unwrap().finish(OsStr::new("name")).unwrap();
        assert_eq!(fs::read(precious.join("name")).unwrap(), b"precious");
        assert_eq!(fs::read_dir(&precious).unwrap().count(), 1);
        let moved = path.with_extension("moved");
        assert_eq!(fs::read(moved.join("name")).unwrap(), b"profile");
        assert_eq!(fs::metadata(moved.join("name")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(moved.join(&name)).unwrap().mode() & 0o777, 0o700);
        assert!(moved.join(&name).join("name").exists());
        // The unfinished one is gone.
        assert_eq!(fs::read_dir(&moved).unwrap().count(), 2);
    }
}
