//! Strings: sequential, external, and those made of others.
//!
//! ```text
//!   cons ── first ──> sequential "node:"          pieces: [sequential "node:", the middle of external "..fs.."]
//!     └─── second ──> sliced ── parent ──> external
//! ```

use super::heap::{Heap, Word};

/// Strings that are looked at for one: what is built of more is cut.
const MAX_STEPS: usize = 1024;
/// Characters of a string, at most: V8 makes none longer.
const MAX_LENGTH: u32 = (1 << 29) - 24;

/// Characters that lie one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where the first is.
    pub address: u64,
    /// How many.
    pub length: u32,
    /// They have two bytes each.
    pub wide: bool,
}

/// Instance types below are strings'.
const FIRST_OTHER: u16 = 128;

/// Whether an object of this type is a string.
pub(super) const fn is_string(kind: u16) -> bool {
    kind < FIRST_OTHER
}

/// The pieces of a string, in their order; none if it is not one.
pub(super) fn pieces(heap: &Heap<'_>, string: Word) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    // Of each string: how many characters are left out, and how many wanted.
    let mut ahead = vec![(string, 0, MAX_LENGTH)];
    for _ in 0..MAX_STEPS {
        let Some((string, skip, wanted)) = ahead.pop() else { break };
        let kind = heap.kind(string).filter(|kind| is_string(*kind))?;
        let length = heap.half_field(string, 12).filter(|length| *length <= MAX_LENGTH)?;
        let wanted = wanted.min(length.saturating_sub(skip));
        if wanted == 0 {
            continue;
        }
        let wide = kind & 8 == 0;
        let piece = |address: u64| {
            let skipped = u64::from(skip) * if wide { 2 } else { 1 };
            Some(Piece { address: address.checked_add(skipped)?, length: wanted, wide })
        };
        match kind & 7 {
            0 => pieces.push(piece(string.object()?.checked_add(16)?)?),
            1 => {
                let (first, second) = (heap.field(string, 16)?, heap.field(string, 24)?);
                let of_first = heap.half_field(first, 12)?.min(MAX_LENGTH);
                let here = wanted.min(of_first.saturating_sub(skip));
                if wanted > here {
                    ahead.push((second, skip.saturating_sub(of_first), wanted - here));
                }
                if here > 0 {
                    ahead.push((first, skip, here));
                }
            }
            // Those whose characters are not kept at hand (bit 4) are a C++ object's to give.
            2 if kind & 16 == 0 => pieces.push(piece(heap.field(string, 24)?.0)?),
            3 => {
                let offset = u32::try_from(heap.field(string, 24)?.small()?).ok()?;
                ahead.push((heap.field(string, 16)?, skip.checked_add(offset)?, wanted));
            }
            5 => ahead.push((heap.field(string, 16)?, skip, wanted)),
            _ => return None,
        }
    }
    Some(pieces)
}

/// The text of a string, cut after `limit` characters.
pub(super) fn text(heap: &Heap<'_>, string: Word, limit: u32) -> Option<String> {
    let mut units: Vec<u16> = Vec::new();
    for piece in pieces(heap, string)? {
        let left = limit.saturating_sub(u32::try_from(units.len()).ok()?);
        read(heap, Piece { length: piece.length.min(left), ..piece }, &mut |unit| units.push(unit))?;
    }
    Some(String::from_utf16_lossy(&units))
}

/// Bytes that are read at once.
const CHUNK: u32 = 4096;

/// Gives `take` each character of `piece`, as UTF-16 has it.
pub(super) fn read(heap: &Heap<'_>, piece: Piece, take: &mut dyn FnMut(u16)) -> Option<()> {
    let size = if piece.wide { 2 } else { 1 };
    let mut bytes = [0; CHUNK as usize];
    let mut done = 0;
    while done < piece.length {
        let count = (piece.length - done).min(CHUNK / size);
        let bytes = bytes.get_mut(..(count * size) as usize)?;
        heap.read(piece.address.checked_add(u64::from(done) * u64::from(size))?, bytes)?;
        if piece.wide {
            bytes.chunks_exact(2).for_each(|unit| take(u16::from_le_bytes([unit[0], unit[1]])));
        } else {
            bytes.iter().for_each(|byte| take(u16::from(*byte)));
        }
        done += count;
    }
    Some(())
}
