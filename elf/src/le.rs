//! Little-endian numbers at an offset in a slice; 0 where the slice ends before them.

/// The 16-bit number at `at`.
#[inline]
#[must_use]
pub fn u16_in(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}

/// The 32-bit number at `at`.
#[inline]
#[must_use]
pub fn u32_in(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}

/// The 64-bit number at `at`.
#[inline]
#[must_use]
pub fn u64_in(bytes: &[u8], at: usize) -> u64 {
    array(bytes, at).map_or(0, u64::from_le_bytes)
}

#[inline]
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
