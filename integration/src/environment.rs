//! What the machine has to offer, where things are, and one recording at a time.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Set by `scripts/test`: a missing privilege or tool is then a failure, not a reason to skip.
pub const MUST_RUN: &str = "PROFILER_TESTS_NEED_ROOT";
/// Path of the binary under test; without it cargo builds one.
pub const BINARY: &str = "PROFILER_BIN";

/// True if the caller is root. Otherwise says so past the test harness's capture, since a test that quietly did not run
/// looks like one that passed; where [`MUST_RUN`] is set, panics.
#[must_use]
pub fn have_root(test: &str) -> bool {
    have(test, rustix::process::geteuid().is_root(), "root (run the tests with sudo, or scripts/test)")
}

/// True if all `tools` can be run; like [`have_root`] where they cannot.
#[must_use]
pub fn have_tools(test: &str, tools: &[&str]) -> bool {
    tools.iter().all(|tool| have(test, find(tool).is_some(), &format!("{tool} (scripts/setup --tests installs it)")))
}

fn have(test: &str, present: bool, what: &str) -> bool {
    if present {
        return true;
    }
    assert!(env::var_os(MUST_RUN).is_none(), "{test} needs {what}");
    // Not eprintln: libtest captures that, and shows it for failed tests only.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: needs {what}");
    false
}

/// The file that `name` on the PATH is, with the folders that root's PATH may lack.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let further = ["/usr/local/go/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(further).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder).to_owned()
}

/// Where cargo builds, and where we put what we build.
#[must_use]
pub fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// The `profiler` to test: [`BINARY`], or one that cargo builds now.
///
/// # Panics
///
/// If it cannot be built: no test here means anything then.
#[must_use]
pub fn profiler() -> &'static Path {
    static PROFILER: OnceLock<PathBuf> = OnceLock::new();
    PROFILER.get_or_init(|| {
        if let Some(binary) = env::var_os(BINARY) {
            return PathBuf::from(binary);
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "profiler"]).current_dir(repository());
        let status = build.status().unwrap_or_else(|error| panic!("cannot run {build:?}: {error}"));
        assert!(status.success(), "{build:?} failed: {status}");
        target_folder().join("debug/profiler")
    })
}

/// Held while a test records: several loads at once on a small machine would only test its scheduler.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static RECORDING: Mutex<()> = Mutex::new(());
    // A test that failed while it held the lock says nothing about the next one.
    RECORDING.lock().unwrap_or_else(PoisonError::into_inner)
}
