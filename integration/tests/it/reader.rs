//! The process that opens and parses what belongs to targets: it is given up where a target holds it, replaced when it dies, and costs
//! nobody else anything.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_address::ElfVaddr;
use profiler_integration::agent::{Agent, Configuration, Metrics};
use profiler_integration::children;
use profiler_integration::environment::{have, have_root, one_at_a_time, profiler};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use profiler_integration::recording::{Recorder, folder};
use profiler_integration::rows::{Row, is_function, rows, total};
use profiler_integration::seen::{as_rows, plain, seen};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{COMPLETE, verdict};
use profiler_reader::{Namer, Object, Options, Reader};
use profiler_symbolizer::Symbolized;
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
    let files = reader.lend(std::slice::from_ref(&before));
    let lent = &files[&before.id];
    let file = fs::metadata(format!("/proc/{}/fd/{}", lent.pid, lent.descriptor)).expect("a file");
    assert_eq!((lent.pid, file.len()), (pid_of(&reader), before.size), "and can be had");
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
        Self::run("shares", ms, &[])
    }

    /// A program that makes code, and whose perf map is such a file.
    fn with_perf_map(ms: u32) -> Self {
        Self::run("jit", ms, &["map"])
    }

    /// A process that is busy while the lock of its own address space is held, for ever.
    fn in_its_space(ms: u32) -> Self {
        Self::run("shares", ms, &["space"])
    }

    fn run(program: &str, ms: u32, more: &[&str]) -> Self {
        let folder = folder().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("others may look");
        let files = programs::c("silent_files").build().unwrap_or_else(|error| panic!("{error}"));
        let program = programs::c(program).build().unwrap_or_else(|error| panic!("{error}"));
        let mut server = Command::new(files)
            .arg(folder.path())
            .args([program.as_os_str(), NOBODY.as_ref(), ms.to_string().as_ref()])
            .args(more)
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
        let _ = fs::remove_file(format!("/tmp/perf-{}.map", self.pid));
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
    goes_on_beside(test, || Silent::start(20_000), &["reader: given up", "reader: target set aside"]);
}

/// Reading `/proc/PID/environ` takes a lock that anybody can have held for ever: in his own process, by a debugger of his own.
#[test]
fn root_recording_goes_on_beside_a_process_that_holds_its_address_space() {
    let test = "root_recording_goes_on_beside_a_process_that_holds_its_address_space";
    if !have_fuse(test) {
        return;
    }
    let _one = one_at_a_time();
    goes_on_beside(test, || Silent::in_its_space(20_000), &["reader: given up"]);
}

/// Records who is `silent` and an honest program: both are sampled, the honest one as well as ever, and `told` is why the other is not whole.
fn goes_on_beside(test: &str, silent: impl Fn() -> Silent, told: &[&str]) {
    let shares = programs::c("shares").build().unwrap_or_else(|error| panic!("{error}"));
    let attempt = || {
        let silent = silent();
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
        let is_told = |text: &&str| losses.iter().any(|loss| loss.reason.starts_with(text) && loss.count > 0);
        assert!(told.iter().all(is_told), "{losses:?}");
        let own: Vec<Row> = rows.into_iter().filter(|row| row.pid == pid).collect();
        verdict(&own, &truth, HERTZ, COMPLETE, |_| false)
    };
    let mut found = attempt();
    if found.is_of_the_moment_perhaps() {
        found = attempt();
    }
    assert!(found.problems.is_empty(), "{test}: {}\n{}", found.summary(), found.problems.join("\n"));
}

/// What `reader` holds open of `executables`.
fn open_of(reader: &Reader, executables: &[Arc<Executable>]) -> usize {
    let folder = format!("/proc/{}/fd", pid_of(reader));
    let files = fs::read_dir(folder).expect("it runs").flatten().filter_map(|entry| fs::metadata(entry.path()).ok());
    let open: Vec<(u64, u64)> = files.map(|file| (file.dev(), file.ino())).collect();
    let key = |executable: &Arc<Executable>| {
        let file = fs::metadata(executable.path_text().as_ref()).expect("a file");
        (file.dev(), file.ino())
    };
    executables.iter().map(key).filter(|key| open.contains(key)).count()
}

#[test]
fn files_that_were_lent_are_closed_after_a_time_and_no_more_than_some_are_open() {
    let lending =
        |most, time| Options { lending: (most, time), ..Options::of_program(profiler().to_owned(), 64 << 20) };
    // Whoever names frames has files for as long as windows may wait; the registry has long closed them.
    for (most, time, kept) in
        [(64, Duration::from_secs(3600), None), (2, Duration::from_secs(3600), Some(2)), (64, Duration::ZERO, Some(0))]
    {
        let mut reader = Reader::start(lending(most, time)).expect("a reader");
        let scan = Scan::read(std::process::id()).expect("our own mappings");
        let mut found: Vec<_> =
            open(&mut reader, std::process::id(), &scan).executables.into_iter().flatten().collect();
        found.sort_unstable_by_key(|executable| executable.id);
        found.dedup_by_key(|executable| executable.id);
        assert!(found.len() > 2, "libraries");
        assert_eq!(reader.lend(&found).len(), found.len());
        reader.close_orphans(&|_| false, &|_| false);
        assert_eq!(open_of(&reader, &found), kept.unwrap_or(found.len()), "of {} for {time:?}", found.len());
        assert_eq!(reader.stats().troubles.given_up + reader.stats().troubles.died, 0);
    }
}

/// Where `function` is in `executable`, which is the calling program.
fn address_of(executable: &Executable, function: usize) -> ElfVaddr {
    let scan = Scan::read(std::process::id()).expect("our own mappings");
    let function = function as u64;
    let mapping = scan.mappings.iter().find(|mapping| (mapping.start.0..mapping.end.0).contains(&function));
    let mapping = mapping.expect("a mapping");
    let offset = function - mapping.start.0 + mapping.offset.0;
    let mut segments = executable.segments.iter();
    let segment = segments.find(|one| (one.offset.0..one.offset.0 + one.file_size).contains(&offset));
    let segment = segment.expect("a segment");
    ElfVaddr(offset - segment.offset.0 + segment.vaddr.0)
}

#[test]
fn a_namer_names_what_a_reader_lends_and_others_take_over_from_both() {
    let mut reader = start();
    let own = program(&mut reader, std::process::id()).expect("our own program");
    let address = address_of(&own, address_of as *const () as usize + 1);
    let lent = reader.lend(std::slice::from_ref(&own)).remove(&own.id);
    let options = Options::of_program(profiler().to_owned(), 512 << 20).for_names();
    let mut namer = Namer::new(options, profiler_symbolizer::Options::default()).with_lenders(reader.clone());
    let seen = namer.seen();
    let is_named = |namer: &mut Namer, program_of| {
        let object = Object { executable: &own, lent: lent.as_ref(), program_of };
        let found = namer.native(&object, &[address], false);
        let name = |one: &Symbolized| one.frames.first().is_some_and(|frame| frame.name.contains("address_of"));
        assert_eq!(found.len(), 1);
        found[0].as_ref().is_some_and(name)
    };
    assert!(is_named(&mut namer, None));
    let pid = || seen.stats().pid.expect("a namer runs");
    // Who had the file open is gone, and so is what was read of it.
    let first = pid();
    signal(pid_of(&reader), Signal::KILL);
    signal(first, Signal::KILL);
    assert!(is_named(&mut namer, None), "another namer, by another reader's file");
    assert_eq!((seen.stats().troubles.died, seen.stats().set_aside), (1, 0));
    assert_ne!(pid(), first);
    // Whatever a process has in its root directory is its own doing: of the program that it shares with others the names stay.
    signal(pid(), Signal::STOP);
    let (begun, ended) = (Instant::now(), seen.stats().ended);
    assert!(is_named(&mut namer, Some(std::process::id())));
    assert!(begun.elapsed() >= Duration::from_secs(1), "nobody but a window waits: {:?}", begun.elapsed());
    assert_eq!(seen.stats().troubles.given_up, 1);
    // By this it is known that the publisher gets on, however much is given up.
    assert_eq!(
        seen.stats().ended,
        ended + 3,
        "one was given up; the others were answered, the first that who lent the file is gone"
    );
    signal(pid(), Signal::STOP);
    assert!(!is_named(&mut namer, None), "the file itself is set aside");
    // The pause of the process may be over by now.
    assert_eq!(seen.stats().troubles.given_up, 2);
    assert!(seen.stats().set_aside >= 1);
    wait_until("it is tried again", || is_named(&mut namer, None));
    // Who has nothing else to do waits for longer, also for the namer that runs already.
    namer.be_patient();
    signal(pid(), Signal::STOP);
    let begun = Instant::now();
    assert!(!is_named(&mut namer, None));
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    wait_until("no zombie", || !exists(first));
}

/// Where the functions of [`program_of_long_names`] are.
const LONG_NAMES: u64 = 0x1000_0000;

/// A program of `count` functions of 64 bytes with names of `length` bytes; it sleeps.
fn program_of_long_names(folder: &Path, count: usize, length: usize) -> PathBuf {
    let function = |number: usize| {
        let name = format!("f{number:0>width$}", width = length - 1);
        format!("{name}:\n.skip 64\n.type {name}, \"function\"\n.size {name}, 64\n")
    };
    let functions: String = (0..count).map(function).collect();
    let (source, program) = (folder.join("long.s"), folder.join("long"));
    let text = format!(".section .long,\"ax\"\n{functions}.section .note.GNU-stack,\"\"\n");
    fs::write(&source, text).expect("its source");
    let main = folder.join("main.c");
    fs::write(&main, "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n").expect("its source");
    let place = format!("-Wl,--section-start=.long={LONG_NAMES:#x}");
    let mut gcc = Command::new("gcc");
    children::run_well(gcc.args(["-no-pie", &place, "-o"]).args([&program, &main, &source]), PATIENCE)
        .expect("it is built");
    program
}

#[test]
fn names_that_do_not_fit_into_an_answer_are_asked_for_in_several() {
    // More than an answer holds, and less than a file may have.
    const COUNT: usize = 200;
    const LENGTH: usize = 60_000;
    let folder = folder().expect("a folder");
    let child =
        children::start(&mut Command::new(program_of_long_names(folder.path(), COUNT, LENGTH))).expect("it starts");
    let mut reader = start();
    wait_until("its file is mapped", || program(&mut reader, child.pid()).is_some());
    let executable = program(&mut reader, child.pid()).expect("its program");
    let lent = reader.lend(std::slice::from_ref(&executable)).remove(&executable.id);
    let options = Options::of_program(profiler().to_owned(), 512 << 20).for_names();
    let mut namer = Namer::new(options, profiler_symbolizer::Options::default());
    let addresses: Vec<ElfVaddr> = (0..COUNT).map(|number| ElfVaddr(LONG_NAMES + 64 * number as u64 + 1)).collect();
    let object = Object { executable: &executable, lent: lent.as_ref(), program_of: None };
    let found = namer.native(&object, &addresses, false);
    assert_eq!(found.len(), COUNT);
    for (number, one) in found.iter().enumerate() {
        let name = one.as_ref().and_then(|one| one.frames.first()).map(|frame| &*frame.name).unwrap_or_default();
        assert_eq!(name.len(), LENGTH, "function {number}");
        assert!(name.ends_with(&number.to_string()), "function {number}");
    }
    assert_eq!(namer.stats().names_left_out, 0);
    assert!(namer.seen().stats().ended > 2, "in several answers");
}

#[test]
fn root_a_perf_map_that_cannot_be_opened_costs_its_own_names_and_delays_no_window() {
    let test = "root_a_perf_map_that_cannot_be_opened_costs_its_own_names_and_delays_no_window";
    if !have_fuse(test) {
        return;
    }
    let _one = one_at_a_time();
    let shares = programs::c("shares").build().unwrap_or_else(|error| panic!("{error}"));
    let mut agent = Agent::start(&Configuration::new(99, &["jit", "shares"], String::new())).expect("an agent");
    let silent = Silent::with_perf_map(120_000);
    let given_up = "namer given up at a target that let it wait or work without end";
    let trouble = |now: &Metrics| now.sum("profiler_names_trouble_total", &[("reason", given_up)]);
    agent.wait("a namer given up", PATIENCE, |now| trouble(now) >= 1.0).expect("it is");
    // Whoever comes now is delivered and named all the same, window after window.
    let good = children::start(Command::new(&shares).args(["--ms", "60000"])).expect("it starts");
    let mut published = agent.metrics().expect("metrics").published();
    for _ in 0..3 {
        published = agent.wait("windows", PATIENCE, |now| now.published() > published + 90).expect("them").published();
    }
    let (status, page) = agent.get("/healthz").expect("an answer");
    assert_eq!(status, 200, "{page}");
    // The one before may have been given up this moment, and the next begins when it is asked.
    wait_until("a namer at /status", || agent.get("/status").is_ok_and(|(_, page)| page.contains("namer, pid")));
    let aside = agent.metrics().expect("metrics").sum("profiler_reader_set_aside", &[]);
    assert!(aside >= 1.0 || trouble(&agent.metrics().expect("metrics")) >= 2.0, "set aside, or tried again: {aside}");
    let (home, status, log) = agent.stop().expect("it ends");
    assert!(status.success(), "{log}");
    let sampled = seen(&home.record().expect("a record"));
    let of = |pid: u32| -> Vec<Row> {
        let pid = pid.to_string();
        let own: Vec<_> = sampled.iter().filter(|one| plain(&one.resource, "process.pid") == pid).cloned().collect();
        as_rows(&own)
    };
    let names =
        |row: &Row, name: &str| row.frames.iter().any(|frame| frame.functions.iter().any(|f| is_function(f, name)));
    let (own, others) = (of(good.pid()), of(silent.pid));
    let named = total(own.iter().filter(|row| names(row, "main")));
    assert!(named > 100 && named * 10 > total(own.iter()) * 9, "{named} of {} are named", total(own.iter()));
    assert!(total(others.iter().filter(|row| names(row, "main"))) > 0, "its program has names");
    assert!(!others.iter().any(|row| names(row, "jit_inner")), "its perf map has none");
    good.signal(Signal::KILL);
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
    // Its name is there before its file is mapped.
    wait_until("it can be opened", || program(&mut reader, running.pid()).is_some());
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
