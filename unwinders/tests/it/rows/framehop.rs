//! Rows against framehop, frame by frame, on stacks made up of code addresses and stack addresses.

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};
use profiler_address::ElfVaddr;
use profiler_bpf::abi::{CfaKind, RaKind, Rule};
use profiler_elf::ElfParts;
use profiler_need::{have_by_chance, have_file};
use profiler_unwinders::rows::{Registers, RuleDictionary, Step, compile, step};

use super::machine;

const STACK: u64 = 0x7000_0000_0000;
/// Stacks made for each file.
const STACKS: usize = 100_000;
const DEEPEST: usize = 8;

/// Only sp and rbp, as framehop knows no other register in a caller; and no CFA that is read from memory, as it doesn't
/// read memory for expressions (`eval_expr`) and takes to the frame pointer instead. gimli is the oracle for those.
fn within_framehop(rule: &Rule) -> bool {
    let plain = [CfaKind::Reg as u8, CfaKind::Plt as u8].contains(&rule.cfa_kind);
    rule.cfa_kind == CfaKind::End as u8
        || plain && matches!(rule.cfa_reg, 6 | 7) && rule.ra_kind != RaKind::Register as u8
}

/// Stubs that rows have by their code alone; framehop guesses there.
fn stub(image: &ElfParts<'_>, address: u64) -> bool {
    let code = image.bytes_at(ElfVaddr(address), 8).unwrap_or_default();
    let code = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code);
    code.strip_prefix(&[0xf2]).unwrap_or(code).starts_with(&[0xff, 0x25])
}

#[derive(Debug, Default)]
struct Tally {
    same: usize,
    ends: usize,
    /// Rules beyond what framehop follows, and addresses outside of all functions.
    skipped: usize,
    /// framehop gives up where a stack doesn't grow, as made-up stacks do.
    refused: usize,
}

fn agrees(path: &str) {
    if !have_file(&format!("rows against framehop's of {path}"), path) {
        return;
    }
    let bytes = std::fs::read(path).unwrap();
    let image = ElfParts::parse(&bytes).unwrap();
    let mut rules = RuleDictionary::new();
    let rows = compile(&image, &mut rules).unwrap();

    let range = |name: &str| image.section(name).map(|s| s.address.0..s.address.0 + s.size);
    let content = |name: &str| image.section(name).and_then(|s| image.section_bytes(s)).map(<[u8]>::to_vec);
    let info = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: range(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: content(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: content(".eh_frame_hdr"),
        ..Default::default()
    };
    let mut unwinder: UnwinderX86_64<Vec<u8>> = UnwinderX86_64::new();
    unwinder.add_module(Module::new(path.to_owned(), 0..0x1_0000_0000, 0, info));
    let mut cache: CacheX86_64 = CacheX86_64::new();

    let described = described(&image);
    let is_described = |address: u64| {
        let after = described.partition_point(|range| range.0 <= address);
        after.checked_sub(1).and_then(|i| described.get(i)).is_some_and(|range| address < range.1)
    };
    // Every place at which a rule starts to hold.
    let mut places = Vec::new();
    for (page, window) in rows.page_starts.windows(2).enumerate() {
        let first = (rows.first_page + page as u64) << 16;
        let in_page = &rows.rows[window[0] as usize..window[1] as usize];
        places.extend(in_page.iter().filter(|row| row.rule() != 0).map(|row| first + u64::from(row.address_low())));
    }
    // Of code that .eh_frame leaves out framehop knows nothing.
    places.retain(|&place| is_described(place));
    let stride = (places.len() / STACKS).max(1);
    let mut tally = Tally::default();
    for (round, &place) in places.iter().step_by(stride).enumerate() {
        // Half of the words are return addresses, one byte into a rule; half lead up the stack.
        let word = |address: u64| {
            let random = machine::memory(address.wrapping_add(round as u64)).unwrap_or(0);
            if random & 1 == 0 {
                places[(random >> 8) as usize % places.len()] + 1
            } else {
                (address + 16 + (random >> 8) % 4096) & !7
            }
        };
        let mut registers = Registers::frame(place, STACK, STACK + 512, 0);
        let mut theirs = UnwindRegsX86_64::new(place, STACK, STACK + 512);
        let mut address = FrameAddress::from_instruction_pointer(place);
        for depth in 0..DEEPEST {
            let rule = rules.rules()[usize::from(rows.rule_at(ElfVaddr(address.address_for_lookup())))];
            let known = is_described(address.address_for_lookup());
            if !known || !within_framehop(&rule) || stub(&image, address.address_for_lookup()) {
                tally.skipped += 1;
                break;
            }
            let Ok(found) = unwinder.unwind_frame(address, &mut theirs, &mut cache, &mut |a| Ok(word(a))) else {
                // It may remember a guess for this address.
                cache = CacheX86_64::new();
                tally.refused += 1;
                break;
            };
            let at = format!("{path}: {address:x?} at depth {depth} by {rule:?}");
            match (step(&rule, &registers, |a| Some(word(a))), found) {
                (Step::End, None) => {
                    tally.ends += 1;
                    break;
                }
                // framehop guesses by the frame pointer instead, and remembers that for this address.
                (Step::Caller(ours), _) if depth > 0 && ours.sp() < registers.sp() => {
                    cache = CacheX86_64::new();
                    tally.refused += 1;
                    break;
                }
                (Step::Caller(ours), Some(return_address)) => {
                    let (sp, bp) = (theirs.sp(), theirs.bp());
                    assert_eq!((ours.ip(), ours.sp(), ours.fp()), (return_address, sp, bp), "{at}");
                    tally.same += 1;
                    registers = ours;
                    let Some(next) = FrameAddress::from_return_address(return_address) else { break };
                    address = next;
                }
                (ours, theirs) => panic!("{at}: {ours:?} and {theirs:x?}"),
            }
        }
    }
    println!("{path}: {tally:?}");
    assert!(tally.same > places.len().min(STACKS) / 2);
    // Half of the words are no code, where both stop.
    assert!(tally.skipped < tally.same);
}

/// The functions of `.eh_frame`, sorted.
fn described(image: &ElfParts<'_>) -> Vec<(u64, u64)> {
    let found = image.eh_frame().unwrap();
    let bases = BaseAddresses::default().set_eh_frame(found.address.0);
    let eh_frame = EhFrame::new(found.bytes, LittleEndian);
    let mut ranges = Vec::new();
    let mut entries = eh_frame.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
        ranges.push((fde.initial_address(), fde.end_address()));
    }
    ranges.sort_unstable();
    ranges
}

#[test]
fn libc() {
    agrees("/lib/x86_64-linux-gnu/libc.so.6");
}

#[test]
fn libstdcxx() {
    agrees("/usr/lib/x86_64-linux-gnu/libstdc++.so.6");
}

#[test]
fn libcrypto() {
    agrees("/usr/lib/x86_64-linux-gnu/libcrypto.so.3");
}

#[test]
fn python() {
    agrees("/usr/bin/python3");
}

#[test]
fn node() {
    agrees(&machine::node());
}

#[test]
fn libjvm() {
    let found = machine::find(&["/usr/lib/jvm"], "libjvm.so");
    have_by_chance("rows of a JVM against framehop's", !found.is_empty(), "libjvm.so");
    found.iter().for_each(|path| agrees(path));
}

#[test]
fn rustc_driver() {
    let found = machine::find(&[&machine::rust_library_folder()], "librustc_driver-");
    have_by_chance("rows of rustc against framehop's", !found.is_empty(), "librustc_driver");
    found.iter().for_each(|path| agrees(path));
}
