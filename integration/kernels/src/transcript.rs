//! The console's output: the packed results of each step of `guest/init`, unpacked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use profiler_integration::children;

use crate::error::Error;

/// What one step left.
#[derive(Debug, Default)]
pub struct Step {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Its profile, where it wrote one.
    pub profile: Option<PathBuf>,
    /// Where all its files are.
    pub folder: PathBuf,
}

/// Steps by name, and whether the script came to its end.
#[derive(Debug, Default)]
pub struct Steps {
    /// Those that ended.
    pub steps: BTreeMap<String, Step>,
    /// The step at which the guest died, if it did.
    pub died: Option<String>,
}

/// Reads the console's `log` and unpacks into `folder`.
///
/// # Errors
/// The log cannot be read, or is not what the guest prints.
pub fn read(log: &Path, folder: &Path) -> Result<Steps, Error> {
    let bytes = fs::read(log).map_err(Error::file("read", log))?;
    let text = String::from_utf8_lossy(&bytes);
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    let broken = |problem: String| Error::Console { log: log.into(), problem };
    let mut found = Steps { died: Some("boot".into()), ..Steps::default() };
    let mut packed = String::new();
    for line in text.lines() {
        // The firmware leaves its own codes on the first line.
        let Some((_, marker)) = line.split_once("@@ ") else {
            packed.push_str(line.trim());
            continue;
        };
        match marker.trim().split_once(' ').unwrap_or((marker.trim(), "")) {
            ("begin", name) => {
                packed.clear();
                found.died = Some(name.into());
            }
            ("end", name) => {
                let archive =
                    STANDARD.decode(&packed).map_err(|error| broken(format!("has no base64 in {name}: {error}")))?;
                found.steps.insert(name.into(), unpack(&archive, folder, name)?);
                found.died = Some(format!("what follows {name}"));
            }
            ("done", _) => found.died = None,
            _ => return Err(broken(format!("has an unknown line: {line}"))),
        }
    }
    Ok(found)
}

/// Reads results that lie in folders below `results`, one a step, as `guest/steps` leaves them.
///
/// # Errors
/// A folder cannot be read.
pub fn of_folder(results: &Path) -> Result<Steps, Error> {
    let mut steps = BTreeMap::new();
    for entry in fs::read_dir(results).map_err(Error::file("read", results))? {
        let folder = entry.map_err(Error::file("read", results))?.path();
        if folder.join("status").is_file() {
            steps.insert(folder.file_name().unwrap_or_default().to_string_lossy().into_owned(), step(&folder)?);
        }
    }
    Ok(Steps { steps, died: None })
}

fn unpack(archive: &[u8], folder: &Path, name: &str) -> Result<Step, Error> {
    let file = folder.join(format!("{name}.tar.gz"));
    fs::write(&file, archive).map_err(Error::file("write", &file))?;
    children::run_well(Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(folder), Duration::from_secs(30))?;
    step(&folder.join(name))
}

/// What a step left in its folder.
fn step(folder: &Path) -> Result<Step, Error> {
    let text = |name: &str| {
        let file = folder.join(name);
        fs::read(&file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(Error::file("read", &file))
    };
    let profile = folder.join("profile.pb.gz");
    Ok(Step {
        status: text("status")?.trim().parse().unwrap_or(-1),
        stdout: text("stdout")?,
        stderr: text("stderr")?,
        profile: profile.is_file().then_some(profile),
        folder: folder.to_owned(),
    })
}
