//! Pointers as `.eh_frame` encodes them (Linux Standard Base 5.0, section 10.5: `DW_EH_PE_*`).

use profiler_address::ElfVaddr;

use profiler_elf::{Cursor, ElfParts};

pub(super) const ABSOLUTE: u8 = 0;
pub(super) const OMIT: u8 = 0xff;

/// What relative pointers are relative to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bases {
    /// Address of the section's first byte.
    pub(super) section: u64,
    /// Start of `.text`.
    pub(super) text: u64,
    /// Start of `.got`, which is what x86 takes for the data base.
    pub(super) data: u64,
}

/// Reads a pointer at offset `at` of its section.
#[inline]
pub(super) fn pointer(
    cursor: &mut Cursor<'_>,
    at: usize,
    encoding: u8,
    bases: &Bases,
    parts: &ElfParts<'_>,
) -> Option<u64> {
    // What every linker writes: four bytes, relative to where they stand.
    if encoding == 0x1b {
        let offset = i64::from(cursor.u32()?.cast_signed());
        return Some(bases.section.wrapping_add(at as u64).wrapping_add_signed(offset));
    }
    let place = bases.section.wrapping_add(at as u64);
    if encoding == 0x50 {
        // Aligned: an absolute pointer at the next multiple of eight.
        cursor.skip((place.wrapping_neg() & 7) as usize)?;
        return cursor.u64();
    }
    let value = value(cursor, encoding)?;
    let base = match encoding & 0x70 {
        0x00 => 0,
        0x10 => place,
        0x20 => bases.text,
        0x30 => bases.data,
        _ => return None,
    };
    let address = base.wrapping_add(value);
    if encoding & 0x80 == 0 { Some(address) } else { parts.u64_at(ElfVaddr(address)) }
}

/// Reads a number in the format of `encoding`, whatever it is relative to.
#[inline]
pub(super) fn value(cursor: &mut Cursor<'_>, encoding: u8) -> Option<u64> {
    match encoding & 0x0f {
        0x00 | 0x04 | 0x0c => cursor.u64(),
        0x01 => cursor.uleb(),
        0x02 => cursor.u16().map(u64::from),
        0x03 => cursor.u32().map(u64::from),
        0x09 => cursor.sleb().map(i64::cast_unsigned),
        0x0a => cursor.u16().map(|value| i64::from(value.cast_signed()).cast_unsigned()),
        0x0b => cursor.u32().map(|value| i64::from(value.cast_signed()).cast_unsigned()),
        _ => None,
    }
}

/// Reads a length: no base, and never negative.
#[inline]
pub(super) fn length(cursor: &mut Cursor<'_>, encoding: u8) -> Option<u64> {
    match encoding & 0x0f {
        0x0a => cursor.u16().map(u64::from),
        0x0b => cursor.u32().map(u64::from),
        format => value(cursor, format),
    }
}
