//! What all resources of a request say of the machine, said once.

use profiler_model::{AttributeValue, Profiles, StringId, attribute};
use rustc_hash::FxHashMap;

type Pair = (StringId, AttributeValue);

/// Counts the attributes of the machine that resources have in common.
#[derive(Default)]
pub(super) struct Shared {
    resources: usize,
    /// Of the first resource, in its order.
    first: Vec<Pair>,
    /// In how many resources a pair is, and the last of them.
    counts: FxHashMap<Pair, (usize, usize)>,
}

impl Shared {
    /// Takes note of the next resource's attributes.
    pub(super) fn add(&mut self, profile: &Profiles, attributes: &[Pair]) {
        self.resources += 1;
        for pair in attributes.iter().filter(|(key, _)| attribute::is_of_host(profile.string(*key))) {
            if self.resources == 1 && !self.counts.contains_key(pair) {
                self.first.push(pair.clone());
            }
            let (count, last) = self.counts.entry(pair.clone()).or_default();
            if *last != self.resources {
                (*count, *last) = (*count + 1, self.resources);
            }
        }
    }

    /// Moves what all resources say from the processes to the profile.
    pub(super) fn finish(self, profile: &mut Profiles) {
        let Self { resources, first, counts } = self;
        let in_all = |pair: &Pair| counts.get(pair).is_some_and(|&(count, _)| count == resources);
        for process in &mut profile.processes {
            process.attributes.retain(|pair| !in_all(pair));
        }
        // A kernel release says it already.
        let implied = !profile.origin.kernel_release.is_empty();
        let said = |(key, value): &Pair| {
            let text = profile.attribute_text(value);
            implied && profile.string(*key) == attribute::OS_TYPE && text == "linux"
        };
        profile.resource_attributes = first.into_iter().filter(|pair| in_all(pair) && !said(pair)).collect();
    }
}
