//! Reading of files that others may change under us.
//!
//! Files are read with `pread(2)`, never mapped: a process can truncate a library that it maps, and a mapping of ours would
//! then deliver SIGBUS.

use crate::headers::Source;
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There are fewer.
    #[error("wanted {wanted} bytes at {at:#x} of {len:#x}")]
    OutOfBounds {
        /// Offset of the first one.
        at: u64,
        /// How many.
        wanted: u64,
        /// How many there are in all.
        len: u64,
    },
    /// See [`Paged::set_work`](crate::Paged::set_work).
    #[error("the limit of work for one file is used up")]
    WorkLimit,
    /// The kernel's answer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file, or memory that stands for one.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// An open file.
    File {
        /// The file.
        file: Arc<File>,
        /// Bytes that it had when it was opened.
        len: u64,
    },
    /// Memory.
    Memory(Arc<[u8]>),
    /// Memory that was filled as its content came, and is not copied to be shared.
    Unpacked(Arc<Vec<u8>>),
}

impl Bytes {
    /// The whole of a regular file.
    ///
    /// # Errors
    /// It is not a regular file, or the kernel tells nothing of it.
    pub fn of_file(file: Arc<File>) -> Result<Self, ReadError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(ReadError::Io(io::Error::other("not a regular file")));
        }
        Ok(Self::File { file, len: metadata.len() })
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(memory) => memory.len() as u64,
            Self::Unpacked(memory) => memory.len() as u64,
        }
    }

    /// All of them, if they are in memory.
    #[inline]
    pub(crate) fn memory(&self) -> Option<&[u8]> {
        match self {
            Self::File { .. } => None,
            Self::Memory(memory) => Some(memory),
            Self::Unpacked(memory) => Some(memory),
        }
    }

    /// The `len` bytes from `at`, as far as they go, as a stream.
    pub fn stream(&self, at: u64, len: u64) -> impl io::Read {
        io::BufReader::with_capacity(
            64 << 10,
            Stream { bytes: self.clone(), at, end: at.saturating_add(len).min(self.len()) },
        )
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills as much of `out` as there is at `at`; gives how much that is.
    pub(crate) fn read_up_to_end(&self, at: u64, out: &mut [u8]) -> Result<usize, ReadError> {
        let file = match self {
            Self::File { file, .. } => file,
            Self::Memory(memory) => return memory.read_some(at, out),
            Self::Unpacked(memory) => return memory.read_some(at, out),
        };
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Fills `out` from `at`, wholly or not at all.
    ///
    /// # Errors
    /// There are fewer bytes, or reading fails.
    pub fn read_exact_at(&self, at: u64, out: &mut [u8]) -> Result<(), ReadError> {
        let wanted = out.len() as u64;
        let out_of_bounds = || ReadError::OutOfBounds { at, wanted, len: self.len() };
        let end = at.checked_add(wanted).filter(|end| *end <= self.len()).ok_or_else(out_of_bounds)?;
        let memory = match self {
            Self::File { file, .. } => return Ok(file.read_exact_at(out, at)?),
            Self::Memory(memory) => &**memory,
            Self::Unpacked(memory) => memory,
        };
        let range = usize::try_from(at).ok().zip(usize::try_from(end).ok());
        let bytes = range.and_then(|(start, end)| memory.get(start..end)).ok_or_else(out_of_bounds)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    /// `len` bytes from `at`. Whoever calls bounds `len`.
    ///
    /// # Errors
    /// There are fewer bytes, or reading fails.
    pub fn read_vec(&self, at: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        let out_of_bounds = || ReadError::OutOfBounds { at, wanted: len, len: self.len() };
        // Before allocating: a header may claim any size.
        at.checked_add(len).filter(|end| *end <= self.len()).ok_or_else(out_of_bounds)?;
        let mut out = vec![0; usize::try_from(len).map_err(|_| out_of_bounds())?];
        self.read_exact_at(at, &mut out)?;
        Ok(out)
    }
}

/// A run of bytes, read from front to back.
struct Stream {
    bytes: Bytes,
    at: u64,
    end: u64,
}

impl io::Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(out.len());
        let got =
            self.bytes.read_up_to_end(self.at, out.get_mut(..len).unwrap_or_default()).map_err(io::Error::other)?;
        self.at += got as u64;
        Ok(got)
    }
}
