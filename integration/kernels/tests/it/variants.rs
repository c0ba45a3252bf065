//! Code paths that this machine's kernel would not take by itself, forced through the library and proved on real stacks.

use std::fs;
use std::path::{Path, PathBuf};

use profiler_bpf::Options;
use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::programs::{self, Linking};
use profiler_integration::rows::rows;
use profiler_integration::verdict::{Verdict, verdict};
use profiler_kernels::judge::in_the_kernel;
use profiler_kernels::loaded::{Loaded, loaded};
use profiler_kernels::rate;

mod watch;

use watch::{Watched, everything, watch};

const HERTZ: u64 = 499;
/// As on the kernels of the matrix: unlike `profiler record`, the recorder here does not go before other load of the host, so a few
/// first samples may come before their process is known.
const COMPLETE: f64 = 0.99;

fn build(program: programs::Program) -> PathBuf {
    program.build().unwrap_or_else(|error| panic!("{error}"))
}

/// Records `program` and tells what of the kernel half was loaded meanwhile.
fn recorded(options: Options, program: &Path) -> (Watched, Loaded) {
    let mut seen = None;
    let watched = watch(options, program, &["--ms", "2000"], |_, _| {
        if seen.is_none() {
            // Ids rise: the last one is ours.
            seen = loaded()?.into_iter().rfind(|program| program.name == "sample_cpu");
        }
        Ok(())
    });
    let watched = watched.unwrap_or_else(|error| panic!("{error}"));
    (watched, seen.expect("the sampling program was seen while it ran"))
}

fn judged(watched: &Watched) -> Verdict {
    let pid = watched.truth.pid_on_host();
    let own: Vec<_> = rows(&watched.profile).into_iter().filter(|row| row.pid == pid).collect();
    let mut found = verdict(&own, &watched.truth, HERTZ as u32, COMPLETE, |_| false);
    if watched.truth.program == "c/syscalls"
        && let Err(problem) = in_the_kernel(&own)
    {
        found.problems.push(problem);
    }
    found
}

/// Records until nothing is wrong, at most twice, as `proof` does: what disturbs a host for a moment passes, a fault stays.
fn prove(test: &str, options: impl Fn() -> Options, program: &Path, check: impl Fn(&Loaded)) {
    let mut problems = Vec::new();
    for _ in 0..2 {
        let (watched, loaded) = recorded(options(), program);
        check(&loaded);
        let found = judged(&watched);
        println!("{test}: {}", found.summary());
        if found.problems.is_empty() {
            return;
        }
        problems = found.problems;
    }
    panic!("{test}:\n  {}", problems.join("\n  "));
}

#[test]
fn root_registers_from_the_kernel_stack_where_there_is_a_helper() {
    let test = "root_registers_from_the_kernel_stack_where_there_is_a_helper";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    // Static: its one library call after the other is a system call, and most samples interrupt the kernel.
    let syscalls = build(programs::c("syscalls"));
    prove(
        test,
        || Options { without_task_pt_regs: true, ..everything(HERTZ) },
        &syscalls,
        |loaded| {
            let calls = |name: &str| loaded.helpers.contains(name);
            assert!(!calls("bpf_task_pt_regs") && calls("bpf_probe_read_kernel"), "{loaded:?}");
        },
    );
}

#[test]
fn root_registers_from_the_helper() {
    let test = "root_registers_from_the_helper";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let syscalls = build(programs::c("syscalls"));
    prove(
        test,
        || everything(HERTZ),
        &syscalls,
        |loaded| {
            assert_eq!(loaded.helpers.contains("bpf_task_pt_regs"), !release.starts_with("5.10."), "{loaded:?}");
        },
    );
}

#[test]
fn root_btf_from_a_file() {
    let test = "root_btf_from_a_file";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("vmlinux.btf");
    fs::copy("/sys/kernel/btf/vmlinux", &file).expect("a copy of the kernel's BTF");
    let shares = build(programs::c("shares").linking(Linking::Static));
    prove(test, || Options { btf: Some(file.clone()), ..everything(HERTZ) }, &shares, |_| {});

    // And it is this file that counts: one cut short is refused, on a kernel that has BTF of its own.
    let bytes = fs::read(&file).expect("the copy");
    fs::write(&file, &bytes[..bytes.len() / 2]).expect("a shorter copy");
    let refused = watch(Options { btf: Some(file), ..everything(HERTZ) }, &shares, &["--ms", "10"], |_, _| Ok(()));
    assert!(refused.is_err_and(|error| error.to_string().contains("BPF programs")));
}

#[test]
fn root_rate_changes_live() {
    let test = "root_rate_changes_live";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let shares = build(programs::c("shares").linking(Linking::Static));
    let found = rate::change_live(&shares).or_else(|first| {
        println!("{test}: again, for: {first}");
        rate::change_live(&shares)
    });
    println!("{test}: {}", found.unwrap_or_else(|error| panic!("{test}: {error}")));
}
