//! From a mapping to an open file that is proven to be the mapped one.
//!
//! Nothing is opened for reading before it is known to be a regular file and the mapped inode: `O_PATH` touches neither devices nor
//! pipes, and what it refers to is then opened through `/proc/self/fd`, without a second walk of a path that may have changed.

use std::fs::File;
use std::io::BufReader;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::{ffi::OsString, io};

use borsh::{BorshDeserialize, BorshSerialize};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, open, openat2, statx};
use rustix::io::Errno;

use super::{Mapper, OpenError};
use crate::maps::{self, FileId, Keep, Mapping};

/// Bytes of a mount table that are read.
const MAX_MOUNTINFO_BYTES: u64 = 4 << 20;

/// What tells a file and a state of it from every other on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct FileKey {
    /// Major and minor number.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Time of modification, s and ns.
    pub modified: (i64, u32),
    /// Time of change, s and ns.
    pub changed: (i64, u32),
}

impl FileKey {
    fn new(stat: &Statx) -> Self {
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: stat.stx_size,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    /// The key of an open file now.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::new(&stat(file)?))
    }

    /// The file as maps print it, where they and `stat` agree of it.
    pub(super) const fn file_id(&self) -> FileId {
        FileId { major: self.device.0, minor: self.device.1, inode: self.inode }
    }

    /// Whether it is `id` beyond doubt.
    pub(super) fn is(&self, id: FileId) -> bool {
        self.file_id() == id
    }

    /// The same inode, unwritten since unless its times were set back; it may have been renamed, linked or unlinked.
    pub(super) fn same_inode(&self, other: &Self) -> bool {
        Self { changed: other.changed, ..*self } == *other
    }
}

fn stat(file: impl AsFd) -> rustix::io::Result<Statx> {
    // DONT_SYNC: a remote server is not asked.
    statx(file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS)
}

/// How far a file that was found agrees with the mapping.
#[derive(PartialEq, Eq)]
enum Match {
    Exact,
    /// The same inode number on what may be another device: btrfs subvolumes and overlayfs print one device in maps and
    /// another in stat.
    InodeOnly,
    No,
}

/// A way to the file.
enum Way<'a> {
    /// A link of `/proc` that the kernel resolves to the mapped file itself.
    Link(String),
    /// The path of the mapping beneath a root directory.
    Beneath(String, &'a [u8]),
}

/// Opens the file that `mapping` of `process` maps; `safe` if the file system that it is on is known to answer reads.
pub(super) fn open_mapped(process: &Mapper<'_>, mapping: &Mapping, safe: bool) -> Result<(File, FileKey), OpenError> {
    let Some((id, path)) = mapping.file() else { return Err(OpenError::NoFile { start: mapping.start.0 }) };
    let pid = process.pid;
    let alive = process.alive;
    let mut search = Search { pid, id, path, replaced: false, denied: false };
    if id.major == 0
        && !safe
        && let Some(filesystem) = filesystem_of(pid, id)
        && filesystem.starts_with("fuse")
    {
        return Err(OpenError::Unbounded { path: search.text(), filesystem });
    }
    if alive {
        let range = Way::Link(format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start.0, mapping.end.0));
        if let Some(found) = search.try_way(range)? {
            return Ok(found);
        }
        if *process.exe == **path
            && let Some(found) = search.try_way(Way::Link(format!("/proc/{pid}/exe")))?
        {
            return Ok(found);
        }
        // The kernel may have split or merged the mapping since, or the process has unmapped this piece of the file only.
        for other in other_mappings(pid, id) {
            let link = format!("/proc/{pid}/map_files/{:x}-{:x}", other.start.0, other.end.0);
            if let Some(found) = search.try_way(Way::Link(link))? {
                return Ok(found);
            }
        }
        if let Some(found) = search.try_way(Way::Beneath(format!("/proc/{pid}/root"), path))? {
            return Ok(found);
        }
    }
    // A parent mostly lives in the same container.
    if process.parent != 0
        && let Some(found) = search.try_way(Way::Beneath(format!("/proc/{}/root", process.parent), path))?
    {
        return Ok(found);
    }
    if let Some(found) = search.try_way(Way::Beneath("/".to_owned(), path))? {
        return Ok(found);
    }
    Err(search.failed())
}

struct Search<'a> {
    pid: u32,
    id: FileId,
    path: &'a [u8],
    replaced: bool,
    denied: bool,
}

impl Search<'_> {
    fn text(&self) -> String {
        String::from_utf8_lossy(self.path).into_owned()
    }

    fn failed(&self) -> OpenError {
        let (pid, path) = (self.pid, self.text());
        match (self.replaced, self.denied) {
            (_, true) => OpenError::Denied { pid, path },
            (true, _) => OpenError::Replaced { pid, path },
            _ => OpenError::Gone { pid, path },
        }
    }

    /// `Ok(None)` if this way leads nowhere or elsewhere.
    fn try_way(&mut self, way: Way<'_>) -> Result<Option<(File, FileKey)>, OpenError> {
        let found = match &way {
            Way::Link(link) => open(link.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
            Way::Beneath(root, path) => open_beneath(root, path),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.denied |= matches!(error, Errno::ACCESS | Errno::PERM);
                return Ok(None);
            }
        };
        let failed = |path: String| move |error: Errno| OpenError::Read { path, source: error.into() };
        let stat = stat(&found).map_err(failed(self.text()))?;
        let key = FileKey::new(&stat);
        let agrees = match way {
            Way::Link(link) => match agreement(&key, self.id) {
                Match::No => key.device != (self.id.major, self.id.minor) && links_to(&link, self.path),
                Match::Exact | Match::InodeOnly => true,
            },
            Way::Beneath(..) => match agreement(&key, self.id) {
                Match::Exact => true,
                Match::InodeOnly => is_stacked(&found),
                Match::No => false,
            },
        };
        if !agrees {
            self.replaced = true;
            return Ok(None);
        }
        match read_itself(&found, &stat) {
            None => Err(OpenError::NotRegular { path: self.text() }),
            Some(Ok(file)) => Ok(Some((file, key))),
            Some(Err(Errno::ACCESS | Errno::PERM)) => {
                self.denied = true;
                Ok(None)
            }
            Some(Err(error)) => Err(failed(self.text())(error)),
        }
    }
}

fn agreement(key: &FileKey, id: FileId) -> Match {
    if key.is(id) {
        Match::Exact
    } else if key.inode == id.inode {
        Match::InodeOnly
    } else {
        Match::No
    }
}

/// Whether the kernel says that `link`, one of its own, leads to `path`.
fn links_to(link: &str, path: &[u8]) -> bool {
    let target = std::fs::read_link(link).map(|target| target.into_os_string().into_vec());
    target.is_ok_and(|target| maps::without_deleted(&target) == path)
}

/// Opens `path` as a process would whose root directory is `root`: links and `..` can't lead out of it.
fn open_beneath(root: &str, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, directory, Mode::empty())?;
    let path = PathBuf::from(OsString::from_vec(path.to_vec()));
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        // The kernel asks to try again when a path was renamed under its feet; one more try is enough for honest cases.
        Err(Errno::AGAIN) => openat2(&root, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve),
        other => other,
    }
}

/// File systems on which maps and stat disagree about the device of one inode.
fn is_stacked(file: &OwnedFd) -> bool {
    const BTRFS: i64 = 0x9123_683e;
    const OVERLAY: i64 = 0x794c_7630;
    #[allow(clippy::useless_conversion)] // the field's type differs between architectures
    rustix::fs::fstatfs(file).is_ok_and(|fs| matches!(i64::from(fs.f_type), BTRFS | OVERLAY))
}

/// All mappings of the file `id`, executable or not: any of them leads to it.
fn other_mappings(pid: u32, id: FileId) -> Vec<Mapping> {
    let Ok(file) = File::open(format!("/proc/{pid}/maps")) else { return Vec::new() };
    let Ok(parsed) = maps::parse(BufReader::new(file), Keep::All) else { return Vec::new() };
    parsed.mappings.into_iter().filter(|mapping| mapping.file().is_some_and(|(file, _)| file == id)).take(4).collect()
}

/// The type of the file system on the anonymous device of `id`, by the process's mount table, else by ours.
fn filesystem_of(pid: u32, id: FileId) -> Option<String> {
    use std::io::Read;
    [format!("/proc/{pid}/mountinfo"), "/proc/self/mountinfo".to_owned()].iter().find_map(|path| {
        let mut table = Vec::new();
        File::open(path).ok()?.take(MAX_MOUNTINFO_BYTES).read_to_end(&mut table).ok()?;
        parse_filesystem(&table, id)
    })
}

/// `36 35 98:0 /root /mount/point options optional... - TYPE source options` (proc_pid_mountinfo(5)).
fn parse_filesystem(table: &[u8], id: FileId) -> Option<String> {
    let device = format!("{}:{}", id.major, id.minor);
    table.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        if fields.nth(2)? != device.as_bytes() {
            return None;
        }
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(String::from_utf8_lossy(kind).into_owned())
    })
}

/// Opens whatever regular file `path` leads to, without following links of `/proc`; the caller judges by the key.
pub(super) fn open_path(path: &[u8]) -> Option<(File, FileKey)> {
    reopen(openat2(
        CWD,
        PathBuf::from(OsString::from_vec(path.to_vec())),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    ))
}

/// [`open_path`] of a link of `/proc`, which the kernel resolves itself.
pub(super) fn open_link(link: &str) -> Option<(File, FileKey)> {
    reopen(open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))
}

/// [`open_path`] beneath the root directory of a process.
pub(super) fn open_in_root(pid: u32, path: &[u8]) -> Option<(File, FileKey)> {
    reopen(open_beneath(&format!("/proc/{pid}/root"), path))
}

fn reopen(found: rustix::io::Result<OwnedFd>) -> Option<(File, FileKey)> {
    let found = found.ok()?;
    let stat = stat(&found).ok()?;
    let file = read_itself(&found, &stat)?.ok()?;
    Some((file, FileKey::new(&stat)))
}

/// Opens for reading what `found` refers to; `None` if that is no regular file.
fn read_itself(found: &OwnedFd, stat: &Statx) -> Option<rustix::io::Result<File>> {
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
        return None;
    }
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Some(open(itself.as_str(), flags, Mode::empty()).map(File::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_of_a_device() {
        let table = b"29 1 0:27 / / rw,relatime shared:1 master:2 - btrfs /dev/sda1 rw\n\
            30 29 0:45 / /home/a\\040b rw,nosuid - fuse.sshfs host: rw\n31 29 8:1 / /boot rw - ext4 /dev/sda1 rw\n";
        let of = |minor| parse_filesystem(table, FileId { major: 0, minor, inode: 1 });
        assert_eq!(of(27).as_deref(), Some("btrfs"));
        assert_eq!(of(45).as_deref(), Some("fuse.sshfs"));
        assert_eq!(of(99), None);
    }
}
