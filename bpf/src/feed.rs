//! Made records through the kernel's ring of samples, as fast as asked: for tests and measurements of what reads it.
//!
//! ```text
//!  Feed::send ── BPF_PROG_TEST_RUN ── feed.bpf.c ── the ring of a loaded Sampler ── SampleRing ── ...
//! ```
//!
//! The program wakes the reader when the kernel half would (`ring.h`). What it does not do: sample, unwind, or run in an interrupt.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject, ProgramInput};

use crate::abi::layout;
use crate::error::{Error, Result};
use crate::ring::Batch;
use crate::skeleton::feed::{FeedSkel, FeedSkelBuilder};

/// Bytes that a record may have: 115 frames.
pub const MAX_RECORD_BYTES: usize = 1016;
/// Records that one run of the program sends at most.
const BURST: usize = 64;

/// Twin of `struct feed_input`.
#[repr(C)]
struct Input {
    first: u32,
    count: u32,
    sent: u32,
    full: u32,
    woken: u64,
}
layout!(Input, 24, { first: 0, count: 4, sent: 8, full: 12, woken: 16 });

/// What became of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// Records that reached the ring.
    pub sent: u64,
    /// Records refused since the ring was full.
    pub full: u64,
}

/// The loaded program and its records, which it sends in turn, over and over, each with the time at which it is sent.
pub struct Feed {
    skeleton: FeedSkel<'static>,
    records: usize,
    next: usize,
    woken: u64,
}

impl Feed {
    pub(crate) fn load(ring: BorrowedFd<'_>, wake_bytes: u32, records: &Batch) -> Result<Self> {
        let bpf = |source| Error::Bpf { action: "load the feed of", source, hint: String::new() };
        if records.is_empty() || records.records().any(|record| record.len() > MAX_RECORD_BYTES) {
            let wrong = format!("there are none, or one has more than {MAX_RECORD_BYTES} bytes");
            return Err(Error::io("take the records to feed", std::io::Error::other(wrong)));
        }
        let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = FeedSkelBuilder::default().open(storage).map_err(bpf)?;
        open.maps.samples.reuse_fd(ring).map_err(bpf)?;
        open.maps.records.set_max_entries(records.len() as u32).map_err(bpf)?;
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.ring_wake_bytes = wake_bytes;
        }
        let skeleton = open.load().map_err(bpf)?;
        for (index, record) in records.records().enumerate() {
            let mut value = vec![0; 8 + MAX_RECORD_BYTES];
            value[..4].copy_from_slice(&(record.len() as u32).to_ne_bytes());
            value[8..8 + record.len()].copy_from_slice(record);
            skeleton.maps.records.update(&(index as u32).to_ne_bytes(), &value, MapFlags::ANY).map_err(bpf)?;
        }
        Ok(Self { skeleton, records: records.len(), next: 0, woken: 0 })
    }

    /// Sends the next `count` records, as fast as it can.
    ///
    /// # Errors
    /// The program does not run.
    pub fn send(&mut self, count: usize) -> Result<Fed> {
        let bpf = |source| Error::Bpf { action: "run the feed of", source, hint: String::new() };
        let mut fed = Fed::default();
        let mut left = count;
        while left > 0 {
            let burst = left.min(BURST).min(self.records - self.next);
            let mut input = Input { first: self.next as u32, count: burst as u32, sent: 0, full: 0, woken: self.woken };
            // SAFETY: `input` is plain integers, and the slice covers it exactly, for as long as the call.
            let context = unsafe { std::slice::from_raw_parts_mut((&raw mut input).cast::<u8>(), size_of::<Input>()) };
            let run = ProgramInput { context_in: Some(context), ..Default::default() };
            self.skeleton.progs.feed.test_run(run).map_err(bpf)?;
            if (input.sent + input.full) as usize != burst {
                let wrong = format!("{} and {} of {burst} records", input.sent, input.full);
                return Err(Error::io("send records to the ring", std::io::Error::other(wrong)));
            }
            self.woken = input.woken;
            self.next = (self.next + burst) % self.records;
            left -= burst;
            fed.sent += u64::from(input.sent);
            fed.full += u64::from(input.full);
        }
        Ok(fed)
    }
}
