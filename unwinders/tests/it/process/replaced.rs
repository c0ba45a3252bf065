//! Anonymous memory in the place of a file's code is that file's only if it holds the same.

use std::sync::Arc;

use profiler_address::{FileOffset, UserAddr};
use profiler_bpf::Tables;
use profiler_unwinders::executable::{Executables, OpenError};
use profiler_unwinders::maps::{Backing, Mapping};
use profiler_unwinders::process::{Clock, ProcessTable};
use profiler_unwinders::publish::{Located, Publisher};

#[test]
fn memory_that_holds_a_files_code_is_that_files_and_other_memory_is_not() {
    let pid = std::process::id();
    let mut processes = ProcessTable::new();
    processes.scan(pid, Clock::monotonic_now()).unwrap();
    let mut process = processes.get(pid).unwrap().clone();
    let text = process.mappings.find(UserAddr(process.address_space.unwrap().start_code)).unwrap().clone();
    assert!(text.file().is_some());
    let mut executables = Executables::new();
    let own = executables.open(&process, &text).unwrap();

    // As after a move: the memory is the same, and maps knows no file.
    let moved = Mapping { backing: Backing::Replaced(Arc::new(text.clone())), offset: FileOffset(0), ..text.clone() };
    assert_eq!(executables.open(&process, &moved).unwrap().id, own.id);

    // A part of it, seen beside another part.
    let part = Mapping { start: text.start.plus(0x1000), ..moved.clone() };
    assert_eq!(executables.open(&process, &part).unwrap().id, own.id);

    // What lies elsewhere, or holds something else: here the same bytes, one off.
    let off = Mapping { start: text.start.plus(1), end: text.end.plus(1), ..text.clone() };
    for file in [off, Mapping { offset: text.offset.plus(0x40), ..text.clone() }] {
        let other = Mapping { backing: Backing::Replaced(Arc::new(file)), ..moved.clone() };
        assert!(matches!(executables.open(&process, &other), Err(OpenError::NoFile { .. })), "{other:?}");
    }

    // Published, its addresses are the file's.
    let tables = Tables::in_memory().unwrap();
    let mut publisher = Publisher::of(tables, 16 << 20).unwrap();
    let mut mappings = (*process.mappings).clone();
    mappings.insert(moved);
    process.mappings = Arc::new(mappings);
    process.mappings_version += 1;
    publisher.publish(&process, &mut executables, 1);
    let address = text.start.plus(0x100);
    match publisher.locate(pid, address, 1) {
        Located::Executable(executable, vaddr) => {
            assert_eq!((executable.id, Some(vaddr)), (own.id, own.vaddr_of(text.offset.plus(0x100))));
        }
        other => panic!("{other:?}"),
    }
}
