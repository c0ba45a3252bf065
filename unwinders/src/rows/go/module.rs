//! Where Go's code starts, for tables that leave it out: `moduledata.text` (runtime/symtab.go).

use profiler_address::ElfVaddr;

use profiler_elf::{Cursor, ElfImage};

/// In 64-bit words: `moduledata` starts with a pointer to the pc table's header, then has six slices, `findfunctab`, `minpc`,
/// `maxpc`, `text`. The same from Go 1.16 to 1.26.
const MINPC: u64 = 20;
const TEXT: u64 = 22;
/// Relocations looked at, in all; the largest executables have a few million.
const MAX_RELOCATIONS: usize = 1 << 23;
const R_X86_64_RELATIVE: u32 = 8;

/// The address that functions' offsets count from, given where the pc table is.
pub(super) fn text_start(image: &ElfImage<'_>, pclntab: ElfVaddr) -> Option<u64> {
    let code = |address: u64| image.segments().iter().any(|s| s.executable() && s.contains(ElfVaddr(address)));
    let from_module = module(image, pclntab).and_then(|module| {
        let text = word(image, ElfVaddr(module.0.checked_add(8 * TEXT)?))?;
        let first = word(image, ElfVaddr(module.0.checked_add(8 * MINPC)?))?;
        (text <= first && code(text)).then_some(text)
    });
    // Without C code, Go's linker puts its code first.
    from_module.or_else(|| image.section(".text").map(|text| text.address.0).filter(|&text| code(text)))
}

/// The module's own description: a section of its own from Go 1.26 on, before that somewhere among the data.
fn module(image: &ElfImage<'_>, pclntab: ElfVaddr) -> Option<ElfVaddr> {
    if let Some(section) = image.section(".go.module") {
        return Some(section.address);
    }
    let in_data = [".noptrdata", ".data", ".data.rel.ro"].iter().find_map(|name| {
        let section = image.section(name)?;
        let words = image.section_bytes(section)?.chunks_exact(8);
        let index = words.into_iter().position(|word| word == pclntab.0.to_le_bytes())?;
        Some(section.address.plus(8 * index as u64))
    });
    in_data.or_else(|| relocations(image).find(|&(_, value)| value == pclntab.0).map(|(place, _)| ElfVaddr(place)))
}

/// A pointer in data, relocated if need be.
fn word(image: &ElfImage<'_>, place: ElfVaddr) -> Option<u64> {
    let relocated = || relocations(image).find(|&(at, _)| at == place.0).map(|(_, value)| value);
    image.u64_at(place).filter(|&value| value != 0).or_else(relocated)
}

/// Place and value of all relative relocations.
fn relocations<'a>(image: &ElfImage<'a>) -> impl Iterator<Item = (u64, u64)> + use<'a> {
    let bytes = [".rela.dyn", ".rela"].iter().find_map(|name| image.section_bytes(image.section(name)?));
    bytes.unwrap_or_default().chunks_exact(24).take(MAX_RELOCATIONS).filter_map(|entry| {
        let mut entry = Cursor::new(entry);
        let (place, kind, _symbol) = (entry.u64()?, entry.u32()?, entry.u32()?);
        (kind == R_X86_64_RELATIVE).then_some((place, entry.u64()?))
    })
}
