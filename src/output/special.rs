//! Outputs that are no files: devices and pipes.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags};

use super::Named;
use crate::launch::SudoUser;

/// How often it is looked whether the user still wants to wait.
const LOOK: Duration = Duration::from_millis(100);
/// A pipe that can take anything takes so much (`PIPE_BUF`).
const PIECE: usize = 4096;

/// What stands at a path and is to be written in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Special {
    /// Device and inode: what is opened is what was looked at.
    identity: (u64, u64),
    by_link: bool,
}

impl Special {
    /// The device or pipe at `path`; none if a file can be there.
    pub fn at(path: &Path, named: Named) -> io::Result<Option<Self>> {
        let Ok(found) = fs::symlink_metadata(path) else { return Ok(None) };
        let by_link = found.file_type().is_symlink();
        let target = if by_link { fs::metadata(path).ok() } else { Some(found.clone()) };
        // A link that leads nowhere makes room.
        let Some(target) = target else { return Ok(None) };
        let kind = target.file_type();
        if kind.is_dir() {
            return Err(refused("it is a directory"));
        }
        // Standard output and the like, which may also be a file.
        let is_of_kernel =
            by_link && folder_of(path).canonicalize().is_ok_and(|f| f == Path::new("/dev") || f.starts_with("/proc"));
        if kind.is_file() && !is_of_kernel {
            return Ok(None);
        }
        let what = match kind {
            kind if kind.is_fifo() => "named pipe",
            kind if kind.is_socket() => return Err(refused("it is a socket, which cannot be opened")),
            kind if kind.is_file() => "file",
            _ => "device",
        };
        if named == Named::ByDefault {
            return Err(refused(format!("it is a {what}; if that is what you mean, name it with -o")));
        }
        if by_link && !is_of_kernel && !(is_trusted(&found) && is_closed_to_others(path)) {
            return Err(refused(format!(
                "it is a link of user {}, or one that others can change, to a {what}: name the {what} itself",
                found.uid()
            )));
        }
        if kind.is_fifo() && !is_of_kernel && !is_trusted(&target) {
            return Err(refused(format!("it is a pipe of user {}, who would get the profile", target.uid())));
        }
        Ok(Some(Self { identity: (target.dev(), target.ino()), by_link }))
    }

    /// Opens it, at once, or, where nobody reads the pipe yet, until `give_up`.
    pub fn open(&self, path: &Path, give_up: &dyn Fn() -> bool) -> io::Result<File> {
        let follow = if self.by_link { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | follow).bits().cast_signed();
        loop {
            let found = fs::metadata(path)?;
            if (found.dev(), found.ino()) != self.identity {
                return Err(refused("it is not what it was when the recording began"));
            }
            match OpenOptions::new().write(true).custom_flags(flags).open(path) {
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) && found.file_type().is_fifo() => {
                    if give_up() {
                        return Err(refused("nobody has opened the pipe to read it"));
                    }
                    std::thread::sleep(LOOK);
                }
                Err(error) => return Err(error),
                Ok(file) => {
                    let opened = file.metadata()?;
                    if (opened.dev(), opened.ino()) != self.identity {
                        return Err(refused("it is not what it was when the recording began"));
                    }
                    return Ok(file);
                }
            }
        }
    }
}

/// The folder of a path.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn refused(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

/// Root's, our own, or of the user who called sudo.
fn is_trusted(found: &Metadata) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    let sudo = SudoUser::of_environment().map(|user| user.ids().0.as_raw());
    found.uid() == 0 || found.uid() == ours || sudo == Some(found.uid())
}

/// Whether nobody else can put something else under that name.
fn is_closed_to_others(path: &Path) -> bool {
    fs::metadata(folder_of(path)).is_ok_and(|folder| is_trusted(&folder) && folder.mode() & 0o022 == 0)
}

/// Writes as a reader takes it, and only as long as the user wants to wait.
pub(super) struct Patient<'a, W> {
    out: W,
    give_up: &'a dyn Fn() -> bool,
    /// Bytes that it takes for certain once it takes any.
    piece: usize,
}

impl<'a, W: Write + AsFd> Patient<'a, W> {
    pub fn new(out: W, give_up: &'a dyn Fn() -> bool) -> Self {
        let is_file =
            rustix::fs::fstat(&out).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile);
        Self { out, give_up, piece: if is_file { usize::MAX } else { PIECE } }
    }

    fn wait(&self) -> io::Result<()> {
        let timeout = Timespec::try_from(LOOK).map_err(io::Error::other)?;
        loop {
            let mut fds = [PollFd::new(&self.out, PollFlags::OUT)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                // What cannot be waited for is written to.
                Err(_) => return Ok(()),
            }
            if (self.give_up)() {
                return Err(refused("interrupted while nobody read"));
            }
        }
    }
}

impl<W: Write + AsFd> Write for Patient<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait()?;
            match self.out.write(bytes.get(..self.piece).unwrap_or(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
