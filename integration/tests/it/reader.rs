//! The process that opens and parses what belongs to targets: it is given up where a target holds it, replaced when it dies, and costs
//! nobody else anything.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::children;
use profiler_integration::environment::{have, have_root, one_at_a_time, profiler};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use profiler_integration::recording::{Recorder, folder};
use profiler_integration::rows::{Row, rows, total};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{COMPLETE, verdict};
use profiler_reader::{Options, Reader};
use profiler_unwinders::executable::{Executable, Mapper};
use profiler_unwinders::maps::Mapping;
use profiler_unwinders::process::ScanError;
use profiler_unwinders::process::procfs::Scan;
use profiler_unwinders::reading::{Opened, Reading, RowsError};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Patience with what must happen sooner or later.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long anybody may wait for a target that holds the reader: several times what is promised, for slow machines.
const HELD: Duration = Duration::from_secs(4);
/// Who has no right to anything.
const NOBODY: &str = "65534";

fn start() -> Reader {
    Reader::start(Options::of_program(profiler().to_owned(), 64 << 20)).expect("a reader")
}

fn pid_of(reader: &Reader) -> u32 {
    reader.stats().pid.expect("a reader runs")
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a pid");
    kill_process(pid, signal).expect("it is there");
}

fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(false)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}");
        sleep(Duration::from_millis(20));
    }
}

fn open(reader: &mut Reader, pid: u32, scan: &Scan) -> Opened {
    let files: Vec<&Mapping> = scan.mappings.iter().filter(|mapping| mapping.file().is_some()).collect();
    reader.open(&Mapper { pid, alive: true, exe: &scan.exe, parent: 0 }, &files)
}

/// The program of `pid`, if it can be opened.
fn program(reader: &mut Reader, pid: u32) -> Option<Arc<Executable>> {
    let scan = reader.scan(pid).ok()?;
    let exe = scan.exe.clone();
    open(reader, pid, &scan).executables.into_iter().flatten().find(|executable| *executable.path == *exe)
}

#[test]
fn a_reader_that_was_killed_is_replaced_and_the_next_one_knows_what_it_knew() {
    let mut reader = start();
    let own = std::process::id();
    let before = program(&mut reader, own).expect("our own program");
    let first = pid_of(&reader);
    for round in 1..=3 {
        signal(pid_of(&reader), Signal::KILL);
        // Nobody is to blame: it is asked for again at once.
        let again = program(&mut reader, own).expect("our own program");
        assert_eq!(again.id, before.id, "the same executable");
        assert!(Arc::ptr_eq(&again, &before));
        let stats = reader.stats();
        assert_eq!((stats.troubles.died, stats.started), (round, round + 1));
        assert_eq!((stats.troubles.refused, stats.set_aside), (0, 0));
    }
    assert!(reader.rows(&before, usize::MAX).is_ok(), "its file was opened anew");
    let files = reader.files(std::slice::from_ref(&before));
    assert_eq!(files[&before.id].metadata().expect("a file").len(), before.size, "and can be had");
    wait_until("no zombie", || reader.stats().left_behind == 0 && !exists(first));
    let last = pid_of(&reader);
    drop(reader);
    wait_until("no orphan", || !exists(last));
}

#[test]
fn a_reader_that_stands_still_is_given_up_and_its_target_alone_waits() {
    let mut reader = start();
    let (own, other) = (std::process::id(), children::start(Command::new("sleep").arg("600")).expect("it starts"));
    let mut pause = Duration::ZERO;
    for round in 1..=2u64 {
        signal(pid_of(&reader), Signal::STOP);
        let begun = Instant::now();
        assert!(matches!(reader.scan(own), Err(ScanError::SetAside { .. })));
        assert!(begun.elapsed() < HELD, "{:?}", begun.elapsed());
        let aside = Instant::now();
        assert!(matches!(reader.scan(own), Err(ScanError::SetAside { .. })), "set aside");
        reader.scan(other.pid()).expect("everybody else goes on");
        assert_eq!((reader.stats().troubles.given_up, reader.stats().set_aside), (round, 1));
        wait_until("it is tried again", || reader.scan(own).is_ok());
        assert!(aside.elapsed() > pause, "a longer pause than before");
        pause = aside.elapsed().mul_f64(1.2).min(Duration::from_millis(1200));
    }
    wait_until("no zombie", || reader.stats().left_behind == 0);
    other.signal(Signal::KILL);
}

/// A program of nobody's on a file system that lets whoever opens it sleep for ever.
struct Silent {
    server: Child,
    pid: u32,
    _folder: TempDir,
}

impl Silent {
    fn start(ms: u32) -> Self {
        let folder = folder().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("others may look");
        let files = programs::c("silent_files").build().unwrap_or_else(|error| panic!("{error}"));
        let shares = programs::c("shares").build().unwrap_or_else(|error| panic!("{error}"));
        let mut server = Command::new(files)
            .arg(folder.path())
            .args([shares.as_os_str(), NOBODY.as_ref(), ms.to_string().as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says something");
        let pid = line.trim().strip_prefix("silent ").and_then(|pid| pid.parse().ok());
        Self { pid: pid.unwrap_or_else(|| panic!("it says {line:?}")), server, _folder: folder }
    }
}

impl Drop for Silent {
    /// Its server and its program end with it.
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid.cast_signed());
        let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn have_fuse(test: &str) -> bool {
    have_root(test) && have(test, fs::exists("/dev/fuse").unwrap_or(false), "/dev/fuse")
}

#[test]
fn root_a_file_that_cannot_be_opened_holds_a_reader_for_ever_and_nobody_else() {
    let test = "root_a_file_that_cannot_be_opened_holds_a_reader_for_ever_and_nobody_else";
    if !have_fuse(test) {
        return;
    }
    // Alone: it holds whatever else opens files of all processes.
    let _one = one_at_a_time();
    let mut reader = start();
    let silent = Silent::start(60_000);
    let first = pid_of(&reader);
    let scan = reader.scan(silent.pid).expect("its mappings can be read");
    let begun = Instant::now();
    let opened = open(&mut reader, silent.pid, &scan);
    println!("{test}: {:?}", begun.elapsed());
    assert!(begun.elapsed() < HELD, "{:?}", begun.elapsed());
    assert!(opened.executables.iter().all(Result::is_err) && opened.again_at.is_some());
    assert_eq!(reader.stats().troubles.given_up, 1);
    assert!(exists(first), "the kernel holds it");
    let begun = Instant::now();
    assert!(matches!(reader.scan(silent.pid), Err(ScanError::SetAside { .. })));
    assert!(begun.elapsed() < HELD / 4, "nobody waits for it again");
    assert!(program(&mut reader, std::process::id()).is_some(), "everybody else goes on");
    let stats = reader.stats();
    assert_eq!((stats.left_behind, stats.set_aside), (1, 1));
    drop(silent);
    wait_until("what is let go ends and is no zombie", || reader.stats().left_behind == 0 && !exists(first));
}

#[test]
fn root_recording_goes_on_beside_a_file_that_cannot_be_opened() {
    let test = "root_recording_goes_on_beside_a_file_that_cannot_be_opened";
    if !have_fuse(test) {
        return;
    }
    let _one = one_at_a_time();
    let shares = programs::c("shares").build().unwrap_or_else(|error| panic!("{error}"));
    let attempt = || {
        let silent = Silent::start(20_000);
        let good = children::start(Command::new(&shares).args(["--ms", "4000"])).expect("it starts");
        let pid = good.pid();
        sleep(Duration::from_millis(300));
        let recorder = Recorder::new(HERTZ).expect("a folder").arg("-p").arg(format!("{},{pid}", silent.pid));
        let started = recorder.start().expect("it starts");
        let output = good.wait(PATIENCE).expect("it ends").stdout;
        let recording = started.stop().unwrap_or_else(|error| panic!("{test}: {error}"));
        let truth = Truth { is_partial: true, ..Truth::find("shares", &output).expect("its truth") };
        let rows = rows(&recording.profile);
        let seen = total(rows.iter().filter(|row| row.pid == silent.pid));
        let losses = &recording.profile.losses;
        println!("{test}: {seen} samples of the silent one; losses {losses:?}");
        assert!(seen > 0, "it is sampled all the same");
        let told = |text: &str| losses.iter().any(|loss| loss.reason.starts_with(text) && loss.count > 0);
        assert!(told("reader: given up") && told("reader: target set aside"), "{losses:?}");
        let own: Vec<Row> = rows.into_iter().filter(|row| row.pid == pid).collect();
        verdict(&own, &truth, HERTZ, COMPLETE, |_| false)
    };
    let mut found = attempt();
    if found.is_of_the_moment_perhaps() {
        found = attempt();
    }
    assert!(found.problems.is_empty(), "{test}: {}\n{}", found.summary(), found.problems.join("\n"));
}

/// A program without sections, and with a segment of 600 MiB, of which nothing is on the disk.
fn with_sparse_segment(program: &std::path::Path, to: &std::path::Path) {
    const GNU_STACK: u32 = 0x6474_e551;
    let mut bytes = fs::read(program).expect("it is read");
    let number = |bytes: &[u8], at: usize, width: usize| {
        bytes[at..at + width].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (headers, count) = (number(&bytes, 32, 8) as usize, number(&bytes, 56, 2) as usize);
    let header = (0..count).map(|index| headers + index * 56);
    let stack = header.into_iter().find(|at| number(&bytes, *at, 4) == u64::from(GNU_STACK)).expect("a stack header");
    bytes[stack..stack + 4].copy_from_slice(&1u32.to_le_bytes());
    bytes[stack + 4..stack + 8].copy_from_slice(&4u32.to_le_bytes());
    let fields = [0x1_0000, 0x1000_0000, 0x1000_0000, 600 << 20, 600 << 20, 0x1000u64];
    for (index, field) in fields.into_iter().enumerate() {
        bytes[stack + 8 + index * 8..][..8].copy_from_slice(&field.to_le_bytes());
    }
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    fs::write(to, &bytes).expect("it is written");
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("it may run");
    let file = fs::File::options().write(true).open(to).expect("it is opened");
    file.set_len(700 << 20).expect("it grows");
}

#[test]
fn a_file_that_takes_too_much_memory_costs_the_reader_and_its_own_rows() {
    let mut reader = start();
    let folder = folder().expect("a folder");
    let shares = programs::c("shares").build().unwrap_or_else(|error| panic!("{error}"));
    let made = folder.path().join("made");
    with_sparse_segment(&shares, &folder.path().join("large"));
    // By another process: who forks while a file is open for writing keeps it from being executed.
    let large = folder.path().join("large");
    children::run_well(Command::new("cp").arg("--sparse=always").args([&large, &made]), PATIENCE)
        .expect("it is copied");
    let running = children::start(Command::new(&made).args(["--ms", "60000"])).expect("it starts");
    let path = made.to_string_lossy().into_owned();
    wait_until("it runs", || reader.scan(running.pid()).is_ok_and(|scan| scan.exe == path.as_bytes()));
    let large = program(&mut reader, running.pid()).expect("it can be opened");
    let first = pid_of(&reader);
    assert!(matches!(reader.rows(&large, usize::MAX), Err(RowsError::NotNow(_))));
    // The first time it might have been somebody else.
    assert_eq!((reader.stats().troubles.died, reader.stats().set_aside), (2, 1));
    assert!(matches!(reader.rows(&large, usize::MAX), Err(RowsError::NotNow(_))), "set aside");
    let own = program(&mut reader, std::process::id()).expect("our own program");
    assert!(reader.rows(&own, usize::MAX).is_ok(), "everybody else goes on");
    assert_ne!(pid_of(&reader), first);
    running.signal(Signal::KILL);
}

#[test]
fn root_a_profiler_that_was_killed_leaves_no_reader_behind() {
    let test = "root_a_profiler_that_was_killed_leaves_no_reader_behind";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let started = Recorder::new(HERTZ).expect("a folder").arg("-a").start().expect("it starts");
    let pid = started.running.pid();
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let readers = || -> Vec<u32> { children().split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect() };
    let is_one = |pid: &u32| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"profiler-reader\n");
    wait_until("it has a reader", || readers().iter().any(is_one));
    let reader = readers()[0];
    // It could not end by itself.
    signal(reader, Signal::STOP);
    started.running.signal(Signal::KILL);
    wait_until("no orphan", || !exists(reader));
}
