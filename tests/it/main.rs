//! The program itself, as cargo builds it beside the tests: integration/ records with this build where a test asks for a fault, which the
//! release has none of.

use std::process::Command;

#[test]
fn the_program_tells_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_profiler")).arg("--version").output().expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), concat!("profiler ", env!("CARGO_PKG_VERSION")));
}
