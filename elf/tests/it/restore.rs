//! What comes back of a file that is mapped is what the file has.

use std::fs;
use std::sync::Arc;

use profiler_elf::{Bytes, Elf, ElfParts, SHT_NOBITS, restore};

/// Where it would be mapped.
const START: u64 = 0x7f12_3456_7000;

/// A file of the restored pieces, with zeros for what is not there.
fn whole(file: &[u8]) -> Vec<u8> {
    let restored = restore(file, START).expect("it is an ELF file");
    let mut bytes = vec![0; usize::try_from(restored.size).expect("small")];
    for (at, piece) in &restored.pieces {
        let at = usize::try_from(*at).expect("small");
        bytes[at..at + piece.len()].copy_from_slice(piece);
    }
    bytes
}

fn libraries() -> Vec<std::path::PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").expect("our own mappings");
    let mut files: Vec<_> = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5)).collect();
    files.dedup();
    files.into_iter().filter(|file| file.starts_with('/')).map(Into::into).collect()
}

/// The string at `at`.
fn text(bytes: &[u8], at: usize) -> &[u8] {
    bytes[at..].split(|byte| *byte == 0).next().unwrap_or_default()
}

#[test]
fn frames_symbols_ids_and_segments_of_real_libraries_come_back() {
    let libraries = libraries();
    assert!(libraries.len() >= 3, "{libraries:?}");
    for path in libraries {
        let file = fs::read(&path).expect("it is read");
        let there = ElfParts::parse(&file).expect("an ELF file");
        let back = whole(&file);
        let here = ElfParts::parse(&back).expect("an ELF file again");
        assert_eq!(here.segments(), there.segments());
        assert_eq!((here.gnu_build_id(), here.interpreter()), (there.gnu_build_id(), there.interpreter()));
        assert_eq!((here.entry(), here.machine()), (there.entry(), there.machine()));
        let section = |image: &ElfParts<'_>, name: &str| image.section(name).cloned();
        let (mine, own) = (section(&here, ".eh_frame").unwrap(), section(&there, ".eh_frame").unwrap());
        assert_eq!((mine.address, mine.offset), (own.address, own.offset), "{path:?}");
        assert_eq!(here.section_bytes(&mine), there.section_bytes(&own), "{path:?}");
        for name in [".eh_frame_hdr", ".dynstr", ".gnu.hash"] {
            let (mine, own) = (section(&here, name).unwrap(), section(&there, name).unwrap());
            assert_eq!((mine.address, mine.offset, mine.size), (own.address, own.offset, own.size), "{path:?} {name}");
            assert_eq!(here.section_bytes(&mine), there.section_bytes(&own), "{path:?} {name}");
        }
        let (mine, own) = (section(&here, ".dynsym").unwrap(), section(&there, ".dynsym").unwrap());
        assert_eq!(mine.size, own.size, "{path:?}");
        let names = &here.sections()[mine.link as usize];
        assert_eq!(&*names.name, ".dynstr");
        let (symbols, originals) = (here.section_bytes(&mine).unwrap(), there.section_bytes(&own).unwrap());
        for (mine, own) in symbols.chunks_exact(24).zip(originals.chunks_exact(24)) {
            assert_eq!((&mine[..6], &mine[8..]), (&own[..6], &own[8..]));
            assert_eq!(mine[6..8] == [0, 0], own[6..8] == [0, 0], "defined here or not");
        }
        let code: Vec<_> = here.sections().iter().filter(|section| section.is_code()).collect();
        assert!(!code.is_empty() && code.iter().all(|section| section.kind == SHT_NOBITS));
        assert!(Elf::parse(Bytes::Memory(Arc::from(back.as_slice()))).is_ok());
        assert!(text(&back, usize::try_from(names.offset.0).unwrap() + 1).len() > 1);
    }
}

#[test]
fn pointers_that_the_dynamic_linker_has_written_lead_to_the_same() {
    const PT_DYNAMIC: u32 = 2;
    let path = libraries().into_iter().find(|path| path.to_string_lossy().contains("libc.so")).expect("a libc");
    let mut file = fs::read(path).expect("it is read");
    let before = restore(file.as_slice(), START).expect("an ELF file");
    let word = |file: &[u8], at: usize| u64::from_le_bytes(*file[at..].first_chunk().unwrap());
    let headers = usize::try_from(word(&file, 32)).unwrap();
    let dynamic = (0..40).map(|n| headers + 56 * n).find(|at| word(&file, *at) as u32 == PT_DYNAMIC).unwrap();
    let mut at = usize::try_from(word(&file, dynamic + 8)).unwrap();
    let mut written = 0;
    while word(&file, at) != 0 {
        // DT_HASH, DT_STRTAB, DT_SYMTAB, DT_GNU_HASH
        if matches!(word(&file, at), 4..=6 | 0x6fff_fef5) {
            let address = word(&file, at + 8) + START;
            file[at + 8..at + 16].copy_from_slice(&address.to_le_bytes());
            written += 1;
        }
        at += 16;
    }
    assert!(written >= 3);
    assert_eq!(restore(file.as_slice(), START).expect("an ELF file"), before);
    // Mapped elsewhere, they lead nowhere: no symbols, and all else.
    let elsewhere = restore(file.as_slice(), START + 0x10_0000).expect("an ELF file");
    assert!(elsewhere.bytes() < before.bytes());
}

#[test]
fn what_claims_to_be_large_or_lies_outside_is_refused() {
    let path = libraries().into_iter().find(|path| path.to_string_lossy().contains("libc.so")).expect("a libc");
    let file = fs::read(path).expect("it is read");
    let image = ElfParts::parse(&file).expect("an ELF file");
    let hash = image.section(".gnu.hash").expect("a hash table").offset.0;
    let hash = usize::try_from(hash).unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        restore(file.as_slice(), START)
    };
    // Buckets, and words of the filter.
    for field in [hash, hash + 8] {
        assert!(changed(field, &u32::MAX.to_le_bytes()).is_err(), "{field:#x}");
    }
    // The first symbol that is hashed: all are imported, and none is a function here.
    let restored = changed(hash + 4, &u32::MAX.to_le_bytes());
    assert!(restored.is_err(), "more symbols than are taken");
    for size in [0, 16, 63, 64, 1000] {
        assert!(restore(&file[..size], START).is_err(), "{size} bytes");
    }
    assert!(restore(b"\x7fELF".as_slice(), START).is_err());
}
