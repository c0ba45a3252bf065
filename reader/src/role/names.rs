//! Naming: a symbolizer, and what it is asked for.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use profiler_address::{ElfVaddr, UserAddr};
use profiler_symbolizer::{JitProcess, Object, ObjectKey, Options, Stats, Symbolizer};
use rustix::fs::{AtFlags, FileType, MemfdFlags, Mode, OFlags, StatxFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::wire::names::{Content, HeldRoot, JitCode, MAX_NAMES, Named, NamedFile, ReadFields, root_of};

/// Names frames.
pub(super) struct Naming {
    symbolizer: Symbolizer,
}

impl Naming {
    pub(super) fn new(options: Options) -> Self {
        Self { symbolizer: Symbolizer::new(options) }
    }

    /// Names of addresses in a file; none if its bytes cannot be had.
    pub(super) fn native(&mut self, of: NamedFile, addresses: &[u64], room: usize, forget: bool) -> Option<Named> {
        let file = match of.content {
            Content::Bytes(bytes) => memory_file(&bytes),
            Content::Lent { pid, descriptor, device, inode } => borrow(pid, descriptor, (device, inode)),
        };
        let file =
            file.inspect_err(|error| tracing::debug!(path = of.path, %error, "no file to name frames by")).ok()?;
        let (root, held) = match of.root {
            Some(pid) => (root_of(pid), of.held.and_then(|held| instead_of(pid, held)).map(Arc::new)),
            None => (PathBuf::from("/"), None),
        };
        let object = Object { key: ObjectKey(of.key.into()), file: Arc::new(file), path: of.path, root, held };
        let addresses: Vec<ElfVaddr> = addresses.iter().copied().map(ElfVaddr).collect();
        let named = Named::of(&self.symbolizer.native(&object, &addresses), room);
        // Fewer are asked for at once if some had no room.
        if forget && (named.left_out == 0 || addresses.len() == 1 || room < MAX_NAMES) {
            self.symbolizer.evict(&object.key);
        }
        Some(named)
    }

    /// What addresses in code of a JIT have meant.
    pub(super) fn generations(&mut self, of: &JitCode, addresses: &[u64], room: usize) -> Named {
        let addresses: Vec<UserAddr> = addresses.iter().copied().map(UserAddr).collect();
        let process = self.begin(of);
        Named::of_generations(&self.symbolizer.jit_generations(&process, &addresses), room)
    }

    pub(super) fn prefetch(&mut self, of: &JitCode) {
        let process = self.begin(of);
        self.symbolizer.jit_prefetch(&process);
    }

    fn begin(&mut self, of: &JitCode) -> JitProcess {
        let process = of.process();
        if let Some(read) = of.read() {
            self.symbolizer.jit_resume(&process, read);
        }
        process
    }

    /// How far the perf map was read.
    pub(super) fn so_far(&self, of: &JitCode) -> Option<ReadFields> {
        self.symbolizer.jit_so_far(&of.process()).as_ref().map(ReadFields::of)
    }

    pub(super) fn forget(&mut self) {
        self.symbolizer.forget();
    }

    pub(super) fn stats(&self) -> Stats {
        self.symbolizer.stats()
    }
}

/// What has no file, the vDSO, becomes one.
fn memory_file(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("vdso", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// The file that `pid`, another reader, has open: the very same opening, so that nothing of its file system's is asked for. Where that is
/// refused it is opened once more.
fn borrow(pid: u32, descriptor: i32, identity: (u64, u64)) -> io::Result<File> {
    taken_or_opened(taken(pid, descriptor), pid, descriptor, identity)
}

fn taken_or_opened(
    taken: rustix::io::Result<OwnedFd>,
    pid: u32,
    descriptor: i32,
    identity: (u64, u64),
) -> io::Result<File> {
    let file = match taken {
        Ok(descriptor) => File::from(descriptor),
        Err(_) => {
            // By its path alone first: whatever has that number by now, a device say, is not to be opened.
            let path = rustix::fs::open(
                format!("/proc/{pid}/fd/{descriptor}"),
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            same(&path, identity)?;
            File::open(format!("/proc/self/fd/{}", path.as_raw_fd()))?
        }
    };
    same(&file, identity)?;
    Ok(file)
}

/// The directory `held`, if the process whose root it was is not there any more, or has another one.
fn instead_of(pid: u32, held: HeldRoot) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let identity = (held.device, held.inode);
    let is_it = |found: &OwnedFd| identity_of(found).is_ok_and(|found| found == (identity, FileType::Directory));
    if rustix::fs::open(root_of(pid), flags, Mode::empty()).is_ok_and(|root| is_it(&root)) {
        return None;
    }
    let found = taken(held.pid, held.descriptor)
        .or_else(|_| rustix::fs::open(format!("/proc/{}/fd/{}", held.pid, held.descriptor), flags, Mode::empty()));
    found.ok().filter(is_it)
}

/// A descriptor of another process.
fn taken(pid: u32, descriptor: i32) -> rustix::io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(rustix::io::Errno::SRCH)?;
    pidfd_getfd(pidfd_open(pid, PidfdFlags::empty())?, descriptor, PidfdGetfdFlags::empty())
}

/// Device and inode of an open file, and what it is, by what the kernel knows: a server of its file system is not asked, which may take as long as that
/// one likes.
pub(super) fn identity_of(file: impl AsFd) -> io::Result<((u64, u64), FileType)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(file, c"", flags, StatxFlags::TYPE | StatxFlags::INO)?;
    let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    Ok(((device, stat.stx_ino), FileType::from_raw_mode(stat.stx_mode.into())))
}

/// Whoever lent it may have ended, or closed it.
fn same(file: impl AsFd, identity: (u64, u64)) -> io::Result<()> {
    let (found, kind) = identity_of(file)?;
    if found == identity && kind == FileType::RegularFile {
        return Ok(());
    }
    Err(io::Error::other("it is another file by now"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_borrowed_and_no_other_in_its_place() {
        let file = File::open("/proc/self/exe").unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let (pid, identity) = (std::process::id(), (stat.st_dev, stat.st_ino));
        let borrowed = borrow(pid, file.as_raw_fd(), identity).unwrap();
        assert_eq!(borrowed.metadata().unwrap().len(), file.metadata().unwrap().len());
        assert!(borrow(pid, file.as_raw_fd(), (stat.st_dev, stat.st_ino + 1)).is_err());
        assert!(borrow(pid, 9999, identity).is_err());
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let pipe = rustix::fs::fstat(&reader).unwrap();
        assert!(borrow(pid, reader.as_raw_fd(), (pipe.st_dev, pipe.st_ino)).is_err(), "no regular file");
    }

    #[test]
    fn an_identity_is_the_one_that_the_kernel_tells_everybody() {
        for path in ["/proc/self/exe", "/dev/null", "/proc/self/status"] {
            let file = File::open(path).unwrap();
            let stat = rustix::fs::fstat(&file).unwrap();
            let told = ((stat.st_dev, stat.st_ino), FileType::from_raw_mode(stat.st_mode));
            assert_eq!(identity_of(&file).unwrap(), told, "{path}");
        }
    }

    #[test]
    fn where_no_descriptor_may_be_taken_the_file_is_opened_once_more_and_nothing_else_is() {
        let file = File::open("/proc/self/exe").unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let identity = (stat.st_dev, stat.st_ino);
        let opened = |file: &dyn AsRawFd, identity| {
            taken_or_opened(Err(rustix::io::Errno::PERM), std::process::id(), file.as_raw_fd(), identity)
        };
        assert_eq!(opened(&file, identity).unwrap().metadata().unwrap().len(), file.metadata().unwrap().len());
        assert!(opened(&file, (stat.st_dev, stat.st_ino + 1)).is_err());
        // Whoever opened it to read would wait for a writer.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let pipe = rustix::fs::fstat(&reader).unwrap();
        drop(writer);
        assert!(opened(&reader, (pipe.st_dev, pipe.st_ino)).is_err());
    }
}
