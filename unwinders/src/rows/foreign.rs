//! Rows that somebody else compiled: checked, and brought under the rules of this host.

use profiler_bpf::abi::{
    CfaKind, MAX_ROW_PAGES, RULE_FP_AT_FP, RULE_RBX_AT_FP, RULE_SAVED_AT_POINTERS, RaKind, Row, Rule, SAVED_SAME,
};

use super::{RuleDictionary, UnwindRows};
use crate::reading::Compiled;

/// Rows that could not have been compiled from any file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unwind rows are refused: {0}")]
pub struct Foreign(&'static str);

impl Compiled {
    /// Checks what another process compiled, and makes its rows name the rules of `rules`. A rule that finds no room there is made
    /// simpler, or 0.
    ///
    /// # Errors
    /// It is not what [`compile`](super::compile) makes.
    pub fn adopt(self, rules: &mut RuleDictionary) -> Result<UnwindRows, Foreign> {
        let Self { mut rows, rules: own } = self;
        check(&rows)?;
        if !own.iter().all(is_sane) || own.first() != Some(&Rule::NONE) {
            return Err(Foreign("a rule is none"));
        }
        let mut numbers = Vec::with_capacity(own.len());
        for rule in own {
            numbers.push(rules.intern(rule).unwrap_or_else(|| {
                rows.stats.dictionary_full += 1;
                let simpler = Rule { rbx_off8: SAVED_SAME, flags: rule.flags & !RULE_RBX_AT_FP, ..rule };
                rules.intern(simpler).unwrap_or(0)
            }));
        }
        for row in &mut rows.rows {
            let number = numbers.get(usize::from(row.rule())).ok_or(Foreign("a row names no rule"))?;
            *row = Row::new(row.address_low(), *number);
        }
        Ok(rows)
    }
}

/// Pages in order, rows in order in each.
fn check(rows: &UnwindRows) -> Result<(), Foreign> {
    let pages = rows.page_starts.len().saturating_sub(1);
    if pages > MAX_ROW_PAGES || rows.first_page > u64::from(u32::MAX) {
        return Err(Foreign("more pages than there are"));
    }
    if rows.page_starts.first() != Some(&0) || rows.page_starts.last().map(|&end| end as usize) != Some(rows.rows.len())
    {
        return Err(Foreign("pages and rows do not agree"));
    }
    for (start, end) in rows.page_starts.iter().zip(rows.page_starts.iter().skip(1)) {
        let page = rows.rows.get(*start as usize..*end as usize).ok_or(Foreign("pages are not in order"))?;
        if !page.is_sorted_by_key(|row| row.address_low()) {
            return Err(Foreign("rows are not in order"));
        }
    }
    Ok(())
}

fn is_sane(rule: &Rule) -> bool {
    rule.cfa_kind <= CfaKind::FramePointer as u8
        && rule.ra_kind <= RaKind::Register as u8
        && rule.flags & !(RULE_FP_AT_FP | RULE_RBX_AT_FP | RULE_SAVED_AT_POINTERS) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(offset: i32) -> Rule {
        Rule { cfa_kind: CfaKind::Reg as u8, cfa_reg: 7, cfa_off: offset, ..Rule::NONE }
    }

    fn compiled() -> Compiled {
        let rows = vec![Row::new(0, 1), Row::new(16, 2), Row::new(4, 1)];
        let rows = UnwindRows { first_page: 4, page_starts: vec![0, 2, 2, 3], rows, ..UnwindRows::default() };
        Compiled { rows, rules: vec![Rule::NONE, rule(8), rule(16)] }
    }

    #[test]
    fn rules_get_the_numbers_of_this_host() {
        let mut rules = RuleDictionary::new();
        rules.intern(rule(99)).unwrap();
        rules.intern(rule(16)).unwrap();
        let rows = compiled().adopt(&mut rules).unwrap();
        let found: Vec<_> =
            rows.rows.iter().map(|row| (row.address_low(), rules.rules()[usize::from(row.rule())])).collect();
        assert_eq!(found, [(0, rule(8)), (16, rule(16)), (4, rule(8))]);
        assert_eq!(rules.len(), 4);
    }

    #[test]
    fn what_no_file_gives_is_refused() {
        let broken: [fn(&mut Compiled); 10] = [
            |c| c.rows.page_starts = vec![0, 2, 1, 3],
            |c| c.rows.page_starts = vec![0, 2, 2],
            |c| c.rows.page_starts = vec![1, 2, 2, 3],
            |c| c.rows.page_starts = vec![0, 9, 2, 3],
            |c| c.rows.page_starts = vec![],
            |c| c.rows.first_page = 1 << 40,
            |c| c.rows.rows[0] = Row::new(17, 1),
            |c| c.rows.rows[1] = Row::new(16, 3),
            |c| c.rules[1].cfa_kind = 7,
            |c| c.rules[0] = rule(8),
        ];
        for (index, change) in broken.iter().enumerate() {
            let mut changed = compiled();
            change(&mut changed);
            assert!(changed.adopt(&mut RuleDictionary::new()).is_err(), "{index}");
        }
        assert!(compiled().adopt(&mut RuleDictionary::new()).is_ok());
    }
}
