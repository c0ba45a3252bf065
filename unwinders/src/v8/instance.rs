//! What the kernel half needs of V8: `struct v8_instance` of `v8.h`.

use super::layout::{Layout, SHARED_DATA};

/// Copies of the builtins that a process may have.
pub(super) const MAX_COPIES: usize = 3;

/// The struct's bytes: where the builtins are (first address, one past the last), and among them, from the first on, what enters bytecode.
pub(super) fn bytes(layout: &Layout, builtins: &[(u64, u64)], entry: (u64, u64)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for copy in 0..MAX_COPIES {
        let (start, end) = builtins.get(copy).copied().unwrap_or_default();
        bytes.extend(start.to_ne_bytes());
        bytes.extend(end.to_ne_bytes());
    }
    for number in [entry.0, entry.1] {
        bytes.extend(u32::try_from(number).unwrap_or(0).to_ne_bytes());
    }
    // The kernel half reads words from this one on.
    let word = |at: u16| at.saturating_sub(SHARED_DATA) / 8;
    let halves =
        [layout.function_shared, word(layout.shared_numbers), word(layout.shared_flags), layout.types.bytecode];
    bytes.extend(halves.into_iter().flat_map(u16::to_ne_bytes));
    bytes
}
