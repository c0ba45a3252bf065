//! The code heaps: where compiled code and stubs are, and which one an address belongs to.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use super::layout::{HeapList, Layout};
use crate::memory::Memory;

/// Most heaps; JDK 8 has one, later ones three, or four with one for hot code.
pub const MAX_HEAPS: usize = 5;
/// Most bytes of all heaps together: `CODE_CACHE_SIZE_LIMIT` of `globalDefinitions.hpp`.
const MAX_HEAP_BYTES: u64 = 2 << 30;
/// A hop of the segment map goes 254 segments back at most; a block of 8 MiB takes 260 of them, 520 if it was joined.
const MAX_HOPS: usize = 1024;
const FREE: u8 = 0xff;

/// A reserved range of code, which never moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Heap {
    /// First address.
    pub low: u64,
    /// One past the last that it may grow to.
    pub high: u64,
    /// First address of the segment map: a byte for each segment.
    pub segmap: u64,
    /// log2 of a segment's bytes.
    pub shift: u8,
}

/// All heaps of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Heaps(pub Vec<Heap>);

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum HeapsError {
    /// The JVM has not made them yet.
    #[error("the JVM has no code heaps yet")]
    None,
    /// They cannot be what they say.
    #[error("its code heaps cannot be: {0}")]
    Wrong(String),
    /// The memory cannot be read.
    #[error("its memory cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Heaps {
    /// Those of the process.
    ///
    /// # Errors
    /// There are none yet, or they are not to be believed.
    pub fn read(memory: &dyn Memory, layout: &Layout) -> Result<Self, HeapsError> {
        let addresses = match layout.heaps {
            HeapList::One(variable) => vec![memory.word(variable)?],
            HeapList::Many { variable, length_at, data_at } => {
                let list = memory.word(variable)?;
                if list == 0 {
                    return Err(HeapsError::None);
                }
                let length = memory.half(list.wrapping_add(length_at.into()))?;
                if length as usize > MAX_HEAPS {
                    return Err(HeapsError::Wrong(format!("{length} of them")));
                }
                let data = memory.word(list.wrapping_add(data_at.into()))?;
                (0..length).map(|i| memory.word(data.wrapping_add(u64::from(i) * 8))).collect::<io::Result<_>>()?
            }
        };
        let mut heaps = Vec::new();
        for address in addresses {
            if address == 0 {
                return Err(HeapsError::None);
            }
            let place = address.wrapping_add(layout.heap_memory.into());
            let segmap = address.wrapping_add(layout.heap_segmap.into());
            let shift = memory.half(address.wrapping_add(layout.heap_shift.into()))?;
            let heap = Heap {
                low: memory.word(place.wrapping_add(layout.space_low.into()))?,
                high: memory.word(place.wrapping_add(layout.space_high.into()))?,
                segmap: memory.word(segmap.wrapping_add(layout.space_low.into()))?,
                shift: shift as u8,
            };
            if heap.low == 0 || heap.segmap == 0 {
                return Err(HeapsError::None);
            }
            let bytes = heap.high.checked_sub(heap.low).filter(|bytes| (1..=MAX_HEAP_BYTES).contains(bytes));
            if bytes.is_none() || heap.high > 1 << 56 || !(4..=16).contains(&shift) {
                return Err(HeapsError::Wrong(format!("{:#x} to {:#x} in segments of 2^{shift}", heap.low, heap.high)));
            }
            heaps.push(heap);
        }
        heaps.sort_by_key(|heap| heap.low);
        if heaps.is_empty() {
            return Err(HeapsError::None);
        }
        if heaps.iter().zip(heaps.iter().skip(1)).any(|(one, next)| one.high > next.low) {
            return Err(HeapsError::Wrong("they overlap".to_owned()));
        }
        Ok(Self(heaps))
    }

    /// The heap that has `address`.
    #[must_use]
    pub fn of(&self, address: u64) -> Option<&Heap> {
        self.0.iter().find(|heap| (heap.low..heap.high).contains(&address))
    }

    /// The code blob that has `address`; none if nothing is there (any more).
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn blob_at(&self, memory: &dyn Memory, layout: &Layout, address: u64) -> io::Result<Option<u64>> {
        let Some(heap) = self.of(address) else { return Ok(None) };
        let shift = u32::from(heap.shift);
        let mut segment = address.wrapping_sub(heap.low).checked_shr(shift).unwrap_or(0);
        for _ in 0..MAX_HOPS {
            match memory.byte(heap.segmap.wrapping_add(segment))? {
                FREE => return Ok(None),
                0 => {
                    let block = heap.low.wrapping_add(segment.wrapping_shl(shift));
                    let used = memory.byte(block.wrapping_add(layout.block_used.into()))? != 0;
                    return Ok(used.then_some(block.wrapping_add(layout.block_bytes.into())));
                }
                hop => match segment.checked_sub(hop.into()) {
                    Some(before) => segment = before,
                    None => return Ok(None),
                },
            }
        }
        Ok(None)
    }
}

impl Heap {
    /// The used blocks' blobs, from the lowest on; at most `limit` blocks are looked at.
    pub fn blobs<'a>(
        &'a self,
        memory: &'a dyn Memory,
        layout: &'a Layout,
        limit: usize,
    ) -> impl Iterator<Item = u64> + 'a {
        let mut block = self.low;
        let all = std::iter::from_fn(move || {
            if block >= self.high {
                return None;
            }
            let here = block;
            let length = layout.block_length.read(memory, here).ok()?;
            let length = u64::try_from(length).ok().filter(|length| (1..MAX_HEAP_BYTES).contains(length))?;
            let used = memory.byte(here.wrapping_add(layout.block_used.into())).ok()? != 0;
            block = here.saturating_add(length.wrapping_shl(self.shift.into()).max(1));
            Some(used.then_some(here.wrapping_add(layout.block_bytes.into())))
        });
        all.take(limit).flatten()
    }
}
