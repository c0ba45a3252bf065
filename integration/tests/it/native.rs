//! Native programs without frame pointers, in every way that they are linked and stripped: shares, callers and roots.

use profiler_integration::programs::{self, Linking, Program, SymbolTables};
use profiler_integration::proof::{HERTZ, prove, prove_mostly, prove_with};
use profiler_integration::recording::{Recorded, record_command, record_host, record_running};
use profiler_integration::symbols::{Symbols, is_in};
use profiler_integration::verdict::COMPLETE;

const MS: [&str; 2] = ["--ms", "2000"];

fn build(program: &Program) -> std::path::PathBuf {
    program.build().unwrap_or_else(|error| panic!("{error}"))
}

fn proves(test: &str, program: &Program, arguments: &[&str]) {
    let file = build(program);
    prove(test, || record_command(HERTZ, &file, arguments));
}

/// Proves a program without names by the symbols of its twin.
fn proves_by_twin(test: &str, program: &Program, twin: &Program, rename: impl Fn(&str) -> String) {
    let (file, twin) = (build(program), build(twin));
    let symbols = Symbols::of(&twin).unwrap_or_else(|error| panic!("{error}"));
    let rows = |recorded: &Recorded| {
        let mut rows = recorded.own_rows();
        // A stripped executable has no function names to give: any that the profiler found would be invented.
        for frame in rows.iter().flat_map(|row| &row.frames).filter(|frame| is_in(frame, &file)) {
            assert!(
                frame
                    .functions
                    .iter()
                    .all(|name| symbols.name(frame.address).is_some_and(|known| rename(known) == *name)),
                "{test}: the name {:?} for {:#x}, which is {:?}",
                frame.functions,
                frame.address,
                symbols.name(frame.address)
            );
        }
        symbols.name_frames(&mut rows, &file);
        rows
    };
    let entry = |frame: &profiler_integration::rows::Frame| is_in(frame, &file) && symbols.is_entry(frame.address);
    prove_with(test, COMPLETE, || record_command(HERTZ, &file, &MS), rows, entry);
}

#[test]
fn root_c_pie() {
    proves("root_c_pie", &programs::c("shares"), &MS);
}

#[test]
fn root_c_at_a_fixed_address() {
    proves("root_c_at_a_fixed_address", &programs::c("shares").linking(Linking::NoPie), &MS);
}

#[test]
fn root_c_static_pie() {
    proves("root_c_static_pie", &programs::c("shares").linking(Linking::StaticPie), &MS);
}

#[test]
fn root_c_static() {
    proves("root_c_static", &programs::c("shares").linking(Linking::Static), &MS);
}

#[test]
fn root_c_static_musl() {
    proves("root_c_static_musl", &programs::c("shares").linking(Linking::Musl), &MS);
}

#[test]
fn root_c_by_clang() {
    proves("root_c_by_clang", &programs::c("shares").linking(Linking::Clang), &MS);
}

#[test]
fn root_c_without_branch_protection() {
    proves("root_c_without_branch_protection", &programs::c("shares").flags(&["-fcf-protection=none"]), &MS);
}

#[test]
fn root_c_not_optimised() {
    proves("root_c_not_optimised", &programs::c("shares").flags(&["-O0", "-fno-omit-frame-pointer"]), &MS);
}

#[test]
fn root_c_stripped() {
    let twin = programs::c("shares");
    proves_by_twin("root_c_stripped", &twin.clone().symbols(SymbolTables::Stripped), &twin, str::to_owned);
}

#[test]
fn root_c_static_stripped() {
    let twin = programs::c("shares").linking(Linking::Static);
    proves_by_twin("root_c_static_stripped", &twin.clone().symbols(SymbolTables::Stripped), &twin, str::to_owned);
}

#[test]
fn root_c_static_musl_stripped() {
    let twin = programs::c("shares").linking(Linking::Musl);
    proves_by_twin("root_c_static_musl_stripped", &twin.clone().symbols(SymbolTables::Stripped), &twin, str::to_owned);
}

#[test]
fn root_c_names_from_debuglink() {
    proves("root_c_names_from_debuglink", &programs::c("shares").symbols(SymbolTables::DebugLink), &MS);
}

#[test]
fn root_c_names_from_gnu_debugdata() {
    proves("root_c_names_from_gnu_debugdata", &programs::c("shares").symbols(SymbolTables::MiniDebugInfo), &MS);
}

/// While libgcc's `_Unwind_Resume` installs the context that it unwound to, it overwrites the frames that it leaves, and no
/// unwinder gets through: perf with libdw misses 2 in 1,000 of this program at those instructions.
const WITH_EXCEPTIONS: f64 = 0.995;

#[test]
fn root_cpp_exceptions_lambdas_sorting_and_virtual_calls() {
    let test = "root_cpp_exceptions_lambdas_sorting_and_virtual_calls";
    let file = build(&programs::cpp("shares").flags(&["-std=c++17"]));
    prove_mostly(test, WITH_EXCEPTIONS, || record_command(HERTZ, &file, &["--ms", "2500", "--depth", "20"]));
}

#[test]
fn root_cpp_by_clang() {
    let file = build(&programs::cpp("shares").flags(&["-std=c++17"]).linking(Linking::Clang));
    let arguments = ["--ms", "2500", "--depth", "3"];
    prove_mostly("root_cpp_by_clang", WITH_EXCEPTIONS, || record_command(HERTZ, &file, &arguments));
}

#[test]
fn root_rust() {
    proves("root_rust", &programs::rust("shares"), &["--ms", "2000", "--depth", "30"]);
}

#[test]
fn root_rust_with_debug_information() {
    proves("root_rust_with_debug_information", &programs::rust("shares").flags(&["-C", "debuginfo=2"]), &MS);
}

#[test]
fn root_rust_panic_abort() {
    proves("root_rust_panic_abort", &programs::rust("shares").flags(&["-C", "panic=abort"]), &MS);
}

/// Go runs on two stacks a thread. A sample that comes before its process's tables are in brings a copy of one of them, so the
/// first milliseconds may miss a root or two, whatever the length of the run.
const GO_MS: [&str; 2] = ["--ms", "5000"];
const WITH_TWO_STACKS: f64 = 0.999;

fn proves_go(test: &str, program: &Program, arguments: &[&str]) {
    let file = build(program);
    prove_mostly(test, WITH_TWO_STACKS, || record_command(HERTZ, &file, arguments));
}

#[test]
fn root_go() {
    proves_go("root_go", &programs::go("shares"), &GO_MS);
}

#[test]
fn root_go_300_frames_deep() {
    proves_go("root_go_300_frames_deep", &programs::go("shares"), &["--ms", "5000", "--depth", "300"]);
}

/// Go keeps its function table for its own tracebacks, so a stripped Go program has all names.
#[test]
fn root_go_stripped_keeps_its_names() {
    proves_go("root_go_stripped_keeps_its_names", &programs::go("shares").flags(&["-ldflags=-s -w"]), &GO_MS);
}

#[test]
fn root_go_pie() {
    proves_go("root_go_pie", &programs::go("shares").flags(&["-buildmode=pie"]), &GO_MS);
}

#[test]
fn root_recursion_900_deep_is_whole() {
    let cpp = programs::cpp("shares").flags(&["-std=c++17"]);
    for (program, bar) in
        [(programs::c("shares"), COMPLETE), (cpp, WITH_EXCEPTIONS), (programs::rust("shares"), COMPLETE)]
    {
        let file = build(&program);
        let arguments = ["--ms", "1000", "--depth", "900"];
        prove_mostly("root_recursion_900_deep_is_whole", bar, || record_command(HERTZ, &file, &arguments));
    }
}

#[test]
fn root_attached_to_a_process_that_runs_already() {
    let file = build(&programs::c("shares"));
    prove("root_attached_to_a_process_that_runs_already", || record_running(HERTZ, &file, &["--ms", "3000"]));
}

#[test]
fn root_whole_host() {
    let file = build(&programs::c("shares"));
    prove("root_whole_host", || record_host(HERTZ, &file, &MS));
}
