//! The memory of another process, as it is now, behind one trait.
//!
//! Who reads a structure of a target reads a [`Memory`], so that recorded memory, a fuzzer's bytes and a core image can stand in for
//! the process. What is read is whatever the process has put there: every length and pointer in it is bounded by who reads.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Memory by user address.
pub trait Memory: fmt::Debug {
    /// Fills `bytes` from `address`.
    ///
    /// # Errors
    /// Some of it cannot be read.
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// The word at `address`.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn word(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The 32-bit number at `address`.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn half(&self, address: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The 16-bit number at `address`.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn short(&self, address: u64) -> io::Result<u16> {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// The byte at `address`.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn byte(&self, address: u64) -> io::Result<u8> {
        let mut bytes = [0];
        self.read(address, &mut bytes)?;
        Ok(bytes[0])
    }

    /// The bytes from `address` to the first 0, without it. It is read in pieces that end with a page, since the next may be missing.
    ///
    /// # Errors
    /// As [`Self::read`]; or there is no 0 within `limit` bytes.
    fn text(&self, address: u64, limit: usize) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        while text.len() < limit {
            let at = address.wrapping_add(text.len() as u64);
            let to_page = PAGE - (at % PAGE as u64) as usize;
            let mut piece = [0; PIECE];
            let piece = piece.get_mut(..PIECE.min(to_page).min(limit - text.len())).unwrap_or_default();
            self.read(at, piece)?;
            if let Some(end) = memchr::memchr(0, piece) {
                text.extend(piece.iter().take(end));
                return Ok(text);
            }
            text.extend_from_slice(piece);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a text at {address:#x} has no end within {limit} bytes"),
        ))
    }
}

// Of the host or of a part of it: a piece must not cross the smallest.
const PAGE: usize = 4096;
const PIECE: usize = 64;

/// Memory of a living process.
#[derive(Debug)]
pub struct ProcessMemory {
    file: File,
}

impl ProcessMemory {
    /// The memory of `pid`, of the image that it has now: after an exec nothing can be read of it any more.
    ///
    /// # Errors
    /// The process is gone, or may not be read.
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/mem"))? })
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_read_as_it_is() {
        let memory = ProcessMemory::open(std::process::id()).unwrap();
        let place = [0x1122_3344_5566_7788_u64, u64::MAX];
        let address = place.as_ptr() as u64;
        assert_eq!(memory.word(address).unwrap(), place[0]);
        assert_eq!(memory.half(address + 4).unwrap(), 0x1122_3344);
        assert_eq!(memory.short(address + 6).unwrap(), 0x1122);
        assert_eq!(memory.byte(address + 1).unwrap(), 0x77);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let memory = ProcessMemory::open(std::process::id()).unwrap();
        for address in [0, 8, 1 << 47, 1 << 63, u64::MAX] {
            memory.word(address).unwrap_err();
            memory.text(address, 100).unwrap_err();
        }
    }

    #[test]
    fn a_text_ends_at_its_zero_or_is_refused() {
        let memory = ProcessMemory::open(std::process::id()).unwrap();
        let long = [vec![b'a'; 5000], vec![0]].concat();
        let address = long.as_ptr() as u64;
        assert_eq!(memory.text(address, 6000).unwrap(), &long[..5000]);
        assert_eq!(memory.text(address + 4990, 11).unwrap(), b"aaaaaaaaaa");
        memory.text(address, 5000).unwrap_err();
        memory.text(address, 0).unwrap_err();
    }
}
