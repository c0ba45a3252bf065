//! Writes profiles to files: checked before the recording, written whole or not at all, and somewhere else if the disk is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use profiler_formats::format::{self, Format};
use profiler_model::{Measured, Profiles};

use crate::exit;

/// A file to be written at the end.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    format: Format,
    /// Stands beside `path` from the start: that it can be made shows that the folder takes files.
    partial: Option<(PathBuf, File)>,
}

/// Where an output went.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Why it is not the file that was asked for.
    pub instead_of: Option<(PathBuf, io::Error)>,
}

impl Output {
    /// An output at `path`, in the format that its name or `format` says. Fails now rather than after the recording.
    pub fn prepare(path: &Path, format: Option<Format>) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let format = format
                .ok_or_else(|| exit::usage("standard output has no name to tell the format from: say -f FORMAT"))?;
            return Ok(Self { path: path.to_owned(), format, partial: None });
        }
        let format = match format {
            Some(format) => format,
            None => Format::from_path(path).map_err(exit::usage)?,
        };
        let cannot = || format!("cannot write {}", path.display());
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => anyhow::bail!("{}: it is a directory", cannot()),
            // A device or pipe is written in place.
            Ok(metadata) if !metadata.is_file() => {
                return Ok(Self { path: path.to_owned(), format, partial: None });
            }
            Ok(_) => drop(OpenOptions::new().write(true).open(path).with_context(cannot)?),
            Err(_) => {}
        }
        let mut name = path.file_name().with_context(cannot)?.to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let partial = path.with_file_name(name);
        let file = File::create(&partial).with_context(|| {
            format!("cannot write {} (choose another place with -o, or create its folder)", path.display())
        })?;
        Ok(Self { path: path.to_owned(), format, partial: Some((partial, file)) })
    }

    /// Writes `profile`; formats with room for one sample type show `shown`. If that fails, tries the folders for temporary files and the home folder, and says so.
    pub fn write(mut self, profile: &Profiles, shown: &Measured<'_>) -> anyhow::Result<Written> {
        let failed = match self.partial.take() {
            None => return self.write_in_place(profile, shown),
            Some((partial, file)) => {
                let written = write_to(file, profile, shown, self.format)
                    .and_then(|bytes| fs::rename(&partial, &self.path).map(|()| bytes));
                match written {
                    Ok(bytes) => return Ok(Written { path: self.path.clone(), bytes, instead_of: None }),
                    Err(error) => {
                        // A torn file is of no use and takes space.
                        let _ = fs::remove_file(&partial);
                        error
                    }
                }
            }
        };
        let name = self.path.file_name().unwrap_or_default().to_owned();
        for folder in fallback_folders() {
            let path = folder.join(&name);
            let Ok(file) = OpenOptions::new().write(true).create_new(true).open(&path) else { continue };
            match write_to(file, profile, shown, self.format) {
                Ok(bytes) => return Ok(Written { path, bytes, instead_of: Some((self.path.clone(), failed)) }),
                Err(_) => drop(fs::remove_file(&path)),
            }
        }
        Err(failed).with_context(|| {
            format!("cannot write {}, nor to any folder for temporary files: free some space", self.path.display())
        })
    }

    fn write_in_place(&self, profile: &Profiles, shown: &Measured<'_>) -> anyhow::Result<Written> {
        let cannot = || format!("cannot write {}", self.path.display());
        let bytes = if self.path == Path::new("-") {
            let mut out = BufWriter::new(io::stdout().lock());
            format::write_shown(profile, shown, self.format, &mut out)
                .and_then(|()| out.flush())
                .with_context(cannot)?;
            0
        } else {
            let file = OpenOptions::new().write(true).open(&self.path).with_context(cannot)?;
            write_to(file, profile, shown, self.format).with_context(cannot)?
        };
        Ok(Written { path: self.path.clone(), bytes, instead_of: None })
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.partial {
            // Never written: the recording failed.
            let _ = fs::remove_file(partial);
        }
    }
}

fn write_to(file: File, profile: &Profiles, shown: &Measured<'_>, format: Format) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 16, file);
    format::write_shown(profile, shown, format, &mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    // A full disk may show only when the pages are written back.
    match file.sync_data() {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
        _ => {}
    }
    Ok(file.metadata()?.len())
}

/// Where to go when the wanted place takes nothing.
fn fallback_folders() -> Vec<PathBuf> {
    let mut folders = vec![std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from("/tmp")];
    folders.extend(std::env::current_dir());
    folders.extend(std::env::var_os("HOME").map(PathBuf::from));
    folders.push(PathBuf::from("/dev/shm"));
    folders
}

/// `1.2 MiB` and the like.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}
