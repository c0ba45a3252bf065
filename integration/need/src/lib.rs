//! What a test needs of its machine: a program, root, a feature of the kernel.
//!
//! Where it is missing, the test fails in continuous integration, since a test that quietly did not run looks like one that
//! passed; elsewhere it is skipped, aloud:
//!
//! ```
//! fn root_something_is_traced() {
//!     let test = "root_something_is_traced";
//!     if !profiler_need::have_root(test) || !profiler_need::have_tools(test, &["perf"]) {
//!         return;
//!     }
//! }
//! ```
//!
//! `scripts/setup --tests` installs every program that a test asks for here.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set by `scripts/test`: what a test needs must be there. So must it where `CI` is set, as every CI service does.
pub const MUST_RUN: &str = "PROFILER_TESTS_NEED_ROOT";

/// True if nothing may be skipped here.
#[must_use]
pub fn must_run() -> bool {
    all_must_run(env::var_os(MUST_RUN), env::var_os("CI"))
}

/// A variable that is empty, `0` or `false` is not set.
fn all_must_run(own: Option<OsString>, ci: Option<OsString>) -> bool {
    [own, ci].into_iter().flatten().any(|value| !["", "0", "false"].iter().any(|no| value == *no))
}

/// `present`, where `test` needs `what`. What is missing is told past the test harness's capture.
///
/// # Panics
///
/// If it is missing where everything must run ([`must_run`]).
#[must_use]
#[track_caller]
pub fn have(test: &str, present: bool, what: &str) -> bool {
    decide(test, present, what, must_run())
}

#[track_caller]
fn decide(test: &str, present: bool, what: &str, must_run: bool) -> bool {
    assert!(present || !must_run, "{test} needs {what}, and here every test has to run");
    if !present {
        skipped(test, &format!("needs {what}"));
    }
    present
}

/// Like [`have`], for what widens a test on the machines that happen to have it, such as the library of a JVM: where it is missing,
/// that is said, and is no failure.
pub fn have_by_chance(test: &str, present: bool, what: &str) {
    if !present {
        skipped(test, &format!("there is no {what} here, one more thing to look at on the machines that have it"));
    }
}

fn skipped(test: &str, why: &str) {
    // Not eprintln: libtest captures that, and shows it for failed tests only.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// True if the caller is root; see [`have`].
#[must_use]
#[track_caller]
pub fn have_root(test: &str) -> bool {
    have(test, rustix::process::geteuid().is_root(), "root (run the tests with sudo, or scripts/test)")
}

/// True if all `tools` can be run; see [`have`].
#[must_use]
#[track_caller]
pub fn have_tools(test: &str, tools: &[&str]) -> bool {
    tools.iter().all(|tool| have(test, find(tool).is_some(), &format!("{tool} (scripts/setup --tests installs it)")))
}

/// True if `file` is there; see [`have`].
#[must_use]
#[track_caller]
pub fn have_file(test: &str, file: impl AsRef<Path>) -> bool {
    let file = file.as_ref();
    have(test, file.exists(), &format!("{} (scripts/setup --tests installs it)", file.display()))
}

/// A Python in which `modules` (`a, b`) can be imported, which Debian calls `packages`; see [`have`]. The first one on the PATH may not
/// be the distribution's.
#[must_use]
#[track_caller]
pub fn python_with(test: &str, modules: &str, packages: &str) -> Option<&'static str> {
    let import = format!("import {modules}");
    let found = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let output = Command::new(python).args(["-c", &import]).output();
        output.is_ok_and(|output| output.status.success())
    });
    have(test, found.is_some(), &format!("{packages} (scripts/setup --tests installs it)")).then_some(found).flatten()
}

/// The name of a program of LLVM's, such as `clang`, in the version that the project is tested with, or else the newest one; see
/// [`have`].
#[must_use]
#[track_caller]
pub fn llvm_tool(test: &str, name: &str) -> Option<String> {
    let versions = [19].into_iter().chain((14..=25).rev()).map(|version| format!("{name}-{version}"));
    let found = versions.chain([name.to_owned()]).find(|name| find(name).is_some());
    have(test, found.is_some(), &format!("{name} (scripts/setup --tests installs it)")).then_some(found).flatten()
}

/// The file that `name` on the PATH is, with the folders that root's PATH may lack.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let further = ["/usr/local/go/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(further).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_fails_where_all_must_run_and_is_skipped_elsewhere() {
        assert!(decide("t", true, "x", true) && decide("t", true, "x", false));
        assert!(!decide("the test of skipping", false, "what nobody has", false));
        let panic = std::panic::catch_unwind(|| decide("some_test", false, "gdb", true)).unwrap_err();
        let message = panic.downcast_ref::<String>().map(String::as_str);
        assert_eq!(message, Some("some_test needs gdb, and here every test has to run"));
    }

    #[test]
    fn either_variable_says_that_all_must_run() {
        let set = |value: &str| Some(OsString::from(value));
        assert!(all_must_run(set("1"), None) && all_must_run(None, set("true")) && all_must_run(set(""), set("1")));
        assert!(!all_must_run(None, None) && !all_must_run(set(""), set("false")) && !all_must_run(set("0"), None));
    }

    #[test]
    fn programs_are_found_and_what_is_none_is_not() {
        assert!(find("sh").is_some_and(|file| file.is_absolute()));
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
