//! What `profiler agent` and `profiler record` have given up when they run as plain root, by the kernel's own word, and that they still
//! do all they are for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_confine::{CapabilitySet, Files, Force, Rights, Role, Threads, Wall, threads};
use profiler_integration::agent::{Agent, Configuration, otlp_exporter};
use profiler_integration::children::{self, Running};
use profiler_integration::environment::{have_root, have_tools, one_at_a_time, profiler};
use profiler_integration::programs;
use profiler_integration::recording::folder;
use profiler_integration::rows::is_function;
use profiler_integration::seen::{as_rows, plain, seen};
use rustix::process::Signal;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;

/// What roles keep on this machine: where only `CAP_SYS_ADMIN` opens events, that too; `CAP_SYS_NICE` if root here may raise no limits.
fn kept(roles: &[Role]) -> Rights {
    let mut rights = Rights::of(roles);
    if profiler_bpf::paranoid().is_some_and(|level| level >= 3) {
        rights = rights.keep(CapabilitySet::SYS_ADMIN);
    }
    let own = threads(std::process::id()).unwrap().remove(0);
    if !own.effective.contains(CapabilitySet::SYS_RESOURCE) {
        rights = rights.keep(CapabilitySet::SYS_NICE);
    }
    rights
}

/// No thread has more than `rights`; the main thread has just these.
fn assert_confined(pid: u32, rights: &Rights) {
    let groups = threads(pid).unwrap();
    let main = groups.iter().find(|group| group.names.iter().any(|name| name == "profiler")).expect("a main thread");
    assert_eq!((main.effective, main.permitted), (rights.capabilities, rights.kept()), "{main:?}");
    for Threads { names, effective, permitted, bounding, ambient, no_new_privs, filters } in groups {
        assert!(rights.capabilities.contains(effective), "{names:?} have {effective:?} in force");
        assert!(rights.kept().contains(permitted), "{names:?} have {permitted:?}");
        assert!(rights.kept().contains(bounding) && ambient.is_empty(), "{names:?}: {bounding:?}, {ambient:?}");
        assert!(no_new_privs && filters > 0, "{names:?}: no_new_privs {no_new_privs}, {filters} filters");
    }
}

/// The readers of `pid`, and its namer if it `has_namer`, have what opening takes, and a filter of their own beside their parent's.
fn assert_readers_confined(pid: u32, has_namer: bool) {
    let comm = |pid: &u32| fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let outer = threads(pid).unwrap().remove(0).filters;
    // It confines itself when it has begun.
    let has_begun = |reader: &u32| threads(*reader).is_ok_and(|all| all.iter().all(|thread| thread.filters > outer));
    let until = Instant::now() + PATIENCE;
    let readers = loop {
        let mut readers = children::of(pid);
        readers.retain(|pid| [&b"profiler-reader\n"[..], b"profiler-namer\n"].contains(&&*comm(pid)));
        let is_there = |name: &[u8]| readers.iter().any(|pid| comm(pid) == name);
        let are_there = is_there(b"profiler-reader\n") && (!has_namer || is_there(b"profiler-namer\n"));
        if are_there && readers.iter().all(has_begun) {
            break readers;
        }
        assert!(Instant::now() < until, "{pid} has no more than {readers:?}, a namer is to be there: {has_namer}");
        sleep(Duration::from_millis(20));
    };
    let rights = Rights::of(&[Role::Reader]);
    for reader in readers {
        for Threads { names, effective, permitted, ambient, no_new_privs, filters, .. } in threads(reader).unwrap() {
            assert_eq!((effective, permitted), (rights.capabilities, rights.kept()), "{names:?}");
            // What it had for its start is no use to anybody: it executes nothing.
            assert!(ambient.is_empty() && no_new_privs, "{names:?}: {ambient:?}");
            assert!(filters > outer, "{names:?}: {filters} filters, its parent {outer}");
        }
    }
}

/// The senders of `pid`, one for each exporter that has sent something, have nothing: no capability, no program, no descriptor of the kernel half.
fn assert_senders_confined(pid: u32, count: usize) {
    let outer = threads(pid).unwrap().remove(0).filters;
    let has_begun = |sender: &u32| threads(*sender).is_ok_and(|all| all.iter().all(|thread| thread.filters > outer));
    let until = Instant::now() + PATIENCE;
    let senders = loop {
        let senders = children::senders_of(pid);
        if senders.len() == count && senders.iter().all(has_begun) {
            break senders;
        }
        assert!(Instant::now() < until, "{pid} has the senders {senders:?}, and {count} are to be there");
        sleep(Duration::from_millis(20));
    };
    for sender in senders {
        for Threads { names, effective, permitted, ambient, no_new_privs, filters, .. } in threads(sender).unwrap() {
            assert!(effective.is_empty() && permitted.is_empty(), "{names:?}: {effective:?}, {permitted:?}");
            assert!(ambient.is_empty() && no_new_privs, "{names:?}: {ambient:?}");
            assert!(filters > outer, "{names:?}: {filters} filters, its parent {outer}");
        }
        let open = fs::read_dir(format!("/proc/{sender}/fd")).unwrap().flatten();
        let links: Vec<_> = open.filter_map(|one| fs::read_link(one.path()).ok()).collect();
        let is_of_kernel_half =
            |link: &PathBuf| ["bpf", "perf_event"].iter().any(|word| link.to_string_lossy().contains(word));
        assert!(!links.iter().any(is_of_kernel_half), "{links:?}");
    }
}

/// A program in a folder that only user nobody may enter, run by nobody.
fn private_program(seconds: u32) -> (TempDir, Running) {
    let place = folder().unwrap();
    let program = place.path().join("private");
    children::copy_program(&programs::c("shares").build().unwrap(), &program).unwrap();
    for path in [&program, &place.path().to_owned()] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let mut command = Command::new(&program);
    command.args(["--ms", &(seconds * 1000).to_string(), "--depth", "20"]).uid(NOBODY).gid(NOBODY);
    (place, children::start(&mut command).unwrap())
}

#[test]
fn root_an_agent_keeps_what_it_needs_and_nothing_else() {
    if !have_root("root_an_agent_keeps_what_it_needs_and_nothing_else") {
        return;
    }
    let _one = one_at_a_time();
    let rights = kept(&[Role::Sampler, Role::Reader, Role::Network]);
    // Nobody listens there, and that is tried all the same.
    let exporters = otlp_exporter("out", "http://127.0.0.1:9", "grpc", "");
    let mut configuration = Configuration::new(99, &["private"], exporters);
    configuration.more = "limits: {cpu: 100%}\n".to_owned();
    let mut agent = Agent::start(&configuration).unwrap();
    let is =
        |wanted: f64| move |now: &profiler_integration::agent::Metrics| now.sum("profiler_sampling", &[]) == wanted;
    agent.wait("sampling", PATIENCE, is(1.0)).unwrap();
    assert_confined(agent.pid(), &rights);
    assert_readers_confined(agent.pid(), false);

    // The kernel half is loaded again, and events are opened again.
    fs::write(agent.home().kill_switch(), "").unwrap();
    agent.wait("a pause", PATIENCE, is(0.0)).unwrap();
    fs::remove_file(agent.home().kill_switch()).unwrap();
    agent.wait("sampling again", PATIENCE, is(1.0)).unwrap();

    // What belongs to another user is read.
    let before = agent.metrics().unwrap().published();
    let (_place, running) = private_program(3);
    let pid = running.pid().to_string();
    running.wait(PATIENCE).unwrap();
    agent.wait("its samples", PATIENCE, |now| now.published() > before + 100).unwrap();
    assert_confined(agent.pid(), &rights);
    // They were named, and were to be sent.
    assert_readers_confined(agent.pid(), true);
    assert_senders_confined(agent.pid(), 1);
    // The page is of a second ago.
    let tells =
        |now: &profiler_integration::agent::Metrics| now.sum("profiler_confinement", &[("process", "sender")]) > 2.0;
    agent.wait("a sender", PATIENCE, tells).unwrap();

    let (status, page) = agent.get("/status").unwrap();
    assert_eq!(status, 200, "{page}");
    // The thread that answers this has less than the others.
    let groups = threads(agent.pid()).unwrap();
    let main = groups.iter().find(|group| group.names.iter().any(|name| name == "profiler")).expect("a main thread");
    let serving = groups.iter().find(|group| group.names.iter().any(|name| name == "telemetry")).expect("who serves");
    assert!(serving.permitted.is_empty() && serving.filters > main.filters, "{serving:?} beside {main:?}");
    for words in [
        "telemetry, thread of the agent",
        "agent, pid",
        "reader, pid",
        "sender of out, pid",
        "CAP_PERFMON",
        "no_new_privs set",
        "seccomp filter",
    ] {
        assert!(page.contains(words), "no {words} in\n{page}");
    }
    let walls = Role::Sender.rights().within(Files::default()).connect([1]);
    let landlock = profiler_confine::probe(&walls).unwrap().force(Wall::Files).cloned();
    let has_landlock = matches!(landlock, Some(Force::Full(_)));
    assert!(!page.contains("NOT set") && (!page.contains("REFUSED") || !has_landlock), "{page}");
    let metrics = agent.metrics().unwrap();
    for wall in ["capabilities", "no_new_privs", "seccomp"] {
        for process in ["agent", "telemetry", "reader", "sender"] {
            let stands = metrics.sum("profiler_confinement", &[("process", process), ("wall", wall)]);
            assert!((stands - 1.0).abs() < f64::EPSILON, "{process}, {wall}: {stands}");
        }
    }
    let files = metrics.sum("profiler_confinement", &[("process", "sender"), ("wall", "landlock")]);
    assert_eq!(files > 0.5, has_landlock, "{landlock:?}, and the agent says {files}");
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success() && (!log.contains("refuses a part") || !has_landlock), "{log}");
    let sampled = seen(&home.record().unwrap());
    let own: Vec<_> = sampled.into_iter().filter(|one| plain(&one.resource, "process.pid") == pid).collect();
    let rows = as_rows(&own);
    let named =
        rows.iter().any(|row| row.frames.iter().any(|frame| frame.functions.iter().any(|f| is_function(f, "main"))));
    assert!(named, "{} rows of {pid} without names", rows.len());
}

/// `profiler record` as `sudo` starts it for user nobody, whose folder it is in.
fn recording_for_nobody(arguments: &[&str]) -> (TempDir, Running) {
    let place = folder().unwrap();
    chown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(profiler());
    let (user, group) = (NOBODY.to_string(), NOBODY.to_string());
    command.envs([("SUDO_UID", user), ("SUDO_GID", group), ("SUDO_USER", "nobody".to_owned())]);
    command.current_dir(place.path()).args(["record", "-o", "out.folded"]).args(arguments);
    let running = children::start(&mut command).unwrap();
    (place, running)
}

/// Waits for the command of `recording`, to be what `name` says.
fn command_of(recording: &Running, name: &str) -> u32 {
    let until = Instant::now() + PATIENCE;
    loop {
        let is_it = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        if let Some(pid) = children::of(recording.pid()).into_iter().find(is_it) {
            return pid;
        }
        assert!(Instant::now() < until, "there is no {name}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn root_a_recording_confines_itself_and_not_its_command() {
    let test = "root_a_recording_confines_itself_and_not_its_command";
    if !have_root(test) || !have_tools(test, &["sleep"]) {
        return;
    }
    let _one = one_at_a_time();
    let rights = kept(&[Role::Sampler, Role::Reader, Role::Recorder]);
    let (place, recording) = recording_for_nobody(&["-a", "--", "sleep", "60"]);
    let command = command_of(&recording, "sleep");
    // Of who started the test, less what becoming nobody takes.
    let own = threads(std::process::id()).unwrap().remove(0);
    let free = threads(command).unwrap().remove(0);
    assert_eq!((free.bounding, free.no_new_privs, free.filters), (own.bounding, own.no_new_privs, own.filters));
    assert!(free.effective.is_empty() && free.permitted.is_empty(), "{free:?}");
    assert_confined(recording.pid(), &rights);
    // The command is another user's, and is told all the same.
    recording.signal(Signal::TERM);
    let finished = recording.wait(PATIENCE).unwrap();
    assert_eq!(finished.status.code(), Some(128 + 15), "{}", finished.stderr);
    assert!(!finished.stderr.contains("rights that it does not need"), "{}", finished.stderr);
    let files: Vec<PathBuf> = fs::read_dir(place.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(files, [place.path().join("out.folded")], "{}", finished.stderr);
}

/// As a service manager starts it: another user than root, with capabilities, who may look into nobody's folder only by one of them.
#[test]
fn root_a_user_with_capabilities_records_as_root_does() {
    let test = "root_a_user_with_capabilities_records_as_root_does";
    if !have_root(test) || !have_tools(test, &["setpriv"]) {
        return;
    }
    let _one = one_at_a_time();
    let mut rights = kept(&[Role::Sampler, Role::Reader]);
    rights = rights.keep(CapabilitySet::SYS_NICE);
    let own = NOBODY - 1;
    let place = folder().unwrap();
    chown(place.path(), Some(own), Some(own)).unwrap();
    // Built before, if it has to be.
    let profiler = profiler();
    let (_folder, private) = private_program(600);
    let pid = private.pid().to_string();
    let names = profiler_confine::names(rights.kept()).to_lowercase();
    let some: Vec<_> = names.split(", ").map(|name| name.replace("cap_", "+")).collect();
    let some = some.join(",");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &own.to_string(), "--regid", &own.to_string(), "--clear-groups"]);
    command.args(["--inh-caps", &some, "--ambient-caps", &some, "--bounding-set", &format!("-all,{some}")]);
    command.arg(profiler).args(["record", "-d", "4s", "-o", "out.folded", "-p", &pid]).current_dir(place.path());
    let recording = children::start(&mut command).unwrap();
    assert_readers_confined(recording.pid(), false);
    let finished = recording.wait(PATIENCE).unwrap();
    private.signal(Signal::KILL);
    assert!(finished.status.success(), "{}", finished.stderr);
    let stacks = fs::read_to_string(place.path().join("out.folded")).unwrap();
    let whole = stacks.lines().filter(|line| line.contains(";main;")).count();
    assert!(whole > 0 && whole * 10 > stacks.lines().count() * 8, "{stacks}\n{}", finished.stderr);
}

#[test]
fn root_doctor_tells_what_is_confined() {
    if !have_root("root_doctor_tells_what_is_confined") {
        return;
    }
    let _one = one_at_a_time();
    let agent = Agent::start(&Configuration::new(19, &["nobody"], String::new())).unwrap();
    let said = children::run_well(Command::new(profiler()).arg("doctor"), PATIENCE).unwrap().stdout;
    let line = |word: &str| said.lines().find(|line| line.split_whitespace().nth(1) == Some(word)).unwrap_or_default();
    for word in ["capabilities", "no_new_privs", "seccomp"] {
        assert!(line(word).starts_with("ok"), "{word} in\n{said}");
    }
    assert!(!line("landlock").is_empty(), "{said}");
    let running = said.lines().find(|line| line.contains(&format!("pid {}", agent.pid()))).unwrap_or_default();
    assert!(running.contains("CAP_BPF") && running.contains("seccomp filter"), "{said}");
}
