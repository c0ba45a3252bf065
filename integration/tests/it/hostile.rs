//! Processes that are hard on a profiler: it takes its time from none of them, and the others are recorded as if they were not
//! there.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::children;
use profiler_integration::environment::{have, have_root, have_tools, one_at_a_time};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use profiler_integration::recording::Recorder;
use profiler_integration::rows::{Row, is_function, rows, total};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{COMPLETE, verdict};

const PATIENCE: Duration = Duration::from_secs(60);

/// Records `hostile ARGUMENTS` and a well-behaved program side by side.
fn beside(test: &str, arguments: &[&str]) {
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let hostile = programs::c("hostile").build().unwrap_or_else(|error| panic!("{error}"));
    let shares = programs::c("shares").build().unwrap_or_else(|error| panic!("{error}"));
    let attempt = || {
        let difficult =
            children::start(Command::new(&hostile).args(["--ms", "3000"]).args(arguments)).expect("it starts");
        let good = children::start(Command::new(&shares).args(["--ms", "3000"])).expect("it starts");
        let pids = (difficult.pid(), good.pid());
        sleep(Duration::from_millis(300));
        let started = Recorder::new(HERTZ)
            .and_then(|recorder| recorder.arg("-p").arg(format!("{},{}", pids.0, pids.1)).start())
            .expect("it starts");
        let output = good.wait(PATIENCE).expect("it ends").stdout;
        difficult.wait(PATIENCE).expect("it ends");
        let begin = Instant::now();
        let recording = started.stop().unwrap_or_else(|error| panic!("{test}: {error}"));
        assert!(begin.elapsed() < Duration::from_secs(10), "{test}: it took {:?} to stop", begin.elapsed());
        let truth = Truth { is_partial: true, ..Truth::find("shares", &output).expect("its truth") };
        let rows = rows(&recording.profile);
        let of = |pid: u32| rows.iter().filter(move |row| row.pid == pid);
        let is_named = |row: &&Row| {
            row.frames.iter().any(|frame| frame.functions.iter().any(|name| is_function(name, "call_made")))
        };
        let (seen, named, other) = (total(of(pids.0)), total(of(pids.0).filter(is_named)), total(of(pids.1)));
        println!("{test}: {seen} samples of the difficult one, {named} with its caller, {other} of the other");
        // Both use the same CPU time and were there from the start.
        assert!(
            named * 10 > other * 7,
            "{test}: {named} of {seen} beside {other}; losses {:?}",
            recording.profile.losses
        );
        let own: Vec<_> = of(pids.1).cloned().collect();
        verdict(&own, &truth, HERTZ, COMPLETE, |_| false)
    };
    let mut found = attempt();
    if found.is_of_the_moment_perhaps() {
        found = attempt();
    }
    assert!(found.problems.is_empty(), "{test}: {}\n{}", found.summary(), found.problems.join("\n"));
}

#[test]
fn root_30000_executable_mappings() {
    beside("root_30000_executable_mappings", &["--mappings", "30000"]);
}

#[test]
fn root_a_fifo_in_place_of_a_perf_map() {
    beside("root_a_fifo_in_place_of_a_perf_map", &["--map", "fifo"]);
}

#[test]
fn root_an_endless_link_in_place_of_a_perf_map() {
    beside("root_an_endless_link_in_place_of_a_perf_map", &["--map", "links"]);
}

#[test]
fn root_an_endless_device_in_place_of_a_perf_map() {
    beside("root_an_endless_device_in_place_of_a_perf_map", &["--map", "device"]);
}

#[test]
fn root_a_directory_in_place_of_a_perf_map() {
    beside("root_a_directory_in_place_of_a_perf_map", &["--map", "directory"]);
}

/// One program under two names, of one size and one build id, with the ends of their files alike.
#[test]
fn root_a_program_with_the_build_id_of_another_names_its_own_frames_only() {
    let test = "root_a_program_with_the_build_id_of_another_names_its_own_frames_only";
    if !have_root(test) || !have_tools(test, &["cc"]) {
        return;
    }
    let _one = one_at_a_time();
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("spin.c");
    let text = "#include <time.h>\nvolatile unsigned long x;\n\
        __attribute__((noinline)) void NAME(void) { for (int i = 0; i < 3000000; i++) x += i; }\n\
        int main(void) { clock_t end = clock() + 2 * CLOCKS_PER_SEC; while (clock() < end) NAME(); }\n";
    std::fs::write(&source, text).expect("it is written");
    let build = |name: &str| {
        let program = folder.path().join(name);
        let mut command = Command::new("cc");
        // The same length of names, so that nothing else differs.
        command.args(["-O1", "-Wl,--build-id=0x00112233445566778899aabbccddeeff00112233", "-x", "c"]);
        command.arg(format!("-DNAME={name}")).arg("-o").arg(&program).arg(&source);
        assert!(command.status().expect("cc runs").success());
        program
    };
    let (evil, good) = (build("evil_spin"), build("good_spin"));
    let size = |path: &std::path::Path| path.metadata().expect("it is there").len();
    assert_eq!(size(&evil), size(&good));
    // The hash of the ends covers names of symbols in so small a file; in a larger one it does not.
    for path in [&evil, &good] {
        let mut bytes = std::fs::read(path).expect("it is read");
        bytes.extend([0; 8192]);
        std::fs::write(path, bytes).expect("it is written");
    }
    let mut processes = [&evil, &good].map(|path| children::start(&mut Command::new(path)).expect("it starts"));
    let pids = processes.each_ref().map(|process| process.pid());
    let recorder = Recorder::new(HERTZ).expect("it is built").arg("-p").arg(format!("{},{}", pids[0], pids[1]));
    let started = recorder.start().expect("it starts");
    for process in &mut processes {
        while process.is_running() {
            sleep(Duration::from_millis(50));
        }
    }
    let recording = started.stop().unwrap_or_else(|error| panic!("{test}: {error}"));
    let rows = rows(&recording.profile);
    for (pid, own, other) in [(pids[0], "evil_spin", "good_spin"), (pids[1], "good_spin", "evil_spin")] {
        let with = |name: &str| {
            let has =
                |row: &&Row| row.frames.iter().any(|f| f.functions.iter().any(|function| is_function(function, name)));
            total(rows.iter().filter(|row| row.pid == pid).filter(has))
        };
        println!("{test}: {own}: {} samples with its name, {} with the other's", with(own), with(other));
        assert!(with(own) > 0 && with(other) == 0, "{own}");
    }
}

/// A file that only root may read, bound over one's own perf map: its lines would become names.
#[test]
fn root_a_file_of_roots_in_place_of_a_perf_map_is_not_read() {
    let test = "root_a_file_of_roots_in_place_of_a_perf_map_is_not_read";
    if !have_root(test) || !have_tools(test, &["setpriv", "unshare", "mount"]) {
        return;
    }
    let _one = one_at_a_time();
    let hostile = programs::c("hostile").build().unwrap_or_else(|error| panic!("{error}"));
    let place = tempfile::tempdir().expect("a folder");
    let (program, secret) = (place.path().join("hostile"), place.path().join("secret"));
    children::copy_program(&hostile, &program).expect("a copy that others may run");
    // A name is for 4 GiB at most; these are for wherever the kernel maps memory.
    let lines = (0..512_u64).map(|nth| format!("{:x} ffffffff secret_of_root\n", 0x7e00_0000_0000 + (nth << 32)));
    std::fs::write(&secret, lines.collect::<String>()).expect("it is written");
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("ours");
    };
    set(place.path(), 0o755);
    set(&program, 0o755);
    let as_nobody = |line: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Urm", "sh", "-c", line]);
        command
    };
    let bind = format!("mount --bind {} {}", secret.display(), program.display());
    let probe = children::run(&mut as_nobody(&bind), PATIENCE).expect("it ends");
    if !have(
        test,
        probe.status.success(),
        &format!("users that may mount in namespaces of their own: {}", probe.stderr),
    ) {
        return;
    }
    // Readable for all, it is what the process could read itself: this is how the attack goes.
    for (mode, is_read) in [(0o644, true), (0o600, false)] {
        set(&secret, mode);
        let line = format!(
            "map=/tmp/perf-$$.map; touch $map && mount --bind {} $map || exit 77; exec {} --ms 600000 --map none",
            secret.display(),
            program.display()
        );
        // Built before the attack, which does not wait for it.
        let recorder = Recorder::new(HERTZ).expect("it is built");
        let mut running = children::start(&mut as_nobody(&line)).expect("it starts");
        let pid = running.pid();
        let mut until = |what: &str, holds: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !holds() {
                assert!(running.is_running(), "it ended before {what}");
                assert!(begun.elapsed() < 2 * PATIENCE, "waited in vain for {what}");
                sleep(Duration::from_millis(50));
            }
        };
        until("the program", &|| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program));
        let started = recorder.arg("-p").arg(pid.to_string()).start().expect("it starts");
        let cpu_time = || children::cpu_time(pid).unwrap_or_default();
        let enough = cpu_time() + Duration::from_secs(2);
        until("two seconds of its CPU time", &|| cpu_time() >= enough);
        let recording = started.stop().unwrap_or_else(|error| panic!("{test}: {error}"));
        drop(running);
        let _ = std::fs::remove_file(format!("/tmp/perf-{pid}.map"));
        let rows = rows(&recording.profile);
        let names =
            |row: &&Row| row.frames.iter().any(|f| f.functions.iter().any(|name| name.contains("secret_of_root")));
        let (all, named) = (total(rows.iter()), total(rows.iter().filter(names)));
        println!("{test}: mode {mode:o}: {named} of {all} samples with a name of the file");
        assert!(all > 50, "{all}");
        assert_eq!(named > 0, is_read, "mode {mode:o}: {named} of {all}");
    }
}
