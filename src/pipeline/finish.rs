//! The one way from what was sampled to a finished profile: name, assemble, bound, describe, count what is missing, edit.

use std::collections::BTreeMap;

use profiler_model::{Loss, Measure, Origin, Profile, Profiles};
use profiler_resource::Resources;

use super::{Aggregate, Files, Names, Span, assemble, losses};

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

/// Edits a profile before anybody sees it: after it is whole, before it is encoded. What is taken away here is in no bytes.
pub trait Editor {
    /// Edits `profiles`; how many samples were dropped, which is told as a loss of its own name.
    fn edit(&mut self, profiles: &mut Profiles) -> u64;
}

/// Names and lays out `sampled`, with all that is to be said of it; `describe` tells of the machine and the recording. Where nothing was
/// sampled, profiles without samples tell of the measures `of_nothing`.
#[must_use]
pub fn finish(
    sampled: Sampled,
    naming: Naming<'_>,
    of_nothing: &[Measure],
    describe: impl FnOnce(&Profiles) -> Origin,
    editor: Option<&mut dyn Editor>,
) -> Profiles {
    let Sampled { aggregate, files, span, losses } = sampled;
    let mut profiles = assemble(&aggregate, naming.names, &files, naming.resources, span.clock);
    // A window's frames and files are of no use any more, and may be large.
    drop((aggregate, files));
    if profiles.profiles.is_empty() {
        profiles.profiles.extend(of_nothing.iter().map(Profile::of));
    }
    span.bound(&mut profiles);
    profiles.origin = describe(&profiles);
    profiles.losses = losses;
    profiles.losses.extend(naming.losses.since(&naming.names.stats()));
    edited(&mut profiles, editor);
    profiles
}

fn edited(profiles: &mut Profiles, editor: Option<&mut dyn Editor>) {
    let dropped = editor.map_or(0, |editor| editor.edit(profiles));
    if dropped > 0 {
        profiles.losses.push(Loss { reason: "dropped by a rule".to_owned(), count: dropped });
    }
}

/// What could not be read for names, or not kept, over one symbolizer after the other.
#[derive(Debug, Default)]
pub struct NameLosses {
    /// Of the present symbolizer, as of the last look.
    seen: BTreeMap<&'static str, u64>,
    /// Of all.
    pub total: BTreeMap<&'static str, u64>,
}

impl NameLosses {
    /// Those since the last look.
    #[must_use]
    pub fn since(&mut self, stats: &profiler_symbolizer::Stats) -> Vec<Loss> {
        losses::of_names(losses::names(stats).map(|(reason, count)| {
            let new = count.saturating_sub(self.seen.insert(reason, count).unwrap_or_default());
            *self.total.entry(reason).or_default() += new;
            (reason, new)
        }))
    }

    /// A new symbolizer counts from 0.
    pub fn begin_anew(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::{Sample, Values};

    use super::*;

    /// Takes away all samples but the first.
    struct KeepFirst;

    impl Editor for KeepFirst {
        fn edit(&mut self, profiles: &mut Profiles) -> u64 {
            let mut dropped = 0;
            for profile in &mut profiles.profiles {
                dropped += profile.samples.len().saturating_sub(1) as u64;
                profile.samples.truncate(1);
            }
            dropped
        }
    }

    #[test]
    fn what_an_editor_drops_is_a_loss_of_its_own_name() {
        let mut profile = Profile::of(&Measure::cpu_clock(1));
        profile.samples = vec![Sample { values: Values::One(1), ..Sample::default() }; 3];
        let mut profiles = Profiles { profiles: vec![profile], ..Profiles::default() };
        edited(&mut profiles, None);
        assert!(profiles.losses.is_empty());
        edited(&mut profiles, Some(&mut KeepFirst));
        assert_eq!(profiles.samples().count(), 1);
        assert_eq!(profiles.losses, [Loss { reason: "dropped by a rule".to_owned(), count: 2 }]);
        // Nothing dropped, nothing told.
        edited(&mut profiles, Some(&mut KeepFirst));
        assert_eq!(profiles.losses.len(), 1);
    }

    #[test]
    fn losses_of_names_go_on_over_symbolizers() {
        let refused = |count| {
            let mut stats = profiler_symbolizer::Stats::default();
            stats.jit_refused = count;
            stats
        };
        let mut losses = NameLosses::default();
        for (count, told) in [(0, None), (3, Some(3)), (3, None)] {
            assert_eq!(losses.since(&refused(count)).first().map(|loss| loss.count), told);
        }
        losses.begin_anew();
        let new = losses.since(&refused(2));
        assert_eq!(new, [Loss { reason: "names: perf map or jitdump refused".to_owned(), count: 2 }]);
        assert_eq!(losses.total.values().sum::<u64>(), 5);
    }
}
