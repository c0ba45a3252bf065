//! Which runtime a file is, by what it exports.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use profiler_bpf::abi::FrameKind;
use profiler_elf::{Bytes, Elf};
use profiler_unwinders::executable::Identity;
use profiler_unwinders::runtime::{Symbols, Unfollowed};

fn library(folder: &Path, name: &str, source: &str, flags: &[&str]) -> Arc<File> {
    let (text, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    std::fs::write(&text, source).unwrap();
    let mut cc = Command::new("cc");
    let built = cc.args(["-shared", "-fPIC", "-o"]).args([&library, &text]).args(flags).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Arc::new(File::open(library).unwrap())
}

fn elf(file: &Arc<File>) -> Elf {
    Elf::parse(Bytes::of_file(Arc::clone(file)).unwrap()).unwrap()
}

fn recognised(file: &Arc<File>) -> (Option<FrameKind>, Option<Unfollowed>) {
    let identity = Identity::read(file, file.metadata().unwrap().len()).unwrap();
    (identity.runtime, identity.unfollowed)
}

#[test]
fn a_runtime_is_told_by_what_it_exports_whatever_the_hash_of_its_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, kind, unfollowed) in [
        ("_PyRuntime", Some(FrameKind::CPYTHON), None),
        ("gHotSpotVMStructs", Some(FrameKind::HOTSPOT), None),
        ("v8dbg_frametype_EntryFrame", Some(FrameKind::V8), None),
        ("PyEval_EvalFrameEx", None, Some(Unfollowed::OldPython)),
        ("pypy_main_startup", None, Some(Unfollowed::PyPy)),
        ("J9VMDllMain", None, Some(Unfollowed::OpenJ9)),
        ("napi_create_function", None, Some(Unfollowed::BareV8)),
        ("pypy_main_startup_not", None, None),
    ] {
        // Others too, so that there are several buckets.
        let others: String = (0..100).map(|number| format!("int other_{number};")).collect();
        let source = format!("long {name} = 1; {others}");
        for style in ["gnu", "sysv", "both"] {
            let file = library(folder.path(), name, &source, &[&format!("-Wl,--hash-style={style}")]);
            assert_eq!(recognised(&file), (kind, unfollowed), "{name}, {style}");
            let all: Vec<String> = (0..100).map(|number| format!("other_{number}")).collect();
            let names: Vec<&str> = all.iter().map(String::as_str).collect();
            let found = Symbols::exported(&elf(&file), &names);
            let sizes: Vec<u64> = names.iter().filter_map(|name| Some(found.get(name)?.size)).collect();
            assert_eq!(sizes, [4; 100], "{style}");
        }
    }
    // What is only referred to is no runtime of the file's.
    let source = "extern long pypy_main_startup; long *other() { return &pypy_main_startup; }";
    assert_eq!(recognised(&library(folder.path(), "refers", source, &[])), (None, None));
    let section = "__attribute__((section(\".svm_heap\"))) int heap = 1;";
    assert_eq!(recognised(&library(folder.path(), "heap", section, &[])), (None, Some(Unfollowed::NativeImage)));
}

#[test]
fn a_file_with_a_large_table_of_symbols_costs_no_more_than_a_small_one() {
    let folder = tempfile::tempdir().unwrap();
    let many: String = (0..60_000)
        .map(|number| format!(".globl a_name_that_is_long_{number}\na_name_that_is_long_{number}: .byte 0\n"))
        .collect();
    let source =
        format!("__asm__(\".data\\n.include \\\"{}\\\"\\n\");long _PyRuntime;", folder.path().join("many.s").display());
    std::fs::write(folder.path().join("many.s"), many).unwrap();
    let file = library(folder.path(), "many", &source, &["-Wl,--hash-style=gnu"]);
    let table = |elf: &Elf| elf.section(".dynsym").map_or(0, |section| section.size);
    assert!(table(&elf(&file)) > 60_000 * 24);
    let read = || {
        let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
        line.parse::<u64>().unwrap()
    };
    let elf = elf(&file);
    let before = read();
    let found = Symbols::exported(&elf, &["_PyRuntime", "gHotSpotVMStructs", "v8dbg_frametype_EntryFrame"]);
    let bytes = read() - before;
    assert!(found.get("_PyRuntime").is_some() && bytes < 16 << 10, "{bytes} bytes were read");
}
