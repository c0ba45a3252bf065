use profiler_address::ElfVaddr;
use profiler_bpf::abi::{CfaKind, SAVED_SAME};
use profiler_need::have_file;

use super::{RuleDictionary, UnwindRows, compile};
use profiler_elf::ElfParts;

fn compiled(path: &str) -> Option<(UnwindRows, RuleDictionary)> {
    let bytes = std::fs::read(path).ok()?;
    let mut rules = RuleDictionary::new();
    let rows = compile(&ElfParts::parse(&bytes).ok()?, &mut rules).ok()?;
    Some((rows, rules))
}

#[test]
fn this_test_has_rows_at_its_own_address() {
    let bytes = std::fs::read("/proc/self/exe").unwrap();
    let parts = ElfParts::parse(&bytes).unwrap();
    let mut rules = RuleDictionary::new();
    let rows = compile(&parts, &mut rules).unwrap();
    println!("{:?}, {} rows, {} rules", rows.stats, rows.rows.len(), rules.len());
    assert_eq!(rows.stats.malformed, 0);
    let start = rows.rule_at(parts.entry());
    let rule = rules.rules()[usize::from(start)];
    assert_eq!(rule.cfa_kind, CfaKind::End as u8, "_start ends the stack");
    assert_eq!(rows.rule_at(ElfVaddr(0)), 0);
    assert_eq!(rows.rule_at(ElfVaddr(u64::MAX)), 0);
}

#[test]
fn the_c_library_has_a_signal_trampoline_whose_registers_are_at_sp_plus_40() {
    let libc = "/lib/x86_64-linux-gnu/libc.so.6";
    if !have_file("the_c_library_has_a_signal_trampoline", libc) {
        return;
    }
    let (rows, rules) = compiled(libc).unwrap();
    println!("{:?}, {} rows, {} rules", rows.stats, rows.rows.len(), rules.len());
    let signal: Vec<_> = rules.rules().iter().filter(|rule| rule.cfa_kind == CfaKind::Signal as u8).collect();
    assert_eq!(signal.len(), 1);
    assert_eq!((signal[0].cfa_reg, signal[0].cfa_off, signal[0].fp_off8), (7, 40, SAVED_SAME));
    assert!(rules.rules().iter().any(|rule| rule.cfa_kind == CfaKind::Plt as u8));
    assert_eq!(rows.stats.malformed, 0);
}
