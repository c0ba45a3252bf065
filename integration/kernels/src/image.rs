//! An initramfs: a cpio archive in the `newc` format (the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A file for the guest, at `path` below its root.
#[derive(Debug)]
pub struct File {
    /// Where the guest has it, without the leading slash.
    pub path: String,
    /// The host's file that it is.
    pub from: PathBuf,
}

const FOLDER: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
/// Where `guest/init` mounts something.
const FOLDERS: &[&str] = &["bin", "dev", "etc", "proc", "programs", "root", "sys", "tmp"];

/// Writes the archive of `files`, all executable, to `path`.
///
/// # Errors
/// A file cannot be read or written.
pub fn write(path: &Path, files: &[File]) -> Result<(), Error> {
    let mut archive = Vec::new();
    for (inode, folder) in (1..).zip(FOLDERS) {
        entry(&mut archive, inode, folder, FOLDER, &[]);
    }
    for (inode, file) in (100..).zip(files) {
        let content = fs::read(&file.from).map_err(Error::file("read", &file.from))?;
        entry(&mut archive, inode, &file.path, EXECUTABLE, &content);
    }
    entry(&mut archive, 0, "TRAILER!!!", 0, &[]);
    fs::write(path, archive).map_err(Error::file("write", path))
}

fn entry(archive: &mut Vec<u8>, inode: u32, name: &str, mode: u32, content: &[u8]) {
    let mut header = String::from("070701");
    let links = if mode == FOLDER { 2 } else { 1 };
    // inode, mode, uid, gid, links, mtime, size, device, device of a node, length of the name, checksum
    for field in [inode, mode, 0, 0, links, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0] {
        let _ = write!(header, "{field:08x}");
    }
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    align(archive);
    archive.extend_from_slice(content);
    align(archive);
}

fn align(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_kernels_layout() {
        let mut archive = Vec::new();
        entry(&mut archive, 7, "init", EXECUTABLE, b"hello");
        let text = String::from_utf8_lossy(&archive);
        assert!(text.starts_with("07070100000007000081ed"), "{text}");
        assert_eq!(archive.len(), (110usize + 5).next_multiple_of(4) + 8);
        assert_eq!(text.get(54..62), Some("00000005"), "the size");
        assert_eq!(text.get(94..102), Some("00000005"), "the length of the name");
    }
}
