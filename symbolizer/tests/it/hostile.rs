//! Files that would take far more memory than they have bytes. Each is looked into by a process of its own, which tells how much it had
//! at most.

use crate::{
    common::{object, options},
    made::{Made, TEXT, lines, with_lines, with_nameless_functions},
};
use profiler_address::ElfVaddr;
use profiler_symbolizer::{Options, Stats, Symbolized, Symbolizer};
use std::{fs, path::Path, process::Command};

const CHILD: &str = "PROFILER_TEST_FILE";
const MIB: u64 = 1 << 20;

/// Names of the first `count` functions of a file, by a process of its own: how many have one, how many have a line, and the most memory that
/// was resident, bytes. None in that process itself, which ends there.
fn looked_into(test: &str, make: impl FnOnce() -> Vec<u8>, count: u64) -> Option<(u64, u64, u64, String)> {
    if let Some(path) = std::env::var_os(CHILD) {
        look_into(Path::new(&path), count);
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made");
    fs::write(&path, make()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args([test, "--exact", "--nocapture"]).env(CHILD, &path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split_once("FOUND ")).unwrap_or_else(|| panic!("{text}")).1;
    println!("{test}: {line}");
    let mut words = line.splitn(4, ' ');
    let mut number = || words.next().unwrap().parse::<u64>().unwrap();
    let (named, with_lines, peak) = (number(), number(), number());
    Some((named, with_lines, peak, words.next().unwrap().to_owned()))
}

fn look_into(path: &Path, count: u64) {
    let addresses: Vec<_> = (0..count).map(|n| ElfVaddr(TEXT + n * 16 + 1)).collect();
    let mut symbolizer = Symbolizer::new(Options { budget_bytes: 64 * MIB, debug_dirs: Vec::new(), ..options(true) });
    let before = peak();
    let found: Vec<Symbolized> = symbolizer.native(&object(path), &addresses);
    let named = found.iter().filter(|s| !s.frames.is_empty()).count();
    let with_line = found.iter().flat_map(|s| &s.frames).filter(|frame| frame.line > 0).count();
    let stats: Stats = symbolizer.stats();
    // On a line of its own: the harness wrote the name of the test.
    println!("\nFOUND {named} {with_line} {} {stats:?}", peak() - before);
}

/// The most memory that this process had resident, bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

#[test]
fn a_symbol_table_that_unpacks_to_more_than_the_budget_is_not_unpacked() {
    let test = "hostile::a_symbol_table_that_unpacks_to_more_than_the_budget_is_not_unpacked";
    let make = || {
        let file = Made::new().symbols_of_zeros(512 * MIB).bytes();
        assert!(file.len() < 2 << 20);
        file
    };
    let Some((named, _, peak, stats)) = looked_into(test, make, 1) else { return };
    assert!(named == 0 && peak < 48 * MIB && stats.contains("symbols_too_large: 1,"), "{peak} {stats}");
}

#[test]
fn a_symbol_table_of_too_many_functions_is_left_alone() {
    let test = "hostile::a_symbol_table_of_too_many_functions_is_left_alone";
    // 96 MiB of them.
    let make = || Made::new().symbols((0..4 << 20).map(|_| 1), b"\0f\0".to_vec()).bytes();
    let Some((named, _, peak, stats)) = looked_into(test, make, 1) else { return };
    assert!(named == 0 && peak < 80 * MIB && stats.contains("symbols_too_large: 1,"), "{peak} {stats}");
}

#[test]
fn long_names_of_many_functions_take_a_part_of_the_budget() {
    let test = "hostile::long_names_of_many_functions_take_a_part_of_the_budget";
    // Each name is the end of the one before: 60 KB, of 20,000 functions.
    let make =
        || Made::new().symbols((0..20_000).map(|n| 1 + n % 1000), [&[0][..], &[b'f'; 60_000], &[0]].concat()).bytes();
    let Some((named, _, peak, stats)) = looked_into(test, make, 20_000) else { return };
    assert!(named > 100 && peak < 48 * MIB && !stats.contains("names_left_out: 0,"), "{named} {peak} {stats}");
}

#[test]
fn a_name_that_was_left_out_is_not_the_lack_of_one() {
    // A hundred functions with names of 60 KB, and one that nothing names.
    let names = [&[0][..], &[b'f'; 60_000], &[0]].concat();
    let made = with_nameless_functions(Made::new().symbols((0..100).map(|n| 1 + n), names), 101);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made");
    fs::write(&path, made.bytes()).unwrap();
    let mut symbolizer = Symbolizer::new(Options { budget_bytes: 4 * MIB, debug_dirs: Vec::new(), ..options(true) });
    let addresses: Vec<_> = (0..101).map(|n| ElfVaddr(TEXT + n * 16 + 1)).collect();
    let found = symbolizer.native(&object(&path), &addresses);
    let (nameless, named) = found.split_last().unwrap();
    assert_eq!(nameless.frames.iter().map(|frame| &*frame.name).collect::<Vec<_>>(), ["<unnamed function>"]);
    let shown: Vec<_> = named.iter().flat_map(|s| &s.frames).collect();
    assert!(shown.iter().all(|frame| frame.name.starts_with('f')), "{:?}", shown.last());
    assert!(shown.len() > 10 && shown.len() < 90, "{}", shown.len());
    assert_eq!(symbolizer.stats().names_left_out, 100 - shown.len() as u64);
}

/// A unit with four million files, which all lines are lost with, and its function keeps its name.
fn many_files(test: &str, version: u16) {
    let make = || {
        let made = Made::new().symbols([1].into_iter(), b"\0named\0".to_vec());
        with_lines(made, version, lines(version, 4 << 20, &[])).bytes()
    };
    let Some((named, with_line, peak, stats)) = looked_into(test, make, 1) else { return };
    assert!((named, with_line) == (1, 0) && peak < 48 * MIB && stats.contains("dwarf_failures: 1,"), "{peak} {stats}");
}

#[test]
fn four_million_files_of_a_unit_of_version_4() {
    many_files("hostile::four_million_files_of_a_unit_of_version_4", 4);
}

#[test]
fn four_million_files_of_a_unit_of_version_5() {
    many_files("hostile::four_million_files_of_a_unit_of_version_5", 5);
}

/// Files that are listed on the way, between two rows.
#[test]
fn four_million_files_that_a_line_program_defines() {
    let test = "hostile::four_million_files_that_a_line_program_defines";
    let make = || {
        let made = Made::new().symbols([1].into_iter(), b"\0named\0".to_vec());
        // DW_LNE_define_file: a name, and directory, time and size.
        let program = [0, 6, 3, b'f', 0, 0, 0, 0].repeat(2 << 20);
        with_lines(made, 4, lines(4, 1, &program)).bytes()
    };
    let Some((named, with_line, peak, stats)) = looked_into(test, make, 1) else { return };
    assert!((named, with_line) == (1, 0) && peak < 48 * MIB && stats.contains("dwarf_failures: 1,"), "{peak} {stats}");
}

/// What the files above are like when they are good.
#[test]
fn a_made_file_of_few_files_has_lines() {
    for version in [4, 5] {
        let test = "hostile::a_made_file_of_few_files_has_lines";
        // Sets the address, one row of line 1, and the end.
        let mut program = vec![0, 9, 2];
        program.extend(TEXT.to_le_bytes());
        program.extend([1, 2, 64, 0, 1, 1]);
        let make = || {
            let made = Made::new().symbols([1].into_iter(), b"\0named\0".to_vec());
            with_lines(made, version, lines(version, 2, &program)).bytes()
        };
        let Some((named, with_line, ..)) = looked_into(test, make, 1) else { return };
        assert_eq!((named, with_line), (1, 1));
    }
}
