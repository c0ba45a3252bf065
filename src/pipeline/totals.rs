//! What a session counts, a source.

use std::collections::BTreeMap;

use profiler_bpf::{Counter, Counters};
use profiler_unwinders::publish::Refused;
use profiler_unwinders::reading::Troubles;

use super::aggregate::{Aggregate, Unnamed};

profiler_bpf::counters! {
    /// What this side counts of a source, beside what the kernel half does.
    pub enum Tally,
    /// The counts of one source, or a sum of several.
    struct Tallies:
    /// Samples kept.
    Kept,
    /// Samples of processes that the rules refuse, which the kernel half took before it was told, and of a command before its exec;
    /// not lost. It refused [`Counter::Filtered`] more by itself.
    Filtered,
    /// Samples dropped because they came in faster than they could be worked off.
    IntakeDropped,
    /// Samples dropped because the aggregate had no room before it was taken.
    OverBudget,
    /// Records that are not whole, or of a source that is not known.
    Malformed,
}

/// The counts of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceTotals {
    /// The kernel half's.
    pub kernel: Counters,
    /// This side's.
    pub session: Tallies,
}

/// What a session has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By event, as users write it.
    pub sources: BTreeMap<String, SourceTotals>,
    /// Samples whose stack is not whole, by reason.
    pub incomplete: BTreeMap<&'static str, u64>,
    /// Frames of runtimes that have no name in what was taken, by why; each once in each window.
    pub unnamed: BTreeMap<String, u64>,
    /// Runtimes that have no part in their process, by name and reason: each once for a process and reason.
    pub refused: Refused,
    /// Samples that user space unwound.
    pub continued: u64,
    /// Side-band events lost.
    pub sideband_lost: u64,
    /// Mappings of processes that were not kept, since there were too many.
    pub refused_mappings: u64,
    /// Samples of processes of which a rule drops all, refused before their stacks were walked, by whose rule.
    pub ruled_out: BTreeMap<String, u64>,
    /// What went wrong with who reads targets' things.
    pub reading: Troubles,
}

/// Reasons that are told apart: they come from who reads targets.
const MAX_REASONS: usize = 64;

impl Totals {
    /// Counts the runtimes' frames of `taken` that have no name: how often a runtime was asked tells nothing of what is in the profile.
    pub(super) fn count_unnamed(&mut self, taken: &Aggregate) {
        for Unnamed { why, .. } in taken.unnamed.values() {
            let known = self.unnamed.len() < MAX_REASONS || self.unnamed.contains_key(&**why);
            *self.unnamed.entry(if known { &**why } else { "runtime: other reasons" }.to_owned()).or_default() += 1;
        }
    }

    /// Samples with unfinished stacks.
    #[must_use]
    pub fn incomplete(&self) -> u64 {
        self.incomplete.values().sum()
    }

    /// Samples kept, of all sources.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.session(Tally::Kept)
    }

    /// A count of the kernel half, of all sources.
    #[must_use]
    pub fn kernel(&self, counter: Counter) -> u64 {
        self.sources.values().map(|source| source.kernel[counter]).sum()
    }

    /// A count of this side, of all sources.
    #[must_use]
    pub fn session(&self, tally: Tally) -> u64 {
        self.sources.values().map(|source| source.session[tally]).sum()
    }

    /// Adds what another session has seen.
    pub fn add(&mut self, more: &Self) {
        for (event, totals) in &more.sources {
            let sum = self.sources.entry(event.clone()).or_default();
            sum.kernel += totals.kernel;
            sum.session += totals.session;
        }
        for (&reason, count) in &more.incomplete {
            *self.incomplete.entry(reason).or_default() += count;
        }
        for (reason, count) in &more.unnamed {
            *self.unnamed.entry(reason.clone()).or_default() += count;
        }
        for (&of, count) in &more.refused {
            *self.refused.entry(of).or_default() += count;
        }
        for (name, count) in &more.ruled_out {
            *self.ruled_out.entry(name.clone()).or_default() += count;
        }
        self.continued += more.continued;
        self.sideband_lost += more.sideband_lost;
        self.refused_mappings += more.refused_mappings;
        self.reading.add(&more.reading);
    }
}

#[cfg(test)]
mod tests {
    use profiler_address::UserAddr;
    use profiler_bpf::abi::FrameKind;
    use profiler_bpf::record::RuntimeFrame;
    use profiler_unwinders::runtime::{FrameName, Named};

    use super::*;

    #[test]
    fn what_was_named_at_the_second_asking_is_no_frame_without_a_name() {
        let mut aggregate = Aggregate::default();
        let frame = |cookie| RuntimeFrame { kind: FrameKind::V8, object: UserAddr(0x1000), position: 3, cookie };
        let gone = || -> Named { Err("v8: function gone".into()) };
        let name = FrameName { function: "f".into(), file: "a.js".into(), line: 5, start_line: 1, tier: None };
        for cookie in 1..=5 {
            aggregate.runtime_frame(0, frame(cookie), gone);
        }
        for cookie in 1..=3 {
            aggregate.runtime_frame(0, frame(cookie), || Ok(vec![name.clone()]));
        }
        // Of one that is asked for the last time, too.
        for _ in 0..3 {
            aggregate.runtime_frame(0, frame(4), gone);
        }
        let mut totals = Totals::default();
        totals.count_unnamed(&aggregate);
        assert_eq!(totals.unnamed, BTreeMap::from([("v8: function gone".to_owned(), 2)]));
        totals.count_unnamed(&Aggregate::default());
        assert_eq!(totals.unnamed["v8: function gone"], 2);
    }
}
