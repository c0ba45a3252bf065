//! The BPF build of the unwinder and the native one, on the same tables and the same stacks: equal frame by frame.

use profiler_bpf::RowTables;
use profiler_bpf::abi::{
    CfaKind, Executable, FrameKind, INSTANCE_BYTES, Instance, Mapping, NO_EXECUTABLE, RaKind, Row, RowPage, Rule,
    SAVED_SAME, unwinder_word,
};
use profiler_bpf::native::{Runtimes, Walk};
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

/// An interpreter whose structs are words: a state {thread pointer, frame}, frames {code, previous, position, owner}, code of eight words.
fn interpreter(state_slot: u64, pointer: u64) -> Instance {
    let mut bytes = Vec::new();
    bytes.extend(0_u64.to_ne_bytes());
    bytes.extend(state_slot.wrapping_sub(pointer).to_ne_bytes());
    bytes.extend(0_u64.to_ne_bytes());
    // a variable at a distance from the thread pointer, owners, addresses, two tag bits, 2 is the last owner of a function
    bytes.extend([2_u8, 2, 1, 3, 2, 0]);
    let halves = [0_u16, 8, 0xffff, 32, 0, 8, 16, 24, 64, 0, 64, 0, 8, 16, 56];
    bytes.extend(halves.into_iter().flat_map(u16::to_ne_bytes));
    bytes.resize(INSTANCE_BYTES, 0);
    Instance(bytes.try_into().unwrap())
}

#[test]
fn root_both_unwinders_agree_on_stacks_of_an_interpreter() {
    if !profiler_need::have_root("root_both_unwinders_agree_on_stacks_of_an_interpreter") {
        return;
    }
    let mut random = Random(0x1234_5678_9abc_def1);
    let test = ProgTest::load().unwrap();
    let mut tables = test.tables().unwrap();
    tables.rows.write_rules(0, &rules()).unwrap();
    tables.rows.add_slabs(1).unwrap();
    // One rule for all code: the return address is on top of the stack. The last page's is that nobody called it.
    tables.rows.write_rows(0, 0, &[Row::new(0, 1), Row::new(0, 13)]).unwrap();
    let page = |first| RowPage { first, count: 1 };
    tables.rows.write_row_pages(7, &[page(0), page(0), page(0), page(1)]).unwrap();
    tables.rows.write_executable(3, Executable { first_page: 1, page_count: 4, page_base: 7, pad: 0 }).unwrap();
    let code = |page: u64, unwinder| Mapping {
        start: CODE + (page << 16),
        end: CODE + ((page + 1) << 16),
        bias: CODE - (1 << 16),
        executable: 3,
        unwinder,
    };
    // The second page is the loop.
    let mappings = [code(0, 0), code(1, unwinder_word(FrameKind::CPYTHON, 9)), code(2, 0), code(3, 0)];
    tables.processes.write_mappings(100, &mappings).unwrap();

    let (mut with_functions, mut troubled, mut longest) = (0, 0, 0);
    for case in 0..500u32 {
        let depth = 1 + random.below(300) as usize;
        let mut stack: Vec<u64> = (0..depth).map(|_| CODE + random.below(3 << 16)).collect();
        stack.push(CODE + (3 << 16) + 100);
        stack.resize(depth + 256, 0);
        let codes: Vec<[u64; 8]> = (0..16).map(|_| std::array::from_fn(|_| random.next())).collect();
        let count = random.below(600) as usize;
        let mut frames = vec![[0_u64; 4]; count + 1];
        let frame_at = |frames: &[[u64; 4]], at: usize| frames.get(at).map_or(0, |frame| frame.as_ptr() as u64);
        for at in 0..count {
            let object = codes[random.below(16) as usize].as_ptr() as u64;
            let next = match random.below(400) {
                0 => 0x10,
                1 => frame_at(&frames, random.below(count as u64) as usize),
                _ if at + 1 < count => frame_at(&frames, at + 1),
                _ => 0,
            };
            let object = if random.below(300) == 0 { random.below(2) * 0x20 } else { object };
            frames[at] = [object | random.below(4), next, object + 64 + random.below(100) * 2, random.below(5)];
        }
        let pointer = 0x7fff_0000_1000_u64;
        let claimed = if random.below(20) == 0 { 1 } else { pointer };
        let state = [claimed, frame_at(&frames, 0)];
        let slot = [state.as_ptr() as u64];
        tables.instances.write(9, &interpreter(slot.as_ptr() as u64, pointer)).unwrap();
        let base = stack.as_ptr() as u64;
        let ip = CODE + random.below(3 << 16);
        let registers = Continuation { ip, sp: base, leaf: 1, thread_pointer: pointer, ..Continuation::default() };
        let (bpf_frames, bpf_end) = test.run(&registers, case + 1, 100, mappings.len() as u32).unwrap();

        let copy: Vec<u8> = stack.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let own = std::fs::File::open("/proc/self/mem").unwrap();
        let mut read =
            |address, bytes: &mut [u8]| std::os::unix::fs::FileExt::read_exact_at(&own, bytes, address).is_ok();
        let runtimes = Runtimes { instances: &tables.instances, read: &mut read };
        let mut native_frames: Vec<UserFrame> = Vec::new();
        let mut walk = Walk::new(&registers, 0);
        let native_end = walk.run(&tables.rows, &mappings, base, &copy, Some(runtimes), &mut native_frames);
        assert_eq!((&bpf_frames, bpf_end), (&native_frames, native_end), "case {case}");
        let functions = native_frames.iter().filter(|frame| matches!(frame, UserFrame::Runtime(_))).count();
        with_functions += usize::from(functions > 0);
        troubled += native_frames
            .iter()
            .filter(|frame| matches!(frame, UserFrame::Runtime(frame) if frame.object.0 == 0))
            .count();
        longest = longest.max(native_frames.len());
    }
    assert!(with_functions > 300 && troubled > 10 && longest > 200, "{with_functions}, {troubled}, {longest}");
}
