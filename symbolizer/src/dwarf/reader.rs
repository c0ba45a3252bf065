//! A gimli reader over [`Paged`]: DWARF is read from the file as it is needed, and every read counts against a limit.
//!
//! The limit is what bounds time: a hostile file can make any walk over DWARF long, but no walk can go on without reading.

use gimli::{Error, LittleEndian, ReaderOffsetId, Result};
use profiler_elf::{Paged, ReadError};
use std::{borrow::Cow, rc::Rc};

/// A range of one section.
#[derive(Clone, Debug)]
pub(super) struct PagedReader {
    section: Rc<Paged>,
    /// Tells the section's offsets from those of others in an error.
    id: u8,
    at: u64,
    end: u64,
}

impl PagedReader {
    pub fn new(section: Rc<Paged>, id: u8) -> Self {
        let end = section.len();
        Self { section, id, at: 0, end }
    }

    /// The section that it is of.
    pub fn section(&self) -> &Paged {
        &self.section
    }

    fn eof(&self) -> Error {
        Error::UnexpectedEof(gimli::Reader::offset_id(self))
    }

    fn left(&self) -> u64 {
        self.end - self.at
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        let len = out.len() as u64;
        if len > self.left() {
            return Err(self.eof());
        }
        self.section.read_exact_at(self.at, out).map_err(|error| self.error(&error))?;
        self.at += len;
        Ok(())
    }

    fn error(&self, error: &ReadError) -> Error {
        match error {
            ReadError::OutOfBounds { .. } => self.eof(),
            ReadError::WorkLimit | ReadError::Io(_) => Error::Io,
        }
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        // Strings and expressions; what is asked for is shorter, or cut off.
        const MAX: u64 = 64 << 10;
        let mut out = vec![0; usize::try_from(self.left().min(MAX)).unwrap_or(0)];
        self.section.read_exact_at(self.at, &mut out).map_err(|error| self.error(&error))?;
        Ok(out)
    }
}

impl gimli::Reader for PagedReader {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        self.left() as usize
    }

    fn empty(&mut self) {
        self.end = self.at;
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        if len as u64 > self.left() {
            return Err(self.eof());
        }
        self.end = self.at + len as u64;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.at.saturating_sub(base.at) as usize
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(u64::from(self.id) << 56 | self.at & ((1 << 56) - 1))
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        let at = id.0 & ((1 << 56) - 1);
        (id.0 >> 56 == u64::from(self.id) && (self.at..=self.end).contains(&at)).then(|| (at - self.at) as usize)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        match self.section.find(self.at, byte, self.left()) {
            Ok(Some(found)) => Ok(found as usize),
            Ok(None) => Err(self.eof()),
            Err(error) => Err(self.error(&error)),
        }
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        if len as u64 > self.left() {
            return Err(self.eof());
        }
        self.at += len as u64;
        Ok(())
    }

    fn split(&mut self, len: usize) -> Result<Self> {
        let mut first = self.clone();
        first.truncate(len)?;
        self.skip(len)?;
        Ok(first)
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        self.bytes().map(Cow::Owned)
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        String::from_utf8(self.bytes()?).map(Cow::Owned).map_err(|_| Error::BadUtf8)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        Ok(Cow::Owned(String::from_utf8_lossy(&self.bytes()?).into_owned()))
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<()> {
        self.fill(buf)
    }

    fn read_u8(&mut self) -> Result<u8> {
        if self.at >= self.end {
            return Err(self.eof());
        }
        let byte = self.section.u8_at(self.at).map_err(|error| self.error(&error))?;
        self.at += 1;
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gimli::Reader;
    use profiler_elf::Bytes;

    proptest::proptest! {
        /// The same operations on gimli's own slice reader give the same answers.
        #[test]
        fn behaves_as_a_slice(content in proptest::collection::vec(0u8..8, 0..200), steps in proptest::collection::vec((0u8..8, 0usize..40), 0..40)) {
            let len = content.len() as u64;
            let paged = Paged::new(Bytes::Memory(content.clone().into()), 0, len, 1);
            let mut ours = PagedReader::new(Rc::new(paged), 3);
            let mut theirs = gimli::EndianSlice::new(&content, LittleEndian);
            for (step, n) in steps {
                let same = match step {
                    0 => ours.read_u8().ok() == theirs.read_u8().ok(),
                    1 => ours.skip(n).is_ok() == theirs.skip(n).is_ok(),
                    2 => ours.find(n as u8).ok() == Reader::find(&theirs, n as u8).ok(),
                    3 => ours.read_u32().ok() == theirs.read_u32().ok(),
                    4 => ours.split(n).ok().map(|r| r.to_slice().unwrap().into_owned()) == Reader::split(&mut theirs, n).ok().map(|r| r.to_vec()),
                    5 => ours.read_uleb128().ok() == theirs.read_uleb128().ok(),
                    6 => ours.read_null_terminated_slice().ok().map(|r| r.len()) == theirs.read_null_terminated_slice().ok().map(|r| Reader::len(&r)),
                    _ => n % 8 != 0 || ours.truncate(n).is_ok() == Reader::truncate(&mut theirs, n).is_ok(),
                };
                proptest::prop_assert!(same, "step {step} {n}");
                if step != 7 { proptest::prop_assert_eq!(ours.to_slice().unwrap().into_owned(), theirs.to_vec()); }
                else if n % 8 != 0 { continue }
            }
        }
    }
}
