//! Executables whose file may not be read: those in a file system that another user serves, as an `AppImage` or a rootless container
//! does. What is mapped of them stands in for it; who lets that wait for ever loses it, and nobody else anything.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::children;
use profiler_integration::environment::{have, have_root, have_tools, one_at_a_time, profiler};
use profiler_integration::programs::{self, SymbolTables};
use profiler_integration::proof::HERTZ;
use profiler_integration::recording::{Recorder, folder};
use profiler_integration::rows::rows;
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{COMPLETE, verdict};
use profiler_reader::{Options, Reader};
use profiler_unwinders::executable::{Format, Mapper};
use profiler_unwinders::maps::Mapping;
use profiler_unwinders::process::Clock;
use profiler_unwinders::reading::{Opened, Reading};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// In a mount namespace of its own, so that nothing is left behind: `nobody` serves an image by FUSE, which no other user may enter, and
/// runs a program of it.
const SERVE: &str = r#"
set -e
cd "$1"
shift
mkdir private served
mount -t tmpfs -o mode=755 tmpfs private
cp -a /dev/fuse private/fuse
chmod 666 private/fuse
mount --bind private/fuse /dev/fuse
chown 65534:65534 served
as="setpriv --reuid 65534 --regid 65534 --clear-groups"
$as --pdeathsig KILL squashfuse -f image served >/dev/null 2>&1 &
echo $! > server
until grep -q ' fuse.squashfuse ' /proc/self/mounts; do sleep 0.02; done
exec $as "$@"
"#;

/// A program of `nobody`'s, in a file system of `nobody`'s.
struct Served {
    program: Child,
    server: Pid,
    _folder: TempDir,
}

impl Served {
    /// Runs `program`, whose only copy is on the file system, with `arguments`; its output goes to a pipe.
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let folder = folder().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("others may look");
        let content = folder.path().join("content");
        fs::create_dir(&content).expect("a folder");
        fs::copy(program, content.join("program")).expect("a copy");
        let image = folder.path().join("image");
        let made = Command::new("mksquashfs").arg(&content).arg(&image).args(["-quiet", "-noappend"]).output();
        assert!(made.expect("mksquashfs runs").status.success());
        fs::remove_dir_all(&content).expect("it is removed");
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "--propagation", "private", "sh", "-c", SERVE, "sh"]).arg(folder.path());
        shell.arg(folder.path().join("served/program")).args(arguments).stdout(Stdio::piped());
        let program = shell.spawn().expect("it starts");
        let (pid, until) = (program.id(), Instant::now() + PATIENCE);
        // The exec keeps the pid.
        while fs::read_link(format!("/proc/{pid}/exe")).ok() != Some(folder.path().join("served/program")) {
            assert!(Instant::now() < until, "it does not start");
            sleep(Duration::from_millis(10));
        }
        let server = fs::read_to_string(folder.path().join("server")).expect("who serves it");
        let server = server.trim().parse().ok().and_then(Pid::from_raw).expect("a pid");
        Self { program, server, _folder: folder }
    }

    fn pid(&self) -> u32 {
        self.program.id()
    }

    fn signal_server(&self, signal: Signal) {
        kill_process(self.server, signal).expect("it is there");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = kill_process(self.server, Signal::KILL);
        let _ = self.program.wait();
    }
}

fn have_fuse(test: &str) -> bool {
    have_root(test)
        && have(test, fs::exists("/dev/fuse").unwrap_or(false), "/dev/fuse")
        && have_tools(test, &["squashfuse", "mksquashfs", "fusermount3", "setpriv", "unshare"])
}

/// `shares` with names that are exported, and no others.
fn exporting() -> PathBuf {
    let program = programs::c("shares").flags(&["-rdynamic", "-Dstatic=", "-Dinline="]).symbols(SymbolTables::Stripped);
    program.build().unwrap_or_else(|error| panic!("{error}"))
}

fn open(reader: &mut Reader, pid: u32) -> Option<(Vec<u8>, Opened)> {
    let scan = reader.scan(pid).ok()?;
    let files: Vec<&Mapping> = scan.mappings.iter().filter(|mapping| mapping.file().is_some()).collect();
    let opened = reader.open(&Mapper { pid, alive: true, exe: &scan.exe, parent: 0 }, &files);
    Some((scan.exe, opened))
}

#[test]
fn root_a_program_in_another_users_file_system_has_whole_stacks_and_exported_names() {
    let test = "root_a_program_in_another_users_file_system_has_whole_stacks_and_exported_names";
    if !have_fuse(test) {
        return;
    }
    let _one = one_at_a_time();
    let program = exporting();
    let attempt = || {
        let mut served = Served::start(&program, &["--ms", "4000"]);
        let path = format!("/proc/{}/exe", served.pid());
        assert!(fs::read(path).is_err(), "{test}: root may read the file, so this shows nothing");
        let recorder = Recorder::new(HERTZ).expect("a folder").arg("-p").arg(served.pid().to_string());
        let started = recorder.start().expect("it starts");
        let output = std::io::read_to_string(served.program.stdout.take().expect("a pipe")).expect("its output");
        let recording = started.stop().unwrap_or_else(|error| panic!("{test}: {error}"));
        let truth = Truth { is_partial: true, ..Truth::find("shares", &output).expect("its truth") };
        let profile = &recording.profile;
        let served = profile.mappings.iter().find(|mapping| profile.string(mapping.file).ends_with("/served/program"));
        let served = served.expect("its mapping");
        // The hash would not be the file's; the build id is loaded.
        assert!(profile.string(served.build_id_gnu).len() == 40 && profile.string(served.build_id_htlhash).is_empty());
        verdict(&rows(profile), &truth, HERTZ, COMPLETE, |_| false)
    };
    let mut found = attempt();
    if found.is_of_the_moment_perhaps() {
        found = attempt();
    }
    println!("{test}: {}", found.summary());
    assert!(found.problems.is_empty(), "{test}: {}\n{}", found.summary(), found.problems.join("\n"));
}

#[test]
fn root_another_reader_restores_what_the_last_one_had() {
    let test = "root_another_reader_restores_what_the_last_one_had";
    if !have_fuse(test) {
        return;
    }
    let _one = one_at_a_time();
    let served = Served::start(&exporting(), &["--ms", "60000"]);
    let mut reader = Reader::start(Options::of_program(profiler().to_owned(), 64 << 20)).expect("a reader");
    let program = |reader: &mut Reader| {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some((exe, opened)) = open(reader, served.pid())
                && let Some(found) = opened.executables.into_iter().flatten().find(|one| *one.path == *exe)
            {
                return found;
            }
            assert!(Instant::now() < until, "the program is not restored");
            sleep(Duration::from_millis(100));
        }
    };
    let first = program(&mut reader);
    assert_eq!((first.format, first.build_id_htlhash()), (Format::Restored, None));
    // Who serves it may not get a CPU in time.
    let rows_of = |reader: &mut Reader| {
        let until = Instant::now() + PATIENCE;
        loop {
            match reader.rows(&first, usize::MAX) {
                Ok(rows) => return rows,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            sleep(Duration::from_millis(100));
        }
    };
    let rows = rows_of(&mut reader);
    let pid = Pid::from_raw(reader.stats().pid.expect("a reader").cast_signed()).expect("a pid");
    kill_process(pid, Signal::KILL).expect("it is there");
    assert_eq!(program(&mut reader).id, first.id, "another reader knows it by its content");
    assert_eq!(rows_of(&mut reader), rows);
    // Nothing of the process is read any more.
    served.signal_server(Signal::STOP);
    assert_eq!(reader.rows(&first, usize::MAX).expect("rows"), rows);
    served.signal_server(Signal::CONT);
    // It is memory, and lending it keeps none beyond what may be kept.
    let restored = |reader: &Reader| {
        let folder = format!("/proc/{}/fd", reader.stats().pid.expect("a reader"));
        let links =
            fs::read_dir(folder).expect("it runs").flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("memfd:restored")).count()
    };
    assert_eq!(reader.lend(std::slice::from_ref(&first)).len(), 1);
    assert_eq!(restored(&reader), 1);
    reader.close_orphans(&|_| false, &|_| false);
    assert_eq!(restored(&reader), 0);
}

#[test]
fn root_memory_that_waits_for_a_server_is_given_up_and_the_rest_is_read() {
    let test = "root_memory_that_waits_for_a_server_is_given_up_and_the_rest_is_read";
    if !have_fuse(test) || !have_tools(test, &["/usr/bin/python3"]) {
        return;
    }
    let _one = one_at_a_time();
    // Large enough that its unwind information is in no page that was read to start it.
    let python = fs::canonicalize("/usr/bin/python3").expect("a program");
    let served = Served::start(&python, &["-c", "import time; print('ready', flush=True); time.sleep(600)"]);
    let mut reader = Reader::start(Options::of_program(profiler().to_owned(), 64 << 20)).expect("a reader");
    let has_begun =
        || fs::read_to_string(format!("/proc/{}/wchan", served.pid())).is_ok_and(|at| at.contains("nanosleep"));
    let until = Instant::now() + PATIENCE;
    while !has_begun() {
        assert!(Instant::now() < until, "it does not begin");
        sleep(Duration::from_millis(20));
    }
    served.signal_server(Signal::STOP);
    let begun = Instant::now();
    let (_, opened) = open(&mut reader, served.pid()).expect("its mappings can be read");
    println!("{test}: {:?}", begun.elapsed());
    assert!(opened.executables.iter().all(Result::is_err) && opened.again_at.is_some());
    let given_up = reader.stats().troubles.given_up;
    assert!(given_up >= 1);
    let until = Instant::now() + PATIENCE;
    let (exe, opened) = loop {
        assert!(Instant::now() < until, "it is tried again");
        match open(&mut reader, served.pid()) {
            Some((exe, opened)) if opened.executables.iter().any(Result::is_ok) => break (exe, opened),
            _ => sleep(Duration::from_millis(50)),
        }
    };
    assert_eq!(reader.stats().troubles.given_up, given_up, "what made it wait is left alone");
    // And asked for again, less and less.
    let pause =
        |opened: &Opened| opened.again_at.expect("it is asked for again").saturating_sub(Clock::monotonic_now());
    let (_, next) = open(&mut reader, served.pid()).expect("its mappings can be read");
    assert!(pause(&next) > pause(&opened), "{} ns after {} ns", pause(&next), pause(&opened));
    let files: Vec<_> = opened.executables.iter().flatten().map(|executable| executable.path_text()).collect();
    assert!(files.iter().any(|file| file.contains("libc.so")), "{files:?}");
    assert!(!files.iter().any(|file| file.as_bytes() == exe), "{files:?}");
    served.signal_server(Signal::CONT);
    let own = children::start(Command::new("sleep").arg("60")).expect("it starts");
    assert!(open(&mut reader, own.pid()).is_some(), "everybody else goes on");
    own.signal(Signal::KILL);
}
