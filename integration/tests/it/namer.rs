//! The process that names, ended and held by others than targets: sampling goes on, names come back, and what was lost is told.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::agent::{Agent, Configuration, Metrics};
use profiler_integration::children::{self, Running};
use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::recording::folder;
use profiler_integration::rows::is_function;
use profiler_integration::seen::{as_rows, plain, seen};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// What each of the programs is called.
const NAME: &str = "many_symbols";

/// Children of `pid`, with their names and states; a zombie's state is `Z`.
fn children_of(pid: u32) -> Vec<(u32, String, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    // They may be any thread's.
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let others = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<String> = std::iter::once(text).chain(others).collect();
    let mut pids: Vec<u32> =
        all.iter().flat_map(|text| text.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect();
    pids.sort_unstable();
    pids.dedup();
    let told = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        Some((pid, name.to_owned(), rest.trim_start().chars().next()?))
    };
    pids.into_iter().filter_map(told).collect()
}

fn namer_of(agent: &Agent) -> u32 {
    let until = Instant::now() + PATIENCE;
    loop {
        let found =
            children_of(agent.pid()).into_iter().find(|(_, name, state)| name == "profiler-namer" && *state != 'Z');
        if let Some((pid, ..)) = found {
            return pid;
        }
        assert!(Instant::now() < until, "there is no namer");
        sleep(Duration::from_millis(10));
    }
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("a pid")
}

fn troubles(now: &Metrics) -> f64 {
    let of = |reason| now.sum("profiler_names_trouble_total", &[("reason", reason)]);
    of("namer died at a target") + of("namer given up at a target that let it wait or work without end")
}

/// Runs until it is ended. What each has as symbols, `count` of them, is in no other program, so that names have to be asked for.
fn program(count: usize) -> (TempDir, Running) {
    let folder = folder().expect("a folder");
    let (source, program) = (folder.path().join("main.c"), folder.path().join(NAME));
    let functions = "asm(\".macro one\\nf\\\\@: .skip 16\\n.type f\\\\@,@function\\n.size f\\\\@,16\\n.endm\\n";
    let text =
        format!("{functions}.rept {count}\\none\\n.endr\");\nvolatile long n;\nint main(void) {{ for (;;) n++; }}\n");
    fs::write(&source, text).expect("its source");
    children::run_well(Command::new("gcc").arg("-o").args([&program, &source]), PATIENCE).expect("it is built");
    let running = children::start(&mut Command::new(&program)).expect("it starts");
    (folder, running)
}

#[test]
fn root_a_namer_that_is_killed_stopped_or_starved_costs_no_sample_and_names_come_back() {
    let test = "root_a_namer_that_is_killed_stopped_or_starved_costs_no_sample_and_names_come_back";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    type Harm = fn(u32);
    let harms: [(usize, Harm); 3] = [
        (20, |namer| kill_process(pid(namer), Signal::KILL).expect("it is there")),
        (21, |namer| kill_process(pid(namer), Signal::STOP).expect("it is there")),
        // Less than it has already: there is no memory for a table of so many symbols.
        (60_000, |namer| {
            let limit = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
            prlimit(Some(pid(namer)), Resource::Data, limit).expect("it is limited");
        }),
    ];
    let mut configuration = Configuration::new(99, &[NAME], String::new());
    configuration.more = "limits: {cpu: 100%}\n".to_owned();
    let mut agent = Agent::start(&configuration).expect("an agent");
    let first = program(22);
    agent.wait("a window", PATIENCE, |now| now.published() > 50).expect("it");
    let mut running = vec![first];
    for (length, harm) in harms {
        let namer = namer_of(&agent);
        let before = agent.metrics().expect("metrics");
        harm(namer);
        running.push(program(length));
        let now = agent.wait("windows", PATIENCE, |now| {
            troubles(now) > troubles(&before) && now.published() > before.published() + 100
        });
        let now = now.unwrap_or_else(|error| panic!("{length}: {error}\n{}", agent.log()));
        assert_ne!(namer_of(&agent), namer, "another names");
        let lost = now.sum("profiler_samples_lost_total", &[]) - before.sum("profiler_samples_lost_total", &[]);
        // Beside a compiler some are late on any machine; a window that waited for a namer in vain would be all of them.
        let sampled = (now.published() - before.published()) as f64;
        assert!(lost < sampled * 0.05, "{length}: {lost} samples are lost, {sampled} are not");
    }
    // And whatever has set it aside is over.
    let published = agent.metrics().expect("metrics").published();
    agent.wait("windows", PATIENCE, |now| now.published() > published + 300).expect("them");
    let until = Instant::now() + PATIENCE;
    while children_of(agent.pid()).iter().any(|(.., state)| *state == 'Z') {
        assert!(Instant::now() < until, "zombies: {:?}", children_of(agent.pid()));
        sleep(Duration::from_millis(50));
    }
    let (all, pids): (_, Vec<u32>) =
        (children_of(agent.pid()), running.iter().map(|(_, program)| program.pid()).collect());
    let (home, status, log) = agent.stop().expect("it ends");
    assert!(status.success(), "{log}");
    for (orphan, name, _) in all {
        assert!(!fs::exists(format!("/proc/{orphan}")).unwrap_or(false), "{name} has no parent");
    }
    let sampled = seen(&home.record().expect("a record"));
    for of in pids {
        let of = of.to_string();
        let own: Vec<_> = sampled.iter().filter(|one| plain(&one.resource, "process.pid") == of).cloned().collect();
        let rows = as_rows(&own);
        let is_named = |name: &str| {
            rows.iter().any(|row| row.frames.iter().any(|frame| frame.functions.iter().any(|f| is_function(f, name))))
        };
        assert!(is_named("main"), "{of} has no names in {} rows\n{log}", rows.len());
    }
    running.iter().for_each(|(_, program)| program.signal(Signal::KILL));
}
