//! Instructions against call frame information: functions that have both are followed as if they had none.

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, LittleEndian, Register, RegisterRule, UnwindContext, UnwindSection,
};

use super::*;
use crate::rows::flow::UNKNOWN;

/// What gimli says of a range of addresses.
struct Row {
    start: u64,
    end: u64,
    /// DWARF register and offset of the CFA, unless it is an expression.
    cfa: Option<(u16, i64)>,
    /// Where the caller's rbp and rbx are, relative to the CFA; 0: not saved.
    saved: [i64; 2],
    /// It holds for all of its function.
    only: bool,
    /// Exceptions land in its function, so it can't do without call frame information.
    lands: bool,
}

#[derive(Debug, Default)]
struct Tally {
    instructions: u64,
    equal: u64,
    /// No rule.
    unknown: u64,
    /// By rsp where gimli's is by rbp, or the other way round, with no relation between the two.
    incomparable: u64,
    wrong: u64,
    /// Left out.
    undescribed: u64,
    wrong_fp: u64,
    wrong_rbx: u64,
    shown: usize,
}

impl Tally {
    fn share(&self, part: u64) -> f64 {
        part as f64 * 100.0 / self.instructions.max(1) as f64
    }
}

fn rows(parts: &ElfParts<'_>) -> (Vec<Row>, Vec<(u64, u64)>) {
    let found = parts.eh_frame().unwrap();
    let bases = BaseAddresses::default().set_eh_frame(found.address.0);
    let eh_frame = EhFrame::new(found.bytes, LittleEndian);
    let mut context = UnwindContext::new();
    let (mut rows, mut functions) = (Vec::new(), Vec::new());
    let mut entries = eh_frame.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
        if fde.len() == 0 || fde.cie().is_signal_trampoline() {
            continue;
        }
        functions.push((fde.initial_address(), fde.end_address()));
        let mut table = fde.rows(&eh_frame, &bases, &mut context).unwrap();
        let first = rows.len();
        let lands = fde.lsda().is_some();
        while let Some(row) = table.next_row().unwrap() {
            let cfa = match row.cfa() {
                CfaRule::RegisterAndOffset { register, offset } => Some((register.0, *offset)),
                CfaRule::Expression(_) => None,
            };
            let saved = [6, 3].map(|register| match row.register(Register(register)) {
                Some(RegisterRule::Offset(offset)) => offset,
                _ => 0,
            });
            let cfa = cfa.filter(|_| row.register(Register(16)) == Some(RegisterRule::Offset(-8)));
            rows.push(Row {
                start: row.start_address(),
                end: row.end_address().min(fde.end_address()),
                cfa,
                saved,
                only: false,
                lands,
            });
        }
        if let [row] = rows.get_mut(first..).unwrap_or_default() {
            row.only = row.cfa == Some((7, 8));
        }
    }
    rows.sort_by_key(|row: &Row| row.start);
    functions.sort_unstable();
    functions.dedup_by_key(|function| function.0);
    (rows, functions)
}

fn compare(code: &[u8], address: u64, starts: &[u32], rows: &[Row], cold: &dyn Fn(u64) -> bool, tally: &mut Tally) {
    let mut instructions = Vec::new();
    instructions::read(code, starts, |instruction| instructions.push(instruction));
    let flow = Flow::solve(&instructions, starts);
    for (index, instruction) in instructions.iter().enumerate() {
        let at = address + u64::from(instruction.offset);
        let after = rows.partition_point(|row| row.start <= at);
        let Some(row) = after.checked_sub(1).and_then(|i| rows.get(i)).filter(|row| at < row.end) else { continue };
        if matches!(instruction.effect, Effect::Padding) || cold(at) {
            continue;
        }
        // Assembly that says nothing of its pushes (glibc's __mpn_mul_1): gimli has one row for all of it.
        let whole = frames_of(&flow, &instructions, address, row);
        if row.lands {
            continue;
        }
        if row.only && whole {
            tally.undescribed += 1;
            continue;
        }
        tally.instructions += 1;
        let Some(frame) = flow.frame(index).filter(|frame| frame.rule().is_some()) else {
            tally.unknown += 1;
            continue;
        };
        let ours = match row.cfa {
            Some((7, _)) => frame.depth,
            Some((6, _)) => frame.fp,
            _ => UNKNOWN,
        };
        let Some((_, theirs)) = row.cfa.filter(|_| ours != UNKNOWN) else {
            tally.incomparable += 1;
            continue;
        };
        if i64::from(ours) != theirs {
            tally.wrong += 1;
            if tally.shown < 40 {
                tally.shown += 1;
                println!("  {at:#x}: {frame:?}, gimli {:?} ({:?})", row.cfa, instruction.effect);
            }
            continue;
        }
        tally.equal += 1;
        let rule = frame.rule().unwrap();
        let eighth = |offset: i16| if offset == profiler_bpf::abi::SAVED_SAME { 0 } else { i64::from(offset) * 8 };
        tally.wrong_fp += u64::from(eighth(rule.fp_off8) != row.saved[0]);
        tally.wrong_rbx += u64::from(eighth(rule.rbx_off8) != row.saved[1]);
    }
}

/// Does anything in this range change the stack pointer?
fn frames_of(flow: &Flow<'_>, instructions: &[Instruction], address: u64, row: &Row) -> bool {
    let first = instructions.partition_point(|i| address + u64::from(i.offset) < row.start);
    let inside =
        (first..).take_while(|&i| instructions.get(i).is_some_and(|i| address + u64::from(i.offset) < row.end));
    row.only && inside.into_iter().any(|i| flow.frame(i).is_some_and(|frame| frame.depth != 8))
}

/// The tally of one file, with function starts known, and without.
fn check(path: &str) -> Option<[Tally; 2]> {
    let bytes = std::fs::read(path).unwrap();
    let parts = ElfParts::parse(&bytes).unwrap();
    let (rows, functions) = rows(&parts);
    let text = parts.section(".text")?;
    let code = parts.section_bytes(text)?;
    let code = code.get(..code.len().min(24 << 20))?;
    let address = text.address.0;
    let bare = |start: u64| {
        let after = rows.partition_point(|row| row.start <= start);
        after.checked_sub(1).and_then(|i| rows.get(i)).is_some_and(|row| row.cfa == Some((7, 8)))
    };
    let inside = |&start: &u64| start >= address && start - address < code.len() as u64;
    let named = functions.iter().map(|function| function.0).filter(inside).filter(|&start| bare(start));
    let named: Vec<u64> = named.collect();
    // Parts of functions that stand elsewhere, and are entered in their middle: in a gap they would be reached by jumps.
    let cold = |at: u64| {
        let after = functions.partition_point(|function| function.0 <= at);
        after.checked_sub(1).and_then(|i| functions.get(i)).is_some_and(|function| !bare(function.0))
    };
    let all = |given: Vec<u64>| {
        let mut gaps = Gaps::new(&parts);
        gaps.starts = Some(given);
        let starts = gaps.starts_in(code, address, &parts);
        let mut tally = Tally::default();
        let mut at = 0;
        while at < code.len() {
            let end = chunk_end(at, code.len(), &starts);
            let of_chunk = |&s: &u32| s.checked_sub(at as u32).filter(|&s| (s as usize) < end - at);
            let chunk_starts: Vec<u32> = starts.iter().filter_map(of_chunk).collect();
            compare(&code[at..end], address + at as u64, &chunk_starts, &rows, &cold, &mut tally);
            at = end;
        }
        tally
    };
    let result = [all(named), all(vec![address])];
    for (name, tally) in ["starts known", "stripped"].iter().zip(&result) {
        println!(
            "{path}, {name}: {:.3} % equal, {:.3} % no rule, {:.4} % wrong, {:.3} % incomparable, {} left out, saved rbp {:.3} %, rbx {:.3} % other ({} instructions)",
            tally.share(tally.equal),
            tally.share(tally.unknown),
            tally.share(tally.wrong),
            tally.share(tally.incomparable),
            tally.undescribed,
            tally.share(tally.wrong_fp),
            tally.share(tally.wrong_rbx),
            tally.instructions
        );
    }
    Some(result)
}

/// With the starts of functions known, and without: least % of instructions with the same CFA, most % with another.
fn agrees(path: &str, bounds: [(f64, f64); 2]) {
    if !profiler_need::have_file(&format!("rows of known code in {path}"), path) {
        return;
    }
    let tallies = check(path).unwrap();
    for (tally, (equal, wrong)) in tallies.iter().zip(bounds) {
        assert!(tally.instructions > 10_000);
        assert!(tally.share(tally.equal) > equal && tally.share(tally.wrong) < wrong, "{path}: {tally:?}");
    }
}

#[test]
fn this_test_program() {
    agrees("/proc/self/exe", [(97.0, 0.05), (95.0, 0.5)]);
}

#[test]
fn libc() {
    agrees("/lib/x86_64-linux-gnu/libc.so.6", [(99.0, 0.02), (98.5, 0.05)]);
}

#[test]
fn libstdcxx() {
    agrees("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", [(99.0, 0.1), (98.5, 1.0)]);
}

#[test]
fn python() {
    agrees("/usr/bin/python3", [(98.5, 0.02), (98.0, 0.05)]);
}

#[test]
fn a_cxx_program() {
    agrees("/usr/bin/gdb", [(98.5, 0.02), (97.0, 0.1)]);
}
