//! The table of processes against real ones. Root is needed for the namespaces.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use profiler_bpf::sideband::{Event, Kind};
use profiler_need::{have, have_root};
use profiler_unwinders::process::{Clock, ProcessTable, ScanError, procfs};

/// A child that is killed when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn new(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

fn scanned(pid: u32) -> ProcessTable {
    let mut table = ProcessTable::new();
    let changes = table.scan(pid, Clock::monotonic_now()).unwrap();
    assert!(changes.created && changes.new_image && changes.mappings);
    table
}

fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `pid` runs `program`, and not only the kernel's half of its exec is done.
fn wait_to_run(pid: u32, program: &str) {
    wait_for(program, || {
        let exe = procfs::exe_path(pid).filter(|exe| exe.ends_with(program.as_bytes()))?;
        procfs::Stat::read(pid).ok()?.image().map(|_| exe)
    });
}

#[test]
fn a_running_program_is_known_by_one_scan() {
    let sleep = Running::new(Command::new("sleep").arg("60"));
    wait_to_run(sleep.pid(), "sleep");
    let table = scanned(sleep.pid());
    let process = table.get(sleep.pid()).unwrap();
    assert_eq!(process.comm.as_bytes(), b"sleep");
    assert_eq!(process.parent, std::process::id());
    assert!(process.exe_text().ends_with("/sleep"));
    assert!(!process.kthread && process.ended.is_none() && !process.wants_scan());
    assert_eq!(process.namespace_pid, sleep.pid());
    assert!(process.cgroup.is_some());
    let code = process.address_space.unwrap().start_code;
    let (_, path) = process.mappings.find(profiler_address::UserAddr(code)).unwrap().file().unwrap();
    assert_eq!(path, &process.exe, "start_code is in the program");
    let age = Clock::read().unix_from_monotonic(Clock::monotonic_now()).saturating_sub(process.start_unix_ns);
    assert!(age < 30_000_000_000, "it started {age} ns ago");
}

#[test]
fn a_second_scan_of_an_unchanged_process_changes_nothing() {
    let sleep = Running::new(Command::new("sleep").arg("60"));
    wait_to_run(sleep.pid(), "sleep");
    // The loader still maps for a while.
    std::thread::sleep(Duration::from_millis(100));
    let mut table = scanned(sleep.pid());
    let (serial, version) = table.get(sleep.pid()).map(|p| (p.serial, p.mappings_version)).unwrap();
    let changes = table.scan(sleep.pid(), Clock::monotonic_now()).unwrap();
    assert!(!changes.created && !changes.new_image && !changes.mappings && !changes.name);
    assert_eq!(table.get(sleep.pid()).map(|p| (p.serial, p.mappings_version)), Some((serial, version)));
}

#[test]
fn an_exec_between_two_scans_is_a_new_image_of_the_same_process() {
    let mut shell = Running::new(Command::new("sh").args(["-c", "read line; exec sleep 60"]));
    let pid = shell.pid();
    wait_for("sh", || {
        procfs::Stat::read(pid).ok().filter(|stat| stat.comm.as_bytes() == b"sh" && stat.image().is_some())
    });
    std::thread::sleep(Duration::from_millis(50));
    let mut table = scanned(pid);
    let before = table.get(pid).unwrap().clone();
    let first_scan = Clock::monotonic_now();
    shell.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    wait_to_run(pid, "sleep");
    let executed = Clock::monotonic_now();
    std::thread::sleep(Duration::from_millis(50));
    let changes = table.scan(pid, Clock::monotonic_now()).unwrap();
    assert!(!changes.created && changes.new_image && changes.mappings);
    let after = table.get(pid).unwrap().clone();
    assert_ne!(before.serial, after.serial);
    assert_ne!(before.address_space, after.address_space);
    assert_eq!((before.start_time_ns, before.pid), (after.start_time_ns, after.pid));
    assert_eq!(after.comm.as_bytes(), b"sleep");
    // The exec's own event comes late: it only says when.
    let event = Event { time: executed, pid, tid: pid, kind: Kind::Exec { comm: b"sleep".to_vec() } };
    let changes = table.apply(&event);
    assert!(!changes.new_image && !changes.mappings);
    assert_eq!(table.get_at(pid, first_scan).unwrap().serial, before.serial);
    assert_eq!(table.get_at(pid, executed + 1).unwrap().serial, after.serial);
    assert!(!table.get(pid).unwrap().mappings.is_empty());
}

#[test]
fn after_an_exec_told_by_events_the_address_space_is_read_alone() {
    let sleep = Running::new(Command::new("sleep").arg("60"));
    let pid = sleep.pid();
    wait_to_run(pid, "sleep");
    let mut table = ProcessTable::new();
    let now = Clock::monotonic_now();
    table.apply(&Event { time: now, pid, tid: pid, kind: Kind::Exec { comm: b"sleep".to_vec() } });
    assert_eq!(table.get(pid).unwrap().address_space, None);
    let space = table.read_address_space(pid).unwrap();
    assert_eq!(table.get(pid).unwrap().address_space, Some(space));
    assert_eq!(space, procfs::Stat::read(pid).unwrap().address_space);
    table.read_container(pid).unwrap();
    assert!(table.get(pid).unwrap().cgroup.is_some());
}

#[test]
fn the_main_thread_ends_before_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let source = "#include <pthread.h>\n#include <unistd.h>\n\
        static void *work(void *x) { write(1, \"up\\n\", 3); pause(); return x; }\n\
        int main(void) { pthread_t t; pthread_create(&t, 0, work, 0); pthread_exit(0); }\n";
    let program = compile(directory.path(), "orphans", source, &["-pthread"]);
    let mut child = Running::new(&mut Command::new(&program));
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let pid = child.pid();
    wait_for("zombie leader", || procfs::Stat::read(pid).ok().filter(procfs::Stat::is_zombie));
    let table = scanned(pid);
    let process = table.get(pid).unwrap();
    assert_eq!(process.ended, None);
    assert!(!process.mappings.is_empty(), "its memory is reached through the other thread");
}

#[test]
fn a_zombie_has_ended() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    wait_for("zombie", || procfs::Stat::read(pid).ok().filter(procfs::Stat::is_zombie));
    let mut table = ProcessTable::new();
    let changes = table.scan(pid, Clock::monotonic_now()).unwrap();
    assert!(changes.ended);
    assert!(table.get(pid).unwrap().ended.is_some());
    child.wait().unwrap();
    assert!(matches!(table.scan(pid, Clock::monotonic_now()), Err(ScanError::Gone { .. })));
}

#[test]
fn root_another_pid_namespace() {
    if !have_root("root_another_pid_namespace") {
        return;
    }
    let mut child =
        Running::new(Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "--kill-child", "sleep", "60"]));
    let unshare = child.pid();
    let inner = wait_for("sleep", || {
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
        let pid: u32 = children.split_ascii_whitespace().next()?.parse().ok()?;
        procfs::exe_path(pid).filter(|exe| exe.ends_with(b"sleep")).map(|_| pid)
    });
    let table = scanned(inner);
    assert_eq!(table.get(inner).unwrap().namespace_pid, 1);
    assert_eq!(table.get(inner).unwrap().parent, unshare);
    let _ = child.0.kill();
}

#[test]
fn root_kernel_threads_are_told_apart() {
    let kthread =
        ProcessTable::existing_pids().into_iter().find(|&pid| procfs::Stat::read(pid).is_ok_and(|stat| stat.kthread));
    let test = "root_kernel_threads_are_told_apart";
    if !have(test, kthread.is_some(), "the host's pid namespace, which has the kernel's threads") {
        return;
    }
    let pid = kthread.unwrap();
    let mut table = ProcessTable::new();
    table.scan(pid, Clock::monotonic_now()).unwrap();
    let process = table.get(pid).unwrap();
    assert!(process.kthread && process.mappings.is_empty() && process.exe.is_empty());
}

#[test]
fn dying_processes_never_break_a_scan() {
    let mut table = ProcessTable::new();
    let mut gone = 0;
    for round in 0..300u32 {
        let mut child = Command::new("true").spawn().unwrap();
        // Scans fall before the exec, in the middle of it, and after the end.
        std::thread::sleep(Duration::from_micros(u64::from(round % 40) * 50));
        match table.scan(child.id(), Clock::monotonic_now()) {
            Ok(_) => {}
            Err(ScanError::Gone { .. }) => gone += 1,
            Err(error) => panic!("{error}"),
        }
        let reaper = std::thread::spawn(move || child.wait());
        let _ = table.read_address_space(table.iter().last().map_or(1, |process| process.pid));
        let pids: Vec<u32> = table.iter().map(|process| process.pid).collect();
        for pid in pids.into_iter().rev().take(3) {
            match table.scan(pid, Clock::monotonic_now()) {
                Ok(_) => {}
                Err(ScanError::Gone { .. }) => gone += 1,
                Err(error) => panic!("{error}"),
            }
        }
        reaper.join().unwrap().unwrap();
    }
    println!("{gone} scans found nobody");
    table.end_missing(Clock::monotonic_now());
    table.retire(u64::MAX);
    assert!(table.is_empty(), "{} processes live on", table.len());
}

#[test]
fn every_process_of_this_host_can_be_scanned() {
    let mut table = ProcessTable::new();
    table.queue_unknown();
    let waiting = table.waiting_for_scan();
    assert!(waiting > 0);
    let begun = Instant::now();
    let mut scans = 0;
    while let Some(pid) = table.next_to_scan() {
        match table.scan(pid, Clock::monotonic_now()) {
            Ok(_) => scans += 1,
            Err(ScanError::Gone { .. } | ScanError::Denied { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    println!("{scans} processes in {:?}: {:?} each", begun.elapsed(), begun.elapsed() / scans.max(1));
    assert!(table.get(std::process::id()).is_some());
    table.queue_unknown();
    assert!(table.waiting_for_scan() < waiting.max(20));
}

#[test]
fn a_comm_of_any_bytes() {
    // A process chooses its own name: the parser of stat must find its end.
    let mut child = Command::new("sh");
    child.arg0("sh").args(["-c", "printf ') S 1 (\\n\\377' > /proc/self/comm; printf up; read line"]);
    let mut child = Running::new(&mut child);
    let mut up = [0; 2];
    child.0.stdout.take().unwrap().read_exact(&mut up).unwrap();
    let stat = procfs::Stat::read(child.pid()).unwrap();
    assert_eq!(stat.parent, std::process::id());
}

fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> std::path::PathBuf {
    let file = directory.join(format!("{name}.c"));
    std::fs::write(&file, source).unwrap();
    let program = directory.join(name);
    let status = Command::new("cc").args(flags).arg("-o").args([&program, &file]).status().unwrap();
    assert!(status.success());
    program
}
