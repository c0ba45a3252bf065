//! Tables of positions: which place of the source, or which bytecode, an offset of code belongs to.
//!
//! Of the source (V8's `source-position-table.h`): pairs of differences, each a number of seven bits a byte, the lowest first, of which
//! the lowest bit, if set, inverts the others. The first, of the offset, is negative (less one) for what is no statement. Offsets begin at -1.
//!
//! Of bytecode (`bytecode-offset-iterator.h`): for what precedes the first bytecode, then for each: bytes of machine code.

/// A place in the source, as V8 packs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(pub u64);

impl Place {
    /// Characters from the beginning of the script; none if it is of no script.
    pub(super) fn offset(self) -> Option<u32> {
        let offset = ((self.0 >> 1) & ((1 << 30) - 1)) as u32;
        if self.0 & 1 == 1 { None } else { offset.checked_sub(1) }
    }

    /// Which inlined call it is in; none: it is of the function itself.
    pub(super) fn inlined(self) -> Option<u32> {
        (((self.0 >> 31) & 0xffff) as u32).checked_sub(1)
    }
}

/// The place of the last entry of `table` that is not after `offset`.
pub(super) fn place(table: &[u8], offset: u32) -> Option<Place> {
    let mut rest = table.iter().copied();
    let (mut at, mut place, mut found) = (-1_i64, 0_i64, None);
    while let Some(first) = signed(&mut rest) {
        at = at.wrapping_add(if first < 0 { -(first + 1) } else { first });
        place = place.wrapping_add(signed(&mut rest)?);
        if at > i64::from(offset) {
            break;
        }
        found = Some(Place(place as u64));
    }
    found
}

/// The offset of the bytecode that machine code at `offset` belongs to. `sizes` are those of bytecodes (see `Layout`).
pub(super) fn bytecode(table: &[u8], bytecodes: &[u8], sizes: &[u8], offset: u32) -> Option<u32> {
    let count = sizes.len() / 3;
    let size = |scale: usize, code: u8| sizes.get(scale * count + usize::from(code)).copied().map(usize::from);
    let mut rest = table.iter().copied();
    let mut end = unsigned(&mut rest)?;
    let mut at = 0;
    while end <= u64::from(offset) {
        end = end.checked_add(unsigned(&mut rest)?)?;
        if end > u64::from(offset) {
            return u32::try_from(at).ok();
        }
        let length = match *bytecodes.get(at)? {
            // Prefixes that widen what follows: Wide, ExtraWide, and their like for debuggers.
            prefix @ 0..4 => 1 + size(1 + usize::from(prefix & 1), *bytecodes.get(at + 1)?)?,
            code => size(0, code)?,
        };
        at += length.max(1);
    }
    // Before the first bytecode.
    Some(0)
}

fn unsigned(rest: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = rest.next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn signed(rest: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let value = unsigned(rest)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// A number as tables of places have it.
#[cfg(test)]
pub(super) fn encode(value: i64, bytes: &mut Vec<u8>) {
    let mut left = (value << 1 ^ value >> 63) as u64;
    while left > 0x7f {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(i64, u64)]) -> Vec<u8> {
        let (mut at, mut place) = (-1, 0);
        let mut table = Vec::new();
        for (number, &(offset, position)) in entries.iter().enumerate() {
            let difference = offset - at;
            // Every other one is no statement.
            encode(if number % 2 == 0 { difference } else { -difference - 1 }, &mut table);
            encode(position as i64 - place, &mut table);
            (at, place) = (offset, position as i64);
        }
        table
    }

    #[test]
    fn a_place_is_that_of_the_last_entry_before_it() {
        let inlined = 3 << 31;
        let table = table(&[(0, 20), (5, 900), (6, 40 | inlined), (300, 2)]);
        for (offset, wanted) in
            [(0, 20), (4, 20), (5, 900), (6, 40 | inlined), (299, 40 | inlined), (300, 2), (9999, 2)]
        {
            assert_eq!(place(&table, offset), Some(Place(wanted)), "{offset}");
        }
        assert_eq!(Place(40 | inlined).offset(), Some(19));
        assert_eq!(Place(40 | inlined).inlined(), Some(2));
        assert_eq!((Place(0).offset(), Place(0).inlined(), Place(41).offset()), (None, None, None));
        assert_eq!(place(&[], 7), None);
    }

    #[test]
    fn machine_code_is_counted_by_bytecodes() {
        // Five bytecodes, of which number 4 has one byte and an operand: 2, 3 and 5 bytes.
        let sizes = [1, 1, 1, 1, 2, 1, 1, 1, 1, 3, 1, 1, 1, 1, 5];
        // 4 x, wide 4 x x, 4 x, extra wide 4 x x x x, 4 x: at 0, 2, 6, 8 and 14
        let bytecodes = [4, 9, 0, 4, 9, 9, 4, 9, 1, 4, 9, 9, 9, 9, 4, 9];
        let table = [10, 3, 0, 200, 1, 6, 7];
        let at = |offset| bytecode(&table, &bytecodes, &sizes, offset);
        assert_eq!([at(0), at(9), at(10), at(12)], [Some(0); 4]);
        assert_eq!([at(13), at(13 + 199)], [Some(6); 2], "the one at 2 has no code");
        assert_eq!([at(213), at(218), at(219), at(225)], [Some(8), Some(8), Some(14), Some(14)]);
        assert_eq!(at(226), None, "after the last");
        assert_eq!(bytecode(&table, &bytecodes, &[], 13), None);
    }

    #[test]
    fn any_bytes_end() {
        let all: Vec<u8> = (0..=255).cycle().take(4096).collect();
        for from in 0..300 {
            let bytes = all.get(from..).unwrap();
            let _ = (place(bytes, u32::MAX), bytecode(bytes, bytes, &all[..600], u32::MAX));
        }
        assert_eq!(place(&[0xff; 64], 1), None);
    }
}
