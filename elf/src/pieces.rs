//! Parts of a file, in memory.
//!
//! ```text
//! file      │ headers │ .dynsym .. │ .rodata (20 MB) │ .text (60 MB) │ .eh_frame │ .debug_* │ section headers │
//! pieces              │ 0x2a8..    │                                 │ 0x3e1..   │
//! ```

use crate::{
    bytes::{Bytes, ReadError},
    headers::Source,
};
use std::ops::Range;

/// Pieces of a file, each whole in memory: sorted, disjoint and never touching.
#[derive(Debug, Default)]
pub struct Pieces {
    pieces: Vec<(u64, Vec<u8>)>,
    /// Of the file.
    size: u64,
    read: u64,
}

impl Pieces {
    /// Nothing yet of a file of `size` bytes.
    #[must_use]
    pub const fn of(size: u64) -> Self {
        Self { pieces: Vec::new(), size, read: 0 }
    }

    /// The file's size, bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that were read from the file.
    #[must_use]
    pub const fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Offset and content of each piece, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|(offset, bytes)| (*offset, &**bytes))
    }

    /// The bytes at `offset` and all that follow them in their piece.
    #[must_use]
    pub fn from(&self, offset: u64) -> Option<&[u8]> {
        let next = self.pieces.partition_point(|(start, _)| *start <= offset);
        let (start, bytes) = self.pieces.get(next.checked_sub(1)?)?;
        bytes.get(usize::try_from(offset - start).ok()?..).filter(|rest| !rest.is_empty())
    }

    /// Adds ranges of the file, the lowest first, as far as the file goes and until `limit` bytes are read in all. What overlaps or
    /// touches becomes one piece; each byte is read once. Where the file has become shorter meanwhile there are zeros.
    ///
    /// # Errors
    /// If reading fails.
    pub fn add(&mut self, file: &Bytes, mut ranges: Vec<Range<u64>>, limit: u64) -> Result<(), ReadError> {
        for range in &mut ranges {
            range.end = range.end.min(self.size);
        }
        ranges.extend(self.pieces.iter().map(|(start, bytes)| *start..start.saturating_add(bytes.len() as u64)));
        ranges.retain(|range| range.start < range.end);
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        let mut known = std::mem::take(&mut self.pieces).into_iter().peekable();
        for range in joined {
            let mut inside = Vec::new();
            while let Some(piece) = known.next_if(|(start, _)| *start < range.end) {
                inside.push(piece);
            }
            self.join(file, range, inside, limit)?;
        }
        Ok(())
    }

    /// Makes one piece of a range, of which some are known.
    fn join(
        &mut self,
        file: &Bytes,
        range: Range<u64>,
        known: Vec<(u64, Vec<u8>)>,
        limit: u64,
    ) -> Result<(), ReadError> {
        let mut at = range.start;
        let mut piece: Vec<u8> = Vec::new();
        for (start, bytes) in known.into_iter().chain([(range.end, Vec::new())]) {
            let wanted = start.saturating_sub(at).min(limit.saturating_sub(self.read));
            if wanted > 0 {
                let (from, more) = (piece.len(), usize::try_from(wanted).unwrap_or(0));
                // Fresh memory is zero as it comes.
                if from == 0 {
                    piece = vec![0; more]
                } else {
                    piece.resize(from + more, 0)
                }
                let missing = piece.get_mut(from..).unwrap_or_default();
                self.read += file.read_some(at, missing)? as u64;
                at += wanted;
            }
            if at < start {
                // The limit: what is known behind it stands by itself.
                if !piece.is_empty() {
                    self.pieces.push((at - piece.len() as u64, std::mem::take(&mut piece)));
                }
                at = start;
            }
            at = at.saturating_add(bytes.len() as u64);
            if piece.is_empty() { piece = bytes } else { piece.extend(bytes) }
        }
        if !piece.is_empty() {
            self.pieces.push((at - piece.len() as u64, piece));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{io::Write, sync::Arc};

    proptest! {
        /// However ranges overlap, and in however many steps they are added, the bytes are the file's, each read once.
        #[test]
        fn pieces_are_the_files_bytes(steps in prop::collection::vec(prop::collection::vec((0u64..300, 0u64..60), 0..8), 1..4), limit in 0u64..400) {
            let content: Vec<u8> = (0..256u32).map(|i| (i % 251) as u8 + 1).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            let file = Bytes::of_file(Arc::new(file)).unwrap();
            let mut pieces = Pieces::of(256);
            let mut wanted = [false; 256];
            for step in steps {
                let ranges: Vec<_> = step.iter().map(|(start, len)| *start..start + len).collect();
                for at in ranges.iter().cloned().flatten().filter(|at| *at < 256) {
                    wanted[at as usize] = true;
                }
                pieces.add(&file, ranges, limit).unwrap();
            }
            let all = wanted.iter().filter(|wanted| **wanted).count() as u64;
            prop_assert!(pieces.bytes_read() <= limit);
            let mut end = None;
            let mut held = 0;
            for (start, bytes) in pieces.iter() {
                prop_assert!(end.is_none_or(|end| start > end || limit < all), "touching pieces are one");
                prop_assert_eq!(bytes, &content[start as usize..start as usize + bytes.len()]);
                prop_assert!((start..start + bytes.len() as u64).all(|at| wanted[at as usize]));
                held += bytes.len() as u64;
                end = Some(start + bytes.len() as u64);
            }
            prop_assert_eq!(held, pieces.bytes_read());
            if limit >= all { prop_assert_eq!(held, all); }
        }
    }
}
