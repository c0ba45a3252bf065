//! Code that nothing describes: C libraries without call frame instructions, start-up code, a compiler's own functions.
//!
//! ```text
//! .eh_frame:   │ f      │                                   │ g      │
//! gap:                  │ pad │ _start │ main │ musl ...    │
//! known code:                 │ END    │                           found by its bytes
//! instructions:                        │ rsp + 8, rsp + 16 ...      found by following the stack pointer
//! ```
//!
//! Functions start at symbols, sections, the targets of calls, the end of a described function, and where after the end of a path
//! something looks like a prologue. What can't be followed from there gets rule 0.

use profiler_address::ElfVaddr;
use profiler_bpf::abi::Rule;

use profiler_elf::ElfParts;

use super::flow::{Flow, Frame};
use super::instructions::{self, Effect, Instruction, OUTSIDE, Saved};
use super::known_code::{Known, KnownCode};
use super::packed::PackedRule;
use super::{RowStats, Writer};

/// Bytes of code read in one executable, if it may be a C library's that has no unwind information.
pub(crate) const MAX_DECODED: u64 = 4 << 20;
/// The same for others, where it is start-up code, a compiler's function or some assembly. What is larger are snapshots of a
/// runtime, or code that an optimiser left behind (BOLT).
pub(crate) const MAX_DECODED_OF_DESCRIBED: u64 = 32 << 10;
/// The same for libraries without an entry point, which have less of their own.
const MAX_DECODED_OF_LIBRARY: u64 = 4 << 10;
/// Bytes of code looked at together: a bound on memory, far beyond the size of functions.
const CHUNK: usize = 512 << 10;
/// Bytes of a symbol table: larger ones belong to programs whose functions are described.
pub(crate) const MAX_SYMBOLS_BYTES: u64 = 2 << 20;
/// The same where functions are described; reading the symbols of a large library would take longer than its rows.
const MAX_SYMBOLS_BYTES_OF_DESCRIBED: u64 = 48 << 10;
/// Bytes of symbol names.
pub(crate) const MAX_NAMES_BYTES: u64 = 4 << 20;
/// Functions that start in gaps.
const MAX_STARTS: usize = 1 << 17;

const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const SHF_EXECINSTR: u64 = 4;

/// Writes rows for what lies between described functions.
#[derive(Debug)]
pub(super) struct Gaps {
    known: KnownCode,
    left: u64,
    /// Starts of functions by symbols and sections, sorted; read when first needed.
    starts: Option<Vec<u64>>,
    found: Vec<Known>,
    instructions: Vec<Instruction>,
}

impl Gaps {
    pub(super) fn new(parts: &ElfParts<'_>) -> Self {
        let known = KnownCode::new(parts);
        let left = match parts.entry() {
            _ if known.musl() => MAX_DECODED,
            ElfVaddr(0) => MAX_DECODED_OF_LIBRARY,
            _ => MAX_DECODED_OF_DESCRIBED,
        };
        Self { known, left, starts: None, found: Vec::new(), instructions: Vec::new() }
    }

    /// Writes the rows of `start..end`, executable and described by nothing.
    pub(super) fn write_rows(
        &mut self,
        (start, end): (u64, u64),
        parts: &ElfParts<'_>,
        writer: &mut Writer<'_>,
        stats: &mut RowStats,
    ) {
        let Some(code) = parts.bytes_from(ElfVaddr(start)) else { return };
        let size = usize::try_from(end - start).unwrap_or(usize::MAX).min(code.len());
        let Some(code) = code.get(..size) else { return };
        self.found.clear();
        self.known.find(code, start, parts, &mut self.found);
        stats.known_code += self.found.len() as u64;

        // A part would be of no use: functions are found by calls from anywhere.
        let fits = size as u64 <= self.left;
        let read = code
            .get(..if fits { size } else { 0 })
            .filter(|code| code.iter().any(|&byte| byte != 0))
            .unwrap_or_default();
        self.left -= read.len() as u64;
        let starts = if read.is_empty() { Vec::new() } else { self.starts_in(read, start, parts) };
        self.cut_entry(read, start, parts, &starts);

        let mut overlay = Overlay { known: &self.found, begun: false, in_force: PackedRule::NONE };
        let mut at = 0;
        while at < read.len() {
            let chunk_end = chunk_end(at, read.len(), &starts);
            let chunk = read.get(at..chunk_end).unwrap_or_default();
            let of_chunk = |&start: &u32| start.checked_sub(at as u32).filter(|&start| (start as usize) < chunk.len());
            let chunk_starts: Vec<u32> = starts.iter().filter_map(of_chunk).collect();
            let address = start + at as u64;
            decode(chunk, address, &chunk_starts, &mut self.instructions, |address, rule| {
                overlay.row(address, PackedRule::new(rule), writer, stats);
            });
            stats.decoded_functions += chunk_starts.len() as u64;
            stats.decoded_bytes += chunk.len() as u64;
            at = chunk_end;
        }
        overlay.row(start + read.len() as u64, PackedRule::NONE, writer, stats);
        overlay.finish(writer, stats);
    }

    /// Where functions start in `code`, which is loaded at `address`: sorted offsets.
    fn starts_in(&mut self, code: &[u8], address: u64, parts: &ElfParts<'_>) -> Vec<u32> {
        let symbols = if self.known.musl() { MAX_SYMBOLS_BYTES } else { MAX_SYMBOLS_BYTES_OF_DESCRIBED };
        let all = self.starts.get_or_insert_with(|| read_starts(parts, symbols));
        let end = address + code.len() as u64;
        let first = all.partition_point(|&start| start < address);
        let inside = all.iter().skip(first).take_while(|&&start| start < end);
        let mut starts: Vec<u32> = inside.map(|&start| (start - address) as u32).collect();
        let mut scan = Scan::new(address);
        instructions::read(code, &starts, |instruction| scan.next(&instruction, code));
        // A function isn't entered by a condition: that is a part of the one before.
        scan.branched.sort_unstable();
        scan.guessed.retain(|start| scan.branched.binary_search(start).is_err());
        starts.append(&mut scan.guessed);
        starts.append(&mut scan.called);
        if let Some(entry) = parts.entry().0.checked_sub(address).filter(|&entry| entry < code.len() as u64) {
            starts.push(entry as u32);
        }
        starts.sort_unstable();
        starts.dedup();
        starts.truncate(MAX_STARTS);
        starts
    }

    /// The entry point is known to end the stack, up to where it hands over.
    fn cut_entry(&mut self, code: &[u8], address: u64, parts: &ElfParts<'_>, starts: &[u32]) {
        let entry = parts.entry().0;
        let Some(known) = self.found.iter_mut().find(|known| known.first == entry) else { return };
        let Some(offset) = entry.checked_sub(address).and_then(|offset| u32::try_from(offset).ok()) else { return };
        let next = starts.iter().copied().find(|&start| start > offset).unwrap_or(OUTSIDE);
        let Some(code) = code.get(offset as usize..) else { return };
        let code = code.get(..code.len().min(known.past.saturating_sub(entry) as usize)).unwrap_or(code);
        let mut end = None;
        instructions::read(code, &[], |instruction| {
            if end.is_none() && instruction.effect.ends() {
                end = Some(u64::from(instruction.end()));
            }
        });
        let next = entry.saturating_add(u64::from(next - offset));
        known.past = known.past.min(next).min(end.map_or(u64::MAX, |end| entry.saturating_add(end)));
    }
}

/// Gives the rules of `code`, whose functions start at `starts`, as they change.
pub(super) fn decode(
    code: &[u8],
    address: u64,
    starts: &[u32],
    instructions: &mut Vec<Instruction>,
    mut row: impl FnMut(u64, Rule),
) {
    instructions.clear();
    instructions::read(code, starts, |instruction| instructions.push(instruction));
    let flow = Flow::solve(instructions, starts);
    for (index, instruction) in instructions.iter().enumerate() {
        let frame = flow.frame(index);
        if frame.is_none() && instruction.effect == Effect::Padding {
            continue;
        }
        row(address + u64::from(instruction.offset), frame.as_ref().and_then(Frame::rule).unwrap_or(Rule::NONE));
    }
}

/// Where the chunk that starts at `at` ends: where a function starts, if that can be told.
fn chunk_end(at: usize, length: usize, starts: &[u32]) -> usize {
    if length - at <= CHUNK {
        return length;
    }
    let hard = at + CHUNK;
    let after = starts.partition_point(|&start| (start as usize) <= hard);
    let last = after.checked_sub(1).and_then(|last| starts.get(last)).map_or(0, |&start| start as usize);
    if last > at { last } else { hard }
}

/// Starts of functions by symbols and of sections.
fn read_starts(parts: &ElfParts<'_>, limit: u64) -> Vec<u64> {
    let mut starts = Vec::new();
    for section in parts.sections() {
        let names = match section.kind {
            SHT_SYMTAB if section.size <= limit => ".strtab",
            SHT_DYNSYM if section.size <= limit => ".dynstr",
            _ => {
                let stub = |bytes: &[u8]| bytes.starts_with(&[0xff, 0x35]);
                if section.flags & SHF_EXECINSTR != 0 && !parts.bytes_from(section.address).is_some_and(stub) {
                    starts.push(section.address.0);
                }
                continue;
            }
        };
        let names = parts.section(names).and_then(|section| parts.section_bytes(section)).unwrap_or_default();
        let symbols = parts.section_bytes(section).unwrap_or_default();
        starts.extend(symbols.chunks_exact(24).filter_map(|symbol| function(symbol, names)));
    }
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// The address of a symbol (`Elf64_Sym`) that is a function's.
fn function(symbol: &[u8], names: &[u8]) -> Option<u64> {
    let (name, rest) = symbol.split_first_chunk()?;
    let (&[kind, _other], rest) = rest.split_first_chunk()?;
    let (section, rest) = rest.split_first_chunk()?;
    // STT_FUNC, STT_GNU_IFUNC
    if !matches!(kind & 15, 2 | 10) || u16::from_le_bytes(*section) == 0 {
        return None;
    }
    let name = names.get(u32::from_le_bytes(*name) as usize..).unwrap_or_default();
    let name = name.get(..name.len().min(512)).unwrap_or_default();
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    // Split off from a function, and entered in its middle.
    if memchr::memmem::find(name, b".cold").is_some() {
        return None;
    }
    Some(u64::from_le_bytes(*rest.first_chunk()?))
}

/// Finds what looks like the start of a function, one instruction after the other.
#[derive(Debug)]
struct Scan {
    /// Of the code.
    address: u64,
    /// Control doesn't come from the instruction before, but for padding.
    ended: bool,
    /// A call, then padding.
    after_call: bool,
    padded: bool,
    stub: bool,
    first: bool,
    /// Targets of calls.
    called: Vec<u32>,
    /// Targets of conditional jumps.
    branched: Vec<u32>,
    /// What looks like a start.
    guessed: Vec<u32>,
}

impl Scan {
    const fn new(address: u64) -> Self {
        Self {
            address,
            ended: true,
            after_call: false,
            padded: false,
            stub: false,
            first: true,
            called: Vec::new(),
            branched: Vec::new(),
            guessed: Vec::new(),
        }
    }

    fn next(&mut self, instruction: &Instruction, code: &[u8]) {
        let (offset, effect) = (instruction.offset, instruction.effect);
        match effect {
            Effect::Padding => {
                self.padded = true;
                return;
            }
            Effect::Call(target) if (target as usize) < code.len() => self.called.push(target),
            Effect::Branch(target) if target != OUTSIDE => self.branched.push(target),
            _ => {}
        }
        let aligned = |to: u64| (self.address + u64::from(offset)).is_multiple_of(to);
        let parted = self.padded || effect == Effect::Landing;
        let free = self.ended || self.after_call && parted && aligned(16);
        let bytes = code.get(offset as usize..instruction.end() as usize).unwrap_or_default();
        let prologue = match effect {
            // Elsewhere it is where an exception lands.
            Effect::Landing => self.first || aligned(16),
            // push [rip + n] is the first stub of a linkage table, which others jump to.
            Effect::Push(Saved::Other) if bytes.starts_with(&[0xff, 0x35]) => false,
            // push n behind jmp [rip + n]
            Effect::Push(Saved::Other) if bytes.first() == Some(&0x68) => self.stub,
            Effect::Push(register) if register != Saved::Other || is_callee_saved(bytes) => true,
            // push rax: clang aligns the stack so.
            Effect::Push(_) => bytes == [0x50] && aligned(16),
            Effect::Grow(n) => n > 0 && aligned(16),
            Effect::IndirectJump(true) => aligned(8),
            _ => self.first,
        };
        if free && prologue && effect != Effect::Bad {
            self.guessed.push(offset);
        }
        self.first = false;
        self.ended = effect.ends();
        self.after_call = matches!(effect, Effect::Call(_));
        self.stub = effect == Effect::IndirectJump(true);
        self.padded = false;
    }
}

/// `push r12` to `push r15`
fn is_callee_saved(bytes: &[u8]) -> bool {
    matches!(bytes, [0x41, 0x54..=0x57])
}

/// Known code over what was decoded.
struct Overlay<'k> {
    known: &'k [Known],
    /// The first of `known` holds already.
    begun: bool,
    in_force: PackedRule,
}

impl Overlay<'_> {
    fn row(&mut self, address: u64, rule: PackedRule, writer: &mut Writer<'_>, stats: &mut RowStats) {
        while let Some((known, rest)) = self.known.split_first().filter(|(known, _)| known.first <= address) {
            if !self.begun {
                writer.set(known.first, PackedRule::new(known.rule), stats);
                self.begun = true;
            }
            if address < known.past {
                self.in_force = rule;
                return;
            }
            writer.set(known.past, self.in_force, stats);
            (self.known, self.begun) = (rest, false);
        }
        self.in_force = rule;
        writer.set(address, rule, stats);
    }

    fn finish(mut self, writer: &mut Writer<'_>, stats: &mut RowStats) {
        while let Some((known, rest)) = self.known.split_first() {
            if !self.begun {
                writer.set(known.first, PackedRule::new(known.rule), stats);
            }
            writer.set(known.past, self.in_force, stats);
            (self.known, self.begun) = (rest, false);
        }
    }
}

#[cfg(test)]
mod tests;
