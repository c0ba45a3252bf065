//! Rules that are decided once a process, before any stack of it is walked: conditions that read nothing but its resource.

use profiler_bpf::abi::RULE_LANES;
use profiler_elf::contain::contain;
use profiler_formats::otlp;
use profiler_model::Profiles;
use profiler_ottl::{ErrorMode, HashKey};
use profiler_rules::{Level, RefusedRule, Rules, Varies, is_of_process};

/// Names that have no lane of their own.
const OTHERS: &str = "others";

/// Filters of which one that drops a process is enough, whatever comes behind.
#[derive(Debug, Default)]
pub struct Early {
    stages: Vec<(Rules, usize)>,
    /// Whose rules are counted in each lane.
    names: Vec<String>,
    /// What rules that are added next hash under.
    key: Option<HashKey>,
}

impl Early {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Who is counted in `lane`.
    #[must_use]
    pub fn name(&self, lane: usize) -> &str {
        self.names.get(lane).map_or(OTHERS, String::as_str)
    }

    /// Keyed hashes of rules that are added from now on are under `key`.
    pub fn hash_under(&mut self, key: Option<HashKey>) {
        self.key = key;
    }

    /// Adds those of `conditions`, on contexts of `level`, that say the same of all that is sampled of a process; `of` is who has them. One that holds
    /// drops it. Says of each why it is none of these, if it is not.
    ///
    /// # Errors
    /// One does not compile.
    pub fn dropping(
        &mut self,
        of: &str,
        level: Level,
        conditions: &[String],
    ) -> Result<Vec<Option<Varies>>, RefusedRule> {
        let why: Vec<_> = conditions.iter().map(|condition| is_of_process(level, condition).err()).collect();
        let own: Vec<_> = conditions.iter().zip(&why).filter(|(_, why)| why.is_none()).map(|(rule, _)| rule).collect();
        self.add(of, level, &own, true)?;
        Ok(why)
    }

    /// The same of conditions of which one must hold for something to be kept: all of them must say the same of all that is sampled of a process.
    ///
    /// # Errors
    /// One does not compile.
    pub fn keeping(
        &mut self,
        of: &str,
        level: Level,
        conditions: &[String],
    ) -> Result<Vec<Option<Varies>>, RefusedRule> {
        let why: Vec<_> = conditions.iter().map(|condition| is_of_process(level, condition).err()).collect();
        if why.iter().all(Option::is_none) {
            self.add(of, level, &conditions.iter().collect::<Vec<_>>(), false)?;
        }
        Ok(why)
    }

    fn add(&mut self, of: &str, level: Level, conditions: &[&String], drop: bool) -> Result<(), RefusedRule> {
        if conditions.is_empty() {
            return Ok(());
        }
        let known = self.names.iter().position(|name| name == of);
        let lane = known.unwrap_or_else(|| {
            // The last one is of all others together.
            if self.names.len() + 1 < RULE_LANES {
                self.names.push(of.to_owned());
                self.names.len() - 1
            } else {
                RULE_LANES - 1
            }
        });
        // A rule that fails decides nothing: what becomes of it is a matter of its error mode, with the window.
        let rules = Rules::filter(Some(level), conditions, drop, ErrorMode::Propagate, self.key.clone())?;
        self.stages.push((rules, lane));
        Ok(())
    }

    /// The lane of the rule that drops all samples of the process that `alone` has one sample of; none if none does, or one fails.
    #[must_use]
    pub fn drops(&self, alone: &Profiles) -> Option<usize> {
        for (rules, lane) in &self.stages {
            // What rules read (environments, paths) is in the hands of any user.
            let (left, _) = contain(|| rules.apply_only(otlp::request(alone), |_| {}))?.ok()?;
            if left.resource_profiles.is_empty() {
                return Some(*lane);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::builder::ProfileBuilder;
    use profiler_model::{AttributeValue, Measure, Process, Profile, Sample, Thread};

    use super::*;

    fn alone(service: &str) -> Profiles {
        let mut builder = ProfileBuilder::new();
        let (key, value) = (builder.string("service.name"), builder.string(service));
        let attributes = vec![(key, AttributeValue::Text(value))];
        let process = builder.process(Process { pid: Some(7), attributes, ..Process::default() });
        let thread = Some(builder.thread(Thread { process, tid: 7, name: 0 }));
        builder.begin(Profile {
            samples: vec![Sample { thread, ..Sample::default() }],
            ..Profile::of(&Measure::cpu_clock(1))
        });
        builder.finish()
    }

    fn owned(rules: &[&str]) -> Vec<String> {
        rules.iter().map(|rule| (*rule).to_owned()).collect()
    }

    const SHOP: &str = r#"resource.attributes["service.name"] == "shop""#;
    const CART: &str = r#"resource.attributes["service.name"] == "cart""#;
    const MAIN: &str = r#"profilesample.attributes["thread.name"] == "main""#;

    #[test]
    fn what_reads_the_process_alone_is_decided_and_the_rest_is_not() {
        let mut early = Early::default();
        let why = early.dropping("a", Level::Sample, &owned(&[MAIN, SHOP])).expect("right");
        assert_eq!(why.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
        early.dropping("b", Level::Profile, &owned(&[CART])).expect("right");
        assert_eq!(["shop", "cart", "other"].map(|service| early.drops(&alone(service))), [Some(0), Some(1), None]);
        assert_eq!((early.name(1), early.name(7)), ("b", OTHERS));

        // One that may keep something of each process decides nothing.
        let mut early = Early::default();
        assert!(early.keeping("a", Level::Sample, &owned(&[SHOP, MAIN])).expect("right")[1].is_some());
        assert!(early.is_empty());
        early.keeping("a", Level::Resource, &owned(&[SHOP, CART])).expect("right");
        assert_eq!(["shop", "cart", "other"].map(|service| early.drops(&alone(service))), [None, None, Some(0)]);
    }

    #[test]
    fn a_rule_that_fails_decides_nothing() {
        // No service has such a long name.
        let fails = r#"Substring(resource.attributes["service.name"], 0, 100) == "x""#;
        for fails in [fails, r#"ParseJSON(resource.attributes["service.name"]) == 1"#] {
            let mut early = Early::default();
            early.dropping("a", Level::Resource, &owned(&[fails, SHOP])).expect("right");
            assert_eq!(early.drops(&alone("shop")), None, "{fails}");
            let mut early = Early::default();
            early.keeping("a", Level::Resource, &owned(&[fails])).expect("right");
            assert_eq!(early.drops(&alone("shop")), None, "{fails}");
        }
    }

    #[test]
    fn there_are_as_many_lanes_as_the_kernel_half_has() {
        let mut early = Early::default();
        for number in 0..20 {
            let rule = format!(r#"resource.attributes["service.name"] == "{number}""#);
            early.dropping(&format!("filter-{number}"), Level::Resource, &[rule]).expect("right");
        }
        let lanes: Vec<_> = (0..20).map(|number| early.drops(&alone(&number.to_string())).expect("dropped")).collect();
        assert_eq!((lanes[0], lanes[6], early.name(6)), (0, 6, "filter-6"));
        assert!(lanes[7..].iter().all(|lane| *lane == RULE_LANES - 1 && early.name(*lane) == OTHERS));
    }
}
