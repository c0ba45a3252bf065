//! What the kernel half needs of an interpreter: `struct python_instance` of `python.h`.

use super::layout::{Entry, LAST_OWNER, Layout, Position};
use super::thread::Resolved;
use super::trampolines::Trampolines;

/// `PYTHON_NO_HOP`
const NO_HOP: u16 = u16::MAX;

/// The struct's bytes.
pub(super) fn bytes(layout: &Layout, place: &Resolved, trampolines: &Trampolines) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(80);
    bytes.extend(place.key.to_ne_bytes());
    bytes.extend(place.slots.to_ne_bytes());
    bytes.extend(place.more_slots.to_ne_bytes());
    let (entry, entry_at) = match layout.entry {
        Entry::Every => (0, 0),
        Entry::Flag(at) => (1, at),
        Entry::Owner(at) => (2, at),
    };
    let position = match layout.position {
        Position::Number => 0,
        Position::Address => 1,
    };
    bytes.extend([place.kind as u8, entry, position, layout.tag, LAST_OWNER, 0]);
    let (code_from, code_bytes) = layout.code_span();
    let halves = [
        layout.thread_id,
        layout.thread_frame,
        layout.hop.unwrap_or(NO_HOP),
        layout.frame_bytes(),
        layout.frame_code,
        layout.frame_previous,
        layout.frame_position,
        entry_at,
        layout.code,
        code_from,
        code_bytes,
    ];
    let cookie = layout.cookie().map(|word| word - code_from);
    bytes.extend(halves.into_iter().chain(cookie).chain([0, 0]).flat_map(u16::to_ne_bytes));
    let (first, end) = trampolines.span();
    bytes.extend([first, end].into_iter().flat_map(u64::to_ne_bytes));
    bytes
}
