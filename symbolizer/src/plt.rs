//! Names for PLT stubs: `malloc@plt`.
//!
//! Sections differ by linker and hardening (`.plt`, `.plt.sec`, `.plt.got`, lazy or not), but every stub jumps through one slot
//! of the GOT and a relocation says whose slot that is. So the code is read instead of its layout assumed.

use crate::symbols::SymbolTable;
use profiler_elf::le::{u32_in, u64_in};
use profiler_elf::{Elf, MACHINE_AARCH64, MACHINE_X86_64, SHT_DYNSYM, SHT_RELA, Section};
use rustc_hash::FxHashMap;

const MAX_RELOCATIONS: u64 = 4 << 20;
/// Bytes of stubs in all sections: a quarter of a million, where large programs have some ten thousand.
const MAX_PLT: u64 = 4 << 20;
const MAX_NAME: u64 = 4 << 10;
const MAX_NAMES: usize = 4 << 20;

/// The stubs of a file as a symbol table; none if there are none.
pub(crate) fn stubs(elf: &Elf) -> Option<SymbolTable> {
    let sections = elf.sections().iter().filter(|s| s.name.starts_with(".plt") && s.is_code()).take(8);
    let (mut jumps, mut left) = (Vec::new(), MAX_PLT);
    for section in sections {
        let Some(rest) = left.checked_sub(section.size) else { continue };
        left = rest;
        let Ok(code) = elf.bytes.read_vec(section.offset.0, section.size) else { continue };
        match elf.machine() {
            MACHINE_X86_64 => x86_64(section, &code, &mut jumps),
            MACHINE_AARCH64 => aarch64(section, &code, &mut jumps),
            _ => {}
        }
    }
    if jumps.is_empty() {
        return None;
    }
    let wanted: rustc_hash::FxHashSet<u64> = jumps.iter().map(|jump| jump.slot).collect();
    let symbol_of = slots(elf, &wanted);
    let symbols = elf.sections().iter().find(|s| s.kind == SHT_DYNSYM)?;
    let strings = elf.paged(elf.sections().get(symbols.link as usize)?, 16);
    let symbols = elf.paged(symbols, 16);
    let (mut stubs, mut names) = (Vec::new(), Vec::new());
    for jump in jumps {
        let Some(index) = symbol_of.get(&jump.slot) else { continue };
        let Ok(name) = symbols.u32_at(u64::from(*index) * 24) else { continue };
        let Ok(Some(name)) = strings.string_at(name.into(), MAX_NAME) else { continue };
        if name.is_empty() || names.len() > MAX_NAMES {
            continue;
        }
        stubs.push((jump.start, jump.size, names.len() as u32));
        names.extend_from_slice(name.as_bytes());
        names.extend_from_slice(b"@plt\0");
    }
    Some(SymbolTable::of_stubs(stubs, names))
}

struct Jump {
    start: u64,
    size: u32,
    slot: u64,
}

/// `jmp *disp32(%rip)` (`ff 25`), perhaps after `endbr64` or with a `bnd` prefix, in stubs of 8 or 16 bytes.
fn x86_64(section: &Section, code: &[u8], jumps: &mut Vec<Jump>) {
    let size = if &*section.name == ".plt.got" && !section_has_endbr(code) { 8 } else { 16 };
    for (index, stub) in code.chunks(size).enumerate() {
        let start = section.address.0.wrapping_add((index * size) as u64);
        // The first stub of a lazy PLT pushes, then jumps to the resolver: `ff 35 ... ff 25`.
        if stub.starts_with(&[0xff, 0x35]) {
            continue;
        }
        let Some(at) = stub.windows(2).position(|pair| pair == [0xff, 0x25]) else { continue };
        let Some(displacement) = stub.get(at + 2..at + 6).and_then(|b| b.try_into().ok()).map(i32::from_le_bytes)
        else {
            continue;
        };
        let slot = start.wrapping_add(at as u64 + 6).wrapping_add_signed(displacement.into());
        jumps.push(Jump { start, size: size as u32, slot });
    }
}

fn section_has_endbr(code: &[u8]) -> bool {
    code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa])
}

/// `adrp x16, page; ldr x17, [x16, #offset]`, perhaps after `bti c`, in stubs of 16 or 24 bytes.
fn aarch64(section: &Section, code: &[u8], jumps: &mut Vec<Jump>) {
    let words: Vec<u32> = code.chunks_exact(4).map(|word| u32_in(word, 0)).collect();
    let mut found = Vec::new();
    for (index, pair) in words.windows(2).enumerate() {
        let &[adrp, ldr] = pair else { continue };
        if adrp & 0x9f00_001f != 0x9000_0010 || ldr & 0xffc0_03ff != 0xf940_0211 {
            continue;
        }
        let at = section.address.0.wrapping_add(index as u64 * 4);
        let pages = i64::from((((adrp >> 5) & 0x7_ffff) << 2 | (adrp >> 29) & 3) as i32) << 43 >> 43;
        let slot = (at & !0xfff).wrapping_add_signed(pages << 12).wrapping_add(u64::from((ldr >> 10) & 0xfff) * 8);
        let landing_pad = index.checked_sub(1).and_then(|i| words.get(i)).is_some_and(|word| *word == 0xd503_245f);
        found.push((if landing_pad { at.wrapping_sub(4) } else { at }, slot));
    }
    // A stub reaches to the next one.
    let ends = found.iter().skip(1).map(|(start, _)| *start).chain([section.end()]);
    for (&(start, slot), end) in found.iter().zip(ends) {
        jumps.push(Jump { start, size: u32::try_from(end.saturating_sub(start)).unwrap_or(0).min(24), slot });
    }
}

/// GOT slot -> index in .dynsym, for the slots wanted.
fn slots(elf: &Elf, wanted: &rustc_hash::FxHashSet<u64>) -> FxHashMap<u64, u32> {
    let mut found = FxHashMap::default();
    let sections = elf.sections().iter().filter(|s| s.kind == SHT_RELA && s.size / 24 <= MAX_RELOCATIONS);
    for section in sections.take(8) {
        let mut at = 0;
        while at < section.size {
            let len = (section.size - at).min(24 * 4096);
            let Ok(batch) = elf.bytes.read_vec(section.offset.0.saturating_add(at), len) else { break };
            for relocation in batch.chunks_exact(24) {
                let (slot, symbol) = (u64_in(relocation, 0), u32_in(relocation, 12));
                if symbol != 0 && wanted.contains(&slot) {
                    found.insert(slot, symbol);
                }
            }
            at += len;
        }
    }
    found
}
