//! Scripts: their name, and the line of a place in their source.

use std::sync::Arc;

use super::heap::{Heap, Word};
use super::layout::Layout;
use super::text;

// Offsets in `Script`, the same in all versions that are known.
const SOURCE: u16 = 8;
const NAME: u16 = 16;
const LINE_OFFSET: u16 = 24;
const LINE_ENDS: u16 = 56;

/// Characters of a source that are looked through for the ends of its lines; beyond, lines are unknown.
const MAX_SOURCE: u32 = 16 << 20;
/// Longest name, characters.
const MAX_NAME: u32 = 1024;

/// A script, as far as it is needed.
#[derive(Debug)]
pub(super) struct Script {
    /// What it was loaded from; empty if from nowhere (`eval`).
    pub name: Arc<str>,
    /// Of what it was cut out of: lines before it.
    line_offset: i32,
    lines: Lines,
}

#[derive(Debug)]
enum Lines {
    /// As V8 has counted them: an array of the places of their ends.
    Counted(Word),
    /// As counted here: places of their ends, up to one past the last that is known.
    Ends(Vec<u32>, u32),
}

/// The script of a function; none if it is none.
pub(super) fn read(heap: &Heap<'_>, layout: &Layout, script: Word) -> Option<Script> {
    heap.expect(script, layout.types.script)?;
    let name = text::text(heap, heap.field(script, NAME)?, MAX_NAME).unwrap_or_default();
    let line_offset = heap.field(script, LINE_OFFSET)?.small().unwrap_or(0);
    let ends = heap.field(script, LINE_ENDS)?;
    let lines = match heap.kind(ends) {
        Some(kind) if kind == layout.types.array => Lines::Counted(ends),
        _ => {
            let (ends, known) = count(heap, heap.field(script, SOURCE)?);
            Lines::Ends(ends, known)
        }
    };
    Some(Script { name: Arc::from(name), line_offset, lines })
}

impl Script {
    /// The line of the character at `place`, from 1 on.
    pub(super) fn line(&self, heap: &Heap<'_>, place: u32) -> Option<u32> {
        let before = match &self.lines {
            Lines::Ends(ends, known) => {
                (place < *known).then(|| ends.partition_point(|end| *end < place))?.try_into().ok()?
            }
            Lines::Counted(ends) => {
                let (mut low, mut high) = (0, heap.length(*ends)?);
                while low < high {
                    let middle = low + (high - low) / 2;
                    let end = heap.element(*ends, middle)?.small()?;
                    if i64::from(end) < i64::from(place) { low = middle + 1 } else { high = middle }
                }
                low
            }
        };
        u32::try_from(i64::from(before) + i64::from(self.line_offset) + 1).ok()
    }
}

/// The places of the ends of lines, as V8 counts them, and how many characters were looked at (one more if that was all).
fn count(heap: &Heap<'_>, source: Word) -> (Vec<u32>, u32) {
    let (mut ends, mut at, mut was_return) = (Vec::new(), 0_u32, false);
    let mut take = |unit: u16| {
        // A line ends with a return unless a line feed follows, which ends it then.
        if was_return && unit != u16::from(b'\n') {
            ends.push(at - 1);
        }
        was_return = unit == u16::from(b'\r');
        if matches!(unit, 0x0a | 0x2028 | 0x2029) {
            ends.push(at);
        }
        at += 1;
    };
    let mut whole = true;
    let mut left = MAX_SOURCE;
    for piece in text::pieces(heap, source).unwrap_or_default() {
        let length = piece.length.min(left);
        left -= length;
        whole &= length == piece.length;
        if text::read(heap, text::Piece { length, ..piece }, &mut take).is_none() {
            whole = false;
            break;
        }
    }
    (ends, if whole && at > 0 { at + 1 } else { at })
}
