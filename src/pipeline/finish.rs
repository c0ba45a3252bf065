//! The one way from what was sampled to a finished profile: name, assemble, bound, describe, count what is missing.

use std::collections::BTreeMap;

use profiler_model::{Loss, Measure, Origin, Profile, Profiles};
use profiler_resource::Resources;
use profiler_unwinders::reading::Troubles;

use super::assemble::lay_out;
use super::{Aggregate, Files, Names, Span, losses};

/// What was sampled from one time to another, to be named.
#[derive(Debug)]
pub struct Sampled {
    /// Samples of each measure.
    pub aggregate: Aggregate,
    /// The files that they are in.
    pub files: Files,
    /// When.
    pub span: Span,
    /// What was lost meanwhile.
    pub losses: Vec<Loss>,
}

/// By what it is named.
pub struct Naming<'a> {
    /// Of frames.
    pub names: &'a mut Names,
    /// What could not be read for names.
    pub losses: &'a mut NameLosses,
    /// Of processes.
    pub resources: &'a Resources,
}

/// Names and lays out `sampled`, with all that is to be said of it; `describe` tells of the machine and the recording. Where nothing was
/// sampled, profiles without samples tell of the measures `of_nothing`.
#[must_use]
pub fn finish(
    sampled: Sampled,
    naming: Naming<'_>,
    of_nothing: &[Measure],
    describe: impl FnOnce(&Profiles) -> Origin,
) -> Profiles {
    let Sampled { aggregate, files, span, losses } = sampled;
    let mut builder = lay_out(&aggregate, naming.names, &files, naming.resources, span.clock);
    // A window's frames and files are of no use any more, and may be large.
    drop((aggregate, files));
    let profiles = builder.set_mut();
    if profiles.profiles.is_empty() {
        profiles.profiles.extend(of_nothing.iter().map(Profile::of));
    }
    span.bound(profiles);
    profiles.origin = describe(profiles);
    profiles.losses = losses;
    profiles.losses.extend(naming.losses.since(&naming.names.stats(), &naming.names.troubles()));
    builder.finish()
}

/// What could not be read for names, or not kept.
#[derive(Debug, Default)]
pub struct NameLosses {
    /// As of the last look.
    pub total: BTreeMap<&'static str, u64>,
}

impl NameLosses {
    /// Those since the last look.
    #[must_use]
    pub fn since(&mut self, stats: &profiler_symbolizer::Stats, troubles: &Troubles) -> Vec<Loss> {
        losses::of_names(losses::names(stats, troubles).map(|(reason, count)| {
            let new = count.saturating_sub(self.total.insert(reason, count).unwrap_or_default());
            (reason, new)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_names_are_those_since_the_last_profile() {
        let mut losses = NameLosses::default();
        let mut stats = profiler_symbolizer::Stats::default();
        for (count, told) in [(0, None), (3, Some(3)), (3, None), (5, Some(2))] {
            stats.jit_refused = count;
            assert_eq!(losses.since(&stats, &Troubles::default()).first().map(|loss| loss.count), told);
        }
        let new = losses.since(&stats, &Troubles { given_up: 1, ..Troubles::default() });
        let reason = "names: namer given up at a target that let it wait or work without end".to_owned();
        assert_eq!(new, [Loss { reason, count: 1 }]);
        assert_eq!(losses.total.values().sum::<u64>(), 6);
    }
}
