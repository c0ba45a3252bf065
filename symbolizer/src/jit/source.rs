//! The files that a JIT writes, found and checked before they are read: regular, of the process's user or root, no links, and
//! within its own root directory.

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
    /// Takes a file that `owner` (or root) may have written.
    fn accept(file: File, owner: u32, limit: u64) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.uid() != owner && metadata.uid() != 0 {
            return Err(io::Error::other(format!("owned by user {}, the process runs as {owner}", metadata.uid())));
        }
        if metadata.len() > limit {
            return Err(io::Error::other(format!("{} bytes where at most {limit} are read", metadata.len())));
        }
        Ok(Self { file, inode: (metadata.dev(), metadata.ino()) })
    }

    /// Whether it is the same file.
    pub fn is(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

/// `/tmp/perf-PID.map` of a process: as it sees it, then, for one that writes to ours, as we do. None if there is none.
pub(super) fn perf_map(of: &JitProcess) -> io::Result<Option<Source>> {
    let Some(owner) = effective_user(of.pid) else { return Ok(None) };
    let candidates = [(of.root.as_path(), of.namespace_pid), (Path::new("/"), of.pid)];
    let mut refused = None;
    for (root, pid) in candidates {
        let path = format!("/tmp/perf-{pid}.map");
        match open_within(root, Path::new(&path), OFlags::NOFOLLOW)
            .and_then(|file| Source::accept(file, owner, MAX_FILE))
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
    let Some(owner) = effective_user(of.pid) else { return Ok(None) };
    let maps = File::open(format!("/proc/{}/maps", of.pid)).and_then(|file| {
        let mut maps = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_MAPS), &mut maps).map(|_| maps)
    });
    // The process may be gone.
    let Ok(maps) = maps else { return Ok(None) };
    let Some((path, inode)) = maps.split(|byte| *byte == b'\n').find_map(dump_in) else { return Ok(None) };
    let file = open_within(&of.root, Path::new(&path), OFlags::NOFOLLOW)?;
    let source = Source::accept(file, owner, MAX_DUMP)?;
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

/// Effective user id of a process; none if it is gone.
fn effective_user(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
