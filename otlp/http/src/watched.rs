//! Files that are read again when they change.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Bytes that a certificate or headers file may have.
const MAX_BYTES: u64 = 4 << 20;

/// What tells that a file was written or replaced: device, inode, size, change and modification time. Kubernetes swaps a symbolic
/// link, which is followed.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec(), found.mtime(), found.mtime_nsec()))
}

/// A set of files and the state in which they were last seen.
#[derive(Debug, Default)]
pub struct Watched {
    files: Vec<(PathBuf, Stamp)>,
}

impl Watched {
    /// Files, as they are now.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { files: paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect() }
    }

    /// Whether a file is not as it was when this, or [`Self::new`], was last called.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, known) in &mut self.files {
            let now = stamp(path);
            changed |= now != *known;
            *known = now;
        }
        changed
    }

    /// As [`Self::changed`], without taking note.
    pub fn differs(&self) -> bool {
        self.files.iter().any(|(path, known)| stamp(path) != *known)
    }
}

/// All of a small file: a certificate, a key, a file of headers.
///
/// # Errors
/// It cannot be read, or has more than 4 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}
