//! Everything that is missing from a profile, by reason.

use profiler_otlp::model::Loss;
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
