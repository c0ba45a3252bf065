//! What a user meets: exit codes, refusals that say what, why and the way out, and files that are there at the end.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::children::{self, Finished};
use profiler_integration::environment::{
    beside_its_like, have_by_chance, have_root, have_tools, profiler, profiler_with_faults,
};
use profiler_integration::programs;
use profiler_integration::recording::{Recorder, Started, folder};
use profiler_integration::rows::{Row, rows, total};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);

/// `profiler ARGUMENTS`, run in a folder of its own.
fn profiler_says(arguments: &[&str]) -> Finished {
    let place = folder().expect("a folder");
    let mut command = Command::new(profiler());
    command.env_remove("SUDO_UID").env_remove("SUDO_GID").current_dir(place.path()).args(arguments);
    children::run(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"))
}

fn code(finished: &Finished) -> i32 {
    finished
        .status
        .code()
        .unwrap_or_else(|| panic!("{} ended by signal {:?}", finished.command, finished.status.signal()))
}

/// The command was refused with `expected`, quickly, by a message that holds all of `words`.
fn refuses(arguments: &[&str], expected: i32, words: &[&str]) {
    // Built now, if it has to be: that is no part of the answer's time.
    let _ = profiler();
    let start = Instant::now();
    let finished = profiler_says(arguments);
    assert_eq!(code(&finished), expected, "{}\n{}\n{}", finished.command, finished.stderr, finished.stdout);
    let message = finished.stderr.to_lowercase();
    for word in words {
        assert!(message.contains(&word.to_lowercase()), "{}: no {word:?} in\n{}", finished.command, finished.stderr);
    }
    assert!(!message.contains("panicked"), "{}", finished.stderr);
    assert!(start.elapsed() < Duration::from_secs(5), "{} took {:?}", finished.command, start.elapsed());
}

#[test]
fn help_names_every_command_and_its_options() {
    let finished = profiler_says(&["--help"]);
    assert_eq!(code(&finished), 0);
    for word in ["record", "doctor", "convert"] {
        assert!(finished.stdout.contains(word), "{}", finished.stdout);
    }
    let finished = profiler_says(&["record", "--help"]);
    for word in ["--freq", "--duration", "--pid", "--cgroup", "--output", "--format", "--symbols"] {
        assert!(finished.stdout.contains(word), "no {word} in\n{}", finished.stdout);
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    refuses(&["record", "--no-such-option"], 2, &["no-such-option"]);
    refuses(&["no-such-command"], 2, &["no-such-command"]);
}

#[test]
fn a_rate_of_zero_is_refused() {
    refuses(&["record", "-a", "-F", "0", "-d", "1"], 2, &["0"]);
}

#[test]
fn a_rate_over_the_kernels_limit_is_refused_with_the_limit() {
    let limit = fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate").expect("every kernel says");
    let limit = limit.trim();
    if limit.parse::<u64>().is_ok_and(|limit| limit < 100_000) {
        refuses(&["record", "-a", "-F", "100000", "-d", "1"], 2, &["100000", limit, "perf_event_max_sample_rate"]);
    } else {
        refuses(&["record", "-a", "-F", "10000000", "-d", "1"], 2, &["10000000"]);
    }
}

#[test]
fn an_unknown_extension_is_refused_with_the_known_ones() {
    refuses(&["record", "-a", "-d", "10", "-o", "profile.xyz"], 2, &["profile.xyz", "pb.gz", "html"]);
}

#[test]
fn what_cannot_go_together_is_told_with_the_usage_of_record() {
    refuses(&["record", "-a", "-p", "1"], 2, &["--all", "--pid", "usage: profiler record"]);
}

#[test]
fn a_time_that_is_none_is_refused_with_the_grammar() {
    for wrong in ["10x", "1m30", "30s1m", "-1"] {
        refuses(&["record", &format!("--duration={wrong}")], 2, &["like 500ms, 10s, 2min or 1m30s"]);
    }
}

/// The threads of `pid` but its main thread.
fn other_threads(pid: u32) -> Vec<u32> {
    let entries =
        fs::read_dir(format!("/proc/{pid}/task")).map(|entries| entries.flatten().collect()).unwrap_or(vec![]);
    let ids = entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| *id != pid).collect()
}

#[test]
fn root_the_id_of_a_thread_means_its_process() {
    let test = "root_the_id_of_a_thread_means_its_process";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    let file = programs::c("threads").flags(&["-pthread"]).build().expect("it builds");
    let threads = children::start(Command::new(&file).args(["--ms", "60000"])).expect("it starts");
    let until = Instant::now() + PATIENCE;
    while other_threads(threads.pid()).is_empty() {
        assert!(Instant::now() < until, "it has no threads");
        sleep(Duration::from_millis(20));
    }
    let thread = other_threads(threads.pid())[0].to_string();
    let finished = profiler_says(&["record", "-p", &thread, "-d", "1s", "-F", "199", "-o", "-", "-f", "folded"]);
    assert_eq!(code(&finished), 0, "{}", finished.stderr);
    assert!(finished.stdout.contains("thread_burn"), "{}{}", finished.stdout, finished.stderr);
    let line = format!("{thread} is a thread of process {}", threads.pid());
    assert!(finished.stderr.contains(&line), "{}", finished.stderr);
}

#[test]
fn root_nothing_is_not_called_complete() {
    let test = "root_nothing_is_not_called_complete";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    let idle = children::start(Command::new("sleep").arg("60")).expect("it starts");
    sleep(Duration::from_millis(300));
    let finished = profiler_says(&["record", "-p", &idle.pid().to_string(), "-d", "500ms"]);
    assert_eq!(code(&finished), 0, "{}", finished.stderr);
    assert!(finished.stderr.contains("No samples: "), "{}", finished.stderr);
    assert!(!finished.stderr.contains("complete stack"), "{}", finished.stderr);
}

#[test]
fn root_a_cgroup_of_version_1_is_refused_with_the_ways_out() {
    let test = "root_a_cgroup_of_version_1_is_refused_with_the_ways_out";
    if !have_root(test) || !have_tools(test, &["mount", "umount"]) {
        return;
    }
    let _one = beside_its_like();
    let place = folder().expect("a folder");
    let old = place.path().join("v1");
    fs::create_dir(&old).expect("a folder");
    let mut mount = Command::new("mount");
    mount.args(["-t", "cgroup", "-o", "none,name=profiler-test", "cgroup"]).arg(&old);
    if let Err(error) = children::run_well(&mut mount, PATIENCE) {
        // Kernels may be built without it; then nobody can give such a path.
        have_by_chance(test, false, &format!("kernel that mounts cgroups of version 1 ({error})"));
        return;
    }
    let _mounted = Mounted(old.clone());
    refuses(
        &["record", "--cgroup", &old.display().to_string(), "-d", "1"],
        1,
        &["version 1", "/proc/PID/cgroup behind 0::", "-p $(paste"],
    );
}

#[test]
fn root_a_limit_on_the_size_of_files_is_told_and_leaves_no_parts() {
    let test = "root_a_limit_on_the_size_of_files_is_told_and_leaves_no_parts";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    let place = folder().expect("a folder");
    let mut shell = Command::new("sh");
    // In blocks of 512 bytes: less than any page has.
    let line = format!("ulimit -f 8; exec {} record -a -d 1s -o page.html", profiler().display());
    shell.current_dir(place.path()).env("HOME", place.path()).args(["-c", &line]);
    let finished = children::run(&mut shell, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(code(&finished), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("cannot write page.html"), "{}", finished.stderr);
    let left: Vec<_> = fs::read_dir(place.path()).expect("readable").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn root_a_command_that_does_not_exist_ends_with_127() {
    if have_root("root_a_command_that_does_not_exist_ends_with_127") {
        refuses(&["record", "--", "/no/such/command"], 127, &["/no/such/command"]);
        refuses(&["record", "--", "no-such-command-on-the-path"], 127, &["no-such-command-on-the-path"]);
    }
}

#[test]
fn root_a_command_that_is_not_executable_ends_with_126() {
    if have_root("root_a_command_that_is_not_executable_ends_with_126") {
        refuses(&["record", "--", "/etc/passwd"], 126, &["/etc/passwd"]);
    }
}

#[test]
fn root_the_commands_exit_code_is_ours() {
    let test = "root_the_commands_exit_code_is_ours";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    assert_eq!(code(&profiler_says(&["record", "--", "sh", "-c", "exit 7"])), 7);
    assert_eq!(code(&profiler_says(&["record", "--", "true"])), 0);
    assert_eq!(code(&profiler_says(&["record", "--", "sh", "-c", "kill -TERM $$"])), 128 + 15);
}

/// What becomes the command is the profiler itself until its exec, which copies all arguments before the command is there.
#[test]
fn root_a_command_is_recorded_from_its_first_instruction_on() {
    let test = "root_a_command_is_recorded_from_its_first_instruction_on";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    // As much as the kernel takes, nearly: 14 times 124 KB.
    let long = "x".repeat(124_000);
    let mut arguments = vec!["-c".to_owned(), "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done".to_owned()];
    arguments.extend(std::iter::repeat_n(long, 14));
    let recording = Recorder::new(2000).and_then(|recorder| recorder.run(Path::new("/bin/sh"), &arguments));
    let rows = rows(&recording.unwrap_or_else(|error| panic!("{error}")).profile);
    let command = |row: &&Row| row.thread == "sh";
    assert!(total(rows.iter().filter(command)) > 0, "{rows:#?}");
    let other: Vec<String> = rows.iter().filter(|row| !command(row)).map(Row::describe).collect();
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn root_no_such_pid_is_an_error_that_names_it() {
    if have_root("root_no_such_pid_is_an_error_that_names_it") {
        // Above the largest pid that Linux gives.
        refuses(&["record", "-p", "4194305", "-d", "10"], 1, &["4194305"]);
    }
}

#[test]
fn root_an_unwritable_output_is_found_before_recording() {
    let test = "root_an_unwritable_output_is_found_before_recording";
    if have_root(test) {
        refuses(&["record", "-a", "-d", "10", "-o", "/no/such/folder/profile.pb.gz"], 1, &["/no/such/folder"]);
        refuses(&["record", "-a", "-d", "10", "-o", "/proc/version.pb.gz"], 1, &["/proc/version.pb.gz"]);
    }
}

#[test]
fn root_without_output_options_a_pprof_and_a_page_are_written() {
    let test = "root_without_output_options_a_pprof_and_a_page_are_written";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    let place = folder().expect("a folder");
    let mut command = Command::new(profiler());
    command.current_dir(place.path()).args(["record", "-a", "-d", "1s"]);
    let finished = children::run_well(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let said = format!("{}{}", finished.stdout, finished.stderr);
    for name in ["profile.pb.gz", "profile.html"] {
        assert!(place.path().join(name).metadata().is_ok_and(|file| file.len() > 500), "{name} is missing or empty");
        assert!(said.contains(name), "the end does not name {name}:\n{said}");
    }
}

#[test]
fn root_every_format_by_its_extension_and_convert_between_them() {
    let test = "root_every_format_by_its_extension_and_convert_between_them";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    let file = programs::c("shares").build().expect("it builds");
    let names = ["p.otlp", "p.otlp.json", "p.folded", "p.svg", "p.html", "p.speedscope.json", "p.json.gz"];
    let mut recorder = Recorder::new(199).expect("a recorder");
    let place = recorder.folder().to_owned();
    for name in names {
        recorder = recorder.arg("-o").arg(place.join(name));
    }
    let recording = recorder.run(&file, &["--ms", "1000"]).unwrap_or_else(|error| panic!("{error}"));
    let starts: [&[u8]; 7] = [b"", b"{", b"", b"<?xml", b"<!", b"{", &[0x1f, 0x8b]];
    let check = |place: &Path| {
        for (name, start) in names.iter().zip(starts) {
            let bytes = fs::read(place.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(bytes.len() > 200 && bytes.starts_with(start), "{name}: {} bytes", bytes.len());
        }
        let folded = fs::read_to_string(place.join("p.folded")).expect("text");
        assert!(folded.lines().any(|line| line.contains("level1;level2;level3;spin_shares;hot_a")), "{folded}");
        let html = fs::read_to_string(place.join("p.html")).expect("text");
        assert!(
            !html.contains("src=\"http") && !html.contains("href=\"http"),
            "the page loads something from the network"
        );
    };
    check(&place);

    let convert = |from: &Path, to: &Path| {
        let mut command = Command::new(profiler());
        command.arg("convert").arg(from).arg("-o").arg(to);
        children::run_well(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    };
    let converted = folder().expect("a folder");
    for name in names {
        convert(&recording.file, &converted.path().join(name));
    }
    check(converted.path());
    let back = converted.path().join("back.pb.gz");
    for name in ["p.otlp", "p.otlp.json"] {
        convert(&converted.path().join(name), &back);
        let again = profiler_formats::pprof::decode(&fs::read(&back).expect("it is there")).expect("a profile");
        assert_eq!(total(&rows(&again)), total(&rows(&recording.profile)), "samples after pprof -> {name} -> pprof");
    }
}

#[test]
fn convert_refuses_what_is_no_profile() {
    let place = folder().expect("a folder");
    let input = place.path().join("input.pb.gz");
    fs::write(&input, b"this is not a profile").expect("written");
    let (input, output) = (input.display().to_string(), place.path().join("x.folded").display().to_string());
    refuses(&["convert", &input, "-o", &output], 1, &["input.pb.gz"]);
    refuses(&["convert", "/no/such/file.pb.gz", "-o", &output], 1, &["/no/such/file.pb.gz"]);
}

#[test]
fn root_ctrl_c_writes_the_files() {
    let test = "root_ctrl_c_writes_the_files";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    let file = programs::c("shares").build().expect("it builds");
    let started = Recorder::new(199).and_then(|recorder| recorder.arg("-a").start()).and_then(Started::attached);
    let started = started.expect("it starts");
    let mut load = children::start(Command::new(&file).args(["--ms", "60000"])).expect("it starts");
    assert!(load.works_for(Duration::from_secs(1), PATIENCE).expect("it works"));
    let recording = started.stop().unwrap_or_else(|error| panic!("{error}"));
    drop(load);
    assert!(total(&rows(&recording.profile)) > 50);
}

#[test]
fn root_the_commands_own_ctrl_c_ends_it_and_the_files_are_written() {
    let test = "root_the_commands_own_ctrl_c_ends_it_and_the_files_are_written";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    let place = folder().expect("a folder");
    let file = programs::c("shares").build().expect("it builds");
    let mut command = Command::new(profiler());
    command
        .env_remove("SUDO_UID")
        .current_dir(place.path())
        .args(["record", "-F", "499", "-o", "p.pb.gz", "--"])
        .arg(file)
        .args(["--ms", "60000"]);
    let running = children::start(&mut command).expect("it starts");
    assert!(running.says("Sampling ", PATIENCE).expect("it samples"));
    // What it records meanwhile.
    sleep(Duration::from_secs(2));
    running.signal(Signal::INT);
    let finished = running.wait(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(code(&finished), 128 + 2, "{}", finished.stderr);
    let bytes = fs::read(place.path().join("p.pb.gz")).expect("the file is written");
    assert!(total(&rows(&profiler_formats::pprof::decode(&bytes).expect("a profile"))) > 50);
}

#[test]
fn root_under_sudo_the_command_runs_as_the_user() {
    let test = "root_under_sudo_the_command_runs_as_the_user";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    let place = folder().expect("a folder");
    let mut command = Command::new(profiler());
    command.current_dir(place.path()).env("SUDO_UID", "65534").env("SUDO_GID", "65534").args(["record", "--", "id"]);
    let finished = children::run_well(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    assert!(finished.stdout.contains("uid=65534") && finished.stdout.contains("gid=65534"), "{}", finished.stdout);
    assert!(!finished.stdout.contains("groups=0") && !finished.stdout.contains(",0(root)"), "{}", finished.stdout);
}

#[test]
fn root_a_user_without_a_group_does_not_leave_the_command_to_root() {
    let test = "root_a_user_without_a_group_does_not_leave_the_command_to_root";
    if !have_root(test) {
        return;
    }
    let _one = beside_its_like();
    let place = folder().expect("a folder");
    let mut command = Command::new(profiler());
    command.current_dir(place.path()).env("SUDO_UID", "65534").env_remove("SUDO_GID").args(["record", "--", "id"]);
    let finished = children::run_well(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    assert!(finished.stdout.contains("uid=65534"), "{}", finished.stdout);
    assert!(!finished.stdout.contains("(root)"), "{}", finished.stdout);
}

#[test]
fn root_a_full_disk_loses_nothing() {
    let test = "root_a_full_disk_loses_nothing";
    if !have_root(test) || !have_tools(test, &["mount", "umount"]) {
        return;
    }
    let _one = beside_its_like();
    let place = folder().expect("a folder");
    let disk = place.path().join("disk");
    let elsewhere = place.path().join("elsewhere");
    fs::create_dir(&disk).and_then(|()| fs::create_dir(&elsewhere)).expect("folders");
    let mount = Mounted::tmpfs(&disk);
    let output = disk.join("profile.pb.gz");
    let mut command = Command::new(profiler());
    command
        .current_dir(&elsewhere)
        .env("TMPDIR", &elsewhere)
        .args(["record", "-a", "-F", "199", "-d", "3s", "-o"])
        .arg(&output);
    let running = children::start(&mut command).expect("it starts");
    assert!(running.says("Sampling ", PATIENCE).expect("it samples"));
    // The disk fills up while the recording runs.
    let mut ballast = fs::File::create(disk.join("ballast")).expect("there is room still");
    while ballast.write_all(&[1; 4096]).is_ok() {}
    while ballast.write_all(&[1]).is_ok() {}
    let finished = running.wait(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let said = finished.stderr.clone() + &finished.stdout;
    let saved = said
        .split(|c: char| c.is_whitespace() || "'\"`,;()".contains(c))
        .map(|word| elsewhere.join(word.trim_end_matches(['.', ':'])))
        .find(|path| path.is_file() && !path.starts_with(&disk));
    drop(mount);
    let saved: PathBuf = saved.unwrap_or_else(|| panic!("no other file is named in\n{said}"));
    // For nobody else, in a folder of its own.
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o7777;
    let own = saved.parent().expect("a folder");
    assert_eq!((mode(&saved), mode(own)), (0o600, 0o700), "{}", saved.display());
    assert_eq!(own.parent(), Some(elsewhere.as_path()), "{}", saved.display());
    let profile = profiler_formats::pprof::decode(&fs::read(&saved).expect("it is there")).expect("a whole profile");
    assert!(!rows(&profile).is_empty());
    assert_eq!(code(&finished), 1, "the output is not where it was asked for: {said}");
    assert!(said.contains("space") || said.contains("full"), "the reason is not told: {said}");
}

/// A tmpfs of 64 KiB, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(at);
        children::run_well(&mut mount, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = children::run(Command::new("umount").arg("-l").arg(&self.0), PATIENCE);
    }
}

/// `profiler ARGUMENTS` as nobody.
fn as_nobody(arguments: &[&str]) -> Finished {
    let place = folder().expect("a folder");
    let binary = place.path().join("profiler");
    children::copy_program(profiler(), &binary).expect("a copy that others may run");
    for path in [place.path(), &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("it is ours");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    command.arg(&binary).args(arguments).current_dir(place.path());
    children::run(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn root_without_privilege_the_message_says_what_is_missing() {
    let test = "root_without_privilege_the_message_says_what_is_missing";
    if !have_root(test) || !have_tools(test, &["setpriv"]) {
        return;
    }
    let finished = as_nobody(&["record", "-a", "-d", "1"]);
    assert_eq!(code(&finished), 1, "{}", finished.stderr);
    let message = &finished.stderr;
    assert!(message.contains("CAP_") || message.contains("sudo"), "{message}");
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn root_doctor_tells_what_works_with_and_without_privilege() {
    let test = "root_doctor_tells_what_works_with_and_without_privilege";
    if !have_root(test) || !have_tools(test, &["setpriv"]) {
        return;
    }
    let whole = profiler_says(&["doctor"]);
    assert_eq!(code(&whole), 0, "{}{}", whole.stdout, whole.stderr);
    for word in ["BTF", "perf_event"] {
        assert!(whole.stdout.contains(word), "no {word} in\n{}", whole.stdout);
    }
    let poor = as_nobody(&["doctor"]);
    assert!(poor.status.code().is_some_and(|code| code == 1), "{:?}: {}", poor.status, poor.stdout);
    assert!(poor.stdout.contains("sudo") || poor.stdout.contains("CAP_"), "{}", poor.stdout);
}

/// What `doctor -p` says of `command`, which runs until its standard input is closed and says a line when it has begun.
fn doctor_of(command: &mut Command) -> Finished {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let said = profiler_says(&["doctor", "-p", &child.id().to_string()]);
    drop(child.stdin.take());
    child.wait().unwrap();
    said
}

#[test]
fn root_doctor_says_of_a_process_what_it_is_and_why_it_has_no_names() {
    let test = "root_doctor_says_of_a_process_what_it_is_and_why_it_has_no_names";
    let python = Path::new("/usr/bin/python3");
    if !have_root(test) || !have_tools(test, &["cc"]) || !profiler_need::have_file(test, python) {
        return;
    }
    let said = doctor_of(Command::new(python).args(["-c", "print('ready', flush=True); input()"]));
    assert_eq!(code(&said), 0, "{}{}", said.stdout, said.stderr);
    let line = said.stdout.lines().find(|line| line.starts_with("ok") && line.contains("CPython 3."));
    assert!(line.is_some_and(|line| line.contains("/python3") && line.contains("functions, files")), "{}", said.stdout);

    let place = folder().expect("a folder");
    let of_program = |name: &str, global: &str| {
        let (source, program) = (place.path().join("source.c"), place.path().join(name));
        let main = r#"int main(void) { puts("ready"); fflush(stdout); getchar(); return 0; }"#;
        fs::write(&source, format!("#include <stdio.h>\n{global}\n{main}\n")).unwrap();
        let cc = Command::new("cc").args(["-rdynamic", "-o"]).args([&program, &source]).status().unwrap();
        assert!(cc.success());
        doctor_of(&mut Command::new(program))
    };
    for (name, global, mark, words) in [
        ("plain", "", "ok", &["native code", "unwind information"][..]),
        // Other runtimes, and one that only claims to be one that is followed.
        ("pypy", "long pypy_main_startup = 1;", "limited", &["PyPy", "JIT compiler", "build id"]),
        ("j9", "long J9VMDllMain = 1;", "limited", &["OpenJ9", "gHotSpotVMStructs"]),
        ("old", "long PyEval_EvalFrameEx = 1;", "limited", &["CPython before 3.7"]),
        ("electron", "long napi_create_function = 1;", "limited", &["V8", "v8dbg"]),
        ("image", "__attribute__((section(\".svm_heap\"))) int heap = 1;", "limited", &["GraalVM native image"]),
        ("false", "long _PyRuntime[99];", "limited", &["CPython", "3.8", "native frames only"]),
        ("chrome", "", "limited", &["V8", "v8dbg"]),
    ] {
        let said = of_program(name, global);
        assert_eq!(code(&said), 0, "{name}: {}{}", said.stdout, said.stderr);
        assert!(said.stdout.lines().any(|line| line.starts_with(mark)), "{name}: {}", said.stdout);
        for word in words {
            assert!(said.stdout.contains(word), "{name}: no {word:?} in\n{}", said.stdout);
        }
    }
    // The largest id that there can be, and one more.
    let gone = profiler_says(&["doctor", "-p", "4194305"]);
    assert_eq!(code(&gone), 1, "{}{}", gone.stdout, gone.stderr);
    assert!(gone.stdout.contains("MISSING"), "{}", gone.stdout);
}

/// A fault that [`profiler_elf::contain::fault`] makes in builds for debugging.
fn root_record_with_fault(test: &str, fault: &str) -> Option<(Finished, String)> {
    if !have_root(test) {
        return None;
    }
    let binary = profiler_with_faults();
    let _one = beside_its_like();
    let place = folder().expect("a folder");
    let out = place.path().join("out.folded");
    let shares = programs::c("shares").build().unwrap_or_else(|error| panic!("{error}"));
    let mut command = Command::new(binary);
    command.env("PROFILER_FAULT", fault).current_dir(place.path()).args(["record", "-o"]).arg(&out).arg("--");
    command.arg(shares).args(["--ms", "1500"]);
    let finished = children::run(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    Some((finished, fs::read_to_string(&out).unwrap_or_default()))
}

#[test]
fn root_a_parser_that_panics_costs_names_only() {
    let Some((finished, folded)) = root_record_with_fault("root_a_parser_that_panics_costs_names_only", "names") else {
        return;
    };
    assert!(finished.status.success(), "{}", finished.stderr);
    assert!(folded.contains("[shares+0x"), "{folded}");
    assert!(!folded.contains("main;"), "{folded}");
    assert!(finished.stderr.contains("parser failed on a file"), "{}", finished.stderr);
}

#[test]
fn root_a_thread_that_panics_ends_the_process() {
    let Some((finished, _)) = root_record_with_fault("root_a_thread_that_panics_ends_the_process", "collector") else {
        return;
    };
    assert_eq!(finished.status.signal(), Some(Signal::ABORT.as_raw()), "{}", finished.stderr);
    assert!(finished.stderr.contains("PROFILER_FAULT=collector"), "{}", finished.stderr);
}
