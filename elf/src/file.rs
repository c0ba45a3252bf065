//! An open ELF file.

use crate::{
    bytes::Bytes,
    decompress,
    headers::{Error, Headers, SHT_NOBITS, Section},
    paged::Paged,
};
use std::ops::Deref;

/// An open ELF file: its headers, and the way to its bytes.
#[derive(Debug)]
pub struct Elf {
    /// The whole file.
    pub bytes: Bytes,
    headers: Headers,
}

impl Deref for Elf {
    type Target = Headers;
    fn deref(&self) -> &Headers {
        &self.headers
    }
}

impl Elf {
    /// Reads the headers.
    ///
    /// # Errors
    /// As [`Headers::read`].
    pub fn parse(bytes: Bytes) -> Result<Self, Error> {
        let headers = Headers::read(&bytes)?;
        Ok(Self { bytes, headers })
    }

    /// The content of a section that is not compressed, for many small reads.
    #[must_use]
    pub fn paged(&self, section: &Section, slots: usize) -> Paged {
        if section.kind == SHT_NOBITS {
            return Paged::empty();
        }
        Paged::new(self.bytes.clone(), section.offset.0, section.size, slots)
    }

    /// The content of a section, unpacked if need be, if it is no longer than `limit` bytes.
    ///
    /// # Errors
    /// It is longer, can't be read, or is not what it claims.
    pub fn data(&self, section: &Section, limit: u64) -> Result<Vec<u8>, Error> {
        if section.size > limit {
            return Err(Error::TooLarge { what: "section", found: section.size, limit });
        }
        if section.is_compressed() {
            return decompress::section(self.bytes.stream(section.offset.0, section.size), limit);
        }
        self.bytes.read_vec(section.offset.0, section.size).map_err(Error::read("section"))
    }

    /// The content of a section as a stream, packed as it is.
    pub fn stream(&self, section: &Section) -> impl std::io::Read {
        self.bytes.stream(section.offset.0, if section.kind == SHT_NOBITS { 0 } else { section.size })
    }
}
