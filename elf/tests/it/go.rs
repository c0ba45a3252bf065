//! Go's line table, made by hand in each layout, and damaged.

use profiler_elf::go::{Header, Table};
use profiler_elf::{Bytes, Paged};
use proptest::prelude::*;

/// A table of two functions, `main.one` at 0x1000 and `main.two` at 0x1040, in `a.go` on line 7 and from 0x1010 on line 9.
fn table(magic: u32) -> Vec<u8> {
    let (old, offsets) = (magic == 0xffff_fffb, magic == 0xffff_fff0 || magic == 0xffff_fff1);
    let word = |table: &mut Vec<u8>, value: u64| table.extend(value.to_le_bytes());
    let half = |table: &mut Vec<u8>, value: u32| table.extend(value.to_le_bytes());
    let mut bytes = Vec::new();
    half(&mut bytes, magic);
    bytes.extend([0, 0, 1, 8]);
    // 1.16 on: the parts, each at a round place.
    let (names, units, files, deltas, pairs) = if old { (0, 0, 0, 0, 16) } else { (0x80, 0xc0, 0xe0, 0x100, 0x140) };
    word(&mut bytes, 2);
    if !old {
        word(&mut bytes, 1);
        if offsets {
            word(&mut bytes, 0x1000);
        }
        for part in [names, units, files, deltas, pairs] {
            word(&mut bytes, part);
        }
    }
    let mut put = |at: u64, content: &[u8]| {
        let at = at as usize;
        bytes.resize(bytes.len().max(at + content.len()), 0);
        bytes[at..at + content.len()].copy_from_slice(content);
    };
    // What was relative to its part, of 1.2 to 1.15 is to the table.
    let (names, units, files, deltas) = if old { (0x80, 0xc0, 0xe0, 0x100) } else { (names, units, files, deltas) };
    let base = |part: u64| if old { part as u32 } else { 0 };
    put(names, b"\0main.one\0main.two\0");
    put(files, b"\0a.go\0");
    // From -1 by 8 to 7 for 16 bytes, then by 2 to 9; the file is number 1.
    put(deltas, &[0, 16, 16, 4, 0x70, 0, 4, 0x80, 1, 0]);
    let numbers: &[u32] = if old { &[2, 0xe1] } else { &[u32::MAX, 1] };
    numbers.iter().enumerate().for_each(|(i, number)| put(units + i as u64 * 4, &number.to_le_bytes()));
    let records = if old { 0x180 } else { 0x40 };
    let pair_size = if offsets { 8 } else { 16 };
    for (index, (start, name)) in [(0x1000u64, 1u32), (0x1040, 10), (0x1080, 0)].into_iter().enumerate() {
        let (at, record) = (pairs + index as u64 * pair_size, records + index as u64 * 64);
        if offsets {
            put(at, &[(start as u32 - 0x1000).to_le_bytes(), (record as u32).to_le_bytes()].concat());
        } else {
            put(at, &start.to_le_bytes());
            if index < 2 {
                put(at + 8, &record.to_le_bytes());
            } else if old {
                put(at + 8, &(units as u32).to_le_bytes());
            }
        }
        let mut fields = Vec::new();
        if offsets {
            half(&mut fields, start as u32 - 0x1000)
        } else {
            word(&mut fields, start)
        }
        // args, deferreturn, no stack deltas, files, lines, no pcdata; of later ones the unit, and the line of the start.
        for field in [base(names) + name, 0, 0, 0, base(deltas) + 6, base(deltas) + 1, 0] {
            half(&mut fields, field);
        }
        (0..u32::from(!old)).for_each(|_| half(&mut fields, 0));
        (0..u32::from(magic == 0xffff_fff1)).for_each(|_| half(&mut fields, 5));
        fields.extend([0, 4, 0, 0]);
        if index < 2 {
            put(if old { record } else { pairs + record }, &fields);
        }
    }
    bytes
}

const MAGICS: [u32; 4] = [0xffff_fffb, 0xffff_fffa, 0xffff_fff0, 0xffff_fff1];

#[test]
fn functions_files_and_lines_in_the_layout_of_each_release() {
    for magic in MAGICS {
        let bytes = table(magic);
        let bytes = bytes.as_slice();
        let table = Table::new(bytes, Header::read(&bytes).unwrap(), 0x1000);
        assert_eq!((table.len(), table.start(2).unwrap()), (2, 0x1080), "{magic:x}");
        let at = |address: u64| {
            let function = table.function_at(address).unwrap()?;
            let text =
                |text: Option<std::borrow::Cow<'_, [u8]>>| String::from_utf8(text.unwrap().into_owned()).unwrap();
            let file = table.file_at(&function, address).unwrap().map(|file| text(table.file(file, 64).unwrap()));
            let line = table.line_at(&function, address).unwrap();
            Some((text(table.name(function.name, 64).unwrap()), file.unwrap_or_default(), line.unwrap_or(0)))
        };
        let expected = |name: &str, line| Some((name.to_owned(), "a.go".to_owned(), line));
        assert_eq!(at(0x1000), expected("main.one", 7), "{magic:x}");
        assert_eq!(at(0x103f), expected("main.one", 9), "{magic:x}");
        assert_eq!(at(0x1040), expected("main.two", 7), "{magic:x}");
        assert_eq!((at(0xfff), at(0x1080)), (None, None), "{magic:x}");
        let function = table.function(0).unwrap();
        assert_eq!(function.start_line, if magic == 0xffff_fff1 { 5 } else { 0 });
        assert_eq!(function.is_assembly(), magic != 0xffff_fffb, "{magic:x}");
    }
}

#[test]
fn what_is_claimed_and_not_there_counts_for_nothing() {
    for magic in MAGICS {
        let mut bytes = table(magic);
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        let header = Header::read(&bytes.as_slice()).unwrap();
        assert!(u64::from(Table::new(bytes.as_slice(), header, 0).len()) * 8 < bytes.len() as u64);
        for len in 0..bytes.len() {
            let cut = &bytes[..len];
            let Some(header) = Header::read(&cut) else { continue };
            let table = Table::new(cut, header, 0x1000);
            let _ = table.function_at(0x1010).map(|function| function.map(|f| table.line_at(&f, 0x1010)));
        }
    }
    // Of 32-bit code, and of something else.
    let mut bytes = table(MAGICS[3]);
    bytes[7] = 4;
    assert!(Header::read(&bytes.as_slice()).is_none() && Header::read(&&b"no table at all"[..]).is_none());
}

proptest! {
    /// However a table is damaged, a slice and a part of a file say the same, and walks end.
    #[test]
    fn slices_and_files_read_alike(layout in 0usize..4, damage in prop::collection::vec((0usize..0x240, any::<u8>()), 0..12)) {
        let mut bytes = table(MAGICS[layout]);
        for (at, byte) in damage {
            if let Some(place) = bytes.get_mut(at) { *place = byte }
        }
        let slice = bytes.as_slice();
        let paged = Paged::new(Bytes::Memory(slice.into()), 0, slice.len() as u64, 1);
        let header = Header::read(&slice);
        prop_assert_eq!(Header::read(&paged), header);
        if let Some(header) = header {
            let (slice, paged) = (Table::new(slice, header, 0x1000), Table::new(paged, header, 0x1000));
            for address in [0x1000, 0x1010, 0x1041, 0x2000] {
                let function = slice.function_at(address).ok();
                prop_assert_eq!(function, paged.function_at(address).ok());
                if let Some(Some(function)) = function {
                    prop_assert_eq!(slice.line_at(&function, address).ok(), paged.line_at(&function, address).ok());
                    prop_assert_eq!(slice.file_at(&function, address).ok(), paged.file_at(&function, address).ok());
                    prop_assert!(slice.stack_deltas(&function).count() <= bytes.len());
                }
            }
        }
    }
}
