//! ELF files: whatever the bytes, headers are read or refused, and rows come out bounded, sorted and with known rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_address::{ElfVaddr, FileOffset};
use profiler_elf::{Bytes, Elf, ElfParts, Pieces, restore};
use profiler_unwinders::rows::{RuleDictionary, compile};

fuzz_target!(|data: &[u8]| {
    let Ok(image) = ElfParts::parse(data) else { return };
    let _ = (image.gnu_build_id(), image.go_build_id(), image.is_go(), image.interpreter(), image.eh_frame());
    // By pieces there is nothing but what is there in the whole.
    let bytes = Bytes::Memory(data.into());
    let elf = Elf::parse(bytes).expect("read as the slice was");
    let mut pieces = Pieces::of(data.len() as u64);
    let ranges = elf.sections().iter().map(|s| s.offset.0..s.offset.0.saturating_add(s.size)).take(64).collect();
    pieces.add(&elf.bytes, ranges, 1 << 20).expect("memory");
    for (at, piece) in pieces.iter() {
        assert_eq!(piece, &data[at as usize..at as usize + piece.len()]);
    }
    let parts = ElfParts::of_pieces(&elf, &pieces);
    for segment in parts.segments() {
        if let (Some(part), Some(whole)) = (parts.bytes_from(segment.vaddr), image.bytes_from(segment.vaddr)) {
            assert!(whole.starts_with(part));
        }
    }
    // As if it were mapped: what comes back is a file again, which says no more than was there.
    if let Ok(restored) = restore(data, 0x5555_0000_0000) {
        assert!(restored.bytes() <= (64 << 20) + (1 << 20) && restored.size < u64::MAX);
        let mut end = 0;
        for (at, piece) in &restored.pieces {
            assert!(*at >= end && !piece.is_empty());
            end = at + piece.len() as u64;
        }
        assert_eq!(end, restored.size);
    }
    let _ = image.section_content(".debug_frame", 1 << 20);
    let _ = image.to_vaddr(FileOffset(data.len() as u64 / 2));
    for segment in image.segments() {
        let _ = image.bytes_from(segment.vaddr);
    }
    let mut rules = RuleDictionary::new();
    let Ok(rows) = compile(&image, &mut rules) else { return };
    assert!(rows.page_starts.is_sorted());
    assert_eq!(rows.page_starts.last().map_or(0, |&end| end as usize), rows.rows.len());
    for page in rows.page_starts.windows(2) {
        let page = &rows.rows[page[0] as usize..page[1] as usize];
        assert!(page.is_sorted_by(|a, b| a.address_low() < b.address_low()));
        assert!(page.iter().all(|row| usize::from(row.rule()) < rules.len()));
    }
    let _ = (rows.rule_at(image.entry()), rows.rule_at(ElfVaddr(u64::MAX)));
});
