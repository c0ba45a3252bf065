//! Go's line table: whatever the bytes, a slice and a part of a file say the same, and every walk ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_elf::go::{Header, Table};
use profiler_elf::{Bytes, Paged};

fuzz_target!(|data: &[u8]| {
    let Some(header) = Header::read(&data) else { return };
    let paged = Paged::new(Bytes::Memory(data.into()), 0, data.len() as u64, 1);
    assert_eq!(Header::read(&paged), Some(header));
    let (slice, paged) = (Table::new(data, header, 0x1000), Table::new(paged, header, 0x1000));
    assert!(u64::from(slice.len()) * 8 <= data.len() as u64);
    for index in (0..slice.len()).take(64).chain([slice.len()]) {
        let start = slice.start(index).ok();
        assert_eq!(start, paged.start(index).ok());
        let Some(address) = start else { continue };
        let Ok(function) = slice.function(index) else { continue };
        assert_eq!(Some(function), paged.function(index).ok());
        let same = |of: &Table<&[u8]>| {
            (
                of.name(function.name, 256).ok().flatten().map(|name| name.into_owned()),
                of.line_at(&function, address).ok(),
                of.file_at(&function, address).ok(),
                of.inline_index(&function, address).ok(),
                of.inline_tree(&function, 0x2000).ok(),
            )
        };
        let ours = same(&slice);
        assert_eq!(ours.0, paged.name(function.name, 256).ok().flatten().map(|name| name.into_owned()));
        assert_eq!(ours.1, paged.line_at(&function, address).ok());
        assert_eq!(ours.2, paged.file_at(&function, address).ok());
        assert_eq!(ours.3, paged.inline_index(&function, address).ok());
        assert_eq!(ours.4, paged.inline_tree(&function, 0x2000).ok());
        // Each run takes two bytes or more.
        assert!(slice.stack_deltas(&function).count() <= data.len());
        let _ = slice.function_at(address.wrapping_add(1));
    }
});
