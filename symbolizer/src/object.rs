//! What is looked up in: an ELF file that processes map.

use std::{fs::File, os::fd::OwnedFd, path::PathBuf, sync::Arc};

/// Identity of an executable or library: what stands for all of its content. Never its path, nor its build id, which is a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(pub Arc<str>);

/// An ELF file as some process maps it.
#[derive(Clone, Debug)]
pub struct Object {
    /// Identity: what is learnt of the file is kept under this key.
    pub key: ObjectKey,
    /// The very inode that was mapped. Its path may since have been deleted or replaced.
    pub file: Arc<File>,
    /// Path as the process sees it: for messages, and for debug files that lie beside the object.
    pub path: String,
    /// Root directory of the process (`/proc/PID/root`, or `/`), below which `path` is meant.
    pub root: PathBuf,
    /// That directory, open, where it is not to be had by its path any more, since the process has ended. It is used for as long as the caller keeps it.
    pub held: Option<Arc<OwnedFd>>,
}
