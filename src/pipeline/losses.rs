//! Everything that is missing from a profile, by reason.

use std::collections::BTreeMap;

use profiler_bpf::Counter;
use profiler_model::Loss;
use profiler_unwinders::publish::Stats;
use profiler_unwinders::reading::Troubles;

use super::{Tally, Totals};
use crate::rules::FILTERED;

/// What a count means to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// No loss.
    None,
    /// Samples are missing, for this reason.
    Lost(&'static str),
    /// Samples are there, but less is known of them than should be.
    Lessened(&'static str),
}

/// What the kernel half's counts mean.
#[must_use]
pub const fn of_counter(counter: Counter) -> Meaning {
    match counter {
        Counter::Samples
        | Counter::Filtered
        | Counter::MadeGood
        | Counter::Frames
        | Counter::RuleSearches
        | Counter::Passed
        // Told as what rules drop in a window is.
        | Counter::RuledOut => Meaning::None,
        Counter::RingFull => Meaning::Lost("ring full"),
        Counter::Oversize => Meaning::Lost("record too large"),
        Counter::Busy => Meaning::Lost("sampling interrupted by itself"),
        Counter::Refused => Meaning::Lost("tick refused by the kernel during another program"),
        Counter::KernelStackFailed => Meaning::Lessened("kernel stack not taken"),
    }
}

/// What this side's counts mean.
#[must_use]
pub const fn of_tally(tally: Tally) -> Meaning {
    match tally {
        Tally::Kept | Tally::Filtered => Meaning::None,
        Tally::IntakeDropped => Meaning::Lost("more than could be worked off"),
        Tally::OverBudget => Meaning::Lost("over the memory budget"),
        Tally::Malformed => Meaning::Lost("malformed record"),
    }
}

/// All counts of losses of samples, those that are 0 too: event, what it means, how many.
pub fn counts(totals: &Totals) -> impl Iterator<Item = (&str, Meaning, u64)> {
    totals.sources.iter().flat_map(|(event, source)| {
        let kernel = Counter::ALL.iter().map(|&counter| (of_counter(counter), source.kernel[counter]));
        let session = Tally::ALL.iter().map(|&tally| (of_tally(tally), source.session[tally]));
        kernel.chain(session).map(|(meaning, count)| (event.as_str(), meaning, count))
    })
}

/// How often the kernel half's sampling programs ran: samples that they took, lost or left out, and events that they only counted.
#[must_use]
pub fn runs(totals: &Totals) -> u64 {
    let refused = [Counter::Filtered, Counter::RuledOut, Counter::Passed];
    let taken = [Counter::Samples, Counter::RingFull, Counter::Oversize];
    taken.into_iter().chain(refused).map(|counter| totals.kernel(counter)).sum()
}

/// Samples lost, by event and reason; those that did not happen too.
#[must_use]
pub fn lost(totals: &Totals) -> BTreeMap<(String, &'static str), u64> {
    let mut lost = BTreeMap::new();
    for (event, meaning, count) in counts(totals) {
        if let Meaning::Lost(reason) = meaning {
            *lost.entry((event.to_owned(), reason)).or_default() += count;
        }
    }
    lost
}

/// What was told so far: by event ("" where it is of none) and reason.
pub type Told = BTreeMap<(String, &'static str), u64>;

/// The losses that a user is to see; what did not happen is left out. Where there is more than one source, they are told apart.
#[must_use]
pub fn of(totals: &Totals, unwinder: &Stats) -> Vec<Loss> {
    since(totals, unwinder, &mut Told::new())
}

/// Those that were not told yet. What is new does not depend on how many sources there were before.
#[must_use]
pub fn since(totals: &Totals, unwinder: &Stats, told: &mut Told) -> Vec<Loss> {
    let one = totals.sources.len() < 2;
    let mut new = |event: &str, reason: &'static str, count: u64| {
        count.saturating_sub(told.insert((event.to_owned(), reason), count).unwrap_or_default())
    };
    let mut losses: Vec<(String, u64)> = Vec::new();
    for (event, meaning, count) in counts(totals) {
        let (text, reason) = match meaning {
            Meaning::None => continue,
            Meaning::Lost(reason) => (format!("lost: {reason}"), reason),
            Meaning::Lessened(reason) => (reason.to_owned(), reason),
        };
        let text = if one { text } else { format!("{text} ({event})") };
        losses.push((text, new(event, reason, count)));
    }
    let others = [
        (FILTERED, totals.kernel(Counter::RuledOut)),
        ("lost: process events (side band full)", totals.sideband_lost),
        ("unwind tables: file unreadable, frame pointers followed", unwinder.failed),
        ("unwind tables: over budget, frame pointers followed", unwinder.over_budget),
        ("unwind tables: process table full, unwound in user space", unwinder.unpublished),
        ("unwind tables: runtime left out, too many in one process or in all", unwinder.runtimes_left_out),
        ("reader: given up at a target that let it wait or work without end", totals.reading.given_up),
        ("reader: died at a target", totals.reading.died),
        ("reader: target set aside, its frames have no names or are missing", totals.reading.refused),
        ("unwind tables: more mappings than are kept, their frames have no names", totals.refused_mappings),
    ];
    let incomplete = totals.incomplete.iter().map(|(&reason, &count)| (reason, count));
    losses.extend(
        others.into_iter().chain(incomplete).map(|(reason, count)| (reason.to_owned(), new("", reason, count))),
    );
    for (reason, &count) in &totals.unnamed {
        losses.push((format!("frames without a name: {reason}"), new(reason, "unnamed", count)));
    }
    for (&(runtime, reason), &count) in &totals.refused {
        let count = new(runtime, reason, count);
        losses.push((format!("processes whose runtime has no names: {runtime}, {reason}"), count));
    }
    losses.into_iter().filter(|&(_, count)| count > 0).map(|(reason, count)| Loss { reason, count }).collect()
}

/// What could not be read for names, or not kept, by reason; see [`of_names`].
#[must_use]
pub fn names(stats: &profiler_symbolizer::Stats, troubles: &Troubles) -> [(&'static str, u64); 15] {
    [
        ("perf map or jitdump entries over the memory budget", stats.jit_left_out),
        ("perf map or jitdump refused", stats.jit_refused),
        (
            "perf map written anew or not followed, what some of its addresses meant before is not told",
            stats.jit_forgotten,
        ),
        ("file unreadable", stats.unreadable_objects),
        ("symbol table too large for the memory budget", stats.symbols_too_large),
        ("names of one file over the memory budget", stats.names_left_out),
        ("debug info too large, no lines", stats.dwarf_too_large),
        ("debug info malformed or too costly, no lines", stats.dwarf_failures),
        ("parser failed on a file", stats.panics),
        ("split debug info not found (.dwo, .dwp)", stats.dwo_missing),
        ("common debug info not found (.gnu_debugaltlink)", stats.supplement_missing),
        ("frames for which nobody could be asked", stats.unasked),
        ("namer given up at a target that let it wait or work without end", troubles.given_up),
        ("namer died at a target", troubles.died),
        ("target set aside, its frames have no names", troubles.refused),
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
