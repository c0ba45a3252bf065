//! V8, the engine of Node.js 18, 20, 22, 24 and 26.
//!
//! ```text
//!  file ── load ──> Engine: version, offsets and types (layout), where its builtins are
//!                       │ attach: addresses of builtins (there may be two copies) and of memory that machine code was written to
//!                       ▼
//!                   kernel half (v8.h): frames {function, bytecode or address of code, cookie}
//!                       │ names, within milliseconds
//!                       ▼
//!                   function: name; code: address -> functions inlined, place in the source; script: place -> line
//! ```
//!
//! Objects move: a frame's function is looked at as soon as it is seen, and must be of its type, and have the numbers that the kernel half saw.
//! Builtins have symbols of their own (`Builtins_*`): their frames are native ones.

mod code;
mod function;
mod heap;
mod instance;
mod layout;
mod names;
mod positions;
mod script;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use profiler_address::UserAddr;
use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;
use profiler_elf::{Elf, MACHINE_X86_64, le};

use self::layout::Layout;
use crate::maps::{Backing, FileId, Mapping};
use crate::memory::Memory;
use crate::runtime::{AttachError, Attached, Data, MAX_PIECES, Named, Runtime, Symbols, Target};

/// The reading side of V8.
#[derive(Clone, Copy, Debug)]
pub struct V8;

/// Where builtins begin; the second name is that of versions up to 10, in which the first is a variable that points there.
const BLOB: [&str; 2] = ["v8_Default_embedded_blob_code_data_", "v8_Default_embedded_blob_code_"];
const BLOB_SIZE: &str = "v8_Default_embedded_blob_code_size_";
const MAX_BLOB: u32 = 64 << 20;
/// What enters bytecode. It has a frame only after some instructions.
const ENTRY: &str = "Builtins_InterpreterEntryTrampoline";
/// Ranges of 4 GiB in which there is machine code.
const MAX_HIGH: usize = 64;

impl Runtime for V8 {
    fn kind(&self) -> FrameKind {
        FrameKind::V8
    }

    fn name(&self) -> &'static str {
        "V8"
    }

    fn mark(&self) -> &'static str {
        "v8dbg_frametype_EntryFrame"
    }

    fn identity(&self) -> u32 {
        // The two highest say what the place is.
        u32::MAX >> 2
    }

    fn load(&self, elf: &Elf) -> Result<Arc<dyn Data>, AttachError> {
        if elf.machine() != MACHINE_X86_64 {
            return Err(unsupported("V8 is followed on x86-64 only".to_owned()));
        }
        // What is not exported is looked for by few names: the table of all symbols is large.
        let exported: Vec<&str> = layout::symbols().collect();
        let exported = Symbols::exported(elf, &exported);
        let symbols = Symbols::defined(elf, &[BLOB[0], BLOB[1], BLOB_SIZE, ENTRY, layout::SIZES]);
        let layout = Layout::of(elf, &exported, &symbols).map_err(unsupported)?;
        let refuse = |why: &str| unsupported(format!("V8 {}.{}: {why}", layout.version.0, layout.version.1));
        let blob = BLOB.iter().find_map(|name| symbols.get(name));
        let size = symbols.get(BLOB_SIZE).and_then(|symbol| {
            let at = elf.file_offset(symbol.address)?;
            Some(le::u32_in(&elf.bytes.read_vec(at.0, 4).ok()?, 0))
        });
        let (blob, size) = blob
            .zip(size.filter(|size| *size <= MAX_BLOB))
            .ok_or_else(|| refuse("its builtins have no symbols: the file's symbol table was stripped"))?;
        let entry = symbols.get(ENTRY).map_or((0, 0), |entry| (entry.address.0, entry.size));
        let entry = (entry.0.wrapping_sub(blob.address.0), entry.1);
        let builtins = (blob.address.0, blob.address.0.saturating_add(size.into()));
        Ok(Arc::new(Engine { layout, builtins, entry }))
    }

    fn names(&self, opaque: &[u8], memory: &dyn Memory, frames: &[RuntimeFrame]) -> Vec<Named> {
        let Ok(naming) = borsh::from_slice::<Naming>(opaque) else {
            return vec![Err(Arc::from("v8: not attached")); frames.len()];
        };
        let mut names = names::Names::new(&naming, memory);
        frames.iter().map(|frame| names.name(frame)).collect()
    }
}

/// A program that contains V8.
#[derive(Debug)]
struct Engine {
    layout: Layout,
    /// ELF addresses of the builtins: first, one past the last.
    builtins: (u64, u64),
    /// What enters bytecode: bytes from the first builtin, and how many it has.
    entry: (u64, u64),
}

/// What naming needs.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
struct Naming {
    layout: Layout,
    /// Upper halves of the addresses of machine code.
    high: Vec<u32>,
}

impl Engine {
    /// The builtins, as far as a mapping of the program's file, `own`, has them, at whatever place.
    fn builtins_in(&self, target: &Target<'_>, own: FileId, mapping: &Mapping) -> Option<(u64, u64)> {
        if file_of(mapping) != Some(own) {
            return None;
        }
        let bias = target.executable.bias_of(mapping)?;
        let start = self.builtins.0.wrapping_add(bias);
        let end = self.builtins.1.wrapping_add(bias);
        let (start, end) = (start.max(mapping.start.0), end.min(mapping.end.0));
        (start < end).then_some((start, end))
    }
}

impl Data for Engine {
    fn attach(&self, target: &mut Target<'_>) -> Result<Attached, AttachError> {
        let mappings = target.mappings;
        let is_own = |other: &&Mapping| target.executable.bias_of(other) == Some(target.bias);
        let own = mappings.iter().filter(is_own).find_map(file_of);
        let in_mapping = |mapping: &Mapping| self.builtins_in(target, own?, mapping);
        let mut builtins: Vec<(u64, u64)> = mappings.iter().filter_map(in_mapping).collect();
        // The program's own copy, and the one beside the machine code.
        builtins.truncate(instance::MAX_COPIES);
        let made = |mapping: &&Mapping| matches!(mapping.backing, Backing::Anonymous | Backing::Replaced(_));
        let overlaps =
            |mapping: &Mapping| builtins.iter().any(|(start, end)| *start < mapping.end.0 && mapping.start.0 < *end);
        let code: Vec<(u64, u64)> = mappings
            .iter()
            .filter(made)
            .filter(|mapping| !overlaps(mapping))
            .map(|mapping| (mapping.start.0, mapping.end.0))
            .take(MAX_PIECES - instance::MAX_COPIES)
            .collect();
        let mut high: Vec<u32> =
            code.iter().flat_map(|(start, end)| (start >> 32)..=((end - 1) >> 32)).map(|high| high as u32).collect();
        high.sort_unstable();
        high.dedup();
        high.truncate(MAX_HIGH);
        let naming = Naming { layout: self.layout.clone(), high };
        let mut pieces: Vec<(u64, u64)> = builtins.iter().chain(&code).copied().collect();
        pieces.sort_unstable();
        Ok(Attached {
            instance: instance::bytes(&self.layout, &builtins, self.entry),
            pieces,
            opaque: borsh::to_vec(&naming).map_err(|error| unsupported(error.to_string()))?,
            grows: true,
            about: format!("V8 {}.{}", self.layout.version.0, self.layout.version.1),
        })
    }
}

/// Names frames (object, position, cookie) of any memory, as if V8 of a version (a number for each that is known) were in it: for fuzzing.
#[doc(hidden)]
#[must_use]
pub fn names_in(version: usize, memory: &dyn Memory, frames: &[(u64, u32, u32)]) -> Vec<Named> {
    let naming = Naming { layout: Layout::any(version), high: vec![0, 1, 0x7fff] };
    let mut names = names::Names::new(&naming, memory);
    let frame = |&(object, position, cookie): &(u64, u32, u32)| RuntimeFrame {
        kind: FrameKind::V8,
        object: UserAddr(object),
        position,
        cookie,
    };
    frames.iter().map(|of| names.name(&frame(of))).collect()
}

/// The file that a mapping is of, or was.
fn file_of(mapping: &Mapping) -> Option<FileId> {
    match &mapping.backing {
        Backing::File(id, _) => Some(*id),
        Backing::Replaced(of) => file_of(of),
        _ => None,
    }
}

fn unsupported(why: String) -> AttachError {
    AttachError::Unsupported(why)
}
