//! Functions: what all closures of one share (`SharedFunctionInfo`) knows its name, and where it begins.

use std::sync::Arc;

use super::heap::{Heap, Word, words};
use super::layout::{Layout, SHARED_DATA};
use super::text::{is_string, text};

/// Longest name, characters.
const MAX_NAME: u32 = 1024;
/// Variables from which on a scope has their names elsewhere.
const MANY_VARIABLES: i32 = 75;
/// Slots that follow the variables' and are looked at.
const MORE_SLOTS: usize = 7;

/// A function.
#[derive(Clone, Debug)]
pub(super) struct Function {
    /// As V8 names it in its own profiles.
    pub name: Arc<str>,
    /// Its script; not checked.
    pub script: Word,
    /// Where it begins in its script.
    pub start: Option<u32>,
}

/// What a function with neither name is called.
const ANONYMOUS: &str = "<anonymous>";

/// What is told of the function in `shared`, if it is one, and `cookie` is that of the kernel half; 0: none.
pub(super) fn read(heap: &Heap<'_>, layout: &Layout, shared: Word, expected: u32) -> Option<Function> {
    heap.expect(shared, layout.types.shared)?;
    let numbers = heap.field(shared, layout.shared_numbers)?;
    let flags = heap.field(shared, layout.shared_flags)?;
    if expected != 0 && expected != cookie(numbers.0, flags.0) {
        return None;
    }
    let script = heap.field(shared, layout.shared_script)?;
    let name = heap.field(shared, layout.shared_name)?;
    let (name, start) = match heap.kind(name) {
        Some(kind) if is_string(kind) => (text(heap, name, MAX_NAME), None),
        Some(kind) if kind == layout.types.scope => of_scope(heap, layout, name),
        _ => (None, None),
    };
    let name = name.filter(|name| !name.is_empty());
    Some(Function { name: Arc::from(name.as_deref().unwrap_or(ANONYMOUS)), script, start })
}

/// What tells a function from another at the same address: its length, parameters, place of its token, and its number in its script.
/// The twin is `v8_cookie` of `v8.h`.
pub(super) const fn cookie(numbers: u64, flags: u64) -> u32 {
    let hash = ((numbers << 16) ^ (flags >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Two bits are left to the kernel half, and it is never 0.
    ((hash >> 34) as u32 | 1) & COOKIE
}

/// The bits of a frame's cookie that are the function's.
pub(super) const COOKIE: u32 = (1 << 30) - 1;

/// Name and first character, as a scope has them:
///
/// `flags, parameters, variables, [first, last,] names and places of variables, [name, place,] [inferred name,] [first, last,] ...`
fn of_scope(heap: &Heap<'_>, layout: &Layout, scope: Word) -> (Option<String>, Option<u32>) {
    let slot = |index: u64| heap.word(scope.object()?.checked_add(8 + index * 8)?);
    let range = || {
        let start = slot(u64::from(layout.scope_first) - 2)?.small()?;
        u32::try_from(start).ok()
    };
    let more = || {
        let variables = slot(2)?.small().filter(|count| *count >= 0)?;
        let slots = if variables < MANY_VARIABLES { i64::from(variables) * 2 } else { i64::from(variables) + 1 };
        let first = u64::from(layout.scope_first) + u64::try_from(slots).ok()?;
        heap.bytes(scope.object()?.checked_add(8 + first * 8)?, MORE_SLOTS * 8, MORE_SLOTS * 8)
    };
    let more: Vec<Word> = more().map(|bytes| words(&bytes).collect()).unwrap_or_default();
    let mut strings = more.iter().take(4).filter(|word| heap.kind(**word).is_some_and(is_string));
    let name = strings.find_map(|name| text(heap, *name, MAX_NAME).filter(|name| !name.is_empty()));
    let start = if layout.scope_has_range {
        range()
    } else {
        // The first two small integers side by side.
        let pair = |pair: &[Word]| match [pair[0].small(), pair[1].small()] {
            [Some(first), Some(last)] if last >= first => u32::try_from(first).ok(),
            _ => None,
        };
        more.windows(2).find_map(pair)
    };
    (name, start)
}

/// The bytecode of a function: it has it, or what was made of it has.
pub(super) fn bytecode(heap: &Heap<'_>, layout: &Layout, shared: Word) -> Option<Word> {
    let mut from = heap.field(shared, SHARED_DATA)?;
    // Code of the baseline compiler, then data of an interpreter's own entry.
    for _ in 0..3 {
        let kind = heap.kind(from)?;
        let next = match kind {
            kind if kind == layout.types.bytecode => return Some(from),
            kind if kind == layout.types.code => layout.code_origin,
            kind if kind == layout.types.interpreter => 8,
            _ => return None,
        };
        from = heap.field(from, next)?;
    }
    None
}
