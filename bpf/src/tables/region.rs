//! Memory that is shared with the kernel half, or, for tests, plain memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use crate::error::{Error, Result};

/// A fixed array of `T` that the kernel half may be reading.
#[derive(Debug)]
pub(crate) struct Region<T> {
    base: NonNull<T>,
    len: usize,
    _map: Option<OwnedFd>,
}

// SAFETY: the memory is owned by the region alone on this side, and `T` is plain integers.
unsafe impl<T: Send> Send for Region<T> {}

impl<T: Copy> Region<T> {
    /// Maps the whole of an array map.
    pub(crate) fn of_map(fd: BorrowedFd<'_>, len: usize) -> Result<Self> {
        let map = fd.try_clone_to_owned().map_err(|error| Error::io("duplicate a map's file descriptor", error))?;
        Self::mmap(Some(map), len)
    }

    /// Plain zeroed memory of the same shape.
    pub(super) fn in_memory(len: usize) -> Result<Self> {
        Self::mmap(None, len)
    }

    fn mmap(map: Option<OwnedFd>, len: usize) -> Result<Self> {
        let bytes = len * size_of::<T>();
        let (flags, fd) = match &map {
            Some(map) => (libc::MAP_SHARED, map.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::io("map a table of the kernel half", io::Error::last_os_error()));
        }
        // SANITY: mmap returned neither MAP_FAILED nor, without MAP_FIXED, 0.
        let base = NonNull::new(base.cast()).expect("mmap gives an address");
        Ok(Self { base, len, _map: map })
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.base.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The entry at `index`, if there is one.
    pub(crate) fn read(&self, index: usize) -> Option<T> {
        // SAFETY: in bounds; the kernel half never writes to tables, and this side writes only through `&mut self`.
        (index < self.len).then(|| unsafe { ptr::read_volatile(self.base.as_ptr().add(index)) })
    }

    /// Writes `values` from `index` on; false if they don't fit.
    pub(crate) fn write(&mut self, index: usize, values: &[T]) -> bool {
        if index.checked_add(values.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        // SAFETY: in bounds, and `values` is not in this mapping, which nobody else has a reference into.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), self.base.as_ptr().add(index), values.len()) };
        true
    }
}

impl<T> Drop for Region<T> {
    fn drop(&mut self) {
        // SAFETY: base and length are those of our own mapping, and nothing outlives the region.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}
