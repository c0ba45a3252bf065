//! Stacks that are not a simple chain of calls: signals, coroutines, jumps, stubs, assembly, realigned frames, made code.

use std::path::PathBuf;

use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::programs::{self, Linking, Program};
use profiler_integration::proof::{HERTZ, prove, prove_mostly};
use profiler_integration::recording::{Recorder, record_command, record_running};
use profiler_integration::rows::{Row, is_function, rows, total};
use profiler_model::FrameKind;

const MS: [&str; 2] = ["--ms", "2000"];

fn build(program: &Program) -> PathBuf {
    program.build().unwrap_or_else(|error| panic!("{error}"))
}

fn proves(test: &str, program: &Program) {
    let file = build(program);
    prove(test, || record_command(HERTZ, &file, &MS));
}

/// Until a new process's tables are in, 4 to 40 ms, a sample brings a copy of the stack that it is on; in a handler on an alternate stack that is
/// not the stack of what was interrupted. So these are recorded when they run already, and what is left is a sample or two.
const ON_TWO_STACKS: f64 = 0.995;

fn proves_handler(test: &str, program: &Program) {
    let file = build(program);
    prove_mostly(test, ON_TWO_STACKS, || record_running(HERTZ, &file, &MS));
}

#[test]
fn root_signal_handler_on_an_alternate_stack() {
    proves_handler("root_signal_handler_on_an_alternate_stack", &programs::c("signals"));
}

#[test]
fn root_signal_handler_in_static_musl() {
    proves_handler("root_signal_handler_in_static_musl", &programs::c("signals").linking(Linking::Musl));
}

#[test]
fn root_vdso() {
    let test = "root_vdso";
    let file = build(&programs::c("vdso"));
    prove(test, || {
        let recorded = record_command(HERTZ, &file, &MS)?;
        let own = recorded.own_rows();
        let in_vdso: u64 = total(own.iter().filter(|row| row.frames.iter().any(|frame| frame.file.contains("vdso"))));
        let named = own.iter().flat_map(|row| &row.frames).any(|frame| {
            frame.file.contains("vdso") && frame.functions.iter().any(|name| name.contains("clock_gettime"))
        });
        assert!(in_vdso > 30, "{in_vdso} samples in the vDSO");
        assert!(named, "no vDSO frame is called clock_gettime");
        Ok(recorded)
    });
}

#[test]
fn root_coroutines_end_at_their_own_root() {
    let file = build(&programs::c("coroutines"));
    prove("root_coroutines_end_at_their_own_root", || {
        let mut recorded = record_command(HERTZ, &file, &MS)?;
        // Debian's libc does not name __start_context; that it is the root is what completeness checks.
        for stack in recorded.truth.stacks.values_mut() {
            stack.retain(|function| function != "__start_context");
        }
        Ok(recorded)
    });
}

#[test]
fn root_longjmp() {
    proves("root_longjmp", &programs::c("longjmp"));
}

/// What is left: the last three instructions of the way, and, of a new process's first samples, those in an epilogue, whose saved
/// registers lie below the copy of the stack. Without rules of its own for the way, 3 % are lost.
const ON_THE_WAY: f64 = 0.99;

#[test]
fn root_exceptions_on_their_way_to_a_handler() {
    let test = "root_exceptions_on_their_way_to_a_handler";
    let file = build(&programs::cpp("exceptions"));
    prove_mostly(test, ON_THE_WAY, || record_command(HERTZ, &file, &MS));
}

#[test]
fn root_assembly_of_libc() {
    proves("root_assembly_of_libc", &programs::c("libc_asm"));
}

#[test]
fn root_assembly_of_static_libc() {
    proves("root_assembly_of_static_libc", &programs::c("libc_asm").linking(Linking::Static));
}

#[test]
fn root_realigned_stacks() {
    proves("root_realigned_stacks", &programs::c("realign").flags(&["-mavx2", "-mstackrealign"]));
}

#[test]
fn root_realigned_stacks_at_a_fixed_address_without_optimisation() {
    let program = programs::c("realign").flags(&["-mavx2", "-mstackrealign", "-O1"]).linking(Linking::NoPie);
    proves("root_realigned_stacks_at_a_fixed_address_without_optimisation", &program);
}

/// `plt`, linked with `flags`, beside the libraries that it needs.
fn plt(flags: &[&str]) -> (PathBuf, PathBuf) {
    let library = build(&programs::c("pltlib").linking(Linking::Library));
    let folder = library.parent().expect("a folder").display().to_string();
    let link = [format!("-L{folder}"), "-lpltlib".into(), format!("-Wl,-rpath,{folder}")];
    let link: Vec<&str> = link.iter().map(String::as_str).collect();
    let lazy = build(&programs::c("lazy").linking(Linking::Library).flags(&["-Wl,-z,lazy"]).flags(&link));
    (build(&programs::c("plt").flags(flags).flags(&link)), lazy)
}

fn proves_plt(test: &str, flags: &[&str]) {
    let (file, lazy) = plt(flags);
    let lazy = lazy.display().to_string();
    prove_mostly(test, REOPENED, || record_command(HERTZ, &file, &["--ms", "2000", "--library", &lazy]));
}

/// The library is opened and closed some thousand times a second, each time at another address, and may be gone before a
/// sample in it can be looked at.
const REOPENED: f64 = 0.995;

#[test]
fn root_plt_bound_lazily() {
    proves_plt("root_plt_bound_lazily", &["-Wl,-z,lazy"]);
}

#[test]
fn root_plt_bound_at_start() {
    proves_plt("root_plt_bound_at_start", &["-Wl,-z,now"]);
}

#[test]
fn root_without_plt() {
    proves_plt("root_without_plt", &["-fno-plt"]);
}

#[test]
fn root_plt_without_branch_protection() {
    proves_plt("root_plt_without_branch_protection", &["-Wl,-z,lazy", "-fcf-protection=none"]);
}

#[test]
fn root_code_moved_to_anonymous_memory_keeps_its_rows_and_names() {
    let test = "root_code_moved_to_anonymous_memory_keeps_its_rows_and_names";
    proves(test, &programs::c("moved_text").flags(&["-fomit-frame-pointer"]));
}

#[test]
fn root_entry_point_that_does_not_say_that_it_is_the_outermost_frame() {
    let test = "root_entry_point_that_does_not_say_that_it_is_the_outermost_frame";
    proves(test, &programs::c("entry").flags(&["-nostartfiles", "-fomit-frame-pointer"]));
}

#[test]
fn root_made_code_named_by_a_torn_perf_map() {
    proves_jit("root_made_code_named_by_a_torn_perf_map", "perf", "anonymous");
}

#[test]
fn root_made_code_in_a_memfd() {
    proves_jit("root_made_code_in_a_memfd", "perf", "memfd");
}

#[test]
fn root_made_code_in_shared_memory() {
    proves_jit("root_made_code_in_shared_memory", "perf", "shared");
}

#[test]
fn root_made_code_named_by_jitdump() {
    proves_jit("root_made_code_named_by_jitdump", "jitdump", "anonymous");
}

#[test]
fn root_made_code_without_names() {
    proves_jit("root_made_code_without_names", "none", "anonymous");
}

fn proves_jit(test: &str, names: &str, memory: &str) {
    if !have_root(test) {
        return;
    }
    let file = build(&programs::c("jit"));
    prove(test, || {
        let recorded = record_running(HERTZ, &file, &["--ms", "3000", "--names", names, "--memory", memory]);
        // A perf map stays behind by design; the next process with that pid must not be named by it.
        if let Ok(recorded) = &recorded {
            for left in
                [format!("/tmp/perf-{}.map", recorded.truth.pid), format!("/tmp/jit-{}.dump", recorded.truth.pid)]
            {
                let _ = std::fs::remove_file(left);
            }
        }
        recorded
    });
}

#[test]
fn root_kernel_stacks_of_system_calls() {
    let test = "root_kernel_stacks_of_system_calls";
    let file = build(&programs::c("syscalls"));
    prove(test, || {
        let recorded = record_command(HERTZ, &file, &MS)?;
        let own = recorded.own_rows();
        let reading: Vec<_> = own
            .iter()
            .filter(|row| {
                row.frames.iter().any(|frame| frame.functions.iter().any(|name| is_function(name, "read_zeros")))
            })
            .collect();
        let in_kernel = reading.iter().filter(|row| {
            row.frames.first().is_some_and(|frame| frame.kind == FrameKind::Kernel && !frame.functions.is_empty())
                && row.frames.iter().any(|frame| {
                    frame.kind == FrameKind::Kernel
                        && frame.functions.iter().any(|name| name.contains("read") || name.contains("iter"))
                })
        });
        let (inside, all) = (total(in_kernel.copied()), total(reading.iter().copied()));
        assert!(inside * 10 > all * 8, "{test}: {inside} of {all} samples of read_zeros show a named kernel stack");
        Ok(recorded)
    });
}

#[test]
fn root_threads_are_told_apart_by_name() {
    let test = "root_threads_are_told_apart_by_name";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let recorded = record_command(HERTZ, &build(&programs::c("threads")), &MS).expect("a recording");
    let own = recorded.own_rows();
    let counts = recorded
        .truth
        .threads
        .keys()
        .map(|name| (name.clone(), total(own.iter().filter(|row| row.thread == *name))))
        .collect();
    let off = profiler_integration::shares::off_from_truth(&recorded.truth.threads, &counts);
    let names: std::collections::BTreeSet<_> = own.iter().map(|row| row.thread.as_str()).collect();
    // Three sigma on five threads: allow the one that is out by noise, not two.
    assert!(off.len() < 2, "{off:?}; threads seen: {names:?}");
}

/// One address, two functions one after the other, by a jitdump.
#[test]
fn root_made_code_is_named_as_of_the_time_of_its_samples() {
    let test = "root_made_code_is_named_as_of_the_time_of_its_samples";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let program = programs::c("reuse").build().unwrap_or_else(|error| panic!("{error}"));
    let recording = Recorder::new(HERTZ)
        .and_then(|recorder| recorder.run::<&str>(&program, &[]))
        .unwrap_or_else(|error| panic!("{error}"));
    let rows = rows(&recording.profile);
    let with = |name: &str| {
        let has =
            |row: &&Row| row.frames.iter().any(|f| f.functions.iter().any(|function| is_function(function, name)));
        total(rows.iter().filter(has))
    };
    let (first, second) = (with("was_there_first"), with("takes_its_place"));
    println!("{test}: {first} and {second} samples");
    // A second of CPU time each.
    assert!(first * 10 > second * 8 && second * 10 > first * 8, "{first} and {second}");
}
