//! Rows against gimli: at every row boundary, what the rule computes and what gimli's evaluated row computes must be the same.

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, Evaluation, EvaluationResult, Expression, LittleEndian,
    Location, Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow, Value,
};
use profiler_address::ElfVaddr;
use profiler_bpf::abi::{CfaKind, RULE_SAVED_AT_POINTERS, Rule};
use profiler_elf::ElfParts;
use profiler_need::{have_by_chance, have_file};
use profiler_unwinders::rows::{Registers, RowStats, RuleDictionary, Step, compile, step};

use super::machine::{self, memory};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// What gimli's row leads to.
#[derive(Debug, PartialEq)]
enum Expected {
    End,
    /// cfa, ip, fp, rbx
    Caller(u64, u64, u64, u64),
    Unknown,
}

struct Oracle<'a> {
    eh_frame: EhFrame<Slice<'a>>,
    encoding: gimli::Encoding,
}

impl Oracle<'_> {
    fn evaluate(
        &self,
        expression: UnwindExpression<usize>,
        registers: &[u64; 17],
        initial: Option<u64>,
    ) -> Option<u64> {
        let expression: Expression<Slice<'_>> = expression.get(&self.eh_frame).ok()?;
        let mut evaluation: Evaluation<Slice<'_>> = expression.evaluation(self.encoding);
        if let Some(value) = initial {
            evaluation.set_initial_value(value);
        }
        let mut result = evaluation.evaluate().ok()?;
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, .. } => {
                    evaluation.resume_with_memory(Value::Generic(memory(address)?)).ok()?
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = *registers.get(usize::from(register.0))?;
                    evaluation.resume_with_register(Value::Generic(value)).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.result().first()?.location {
            Location::Address { address } => Some(address),
            _ => None,
        }
    }

    fn register(&self, row: &UnwindTableRow<usize>, register: u16, cfa: u64, registers: &[u64; 17]) -> Option<u64> {
        let same = registers[usize::from(register)];
        match row.register(Register(register)).unwrap_or(RegisterRule::SameValue) {
            RegisterRule::Undefined | RegisterRule::SameValue => Some(same),
            RegisterRule::Offset(offset) => memory(cfa.wrapping_add_signed(offset)),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(offset)),
            RegisterRule::Register(other) => registers.get(usize::from(other.0)).copied(),
            RegisterRule::Expression(e) => memory(self.evaluate(e, registers, Some(cfa))?),
            RegisterRule::ValExpression(e) => self.evaluate(e, registers, Some(cfa)),
            _ => None,
        }
    }

    fn expected(&self, row: &UnwindTableRow<usize>, registers: &[u64; 17]) -> Expected {
        if row.register(Register(16)) == Some(RegisterRule::Undefined) {
            return Expected::End;
        }
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                registers.get(usize::from(register.0)).map(|base| base.wrapping_add_signed(*offset))
            }
            CfaRule::Expression(expression) => self.evaluate(*expression, registers, None),
        };
        let found = || {
            let cfa = cfa?;
            let register = |n| self.register(row, n, cfa, registers);
            Some(Expected::Caller(cfa, register(16)?, register(6)?, register(3)?))
        };
        found().unwrap_or(Expected::Unknown)
    }
}

#[derive(Debug, Default)]
struct Tally {
    roots: u64,
    functions: usize,
    checked: usize,
    overlapping: usize,
    /// By design: expressions that no rule has.
    unsupported: usize,
    approximated: usize,
    /// On the way to an exception's handler, where unwind information says what was so before.
    switched: usize,
    differences: Vec<String>,
}

fn compare(path: &str) -> (Tally, RowStats) {
    let bytes = std::fs::read(path).unwrap();
    let image = ElfParts::parse(&bytes).unwrap();
    let mut rules = RuleDictionary::new();
    let rows = compile(&image, &mut rules).unwrap();
    let found = image.eh_frame().unwrap();
    let mut bases = BaseAddresses::default().set_eh_frame(found.address.0);
    if let Some(section) = image.section(".text") {
        bases = bases.set_text(section.address.0);
    }
    if let Some(section) = image.section(".got") {
        bases = bases.set_got(section.address.0);
    }
    let oracle = Oracle {
        eh_frame: EhFrame::new(found.bytes, LittleEndian),
        encoding: gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 },
    };
    let mut fdes = Vec::new();
    let mut entries = oracle.eh_frame.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        if let CieOrFde::Fde(partial) = entry {
            let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
            if fde.len() != 0 {
                fdes.push(fde);
            }
        }
    }
    fdes.sort_by_key(gimli::FrameDescriptionEntry::initial_address);
    let mut tally = Tally::default();
    let mut context = UnwindContext::new();
    for (index, fde) in fdes.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|i| fdes.get(i));
        let next = fdes.get(index + 1).map_or(u64::MAX, gimli::FrameDescriptionEntry::initial_address);
        if before.is_some_and(|b| b.initial_address() == fde.initial_address()) {
            tally.overlapping += 1;
            continue;
        }
        let end = fde.end_address();
        tally.overlapping += usize::from(end > next);
        let end = end.min(next);
        tally.functions += 1;
        // What nothing calls is known to end the stack; its unwind information often isn't told.
        let code = image.bytes_from(ElfVaddr(fde.initial_address())).unwrap_or_default();
        let entry = image.entry_point() == Some(ElfVaddr(fde.initial_address()));
        let root = entry || code.starts_with(&[0x48, 0x89, 0xdc]);
        tally.roots += u64::from(root);
        let mut table = fde.rows(&oracle.eh_frame, &bases, &mut context).unwrap();
        while let Some(row) = table.next_row().unwrap() {
            let (first, past) = (row.start_address(), row.end_address().min(end));
            if first >= past {
                continue;
            }
            let mut addresses = vec![first, first + 1, past - 1];
            if matches!(row.cfa(), CfaRule::Expression(_)) {
                addresses.extend(first..past.min(first + 64));
            }
            addresses.retain(|&address| address < past);
            addresses.dedup();
            for address in addresses {
                let registers = machine::registers(address);
                let rule = rules.rules()[usize::from(rows.rule_at(ElfVaddr(address)))];
                if root {
                    assert_eq!(rule.cfa_kind, CfaKind::End as u8, "{address:#x} is in a root");
                    continue;
                }
                check(&oracle, row, &rule, address, &registers, &mut tally);
            }
        }
        // What follows may be known by its instructions, but the function's own rows must be at an end.
        if next > end && next - end >= 16 && !is_of_a_start(&rules.rules()[usize::from(rows.rule_at(ElfVaddr(end)))]) {
            tally.differences.push(format!("{end:#x}: a rule after the end of its function"));
        }
    }
    println!("{path}: {tally:?} {:?} {} rows {} rules", rows.stats, rows.rows.len(), rules.len());
    assert_eq!(rows.stats.malformed, 0);
    assert_eq!(tally.overlapping as u64, rows.stats.overlapping);
    assert!(tally.roots <= 2 && tally.roots == rows.stats.roots, "{tally:?} {:?}", rows.stats);
    (tally, rows.stats)
}

/// Nothing known, nothing but the return address pushed, or code that is known as a whole.
fn is_of_a_start(rule: &Rule) -> bool {
    rule.cfa_kind != CfaKind::Reg as u8 || (rule.cfa_reg, rule.cfa_off) == (7, 8)
}

fn check(
    oracle: &Oracle<'_>,
    row: &UnwindTableRow<usize>,
    rule: &Rule,
    address: u64,
    registers: &[u64; 17],
    tally: &mut Tally,
) {
    tally.checked += 1;
    if rule.flags & RULE_SAVED_AT_POINTERS != 0 {
        tally.switched += 1;
        return;
    }
    let expected = oracle.expected(row, registers);
    let actual = if rule.cfa_kind == CfaKind::None as u8 {
        Expected::Unknown
    } else {
        match step(rule, &Registers::leaf(*registers), memory) {
            Step::End => Expected::End,
            Step::Caller(r) | Step::Interrupted(r) => Expected::Caller(r.sp(), r.ip(), r.fp(), r.rbx()),
            Step::Failed => Expected::Unknown,
        }
    };
    match (&expected, &actual) {
        (a, b) if a == b => {}
        (_, Expected::Unknown) => {
            tally.unsupported += 1;
            println!("  unsupported at {address:#x}: {row:?}");
        }
        // The stack goes on where it should; only a register that no rule can place is taken as unchanged.
        (Expected::Caller(cfa, ip, fp, rbx), Expected::Caller(cfa2, ip2, fp2, rbx2))
            if (cfa, ip) == (cfa2, ip2)
                && (fp == fp2 || *fp2 == registers[6])
                && (rbx == rbx2 || *rbx2 == registers[3]) =>
        {
            tally.approximated += 1;
            println!("  approximated at {address:#x}: {row:?}");
        }
        _ => tally.differences.push(format!("{address:#x}: {expected:x?} by gimli, {actual:x?} by {rule:?}")),
    }
}

/// No difference; at most so many rows of which the compiler itself says that no rule says it all.
fn agrees(path: &str, unsupported: u64, approximated: u64) {
    if !have_file(&format!("rows against gimli's of {path}"), path) {
        return;
    }
    let (tally, stats) = compare(path);
    assert_eq!(tally.differences.len(), 0, "{:#?}", &tally.differences[..tally.differences.len().min(10)]);
    assert_eq!(tally.switched > 0, stats.switches > 0, "{tally:?} {stats:?}");
    assert!(tally.functions > 0 && tally.checked > tally.functions);
    assert!(stats.unsupported <= unsupported && stats.approximated <= approximated, "{stats:?}");
    assert_eq!((tally.unsupported == 0, tally.approximated == 0), (stats.unsupported == 0, stats.approximated == 0));
}

#[test]
fn this_test_program() {
    agrees("/proc/self/exe", 0, 0);
}

#[test]
fn libc() {
    agrees("/lib/x86_64-linux-gnu/libc.so.6", 0, 3);
}

#[test]
fn dynamic_linker() {
    agrees("/lib64/ld-linux-x86-64.so.2", 0, 1);
}

#[test]
fn libstdcxx() {
    agrees("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", 0, 0);
}

/// Its assembly has a CFA at `*(rsp + 8 * r9 + 8) + 8`, in three rows of bn_mul_mont.
#[test]
fn libcrypto() {
    agrees("/usr/lib/x86_64-linux-gnu/libcrypto.so.3", 3, 1);
}

#[test]
fn python() {
    agrees("/usr/bin/python3", 0, 0);
}

/// Has OpenSSL in it.
#[test]
fn node() {
    agrees(&machine::node(), 3, 1);
}

#[test]
fn libjvm() {
    let found = machine::find(&["/usr/lib/jvm"], "libjvm.so");
    have_by_chance("rows of a JVM against gimli's", !found.is_empty(), "libjvm.so");
    found.iter().for_each(|path| agrees(path, 0, 0));
}

#[test]
fn rustc_driver() {
    let found = machine::find(&[&machine::rust_library_folder()], "librustc_driver-");
    have_by_chance("rows of rustc against gimli's", !found.is_empty(), "librustc_driver");
    found.iter().for_each(|path| agrees(path, 0, 0));
}

#[test]
fn libllvm() {
    let found = machine::find(&[&machine::rust_library_folder()], "libLLVM.so");
    have_by_chance("rows of rustc's LLVM against gimli's", !found.is_empty(), "libLLVM.so");
    found.iter().for_each(|path| agrees(path, 0, 0));
}
