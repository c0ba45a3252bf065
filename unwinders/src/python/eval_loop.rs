//! The evaluation loop: which code runs Python's functions.
//!
//! Its symbol is only a part of it. Compilers move what is unlikely elsewhere, without a symbol, and then most of it may be there: so
//! every direct jump out of what is known leads to a further part, if it leads into the middle of a function or to a part that begins
//! with a frame set up already.

use gimli::{BaseAddresses, CfaRule, EhFrame, LittleEndian, UnwindContext, UnwindSection, X86_64};
use iced_x86::{Decoder, DecoderOptions, FlowControl, OpKind};
use profiler_elf::Elf;

use super::layout::read;
use crate::runtime::Symbols;

/// Largest table of unwind information that is read, bytes.
const MAX_TABLE: u64 = 64 << 20;
/// Parts of the loop.
const MAX_PARTS: usize = 256;
/// Bytes of code that are looked through.
const MAX_CODE: u64 = 4 << 20;

/// A piece of code that has unwind information of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    start: u64,
    end: u64,
    /// It begins as a function does: with nothing on the stack but where to return to.
    is_entry: bool,
}

/// Addresses of the loop in `elf`, sorted: first, one past the last.
pub(super) fn find(elf: &Elf, symbols: &Symbols) -> Result<Vec<(u64, u64)>, String> {
    let symbol = symbols.get("_PyEval_EvalFrameDefault").ok_or("it has no evaluation loop")?;
    let parts = parts(elf)?;
    let main = at(&parts, symbol.address.0)
        .map_or((symbol.address.0, symbol.address.0.saturating_add(symbol.size)), |part| {
            (part.start, part.end.max(symbol.address.0.saturating_add(symbol.size)))
        });
    if main.0 >= main.1 {
        return Err("its evaluation loop has no size".to_owned());
    }
    let mut found = vec![main];
    let (mut next, mut bytes) = (0, 0);
    while let Some(&(start, end)) = found.get(next) {
        next += 1;
        bytes += end - start;
        if bytes > MAX_CODE || found.len() > MAX_PARTS {
            return Err("its evaluation loop has no end".to_owned());
        }
        let code = read(elf, start, end - start)?;
        for target in jumps(&code, start) {
            if found.iter().any(|&(start, end)| (start..end).contains(&target)) {
                continue;
            }
            if let Some(part) = at(&parts, target).filter(|part| part.start != target || !part.is_entry) {
                found.push((part.start, part.end));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The part that an address is in.
fn at(parts: &[Part], address: u64) -> Option<Part> {
    let after = parts.partition_point(|part| part.start <= address);
    parts.get(after.checked_sub(1)?).copied().filter(|part| address < part.end)
}

/// Where direct jumps of `code` lead.
fn jumps(code: &[u8], address: u64) -> Vec<u64> {
    let jumps = Decoder::with_ip(64, code, address, DecoderOptions::NONE).into_iter().filter(|instruction| {
        matches!(instruction.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
            && instruction.op0_kind() == OpKind::NearBranch64
    });
    let mut targets: Vec<u64> = jumps.map(|instruction| instruction.near_branch_target()).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// All parts, sorted.
fn parts(elf: &Elf) -> Result<Vec<Part>, String> {
    let section = elf.section(".eh_frame").ok_or("it has no unwind information")?;
    let bytes = elf.data(section, MAX_TABLE).map_err(|error| error.to_string())?;
    let mut table = EhFrame::new(&bytes, LittleEndian);
    table.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(section.address.0);
    let mut context = UnwindContext::new();
    let mut entries = table.entries(&bases);
    let mut parts = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
        let (start, length) = (fde.initial_address(), fde.len());
        let Some(end) = start.checked_add(length).filter(|_| length > 0) else { continue };
        let first = fde.rows(&table, &bases, &mut context).ok();
        let is_entry = first.is_some_and(|mut rows| {
            let row = rows.next_row().ok().flatten();
            row.is_some_and(|row| matches!(row.cfa(), CfaRule::RegisterAndOffset { register: X86_64::RSP, offset: 8 }))
        });
        parts.push(Part { start, end, is_entry });
    }
    parts.sort_unstable();
    Ok(parts)
}
