//! The table of processes under made-up events: what no real process does on demand.

use profiler_address::{FileOffset, UserAddr};
use profiler_bpf::sideband::{Event, Kind, Mmap};
use profiler_unwinders::process::{AddressSpace, Changes, Clock, Process, ProcessTable};

/// A pid that no process has, so that reading `/proc` for it fails.
const PID: u32 = 4_194_000;
const OTHER: u32 = 4_194_001;
const SECOND: u64 = 1_000_000_000;

fn table() -> ProcessTable {
    ProcessTable::with_bounds(Clock::with_offsets(100, 1_000_000), 1000, 5 * SECOND)
}

fn event(time: u64, pid: u32, tid: u32, kind: Kind) -> Event {
    Event { time, pid, tid, kind }
}

fn fork(time: u64, pid: u32, parent_pid: u32) -> Event {
    event(time, pid, pid, Kind::Fork { parent_pid })
}

fn thread(time: u64, pid: u32, tid: u32) -> Event {
    event(time, pid, tid, Kind::Fork { parent_pid: pid })
}

fn exec(time: u64, pid: u32, comm: &str) -> Event {
    event(time, pid, pid, Kind::Exec { comm: comm.into() })
}

fn exit(time: u64, pid: u32, tid: u32) -> Event {
    event(time, pid, tid, Kind::Exit)
}

fn comm(time: u64, pid: u32, tid: u32, name: &str) -> Event {
    event(time, pid, tid, Kind::Comm { comm: name.into() })
}

fn map(time: u64, pid: u32, start: u64, path: &str) -> Event {
    let mmap = Mmap {
        start: UserAddr(start),
        len: 0x1000,
        offset: FileOffset(0),
        dev: (8, 1),
        inode: if path.starts_with("//") { 0 } else { path.len() as u64 },
        inode_generation: 0,
        path: path.into(),
    };
    event(time, pid, pid, Kind::Mmap(mmap))
}

fn all(table: &mut ProcessTable, events: &[Event]) -> Vec<Changes> {
    events.iter().map(|event| table.apply(event)).collect()
}

fn paths(process: &Process) -> Vec<String> {
    process.mappings.iter().filter_map(|m| Some(String::from_utf8_lossy(m.file()?.1).into_owned())).collect()
}

#[test]
fn a_program_starts_maps_its_files_and_ends() {
    let mut table = table();
    let changes = all(
        &mut table,
        &[
            fork(10, PID, OTHER),
            exec(20, PID, "cat"),
            map(21, PID, 0x1000, "/bin/cat"),
            map(22, PID, 0x9000, "/lib/ld.so"),
            map(23, PID, 0xb000, "//anon"),
        ],
    );
    assert!(changes[0].created && changes[0].wants_scan, "its parent is unknown, and so are its mappings");
    assert!(changes[1].new_image && changes[1].mappings && changes[1].name);
    let process = table.get(PID).unwrap();
    assert_eq!(process.comm.as_bytes(), b"cat");
    assert_eq!(process.exe_text(), "/bin/cat");
    assert_eq!(paths(process), ["/bin/cat", "/lib/ld.so"]);
    assert_eq!((process.mappings.len(), process.mappings_version), (3, 3));
    assert_eq!((process.start_time_ns, process.start_unix_ns, process.parent), (110, 1_000_010, OTHER));
    assert_eq!(process.address_space, None);
    table.set_address_space(PID, AddressSpace { start_code: 0x1000, start_stack: 0x7ffc_0000_0000 });
    assert_eq!(table.get(PID).unwrap().address_space.unwrap().start_code, 0x1000);
    let serial = table.get(PID).unwrap().serial;

    assert!(table.apply(&exit(30, PID, PID)).ended);
    assert_eq!(table.get(PID).unwrap().ended, Some(30));
    assert_eq!(table.get_at(PID, 29).unwrap().serial, serial, "late samples still resolve");
    assert!(table.retire(30 + 5 * SECOND - 1).iter().all(|retired| retired.serial != serial));
    assert!(table.retire(30 + 5 * SECOND).iter().any(|retired| retired.serial == serial));
    assert!(table.get(PID).is_none());
    assert_eq!(table.images(), table.len());
}

#[test]
fn a_forked_child_shares_its_parents_mappings_until_either_changes_them() {
    let mut table = table();
    all(&mut table, &[fork(1, PID, 7), exec(2, PID, "sh"), map(3, PID, 0x1000, "/bin/sh")]);
    let space = AddressSpace { start_code: 1, start_stack: 0x7ffc_0000_0000 };
    table.set_address_space(PID, space);
    table.apply(&fork(4, OTHER, PID));
    assert_eq!(table.get(OTHER).unwrap().address_space, Some(space), "the child runs in a copy of the image");
    assert_eq!(table.get(OTHER).unwrap().comm, table.get(PID).unwrap().comm);
    assert_eq!(table.get(OTHER).unwrap().exe, table.get(PID).unwrap().exe);
    assert_ne!(table.get(OTHER).unwrap().serial, table.get(PID).unwrap().serial);
    table.apply(&map(5, OTHER, 0x5000, "/lib/child.so"));
    table.apply(&map(6, PID, 0x6000, "/lib/parent.so"));
    assert_eq!(paths(table.get(OTHER).unwrap()), ["/bin/sh", "/lib/child.so"]);
    assert_eq!(paths(table.get(PID).unwrap()), ["/bin/sh", "/lib/parent.so"]);
}

#[test]
fn samples_find_the_image_of_their_time_through_a_chain_of_execs() {
    let mut table = table();
    all(
        &mut table,
        &[
            fork(10, PID, 7),
            exec(20, PID, "sh"),
            map(21, PID, 0x1000, "/bin/sh"),
            exec(30, PID, "env"),
            map(31, PID, 0x1000, "/bin/env"),
            exec(40, PID, "python3"),
            map(41, PID, 0x1000, "/bin/python3"),
        ],
    );
    let exe_at = |time| table.get_at(PID, time).map(|process| process.exe_text().into_owned());
    assert_eq!(exe_at(5), None, "before it was");
    assert_eq!(exe_at(15).as_deref(), Some(""));
    assert_eq!(exe_at(25).as_deref(), Some("/bin/sh"));
    assert_eq!(exe_at(35).as_deref(), Some("/bin/env"));
    assert_eq!(exe_at(45).as_deref(), Some("/bin/python3"));
    let mut serials: Vec<u32> = [15, 25, 35, 45].iter().map(|&t| table.get_at(PID, t).unwrap().serial).collect();
    serials.dedup();
    assert_eq!(serials.len(), 4);
    assert_eq!(table.get(PID).unwrap().start_time_ns, 110, "it is one process");
    assert_eq!(table.retire(40 + 5 * SECOND).len(), 3);
    assert_eq!((table.len(), table.images()), (1, 1));
}

#[test]
fn a_pid_used_again_is_another_process() {
    let mut table = table();
    all(&mut table, &[fork(10, PID, 7), exec(11, PID, "old"), map(12, PID, 0x1000, "/bin/old"), exit(20, PID, PID)]);
    let old = table.get(PID).unwrap().serial;
    let changes = all(&mut table, &[fork(30, PID, 7), exec(31, PID, "new"), map(32, PID, 0x1000, "/bin/new")]);
    assert!(changes[0].created);
    assert_eq!(table.get_at(PID, 15).unwrap().serial, old);
    assert_eq!(table.get_at(PID, 15).unwrap().exe_text(), "/bin/old");
    assert_eq!(table.get_at(PID, 40).unwrap().exe_text(), "/bin/new");
    assert!(table.get_at(PID, 25).is_none(), "between the two nobody had the pid");
    let retired = table.retire(31 + 5 * SECOND);
    assert!(retired.iter().any(|r| r.serial == old));
    assert_eq!(table.get(PID).unwrap().exe_text(), "/bin/new", "the old one's end does not end the new one");
}

#[test]
fn a_pid_used_again_without_its_exit_ever_told() {
    let mut table = table();
    all(&mut table, &[fork(10, PID, 7), exec(11, PID, "old")]);
    table.apply(&fork(SECOND, PID, 7));
    let process = table.get(PID).unwrap();
    assert_eq!((process.image_start, process.ended), (SECOND, None));
    assert_eq!(table.get_at(PID, 100).unwrap().ended, Some(SECOND));
}

#[test]
fn a_process_ends_with_its_last_thread() {
    let mut table = table();
    all(&mut table, &[fork(1, PID, 7), thread(2, PID, PID + 10), thread(3, PID, PID + 11)]);
    assert!(!table.apply(&exit(4, PID, PID)).ended, "the main thread may end first");
    assert!(!table.apply(&exit(5, PID, PID + 10)).ended);
    assert!(table.apply(&exit(6, PID, PID + 11)).ended);
    assert_eq!(table.get(PID).unwrap().ended, Some(6));
}

#[test]
fn another_thread_than_the_main_one_executes() {
    // The kernel ends all threads, gives the executing one the process's id, and only then tells of the exec.
    let mut table = table();
    all(
        &mut table,
        &[
            fork(1, PID, 7),
            thread(2, PID, PID + 10),
            comm(3, PID, PID + 10, "worker"),
            exit(4, PID, PID),
            exec(5, PID, "next"),
            map(6, PID, 0x1000, "/bin/next"),
        ],
    );
    let process = table.get(PID).unwrap();
    assert_eq!((process.ended, process.comm.as_bytes()), (None, &b"next"[..]));
    assert!(table.apply(&exit(9, PID, PID)).ended);
}

#[test]
fn an_exec_after_the_main_threads_exit_revives_a_process_of_unknown_threads() {
    let mut table = table();
    all(&mut table, &[map(1, PID, 0x1000, "/bin/a")]);
    assert!(table.apply(&exit(2, PID, PID)).ended, "nobody told of other threads");
    table.apply(&exec(3, PID, "b"));
    assert_eq!(table.get(PID).unwrap().ended, None);
    table.retire(60 * SECOND);
    assert_eq!(table.get(PID).unwrap().comm.as_bytes(), b"b", "its premature grave is not its end");
    assert!(table.apply(&exit(61 * SECOND, PID, PID)).ended);
    table.retire(70 * SECOND);
    assert!(table.get(PID).is_none());
}

#[test]
fn a_process_has_the_name_of_its_main_thread() {
    let mut table = table();
    all(
        &mut table,
        &[fork(1, PID, 7), exec(2, PID, "main"), thread(3, PID, PID + 1), comm(4, PID, PID + 1, "worker-1")],
    );
    assert_eq!(table.get(PID).unwrap().comm.as_bytes(), b"main");
    let changes = table.apply(&comm(6 * SECOND, PID, PID, "a name that is too long"));
    assert!(changes.name);
    assert_eq!(table.get(PID).unwrap().comm.as_bytes(), b"a name that is ");
}

#[test]
fn an_event_of_an_unknown_process_makes_it_and_asks_for_a_scan() {
    let mut table = table();
    let changes = table.apply(&map(5, PID, 0x1000, "/bin/x"));
    assert!(changes.created && changes.mappings && changes.wants_scan);
    assert_eq!(table.next_to_scan(), Some(PID));
    assert_eq!(table.next_to_scan(), None);
    assert!(table.scan(PID, 6).is_err(), "there is no such process");
    assert_eq!(table.get(PID).unwrap().ended, Some(6));
    assert_eq!(paths(table.get(PID).unwrap()), ["/bin/x"], "what was learnt stays for late samples");
}

#[test]
fn lost_events_make_everything_suspect() {
    let mut table = table();
    all(
        &mut table,
        &[fork(1, PID, 7), exec(2, PID, "a"), fork(3, OTHER, PID), exec(4, OTHER, "b"), exit(5, OTHER, OTHER)],
    );
    while table.next_to_scan().is_some() {}
    assert!(table.apply(&event(9, 0, 0, Kind::Lost { lost: 3 })).lost);
    assert!(table.get(PID).unwrap().wants_scan());
    assert_eq!((table.next_to_scan(), table.next_to_scan()), (Some(PID), None), "the ended one is left alone");
    assert!(table.apply(&fork(10, OTHER, PID)).wants_scan, "a child of a suspect is one");
}

#[test]
fn the_table_is_bounded_and_gives_up_the_ended_first() {
    let mut table = ProcessTable::with_bounds(Clock::with_offsets(0, 0), 100, 5 * SECOND);
    for i in 0..50 {
        all(&mut table, &[fork(i, i as u32 + 1000, 1), comm(i, i as u32 + 1000, i as u32 + 1000, "living")]);
    }
    for i in 50..5000u64 {
        let pid = i as u32 + 1000;
        all(&mut table, &[fork(i, pid, 1), exec(i, pid, "short"), exit(i, pid, pid)]);
        assert!(table.images() <= 100);
    }
    assert_eq!(table.iter().filter(|process| process.ended.is_none()).count(), 50);
    let gone = table.retire(5000).len();
    assert!(gone > 4000, "whoever holds copies hears of every image that went: {gone}");
    for i in 0..500 {
        table.apply(&fork(6000 + i, i as u32 + 100_000, 1));
        assert!(table.images() <= 100);
    }
    assert!(table.get(100_499).is_some(), "the newest is there");
    assert!(table.retire(u64::MAX).len() >= 400);
}

#[test]
fn fifty_thousand_mappings_in_one_process() {
    let mut table = table();
    table.apply(&fork(1, PID, 7));
    for i in 0..50_000u64 {
        let path = if i % 2 == 0 { "/lib/a" } else { "/lib/bc" };
        table.apply(&map(2 + i, PID, 0x10_0000 + i * 0x1000, path));
    }
    table.apply(&fork(60_000, OTHER, PID));
    assert_eq!(table.get(OTHER).unwrap().mappings.len(), 50_000);
    assert!(std::ptr::eq(&*table.get(OTHER).unwrap().mappings, &*table.get(PID).unwrap().mappings));
}

#[test]
fn hostile_mappings_change_nothing() {
    let mut table = table();
    table.apply(&fork(1, PID, 7));
    for (start, len) in [(u64::MAX - 10, 100), (0x1000, 0), (u64::MAX, 1)] {
        let mmap = Mmap {
            start: UserAddr(start),
            len,
            offset: FileOffset(u64::MAX),
            dev: (u32::MAX, u32::MAX),
            inode: u64::MAX,
            inode_generation: 0,
            path: b"/x".to_vec(),
        };
        assert!(!table.apply(&event(2, PID, PID, Kind::Mmap(mmap))).mappings);
    }
    assert!(table.get(PID).unwrap().mappings.is_empty());
}

#[test]
fn whoever_executes_in_a_loop_keeps_only_so_much_past() {
    let mut table = table();
    all(&mut table, &[fork(1, PID, 7), fork(2, OTHER, 7), exec(3, OTHER, "other"), exec(4, OTHER, "again")]);
    for i in 0..10_000 {
        table.apply(&exec(10 + i, PID, "loop"));
    }
    assert!(table.images() < 30, "{}", table.images());
    assert!(table.get_at(OTHER, 3).is_some(), "the past of others is left alone");
    assert!(table.retire(20_000).len() > 9_900);
    table.retire(60 * SECOND);
    assert_eq!((table.len(), table.images()), (2, 2));
}

#[test]
fn paths_and_mappings_of_all_processes_are_bounded() {
    let mut table = table();
    let long = "x".repeat(4000);
    for pid in 1..=20 {
        table.apply(&fork(1, pid, OTHER));
        for i in 0..20_000u64 {
            let path = if i < 1000 { format!("/{long}/{pid}/{i}") } else { format!("/{}", i % 2) };
            table.apply(&map(2, pid, i * 0x1000, &path));
        }
        table.retire(u64::from(pid) * 2 * SECOND);
    }
    let bytes = table.memory_bytes();
    println!("{} MiB, {} mappings refused", bytes >> 20, table.refused_mappings());
    assert!(bytes < 48 << 20, "{bytes}");
    assert!(table.refused_mappings() > 0);
    // Those who have few are not made to suffer.
    table.apply(&fork(5, 1000, OTHER));
    table.apply(&map(6, 1000, 0x1000, "/bin/honest"));
    assert_eq!(table.get(1000).unwrap().mappings.len(), 1);
}
