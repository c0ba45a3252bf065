//! The files that a JIT writes, found and checked before they are read: regular, of the process's user, or of root and for that user
//! to read, no links, and within its own root directory. A process can put any file of the host in their place by a bind mount.

use super::{JitProcess, perf_map::MAX_FILE};
use crate::debug_files::open_within;
use rustix::fs::OFlags;
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

/// Largest file read, bytes: far above what JITs write.
const MAX_DUMP: u64 = 16 << 30;
const MAX_MAPS: u64 = 64 << 20;

/// Where what a JIT wrote is read from.
pub(crate) trait ReadAt {
    /// Fills as much of `out` as there is at `at`.
    fn read_at(&self, at: u64, out: &mut [u8]) -> usize;
    /// Length now, and time of the last change, ns.
    fn state(&self) -> (u64, i64);
}

impl ReadAt for [u8] {
    fn read_at(&self, at: u64, out: &mut [u8]) -> usize {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(out.len());
        if let (Some(out), Some(rest)) = (out.get_mut(..len), rest.get(..len)) {
            out.copy_from_slice(rest);
        }
        len
    }

    fn state(&self) -> (u64, i64) {
        (self.len() as u64, 0)
    }
}

impl ReadAt for Source {
    fn read_at(&self, at: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        done
    }

    fn state(&self) -> (u64, i64) {
        self.file
            .metadata()
            .map_or((0, 0), |m| (m.len(), m.mtime().wrapping_mul(1_000_000_000).wrapping_add(m.mtime_nsec())))
    }
}

/// A file that grows.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    inode: (u64, u64),
}

impl Source {
    /// Takes a file that a process of `user` may have written; one of root's only if that process could read it itself.
    fn accept(file: File, user: &User, limit: u64) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let (owner, mode) = (metadata.uid(), metadata.mode());
        if owner != user.id && owner != 0 {
            return Err(io::Error::other(format!("owned by user {owner}, the process runs as {}", user.id)));
        }
        let by_group = mode & 0o040 != 0 && user.groups.contains(&metadata.gid());
        if owner != user.id && mode & 0o004 == 0 && !by_group {
            return Err(io::Error::other(format!("owned by root, and not for user {} to read", user.id)));
        }
        if metadata.len() > limit {
            return Err(io::Error::other(format!("{} bytes where at most {limit} are read", metadata.len())));
        }
        Ok(Self { file, inode: (metadata.dev(), metadata.ino()) })
    }

    /// Device and inode.
    pub fn inode(&self) -> (u64, u64) {
        self.inode
    }

    /// Whether it is the same file.
    pub fn is(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

/// `/tmp/perf-PID.map` of a process: as it sees it, then, for one that writes to ours, as we do. None if there is none.
pub(super) fn perf_map(of: &JitProcess) -> io::Result<Option<Source>> {
    let Some(user) = User::of(of.pid) else { return Ok(None) };
    let candidates = [(of.root.as_path(), of.namespace_pid), (Path::new("/"), of.pid)];
    let mut refused = None;
    for (root, pid) in candidates {
        let path = format!("/tmp/perf-{pid}.map");
        match open_within(root, Path::new(&path), OFlags::NOFOLLOW)
            .and_then(|file| Source::accept(file, &user, MAX_FILE))
        {
            Ok(source) => return Ok(Some(source)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => refused = Some(io::Error::new(error.kind(), format!("{path}: {error}"))),
        }
    }
    refused.map_or(Ok(None), Err)
}

/// The jitdump of a process: it maps the file's first page executable for us to find it.
pub(super) fn jit_dump(of: &JitProcess) -> io::Result<Option<Source>> {
    let Some(user) = User::of(of.pid) else { return Ok(None) };
    let maps = File::open(format!("/proc/{}/maps", of.pid)).and_then(|file| {
        let mut maps = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_MAPS), &mut maps).map(|_| maps)
    });
    // The process may be gone.
    let Ok(maps) = maps else { return Ok(None) };
    let Some((path, inode)) = maps.split(|byte| *byte == b'\n').find_map(dump_in) else { return Ok(None) };
    let file = open_within(&of.root, Path::new(&path), OFlags::NOFOLLOW)?;
    let source = Source::accept(file, &user, MAX_DUMP)?;
    if source.inode.1 != inode {
        return Err(io::Error::other(format!("{path}: not the file that the process maps")));
    }
    Ok(Some(source))
}

/// Path and inode, if a line of `/proc/PID/maps` maps a jitdump executable.
fn dump_in(line: &[u8]) -> Option<(String, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.splitn(6, ' ');
    let (_, permissions, _, _, inode) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let path = words.next()?.trim_start();
    let name = path.rsplit('/').next()?;
    let digits = name.strip_prefix("jit-")?.strip_suffix(".dump")?;
    let is_dump = permissions.contains('x') && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_dump.then_some((path.to_owned(), inode.parse().ok()?))
}

/// As whom a process runs.
#[derive(Debug, PartialEq, Eq)]
struct User {
    id: u32,
    /// The effective one, and all others.
    groups: Vec<u32>,
}

impl User {
    /// By the effective ids of a process; none if it is gone.
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let numbers = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.into_iter().flat_map(str::split_ascii_whitespace).filter_map(|number| number.parse().ok())
        };
        let id = numbers("Uid:").nth(1)?;
        Some(Self { id, groups: numbers("Gid:").nth(1).into_iter().chain(numbers("Groups:")).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn of_roots_files_only_those_that_the_process_may_read_are_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let set = |mode| std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
        let taken = |id, groups: &[u32]| {
            Source::accept(file.reopen().unwrap(), &User { id, groups: groups.to_vec() }, 1 << 20).is_ok()
        };
        let metadata = file.as_file().metadata().unwrap();
        set(0o600);
        assert!(taken(metadata.uid(), &[]), "its own");
        // Root's, as a bind mount may put it there; another user's is nobody's business anyway.
        let other = 65534;
        assert!(!taken(other, &[other]) && !taken(other, &[metadata.gid()]));
        set(0o640);
        assert!(!taken(other, &[other]));
        if metadata.uid() == 0 {
            assert!(taken(other, &[other, metadata.gid()]));
            set(0o644);
            assert!(taken(other, &[]));
        }
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        assert_eq!(User::parse(status), Some(User { id: 2, groups: vec![6, 9, 10] }));
        assert_eq!(User::parse("Name:\tx\n"), None);
    }

    #[test]
    fn only_an_executable_mapping_of_a_dump_counts() {
        let line = |text: &str| dump_in(text.as_bytes());
        let found =
            line("7f0000000000-7f0000001000 r-xp 00000000 08:01 1234                       /tmp/a b/jit-77.dump");
        assert_eq!(found, Some(("/tmp/a b/jit-77.dump".into(), 1234)));
        assert_eq!(line("7f0000000000-7f0000001000 r--p 00000000 08:01 1234    /tmp/jit-77.dump"), None);
        assert_eq!(line("7f0000000000-7f0000001000 r-xp 00000000 08:01 1234    /tmp/jit-x.dump"), None);
        assert_eq!(line("7f0000000000-7f0000001000 r-xp 00000000 00:00 0"), None);
        assert_eq!(line(""), None);
    }
}
