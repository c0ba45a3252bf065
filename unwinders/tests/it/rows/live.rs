//! Rows on real stacks: programs are stopped wherever they happen to be, and every thread's stack must be followed to its end.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use profiler_address::{ElfVaddr, FileOffset};
use profiler_elf::ElfParts;
use profiler_need::{find, have_tools, llvm_tool};
use profiler_unwinders::rows::{Registers, RuleDictionary, Step, UnwindRows, compile, step};

const NAMES: [&str; 17] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
];

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: String,
}

#[derive(Default)]
struct Tables {
    rules: RuleDictionary,
    /// Rows, the file's bytes, by path.
    files: HashMap<String, (UnwindRows, Vec<u8>)>,
}

impl Tables {
    fn load(&mut self, mapping: &Mapping, memory: &File) -> &(UnwindRows, Vec<u8>) {
        let rules = &mut self.rules;
        self.files.entry(mapping.path.clone()).or_insert_with(|| {
            let bytes = if mapping.path == "[vdso]" {
                let mut bytes = vec![0; (mapping.end - mapping.start) as usize];
                memory.read_exact_at(&mut bytes, mapping.start).unwrap();
                bytes
            } else {
                std::fs::read(&mapping.path).unwrap_or_default()
            };
            let rows = ElfParts::parse(&bytes).ok().and_then(|image| compile(&image, rules).ok());
            (rows.unwrap_or_default(), bytes)
        })
    }
}

fn mappings(pid: u32) -> Vec<Mapping> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        fields.next().filter(|flags| flags.contains('x'))?;
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let path = fields.nth(2)?.to_owned();
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Mapping { start: number(start)?, end: number(end)?, offset, path })
    };
    text.lines().filter_map(line).collect()
}

/// Registers of all threads, read by gdb, which leaves the process as it was: stopped.
fn threads(pid: u32) -> Vec<[u64; 17]> {
    let command = "thread apply all -q info registers";
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off", "-p"])
        .args([&pid.to_string(), "-ex", command])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let mut all = Vec::new();
    let mut current = [0; 17];
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let Some(index) = NAMES.iter().position(|known| *known == name) else { continue };
        let Ok(value) = u64::from_str_radix(value.trim_start_matches("0x"), 16) else { continue };
        current[index] = value;
        if name == "rip" {
            all.push(current);
        }
    }
    all
}

/// Follows a stack to its end, or tells where it got stuck.
fn follow(tables: &mut Tables, mappings: &[Mapping], memory: &File, leaf: [u64; 17]) -> Result<usize, String> {
    let mut registers = Registers::leaf(leaf);
    let mut exact = true;
    let mut path = Vec::new();
    for depth in 0..2000 {
        let ip = if exact { registers.ip() } else { registers.ip().wrapping_sub(1) };
        let at = |text: &str, path: &[String]| {
            let last = &path[path.len().saturating_sub(6)..];
            format!("{text} at depth {depth}, ip {ip:#x}, {registers:x?}, through {last:?}")
        };
        let Some(mapping) = mappings.iter().find(|m| ip >= m.start && ip < m.end) else {
            return Err(at("no mapping", &path));
        };
        let (rows, bytes) = tables.load(mapping, memory);
        let vaddr = ElfParts::parse(bytes)
            .ok()
            .and_then(|image| image.to_vaddr(FileOffset(ip - mapping.start + mapping.offset)))
            .unwrap_or(ElfVaddr(0));
        let name = mapping.path.rsplit('/').next().unwrap_or("");
        path.push(format!("{name}+{vaddr:x}"));
        let rule = rows.rule_at(vaddr);
        if rule == 0 {
            return Err(at("no row", &path));
        }
        let rule = tables.rules.rules()[usize::from(rule)];
        let read = |address: u64| {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, address).ok()?;
            Some(u64::from_le_bytes(word))
        };
        match step(&rule, &registers, read) {
            Step::End => return Ok(depth + 1),
            Step::Caller(caller) => (registers, exact) = (caller, false),
            Step::Interrupted(interrupted) => (registers, exact) = (interrupted, true),
            Step::Failed => return Err(at(&format!("failed by {rule:?}"), &path)),
        }
    }
    Err("too deep".to_owned())
}

/// Stops the program `rounds` times; every stack must be whole, but for `without_row` at most that end where no row is. Gives how many
/// stacks there were, and the deepest.
fn all_stacks_end(program: &Path, rounds: usize, without_row: usize) -> Option<(usize, usize)> {
    // It reads the registers.
    if !have_tools(&program.display().to_string(), &["gdb"]) {
        return None;
    }
    let child = Running(Command::new(program).spawn().unwrap());
    let pid = child.0.id();
    let process = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let mut tables = Tables::default();
    let (mut whole, mut deepest) = (0, 0);
    let mut broken = Vec::new();
    std::thread::sleep(Duration::from_millis(300));
    for round in 0..rounds {
        rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mappings = mappings(pid);
        for thread in threads(pid) {
            match follow(&mut tables, &mappings, &memory, thread) {
                Ok(depth) => {
                    whole += 1;
                    deepest = deepest.max(depth);
                }
                Err(error) => broken.push(error),
            }
        }
        rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
        std::thread::sleep(Duration::from_millis(7 + 13 * round as u64 % 40));
    }
    println!("{}: {whole} stacks whole, {} broken, deepest {deepest}", program.display(), broken.len());
    for error in &broken {
        println!("  {error}");
    }
    let told = broken.iter().all(|error| error.starts_with("no row")) && broken.len() <= without_row;
    assert!(told, "{} of {} stacks", broken.len(), broken.len() + whole);
    Some((whole + broken.len(), deepest))
}

/// Builds a program from `tests/rows_programs` by `command`, in which `SOURCE` and `PROGRAM` are replaced.
fn build(folder: &Path, source: &str, command: &[&str]) -> Option<std::path::PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rows_programs").join(source);
    let program = folder.join("program");
    let arguments = command.iter().skip(1).map(|&argument| match argument {
        "SOURCE" => source.as_os_str(),
        "PROGRAM" => program.as_os_str(),
        other => other.as_ref(),
    });
    if !have_tools(&format!("{command:?}"), &command[..1]) {
        return None;
    }
    let status = Command::new(find(command[0]).unwrap()).args(arguments).current_dir(folder).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    Some(program)
}

fn check(source: &str, command: &[&str], least_depth: usize) {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = build(folder.path(), source, command) else { return };
    if let Some((whole, deepest)) = all_stacks_end(&program, 8, 0) {
        assert!(whole >= 8 && deepest >= least_depth, "{whole} stacks, deepest {deepest}");
    }
}

#[test]
fn go() {
    check("deep.go", &["go", "build", "-o", "PROGRAM", "SOURCE"], 300);
}

#[test]
fn go_stripped() {
    check("deep.go", &["go", "build", "-ldflags=-s -w", "-o", "PROGRAM", "SOURCE"], 300);
}

#[test]
fn go_position_independent() {
    check("deep.go", &["go", "build", "-buildmode=pie", "-o", "PROGRAM", "SOURCE"], 300);
}

#[test]
fn cgo_with_callbacks() {
    check("back.go", &["go", "build", "-o", "PROGRAM", "SOURCE"], 5);
}

#[test]
fn cgo_position_independent_stripped() {
    check("back.go", &["go", "build", "-buildmode=pie", "-ldflags=-s -w", "-o", "PROGRAM", "SOURCE"], 5);
}

#[test]
fn c_without_frame_pointers() {
    check("threads.c", &["gcc", "-O2", "-fomit-frame-pointer", "-pthread", "-o", "PROGRAM", "SOURCE", "-lm"], 500);
}

#[test]
fn c_static() {
    check(
        "threads.c",
        &["gcc", "-O2", "-static", "-fomit-frame-pointer", "-pthread", "-o", "PROGRAM", "SOURCE", "-lm"],
        500,
    );
}

#[test]
fn c_static_pie_by_clang() {
    let Some(clang) = llvm_tool("c_static_pie_by_clang", "clang") else { return };
    check("threads.c", &[&clang, "-O2", "-static-pie", "-fPIE", "-pthread", "-o", "PROGRAM", "SOURCE", "-lm"], 500);
}

/// musl has no call frame instructions: what counts is that the program's own stacks end, and go on behind a signal.
#[test]
fn musl_static() {
    check("own_code.c", &["musl-gcc", "-O2", "-static", "-fomit-frame-pointer", "-o", "PROGRAM", "SOURCE"], 30);
}

#[test]
fn musl_dynamic() {
    check("own_code.c", &["musl-gcc", "-O2", "-fomit-frame-pointer", "-o", "PROGRAM", "SOURCE"], 30);
}

/// Only `.debug_frame` says how to unwind the program's own code.
#[test]
fn c_with_debug_frame_only() {
    let command = ["gcc", "-O2", "-g", "-fno-asynchronous-unwind-tables", "-pthread", "-o", "PROGRAM", "SOURCE", "-lm"];
    check("threads.c", &command, 500);
}

#[test]
fn c_with_compressed_debug_frame_only() {
    let command = [
        "gcc",
        "-O2",
        "-g",
        "-gz=zlib",
        "-fno-asynchronous-unwind-tables",
        "-pthread",
        "-o",
        "PROGRAM",
        "SOURCE",
        "-lm",
    ];
    check("threads.c", &command, 500);
}

/// rustc writes no call frame instructions for the C `main` of a program that aborts on panic.
#[test]
fn rust_that_aborts_on_panic() {
    check("no_main_rows.rs", &["rustc", "--edition=2024", "-O", "-Cpanic=abort", "-o", "PROGRAM", "SOURCE"], 40);
}

#[test]
fn rust_that_aborts_on_panic_stripped() {
    let command = ["rustc", "--edition=2024", "-O", "-Cpanic=abort", "-Cstrip=symbols", "-o", "PROGRAM", "SOURCE"];
    check("no_main_rows.rs", &command, 40);
}

#[test]
fn code_of_musl() {
    check_often("libc_code.c", &["musl-gcc", "-O2", "-static", "-fomit-frame-pointer", "-o", "PROGRAM", "SOURCE"]);
}

#[test]
fn code_of_musl_stripped() {
    check_often(
        "libc_code.c",
        &["musl-gcc", "-O2", "-static", "-s", "-fomit-frame-pointer", "-o", "PROGRAM", "SOURCE"],
    );
}

#[test]
fn code_of_musl_in_its_library() {
    check_often("libc_code.c", &["musl-gcc", "-O2", "-fomit-frame-pointer", "-o", "PROGRAM", "SOURCE"]);
}

/// As [`check`], with many stacks, as each may be in another function. musl describes none of its code, and what is reached only through
/// its address, such as the `jmp *%rdx` between qsort and its caller's comparison, is not found by reading it.
fn check_often(source: &str, command: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = build(folder.path(), source, command) else { return };
    if let Some((whole, deepest)) = all_stacks_end(&program, 40, 2) {
        assert!(whole >= 40 && deepest >= 3, "{whole} stacks, deepest {deepest}");
    }
}
