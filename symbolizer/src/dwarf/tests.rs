//! What split debug info takes of the bounds, and what comes back.

use super::*;
use crate::{debug_files::Place, object::Object, object::ObjectKey};
use std::{fs::File, path::Path, process::Command};

/// A program of three units, each with its debug info in a `.dwo` file, compressed; and the addresses of `f0`, `f1`, `f2`.
fn built(test: &str, folder: &Path) -> Option<(Object, Vec<u64>)> {
    if !profiler_need::have_tools(test, &["gcc", "nm"]) {
        return None;
    }
    let gcc = |arguments: &[&str]| {
        assert!(Command::new("gcc").args(arguments).current_dir(folder).status().unwrap().success(), "{arguments:?}");
    };
    for unit in 0..3 {
        let source = format!(
            "static inline __attribute__((always_inline)) int inner{unit}(volatile int *x) {{ return *x + {unit}; }}\n\
             int f{unit}(volatile int *x) {{ return inner{unit}(x) * *x; }}\n"
        );
        let main = if unit == 0 { "int main(void) { return 0; }\n" } else { "" };
        std::fs::write(folder.join(format!("u{unit}.c")), source + main).unwrap();
        gcc(&["-O1", "-g", "-gdwarf-5", "-gsplit-dwarf", "-gz", "-c", &format!("u{unit}.c")]);
    }
    gcc(&["-o", "app", "u0.o", "u1.o", "u2.o"]);
    let path = folder.join("app");
    let symbols = Command::new("nm").arg(&path).output().unwrap().stdout;
    let symbols = String::from_utf8(symbols).unwrap();
    let of = |name: &str| {
        let line = symbols.lines().find(|line| line.ends_with(&format!(" T {name}"))).unwrap();
        u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
    };
    let object = Object {
        key: ObjectKey("app".into()),
        file: Arc::new(File::open(&path).unwrap()),
        path: path.to_string_lossy().into_owned(),
        root: "/".into(),
        held: None,
    };
    Some((object, ["f0", "f1", "f2"].map(of).into()))
}

fn open(object: &Object, options: &Options, stats: &mut Stats) -> Dwarf {
    let place = Place::of(object, &[]);
    let elf = Elf::parse(Bytes::of_file(object.file.clone()).unwrap()).unwrap();
    let debug = Debug { elf, place: Some((place.clone(), place.path)) };
    let mut dwarf = Dwarf::open(&debug, stats, options).unwrap();
    dwarf.texts.renew(1 << 20);
    dwarf
}

/// How many functions are at the first instruction of each address.
fn depths(dwarf: &mut Dwarf, addresses: &[u64], stats: &mut Stats) -> Vec<usize> {
    addresses.iter().map(|address| dwarf.frames(*address, Ok(None), stats).unwrap().len()).collect()
}

#[test]
fn what_units_took_is_given_back_when_they_make_room_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let test = "what_units_took_is_given_back_when_they_make_room_for_others";
    let Some((object, addresses)) = built(test, folder.path()) else { return };
    let mut stats = Stats::default();
    let mut dwarf = open(&object, &Options::default(), &mut stats);
    let whole = dwarf.splits.left();
    assert_eq!(depths(&mut dwarf, &addresses[..1], &mut stats), [2]);
    let one = dwarf.splits.left();
    assert!(one.0 < whole.0 && one.1 < whole.1, "{one:?} of {whole:?}");
    // Room for one at a time.
    dwarf.bounds.units = 0;
    for _ in 0..20 {
        assert_eq!(depths(&mut dwarf, &addresses, &mut stats), [2, 2, 2]);
    }
    let (sections, inflated) = dwarf.splits.left();
    assert!(whole.0 - sections < 2 * (whole.0 - one.0), "{sections} left of {}", whole.0);
    assert!(whole.1 - inflated < 2 * (whole.1 - one.1), "{inflated} left of {}", whole.1);
    assert_eq!(stats, Stats::default());
}

#[test]
fn a_half_that_is_missing_counts_once_however_often_its_unit_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let test = "a_half_that_is_missing_counts_once_however_often_its_unit_is_read";
    let Some((object, addresses)) = built(test, folder.path()) else { return };
    std::fs::remove_file(folder.path().join("u1.dwo")).unwrap();
    let mut stats = Stats::default();
    let mut dwarf = open(&object, &Options::default(), &mut stats);
    dwarf.bounds.units = 0;
    for _ in 0..3 {
        depths(&mut dwarf, &addresses, &mut stats);
    }
    assert_eq!(stats, Stats { dwo_missing: 1, ..Stats::default() });
}

#[test]
fn split_debug_info_counts_against_the_budget_of_its_program() {
    let folder = tempfile::tempdir().unwrap();
    let test = "split_debug_info_counts_against_the_budget_of_its_program";
    let Some((object, addresses)) = built(test, folder.path()) else { return };
    let own = debug_bytes(&Elf::parse(Bytes::of_file(object.file.clone()).unwrap()).unwrap());
    let split = |unit: usize| {
        let file = File::open(folder.path().join(format!("u{unit}.dwo"))).unwrap();
        debug_bytes(&Elf::parse(Bytes::of_file(Arc::new(file)).unwrap()).unwrap())
    };
    // Of the three two fit.
    let options = Options { dwarf_budget_bytes: own + split(0) + split(1) + split(2) - 1, ..Options::default() };
    let mut stats = Stats::default();
    let mut dwarf = open(&object, &options, &mut stats);
    assert_eq!(depths(&mut dwarf, &addresses[..2], &mut stats), [2, 2]);
    depths(&mut dwarf, &addresses, &mut stats);
    assert_eq!(stats, Stats { dwarf_too_large: 1, ..Stats::default() });
}
