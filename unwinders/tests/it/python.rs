//! CPython's line tables, against what each version says of its own library.

use std::path::PathBuf;
use std::process::Command;

use profiler_unwinders::python::lines::{Format, line};

/// Prints of the code objects of a part of the library: first line, table, and ranges of bytes with their lines.
const ORACLE: &str = r#"
import os, sys, types
old = sys.version_info < (3, 10)
if old:
    import dis
def ranges(code):
    if old:
        starts = list(dis.findlinestarts(code)) + [(len(code.co_code), None)]
        # what findlinestarts leaves out has the line of what comes before
        return [(a, b, line) for (a, line), (b, _) in zip(starts, starts[1:])]
    return list(code.co_lines())
def show(code):
    table = code.co_lnotab if old else code.co_linetable
    lines = ",".join("%d:%d:%s" % (a, b, -1 if line is None else line) for a, b, line in ranges(code))
    print(code.co_firstlineno, table.hex() or "-", lines or "-")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            show(constant)
folder = os.path.dirname(os.__file__)
files = sorted(name for name in os.listdir(folder) if name.endswith(".py"))
for name in files[int(sys.argv[1])::4]:
    with open(os.path.join(folder, name), "rb") as file:
        show(compile(file.read(), name, "exec", dont_inherit=True))
"#;

/// All versions that there are, and which format theirs is.
fn versions() -> Vec<(PathBuf, Format)> {
    let home = std::env::var_os("PYENV_ROOT").map_or_else(|| PathBuf::from("/root/.pyenv"), PathBuf::from);
    let folders = std::fs::read_dir(home.join("versions")).into_iter().flatten().flatten();
    let mut programs: Vec<PathBuf> = folders.map(|folder| folder.path().join("bin/python3")).collect();
    programs.push(PathBuf::from("/usr/bin/python3"));
    let format = |program: PathBuf| {
        let asked = Command::new(&program).args(["-c", "import sys; print(*sys.version_info[:2])"]).output().ok()?;
        let text = String::from_utf8(asked.stdout).ok()?;
        let minor: u32 = text.trim().strip_prefix("3 ")?.parse().ok()?;
        let format = match minor {
            ..=7 => return None,
            8 | 9 => Format::Lnotab,
            10 => Format::Ranges,
            _ => Format::Locations,
        };
        Some((program, format))
    };
    programs.into_iter().filter_map(format).collect()
}

#[test]
fn lines_are_what_the_interpreter_says_of_its_own_library() {
    let test = "lines_are_what_the_interpreter_says_of_its_own_library";
    let versions = versions();
    if !profiler_need::have(test, !versions.is_empty(), "python3 (scripts/setup --tests installs it)") {
        return;
    }
    for (number, (program, format)) in versions.iter().enumerate() {
        // Another part of the library for each.
        let part = (number % 4).to_string();
        let output = Command::new(program).args(["-W", "ignore", "-c", ORACLE, &part]).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("it is text");
        let mut units = 0_u32;
        for code in text.lines() {
            let mut fields = code.split(' ');
            let mut field = || fields.next().expect("three fields");
            let (first, table, ranges) = (field().parse().expect("a number"), field(), field());
            let digits: Vec<u32> = table.chars().filter_map(|digit| digit.to_digit(16)).collect();
            let table: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
            for range in ranges.split(',').filter(|range| *range != "-") {
                let numbers: Vec<i64> = range.split(':').map(|number| number.parse().expect("a number")).collect();
                let expected = u32::try_from(numbers[2]).ok();
                for position in (numbers[0]..numbers[1]).step_by(2) {
                    let found = line(*format, &table, first, position as u32);
                    assert_eq!(found, expected, "{}: byte {position} of {code}", program.display());
                    units += 1;
                }
            }
        }
        println!("{}: {units} positions", program.display());
        assert!(units > 50_000, "{}: {units} positions", program.display());
    }
}
