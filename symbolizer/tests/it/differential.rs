//! Names, files, lines and inlined functions against llvm-symbolizer's, on real files; and the same names from stripped files by
//! each way that there is to debug info.

use crate::common::*;
use profiler_address::ElfVaddr;
use profiler_need::{have_file, llvm_tool};
use profiler_symbolizer::{Language, Options, Symbolized, Symbolizer};
use std::{fs, path::Path};

/// Compares thousands of addresses of a file with what two others say; prints what was found.
fn check(path: &Path, count: u64) {
    let (addresses, found) = answers(path, count);
    check_against_llvm(path, &addresses, &found);
    judge(path, "blazesym", &compare(path, &addresses, &found, &blazesym(path, &addresses)));
}

fn check_against_llvm(path: &Path, addresses: &[u64], found: &[Symbolized]) {
    if let Some(theirs) = llvm(path, addresses) {
        judge(path, "llvm-symbolizer", &compare(path, addresses, found, &theirs));
    }
}

/// Addresses all over the code of a file, and ours of them.
fn answers(path: &Path, count: u64) -> (Vec<u64>, Vec<Symbolized>) {
    let mut addresses = spread(section(path, ".text"), count);
    // The very first bytes too, and the stubs, where the file has them.
    let text = section(path, ".text").0;
    addresses.extend(text..text + 20);
    let found = ours(path, options(true), &addresses);
    (addresses, found)
}

fn judge(path: &Path, oracle: &str, compared: &Compared) {
    println!(
        "{} against {oracle}: {} same, {} unknown to both, {:?}, {} unexplained",
        path.display(),
        compared.same,
        compared.unknown_to_both,
        compared.explained,
        compared.unexplained.len()
    );
    assert!(compared.unexplained.is_empty(), "{oracle}: {}", compared.unexplained.join("\n"));
    assert!(compared.same > 500);
}

#[test]
fn cxx_of_each_dwarf_version() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clang) = llvm_tool("cxx_of_each_dwarf_version", "clang++") else { return };
    let builds: [(&str, &str, &[&str]); 6] = [
        ("gcc5", "g++", &["-g"]),
        ("gcc2", "g++", &["-gdwarf-2", "-gstrict-dwarf"]),
        ("gcc3", "g++", &["-gdwarf-3", "-gstrict-dwarf"]),
        ("gz", "g++", &["-g", "-gz"]),
        ("clang4", &clang, &["-gdwarf-4"]),
        ("clang5", &clang, &["-gdwarf-5"]),
    ];
    for (name, compiler, flags) in builds {
        let path = dir.path().join(name);
        let (source, path_text) = (source("inlines.cpp"), path.to_string_lossy());
        if run(compiler, &[flags, &["-O2", "-o", &path_text, &source]].concat()) {
            // Strict version 2 has no lines of inlined calls: blazesym gives the innermost line to the outermost function there, where
            // llvm-symbolizer leaves each its own.
            if name == "gcc2" {
                let (addresses, found) = answers(&path, 2000);
                check_against_llvm(&path, &addresses, &found);
            } else {
                check(&path, 2000);
            }
        }
    }
}

#[test]
fn rust() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inlines");
    if run("rustc", &["-O", "-g", "-o", &path.to_string_lossy(), &source("inlines.rs")]) {
        check(&path, 4000);
    }
}

#[test]
fn libc() {
    // With libc6-dbg installed, this is also the way by build id to compressed debug info.
    let path = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
    if have_file("names and lines of a library", path) {
        check(path, 4000);
    }
}

#[test]
fn libstdcxx() {
    let path = Path::new("/lib/x86_64-linux-gnu/libstdc++.so.6");
    if have_file("names and lines of a library", path) {
        check(path, 4000);
    }
}

#[test]
fn static_musl() {
    let dir = tempfile::tempdir().unwrap();
    let (c, path) = (dir.path().join("m.c"), dir.path().join("m"));
    fs::write(
        &c,
        "#include <stdio.h>\n#include <stdlib.h>\nint main(int n, char **v) { return printf(\"%s\", getenv(v[0])); }\n",
    )
    .unwrap();
    if run("musl-gcc", &["-O2", "-g", "-static", "-o", &path.to_string_lossy(), &c.to_string_lossy()]) {
        check(&path, 2000);
    }
}

/// A program and its addresses with their names and lines.
struct Stripped {
    dir: tempfile::TempDir,
    addresses: Vec<u64>,
    names: Vec<Vec<String>>,
    outermost: Vec<Vec<String>>,
}

impl Stripped {
    /// Builds `full`, and `lean` without symbols and debug info, with what it lost in `full.debug`.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        assert!(run("g++", &["-O2", "-g", "-Wl,--build-id", "-o", &at("full"), &source("inlines.cpp")]));
        assert!(run("objcopy", &["--only-keep-debug", &at("full"), &at("full.debug")]));
        assert!(run("strip", &["-o", &at("lean"), &at("full")]));
        let addresses = spread(section(&dir.path().join("full"), ".text"), 1000);
        let names = names(&ours(&dir.path().join("full"), options(true), &addresses));
        let outermost = names.iter().map(|names| names.last().cloned().into_iter().collect()).collect();
        Self { dir, addresses, names, outermost }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn found(&self, name: &str, options: Options) -> Vec<Vec<String>> {
        names(&ours(&self.path(name), options, &self.addresses))
    }

    fn dirs(&self, source_lines: bool) -> Options {
        Options { source_lines, debug_dirs: vec![self.path("debug")], ..Options::default() }
    }
}

#[test]
fn a_debug_link_leads_to_all_names_and_lines() {
    let files = Stripped::new();
    let text = |name: &str| files.path(name).to_string_lossy().into_owned();
    assert!(run("objcopy", &["--remove-section=.note.gnu.build-id", &text("lean"), &text("bare")]));
    assert!(run("objcopy", &[&format!("--add-gnu-debuglink={}", text("full.debug")), &text("bare")]));
    // Beside the program.
    assert_eq!(files.found("bare", files.dirs(true)), files.names);
    assert_eq!(files.found("bare", files.dirs(false)), files.outermost);
    // In .debug beside it.
    fs::create_dir(files.path(".debug")).unwrap();
    fs::rename(files.path("full.debug"), files.path(".debug/full.debug")).unwrap();
    assert_eq!(files.found("bare", files.dirs(true)), files.names);
    // In a debug directory, by the program's path.
    let below = files.path("debug").join(files.dir.path().strip_prefix("/").unwrap());
    fs::create_dir_all(&below).unwrap();
    fs::rename(files.path(".debug/full.debug"), below.join("full.debug")).unwrap();
    assert_eq!(files.found("bare", files.dirs(true)), files.names);
    // One byte changed: of another build, so not used.
    let mut content = fs::read(below.join("full.debug")).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(below.join("full.debug"), content).unwrap();
    assert_ne!(files.found("bare", files.dirs(true)), files.names);
}

#[test]
fn a_build_id_leads_to_all_names_and_lines() {
    let files = Stripped::new();
    let notes = output("readelf", &["-n", &files.path("full").to_string_lossy()], "").unwrap();
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap().to_owned();
    let dir = files.path(&format!("debug/.build-id/{}", &id[..2]));
    fs::create_dir_all(&dir).unwrap();
    fs::copy(files.path("full.debug"), dir.join(format!("{}.debug", &id[2..]))).unwrap();
    assert_eq!(files.found("lean", files.dirs(true)), files.names);
    assert_eq!(files.found("lean", files.dirs(false)), files.outermost);
}

#[test]
fn mini_debug_info_names_local_functions() {
    let files = Stripped::new();
    let text = |name: &str| files.path(name).to_string_lossy().into_owned();
    // As Fedora makes it: a file of nothing but the symbol table, in xz.
    assert!(run(
        "objcopy",
        &[
            "-S",
            "--remove-section=.gdb_index",
            "--remove-section=.comment",
            "--keep-symbol=main",
            &text("full"),
            &text("mini")
        ]
    ));
    assert!(run("objcopy", &["--only-keep-debug", &text("full"), &text("mini")]));
    assert!(run("strip", &["--strip-debug", &text("mini")]));
    if !run("xz", &["-k", &text("mini")]) {
        return;
    }
    assert!(run(
        "objcopy",
        &[&format!("--add-section=.gnu_debugdata={}.xz", text("mini")), &text("lean"), &text("packed")]
    ));
    assert_eq!(files.found("packed", files.dirs(false)), files.outermost);
    assert_ne!(files.found("lean", files.dirs(false)), files.outermost);
}

#[test]
fn the_file_is_the_one_that_was_opened_whatever_became_of_its_path() {
    let files = Stripped::new();
    let path = files.path("full");
    let object = object(&path);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "something else").unwrap();
    let addresses: Vec<_> = files.addresses.iter().map(|address| ElfVaddr(*address)).collect();
    let mut symbolizer = Symbolizer::new(options(true));
    assert_eq!(names(&symbolizer.native(&object, &addresses)), files.names);
}

#[test]
fn a_file_truncated_meanwhile_costs_names_and_nothing_else() {
    let files = Stripped::new();
    let object = object(&files.path("full"));
    let addresses: Vec<_> = files.addresses.iter().map(|address| ElfVaddr(*address)).collect();
    let mut symbolizer = Symbolizer::new(options(true));
    symbolizer.native(&object, &addresses[..10]);
    fs::OpenOptions::new().write(true).open(files.path("full")).unwrap().set_len(5000).unwrap();
    assert_eq!(symbolizer.native(&object, &addresses).len(), addresses.len());
}

#[test]
fn debug_info_beyond_the_budget_leaves_symbol_names() {
    let files = Stripped::new();
    let options = Options { dwarf_budget_bytes: 1000, ..options(true) };
    let mut symbolizer = Symbolizer::new(options);
    let addresses: Vec<_> = files.addresses.iter().map(|address| ElfVaddr(*address)).collect();
    assert_eq!(names(&symbolizer.native(&object(&files.path("full")), &addresses)), files.outermost);
    assert_eq!(symbolizer.stats().dwarf_too_large, 1);
}

#[test]
fn the_memory_budget_evicts_what_was_used_longest_ago() {
    let files = Stripped::new();
    let mut symbolizer = Symbolizer::new(Options { budget_bytes: 1 << 20, ..options(true) });
    let addresses: Vec<_> = files.addresses.iter().map(|address| ElfVaddr(*address)).collect();
    for i in 0..20 {
        let copy = files.path(&format!("copy{i}"));
        fs::copy(files.path("full"), &copy).unwrap();
        assert_eq!(names(&symbolizer.native(&object(&copy), &addresses)), files.names);
        assert!(symbolizer.stats().bytes < 2 << 20, "{:?}", symbolizer.stats());
    }
    assert!(symbolizer.stats().evictions > 5);
}

#[test]
fn go_as_the_runtime_itself_says_also_stripped() {
    let dir = tempfile::tempdir().unwrap();
    let (source, cache) = (source("frames.go"), dir.path().join("plain").to_string_lossy().into_owned());
    if !run("go", &["build", "-o", &cache, &source]) {
        return;
    }
    let builds: [(&str, &[&str]); 3] =
        [("plain", &[]), ("stripped", &["-ldflags=-s -w"]), ("pie", &["-buildmode=pie", "-ldflags=-s -w"])];
    for (name, flags) in builds {
        let path = dir.path().join(name);
        assert!(run("go", &[&["build"], flags, &["-o", &path.to_string_lossy(), &source]].concat()));
        let addresses = spread(section(&path, ".text"), 3000);
        let headers = output("readelf", &["-lW", &path.to_string_lossy()], "").unwrap();
        let first = headers.lines().find_map(|line| line.trim().strip_prefix("LOAD")).unwrap();
        let first = first.split_whitespace().nth(1).unwrap();
        let input: String = addresses.iter().map(|address| format!("{address:x}\n")).collect();
        let theirs = output(&path.to_string_lossy(), &[first], &input).unwrap();
        let found = ours(&path, options(false), &addresses);
        let (mut same, mut inlined, mut ends) = (0, 0, 0);
        for ((address, found), theirs) in addresses.iter().zip(&found).zip(theirs.lines()) {
            let frame = found.frames.first().unwrap_or_else(|| panic!("{name}: no name for {address:#x}"));
            assert_eq!(found.language, Language::Go);
            let ours = format!("{address:x}\t{}\t{}\t{}", frame.name, frame.file.as_deref().unwrap_or("?"), frame.line);
            if ours == theirs {
                same += 1;
                inlined += usize::from(found.frames.len() > 1);
                continue;
            }
            // The runtime takes a name at offset 0 of the table for none.
            if theirs.split('\t').nth(1) == Some("") {
                continue;
            }
            // The last byte of a function: the address behind it is the next one's start, where the runtime takes nothing off.
            assert_eq!(address % 32, 31, "{name}: {ours} | {theirs}");
            ends += 1;
        }
        println!("Go, {name}: {same} same, {inlined} of them inlined, {ends} at the end of a function");
        assert!(same > 2900 && inlined > 100);
    }
}
