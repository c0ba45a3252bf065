//! V8's objects in memory that holds anything: no panic, and no more work than a program's would be.
#![no_main]

use std::cell::Cell;
use std::io;

use libfuzzer_sys::fuzz_target;
use profiler_unwinders::memory::Memory;
use profiler_unwinders::v8::names_in;

/// The input over and over, as far as one looks; every eighth page is missing.
#[derive(Debug)]
struct Input<'a> {
    bytes: &'a [u8],
    read: Cell<u64>,
}

impl Memory for Input<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read.set(self.read.get() + bytes.len() as u64);
        if (address >> 12) % 8 == 7 {
            return Err(io::ErrorKind::NotFound.into());
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = address.wrapping_add(i as u64) % self.bytes.len() as u64;
            *byte = self.bytes[at as usize];
        }
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((version, data)) = data.split_first() else { return };
    let Some((frames, memory)) = data.split_at_checked(32) else { return };
    if memory.is_empty() {
        return;
    }
    let memory = Input { bytes: memory, read: Cell::new(0) };
    let frames: Vec<(u64, u32, u32)> = frames
        .chunks_exact(16)
        .map(|frame| {
            let word = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
            (word(0) & ((1 << 56) - 1), word(8) as u32, (word(8) >> 32) as u32)
        })
        .collect();
    assert_eq!(names_in((*version).into(), &memory, &frames).len(), frames.len());
    assert!(memory.read.get() <= 64 << 20);
});
