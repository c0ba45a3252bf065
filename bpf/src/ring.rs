//! The reading end of a source's ring, and the records that come out of it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libbpf_rs::{MapCore, RingBuffer, RingBufferBuilder};

use crate::error::{Error, Result};
use crate::record::Sample;
use crate::sampler::bpf_error;

/// The reading end of the ring of one source; may live on another thread than the [`Sampler`](crate::Sampler).
pub struct SampleRing {
    ring: RingBuffer<'static>,
    inbox: Arc<Mutex<Inbox>>,
}

/// What libbpf is told by who has taken enough.
const ENOUGH: i32 = -libc::EAGAIN;

/// Records as they come out of the ring, end to end, and where each ends.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl SampleRing {
    pub(crate) fn of_map(map: &libbpf_rs::MapMut<'_>) -> Result<Self> {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let sink = Arc::clone(&inbox);
        // With a copy of its stack a record is a hundred times as long as without: bytes tell, and not records.
        let most = map.max_entries() as usize;
        let mut builder = RingBufferBuilder::new();
        let added = builder.add(map, move |record| {
            let mut inbox = sink.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.bytes.extend_from_slice(record);
            let end = inbox.bytes.len();
            inbox.ends.push(end);
            if end < most { 0 } else { ENOUGH }
        });
        added.map_err(|source| bpf_error("read the ring of", source))?;
        let ring = builder.build().map_err(|source| bpf_error("read the ring of", source))?;
        Ok(Self { ring, inbox })
    }

    /// Waits until the kernel half asks for attention, since a process or library is new to it or the ring is a quarter full, or for
    /// `timeout` at most. Ordinary samples wake nobody.
    ///
    /// # Errors
    /// The ring cannot be polled.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the descriptor is the ring's own, and the list has room for the one event that is asked for.
        let told = unsafe { libc::epoll_wait(self.fd().as_raw_fd(), &raw mut event, 1, timeout) };
        let error = io::Error::last_os_error();
        if told < 0 && error.kind() != io::ErrorKind::Interrupted {
            return Err(Error::io("poll a ring of samples", error));
        }
        Ok(())
    }

    /// What becomes readable when the kernel half asks for attention, as in [`Self::wait`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: libbpf closes the descriptor with the ring, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) }
    }

    /// Takes what is in the ring and returns it as one batch: not more than fits into it at once, so that a source which fills it
    /// faster than it is read does not keep its reader.
    ///
    /// # Errors
    /// The ring cannot be read.
    pub fn take(&mut self) -> Result<Batch> {
        let read = self.ring.consume_raw();
        if read < 0 && read != ENOUGH {
            return Err(Error::io("read a ring of samples", io::Error::from_raw_os_error(-read)));
        }
        // A call that was heard stays in the kernel's list until it is looked at again with the ring empty: else the next ordinary
        // sample would pass for another call.
        self.wait(Duration::ZERO)?;
        let inbox = std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Batch { bytes: inbox.bytes, ends: inbox.ends })
    }
}

/// Records taken from the ring.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Adds a record as the kernel half lays it out (`abi.h`), to replay what was recorded or made.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// The samples, in the order of the ring. Records that are not whole, which only a bug can cause, are left out: there are fewer
    /// samples than [`Self::len`] then.
    pub fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, &end)| Sample::parse(self.bytes.get(start..end)?))
    }

    /// The same samples with the innermost part only of their copies of stacks, which still tells what was interrupted and its
    /// nearest callers; what only the rest could finish stays unfinished.
    #[must_use]
    pub fn with_short_copies(&self) -> Self {
        /// Bytes of stack.
        const SHORT: u32 = 256;
        let mut slim = Self::default();
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        for (start, &end) in starts.zip(&self.ends) {
            let Some(record) = self.bytes.get(start..end) else { continue };
            let Some((length, field, kept)) = Sample::parse(record).map(|sample| sample.extent_with_copy_of(SHORT))
            else {
                // Whoever reads the samples counts it.
                slim.push(record);
                continue;
            };
            let first = slim.bytes.len();
            slim.push(record.get(..length).unwrap_or(record));
            if let Some(bytes) = slim.bytes.get_mut(first..).and_then(|record| record.get_mut(field)) {
                bytes.copy_from_slice(&kept.to_ne_bytes());
            }
        }
        slim
    }

    /// The records as they came.
    #[cfg(feature = "feed")]
    pub(crate) fn records(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, &end)| self.bytes.get(start..end))
    }

    /// Bytes of all records.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}
