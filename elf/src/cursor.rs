//! Reading little-endian numbers off the front of a slice.

/// What is left to read. Every read that would pass the end gives `None` and leaves the cursor where it was or at the end.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// All of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What is left.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// How much is left, bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next 8 bits.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// The next 16 bits.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next 32 bits.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next 64 bits.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Passes over `count` bytes.
    pub fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    /// The bytes before the next zero; the zero is read too.
    pub fn c_string(&mut self, longest: usize) -> Option<&'a [u8]> {
        let window = self.0.get(..longest).unwrap_or(self.0);
        let text = self.0.get(..window.iter().position(|&byte| byte == 0)?)?;
        self.0 = self.0.get(text.len() + 1..)?;
        Some(text)
    }

    /// An unsigned LEB128; bits past the 64th are dropped, more than ten bytes are refused.
    #[inline]
    pub fn uleb(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..70).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A signed LEB128; the same limits.
    #[inline]
    pub fn sleb(&mut self) -> Option<i64> {
        let mut value = 0_i64;
        for shift in (0..70_u32).step_by(7) {
            let byte = self.u8()?;
            value |= i64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                let width = shift + 7;
                if width < 64 && byte & 0x40 != 0 {
                    value |= -1_i64 << width;
                }
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    #[test]
    fn leb128_of_the_dwarf_standard_and_of_liars() {
        // DWARF 5, figures 22 and 23.
        for (bytes, value) in [(&[2_u8][..], 2), (&[127], 127), (&[0x80, 1], 128), (&[0x39 + 0x80, 100], 12_857)] {
            assert_eq!(Cursor::new(bytes).uleb(), Some(value));
        }
        for (bytes, value) in
            [(&[2_u8][..], 2), (&[0x7e], -2), (&[0x80, 1], 128), (&[0x80, 0x7f], -128), (&[0x81, 0x7f], -127)]
        {
            assert_eq!(Cursor::new(bytes).sleb(), Some(value));
        }
        assert_eq!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).uleb(), Some(u64::MAX));
        assert_eq!(Cursor::new(&[0x80; 64]).uleb(), None);
        assert_eq!(Cursor::new(&[0x80; 64]).sleb(), None);
        assert_eq!(Cursor::new(&[0x80]).uleb(), None);
        let mut minimum = [0x80; 10];
        minimum[9] = 0x7f;
        assert_eq!(Cursor::new(&minimum).sleb(), Some(i64::MIN));
    }
}
