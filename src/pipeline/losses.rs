//! Everything that is missing from a profile, by reason.

use profiler_model::Loss;
use profiler_unwinders::native::Stats;

use super::Totals;

/// The losses that a user is to see; what did not happen is left out.
pub fn of(totals: &Totals, unwinder: &Stats) -> Vec<Loss> {
    let mut losses = vec![
        ("lost: ring full", totals.kernel.ring_full),
        ("lost: more samples than could be worked off", totals.intake_dropped),
        ("lost: more samples than the window has room for", totals.over_budget),
        ("lost: kernel stack not taken", totals.kernel.kernel_stack_failed),
        ("lost: process events (side band full)", totals.sideband_lost),
        ("unwind tables: file unreadable, frame pointers followed", unwinder.failed),
        ("unwind tables: over budget, frame pointers followed", unwinder.over_budget),
        ("unwind tables: process table full, unwound in user space", unwinder.unpublished),
    ];
    losses.extend(totals.incomplete.iter().map(|(&reason, &count)| (reason, count)));
    losses
        .into_iter()
        .filter(|&(_, count)| count > 0)
        .map(|(reason, count)| Loss { reason: reason.to_owned(), count })
        .collect()
}

/// What could not be read for names, or not kept, by reason; see [`of_names`].
#[must_use]
pub fn names(stats: &profiler_symbolizer::Stats) -> [(&'static str, u64); 6] {
    [
        ("perf map or jitdump entries over the memory budget", stats.jit_left_out),
        ("perf map or jitdump refused", stats.jit_refused),
        ("file unreadable", stats.unreadable_objects),
        ("debug info too large, no lines", stats.dwarf_too_large),
        ("debug info malformed or too costly, no lines", stats.dwarf_failures),
        ("parser failed on a file", stats.panics),
    ]
}

/// The same for a user to see.
pub fn of_names(counts: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<Loss> {
    counts
        .into_iter()
        .filter(|&(_, count)| count > 0)
        .map(|(reason, count)| Loss { reason: format!("names: {reason}"), count })
        .collect()
}
