//! A sampling session as the agent runs it: rate and targets change live, memory and tables are given back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use profiler::pipeline::{
    Aggregate, Budgets, Early, Names, Session, SessionOptions, Tally, assemble, files, process_facts,
};
use profiler_bpf::{Counter, Source, Targets};
use profiler_integration::children::{self, Running, copy_program};
use profiler_integration::environment::{have, have_root, one_at_a_time};
use profiler_integration::programs::{self, Program};
use profiler_integration::recording::folder;
use profiler_integration::rows::{Row, rows_of};
use profiler_integration::shares::{by_group, off_from_truth};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::verdict;
use profiler_resource::{KubernetesOptions, KubernetesSource, ResourceOptions, Resources};
use profiler_rules::Level;
use profiler_symbolizer::Symbolizer;
use profiler_targets::{Rule, TargetRules};
use profiler_unwinders::executable::{Executables, htlhash};
use rustix::process::Signal;

use crate::cgroup::Group;

const PATIENCE: Duration = Duration::from_secs(120);
/// How often the session is stepped.
const STEP: Duration = Duration::from_millis(50);

fn build(program: &Program) -> PathBuf {
    program.build().unwrap_or_else(|error| panic!("{error}"))
}

fn session(targets: Targets, frequency: u64, budgets: Budgets) -> Session {
    let sampler = profiler_bpf::Options {
        sources: vec![Source::cpu_clock(frequency)],
        targets,
        ring_bytes: 8 << 20,
        btf: None,
        without_task_pt_regs: false,
    };
    Session::new(SessionOptions { sampler, budgets, sideband_bytes: 1 << 19, reading: Box::new(Executables::new()) })
        .expect("a session")
}

fn run(session: &mut Session, time: Duration) {
    run_until(session, time, |_| false);
}

/// Steps until `done` says so; false if `patience` ended before.
fn run_until(session: &mut Session, patience: Duration, mut done: impl FnMut(&mut Session) -> bool) -> bool {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        session.step(STEP).expect("a step");
        if done(session) {
            return true;
        }
    }
    false
}

/// Takes what was sampled, with everything that is still in the rings.
fn take(session: &mut Session) -> Aggregate {
    // The collector empties the rings at least every 200 ms.
    run(session, Duration::from_millis(600));
    session.take_aggregate()
}

/// Samples by period, named.
fn named(session: &mut Session, aggregate: &Aggregate) -> BTreeMap<u64, Vec<Row>> {
    let mut names = Names::once(Symbolizer::new(profiler_symbolizer::Options::default()));
    let files = files(aggregate, session.reading());
    let kubernetes = KubernetesOptions { source: KubernetesSource::Off, ..KubernetesOptions::default() };
    let resources = Resources::start(ResourceOptions { kubernetes, ..ResourceOptions::default() }).expect("resources");
    let profiles = assemble(aggregate, &mut names, &files, &resources, session.clock());
    profiles.profiles.iter().map(|part| (part.period.unsigned_abs(), rows_of(&profiles, part))).collect()
}

/// Samples by process.
fn by_pid(aggregate: &Aggregate) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for sample in aggregate.samples() {
        let image = aggregate.threads[sample.thread as usize].image;
        *counts.entry(aggregate.images[image as usize].pid).or_default() += 1;
    }
    counts
}

/// CPU time of a process's main thread, ns; as old as a scheduler's tick.
fn cpu_ns(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).expect("a process that runs");
    text.split_ascii_whitespace().next().and_then(|ns| ns.parse().ok()).expect("a number")
}

fn spin(file: &Path, ms: u64) -> Running {
    children::start(Command::new(file).args(["--ms", &ms.to_string()])).expect("it starts")
}

#[test]
fn root_rate_changes_live_and_every_sample_has_its_own_period() {
    let test = "root_rate_changes_live_and_every_sample_has_its_own_period";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let file = build(&programs::c("shares"));
    let target = spin(&file, 21_000);
    let pid = target.pid();
    let mut session = session(Targets::Processes(vec![pid]), 99, Budgets::default());
    session.prepare(&[pid]);
    session.start().expect("clocks");
    let mut due = BTreeMap::<u64, f64>::new();
    let mut changes = 0.0;
    for (frequency, seconds) in [(99u64, 4), (9, 5), (99, 3), (999, 3)] {
        session.set_frequency(frequency).expect("the rate is allowed");
        let before = cpu_ns(pid);
        run(&mut session, Duration::from_secs(seconds));
        *due.entry(1_000_000_000 / frequency).or_default() += (cpu_ns(pid) - before) as f64;
        changes += 1.0;
    }
    let used: f64 = due.values().sum();
    session.set_frequency(99).expect("the rate is allowed");
    let sampled = take(&mut session);
    let lost = session.totals();
    assert_eq!((lost.kernel(Counter::RingFull), lost.session(Tally::IntakeDropped)), (0, 0));
    session.finish().expect("an end");
    let output = target.wait(PATIENCE).expect("its end").stdout;
    let truth = Truth::find("shares", &output).expect("its truth");

    let mut weighed = 0.0;
    for (period, rows) in &named(&mut session, &sampled) {
        let series = sampled.series.iter().find(|series| series.measure.period == *period).expect("its samples");
        let count = series.samples.len() as f64;
        // At 99 Hz a little more was sampled while the rest was taken.
        let more = if *period == 1_000_000_000 / 99 { 0.7 * 99.0 } else { 0.0 };
        let expected = due.get(period).unwrap_or_else(|| panic!("samples of a period of {period} ns")) / *period as f64;
        println!("{test}: {period} ns: {count} samples, {expected:.1} due");
        let noise = 3.0 * expected.sqrt() + 2.0;
        assert!(
            count > expected - noise && count < expected + noise + more,
            "{count} samples where {expected:.1} are due"
        );
        weighed += count * *period as f64;
        let groups: Vec<&str> = truth.shares.keys().map(String::as_str).collect();
        let off = off_from_truth(&truth.shares, &by_group(rows, &groups));
        // Three sigma on several shares at three rates: one may be out by noise.
        assert!(off.len() < 2, "{off:?}");
    }
    assert_eq!(sampled.series.len(), 3, "one series a period");
    // A clock begins a new period at each change, on each CPU that the process was on.
    let slack = 0.05 * used + changes * 1e9 / 9.0;
    assert!((weighed - used).abs() < slack + 0.7e9, "{weighed} ns sampled of {used} ns used");
}

#[test]
fn root_targets_change_live_by_every_kind_of_rule() {
    let test = "root_targets_change_live_by_every_kind_of_rule";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let file = build(&programs::c("shares"));
    let folder = folder().expect("a folder");
    let start = |name: &str| {
        let copy = folder.path().join(name);
        copy_program(&file, &copy).expect("a copy");
        spin(&copy, 60_000)
    };
    let (one, two) = (start("rule-one"), start("rule-two"));
    let (first, second) = (one.pid(), two.pid());
    let group = Group::new(folder.path());
    let have_group = have(test, group.is_some(), "a hierarchy of cgroup v2 that is mounted, or can be");

    let mut session = session(Targets::Rules, 199, Budgets::default());
    session.start().expect("clocks");
    let seen = |session: &mut Session, rules: TargetRules, what: &str| {
        session.set_targets(rules);
        // Samples from before the change that were still in the rings.
        take(session);
        let before = session.totals();
        run(session, Duration::from_millis(1500));
        let counts = by_pid(&take(session));
        let after = session.totals();
        println!(
            "{test}: {what}: {counts:?}, filtered {} + {}",
            after.kernel(Counter::Filtered) - before.kernel(Counter::Filtered),
            after.session(Tally::Filtered) - before.session(Tally::Filtered)
        );
        let lost =
            (after.kernel(Counter::RingFull), after.session(Tally::IntakeDropped), after.session(Tally::OverBudget));
        assert_eq!(lost, (0, 0, 0), "{what}");
        (
            counts,
            after.kernel(Counter::Filtered) - before.kernel(Counter::Filtered),
            after.session(Tally::Filtered) - before.session(Tally::Filtered),
        )
    };
    let only = |rule: Rule| TargetRules { include: vec![rule], ..TargetRules::default() };
    let strings = |text: &str| vec![text.to_owned()];

    let (all, filtered, _) = seen(&mut session, TargetRules::default(), "all");
    assert!(all.contains_key(&first) && all.contains_key(&second) && filtered == 0);

    let (counts, filtered, late) = seen(&mut session, only(Rule { pids: vec![first], ..Rule::default() }), "pid");
    assert!(counts.keys().eq([&first]), "{counts:?}");
    // What is refused is known after one sample: then the kernel half refuses it.
    assert!(filtered > 20 && late < filtered, "{filtered} {late}");

    let (counts, ..) = seen(&mut session, only(Rule { comms: strings("rule-tw*"), ..Rule::default() }), "comm");
    assert!(counts.keys().eq([&second]), "{counts:?}");

    let path = folder.path().join("rule-one").display().to_string();
    let by_path = Rule { executables: strings(&path), ..Rule::default() };
    let (counts, ..) = seen(&mut session, only(by_path.clone()), "path");
    assert!(counts.keys().eq([&first]), "{counts:?}");

    let without = TargetRules {
        include: vec![Rule { executables: strings("rule-*"), ..Rule::default() }],
        exclude: vec![by_path],
        ..TargetRules::default()
    };
    let (counts, ..) = seen(&mut session, without.clone(), "excluded");
    assert!(counts.keys().eq([&second]), "{counts:?}");

    let (counts, ..) = seen(&mut session, TargetRules { min_age: Duration::from_secs(3600), ..without }, "age");
    assert!(counts.is_empty(), "{counts:?}");

    if let Some(group) = group.as_ref().filter(|_| have_group) {
        use std::os::unix::fs::MetadataExt;
        let id = fs::metadata(&group.folder).expect("it was made").ino();
        let name = format!("/{}", group.folder.file_name().expect("a name").display());
        for rule in
            [Rule { cgroups: strings(&name), ..Rule::default() }, Rule { cgroup_ids: vec![id], ..Rule::default() }]
        {
            group.leave(second);
            let (counts, ..) = seen(&mut session, only(rule), "not in the group");
            assert!(counts.is_empty(), "{counts:?}");
            // Nobody tells that it moves there: the kernel half sees that its verdict was of another group.
            group.enter(second);
            run(&mut session, Duration::from_millis(1500));
            let counts = by_pid(&take(&mut session));
            assert!(counts.keys().eq([&second]), "{counts:?}");
        }
        group.leave(second);
    }

    let (all, ..) = seen(&mut session, TargetRules::default(), "all again");
    assert!(all.contains_key(&first) && all.contains_key(&second));
    assert_eq!(session.table_use().verdicts, 0);
    drop((one, two));
}

#[test]
fn root_images_are_told_of_once_and_while_they_live() {
    let test = "root_images_are_told_of_once_and_while_they_live";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let target = spin(&build(&programs::c("shares")), 60_000);
    let pid = target.pid();
    let mut session = session(Targets::Rules, 199, Budgets::default());
    session.start().expect("clocks");
    let mut told = Vec::new();
    let found = run_until(&mut session, PATIENCE, |session| {
        told.extend(session.new_images().into_iter().filter(|image| image.pid == pid));
        !told.is_empty()
    });
    assert!(found, "no image of {pid}");
    for _ in 0..3 {
        assert!(by_pid(&take(&mut session)).contains_key(&pid), "it is sampled on");
    }
    told.extend(session.new_images().into_iter().filter(|image| image.pid == pid));
    assert_eq!(told.len(), 1, "{told:?}");
    let image = &told[0];
    assert_eq!(image.comm.as_bytes(), b"shares");
    assert!(image.exe.ends_with(b"/shares"), "{}", String::from_utf8_lossy(&image.exe));
    assert!(image.start_unix_ns > 0 && image.start_time_ns > 0 && image.namespace_pid == pid);
    assert_eq!(image.cgroup.is_some(), Path::new("/proc/self/cgroup").exists());
}

#[test]
fn root_rows_make_room_under_their_budget_and_stacks_stay_true() {
    let test = "root_rows_make_room_under_their_budget_and_stacks_stay_true";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let go = build(&programs::go("shares"));
    let c = build(&programs::c("shares"));
    let cpp = build(&programs::cpp("shares"));
    let pie = build(&programs::go("shares").flags(&["-buildmode=pie"]));
    // One slab: less than the rows of all of them together.
    let budgets = Budgets { rows: 256 << 10, ..Budgets::default() };
    let mut session = session(Targets::Rules, 299, budgets);
    session.set_targets(TargetRules {
        include: vec![Rule { comms: vec!["shares".to_owned()], ..Rule::default() }],
        ..TargetRules::default()
    });
    session.start().expect("clocks");
    let mut sleeping = Vec::new();
    for (round, file) in [&go, &c, &cpp, &pie, &go, &c].into_iter().enumerate() {
        if round < 4 {
            // Processes that sleep from now on need no rows, but their executables stay mapped.
            let loaded = session.unwind_stats().loaded;
            let sleeper = spin(file, 600_000);
            let is_loaded = run_until(&mut session, PATIENCE, |session| session.unwind_stats().loaded > loaded);
            assert!(is_loaded, "{}: {:?}", file.display(), session.unwind_stats());
            sleeper.signal(Signal::STOP);
            sleeping.push(sleeper);
        }
        session.take_aggregate();
        let mut target = children::start(Command::new(file).args(["--ms", "2500"])).expect("it starts");
        assert!(run_until(&mut session, PATIENCE, |_| !target.is_running()), "it ends");
        let output = target.wait(PATIENCE).expect("its end").stdout;
        let truth = Truth { is_partial: true, ..Truth::find(&file.display().to_string(), &output).expect("its truth") };
        let (mut own, table) = (Vec::new(), session.table_use().kernel);
        let taken = take(&mut session);
        own.extend(named(&mut session, &taken).into_values().flatten().filter(|row| row.pid == truth.pid));
        // First samples on two stacks, and those of code that has yet to get room.
        let found = verdict(&own, &truth, 299, 0.98, |_| false);
        println!("{test}: {}: {}; {table:?}; {:?}", file.display(), found.summary(), session.unwind_stats());
        let problems: Vec<_> = found.problems.iter().filter(|problem| !found.shares.contains(problem)).collect();
        assert!(problems.is_empty() && found.samples > 200, "{problems:?}");
        assert!(table.native.slabs == 1 && table.native.rows <= 65_536);
        assert!(session.memory().rows <= 256 << 10);
    }
    assert!(session.unwind_stats().evicted > 0, "{:?}", session.unwind_stats());
}

#[test]
fn root_a_rule_refuses_a_process_before_its_stack_is_walked() {
    let test = "root_a_rule_refuses_a_process_before_its_stack_is_walked";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let file = build(&programs::c("shares"));
    let start = |ms: u64, service: &str| {
        let mut command = Command::new(&file);
        children::start(command.args(["--ms", &ms.to_string()]).env("OTEL_SERVICE_NAME", service)).expect("it starts")
    };
    let early = |service: &str| {
        let mut early = Early::default();
        let rule = format!(r#"attributes["service.name"] == "{service}""#);
        let why = early.dropping("filter", Level::Resource, &[rule]).expect("right");
        assert_eq!(why, [None]);
        Arc::new(early)
    };
    let kubernetes = KubernetesOptions { source: KubernetesSource::Off, ..KubernetesOptions::default() };
    let resources = Resources::start(ResourceOptions { kubernetes, ..ResourceOptions::default() }).expect("resources");
    let mut session = session(Targets::Rules, 299, Budgets::default());
    session.set_targets(TargetRules {
        include: vec![Rule { comms: vec!["shares".to_owned()], ..Rule::default() }],
        ..TargetRules::default()
    });
    session.set_early(early("batch"));
    session.start().expect("clocks");
    let until = |session: &mut Session, done: &mut dyn FnMut(&mut Session) -> bool| {
        let has_come = run_until(session, PATIENCE, |session| {
            for image in session.new_images() {
                resources.learn(&process_facts(&image, &image.comm.to_text()));
            }
            session.rule_out(&resources);
            done(session)
        });
        assert!(has_come, "{:?}", session.totals());
    };
    let ruled_out = |session: &Session| session.totals().kernel(Counter::RuledOut);

    // No stack of it is walked while its samples are counted.
    let batch = start(600_000, "batch");
    until(&mut session, &mut |session| ruled_out(session) > 50);
    // Those that were taken before are on their way.
    let before = take(&mut session);
    assert!(by_pid(&before).contains_key(&batch.pid()), "sampled until it was known who it is");
    let (before, frames) = (ruled_out(&session), session.totals().kernel(Counter::Frames));
    until(&mut session, &mut |session| ruled_out(session) > before + 300);
    let frames = session.totals().kernel(Counter::Frames) - frames;
    // Each of its stacks has several; who else is new on the host is sampled once, until it is known to be no target.
    let refused = ruled_out(&session) - before;
    assert!(frames < refused, "{frames} frames were walked while {refused} samples were refused");
    assert!(!by_pid(&take(&mut session)).contains_key(&batch.pid()));

    // Another program's samples are as ever.
    let mut shop = start(2500, "shop");
    let shop_pid = shop.pid();
    until(&mut session, &mut |_| !shop.is_running());
    let output = shop.wait(PATIENCE).expect("its end").stdout;
    let truth = Truth { is_partial: true, ..Truth::find("shares", &output).expect("its truth") };
    let taken = take(&mut session);
    assert!(by_pid(&taken).keys().eq([&shop_pid]), "{:?}", by_pid(&taken));
    let rows: Vec<_> = named(&mut session, &taken).into_values().flatten().filter(|row| row.pid == truth.pid).collect();
    let found = verdict(&rows, &truth, 299, 0.98, |_| false);
    println!("{test}: {refused} refused and {frames} frames walked; {}", found.summary());
    let problems: Vec<_> = found.problems.iter().filter(|problem| !found.shares.contains(problem)).collect();
    assert!(problems.is_empty() && found.samples > 200, "{problems:?}");
    // Two counts are the same while nothing is counted.
    batch.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(session.totals().ruled_out.get("filter"), Some(&ruled_out(&session)));
    batch.signal(Signal::CONT);

    // Other rules bring it back, and what was counted stays.
    let before = ruled_out(&session);
    session.set_early(early("other"));
    until(&mut session, &mut |session| by_pid(session.aggregate()).get(&batch.pid()).is_some_and(|count| *count > 50));
    assert_eq!(session.totals().ruled_out.values().sum::<u64>(), ruled_out(&session));
    assert!(ruled_out(&session) >= before);
    session.set_early(Arc::default());
    session.finish().expect("an end");
}

#[test]
fn root_rows_of_a_large_program_wait_for_no_memory_of_the_kernel() {
    let test = "root_rows_of_a_large_program_wait_for_no_memory_of_the_kernel";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let mut session = session(Targets::Processes(vec![std::process::id()]), 49, Budgets::default());
    // No clock runs: a sample of this process would ask for its rows, when nothing may be ready yet.
    let spare = |session: &mut Session| session.table_use().kernel.native.slabs;
    assert!(run_until(&mut session, PATIENCE, |session| spare(session) > 1), "none are made ahead");
    // Those that are used may be made good while the others' rows are compiled.
    let before = spare(&mut session);
    // This program: debug builds have several slabs of rows.
    session.prepare(&[std::process::id()]);
    let table = session.table_use().kernel.native;
    assert!(table.rows > 65_536, "more than a slab holds: {table:?}");
    // What needs more than is made ahead waits for the rest.
    let waited = session.unwind_stats().waited;
    assert!(waited == 0 || table.rows > before as u64 * 65_536, "waited {waited} times: {table:?}");
    assert!(run_until(&mut session, PATIENCE, |session| spare(session) > before), "used ones are made good");
}

#[test]
fn root_tables_are_as_before_when_processes_have_ended() {
    let test = "root_tables_are_as_before_when_processes_have_ended";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let file = build(&programs::c("shares"));
    let folder = folder().expect("a folder");
    let mut session = session(Targets::Rules, 999, Budgets::default());
    // Of others on the host the tables shall know nothing.
    session.set_targets(TargetRules {
        include: vec![Rule { comms: vec!["churn-*".to_owned()], ..Rule::default() }],
        ..TargetRules::default()
    });
    session.start().expect("clocks");
    run(&mut session, Duration::from_secs(1));
    let before = session.table_use();
    let mut most = before.kernel;
    for round in 0..10 {
        // Each of its own content, as builds of one program are.
        let copy = folder.path().join(format!("churn-{round}"));
        copy_program(&file, &copy).expect("a copy");
        let appended = format!("printf 'round {round}' >> '{}'", copy.display());
        children::run_well(Command::new("sh").args(["-c", &appended]), PATIENCE).expect("it is appended");
        let mut running: Vec<Running> = (0..6).map(|_| spin(&copy, 60)).collect();
        let has_ended = run_until(&mut session, PATIENCE, |session| {
            let now = session.table_use().kernel;
            most.processes = most.processes.max(now.processes);
            most.mappings = most.mappings.max(now.mappings);
            most.native.executables = most.native.executables.max(now.native.executables);
            most.native.rows = most.native.rows.max(now.native.rows);
            !running.iter_mut().any(Running::is_running)
        });
        assert!(has_ended, "round {round}");
        session.take_aggregate();
    }
    println!("{test}: before {before:?}\nmost {most:?}");
    assert!(most.processes > before.kernel.processes && most.mappings > before.kernel.mappings);
    assert!(most.native.executables >= 8 && most.native.rows > 1000);
    let is_back = run_until(&mut session, PATIENCE, |session| {
        session.take_aggregate();
        let now = session.table_use();
        now.kernel.processes <= before.kernel.processes
            && now.kernel.mappings <= before.kernel.mappings
            && now.kernel.native.executables <= before.kernel.native.executables
            && now.kernel.native.rows <= before.kernel.native.rows
            && now.kernel.native.row_pages <= before.kernel.native.row_pages
            && now.sampled_images <= before.sampled_images
    });
    let after = session.table_use();
    println!("{test}: after {after:?}\n{:?}", session.memory());
    assert!(is_back, "before {before:?}\nafter {after:?}");
}

#[test]
fn root_a_process_of_50_000_mappings_is_bounded_and_sampled() {
    let test = "root_a_process_of_50_000_mappings_is_bounded_and_sampled";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok());
    let count = limit.unwrap_or(65_530u64).saturating_sub(1000).min(50_000);
    let file = build(&programs::c("mappings"));
    let arguments = ["--ms", "4000", "--count", &count.to_string()];
    let mut session = session(Targets::Rules, 199, Budgets::default());
    session.set_targets(TargetRules {
        include: vec![Rule { comms: vec!["mappings".to_owned()], ..Rule::default() }],
        ..TargetRules::default()
    });
    session.start().expect("clocks");
    let mut target = children::start(Command::new(&file).args(arguments)).expect("it starts");
    let pid = target.pid();
    let mut most = session.table_use();
    let mut memory = session.memory().total();
    assert!(run_until(&mut session, PATIENCE, |session| {
        let now = session.table_use();
        most.kernel.mappings = most.kernel.mappings.max(now.kernel.mappings);
        memory = memory.max(session.memory().total());
        !target.is_running()
    }));
    let output = target.wait(PATIENCE).expect("its end").stdout;
    let truth = Truth::find("mappings", &output).expect("its truth");
    let mut own = Vec::new();
    let taken = take(&mut session);
    own.extend(named(&mut session, &taken).into_values().flatten().filter(|row| row.pid == pid));
    let found = verdict(&own, &truth, 199, 0.99, |_| false);
    println!("{test}: {}; {most:?}; {memory} bytes at most; {:?}", found.summary(), session.totals());
    assert!(most.kernel.mappings <= 65_536);
    assert!(memory < 96 << 20, "{memory} bytes");
    // Its own code is among what fits: shares are those of the truth's one group.
    let burn: u64 = own.iter().filter(|row| row.describe().contains("mappings_burn")).map(|row| row.count).sum();
    let due = truth.cpu_ns as f64 * 199.0 / 1e9;
    assert!(burn as f64 > due * 0.9 - 3.0, "{burn} samples of {due:.0}");
    assert!(found.completeness.share() > 0.9, "{:?}", found.completeness.evidence);
}

#[test]
fn root_process_first_sampled_in_exec_has_its_program_from_the_first_window_on() {
    let test = "root_process_first_sampled_in_exec_has_its_program_from_the_first_window_on";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let file = build(&programs::c("shares"));
    let mut session = session(Targets::All, 4_999, Budgets::default());
    session.start().expect("clocks");
    let script = format!("for i in $(seq 100); do {} --ms 60 >/dev/null; done", file.display());
    let shell = children::start(Command::new("sh").args(["-c", &script])).expect("a shell");
    let mut programs: BTreeMap<u32, Vec<Option<String>>> = BTreeMap::new();
    for _ in 0..120 {
        run(&mut session, STEP);
        for image in &session.take_aggregate().images {
            if image.exe.ends_with(b"shares") {
                let program = image.executable.as_ref().map(|executable| executable.htlhash.clone());
                programs.entry(image.serial).or_default().push(program);
            }
        }
    }
    session.finish().expect("an end");
    drop(shell);
    let several = programs.values().filter(|programs| programs.len() > 1).count();
    println!("{test}: {} images, {several} in several windows", programs.len());
    assert!(several > 20, "{several}");
    let expected = Some(htlhash(&fs::read(&file).expect("the program")));
    let change: Vec<_> =
        programs.values().filter(|programs| programs.iter().any(|program| *program != expected)).collect();
    // A window that ends in the midst of an exec cannot know it; that is one in a thousand here.
    assert!(change.len() <= 2, "{} of {} change: {:?}", change.len(), programs.len(), change[0]);
}
