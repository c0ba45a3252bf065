//! Rules on a window before it goes anywhere: the `processors` of the configuration.
//!
//! What rules say of what they fail on may be what they were to remove, so nothing of it is logged: the rule's place and how often it failed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use profiler_config::{ErrorMode, Processor, ProcessorKind};
use profiler_elf::contain::{contain, fault};
use profiler_model::Profiles;
use profiler_rules::{Aggregate, Rules, Tally};

use crate::once_a_minute;
use crate::rules::{Early, Request, cpu_time, edited, samples};

/// Names of processors that samples are counted under; a configuration that changes without end has one more, for all others.
const MAX_NAMES: usize = 1024;
const OTHERS: &str = "others";

/// Processors, compiled, in order.
#[derive(Debug, Default)]
pub struct Processors {
    stages: Vec<Stage>,
    early: Arc<Early>,
}

/// When a rule is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The name of its processor.
    pub processor: String,
    /// Where it is in there.
    pub place: String,
    /// Why it runs on each window; none: it is decided once a process, before a stack is walked.
    pub why: Option<String>,
}

/// What runs as one.
#[derive(Debug)]
enum Work {
    Rules(ErrorMode, Rules),
    Aggregate(Aggregate),
}

/// Rules that run together, or what stands in their place.
#[derive(Debug)]
struct Stage {
    processor: String,
    work: Work,
    /// Where each of the rules is in the processor.
    places: Vec<String>,
    /// Tells the rules from those that were at these places before.
    texts: u64,
}

/// What processors did since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Samples that rules dropped, by processor and by why.
    pub filtered: BTreeMap<(String, &'static str), u64>,
    /// By processor and rule, of those that are configured.
    pub by_rule: BTreeMap<(String, String), Tally>,
}

/// Samples are dropped since a condition held, or with their window since something failed.
const CONDITION: &str = "condition";
const FAILED: &str = "failed";
/// What aggregation does, counted as rules are.
const AGGREGATES: [&str; 2] = ["merged", "other_below"];

impl Counts {
    /// Forgets what rules of `before` did that are not the same in `after`: what is at their places now begins at 0.
    pub fn keep(&mut self, before: &Processors, after: &Processors) {
        self.by_rule.retain(|(processor, place), _| {
            let texts = |of: &Processors| {
                let mut stages = of.stages.iter();
                let stage = stages.find(|stage| stage.processor == *processor && stage.places.contains(place));
                stage.map(|stage| stage.texts)
            };
            texts(before).is_some_and(|then| texts(after) == Some(then))
        });
    }

    fn filter(&mut self, processor: &str, why: &'static str, samples: u64) {
        if samples == 0 {
            return;
        }
        let known = |counts: &Self, name: &str| counts.filtered.contains_key(&(name.to_owned(), why));
        let room = self.filtered.len() < MAX_NAMES || known(self, processor);
        let name = if room { processor } else { OTHERS };
        let sum = self.filtered.entry((name.to_owned(), why)).or_default();
        *sum = sum.saturating_add(samples);
    }

    fn add(&mut self, stage: &Stage, tallies: &[Tally]) {
        for (place, tally) in stage.places.iter().zip(tallies) {
            let sum = self.by_rule.entry((stage.processor.clone(), place.clone())).or_default();
            sum.matched = sum.matched.saturating_add(tally.matched);
            sum.dropped = sum.dropped.saturating_add(tally.dropped);
            sum.errors = sum.errors.saturating_add(tally.errors);
            sum.time = sum.time.saturating_add(tally.time);
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Processors {
    /// Those of a configuration.
    ///
    /// # Errors
    /// A rule does not compile, which a configuration that was loaded has none of.
    pub fn compile(processors: &[Processor]) -> anyhow::Result<Self> {
        Self::explained(processors).map(|(compiled, _)| compiled)
    }

    /// The same, and when each rule is decided.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn explained(processors: &[Processor]) -> anyhow::Result<(Self, Vec<Explained>)> {
        let (mut stages, mut early, mut explained) = (Vec::new(), Early::default(), Vec::new());
        let mut changed: Option<&str> = None;
        for Processor { name, kind } in processors {
            let (groups, drops) = match kind {
                ProcessorKind::Filter(groups) => (groups, true),
                ProcessorKind::Transform(groups) => (groups, false),
                ProcessorKind::Aggregate(aggregate) => {
                    // What it merges has the same resource, so that conditions behind it say the same as before it.
                    let places = AGGREGATES.map(str::to_owned).to_vec();
                    explained.extend(places.iter().map(|place| Explained {
                        processor: name.clone(),
                        place: place.clone(),
                        why: Some("it merges what was sampled".to_owned()),
                    }));
                    let texts = hash(&format!("{aggregate:?}"));
                    stages.push(Stage { processor: name.clone(), work: Work::Aggregate(*aggregate), places, texts });
                    continue;
                }
            };
            for group in groups {
                let place = || format!("{} of processor {name}", group.place);
                let rules = group.compile(drops).with_context(place)?;
                let why: Vec<Option<String>> = match changed {
                    _ if !drops => vec![Some("it changes what was sampled".to_owned()); rules.count()],
                    Some(before) => {
                        let why = format!("{before}, which runs before it, may change what it reads");
                        vec![Some(why); rules.count()]
                    }
                    None => {
                        early.hash_under(group.key.clone());
                        let why = early.dropping(name, rules.level(), &group.conditions).with_context(place)?;
                        why.into_iter().map(|why| why.map(|why| why.to_string())).collect()
                    }
                };
                let places = match rules.count() {
                    1 => vec![group.place.clone()],
                    _ => {
                        let of = |key: &'static str, count: usize| {
                            let place = &group.place;
                            (0..count).map(move |at| format!("{place}.{key}[{at}]"))
                        };
                        let (conditions, statements) = (group.conditions.len(), group.statements.len());
                        of("conditions", conditions).chain(of("statements", statements)).collect()
                    }
                };
                explained.extend(places.iter().zip(why).map(|(place, why)| Explained {
                    processor: name.clone(),
                    place: place.clone(),
                    why,
                }));
                let (processor, texts) = (name.clone(), hash(&format!("{group:?}")));
                stages.push(Stage { processor, work: Work::Rules(group.error_mode, rules), places, texts });
            }
            if !drops {
                changed = Some(name);
            }
        }
        Ok((Self { stages, early: Arc::new(early) }, explained))
    }

    /// The conditions that are decided once a process.
    #[must_use]
    pub fn early(&self) -> Arc<Early> {
        Arc::clone(&self.early)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// What is left of a recording, which takes what time it needs, and how many samples are gone. What they did is in `counts`.
    ///
    /// # Errors
    /// A rule failed whose `error_mode` is `propagate`.
    pub fn edit(&self, request: Request, counts: &mut Counts) -> anyhow::Result<(Request, u64)> {
        self.stages.iter().try_fold((request, 0_u64), |(request, filtered), stage| {
            let (request, samples) = stage.run(request, &|| false, counts)?;
            Ok((request, filtered.saturating_add(samples)))
        })
    }

    /// Processor and place of each rule that failed and was passed over, and how often; not of those that are to be `silent`.
    pub fn failed<'a>(&'a self, counts: &'a Counts) -> impl Iterator<Item = (&'a str, &'a str, u64)> {
        let told = self.stages.iter().filter(|stage| matches!(stage.work, Work::Rules(ErrorMode::Ignore, _)));
        let rules = told.flat_map(|stage| stage.places.iter().map(|place| (stage.processor.as_str(), place.as_str())));
        rules.filter_map(|(processor, place)| {
            let tally = counts.by_rule.get(&(processor.to_owned(), place.to_owned()))?;
            (tally.errors > 0).then_some((processor, place, tally.errors))
        })
    }

    /// What is left of a window; none if nothing is. What goes is counted, and all of it goes if the rules take more CPU time than `within`.
    pub fn apply(&self, window: Profiles, within: Duration, counts: &mut Counts) -> Option<Profiles> {
        if self.stages.is_empty() {
            return Some(window);
        }
        let (mut at, mut filtered) = ("", 0_u64);
        // Of the time of this thread: on a busy host rules take no more of it, and no longer.
        let end = cpu_time().saturating_add(within);
        let is_late = || cpu_time() >= end;
        let edit = |request| {
            let mut request = request;
            for stage in &self.stages {
                at = &stage.processor;
                let (changed, samples) = stage.run(request, &is_late, counts)?;
                request = changed;
                filtered = filtered.saturating_add(samples);
            }
            Ok((request, filtered))
        };
        // What rules read (names of threads, environments, paths) is in the hands of any user.
        let made = contain(|| edited(&window, edit));
        match made.unwrap_or_else(|| Err(anyhow::anyhow!("A rule panicked, which is a defect of the profiler"))) {
            Ok(edited) => {
                let is_something = edited.samples().next().is_some();
                is_something.then_some(edited)
            }
            Err(error) => {
                // Nobody knows what rules would have taken away. What conditions dropped before is counted.
                counts.filter(at, FAILED, samples(&window).saturating_sub(filtered));
                once_a_minute!(
                    error,
                    at,
                    processor = at,
                    "{error}. The window is dropped, and counted in profiler.filtered."
                );
                None
            }
        }
    }
}

impl Stage {
    /// The request after these rules, and the samples that they dropped.
    fn run(&self, request: Request, is_late: &dyn Fn() -> bool, counts: &mut Counts) -> anyhow::Result<(Request, u64)> {
        fault("rules");
        let (mode, rules) = match &self.work {
            Work::Rules(mode, rules) => (mode, rules),
            Work::Aggregate(aggregate) => return self.aggregate(*aggregate, request, is_late, counts),
        };
        let mut tallies = vec![Tally::default(); rules.count()];
        let result = rules.apply_counted(request, &mut tallies, is_late, |_| {});
        counts.add(self, &tallies);
        let place = |index: usize| self.places.get(index).map_or("", String::as_str);
        let (request, done) = result.map_err(|error| {
            anyhow::anyhow!("A rule failed, and error_mode propagate drops what it failed on: {}", place(error.index))
        })?;
        // What else they would have taken away, nobody knows.
        in_time(done.is_late)?;
        counts.filter(&self.processor, CONDITION, done.samples);
        if *mode == ErrorMode::Ignore {
            for (index, tally) in tallies.iter().enumerate().filter(|(_, tally)| tally.errors > 0) {
                let (rule, failed, processor) = (place(index), tally.errors, &self.processor);
                once_a_minute!(
                    warn,
                    &format!("{processor} {rule}"),
                    processor,
                    rule,
                    failed,
                    "A rule failed, and was passed over; `profiler ottl run` on a profile says why."
                );
            }
        }
        Ok((request, done.samples))
    }

    /// The request with its samples aggregated, of which none is dropped.
    fn aggregate(
        &self,
        aggregate: Aggregate,
        request: Request,
        is_late: &dyn Fn() -> bool,
        counts: &mut Counts,
    ) -> anyhow::Result<(Request, u64)> {
        let (request, done) = aggregate.apply(request, is_late);
        let tally = |matched, time| Tally { matched, time, ..Tally::default() };
        counts.add(self, &[tally(done.merged, done.merging), tally(done.folded, done.folding)]);
        in_time(done.is_late)?;
        Ok((request, 0))
    }
}

fn in_time(is_late: bool) -> anyhow::Result<()> {
    anyhow::ensure!(!is_late, "The rules take too long, and what comes behind would wait for them");
    Ok(())
}

#[cfg(test)]
mod tests;
