//! Profiles as files in a folder, the oldest of which go.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use profiler_formats::format::{self, Format};
use profiler_model::{Profiles, rfc3339};

use super::error::Error;
use crate::spool::create_folder;

/// Beginning of the names of files that belong to the sink.
const PREFIX: &str = "profile-";
/// Beginning of the names of files that are not finished.
const UNFINISHED: &str = ".profile-";

/// Where files go and how many stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesOptions {
    /// The folder; made if it does not exist. Files in it that are not named `profile-*` with the format's ending are left alone.
    pub directory: PathBuf,
    /// Their format.
    pub format: Format,
    /// Files that stay; 0: any number.
    pub max_files: usize,
    /// Bytes that they may have together; 0: any number.
    pub max_bytes: u64,
}

/// What a [`FileSink`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesStats {
    /// Samples in files that were written.
    pub written_samples: u64,
    /// Files that were written.
    pub written_files: u64,
    /// Bytes of them.
    pub written_bytes: u64,
    /// Samples of profiles that could not be written.
    pub dropped_samples: u64,
    /// Files that went to make room.
    pub removed_files: u64,
}

/// Writes each profile to a file of its own, named by the time of its start. Profiles show paths and names of every process of the
/// host: files, and folders that are made for them, are for their owner alone.
#[derive(Debug)]
pub struct FileSink {
    options: FilesOptions,
    /// Files that this sink wrote, by the number of the writing: the times in their names go back where the clock is set back.
    order: Mutex<HashMap<PathBuf, u64>>,
    written_samples: AtomicU64,
    written_files: AtomicU64,
    written_bytes: AtomicU64,
    dropped_samples: AtomicU64,
    removed_files: AtomicU64,
}

/// An [`Error::File`], for `map_err`.
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}

impl FileSink {
    /// Makes the folder if need be, and removes what an interrupted process left unfinished there.
    pub fn open(options: FilesOptions) -> Result<Self, Error> {
        let folder = &options.directory;
        create_folder(folder).map_err(failed("create", folder))?;
        for entry in fs::read_dir(folder).map_err(failed("list", folder))?.filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let sink = Self {
            options,
            order: Mutex::default(),
            written_samples: AtomicU64::new(0),
            written_files: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            dropped_samples: AtomicU64::new(0),
            removed_files: AtomicU64::new(0),
        };
        sink.prune()?;
        Ok(sink)
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> FilesStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FilesStats {
            written_samples: count(&self.written_samples),
            written_files: count(&self.written_files),
            written_bytes: count(&self.written_bytes),
            dropped_samples: count(&self.dropped_samples),
            removed_files: count(&self.removed_files),
        }
    }

    /// Writes `profile`; whoever looks into the folder sees the whole file or none. On a full disk older files make room. `None` if the
    /// profile has no sample.
    ///
    /// # Errors
    ///
    /// The profile is not written and its samples are counted as dropped; the other files are as they were, but for the oldest ones
    /// that made room in vain.
    pub fn write(&self, profile: &Profiles) -> Result<Option<PathBuf>, Error> {
        let samples = profile.sample_entries() as u64;
        if samples == 0 {
            return Ok(None);
        }
        match self.write_with_room(profile) {
            Ok((path, bytes)) => {
                self.written_samples.fetch_add(samples, Ordering::Relaxed);
                let number = self.written_files.fetch_add(1, Ordering::Relaxed);
                self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.order().insert(path.clone(), number);
                self.prune()?;
                Ok(Some(path))
            }
            Err(error) => {
                self.dropped_samples.fetch_add(samples, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn write_with_room(&self, profile: &Profiles) -> Result<(PathBuf, u64), Error> {
        loop {
            match self.write_once(profile) {
                Err(Error::File { source, .. }) if is_full(&source) && self.remove_oldest() => {}
                result => return result,
            }
        }
    }

    fn write_once(&self, profile: &Profiles) -> Result<(PathBuf, u64), Error> {
        let folder = &self.options.directory;
        let name = self.name(profile);
        let unfinished = folder.join(format!(".{name}"));
        let path = folder.join(&name);
        let written = self.write_file(profile, &unfinished).and_then(|bytes| {
            fs::rename(&unfinished, &path)?;
            File::open(folder)?.sync_all()?;
            Ok(bytes)
        });
        match written {
            Ok(bytes) => Ok((path, bytes)),
            Err(error) => {
                let _ = fs::remove_file(&unfinished);
                Err(failed("write", &path)(error))
            }
        }
    }

    fn write_file(&self, profile: &Profiles, path: &Path) -> io::Result<u64> {
        let mut file = BufWriter::new(create(path)?);
        format::write(profile, self.options.format, &mut file)?;
        file.flush()?;
        let file = file.get_ref();
        file.sync_data()?;
        Ok(file.metadata()?.len())
    }

    /// A name that sorts by time; a number tells those of one time apart.
    fn name(&self, profile: &Profiles) -> String {
        let micros = profile.window().0 / 1000 * 1000;
        let time = rfc3339::format(micros).replace(':', "");
        let time = time.trim_end_matches('Z');
        let (second, fraction) = time.split_once('.').unwrap_or((time, ""));
        let extension = self.options.format.extension();
        let mut name = String::new();
        for number in 0..10_000 {
            name = format!("{PREFIX}{second}.{fraction:0<6.6}Z-{number:04}{extension}");
            if !self.options.directory.join(&name).exists() {
                break;
            }
        }
        name
    }

    fn order(&self) -> MutexGuard<'_, HashMap<PathBuf, u64>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sink's files, oldest first, with their sizes: those of former processes by the times in their names, then our own as they
    /// were written.
    fn files(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.options.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(PREFIX) && name.ends_with(self.options.format.extension()) {
                // One that is gone meanwhile counts for nothing.
                let Ok(found) = entry.metadata() else { continue };
                if found.is_file() {
                    files.push((entry.path(), found.len()));
                }
            }
        }
        let mut order = self.order();
        if order.len() > files.len() {
            // Some are gone.
            let there: HashSet<&PathBuf> = files.iter().map(|(path, _)| path).collect();
            order.retain(|path, _| there.contains(path));
        }
        files.sort_by_cached_key(|(path, _)| (order.get(path).copied(), path.clone()));
        Ok(files)
    }

    /// Removes the oldest files until the rest is within the limits; the newest stays.
    fn prune(&self) -> Result<(), Error> {
        let FilesOptions { directory, max_files, max_bytes, .. } = &self.options;
        let files = self.files().map_err(failed("list", directory))?;
        let mut count = files.len();
        let mut bytes = files.iter().map(|(_, bytes)| bytes).sum::<u64>();
        for (path, size) in &files {
            let is_over = *max_files > 0 && count > *max_files || *max_bytes > 0 && bytes > *max_bytes;
            if !is_over || count == 1 {
                break;
            }
            fs::remove_file(path).map_err(failed("remove", path))?;
            self.removed_files.fetch_add(1, Ordering::Relaxed);
            count -= 1;
            bytes = bytes.saturating_sub(*size);
        }
        Ok(())
    }

    fn remove_oldest(&self) -> bool {
        let oldest = self.files().ok().and_then(|files| files.into_iter().next());
        let removed = oldest.is_some_and(|(path, _)| fs::remove_file(path).is_ok());
        self.removed_files.fetch_add(u64::from(removed), Ordering::Relaxed);
        removed
    }
}

/// A new file for its owner alone. What stands there under its name, left over or planted, goes; a link is not followed.
fn create(path: &Path) -> io::Result<File> {
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create()
        }
        result => result,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
