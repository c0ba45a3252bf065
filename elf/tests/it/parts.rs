//! The program that tests it, whole, in pieces and damaged.

use profiler_address::{ElfVaddr, FileOffset};

use profiler_elf::{Bytes, Elf, ElfParts, Error, MACHINE_X86_64, Pieces};

fn own() -> Vec<u8> {
    std::fs::read("/proc/self/exe").unwrap()
}

#[test]
fn reads_the_program_that_tests_it() {
    let bytes = own();
    let image = ElfParts::parse(&bytes).unwrap();
    assert_eq!(image.machine(), MACHINE_X86_64);
    assert!(image.position_independent());
    assert!(!image.is_go());
    assert!(image.interpreter().is_some_and(|path| path.starts_with(b"/lib")));
    let text = image.section(".text").unwrap();
    let code = image.section_bytes(text).unwrap();
    assert_eq!(image.bytes_at(text.address, code.len()).unwrap(), code);
    assert_eq!(image.to_vaddr(text.offset), Some(text.address));
    assert!(image.segments().iter().any(|s| s.executable() && s.contains(image.entry())));
    assert_eq!(image.bytes_from(ElfVaddr(u64::MAX)), None);
    assert_eq!(image.to_vaddr(FileOffset(u64::MAX)), None);
}

#[test]
fn eh_frame_is_found_without_section_headers() {
    let mut bytes = own();
    let (address, start) = {
        let found = ElfParts::parse(&bytes).unwrap().eh_frame().unwrap();
        assert!(found.exact);
        (found.address, found.bytes[..64].to_vec())
    };
    bytes[40..48].fill(0); // e_shoff
    bytes[58..64].fill(0); // e_shentsize, e_shnum, e_shstrndx
    let image = ElfParts::parse(&bytes).unwrap();
    assert!(image.sections().is_empty());
    let found = image.eh_frame().unwrap();
    assert_eq!((found.address, &found.bytes[..64], found.exact), (address, &start[..], false));
}

#[test]
fn every_truncation_is_an_error_or_an_image() {
    let bytes = own();
    for length in (0..200).chain([1000, 4096, 65_536]) {
        let cut = &bytes[..length.min(bytes.len())];
        match ElfParts::parse(cut) {
            Ok(image) => {
                let _ = (image.eh_frame(), image.gnu_build_id(), image.is_go(), image.interpreter());
            }
            Err(error) => assert!(matches!(error, Error::NotElf(_) | Error::Truncated { .. })),
        }
    }
    assert!(matches!(ElfParts::parse(b"#!/bin/sh"), Err(Error::NotElf(_))));
}

#[test]
fn class_and_byte_order_are_named() {
    let mut bytes = own();
    bytes[4] = 1;
    assert!(matches!(ElfParts::parse(&bytes), Err(Error::Unsupported { class: 1, data: 1 })));
}

#[test]
fn a_file_read_by_its_headers_is_the_image_of_its_bytes() {
    let bytes = own();
    let whole = ElfParts::parse(&bytes).unwrap();
    let file = std::sync::Arc::new(std::fs::File::open("/proc/self/exe").unwrap());
    let elf = Elf::parse(Bytes::of_file(file).unwrap()).unwrap();
    assert_eq!((elf.segments(), elf.sections()), (whole.segments(), whole.sections()));
    assert_eq!((elf.gnu_build_id(), elf.interpreter()), (whole.gnu_build_id(), whole.interpreter()));
    let text = elf.section(".text").unwrap().clone();
    assert_eq!(elf.data(&text, u64::MAX).unwrap(), whole.section_bytes(&text).unwrap());
    assert!(matches!(elf.data(&text, 10), Err(Error::TooLarge { .. })));

    let mut pieces = Pieces::of(bytes.len() as u64);
    let wanted = elf.section(".eh_frame").unwrap();
    let range = wanted.offset.0..wanted.offset.0 + wanted.size;
    pieces.add(&elf.bytes, Vec::from([range]), u64::MAX).unwrap();
    let image = ElfParts::of_pieces(&elf, &pieces);
    assert_eq!(image.eh_frame().unwrap().bytes, whole.eh_frame().unwrap().bytes);
    assert_eq!(image.section_bytes(&text), None, "not read");
    assert!(image.bytes_from(text.address).is_none() && image.present((text.address.0, text.end())).is_empty());
    let range = text.offset.0 + 16..text.offset.0 + 48;
    pieces.add(&elf.bytes, Vec::from([range]), u64::MAX).unwrap();
    let image = ElfParts::of_pieces(&elf, &pieces);
    let present = image.present((text.address.0, text.end()));
    assert_eq!(present, [(text.address.0 + 16, text.address.0 + 48)]);
    assert_eq!(image.bytes_at(ElfVaddr(present[0].0), 32), whole.bytes_at(ElfVaddr(present[0].0), 32));
}
