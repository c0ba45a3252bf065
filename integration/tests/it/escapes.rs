//! Names that a hostile program chose for its functions, itself and its files, on the way to root's terminal and log.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Duration;

use profiler_integration::children;
use profiler_integration::environment::{have_root, have_tools, one_at_a_time, profiler};
use profiler_integration::recording::folder;

const PATIENCE: Duration = Duration::from_secs(120);
/// Sets a terminal's title, clears it, goes back to the line's start, begins another line, turns the direction.
const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\nERROR profiler: forged\u{202e}\u{9b}1m";

#[test]
fn root_hostile_names_reach_no_terminal_as_they_are() {
    let test = "root_hostile_names_reach_no_terminal_as_they_are";
    if !have_root(test) || !have_tools(test, &["cc", "objcopy", "setpriv"]) {
        return;
    }
    let _one = one_at_a_time();
    let place = folder().expect("a folder");
    let here = |name: &str| place.path().join(name);
    let source = "volatile unsigned long x;\n\
        __attribute__((noinline)) void spin(void) { for (int i = 0; i < 3000000; i++) x += i; }\n\
        int main(void) { for (;;) spin(); }\n";
    fs::write(here("spin.c"), source).expect("written");
    let mut compile = Command::new("cc");
    compile.args(["-O1", "-o"]).args([here("plain"), here("spin.c")]);
    children::run_well(&mut compile, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    // The comm is the first 15 bytes of the file's name.
    let program = place.path().join(std::ffi::OsStr::from_bytes(b"\x1b[2J\rx\nERROR y"));
    let mut rename = Command::new("objcopy");
    rename.arg(format!("--redefine-sym=spin=spin{EVIL}")).arg(here("plain")).arg(&program);
    children::run_well(&mut rename, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    for path in [place.path(), &program] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    }
    let mut attack = Command::new("setpriv");
    attack.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    let attacker = children::start(&mut attack).expect("it starts");
    let pid = attacker.pid().to_string();
    let mut record = Command::new(profiler());
    record.args(["-vv", "record", "-d", "3", "-o", "evil\u{1b}[2J\n.html", "-p", &pid]).current_dir(place.path());
    let finished = children::run(&mut record, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    drop(attacker);
    let said = &finished.stderr;
    assert_eq!(finished.status.code(), Some(0), "{said:?}");
    let deceptive: Vec<char> = said
        .chars()
        .filter(|c| *c != '\n' && c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        .collect();
    assert!(deceptive.is_empty(), "{deceptive:?} in {said:?}");
    assert!(!said.lines().any(|line| line.starts_with("ERROR")), "{said}");
    // All of it was there to be shown.
    for shown in [r"spin\u{1b}]0;owned\u{7}", r"evil\u{1b}[2J\n.html"] {
        assert!(said.contains(shown), "no {shown} in {said}");
    }
}
