//! What is normal, in a file over a restart: a line of JSON that says what it is, and for each bank one that says of what it is, and one
//! that is its state.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::watch::{Level, Watch};

const VERSION: u64 = 1;
/// What is older says nothing of today, ns.
const TOO_OLD: u64 = 7 * 86_400 * profiler_detectors::SECOND;

/// Writes what `watch` knows to `path`, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, watch: &Watch, time: u64) -> io::Result<()> {
    let mut text = format!("{}\n", json!({ "version": VERSION, "time": time })).into_bytes();
    for (level, service, state) in watch.keep() {
        let of = json!({ "level": level.name(), "service": service.as_deref() });
        text.extend(format!("{of}\n").bytes());
        text.extend(state);
        text.push(b'\n');
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    // Not through a link that somebody may have laid there.
    let _ = fs::remove_file(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(&text)?;
    file.sync_data()?;
    fs::rename(beside, path)
}

/// Goes on with what [`write`] wrote, as far as it fits; how many banks that are. A file that is not there is none.
///
/// # Errors
/// It cannot be read, or is none of ours; the series begin anew.
pub fn read(path: &Path, watch: &mut Watch, budget: usize, now: u64) -> Result<usize, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.to_string()),
    };
    // A number is 8 bytes in memory and up to 25 in JSON, with its name.
    let most = budget.saturating_mul(8).saturating_add(1 << 20) as u64;
    let mut text = Vec::new();
    file.take(most + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > most {
        return Err(format!("it has more than {most} bytes"));
    }
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let object = |line: &[u8]| serde_json::from_slice::<Value>(line).map_err(|error| error.to_string());
    let head = object(lines.next().unwrap_or_default())?;
    let (Some(version), Some(time)) = (head["version"].as_u64(), head["time"].as_u64()) else {
        return Err("it does not begin with a version and a time".to_owned());
    };
    if version != VERSION {
        return Err(format!("it is of version {version}, and this is {VERSION}"));
    }
    if now.saturating_sub(time) > TOO_OLD {
        return Err("it is more than a week old".to_owned());
    }
    let (mut restored, mut problem) = (0, None);
    while let (Some(of), Some(state)) = (lines.next(), lines.next()) {
        let of = object(of)?;
        let Some(level) = Level::ALL.into_iter().find(|level| of["level"] == level.name()) else { continue };
        match watch.restore(level, of["service"].as_str(), time, state) {
            Ok(()) => restored += 1,
            Err(error) => problem = Some(error),
        }
    }
    match problem {
        Some(problem) if restored == 0 => Err(problem),
        _ => Ok(restored),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use profiler_detectors::{Config, Observation, SECOND};

    use super::*;

    const NOW: u64 = 1_795_727_100 * SECOND;
    const BUDGET: usize = 1 << 20;

    fn watch() -> Watch {
        Watch::new(&[Config::default()], &[Config::default()], BUDGET)
    }

    fn learned() -> Watch {
        let mut watch = watch();
        for second in 0..100_u64 {
            let pressure = Observation::measured(NOW + second * SECOND, 0.25, 0.0).expect("a number");
            let _ = watch.value(Level::Pressure, "io (some)", &pressure);
            let of = [("hot".into(), 20), ("cold".into(), 380)].into_iter().collect();
            let _ = watch.functions(&"shop \"x\"\n".into(), NOW + second * SECOND, 400, &of);
        }
        watch
    }

    #[test]
    fn what_was_kept_is_read_again_and_nobody_elses_to_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("detection.json");
        assert_eq!(read(&path, &mut watch(), BUDGET, NOW), Ok(0));
        let before = learned();
        // Somebody's link is not written through.
        std::os::unix::fs::symlink("/dev/full", folder.path().join("detection.json.new")).expect("a link");
        write(&path, &before, NOW).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let mut after = watch();
        assert_eq!(read(&path, &mut after, BUDGET, NOW + SECOND), Ok(2));
        assert_eq!((after.series(), after.bytes()), (before.series(), before.bytes()));
        assert!(read(&path, &mut watch(), BUDGET, NOW + TOO_OLD + 1).is_err());
        let mut other = Watch::new(&[Config::new("ewma").expect("a method")], &[], BUDGET);
        assert!(read(&path, &mut other, BUDGET, NOW).is_err());
    }

    #[test]
    fn whatever_is_in_the_file_it_ends_within_the_budget() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("detection.json");
        write(&path, &learned(), NOW).expect("written");
        let whole = fs::read(&path).expect("there");
        for cut in (0..whole.len()).step_by(97) {
            let mut torn = whole.clone();
            torn.truncate(cut);
            fs::write(&path, &torn).expect("written");
            let _ = read(&path, &mut watch(), BUDGET, NOW);
            let mut flipped = whole.clone();
            flipped[cut] = b'9';
            fs::write(&path, &flipped).expect("written");
            let mut watch = watch();
            let _ = read(&path, &mut watch, BUDGET, NOW);
            assert!(watch.bytes() <= BUDGET);
        }
        fs::write(&path, vec![b'['; 10 << 20]).expect("written");
        assert!(read(&path, &mut watch(), BUDGET, NOW).is_err());
    }
}
