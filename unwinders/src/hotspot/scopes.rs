//! The debug information of compiled code: which methods, inlined into each other, an offset of an nmethod stands for.

use std::io;

use super::blob::Blob;
use super::layout::Layout;
use super::line::Compressed;
use crate::memory::Memory;

/// `PcDesc`: pc, scope, objects, flags, of 4 bytes each.
const DESC_BYTES: u64 = 16;
/// Most descriptions of an nmethod.
const MAX_DESCS: u64 = 1 << 22;
/// Most methods inlined into each other; `MaxInlineLevel` is 15, and recursion adds little.
const MAX_INLINED: usize = 128;
/// Where no scope is recorded (`DebugInformationRecorder::serialized_null`).
const NO_SCOPE: i32 = 0;
/// Bytes of three numbers.
const SCOPE_BYTES: usize = 15;
const MAX_SCOPE_OFFSET: u32 = 64 << 20;
const MAX_METADATA: u32 = 1 << 20;

/// A method that is executed at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `Method*`
    pub method: u64,
    /// Index of the bytecode; none before the first.
    pub bci: Option<u32>,
}

/// The scopes at `offset` of the code of `nmethod`, innermost first. A return address is described exactly, or not at all. The
/// place where a thread was interrupted belongs to the next description, as HotSpot itself takes it (`pc_desc_near`).
///
/// # Errors
/// The memory cannot be read.
pub fn scopes_at(
    memory: &dyn Memory,
    layout: &Layout,
    nmethod: &Blob,
    offset: u32,
    interrupted: bool,
) -> io::Result<Vec<Scope>> {
    let first = layout.scopes_pcs.find(memory, nmethod.address)?;
    let end = layout.scopes_pcs_end.find(memory, nmethod.address)?;
    let count = end.saturating_sub(first) / DESC_BYTES;
    if count > MAX_DESCS {
        return Ok(Vec::new());
    }
    let pc_of = |i: u64| memory.half(first.wrapping_add(i * DESC_BYTES)).map(u32::cast_signed);
    // The first that is not below. Descriptions rise, from one at -1 to one that nothing reaches; in what is not so, anything is found.
    let wanted = i64::from(offset);
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if i64::from(pc_of(middle)?) < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low >= count || !interrupted && i64::from(pc_of(low)?) != wanted {
        return Ok(Vec::new());
    }
    let scope = memory.half(first.wrapping_add(low * DESC_BYTES + 4))?.cast_signed();
    chain(memory, layout, nmethod, scope)
}

fn chain(memory: &dyn Memory, layout: &Layout, nmethod: &Blob, scope: i32) -> io::Result<Vec<Scope>> {
    let scopes = layout.scopes_data.find(memory, nmethod.address)?;
    let metadata = layout.metadata.find(memory, nmethod.address)?;
    let mut chain = Vec::new();
    let mut next = scope;
    while next != NO_SCOPE && chain.len() < MAX_INLINED {
        let Some(offset) = u32::try_from(next).ok().filter(|offset| *offset < MAX_SCOPE_OFFSET) else { break };
        let mut bytes = [0; SCOPE_BYTES];
        memory.read(scopes.wrapping_add(offset.into()), &mut bytes)?;
        let mut numbers = Compressed::new(&bytes, layout.version);
        let (Some(sender), Some(method), Some(bci)) = (numbers.unsigned(), numbers.unsigned(), numbers.unsigned())
        else {
            break;
        };
        // Counted from 1; 0 is none.
        let Some(index) = method.checked_sub(1).filter(|index| *index < MAX_METADATA) else { break };
        let method = memory.word(metadata.wrapping_add(u64::from(index) * 8))?;
        chain.push(Scope { method, bci: bci.checked_sub(1) });
        next = sender.cast_signed();
    }
    Ok(chain)
}
