//! What the machine has to offer, where things are, and one recording at a time.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use profiler_need::{find, have, have_by_chance, have_root, have_tools, python_with};

/// Path of the binary under test; without it cargo builds one.
pub const BINARY: &str = "PROFILER_BIN";

/// Path of a binary built for debugging, which has the faults that tests can ask for; without it cargo builds one.
pub const DEBUG_BINARY: &str = "PROFILER_DEBUG_BIN";

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
    PROFILER.get_or_init(|| env::var_os(BINARY).map_or_else(profiler_with_faults, PathBuf::from))
}

/// The `profiler` with the faults that tests can ask for: built for debugging, whatever [`BINARY`] is; [`DEBUG_BINARY`], or one that
/// cargo builds now.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn profiler_with_faults() -> PathBuf {
    if let Some(built) = env::var_os(DEBUG_BINARY) {
        return built.into();
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "-p", "profiler"]).current_dir(repository());
    let status = build.status().unwrap_or_else(|error| panic!("cannot run {build:?}: {error}"));
    assert!(status.success(), "{build:?} failed: {status}");
    target_folder().join("debug/profiler")
}

/// Tests that record hold it alone, those whose recordings do not disturb each other together.
static RECORDING: RwLock<()> = RwLock::new(());

/// Held while a test records: several loads at once on a small machine would only test its scheduler.
pub fn one_at_a_time() -> RwLockWriteGuard<'static, ()> {
    // A test that failed while it held the lock says nothing about the next one.
    RECORDING.write().unwrap_or_else(PoisonError::into_inner)
}

/// Held while a test records what no other test that holds this counts, and measures nothing.
pub fn beside_its_like() -> RwLockReadGuard<'static, ()> {
    RECORDING.read().unwrap_or_else(PoisonError::into_inner)
}
