//! Rules as two words, which the hot loop can change and compare at once, and the cache that finds their index.

use profiler_bpf::abi::{CfaKind, RULE_RBX_AT_FP, RaKind, Rule, SAVED_SAME};

use super::state::{Cfa, Place, State};
use super::{RowStats, RuleDictionary};

/// A [`Rule`]: `low` has cfa_kind, cfa_reg, ra_kind, flags and cfa_off, `high` has cfa_off2, ra, fp_off8 and rbx_off8; in this
/// order from the lowest bits up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedRule {
    pub(super) low: u64,
    pub(super) high: u64,
}

/// A field of 16 bits in [`PackedRule::high`], by its lowest bit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(pub(super) u32);

impl Slot {
    pub(super) const RETURN_ADDRESS: Self = Self(16);
    pub(super) const FP: Self = Self(32);
    pub(super) const RBX: Self = Self(48);
}

impl PackedRule {
    pub(super) const NONE: Self = Self::new(Rule::NONE);
    /// No rule at all, and different from any.
    pub(super) const INVALID: Self = Self { low: u64::MAX, high: u64::MAX };

    pub(super) const fn new(rule: Rule) -> Self {
        let low = rule.cfa_kind as u64
            | (rule.cfa_reg as u64) << 8
            | (rule.ra_kind as u64) << 16
            | (rule.flags as u64) << 24
            | (rule.cfa_off.cast_unsigned() as u64) << 32;
        let high = rule.cfa_off2.cast_unsigned() as u64
            | (rule.ra.cast_unsigned() as u64) << 16
            | (rule.fp_off8.cast_unsigned() as u64) << 32
            | (rule.rbx_off8.cast_unsigned() as u64) << 48;
        Self { low, high }
    }

    pub(super) fn rule(self) -> Rule {
        let part = |shift: u32| (self.high >> shift) as i16;
        Rule {
            cfa_kind: self.low as u8,
            cfa_reg: (self.low >> 8) as u8,
            ra_kind: (self.low >> 16) as u8,
            flags: (self.low >> 24) as u8,
            cfa_off: (self.low >> 32) as i32,
            cfa_off2: part(0),
            ra: part(16),
            fp_off8: part(32),
            rbx_off8: part(48),
        }
    }

    #[inline]
    pub(super) const fn set_cfa_offset(&mut self, offset: u32) {
        self.low = self.low & 0xffff_ffff | (offset as u64) << 32;
    }

    #[inline]
    pub(super) const fn set_cfa_register(&mut self, register: u8) {
        self.low = self.low & !0xff00 | (register as u64) << 8;
    }

    #[inline]
    pub(super) const fn set(&mut self, slot: Slot, offset8: u16) {
        self.high = self.high & !(0xffff << slot.0) | (offset8 as u64) << slot.0;
    }

    #[inline]
    pub(super) const fn copy(&mut self, slot: Slot, from: Self) {
        let mask = 0xffff << slot.0;
        self.high = self.high & !mask | from.high & mask;
    }

    /// The state as a rule, if it is an ordinary one: CFA at a constant distance of a register, everything saved at constant
    /// distances from it.
    pub(super) fn of_state(state: &State) -> Option<Self> {
        let rule = state.common_rule()?;
        Some(Self::new(rule))
    }

    /// The state that such an ordinary rule came from.
    pub(super) fn state(self) -> State {
        let rule = self.rule();
        let place = |offset8| if offset8 == SAVED_SAME { Place::Same } else { Place::AtCfa(i32::from(offset8) * 8) };
        debug_assert!(rule.cfa_kind == CfaKind::Reg as u8 && rule.ra_kind == RaKind::CfaOffset as u8);
        State {
            cfa: Cfa::Register { register: rule.cfa_reg, offset: rule.cfa_off },
            fp: place(rule.fp_off8),
            rbx: place(rule.rbx_off8),
            ra: Place::AtCfa(i32::from(rule.ra) * 8),
        }
    }
}

/// A direct-mapped cache in front of the dictionary: neighbouring functions use the same few rules.
#[derive(Debug)]
pub(super) struct RuleCache(Box<[(PackedRule, u16); Self::SLOTS]>);

impl RuleCache {
    const BITS: u32 = 11;
    const SLOTS: usize = 1 << Self::BITS;

    pub(super) fn new() -> Self {
        Self(Box::new([(PackedRule::NONE, 0); Self::SLOTS]))
    }

    #[inline]
    pub(super) fn index(&mut self, rule: PackedRule, rules: &mut RuleDictionary, stats: &mut RowStats) -> u16 {
        let mixed = (rule.low ^ rule.high.rotate_right(21)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let entry = &mut self.0[(mixed >> (u64::BITS - Self::BITS)) as usize % Self::SLOTS];
        if entry.0 != rule {
            *entry = (rule, intern(rule.rule(), rules, stats));
        }
        entry.1
    }
}

/// The index of `rule`; without rbx when the dictionary is full, else 0.
#[cold]
fn intern(rule: Rule, rules: &mut RuleDictionary, stats: &mut RowStats) -> u16 {
    rules.intern(rule).unwrap_or_else(|| {
        stats.dictionary_full += 1;
        let simpler = Rule { rbx_off8: SAVED_SAME, flags: rule.flags & !RULE_RBX_AT_FP, ..rule };
        rules.intern(simpler).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_nothing() {
        let rule = Rule {
            cfa_kind: 2,
            cfa_reg: 3,
            ra_kind: 1,
            flags: 3,
            cfa_off: -77,
            cfa_off2: -3,
            ra: -9,
            fp_off8: SAVED_SAME,
            rbx_off8: 1234,
        };
        assert_eq!(PackedRule::new(rule).rule(), rule);
        let mut packed = PackedRule::new(rule);
        packed.set_cfa_offset(u32::MAX);
        packed.set_cfa_register(200);
        packed.set(Slot::FP, 0xfffe);
        packed.copy(Slot::RBX, PackedRule::NONE);
        packed.copy(Slot::RETURN_ADDRESS, PackedRule::NONE);
        let changed = Rule { cfa_off: -1, cfa_reg: 200, fp_off8: -2, rbx_off8: SAVED_SAME, ra: -1, ..rule };
        assert_eq!(packed.rule(), changed);
    }

    #[test]
    fn a_full_dictionary_gives_up_rbx_first() {
        let mut rules = RuleDictionary::new();
        let known = Rule { cfa_kind: 1, cfa_off: 8, ..Rule::NONE };
        let index = rules.intern(known).unwrap();
        for n in 0.. {
            if rules.intern(Rule { cfa_kind: 1, cfa_off: n, cfa_reg: 7, ..Rule::NONE }).is_none() {
                break;
            }
        }
        let mut stats = RowStats::default();
        let mut cache = RuleCache::new();
        let with_rbx = PackedRule::new(Rule { rbx_off8: -3, ..known });
        assert_eq!(cache.index(with_rbx, &mut rules, &mut stats), index);
        let new = PackedRule::new(Rule { cfa_reg: 9, ..known });
        assert_eq!(cache.index(new, &mut rules, &mut stats), 0);
        assert_eq!(stats.dictionary_full, 2);
    }
}
