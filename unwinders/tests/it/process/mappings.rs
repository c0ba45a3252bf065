//! The mapping set against a map of bytes, and the maps parser against the kernel and against size.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use profiler_address::{FileOffset, UserAddr};
use profiler_unwinders::maps::{self, Backing, FileId, Keep, Mapping, MappingSet};
use proptest::prelude::*;

/// What is mapped at one address: nothing, or a file and the offset in it, or anonymous memory.
type Byte = (Backing, u64);

fn byte(mapping: &Mapping, address: u64) -> Byte {
    let offset = match mapping.backing {
        Backing::File(..) | Backing::Vdso => mapping.offset.0 + (address - mapping.start.0),
        _ => 0,
    };
    (mapping.backing.clone(), offset)
}

fn any_mapping() -> impl Strategy<Value = Mapping> {
    (0u64..200, 1u64..60, 0u64..1000, 0u64..5).prop_map(|(start, length, offset, kind)| {
        let backing = match kind {
            0 | 1 => Backing::Anonymous,
            inode => Backing::File(FileId { major: 8, minor: 1, inode }, Arc::from(format!("/lib/{inode}").as_bytes())),
        };
        let offset = FileOffset(if backing == Backing::Anonymous { 0 } else { offset });
        Mapping { start: UserAddr(start), end: UserAddr(start + length), offset, backing }
    })
}

proptest! {
    #[test]
    fn inserting_is_writing_bytes_over_bytes(mappings in prop::collection::vec(any_mapping(), 0..60)) {
        let mut set = MappingSet::default();
        let mut oracle = BTreeMap::new();
        for mapping in &mappings {
            let before = oracle.clone();
            for address in mapping.start.0..mapping.end.0 {
                oracle.insert(address, byte(mapping, address));
            }
            let changed = set.insert(mapping.clone());
            prop_assert!(changed || before == oracle, "it said that nothing changed");
            for address in 0..300 {
                let found = set.find(UserAddr(address)).map(|found| byte(found, address));
                prop_assert_eq!(found.as_ref(), oracle.get(&address), "at {}", address);
            }
            for pair in set.as_slice().windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
                let anonymous = pair.iter().all(|m| m.backing == Backing::Anonymous);
                prop_assert!(!anonymous || pair[0].end < pair[1].start, "anonymous neighbours are one mapping");
            }
            prop_assert!(set.iter().all(|m| m.start < m.end));
        }
    }

    #[test]
    fn no_line_panics_and_lines_round_trip(line in prop::collection::vec(any::<u8>(), 0..200), mapping in any_mapping()) {
        let _ = maps::parse_line(&line, Keep::All, &mut |path| Arc::from(path));
        let path = mapping.file().map(|(_, path)| String::from_utf8_lossy(path).into_owned()).unwrap_or_default();
        let id = mapping.file().map(|(id, _)| id).unwrap_or_default();
        let text = format!(
            "{:08x}-{:08x} r-xp {:08x} {:02x}:{:02x} {} {path}",
            mapping.start.0, mapping.end.0, mapping.offset.0, id.major, id.minor, id.inode
        );
        let parsed = maps::parse_line(text.as_bytes(), Keep::Executable, &mut |path| Arc::from(path));
        prop_assert_eq!(parsed, Some(Some(mapping)));
    }
}

/// The last addresses of the address space, where sums overflow.
#[test]
fn mappings_at_the_end_of_the_address_space() {
    let at = |start, end| Mapping {
        start: UserAddr(start),
        end: UserAddr(end),
        offset: FileOffset(u64::MAX),
        backing: Backing::File(FileId::default(), Arc::from(&b"/x"[..])),
    };
    let mut set = MappingSet::default();
    assert!(set.insert(at(u64::MAX - 100, u64::MAX)));
    assert!(set.insert(at(u64::MAX - 50, u64::MAX - 40)));
    assert!(!set.insert(at(5, 5)));
    assert!(!set.insert(at(5, 4)));
    assert_eq!(set.len(), 3);
    assert!(set.find(UserAddr(u64::MAX)).is_none());
    assert!(set.find(UserAddr(u64::MAX - 1)).is_some());
}

#[test]
fn the_kernels_own_listing_has_no_malformed_line() {
    let text = std::fs::read("/proc/self/maps").unwrap();
    let all = maps::parse(&text[..], Keep::All).unwrap();
    assert_eq!(all.malformed, 0);
    assert_eq!(all.mappings.len() as u64, all.lines);
    assert!(all.mappings.iter().any(|m| m.backing == Backing::Vdso));
    let set: MappingSet = all.mappings.into_iter().collect();
    let here = the_kernels_own_listing_has_no_malformed_line as *const () as u64;
    let (_, path) = set.find(UserAddr(here)).and_then(Mapping::file).expect("this test's code is mapped from a file");
    assert_eq!(&**path, std::env::current_exe().unwrap().as_os_str().as_encoded_bytes());
}

#[test]
fn a_hundred_thousand_lines_are_read_fast_and_without_much_memory() {
    let mut text = Vec::new();
    for i in 0..100_000u64 {
        let start = 0x7f00_0000_0000 + i * 0x2000;
        let permissions = if i % 2 == 0 { "r-xp" } else { "rw-p" };
        writeln!(
            text,
            "{start:x}-{:x} {permissions} {:08x} fe:01 {}                    /usr/lib/jvm/lib{}.so",
            start + 0x1000,
            i * 0x1000,
            1000 + i / 10,
            i / 10
        )
        .unwrap();
    }
    let begun = Instant::now();
    let parsed = maps::parse(&text[..], Keep::Executable).unwrap();
    let reading = begun.elapsed();
    assert_eq!((parsed.lines, parsed.malformed, parsed.mappings.len()), (100_000, 0, 50_000));
    let begun = Instant::now();
    let set: MappingSet = parsed.mappings.into_iter().collect();
    let building = begun.elapsed();
    assert_eq!(set.len(), 50_000);
    let begun = Instant::now();
    for i in 0..100_000u64 {
        assert_eq!(set.find(UserAddr(0x7f00_0000_0800 + i * 0x2000)).is_some(), i % 2 == 0);
    }
    println!("100,000 lines: read {reading:?}, set built {building:?}, 100,000 lookups {:?}", begun.elapsed());
    // Unoptimised and on a loaded machine; optimised it is about 10 ms.
    assert!(reading.as_secs() < 5);
}

#[test]
fn a_set_is_bounded_and_counts_what_it_refuses() {
    let mapping = |i: u64| Mapping {
        start: UserAddr(i * 0x2000),
        end: UserAddr(i * 0x2000 + 0x1000),
        offset: FileOffset(0),
        backing: Backing::Anonymous,
    };
    let mut set: MappingSet = (0..maps::MAX_MAPPINGS as u64 + 10).map(mapping).collect();
    assert_eq!((set.len(), set.refused()), (maps::MAX_MAPPINGS, 10));
    assert!(set.find(UserAddr(0x2000)).is_some());
    // What grows nothing is still taken.
    assert!(set.insert(Mapping { end: UserAddr(0x2000), ..mapping(0) }));
    assert_eq!(set.len(), maps::MAX_MAPPINGS - 1);
}
