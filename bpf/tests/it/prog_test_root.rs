//! The BPF build of the unwinder and the native one, on the same tables and the same stacks: equal frame by frame.

use profiler_bpf::RowTables;
use profiler_bpf::abi::{CfaKind, Executable, Mapping, NO_EXECUTABLE, RaKind, Row, RowPage, Rule, SAVED_SAME};
use profiler_bpf::native::Walk;
use profiler_bpf::prog_test::ProgTest;
use profiler_bpf::record::{Continuation, UnwindEnd, UserFrame};

/// Where the code lies that nobody executes.
const CODE: u64 = 0x5555_0000_0000;
const CODE_PAGES: u64 = 4;

/// xorshift64*: the cases are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn rules() -> Vec<Rule> {
    let reg = |reg: u8, off: i32, fp: i16, rbx: i16| Rule {
        cfa_kind: CfaKind::Reg as u8,
        cfa_reg: reg,
        cfa_off: off,
        fp_off8: fp,
        rbx_off8: rbx,
        ..Rule::NONE
    };
    vec![
        Rule::NONE,
        reg(7, 8, SAVED_SAME, SAVED_SAME),
        reg(7, 16, -2, SAVED_SAME),
        reg(7, 40, -2, -3),
        reg(6, 16, -2, -4),
        reg(3, 24, SAVED_SAME, SAVED_SAME),
        reg(10, 0, SAVED_SAME, SAVED_SAME),
        Rule { cfa_kind: CfaKind::Deref as u8, cfa_off2: 8, ..reg(7, 16, SAVED_SAME, SAVED_SAME) },
        Rule { cfa_kind: CfaKind::Plt as u8, cfa_off2: 11, ..reg(7, 8, SAVED_SAME, SAVED_SAME) },
        Rule { cfa_kind: CfaKind::FramePointer as u8, ..Rule::NONE },
        Rule { ra_kind: RaKind::Register as u8, ra: 5, ..reg(7, 0, SAVED_SAME, SAVED_SAME) },
        Rule { flags: 1, ..reg(7, 24, -1, SAVED_SAME) },
        Rule { cfa_kind: CfaKind::Signal as u8, cfa_off: 40, ..Rule::NONE },
        Rule { cfa_kind: CfaKind::End as u8, ..Rule::NONE },
    ]
}

fn fill(tables: &mut RowTables, random: &mut Random, rule_count: u64) {
    tables.write_rules(0, &rules()).unwrap();
    tables.add_slabs(2).unwrap();
    let (mut pages, mut next) = (Vec::new(), 0usize);
    for page in 0..CODE_PAGES {
        let slab = usize::from(page >= 2);
        if page == 2 {
            next = 0;
        }
        let mut lows: Vec<u16> = (0..200).map(|_| random.next() as u16).collect();
        lows.sort_unstable();
        lows.dedup();
        // What ends a stack is rare, or none would be long.
        let rows: Vec<Row> = lows
            .iter()
            .map(|&low| {
                let rule = random.below(rule_count + 150);
                Row::new(low, if rule < rule_count { rule as u16 } else { 1 + (rule % 2) as u16 })
            })
            .collect();
        tables.write_rows(slab, next, &rows).unwrap();
        pages.push(RowPage { first: (slab as u32) << 16 | next as u32, count: rows.len() as u32 });
        next += rows.len();
    }
    tables.write_row_pages(7, &pages).unwrap();
    tables
        .write_executable(3, Executable { first_page: 1, page_count: CODE_PAGES as u32, page_base: 7, pad: 0 })
        .unwrap();
}

#[test]
fn root_bpf_and_native_unwinder_agree_frame_by_frame() {
    if !profiler_need::have_root("root_bpf_and_native_unwinder_agree_frame_by_frame") {
        return;
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let test = ProgTest::load().unwrap();
    let mut tables = test.tables().unwrap();
    fill(&mut tables.rows, &mut random, rules().len() as u64);
    let code_end = CODE + (CODE_PAGES << 16);
    let mappings = [
        Mapping { start: 0x1000, end: 0x2000, executable: NO_EXECUTABLE, ..Mapping::default() },
        Mapping { start: CODE, end: code_end, bias: CODE - (1 << 16), executable: 3, ..Mapping::default() },
        Mapping { start: code_end, end: code_end + 0x1000, executable: NO_EXECUTABLE, ..Mapping::default() },
        Mapping { start: 0x7f00_0000_0000, end: 0x7f00_0000_1000, executable: 5, ..Mapping::default() },
    ];
    tables.processes.write_mappings(100, &mappings).unwrap();

    let mut ends = std::collections::BTreeMap::<u8, u32>::new();
    let mut longest = 0;
    for case in 0..2000u32 {
        let mut stack = vec![0u64; 4096];
        let base = stack.as_ptr() as u64;
        let bytes = stack.len() as u64 * 8;
        for word in &mut stack {
            *word = match random.below(16) {
                0..=12 => CODE + random.below(CODE_PAGES << 16),
                13 => base + random.below(bytes) / 8 * 8,
                14 => code_end + random.below(0x1000),
                _ if random.below(200) == 0 => random.next(),
                _ => CODE + random.below(CODE_PAGES << 16),
            };
        }
        let mut regs = [0u64; 16];
        for reg in &mut regs {
            *reg = base + random.below(bytes / 8) / 8 * 8;
        }
        regs[5] = CODE + random.below(CODE_PAGES << 16);
        let registers = Continuation {
            ip: CODE + random.below(CODE_PAGES << 16),
            sp: base + random.below(64) * 8,
            fp: regs[6],
            rbx: regs[3],
            leaf: 1,
            guessed: 0,
            regs,
            ..Continuation::default()
        };
        let (bpf_frames, bpf_end) = test.run(&registers, case + 1, 100, mappings.len() as u32).unwrap();

        let copy: Vec<u8> = stack.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut native_frames: Vec<UserFrame> = Vec::new();
        let mut walk = Walk::new(&registers, 0);
        let mut native_end = walk.run(&tables.rows, &mappings, base, &copy, None, &mut native_frames);
        if bpf_end == UnwindEnd::ReadFailed && native_end == UnwindEnd::CopyTooShort {
            native_end = UnwindEnd::ReadFailed;
        }
        // Memory next to the stack can be read in the process but is not in the copy.
        if native_end != UnwindEnd::ReadFailed && native_end != UnwindEnd::CopyTooShort {
            assert_eq!((&bpf_frames, bpf_end), (&native_frames, native_end), "case {case}");
        } else {
            assert_eq!(bpf_frames[..native_frames.len()], native_frames[..], "case {case}");
        }
        *ends.entry(native_end as u8).or_default() += 1;
        longest = longest.max(bpf_frames.len());
    }
    eprintln!("ends: {ends:?}, longest stack: {longest}");
    for wanted in
        [UnwindEnd::Complete, UnwindEnd::NoMapping, UnwindEnd::BadFrame, UnwindEnd::NoRow, UnwindEnd::Unsupported]
    {
        assert!(ends.contains_key(&(wanted as u8)), "{wanted:?} was never reached");
    }
    assert!(longest > 20);
}
