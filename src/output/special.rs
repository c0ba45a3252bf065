//! Outputs that are no files: devices and pipes.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
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
#[derive(Debug)]
pub(super) struct Special {
    /// Opened without a right to read or write: what is looked at is what is written to, whatever has its name then.
    held: File,
    /// Standard output or another descriptor of ours, where that is a file: its place in the file is ours, too.
    inherited: Option<File>,
}

impl Special {
    /// The device or pipe at `path`; none if a file can be there.
    pub fn at(path: &Path, named: Named) -> io::Result<Option<Self>> {
        let Ok(itself) = hold(path, OFlags::NOFOLLOW) else { return Ok(None) };
        let found = itself.metadata()?;
        let by_link = found.file_type().is_symlink();
        let held = if by_link { hold(path, OFlags::empty()).ok() } else { Some(itself) };
        // A link that leads nowhere makes room.
        let Some(held) = held else { return Ok(None) };
        let target = held.metadata()?;
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
        let inherited = if kind.is_file() { inherited(&target)? } else { None };
        Ok(Some(Self { held, inherited }))
    }

    /// Opens it, at once, or, where nobody reads the pipe yet, until `give_up`.
    pub fn open(self, path: &Path, give_up: &dyn Fn() -> bool) -> io::Result<File> {
        let Self { held, inherited } = self;
        if let Some(inherited) = inherited {
            return Ok(inherited);
        }
        let identity = held.metadata()?;
        // Of a file what is there already stays.
        let append = if identity.is_file() { OFlags::APPEND } else { OFlags::empty() };
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | append).bits().cast_signed();
        let held_path = format!("/proc/self/fd/{}", held.as_raw_fd());
        loop {
            // Nobody would look for the profile in what is not there any more.
            let found = fs::metadata(path)?;
            if (found.dev(), found.ino()) != (identity.dev(), identity.ino()) {
                return Err(refused("it is not what it was when the recording began"));
            }
            match OpenOptions::new().write(true).custom_flags(flags).open(&held_path) {
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) && identity.file_type().is_fifo() => {
                    if give_up() {
                        return Err(refused("nobody has opened the pipe to read it"));
                    }
                    std::thread::sleep(LOOK);
                }
                opened => return opened,
            }
        }
    }
}

fn hold(path: &Path, flags: OFlags) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlags::PATH | flags).bits().cast_signed()).open(path)
}

/// The one of standard output, error and input that is this file, and may be written to.
fn inherited(file: &Metadata) -> io::Result<Option<File>> {
    let (stdout, stderr, stdin) = (io::stdout(), io::stderr(), io::stdin());
    for fd in [stdout.as_fd(), stderr.as_fd(), stdin.as_fd()] {
        let is_writable = rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::RWMODE != OFlags::RDONLY);
        let is_it = |found: rustix::fs::Stat| (found.st_dev, found.st_ino) == (file.dev(), file.ino());
        if is_writable && rustix::fs::fstat(fd).is_ok_and(is_it) {
            return Ok(Some(File::from(fd.try_clone_to_owned()?)));
        }
    }
    Ok(None)
}

/// The folder of a path.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn refused(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

/// Root's, our own, or of the user who called sudo.
pub(super) fn is_trusted(found: &Metadata) -> bool {
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
            self.check()?;
        }
    }

    /// A file takes all at once; who reads may take his time.
    fn check(&self) -> io::Result<()> {
        if self.piece == PIECE && (self.give_up)() {
            return Err(refused("interrupted before its reader had taken all of it"));
        }
        Ok(())
    }
}

impl<W: Write + AsFd> Write for Patient<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.check()?;
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;

    use super::*;

    #[test]
    fn a_reader_that_goes_on_is_no_reason_to_go_on() {
        let (mut reader, writer) = io::pipe().unwrap();
        let reading = std::thread::spawn(move || {
            let mut taken = Vec::new();
            reader.read_to_end(&mut taken).map(|_| taken.len())
        });
        let asked = Cell::new(0);
        let give_up = || asked.replace(asked.get() + 1) >= 10;
        let mut patient = Patient::new(File::from(std::os::fd::OwnedFd::from(writer)), &give_up);
        assert!(patient.write_all(&[0; 1 << 20]).unwrap_err().to_string().contains("interrupted"));
        drop(patient);
        assert!(reading.join().unwrap().unwrap() <= 10 * PIECE);
    }

    #[test]
    fn what_takes_the_place_of_a_pipe_is_not_written_to() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pipe");
        let make = || rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        for _ in 0..100 {
            make();
            let special = Special::at(&path, Named::ByUser).unwrap().unwrap();
            fs::remove_file(&path).unwrap();
            // Many file systems give it the number that has just become free.
            fs::write(&path, "precious").unwrap();
            let error = special.open(&path, &|| true).unwrap_err();
            assert!(error.to_string().contains("not what it was"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), b"precious");
            fs::remove_file(&path).unwrap();
        }
    }
}
