//! The same run seen by perf, and our files read by Go's pprof.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use profiler_integration::environment::{find, have_root, have_tools, one_at_a_time};
use profiler_integration::perf::Perf;
use profiler_integration::programs::{self, Program};
use profiler_integration::proof::HERTZ;
use profiler_integration::recording::{Recorder, record_command};
use profiler_integration::rows::{Row, is_function, rows};
use profiler_integration::shares::{by_group, by_leaf, off_from_each_other};
use profiler_integration::truth::Truth;
use profiler_integration::verdict::{COMPLETE, verdict};
use profiler_integration::{Error, children};

const PATIENCE: Duration = Duration::from_secs(60);

/// One run of `program`, recorded by us and by perf at once.
fn both(program: &Path, arguments: &[&str]) -> Result<(Vec<Row>, Vec<Row>, Truth), Error> {
    let target = children::start(Command::new(program).args(arguments))?;
    let perf = Perf::attach(target.pid(), HERTZ)?;
    let started = Recorder::new(HERTZ)?.arg("-p").arg(target.pid().to_string()).start()?;
    sleep(Duration::from_millis(100));
    let pid = target.pid();
    let output = target.wait(PATIENCE)?.stdout;
    let ours = rows(&started.stop()?.profile).into_iter().filter(|row| row.pid == pid).collect();
    let theirs = perf.finish()?.into_iter().filter(|row| row.pid == pid).collect();
    Ok((ours, theirs, Truth::find(&program.display().to_string(), &output)?))
}

fn agrees_with_perf(test: &str, program: &Program, arguments: &[&str]) {
    if !have_root(test) || !have_tools(test, &["perf"]) {
        return;
    }
    let _one = one_at_a_time();
    let file = program.build().unwrap_or_else(|error| panic!("{error}"));
    let attempt = || {
        let (ours, theirs, truth) = both(&file, arguments).unwrap_or_else(|error| panic!("{test}: {error}"));
        let groups: Vec<&str> = truth.shares.keys().map(String::as_str).collect();
        let mut off = off_from_each_other(&by_group(&ours, &groups), &by_group(&theirs, &groups));
        let (ours, theirs) = (leaves(&ours), leaves(&theirs));
        println!("{test}: self, ours {ours:?}, perf {theirs:?}");
        off.extend(off_from_each_other(&ours, &theirs));
        off
    };
    let mut off = attempt();
    if !off.is_empty() {
        println!("{test}: once more, since one share in a few hundred is outside of three sigma by chance: {off:?}");
        off = attempt();
    }
    assert!(off.is_empty(), "{test}: {}", off.join("\n"));
}

/// Samples by user function on top. Functions under 1 % are put together, since tools name stubs differently.
fn leaves(rows: &[Row]) -> BTreeMap<String, u64> {
    let all = by_leaf(rows, true);
    let total: u64 = all.values().sum();
    let mut large = BTreeMap::new();
    for (name, count) in all {
        let short = ["hot_a", "hot_b_step", "hot_b", "hot_c", "hot_d", "do_memcpy", "do_qsort", "by_value"]
            .into_iter()
            .find(|known| is_function(&name, known));
        let key = short.map_or(if count * 100 >= total { name } else { "small".into() }, str::to_owned);
        *large.entry(key).or_default() += count;
    }
    large
}

#[test]
fn root_shares_agree_with_perf_in_c() {
    agrees_with_perf("root_shares_agree_with_perf_in_c", &programs::c("shares"), &["--ms", "4000", "--depth", "5"]);
}

#[test]
fn root_shares_agree_with_perf_in_rust() {
    if !have_root("root_shares_agree_with_perf_in_rust")
        || !have_tools("root_shares_agree_with_perf_in_rust", &["perf"])
    {
        return;
    }
    let _one = one_at_a_time();
    let file = programs::rust("shares").build().unwrap_or_else(|error| panic!("{error}"));
    let attempt = || {
        let (ours, theirs, truth) = both(&file, &["--ms", "4000"]).unwrap_or_else(|error| panic!("{error}"));
        let groups: Vec<&str> = truth.shares.keys().map(String::as_str).collect();
        off_from_each_other(&by_group(&ours, &groups), &by_group(&theirs, &groups))
    };
    let off = attempt();
    let off = if off.is_empty() { off } else { attempt() };
    assert!(off.is_empty(), "{}", off.join("\n"));
}

#[test]
fn root_go_tool_pprof_reads_the_file() {
    let test = "root_go_tool_pprof_reads_the_file";
    if !have_root(test) || !have_tools(test, &["go"]) {
        return;
    }
    let _one = one_at_a_time();
    let file = programs::c("shares").build().expect("it builds");
    let recorded = record_command(HERTZ, &file, &["--ms", "1500"]).expect("a recording");
    let go = find("go").expect("found above");
    let pprof = |option: &str| {
        children::run_well(
            Command::new(&go).env("GOFLAGS", "-mod=mod").args(["tool", "pprof", option]).arg(&recorded.recording.file),
            Duration::from_secs(180),
        )
        .unwrap_or_else(|error| panic!("{error}"))
        .stdout
    };
    let top = pprof("-top");
    assert!(top.contains("Type: cpu"), "{top}");
    let line =
        |name: &str| top.lines().find(|line| line.split_whitespace().any(|word| word == name)).map(str::to_owned);
    let flat = |name: &str| {
        let line = line(name).unwrap_or_else(|| panic!("{name} is not in\n{top}"));
        let share = line.split_whitespace().nth(1).and_then(|share| share.trim_end_matches('%').parse::<f64>().ok());
        share.unwrap_or_else(|| panic!("no share in {line}"))
    };
    assert!((40.0..60.0).contains(&flat("hot_a")), "{top}");
    assert!((10.0..20.0).contains(&flat("hot_c")), "{top}");
    let traces = pprof("-traces");
    assert!(traces.contains("level1") && traces.contains("spin_shares"), "{traces}");
    let raw = pprof("-raw");
    assert!(
        raw.contains("samples/count") && raw.contains("cpu/nanoseconds"),
        "{}",
        raw.lines().take(10).collect::<String>()
    );
}

/// Who checks the programs? Their shares and callers, as perf sees them.
#[test]
fn root_the_truth_is_what_perf_sees() {
    let test = "root_the_truth_is_what_perf_sees";
    if !have_root(test) || !have_tools(test, &["perf"]) {
        return;
    }
    let _one = one_at_a_time();
    let realigned = ["-mavx2", "-mstackrealign"];
    for (program, arguments) in [
        (programs::c("shares"), &["--ms", "2000", "--depth", "9"][..]),
        (programs::c("signals"), &["--ms", "2000"]),
        (programs::c("longjmp"), &["--ms", "2000"]),
        (programs::c("libc_asm"), &["--ms", "2000"]),
        (programs::c("realign").flags(&realigned), &["--ms", "2000"]),
        (programs::cpp("shares").flags(&["-std=c++17"]), &["--ms", "2000", "--depth", "4"]),
        (programs::rust("shares"), &["--ms", "2000"]),
    ] {
        let file = program.build().unwrap_or_else(|error| panic!("{error}"));
        let attempt = || {
            let target = children::start(Command::new(&file).args(arguments))?;
            let perf = Perf::attach(target.pid(), HERTZ)?;
            let output = target.wait(PATIENCE)?.stdout;
            let truth = Truth { is_partial: true, ..Truth::find(&file.display().to_string(), &output)? };
            Ok::<_, Error>(verdict(&perf.finish()?, &truth, HERTZ, COMPLETE, |_| false))
        };
        let mut found = attempt().unwrap_or_else(|error| panic!("{error}"));
        if !found.shares.is_empty() {
            found = attempt().unwrap_or_else(|error| panic!("{error}"));
        }
        println!("{}: {}", file.display(), found.summary());
        assert!(found.shares.is_empty(), "{}: {:?}", file.display(), found.shares);
        // perf loses a stack now and then, and cannot be the judge of 99.9 %; most callers are enough to confirm a chain. It
        // copies one piece of stack, so it sees an alternate signal stack or what is below, not both.
        let is_signals = file_name(&file) == "signals";
        assert!(is_signals || found.wrong_chains * 10 < found.in_groups, "{}: {:?}", file.display(), found.problems);
    }
}

fn file_name(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
