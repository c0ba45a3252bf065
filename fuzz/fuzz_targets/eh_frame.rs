//! `.eh_frame` content inside a well-formed file: no panic, and rows come out bounded, sorted and with known rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_elf::ElfParts;
use profiler_unwinders::rows::{RuleDictionary, compile};

/// An executable with one segment of 1 MiB of code at 0x10000 (no bytes in the file), and these frames behind `PT_GNU_EH_FRAME`.
fn file(frames: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0x10000_u64, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let header_at = 64 + 3 * 56;
    let total = header_at as u64 + 8 + frames.len() as u64;
    let mut program = |kind: u32, flags: u32, words: [u64; 6]| {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for word in words {
            bytes.extend(word.to_le_bytes());
        }
    };
    program(1, 4, [0, 0, 0, total, total, 4096]);
    program(1, 5, [0, 0x10000, 0, 0, 0x10_0000, 4096]);
    program(0x6474_e550, 4, [header_at as u64, header_at as u64, 0, 8, 8, 4]);
    bytes.extend([1, 0x1b, 0xff, 0xff, 4, 0, 0, 0]);
    bytes.extend(frames);
    bytes
}

fuzz_target!(|data: &[u8]| {
    if data.is_empty() {
        return;
    }
    let bytes = file(data);
    let image = ElfParts::parse(&bytes).expect("the headers are well-formed");
    assert_eq!(image.eh_frame().expect("it has frames").bytes, data);
    let mut rules = RuleDictionary::new();
    let rows = compile(&image, &mut rules).expect("it is for x86-64");
    for page in rows.page_starts.windows(2) {
        let page = &rows.rows[page[0] as usize..page[1] as usize];
        assert!(page.is_sorted_by(|a, b| a.address_low() < b.address_low()));
        assert!(page.iter().all(|row| usize::from(row.rule()) < rules.len()));
    }
});
