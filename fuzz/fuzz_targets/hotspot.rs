//! HotSpot's structures in memory that holds anything: no panic, and no more work than a JVM's would be.
#![no_main]

use std::cell::Cell;
use std::io;

use libfuzzer_sys::fuzz_target;
use profiler_unwinders::hotspot::{Attached, Frame, Symbols, attach};
use profiler_unwinders::memory::Memory;

/// The input over and over, as far as one looks; every eighth page is missing.
#[derive(Debug)]
struct Input<'a> {
    bytes: &'a [u8],
    reads: Cell<u64>,
}

impl Memory for Input<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
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
    if data.is_empty() {
        return;
    }
    let memory = Input { bytes: data, reads: Cell::new(0) };
    let mut symbols = Symbols::default();
    for (i, field) in symbols.structs.fields.iter_mut().enumerate() {
        *field = 16 + i as u64 * 8;
    }
    (symbols.structs.stride, symbols.types.array, symbols.types.stride) = (8, 64, 72);
    let _ = attach(&memory, &symbols, 0);
    assert!(memory.reads.get() < 500_000);

    // What comes back from the process that samples, and frames.
    let mut rest = data;
    let Some(attached) = Attached::parse(&mut rest) else { return };
    memory.reads.set(0);
    let mut names = attached.names(&memory);
    for frame in rest.chunks_exact(16).take(64) {
        let word = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
        let (object, rest) = (word(0) & ((1 << 56) - 1), word(8));
        let _ = names.name(Frame { object, position: rest as u32, cookie: (rest >> 32) as u32 });
    }
    assert!(memory.reads.get() < 1_000_000);
});
