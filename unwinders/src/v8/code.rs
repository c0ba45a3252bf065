//! Machine code that V8 made: which object an address is in, and what it was made from.
//!
//! Nothing leads from an address to its code but V8's own lists. But each piece begins with a header that points to its `Code`, which says
//! where it begins in turn; so the header is looked for below the address, where code may begin:
//!
//! ```text
//!   [map, Code, ...] instructions ... address ...
//!          └──> Code { start, size, kind, .. }      start == the header's end, address < start + size
//! ```
//!
//! Code that is run but is no longer its function's (replaced, or entered in a loop) is found in this way as well.

use super::function;
use super::heap::{Heap, Word};
use super::layout::{CODE_START, Layout};
use super::positions::{self, Place};
use crate::runtime::Tier;

/// Where code may begin: multiples of this.
const ALIGNMENT: u64 = 64;
/// Bytes below an address that are looked through.
const MAX_DISTANCE: u64 = 512 << 10;
/// Largest table of positions, bytes.
const MAX_TABLE: usize = 4 << 20;
/// Largest bytecode of a function.
const MAX_BYTECODE: usize = 4 << 20;

/// A piece of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code {
    object: Word,
    /// First address of its instructions.
    pub start: u64,
    kind: u32,
}

/// A function on the stack at a place: of the source, or of its bytecode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// `SharedFunctionInfo`
    pub shared: Word,
    /// Place in the source.
    pub place: Option<u32>,
}

/// The code that `address` is in.
pub(super) fn find(heap: &Heap<'_>, layout: &Layout, address: u64) -> Option<Code> {
    let header = u64::from(layout.stream_header);
    let is_strong = |word: Word| word.0 & 3 == 1;
    let highest = address & !(ALIGNMENT - 1);
    for distance in (0..MAX_DISTANCE).step_by(ALIGNMENT as usize) {
        let start = highest.checked_sub(distance)?;
        let at = start.checked_sub(header)?;
        // What is not there ends it: code lies in one piece of memory.
        let (map, code) = (heap.word(at)?, heap.word(at.checked_add(8)?)?);
        if is_strong(map) && (layout.stream_is_code || is_strong(code) && map != code) {
            let object = if layout.stream_is_code { Word::to(at) } else { code };
            if let Some(code) = check(heap, layout, object, start, address) {
                return Some(code);
            }
        }
    }
    None
}

fn check(heap: &Heap<'_>, layout: &Layout, object: Word, start: u64, address: u64) -> Option<Code> {
    heap.expect(object, layout.types.code)?;
    if !layout.stream_is_code && heap.field(object, CODE_START)?.0 != start {
        return None;
    }
    let size = heap.half_field(object, layout.code_size)?;
    let kind = heap.half_field(object, layout.code_flags)? & 15;
    let is_within = address >= start && address - start < u64::from(size);
    is_within.then_some(Code { object, start, kind })
}

impl Code {
    /// It was made by the baseline compiler, which makes of each bytecode its machine code.
    fn is_baseline(&self, layout: &Layout) -> bool {
        self.kind == layout.kind_baseline
    }

    /// It was made by an optimizing compiler.
    fn is_optimized(&self, layout: &Layout) -> bool {
        self.kind > layout.kind_baseline
    }

    /// Which compiler made it.
    pub(super) fn tier(&self, layout: &Layout) -> Option<Tier> {
        match self.kind.checked_sub(layout.kind_baseline)? {
            0 => Some(Tier::Sparkplug),
            1 => Some(Tier::Maglev),
            2 => Some(Tier::Turbofan),
            _ => None,
        }
    }

    /// The function that an optimizing compiler made it of, others inlined.
    pub(super) fn owner(&self, heap: &Heap<'_>, layout: &Layout) -> Option<Word> {
        if !self.is_optimized(layout) {
            return None;
        }
        let origin = heap.field(self.object, layout.code_origin)?;
        let own = heap.element(origin, layout.inlined_self.into())?;
        // From 13 on in a wrapper, between what is trusted and what is not.
        let own = if heap.kind(own)? == layout.types.shared { own } else { heap.field(own, 8)? };
        heap.expect(own, layout.types.shared)
    }

    /// The functions that `address` stands for, innermost first. `function` is the one whose frame it is; what is of another is refused.
    pub(super) fn scopes(&self, heap: &Heap<'_>, layout: &Layout, address: u64, function: Word) -> Option<Vec<Scope>> {
        let offset = u32::try_from(address.checked_sub(self.start)?).ok()?;
        if self.is_baseline(layout) {
            let place = self.of_bytecode(heap, layout, offset, function);
            return Some(vec![Scope { shared: function, place }]);
        }
        if self.owner(heap, layout)?.object()? != function.object()? {
            return None;
        }
        let origin = heap.field(self.object, layout.code_origin)?;
        let table = heap.byte_array(heap.field(self.object, layout.code_positions)?, MAX_TABLE).unwrap_or_default();
        let mut place = positions::place(&table, offset);
        let mut scopes = Vec::new();
        while let Some(inlined) = place.and_then(Place::inlined) {
            let Some((called, shared)) = inlined_call(heap, layout, origin, inlined) else { break };
            scopes.push(Scope { shared, place: place.and_then(Place::offset) });
            place = Some(called);
            if scopes.len() >= crate::runtime::MAX_NAMES - 1 {
                break;
            }
        }
        scopes.push(Scope { shared: function, place: place.and_then(Place::offset) });
        Some(scopes)
    }

    fn of_bytecode(&self, heap: &Heap<'_>, layout: &Layout, offset: u32, function: Word) -> Option<u32> {
        let bytecode = function::bytecode(heap, layout, function)?;
        let origin = heap.field(self.object, layout.code_origin)?;
        if heap.kind(origin)? == layout.types.bytecode && origin != bytecode {
            return None;
        }
        let table = heap.byte_array(heap.field(self.object, layout.code_positions)?, MAX_TABLE)?;
        let length = usize::try_from(heap.length(bytecode)?).ok()?;
        let first = bytecode.object()?.checked_add(layout.bytecode_first.into())?;
        let bytecodes = heap.bytes(first, length, MAX_BYTECODE)?;
        let offset = positions::bytecode(&table, &bytecodes, &layout.bytecode_sizes, offset)?;
        of_bytecode_at(heap, layout, bytecode, offset)
    }
}

/// Where an inlined function was called, and which it is.
fn inlined_call(heap: &Heap<'_>, layout: &Layout, origin: Word, number: u32) -> Option<(Place, Word)> {
    /// Bytes of an entry: where, which, and nothing.
    const ENTRY: u64 = 16;
    let positions = heap.element(origin, layout.inlined_positions.into())?;
    if u64::from(number) >= u64::from(heap.length(positions)?) / ENTRY {
        return None;
    }
    let entry = positions.object()?.checked_add(16 + u64::from(number) * ENTRY)?;
    let place = Place(heap.word(entry)?.0);
    let literals = heap.element(origin, layout.inlined_literals.into())?;
    let shared = heap.element(literals, heap.half(entry + 8)?)?;
    heap.expect(shared, layout.types.shared)?;
    Some((place, shared))
}

/// The place in the source of the bytecode at `offset`.
pub(super) fn of_bytecode_at(heap: &Heap<'_>, layout: &Layout, bytecode: Word, offset: u32) -> Option<u32> {
    let table = heap.byte_array(heap.field(bytecode, layout.bytecode_positions)?, MAX_TABLE)?;
    positions::place(&table, offset)?.offset()
}
