//! Writes profiles to files: checked before the recording, written whole or not at all, and somewhere else if the disk is full.
//!
//! The folder may be another user's, who may put there what he likes while the recording runs. So a profile is written to a file of
//! one's own under a name that nobody knows, which then takes the place of whatever has the name: no link is followed, nothing that
//! stands there is written to. Devices and pipes, which are written in place, are only where the user named them.

mod folder;
mod special;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::Context;
use profiler_confine::raised;
use profiler_formats::format::{self, Format};
use profiler_model::{Measured, Profiles};

use self::folder::{Folder, Unfinished};
use self::special::{Patient, Special, folder_of, is_trusted};
use crate::launch::SudoUser;
use crate::{exit, shown};

/// Who chose an output's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The user, who may mean a device or a pipe.
    ByUser,
    /// Nobody: what has that name by chance, or by somebody's design, is not meant.
    ByDefault,
}

/// A profile to be written at the end.
#[derive(Debug)]
pub struct Output {
    target: Target,
    format: Format,
}

/// A file to be written at the end.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Stdout,
    /// A device or a pipe.
    Special(Special),
    /// Stands beside the path from the start: that it can be made shows that the folder takes files.
    Beside(Unfinished),
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

impl Written {
    /// Says on standard error what was written where; nothing of standard output.
    pub fn tell(&self) {
        let path = shown::path(&self.path);
        match &self.instead_of {
            Some((wanted, error)) => eprintln!("{}: {error}; written to {path} instead", shown::path(wanted)),
            None if self.path != Path::new("-") => eprintln!("Wrote {path} ({})", human_bytes(self.bytes)),
            None => {}
        }
    }
}

/// Writes what the file shall hold; perhaps more than once, where one place fails.
type Content<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<()>;

impl Output {
    /// An output at `path`, in the format that its name or `format` says. Fails now rather than after the recording.
    pub fn prepare(path: &Path, format: Option<Format>, named: Named) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let format = format
                .ok_or_else(|| exit::usage("standard output has no name to tell the format from: say -f FORMAT"))?;
            return Ok(Self { target: Target::prepare(path, named)?, format });
        }
        let format = match format {
            Some(format) => format,
            None => Format::from_path(path).map_err(exit::usage)?,
        };
        Ok(Self { target: Target::prepare(path, named)?, format })
    }

    /// Writes `profile`; formats with room for one sample type show `shown`. See [`Target::write`].
    pub fn write(
        self,
        profile: &Profiles,
        shown: &Measured<'_>,
        give_up: &dyn Fn() -> bool,
    ) -> anyhow::Result<Written> {
        let format = self.format;
        self.target.write(&|out| format::write_shown(profile, shown, format, out), give_up)
    }
}

impl Target {
    /// A file at `path`; `-` is standard output. Fails now rather than after the work.
    pub fn prepare(path: &Path, named: Named) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { path: path.to_owned(), place: Place::Stdout });
        }
        let place = match Special::at(path, named).with_context(|| cannot(path))? {
            Some(special) => Place::Special(special),
            None => {
                let file = beside(path);
                let file = file.map_err(|error| {
                    let hint = hint(&error);
                    anyhow::Error::new(error).context(format!("{} ({hint})", cannot(path)))
                })?;
                Place::Beside(file)
            }
        };
        Ok(Self { path: path.to_owned(), place })
    }

    /// Writes `content`. If that fails, tries a folder of its own below those for temporary files and the home folder, and says so. For
    /// whoever has to read a pipe first it waits until `give_up`.
    pub fn write(self, content: Content<'_>, give_up: &dyn Fn() -> bool) -> anyhow::Result<Written> {
        // The folder may be another user's, and root has given up the right to write there but for this moment.
        raised(|| self.write_by_right(content, give_up))
    }

    fn write_by_right(self, content: Content<'_>, give_up: &dyn Fn() -> bool) -> anyhow::Result<Written> {
        let Self { path, place } = self;
        let in_place = match place {
            Place::Beside(file) => return write_beside(file, path, content),
            // Without the buffer of the standard library, which does not say what it writes when.
            Place::Stdout => io::stdout()
                .as_fd()
                .try_clone_to_owned()
                .and_then(|out| write_to(Patient::new(File::from(out), give_up), content).map(|_| 0)),
            Place::Special(special) => {
                special.open(&path, give_up).and_then(|file| write_to(Patient::new(file, give_up), content).map(|_| 0))
            }
        };
        let bytes = in_place.with_context(|| cannot(&path))?;
        Ok(Written { path, bytes, instead_of: None })
    }
}

fn cannot(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// The way out of what keeps a file from being written.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "too many files are open for this process: allow more with ulimit -n",
        Some(libc::ENFILE) => "too many files are open on this host: see the sysctl fs.file-max",
        Some(libc::EFBIG) => "files may not be so large here: allow more with ulimit -f",
        Some(libc::ENOSPC | libc::EDQUOT) => "free some space, or choose another place with -o",
        Some(libc::ENOENT) => "choose another place with -o, or create its folder",
        _ => "choose another place with -o",
    }
}

/// A file of one's own in the folder of `path`.
fn beside(path: &Path) -> io::Result<Unfinished> {
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "that is no name of a file");
    let name = path.file_name().ok_or_else(no_name)?;
    let folder = Folder::open(folder_of(path))?;
    // What may not be written to is not replaced either.
    folder.check_writable(name)?;
    folder.unfinished()
}

/// Writes to `file`, which then becomes `path`, or, if that fails, elsewhere.
fn write_beside(file: Unfinished, path: PathBuf, content: Content<'_>) -> anyhow::Result<Written> {
    let name = path.file_name().unwrap_or_default();
    let failed = match fill(file, name, &path, content) {
        Ok(bytes) => return Ok(Written { path, bytes, instead_of: None }),
        Err(error) => error,
    };
    for folder in fallback_folders() {
        if let Ok((elsewhere, bytes)) = write_into(&folder, name, content) {
            return Ok(Written { path: elsewhere, bytes, instead_of: Some((path, failed)) });
        }
    }
    let hint = hint(&failed);
    Err(failed).with_context(|| format!("{}, nor to any folder for temporary files ({hint})", cannot(&path)))
}

/// Writes to `file`, which is `name` in its folder then, and as a whole `path`.
fn fill(file: Unfinished, name: &OsStr, path: &Path, content: Content<'_>) -> io::Result<u64> {
    let bytes = write_to(file.file(), content)?;
    // A full disk may show only when the pages are written back.
    match file.file().sync_data() {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
        _ => {}
    }
    let given = give_to_sudo_user(file.file());
    file.finish(name)?;
    tell(given, path);
    Ok(bytes)
}

/// Writes `name` into a new folder below `folder`, for nobody else to see.
fn write_into(folder: &Path, name: &OsStr, content: Content<'_>) -> io::Result<(PathBuf, u64)> {
    let parent = Folder::open(folder)?;
    if !keeps_its_entries(&parent)? {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can change what is in that folder"));
    }
    let (random, own) = parent.make_folder()?;
    let own_path = folder.join(&random);
    let path = own_path.join(name);
    let written = own.try_clone().and_then(Folder::unfinished).and_then(|file| fill(file, name, &path, content));
    if written.is_err() {
        parent.remove_folder(&random);
    } else {
        tell(give_to_sudo_user(own.file()), &own_path);
    }
    Ok((path, written?))
}

/// Whether nobody but root and the user can rename or remove what is made there.
fn keeps_its_entries(folder: &Folder) -> io::Result<bool> {
    const STICKY: u32 = 0o1000;
    let found = folder.metadata()?;
    Ok(is_trusted(&found) && (found.mode() & 0o022 == 0 || found.mode() & STICKY != 0))
}

/// Who called sudo reads what he recorded. Where that cannot be it stays root's, which is no reason to lose it.
fn give_to_sudo_user(file: &File) -> Result<(), (SudoUser, io::Error)> {
    let Some(user) = SudoUser::of_environment() else { return Ok(()) };
    let (uid, gid) = user.ids();
    match rustix::fs::fchown(file, Some(uid), Some(gid)) {
        // A file system without owners may say that all is his.
        Err(error) if !file.metadata().is_ok_and(|found| found.uid() == uid.as_raw()) => Err((user, error.into())),
        _ => Ok(()),
    }
}

/// Says, once, what the user has to do to read his outputs.
fn tell(given: Result<(), (SudoUser, io::Error)>, path: &Path) {
    static TOLD: Once = Once::new();
    let Err((user, error)) = given else { return };
    let (uid, gid) = user.ids();
    TOLD.call_once(|| {
        eprintln!(
            "What is written stays root's, since it cannot be given to user {0} ({error}). To read it: sudo chown -R {0}:{1} {2}",
            uid.as_raw(),
            gid.as_raw(),
            path.display()
        );
    });
}

fn write_to(out: impl Write, content: Content<'_>) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 16, Counted { out, bytes: 0 });
    content(&mut out)?;
    out.flush()?;
    Ok(out.get_ref().bytes)
}

/// Counts what is written.
struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
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
