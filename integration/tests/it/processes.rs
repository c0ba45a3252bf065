//! Processes that come, go, change and hide.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use profiler_integration::completeness::is_kernel_only;
use profiler_integration::environment::{have, have_root, have_tools, one_at_a_time};
use profiler_integration::programs::{self, Linking, Program};
use profiler_integration::proof::{HERTZ, prove};
use profiler_integration::recording::{Recorded, Recorder, folder, record_command, record_host};
use profiler_integration::rows::{Row, is_function, rows, total};
use profiler_integration::shares::off_from_truth;
use profiler_integration::truth::Truth;
use profiler_integration::{Error, children};
use profiler_model::FrameKind;

use crate::cgroup::Group;

const PATIENCE: Duration = Duration::from_secs(60);

fn build(program: &Program) -> PathBuf {
    program.build().unwrap_or_else(|error| panic!("{error}"))
}

/// True if this kernel runs `file`.
fn runs(file: &Path) -> bool {
    Command::new(file).args(["--ms", "1"]).output().is_ok_and(|output| output.status.success())
}

fn in_function(rows: &[Row], function: &str) -> u64 {
    total(
        rows.iter().filter(|row| {
            row.user_frames().any(|frame| frame.functions.iter().any(|name| is_function(name, function)))
        }),
    )
}

#[test]
fn root_library_opened_after_start() {
    let plugin = build(&programs::c("plugin").linking(Linking::Library)).display().to_string();
    let file = build(&programs::c("plugin_host"));
    prove("root_library_opened_after_start", || record_command(HERTZ, &file, &["--ms", "2000", "--plugin", &plugin]));
}

#[test]
fn root_names_of_a_program_that_has_ended_are_found_in_its_own_root() {
    let test = "root_names_of_a_program_that_has_ended_are_found_in_its_own_root";
    if !have_root(test) || !have_tools(test, &["gcc", "objcopy", "chroot"]) {
        return;
    }
    let _one = one_at_a_time();
    let root = folder().expect("a folder");
    let at = |name: &str| root.path().join(name);
    let (source, full, program) = (at("main.c"), at("full"), at("bin/app"));
    let inlined = "static inline __attribute__((always_inline)) long";
    let text = format!(
        "{inlined} deepest(long n) {{ volatile long a = 1; for (long i = 0; i < n; i++) a += i * a; return a; }}\n\
         {inlined} inner(long n) {{ return deepest(n) + 1; }}\n\
         __attribute__((noinline)) long work(long n) {{ return inner(n); }}\n\
         int main(void) {{ return work(300000000) == 2; }}\n"
    );
    fs::write(&source, text).expect("its source");
    // Nothing of it is anywhere else on this host.
    let (head, rest) = ("f0", format!("{:0>38}", std::process::id()));
    let debug = at(&format!("usr/lib/debug/.build-id/{head}/{rest}.debug"));
    for folder in [&program, &debug].map(|file| file.parent().expect("a folder")) {
        fs::create_dir_all(folder).expect("a folder");
    }
    let run = |command: &mut Command| children::run_well(command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let id = format!("-Wl,--build-id=0x{head}{rest}");
    run(Command::new("gcc").args(["-static", "-O2", "-g", &id, "-o"]).args([&full, &source]));
    run(Command::new("objcopy").arg("--only-keep-debug").args([&full, &debug]));
    run(Command::new("objcopy").arg("--strip-all").args([&full, &program]));
    fs::remove_file(&full).expect("it is there");
    let arguments = [root.path().as_os_str(), "/bin/app".as_ref()];
    let recording = Recorder::new(HERTZ).expect("a folder").run(Path::new("chroot"), &arguments);
    let recording = recording.unwrap_or_else(|error| panic!("{error}"));
    let rows: Vec<Row> = rows(&recording.profile).into_iter().filter(|row| row.process == "app").collect();
    let is_whole = |row: &&Row| {
        let frames: Vec<&str> = row.user_frames().flat_map(|frame| &frame.functions).map(String::as_str).collect();
        frames.starts_with(&["deepest", "inner", "work", "main"])
    };
    let (whole, all) = (total(rows.iter().filter(is_whole)), total(&rows));
    let described: Vec<String> = rows.iter().map(Row::describe).collect();
    // But for its start, and what the kernel does for it.
    assert!(whole > 10 && whole * 10 > all * 8, "{whole} of {all}: {described:#?}");
}

/// At least 95 % of the samples of children that live 20 ms are kept, with their names and callers.
fn keeps_short_lives(test: &str, record: impl Fn(&Path, &[&str]) -> Result<Recorded, Error>) {
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let file = build(&programs::c("storm"));
    let recorded =
        record(&file, &["--ms", "4000", "--rate", "90", "--child-ms", "20"]).unwrap_or_else(|e| panic!("{test}: {e}"));
    let children: Vec<Row> =
        recorded.rows.iter().filter(|row| row.pid != recorded.truth.pid && row.process == "storm").cloned().collect();
    // Children report nothing, but each works for 20 ms of CPU time in the one function.
    let due = recorded.truth.children as f64 * 0.020 * f64::from(HERTZ);
    let named = in_function(&children, "storm_child_burn") as f64;
    let whole = total(children.iter().filter(|row| {
        row.marker().is_none()
            && row.frames.iter().any(|frame| frame.functions.iter().any(|name| is_function(name, "main")))
            && in_function(std::slice::from_ref(row), "storm_child_burn") > 0
    })) as f64;
    let worst: Vec<_> = children.iter().filter(|row| row.marker().is_some()).take(5).map(Row::describe).collect();
    println!("{test}: {} children, {due:.0} samples due, {named} named, {whole} whole", recorded.truth.children);
    assert!(
        named >= due * 0.95 && whole >= due * 0.95,
        "{test}: {} children: {due:.0} samples due, {named} in storm_child_burn, {whole} of them up to main; losses {:?}\n{}",
        recorded.truth.children,
        recorded.recording.profile.losses,
        worst.join("\n")
    );
}

#[test]
fn root_children_of_20_ms_on_the_whole_host() {
    keeps_short_lives("root_children_of_20_ms_on_the_whole_host", |file, arguments| {
        record_host(HERTZ, file, arguments)
    });
}

#[test]
fn root_children_of_20_ms_of_a_command() {
    keeps_short_lives("root_children_of_20_ms_of_a_command", |file, arguments| record_command(HERTZ, file, arguments));
}

#[test]
fn root_every_process_of_a_fork_tree() {
    let test = "root_every_process_of_a_fork_tree";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let recorded = record_command(HERTZ, &build(&programs::c("fork_tree")), &["--ms", "2800"]).expect("a recording");
    let truth = recorded.truth.processes.iter().map(|(pid, ns)| (pid.to_string(), *ns)).collect();
    let counts = recorded
        .truth
        .processes
        .keys()
        .map(|&pid| {
            (
                pid.to_string(),
                in_function(
                    &recorded.rows.iter().filter(|row| row.pid == pid).cloned().collect::<Vec<_>>(),
                    "tree_burn",
                ),
            )
        })
        .collect();
    let off = off_from_truth(&truth, &counts);
    assert!(off.len() < 2, "{off:?}");
}

#[test]
fn root_child_in_mount_and_pid_namespaces_of_its_own() {
    let test = "root_child_in_mount_and_pid_namespaces_of_its_own";
    let file = build(&programs::c("namespaces"));
    let hidden = folder().expect("a folder");
    let directory = hidden.path().display().to_string();
    prove(test, || record_command(HERTZ, &file, &["--ms", "2000", "--dir", &directory]));
    prove(test, || record_host(HERTZ, &file, &["--ms", "2000", "--dir", &directory]));
}

/// Starts a copy of `shares`, does `change` to the file while it runs, then attaches.
fn survives(test: &str, change: impl Fn(&Path)) {
    let original = build(&programs::c("shares"));
    prove(test, || {
        let place = folder()?;
        let file = place.path().join("shares");
        children::copy_program(&original, &file)?;
        let target = children::start(Command::new(&file).args(["--ms", "3000"]))?;
        sleep(Duration::from_millis(200));
        change(&file);
        let started = Recorder::new(HERTZ)?.arg("-p").arg(target.pid().to_string()).start()?;
        let output = target.wait(PATIENCE)?.stdout;
        let recording = started.stop()?;
        let truth = Truth { is_partial: true, ..Truth::find("shares", &output)? };
        Ok(Recorded { rows: rows(&recording.profile), recording, truth })
    });
}

#[test]
fn root_executable_deleted_while_it_runs() {
    survives("root_executable_deleted_while_it_runs", |file| fs::remove_file(file).expect("it can be deleted"));
}

#[test]
fn root_executable_replaced_while_it_runs() {
    // The new file has other functions at the same addresses: names taken from it would be wrong.
    let other = build(&programs::c("libc_asm"));
    survives("root_executable_replaced_while_it_runs", |file| {
        let new = file.with_extension("new");
        fs::copy(&other, &new).expect("a copy");
        fs::rename(new, file).expect("it can be replaced");
    });
}

#[test]
fn root_process_of_32_bits_has_its_kernel_stack_and_one_marked_frame() {
    let test = "root_process_of_32_bits_has_its_kernel_stack_and_one_marked_frame";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let file = build(&programs::go("shares").architecture("386"));
    if !have(test, runs(&file), "a kernel that runs 32-bit programs") {
        return;
    }
    let recorded = record_command(HERTZ, &file, &["--ms", "1000"]).expect("a recording");
    let own = recorded.own_rows();
    let due = recorded.truth.cpu_ns as f64 * f64::from(HERTZ) / 1e9;
    assert!(total(&own) as f64 > due * 0.9, "{} samples of {due:.0}", total(&own));
    for row in own.iter().filter(|row| !is_kernel_only(row)) {
        let user: Vec<_> = row.user_frames().collect();
        assert!(
            user.len() <= 2
                && user
                    .iter()
                    .any(|frame| frame.kind == FrameKind::Marker
                        || frame.functions.iter().any(|name| name.contains("32"))),
            "{}",
            row.describe()
        );
    }
}

#[test]
fn root_two_pids_are_recorded_and_no_third() {
    let test = "root_two_pids_are_recorded_and_no_third";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let file = build(&programs::c("shares"));
    let start = || children::start(Command::new(&file).args(["--ms", "60000"])).expect("it starts");
    let (first, second, third) = (start(), start(), start());
    let pids = format!("{},{}", first.pid(), second.pid());
    let recording = Recorder::new(HERTZ)
        .expect("a recorder")
        .arg("-p")
        .arg(&pids)
        .arg("-d")
        .arg("2s")
        .start()
        .expect("it starts")
        .finish()
        .expect("a recording");
    let seen = rows(&recording.profile);
    for wanted in [first.pid(), second.pid()] {
        assert!(seen.iter().any(|row| row.pid == wanted), "no sample of {wanted}");
    }
    assert!(seen.iter().all(|row| row.pid != third.pid()), "samples of a process that was not asked for");
    assert!(seen.iter().all(|row| row.pid == first.pid() || row.pid == second.pid()), "samples of others");
}

#[test]
fn root_a_cgroup_is_recorded_and_nothing_else() {
    let test = "root_a_cgroup_is_recorded_and_nothing_else";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let scratch = folder().expect("a folder");
    let group = Group::new(scratch.path());
    if !have(test, group.is_some(), "a hierarchy of cgroup v2 that is mounted, or can be") {
        return;
    }
    let group = group.expect("asked for above");
    let file = build(&programs::c("shares"));
    let start = || children::start(Command::new(&file).args(["--ms", "60000"])).expect("it starts");
    let (inside, outside) = (start(), start());
    group.enter(inside.pid());
    let recording = Recorder::new(HERTZ)
        .and_then(|recorder| recorder.arg("--cgroup").arg(&group.folder).arg("-d").arg("2s").start())
        .and_then(|started| started.finish());
    let pids = (inside.pid(), outside.pid());
    drop((inside, outside));
    sleep(Duration::from_millis(100));
    drop(group);
    let seen = rows(&recording.expect("a recording").profile);
    // How many there are is up to what else runs on the machine.
    assert!(in_function(&seen, "main") > 20, "{} samples", total(&seen));
    assert!(seen.iter().all(|row| row.pid == pids.0), "samples from outside the cgroup");
}

#[test]
fn root_a_pid_that_dies_meanwhile_leaves_its_profile() {
    let test = "root_a_pid_that_dies_meanwhile_leaves_its_profile";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let target =
        children::start(Command::new(build(&programs::c("shares"))).args(["--ms", "2500"])).expect("it starts");
    let pid = target.pid();
    let recording = Recorder::new(HERTZ)
        .and_then(|recorder| recorder.arg("-p").arg(pid.to_string()).arg("-d").arg("5s").start())
        .and_then(|started| {
            target.wait(PATIENCE)?;
            started.finish()
        })
        .expect("a recording");
    assert!(in_function(&rows(&recording.profile), "main") > 20);
}
