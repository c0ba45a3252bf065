//! Numbers as HotSpot compresses them (`UNSIGNED5`), and the line table that is made of them (`lineNumberTable` of
//! `compressedStream.hpp`, `constMethod.hpp`).

/// Bytes from here on say that more follow.
const CONTINUES: u8 = 192;
const MAX_BYTES: u32 = 5;
/// In a line table: two whole numbers follow.
const ESCAPE: u8 = 0xff;

/// Reads `UNSIGNED5` numbers off the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Compressed<'a> {
    rest: &'a [u8],
    /// What is taken off each byte: 1 from JDK 20 on, so that none is 0.
    excess: u8,
}

impl<'a> Compressed<'a> {
    /// As a JDK of `version` writes them.
    #[must_use]
    pub const fn new(bytes: &'a [u8], version: u32) -> Self {
        Self { rest: bytes, excess: if version >= 20 { 1 } else { 0 } }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// The next number; none at the end, or if a byte is what is never written.
    pub fn unsigned(&mut self) -> Option<u32> {
        let mut sum = 0_u32;
        for i in 0..MAX_BYTES {
            let byte = self.byte()?;
            let digit = u32::from(byte.checked_sub(self.excess)?);
            sum = sum.wrapping_add(digit.wrapping_shl(6 * i));
            if byte < CONTINUES {
                break;
            }
        }
        Some(sum)
    }

    /// The next number with a sign.
    pub fn signed(&mut self) -> Option<i32> {
        let number = self.unsigned()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// Of a line table: the line of the bytecode at `bci`; 0 if the table does not say.
    #[must_use]
    pub fn line_of(mut self, bci: u32) -> u32 {
        let (mut at, mut line, mut best) = (0_i64, 0_i64, None::<(i64, i64)>);
        while let Some(byte) = self.byte() {
            match byte {
                0 => break,
                ESCAPE => {
                    let (Some(more), Some(lines)) = (self.signed(), self.signed()) else { break };
                    at += i64::from(more);
                    line += i64::from(lines);
                }
                _ => {
                    at += i64::from(byte >> 3);
                    line += i64::from(byte & 7);
                }
            }
            if at <= bci.into() && best.is_none_or(|(before, _)| at >= before) {
                best = Some((at, line));
            }
        }
        best.and_then(|(_, line)| u32::try_from(line).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `UNSIGNED5::write_uint` does.
    fn write(number: u32, version: u32) -> Vec<u8> {
        let excess = u32::from(version >= 20);
        let low = 192 - excess;
        let mut bytes = Vec::new();
        let mut rest = number;
        while rest >= low && bytes.len() < 4 {
            rest -= low;
            bytes.push((low + excess + rest % 64) as u8);
            rest /= 64;
        }
        bytes.push((rest + excess) as u8);
        bytes
    }

    proptest::proptest! {
        #[test]
        fn numbers_are_read_as_they_are_written(numbers in proptest::collection::vec(proptest::prelude::any::<u32>(), 1..20), version in 8_u32..29) {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| write(*number, version)).collect();
            let mut compressed = Compressed::new(&bytes, version);
            for number in numbers {
                proptest::prop_assert_eq!(compressed.unsigned(), Some(number));
            }
            proptest::prop_assert_eq!(compressed.unsigned(), None);
        }
    }

    #[test]
    fn a_line_is_that_of_the_last_entry_at_or_before() {
        for version in [8, 17, 20, 28] {
            // bci 0 line 7, bci 4 line 8, bci 90 line 3
            let mut table = vec![ESCAPE];
            table.extend(write(0, version));
            table.extend(write(14, version));
            table.push(4 << 3 | 1);
            table.push(ESCAPE);
            table.extend(write(86 << 1, version));
            table.extend(write((5 << 1) - 1, version));
            table.push(0);
            let of = |bci| Compressed::new(&table, version).line_of(bci);
            assert_eq!([0, 3, 4, 89, 90, 5000].map(of), [7, 7, 8, 8, 3, 3], "{version}");
        }
        assert_eq!(Compressed::new(&[], 17).line_of(3), 0);
        assert_eq!(Compressed::new(&[ESCAPE, 200], 17).line_of(3), 0);
    }
}
