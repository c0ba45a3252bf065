//! From a position in a code object to a line of its source, by the formats of CPython's documentation (`Objects/lnotab_notes.txt`,
//! `Objects/locations.md`, `InternalDocs/code_objects.md`).

use profiler_elf::Cursor;

/// How a code object says which line its instructions are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Up to 3.9: pairs of a distance in bytes and one in lines.
    Lnotab,
    /// 3.10: ranges, of which some have no line.
    Ranges,
    /// From 3.11 on: entries with columns, too.
    Locations,
}

/// The line of the instruction at `position`, bytes from the first; none if it has none. `first` is the function's first line.
#[must_use]
pub fn line(format: Format, table: &[u8], first: u32, position: u32) -> Option<u32> {
    let line = match format {
        Format::Lnotab => lnotab(table, i64::from(first), position),
        Format::Ranges => ranges(table, i64::from(first), position)?,
        Format::Locations => locations(table, i64::from(first), position)?,
    };
    u32::try_from(line).ok()
}

/// Each pair says how far it is to the next instruction whose line is another, and what to add to the line there.
fn lnotab(table: &[u8], mut line: i64, position: u32) -> i64 {
    let mut address = 0u64;
    for [distance, lines] in table.as_chunks::<2>().0 {
        address += u64::from(*distance);
        if address > u64::from(position) {
            break;
        }
        line += i64::from(*lines as i8);
    }
    line
}

/// Each pair is a range of bytes, and what to add to the line for it.
fn ranges(table: &[u8], mut line: i64, position: u32) -> Option<i64> {
    const NO_LINE: u8 = 128;
    let mut end = 0u64;
    for [length, lines] in table.as_chunks::<2>().0 {
        end += u64::from(*length);
        if *lines != NO_LINE {
            line += i64::from(*lines as i8);
        }
        if u64::from(position) < end {
            return (*lines != NO_LINE).then_some(line);
        }
    }
    None
}

/// Each entry begins with a byte that has its highest bit set, a code of four bits, and how many units of two bytes it is for.
fn locations(table: &[u8], mut line: i64, position: u32) -> Option<i64> {
    let mut table = Cursor::new(table);
    let mut end = 0u64;
    while let Some(head) = table.u8() {
        end += (u64::from(head & 7) + 1) * 2;
        let mut has_line = true;
        match head >> 3 & 15 {
            // A column in the same line.
            0..=9 => table.skip(1)?,
            // One of the next lines, and two columns.
            code @ 10..=12 => {
                line = line.checked_add(i64::from(code) - 10)?;
                table.skip(2)?;
            }
            13 => line = line.checked_add(signed(&mut table)?)?,
            14 => {
                line = line.checked_add(signed(&mut table)?)?;
                for _ in 0..3 {
                    varint(&mut table)?;
                }
            }
            _ => has_line = false,
        }
        if u64::from(position) < end {
            return has_line.then_some(line);
        }
    }
    None
}

/// Six bits a byte, the lowest first; another byte follows while bit 6 is set.
fn varint(table: &mut Cursor<'_>) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..60).step_by(6) {
        let byte = table.u8()?;
        value |= u64::from(byte & 63) << shift;
        if byte & 64 == 0 {
            return Some(value);
        }
    }
    None
}

/// The sign is the lowest bit.
fn signed(table: &mut Cursor<'_>) -> Option<i64> {
    let value = varint(table)?;
    let magnitude = i64::try_from(value >> 1).ok()?;
    Some(if value & 1 == 0 { magnitude } else { -magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_add_up_to_the_instruction() {
        // As `Objects/lnotab_notes.txt`: lines 1, 2, 7, 350 and 500 begin at bytes 0, 6, 50, 361 and 380.
        let table = [0, 1, 6, 1, 44, 5, 255, 0, 56, 127, 0, 127, 0, 89, 19, 127, 0, 23];
        for (position, expected) in
            [(0, 1), (5, 1), (6, 2), (49, 2), (50, 7), (360, 7), (361, 350), (380, 500), (9999, 500)]
        {
            assert_eq!(line(Format::Lnotab, &table, 0, position), Some(expected), "{position}");
        }
    }

    #[test]
    fn a_range_without_a_line_counts_as_a_range() {
        let table = [2, 1, 4, 128, 6, 2, 8, 254];
        for (position, expected) in
            [(0, Some(11)), (2, None), (5, None), (6, Some(13)), (12, Some(11)), (19, Some(11)), (20, None)]
        {
            assert_eq!(line(Format::Ranges, &table, 10, position), expected, "{position}");
        }
    }

    #[test]
    fn an_entry_without_a_line_changes_none() {
        // code 11 (+1), 2 units; code 15, 1 unit; code 0, 1 unit; code 13 (-3), 1 unit; code 14 (+70), 1 unit
        let table =
            [0x80 | 11 << 3 | 1, 0, 0, 0x80 | 15 << 3, 0x80, 0, 0x80 | 13 << 3, 7, 0x80 | 14 << 3, 0x4c, 2, 0, 1, 1];
        for (position, expected) in
            [(0, Some(21)), (3, Some(21)), (4, None), (6, Some(21)), (8, Some(18)), (10, Some(88)), (12, None)]
        {
            assert_eq!(line(Format::Locations, &table, 20, position), expected, "{position}");
        }
    }

    #[test]
    fn any_bytes_end() {
        for format in [Format::Lnotab, Format::Ranges, Format::Locations] {
            for byte in 0..=255 {
                let _ = line(format, &[byte; 99], u32::MAX, u32::MAX);
            }
        }
    }
}
