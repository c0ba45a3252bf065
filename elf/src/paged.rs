//! A part of a file, for many small reads at random: strings, DWARF, line tables.

use crate::bytes::{Bytes, ReadError};
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

const CHUNK_BITS: u32 = 14;
/// Bytes read from a file at once.
const CHUNK: usize = 1 << CHUNK_BITS;

/// A part of a file, for many small reads. Keeps at most `slots` chunks of 16 KiB, each in the one slot that its number
/// selects, so that memory is bounded without any order of use to be kept.
#[derive(Debug)]
pub struct Paged {
    bytes: Bytes,
    start: u64,
    len: u64,
    work: Cell<u64>,
    slots: RefCell<Vec<Option<Chunk>>>,
}

#[derive(Debug)]
struct Chunk {
    number: u64,
    bytes: Box<[u8]>,
}

impl Paged {
    /// The `len` bytes from `start`; as much of them as the file has. Work starts unlimited.
    #[must_use]
    pub fn new(bytes: Bytes, start: u64, len: u64, slots: usize) -> Self {
        let len = len.min(bytes.len().saturating_sub(start));
        let wanted = usize::try_from(len >> CHUNK_BITS).unwrap_or(usize::MAX).saturating_add(1);
        // A power of two: a chunk's slot is then a matter of a mask.
        let slots = wanted.min(slots.clamp(1, 1 << 16)).next_power_of_two();
        let mut empty = Vec::new();
        empty.resize_with(if bytes.memory().is_some() { 0 } else { slots }, || None);
        Self { bytes, start, len, work: Cell::new(u64::MAX), slots: RefCell::new(empty) }
    }

    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Bytes::Memory(Arc::from([])), 0, 0, 0)
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the bytes are in memory, not in a file.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.bytes.memory().is_some()
    }

    /// Bytes of memory that this holds when its chunks are all in use.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        match self.bytes.memory() {
            Some(memory) => memory.len() as u64,
            None => (self.slots.borrow().len() * CHUNK) as u64,
        }
    }

    /// Sets how much may be read from here on: a read costs one, and one more for each 64 bytes.
    pub fn set_work(&self, limit: u64) {
        self.work.set(limit);
    }

    /// What is left of the limit.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.work.get()
    }

    #[inline]
    fn spend(&self, bytes: usize) -> Result<(), ReadError> {
        let cost = 1 + (bytes as u64 >> 6);
        let left = self.work.get().checked_sub(cost);
        self.work.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(ReadError::WorkLimit)
    }

    /// Fills `out` from `at`, wholly or not at all.
    ///
    /// # Errors
    /// There are fewer bytes, reading fails, or the limit of work is used up.
    pub fn read_exact_at(&self, at: u64, out: &mut [u8]) -> Result<(), ReadError> {
        self.spend(out.len())?;
        let wanted = out.len() as u64;
        let out_of_bounds = || ReadError::OutOfBounds { at, wanted, len: self.len };
        at.checked_add(wanted).filter(|end| *end <= self.len).ok_or_else(out_of_bounds)?;
        if self.is_memory() || out.len() >= CHUNK {
            return self.bytes.read_exact_at(self.start.saturating_add(at), out);
        }
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let position = at + done as u64;
            done += self.with_chunk(position, |chunk| {
                let n = chunk.len().min(rest.len());
                if let (Some(to), Some(from)) = (rest.get_mut(..n), chunk.get(..n)) {
                    to.copy_from_slice(from);
                }
                n
            })?;
        }
        Ok(())
    }

    /// Gives `f` the bytes from `at` to the end of the chunk that holds it: at least one.
    #[inline]
    fn with_chunk<T>(&self, at: u64, f: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        let out_of_bounds = || ReadError::OutOfBounds { at, wanted: 1, len: self.len };
        if at >= self.len {
            return Err(out_of_bounds());
        }
        if let Some(memory) = self.bytes.memory() {
            let from = usize::try_from(self.start.saturating_add(at)).map_err(|_| out_of_bounds())?;
            let end = usize::try_from(self.start.saturating_add(self.len)).map_err(|_| out_of_bounds())?;
            return memory.get(from..end).filter(|rest| !rest.is_empty()).map(f).ok_or_else(out_of_bounds);
        }
        let number = at >> CHUNK_BITS;
        let mut slots = self.slots.borrow_mut();
        let slot = number as usize & slots.len().saturating_sub(1);
        let slot = slots.get_mut(slot).ok_or_else(out_of_bounds)?;
        let chunk = match slot {
            Some(chunk) if chunk.number == number => chunk,
            _ => {
                // A chunk load costs about as much as two hundred small reads.
                self.spend(200 * 64)?;
                let start = number << CHUNK_BITS;
                let bytes =
                    self.bytes.read_vec(self.start.saturating_add(start), (self.len - start).min(CHUNK as u64))?;
                slot.insert(Chunk { number, bytes: bytes.into() })
            }
        };
        let within = (at & (CHUNK as u64 - 1)) as usize;
        chunk.bytes.get(within..).filter(|rest| !rest.is_empty()).map(f).ok_or_else(out_of_bounds)
    }

    /// One byte: what parsing of DWARF does most.
    ///
    /// # Errors
    /// There are fewer bytes, reading fails, or the limit of work is used up.
    pub fn u8_at(&self, at: u64) -> Result<u8, ReadError> {
        self.spend(1)?;
        self.with_chunk(at, |chunk| chunk.first().copied().unwrap_or(0))
    }

    /// The 16-bit number at `at`.
    ///
    /// # Errors
    /// There are fewer bytes, reading fails, or the limit of work is used up.
    pub fn u16_at(&self, at: u64) -> Result<u16, ReadError> {
        let mut out = [0; 2];
        self.read_exact_at(at, &mut out)?;
        Ok(u16::from_le_bytes(out))
    }

    /// The 32-bit number at `at`.
    ///
    /// # Errors
    /// There are fewer bytes, reading fails, or the limit of work is used up.
    pub fn u32_at(&self, at: u64) -> Result<u32, ReadError> {
        let mut out = [0; 4];
        self.read_exact_at(at, &mut out)?;
        Ok(u32::from_le_bytes(out))
    }

    /// The 64-bit number at `at`.
    ///
    /// # Errors
    /// There are fewer bytes, reading fails, or the limit of work is used up.
    pub fn u64_at(&self, at: u64) -> Result<u64, ReadError> {
        let mut out = [0; 8];
        self.read_exact_at(at, &mut out)?;
        Ok(u64::from_le_bytes(out))
    }

    /// Offset from `at` of the first `byte`, looking no further than `limit` bytes.
    ///
    /// # Errors
    /// There are fewer bytes, reading fails, or the limit of work is used up.
    pub fn find(&self, at: u64, byte: u8, limit: u64) -> Result<Option<u64>, ReadError> {
        let limit = limit.min(self.len.saturating_sub(at));
        let mut done = 0;
        while done < limit {
            let (found, seen) = self.with_chunk(at + done, |chunk| {
                let n = chunk.len().min(usize::try_from(limit - done).unwrap_or(usize::MAX));
                let chunk = chunk.get(..n).unwrap_or(chunk);
                (chunk.iter().position(|b| *b == byte), n)
            })?;
            self.spend(found.unwrap_or(seen))?;
            if let Some(found) = found {
                return Ok(Some(done + found as u64));
            }
            done += seen as u64;
        }
        Ok(None)
    }

    /// The NUL-terminated string at `at`, at most `limit` bytes long; bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// There are fewer bytes, reading fails, or the limit of work is used up.
    pub fn string_at(&self, at: u64, limit: u64) -> Result<Option<String>, ReadError> {
        let Some(len) = self.find(at, 0, limit)? else { return Ok(None) };
        let mut out = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read_exact_at(at, &mut out)?;
        Ok(Some(match String::from_utf8(out) {
            Ok(string) => string,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn paged(content: &[u8], slots: usize) -> (Paged, Paged) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let len = content.len() as u64;
        (
            Paged::new(Bytes::of_file(Arc::new(file)).unwrap(), 0, len, slots),
            Paged::new(Bytes::Memory(content.into()), 0, len, slots),
        )
    }

    #[test]
    fn file_and_memory_read_alike_across_chunks() {
        let content: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let (file, memory) = paged(&content, 2);
        for at in [0, 1, CHUNK as u64 - 1, CHUNK as u64 - 3, 99_992, 50_000] {
            let want = u64::from_le_bytes(content[at as usize..at as usize + 8].try_into().unwrap());
            assert_eq!(file.u64_at(at).unwrap(), want);
            assert_eq!(memory.u64_at(at).unwrap(), want);
        }
        assert!(file.u64_at(99_993).is_err() && memory.u64_at(99_993).is_err());
        assert!(file.u64_at(u64::MAX - 3).is_err() && memory.u64_at(u64::MAX - 3).is_err());
        assert_eq!(file.find(3, 250, 1 << 20).unwrap(), memory.find(3, 250, 1 << 20).unwrap());
        assert_eq!(file.find(0, 255, 1 << 20).unwrap(), None);
    }

    #[test]
    fn work_runs_out() {
        let (file, _) = paged(&[1; 1000], 1);
        file.set_work(1000);
        assert!((0..).map_while(|_| file.u8_at(5).ok()).count() < 1000);
        assert!(matches!(file.u8_at(5), Err(ReadError::WorkLimit)));
    }

    #[test]
    fn a_file_truncated_while_it_is_read_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 50_000]).unwrap();
        let file = Arc::new(file);
        let paged = Paged::new(Bytes::of_file(file.clone()).unwrap(), 0, 50_000, 4);
        assert_eq!(paged.u8_at(0).unwrap(), 7);
        file.set_len(100).unwrap();
        assert!(paged.u8_at(40_000).is_err());
    }
}
