//! Debug info that is in other files than the program: moved together by `dwz`, split off by the compiler, in a container's root.

use crate::common::*;
use profiler_address::ElfVaddr;
use profiler_symbolizer::{Object, Options, Stats, Symbolized, Symbolizer};
use std::{fs, os::fd::OwnedFd, path::Path, sync::Arc};

/// What a program's function `work` is at each of its instructions, and what was said of it.
fn frames_of_work(object: &Object, options: Options, full: &Path) -> (Vec<Symbolized>, Stats) {
    let text = output("nm", &["-S", &full.to_string_lossy()], "").unwrap();
    let line = text.lines().find(|line| line.ends_with(" work")).unwrap_or_else(|| panic!("{text}"));
    let mut words = line.split(' ').map(|word| u64::from_str_radix(word, 16).unwrap_or(0));
    let (start, size) = (words.next().unwrap(), words.next().unwrap());
    let addresses: Vec<_> = (start..start + size).map(ElfVaddr).collect();
    let mut symbolizer = Symbolizer::new(options);
    (symbolizer.native(object, &addresses), symbolizer.stats())
}

/// `work`, with `inner` and `deepest` within it at most of its bytes; nothing without a name.
fn check(found: &[Symbolized], what: &str) {
    let names = names(found);
    let deep = names.iter().filter(|names| **names == ["deepest", "inner", "work"]).count();
    assert!(deep * 2 > names.len(), "{what}: {names:?}");
    assert!(names.iter().all(|names| names.last().is_some_and(|name| name == "work")), "{what}: {names:?}");
    assert!(names.iter().flatten().all(|name| !name.starts_with('<')), "{what}: {names:?}");
    let places: Vec<_> = found.iter().filter(|s| s.frames.len() == 3).collect();
    let file = |s: &Symbolized, depth: usize| s.frames[depth].file.as_deref().unwrap_or_default().to_owned();
    let lines = |s: &Symbolized| (s.frames[1].line, s.frames[2].line);
    assert!(places.iter().all(|s| file(s, 0).ends_with("shared_inlines.h")), "{what}");
    assert!(places.iter().all(|s| file(s, 2).ends_with("shared_inlines.c")), "{what}");
    // The calls: of `deepest` in line 12 of the header, of `inner` in line 5 of the program.
    assert!(places.iter().all(|s| lines(s) == (12, 5)), "{what}: {places:?}");
}

fn build(compiler: &str, path: &Path, flags: &[&str]) -> bool {
    let text = path.to_string_lossy();
    run(compiler, &[&["-O2"], flags, &["-o", &text, &source("shared_inlines.c")]].concat())
}

#[test]
fn what_dwz_moved_to_a_common_file_is_found_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        for name in ["a", "b"] {
            assert!(build("gcc", &at(name), &["-g", version]));
        }
        let text = |name: &str| at(name).to_string_lossy().into_owned();
        if !run("dwz", &["-m", &text("common.debug"), &text("a"), &text("b")]) {
            return;
        }
        let sections = output("readelf", &["-SW", &text("a")], "").unwrap();
        assert!(sections.contains(".gnu_debugaltlink"), "{version}: dwz found nothing in common");
        let (found, stats) = frames_of_work(&object(&at("a")), options(true), &at("a"));
        check(&found, version);
        assert_eq!((stats.supplement_missing, stats.dwarf_failures), (0, 0));

        // Another file in its place is not believed, and one that is not there is told.
        fs::copy(at("b"), at("common.debug")).unwrap();
        let (_, stats) = frames_of_work(&object(&at("a")), options(true), &at("a"));
        assert_eq!(stats.supplement_missing, 1);
        fs::remove_file(at("common.debug")).unwrap();
        let (found, stats) = frames_of_work(&object(&at("a")), options(true), &at("a"));
        assert_eq!(stats.supplement_missing, 1);
        assert!(names(&found).iter().all(|names| names.last().is_some_and(|name| name == "work")));
    }
}

#[test]
fn split_debug_info_is_found_in_its_files_and_in_a_package() {
    let test = "split_debug_info_is_found_in_its_files_and_in_a_package";
    let Some(clang) = profiler_need::llvm_tool(test, "clang") else { return };
    let Some(llvm_dwp) = profiler_need::llvm_tool(test, "llvm-dwp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // binutils' packer knows no version 5, and LLVM's 14 never ends on GCC's.
    for (compiler, version, packer) in [
        ("gcc", "-gdwarf-4", Some("dwp")),
        ("gcc", "-gdwarf-5", None),
        (&*clang, "-gdwarf-4", Some("dwp")),
        (&*clang, "-gdwarf-5", Some(&*llvm_dwp)),
    ] {
        let what = format!("{compiler} {version}");
        let (object_file, program) = (at("app.o"), at("app"));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let flags = ["-O2", "-g", "-gsplit-dwarf", version, "-c", "-o"];
        if !run(compiler, &[&flags[..], &[&text(&object_file), &source("shared_inlines.c")]].concat()) {
            continue;
        }
        assert!(run(compiler, &["-o", &text(&program), &text(&object_file)]));
        let (found, stats) = frames_of_work(&object(&program), options(true), &program);
        check(&found, &what);
        assert_eq!((stats.dwo_missing, stats.dwarf_failures), (0, 0), "{what}");

        let package = at("app.dwp");
        if packer.is_some_and(|packer| run(packer, &["-e", &text(&program), "-o", &text(&package)])) {
            fs::remove_file(at("app.dwo")).unwrap();
            let (found, stats) = frames_of_work(&object(&program), options(true), &program);
            check(&found, &format!("{what}, packed"));
            assert_eq!((stats.dwo_missing, stats.dwarf_failures), (0, 0), "{what}, packed");
            fs::remove_file(&package).unwrap();
        }
        // Neither: names and lines by the program itself, and a word about what is missing.
        let _ = fs::remove_file(at("app.dwo"));
        let (found, stats) = frames_of_work(&object(&program), options(true), &program);
        assert!(names(&found).iter().all(|names| *names == ["work"]), "{what}: {:?}", names(&found));
        assert_eq!(stats.dwo_missing, 1, "{what}");
    }
}

#[test]
fn rust_with_packed_debug_info_has_inlined_callees() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inlines");
    let text = path.to_string_lossy().into_owned();
    let flags = ["-O", "-g", "-C", "split-debuginfo=packed", "-o", &text];
    if !run("rustc", &[&flags[..], &[&source("inlines.rs")]].concat()) {
        return;
    }
    assert!(path.with_extension("dwp").exists());
    // Its own code: that of the standard library is described in the program.
    let symbols = output("nm", &["-S", &text], "").unwrap();
    let own = symbols.lines().filter(|line| line.contains("7inlines"));
    let hex = |word: Option<&str>| word.and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0);
    let ranges = own.map(|line| (hex(line.split(' ').next()), hex(line.split(' ').nth(1))));
    let addresses: Vec<_> = ranges.flat_map(|(start, size)| start..start + size).map(ElfVaddr).collect();
    assert!(addresses.len() > 500, "{symbols}");
    let inlined = || {
        let mut symbolizer = Symbolizer::new(options(true));
        let found = symbolizer.native(&object(&path), &addresses);
        (found.iter().filter(|s| s.frames.len() > 1).count(), symbolizer.stats())
    };
    let (with, stats) = inlined();
    assert_eq!(stats.dwarf_failures, 0);
    fs::remove_file(path.with_extension("dwp")).unwrap();
    let (without, stats) = inlined();
    println!("rustc, packed: {with} addresses with inlined callees, {without} without the package");
    assert!(with > addresses.len() / 2 && without == 0 && stats.dwo_missing > 0, "{with} {without} {stats:?}");
}

#[test]
fn debug_files_are_looked_for_in_the_processs_own_root_and_no_link_leads_out_of_it() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let full = outside.path().join("full");
    assert!(build("gcc", &full, &["-g", "-Wl,--build-id"]));
    fs::create_dir_all(at("bin")).unwrap();
    let debug = outside.path().join("full.debug");
    assert!(run("objcopy", &["--only-keep-debug", &text(&full), &text(&debug)]));
    assert!(run("strip", &["-o", &text(&at("bin/app")), &text(&full)]));
    let notes = output("readelf", &["-n", &text(&full)], "").unwrap();
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap();
    let object = Object { path: "/bin/app".to_owned(), root: root.path().to_owned(), ..object(&at("bin/app")) };
    let by_id = at(&format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    fs::create_dir_all(by_id.parent().unwrap()).unwrap();
    // A link means what it means within the root.
    std::os::unix::fs::symlink(&debug, &by_id).unwrap();
    assert!(names(&frames_of_work(&object, options(true), &full).0).iter().all(Vec::is_empty));
    // What is not a regular file is not opened.
    fs::remove_file(&by_id).unwrap();
    make_pipe(&by_id);
    assert!(names(&frames_of_work(&object, options(true), &full).0).iter().all(Vec::is_empty));
    let _ = fs::remove_file(&by_id);
    fs::copy(&debug, &by_id).unwrap();
    check(&frames_of_work(&object, options(true), &full).0, "in the root");
    // Its process has ended, and whoever asks has the directory open.
    let held = Arc::new(OwnedFd::from(fs::File::open(root.path()).unwrap()));
    let ended = Object { root: "/proc/0/root".into(), held: Some(held), ..object.clone() };
    check(&frames_of_work(&ended, options(true), &full).0, "in the root of who has ended");
    let unknown = Object { held: None, ..ended };
    assert!(names(&frames_of_work(&unknown, options(true), &full).0).iter().all(Vec::is_empty));
}

/// A pipe: whoever opened it to read would wait for ever.
fn make_pipe(path: &Path) {
    assert!(run("mkfifo", &[&path.to_string_lossy()]));
}
