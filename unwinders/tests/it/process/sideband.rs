//! The table fed by the kernel's own side band, against `/proc`. Needs root.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use profiler_bpf::sideband::{Event, Kind, Sideband};
use profiler_need::have_root;
use profiler_unwinders::executable::Executables;
use profiler_unwinders::maps::Backing;
use profiler_unwinders::process::{Clock, Process, ProcessTable, procfs};

struct Watch {
    sideband: Sideband,
    table: ProcessTable,
    events: Vec<Event>,
}

impl Watch {
    /// `None` where `test` cannot run for want of root.
    fn start(test: &str) -> Option<Self> {
        if !have_root(test) {
            return None;
        }
        let sideband = Sideband::open(&profiler_bpf::online_cpus().unwrap(), 1 << 20).unwrap();
        Some(Self { sideband, table: ProcessTable::new(), events: Vec::new() })
    }

    fn drain(&mut self) {
        let mut events = Vec::new();
        self.sideband.drain(&mut events);
        for event in &events {
            assert!(!matches!(event.kind, Kind::Lost { .. }), "the ring is large enough");
            self.table.apply(event);
        }
        self.events.extend(events);
    }

    fn until(&mut self, ready: impl Fn(&ProcessTable) -> bool) {
        let begun = Instant::now();
        while !ready(&self.table) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it did not happen");
            std::thread::sleep(Duration::from_millis(5));
            self.drain();
        }
    }
}

/// The mappings of files, without those that the kernel does not tell of.
fn files(process: &Process) -> Vec<(u64, u64, u64, Vec<u8>)> {
    let file = |m: &profiler_unwinders::maps::Mapping| Some((m.start.0, m.end.0, m.offset.0, m.file()?.1.to_vec()));
    process.mappings.iter().filter_map(file).collect()
}

#[test]
fn root_events_tell_what_proc_says() {
    let Some(mut watch) = Watch::start("root_events_tell_what_proc_says") else { return };
    let mut child = Command::new("sh").args(["-c", "true; exec sleep 60"]).stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    watch.until(|table| table.get(pid).is_some_and(|process| process.comm.as_bytes() == b"sleep"));
    std::thread::sleep(Duration::from_millis(200));
    watch.drain();
    let told = watch.table.get(pid).unwrap().clone();
    let mut read = ProcessTable::new();
    read.scan(pid, Clock::monotonic_now()).unwrap();
    let read = read.get(pid).unwrap();
    assert_eq!(files(&told), files(read));
    assert_eq!(
        told.mappings.iter().find(|m| m.backing == Backing::Vdso).map(|m| m.start),
        read.mappings.iter().find(|m| m.backing == Backing::Vdso).map(|m| m.start)
    );
    for (told, read) in told.mappings.iter().zip(read.mappings.iter()) {
        assert_eq!(told.file(), read.file(), "device and inode too");
    }
    assert_eq!(told.exe, read.exe);
    assert_eq!(told.parent, std::process::id());
    assert!(told.start_time_ns.abs_diff(read.start_time_ns) < 100_000_000);
    // A scan of what events have told changes nothing.
    let changes = watch.table.scan(pid, Clock::monotonic_now()).unwrap();
    assert!(!changes.created && !changes.new_image && !changes.name, "{changes:?}");
    let space = watch.table.get(pid).unwrap().address_space;
    assert_eq!(space, procfs::Stat::read(pid).unwrap().image());
    child.kill().unwrap();
    child.wait().unwrap();
    watch.until(|table| table.get(pid).is_some_and(|process| process.ended.is_some()));
}

#[test]
fn root_files_of_programs_that_are_gone_before_we_look() {
    let Some(mut watch) = Watch::start("root_files_of_programs_that_are_gone_before_we_look") else { return };
    let mut executables = Executables::new();
    for _ in 0..50 {
        assert!(Command::new("true").status().unwrap().success());
    }
    std::thread::sleep(Duration::from_millis(50));
    watch.drain();
    let me = std::process::id();
    let ended: Vec<Process> =
        watch.table.iter().filter(|p| p.parent == me && p.comm.as_bytes() == b"true").cloned().collect();
    assert!(ended.len() >= 50, "{} of 50", ended.len());
    for process in &ended {
        assert!(process.ended.is_some());
        let mut opened = 0;
        for mapping in process.mappings.iter().filter(|m| m.file().is_some()) {
            executables.open(process, mapping).unwrap();
            opened += 1;
        }
        assert!(opened >= 2, "{:?}", process.mappings);
    }
}

#[test]
fn root_a_thread_that_is_not_the_main_one_executes() {
    let Some(mut watch) = Watch::start("root_a_thread_that_is_not_the_main_one_executes") else { return };
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("thief.c");
    let program = directory.path().join("thief");
    std::fs::write(
        &source,
        "#include <pthread.h>\n#include <unistd.h>\n\
         static void *work(void *x) { usleep(20000); execlp(\"sleep\", \"sleep\", \"60\", (char *)0); return x; }\n\
         int main(void) { pthread_t t, u; pthread_create(&u, 0, (void *(*)(void *))sleep, (void *)60);\n\
         pthread_create(&t, 0, work, 0); pause(); }\n",
    )
    .unwrap();
    assert!(
        Command::new("cc").arg("-pthread").arg("-w").arg("-o").args([&program, &source]).status().unwrap().success()
    );
    let mut child = Command::new(&program).spawn().unwrap();
    let pid = child.id();
    watch.until(|table| table.get(pid).is_some_and(|process| process.comm.as_bytes() == b"sleep"));
    std::thread::sleep(Duration::from_millis(100));
    watch.drain();
    let process = watch.table.get(pid).unwrap();
    assert_eq!(process.ended, None);
    assert!(process.exe_text().ends_with("/sleep"), "{}", process.exe_text());
    child.kill().unwrap();
    child.wait().unwrap();
    watch.until(|table| table.get(pid).is_some_and(|process| process.ended.is_some()));
}
