//! The rules of all executables of a host, each once.

use profiler_bpf::abi::{MAX_RULES, Rule};
use rustc_hash::FxHashMap;

/// Interns [`Rule`]s: nine large programs together have under two thousand, so a row names one in 16 bits.
///
/// Rule 0 is [`Rule::NONE`]. Indices are stable: rules are only ever added, so a table in the kernel can be extended in place.
#[derive(Clone, Debug)]
pub struct RuleDictionary {
    rules: Vec<Rule>,
    indices: FxHashMap<Rule, u16>,
}

impl RuleDictionary {
    /// A dictionary that holds rule 0.
    #[must_use]
    pub fn new() -> Self {
        Self { rules: vec![Rule::NONE], indices: FxHashMap::from_iter([(Rule::NONE, 0)]) }
    }

    /// The index of `rule`, which is added if it is new; `None` when there is no room for it.
    pub fn intern(&mut self, rule: Rule) -> Option<u16> {
        if let Some(&index) = self.indices.get(&rule) {
            return Some(index);
        }
        let index = u16::try_from(self.rules.len()).ok().filter(|&index| u32::from(index) < MAX_RULES)?;
        self.rules.push(rule);
        self.indices.insert(rule, index);
        Some(index)
    }

    /// How many rules there are; never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// All rules, by index.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Default for RuleDictionary {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_dictionary_still_finds_what_it_has() {
        let mut rules = RuleDictionary::new();
        assert_eq!(rules.intern(Rule::NONE), Some(0));
        let nth = |n: u32| Rule { cfa_off: n.cast_signed(), cfa_kind: 1, ..Rule::NONE };
        for n in 1..MAX_RULES {
            assert_eq!(rules.intern(nth(n)), u16::try_from(n).ok());
        }
        assert_eq!(rules.intern(nth(MAX_RULES)), None);
        assert_eq!(rules.intern(nth(7)), Some(7));
        assert_eq!(rules.len(), MAX_RULES as usize);
        assert_eq!(rules.rules()[7], nth(7));
    }
}
