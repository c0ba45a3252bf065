//! Reads the side band from its per-CPU rings (`perf_event_mmap_page`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use perf_event_open_sys::bindings as b;
use profiler_address::{FileOffset, UserAddr};
use profiler_measure::Clock;

use super::{Event, Kind, Mmap};
use crate::cpus::Presence;
use crate::error::{Error, Result};
use crate::perf;

/// One CPU's ring.
#[derive(Debug)]
struct Ring {
    cpu: u32,
    base: NonNull<u8>,
    page: usize,
    data: usize,
    event: OwnedFd,
}

// SAFETY: the mapping is used by its owner alone.
unsafe impl Send for Ring {}

impl Ring {
    fn open(cpu: u32, data: usize) -> Result<Self> {
        // The reader looks every now and then; only what might overflow before that wakes it.
        let event = perf::open_sideband(cpu, u32::try_from(data / 2).unwrap_or(u32::MAX))?;
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                page + data,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            return Err(Error::io(format!("map the side band of CPU {cpu} (kernel.perf_event_mlock_kb)"), error));
        }
        // SANITY: mmap returned neither MAP_FAILED nor, without MAP_FIXED, 0.
        let base = NonNull::new(base.cast()).expect("mmap gives an address");
        perf::enable(&event)?;
        Ok(Self { cpu, base, page, data, event })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: `data_head` and `data_tail` are aligned words of the control page, shared with the kernel as atomics.
        unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// Hands every whole record to `record`.
    fn drain(&self, buffer: &mut Vec<u8>, mut record: impl FnMut(u32, u16, &[u8])) {
        let head = self.word(std::mem::offset_of!(b::perf_event_mmap_page, data_head)).load(Ordering::Acquire);
        let tail_word = self.word(std::mem::offset_of!(b::perf_event_mmap_page, data_tail));
        let mut tail = tail_word.load(Ordering::Relaxed);
        while head.wrapping_sub(tail) >= 8 {
            let mut header = [0; 8];
            self.copy(tail, &mut header);
            let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let misc = u16::from_ne_bytes([header[4], header[5]]);
            let size = u64::from(u16::from_ne_bytes([header[6], header[7]]));
            if size < 8 || size > head.wrapping_sub(tail) {
                tail = head;
                break;
            }
            buffer.clear();
            buffer.resize(size as usize - 8, 0);
            self.copy(tail.wrapping_add(8), buffer);
            record(kind, misc, buffer);
            tail = tail.wrapping_add(size);
        }
        tail_word.store(tail, Ordering::Release);
    }

    /// Copies from ring position `from`, which wraps.
    fn copy(&self, from: u64, into: &mut [u8]) {
        let start = (from % self.data as u64) as usize;
        let first = into.len().min(self.data - start);
        // SAFETY: both pieces lie in the data area, which the kernel does not write between head and tail.
        unsafe {
            let data = self.base.as_ptr().add(self.page);
            ptr::copy_nonoverlapping(data.add(start), into.as_mut_ptr(), first);
            ptr::copy_nonoverlapping(data, into.as_mut_ptr().add(first), into.len() - first);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nothing outlives the ring.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page + self.data) };
    }
}

/// The side bands of all CPUs.
#[derive(Debug)]
pub struct Sideband {
    rings: Vec<Ring>,
    presence: Presence,
    bytes: usize,
    buffer: Vec<u8>,
    /// Of the last call: events that are later than it.
    later: Vec<Event>,
}

impl Sideband {
    /// Opens the side band of each of `cpus`, with `bytes` (a power of two of pages) of ring each.
    ///
    /// # Errors
    /// The kernel refuses a perf event or its ring.
    pub fn open(cpus: &[u32], bytes: usize) -> Result<Self> {
        let mut opened =
            Self { rings: Vec::new(), presence: Presence::default(), bytes, buffer: Vec::new(), later: Vec::new() };
        opened.follow_cpus(cpus)?;
        Ok(opened)
    }

    /// Follows the CPUs that are online now.
    ///
    /// # Errors
    /// The kernel refuses a perf event or its ring.
    pub fn follow_cpus(&mut self, online: &[u32]) -> Result<()> {
        let returned = self.presence.returned(online);
        self.rings.retain(|ring| online.contains(&ring.cpu) && !returned.contains(&ring.cpu));
        for &cpu in online {
            if !self.rings.iter().any(|ring| ring.cpu == cpu) {
                match Ring::open(cpu, self.bytes) {
                    Ok(ring) => self.rings.push(ring),
                    // Since it was looked who is online.
                    Err(Error::CpuGone { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// What becomes readable when a ring is half full.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(|ring| ring.event.as_fd())
    }

    /// Appends all events up to now, sorted by time, and none that is earlier than one of the calls before.
    ///
    /// The rings are emptied one after the other, and on a busy host there may be tens of milliseconds between two. A process that has executed on
    /// the first CPU then and mapped its program on the second would be told the other way round, and lose what it has mapped; so what
    /// is later than the call waits for the next one.
    pub fn drain(&mut self, events: &mut Vec<Event>) {
        // The side band goes by it.
        let now = Clock::monotonic_now();
        for ring in &self.rings {
            let later = &mut self.later;
            ring.drain(&mut self.buffer, |kind, misc, body| later.extend(parse(kind, misc, body)));
        }
        take_until(now, &mut self.later, events);
    }
}

/// Moves the events of `from` that are not later than `now` to `events`, in the order of their times.
fn take_until(now: u64, from: &mut Vec<Event>, events: &mut Vec<Event>) {
    from.sort_by_key(|event| event.time);
    let count = from.partition_point(|event| event.time <= now);
    events.extend(from.drain(..count));
}

/// A record's fields, front to back, and its trailing sample id (`pid, tid, time`).
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*bytes))
    }
    fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*bytes))
    }
    /// A NUL-terminated string that fills the rest up to the sample id.
    fn text(&self) -> Vec<u8> {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
    }
    /// Cuts the sample id off the end and returns its time.
    fn time(&mut self) -> Option<u64> {
        let (rest, id) = self.0.split_last_chunk::<16>()?;
        self.0 = rest;
        Some(u64::from_ne_bytes([id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]]))
    }
}

fn parse(kind: u32, misc: u16, body: &[u8]) -> Option<Event> {
    let mut fields = Fields(body);
    let time = fields.time()?;
    let (pid, tid, kind) = match kind {
        b::PERF_RECORD_MMAP2 => {
            let (pid, tid) = (fields.u32()?, fields.u32()?);
            let (start, len, offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let dev = (fields.u32()?, fields.u32()?);
            let (inode, inode_generation) = (fields.u64()?, fields.u64()?);
            let _protection_and_flags = fields.u64()?;
            let mapping = Mmap {
                start: UserAddr(start),
                len,
                offset: FileOffset(offset),
                dev,
                inode,
                inode_generation,
                path: fields.text(),
            };
            (pid, tid, Kind::Mmap(mapping))
        }
        b::PERF_RECORD_COMM => {
            let (pid, tid) = (fields.u32()?, fields.u32()?);
            let comm = fields.text();
            let exec = u32::from(misc) & b::PERF_RECORD_MISC_COMM_EXEC != 0;
            (pid, tid, if exec { Kind::Exec { comm } } else { Kind::Comm { comm } })
        }
        b::PERF_RECORD_FORK => {
            let (pid, parent_pid, tid, _parent_tid) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
            (pid, tid, Kind::Fork { parent_pid })
        }
        b::PERF_RECORD_EXIT => {
            let (pid, _parent_pid, tid, _parent_tid) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
            (pid, tid, Kind::Exit)
        }
        b::PERF_RECORD_LOST => {
            let (_id, lost) = (fields.u64()?, fields.u64()?);
            (0, 0, Kind::Lost { lost })
        }
        _ => return None,
    };
    Some(Event { time, pid, tid, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ring_tells_of_later_waits_for_what_another_tells_of_before() {
        let exec = Event { time: 18, pid: 7, tid: 7, kind: Kind::Exec { comm: b"node".to_vec() } };
        let comm = |time| Event { time, pid: 7, tid: 7, kind: Kind::Comm { comm: Vec::new() } };
        let (mut later, mut events) = (Vec::new(), Vec::new());
        // The first ring was empty at 15; there was an exec on its CPU before the second was read.
        later.extend([comm(12), comm(20), comm(15)]);
        take_until(15, &mut later, &mut events);
        assert_eq!(events, [comm(12), comm(15)]);
        later.extend([exec.clone()]);
        take_until(30, &mut later, &mut events);
        assert_eq!(events, [comm(12), comm(15), exec, comm(20)]);
        assert!(later.is_empty());
    }
}
