//! The folder of a spool: its lock, the segments in it, and what is set aside.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::error::{Error, failed};

/// Ending of segments.
const SEGMENT: &str = ".spool";
/// Ending of what is set aside.
const BAD: &str = ".bad";
/// Name of the file that is locked.
const LOCK: &str = "lock";
/// The highest number that a segment keeps when the spool is opened.
const MAX_NUMBER: u64 = u64::MAX / 2;
/// Files that are kept after they were set aside, for who wants to know.
const MAX_BAD: usize = 8;

/// Makes the folder `path` and those above it that are missing, for their owner alone, and syncs each in the folder that it is in.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    create_folder(above)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(above)?.sync_all(),
    }
}

/// The folder of a spool, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the folder if need be, so that it is there after a power cut, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        create_folder(path).map_err(failed("create the spool", path))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(failed("open the lock", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { directory: path.to_owned() }),
            Err(errno) => Err(failed("lock", lock_path)(errno.into())),
        }
    }

    /// Whether the folder is where it was when it was opened.
    pub(super) fn is_there(&self) -> bool {
        self.path.join(LOCK).exists()
    }

    /// Path of segment `number`.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(segment_name(number))
    }

    /// Numbers of the segments, in order. Files whose names are not as [`Self::segment`] writes them are left alone.
    pub(super) fn segments(&self) -> Result<Vec<u64>, Error> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed("list", &self.path))? {
            let name = entry.map_err(failed("list", &self.path))?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(SEGMENT));
            let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            numbers.extend(number.filter(|&number| name.to_str() == Some(&segment_name(number))));
        }
        numbers.sort_unstable();
        if numbers.last().is_some_and(|&last| last > MAX_NUMBER) {
            self.renumber(&mut numbers);
        }
        Ok(numbers)
    }

    /// Numbers segments from 0 again, in the same order. Nobody counts so far, but a name that somebody planted must not leave
    /// new segments without a number.
    fn renumber(&self, numbers: &mut [u64]) {
        for (new, number) in (0..).zip(numbers) {
            // Ascending and distinct, so that no number is below its place, and each place is free when its turn comes.
            if fs::rename(self.segment(*number), self.segment(new)).is_ok() {
                *number = new;
            }
        }
    }

    /// Opens segment `number`, which has to be a plain file (else the error is of the kind `InvalidData`). Returns its length too.
    pub(super) fn open_segment(&self, number: u64) -> io::Result<(File, u64)> {
        let path = self.segment(number);
        let found = fs::symlink_metadata(&path)?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a plain file"));
        }
        Ok((OpenOptions::new().read(true).write(true).open(path)?, found.len()))
    }

    /// Creates segment `number`, so that it is there after a power cut.
    pub(super) fn create_segment(&self, number: u64) -> Result<File, Error> {
        let path = self.segment(number);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(failed("create", &path))?;
        self.sync().inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok(file)
    }

    /// Makes the folder's entries durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed("sync", &self.path))
    }

    /// Renames segment `number` so that nobody reads it again, and keeps only the newest of such files.
    pub(super) fn set_aside(&self, number: u64) -> Result<(), Error> {
        let path = self.segment(number);
        fs::rename(&path, bad(&path)).map_err(failed("set aside", &path))?;
        self.prune();
        self.sync()
    }

    /// Copies what follows the first `good` bytes of segment `number` to a file that is set aside, then cuts the segment there.
    pub(super) fn set_rest_aside(&self, number: u64, file: &File, good: u64) -> Result<(), Error> {
        use io::{Read, Seek};
        let path = self.segment(number);
        let copy = || {
            let mut rest = file;
            rest.seek(io::SeekFrom::Start(good))?;
            let _ = fs::remove_file(bad(&path));
            let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(bad(&path))?;
            io::copy(&mut rest.take(super::record::MAX_SEGMENT), &mut out).map(drop)
        };
        // The copy is for people. Where there is no room for it, what is good still counts more.
        let _ = copy();
        self.prune();
        file.set_len(good).and_then(|()| file.sync_all()).map_err(failed("cut", &path))?;
        self.sync()
    }

    /// Removes all but the newest files that were set aside.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        let names = entries.filter_map(Result::ok).map(|entry| entry.path());
        let mut names: Vec<PathBuf> = names.filter(|path| path.to_string_lossy().ends_with(BAD)).collect();
        names.sort_unstable();
        for path in names.iter().rev().skip(MAX_BAD) {
            let _ = fs::remove_file(path);
        }
    }
}

fn segment_name(number: u64) -> String {
    format!("{number:016x}{SEGMENT}")
}

fn bad(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BAD);
    name.into()
}
