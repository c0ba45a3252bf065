//! Which CPUs are online, and which of them were away.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Distance between looks at who was away.
const LOOK: Duration = Duration::from_secs(1);

/// The CPUs that are online, ascending (`/sys/devices/system/cpu/online`).
///
/// # Errors
/// sysfs is not readable.
pub fn online_cpus() -> Result<Vec<u32>> {
    static LIST: OnceLock<File> = OnceLock::new();

    let path = "/sys/devices/system/cpu/online";
    let failed = |error| Error::io(format!("read {path}"), error);
    // Asked several times a second: opening the file costs ten times as much as reading it, which tells the list anew each time.
    let list = match LIST.get() {
        Some(list) => list,
        None => {
            let opened = File::open(path).map_err(failed)?;
            LIST.get_or_init(|| opened)
        }
    };
    let mut text = [0; 4096];
    let length = list.read_at(&mut text, 0).map_err(failed)?;
    Ok(parse_cpu_list(&String::from_utf8_lossy(&text[..length])))
}

/// A CPU list such as `0-3,8`.
fn parse_cpu_list(text: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last.min(first.saturating_add(8191)));
        }
    }
    cpus
}

/// Tells CPUs that went and came back: the kernel ends all perf events of a CPU that goes, and a look at who is online does not
/// see one that is back already.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// Of each CPU that is online, what the kernel makes anew when it comes.
    seen: BTreeMap<u32, u64>,
    looked: Option<Instant>,
}

impl Presence {
    /// Those of `online` that were away since the last look, of which there is one a second.
    pub(crate) fn returned(&mut self, online: &[u32]) -> Vec<u32> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Vec::new();
        }
        self.looked = Some(Instant::now());
        self.look(online, |cpu| {
            let folder = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
            fs::metadata(folder).map_or(0, |folder| folder.ino())
        })
    }

    fn look(&mut self, online: &[u32], mark: impl Fn(u32) -> u64) -> Vec<u32> {
        let now: BTreeMap<u32, u64> = online.iter().map(|&cpu| (cpu, mark(cpu))).collect();
        let other = |(cpu, mark): (&u32, &u64)| self.seen.get(cpu).is_some_and(|seen| seen != mark).then_some(*cpu);
        let returned = now.iter().filter_map(other).collect();
        self.seen = now;
        returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_ranges_and_numbers() {
        assert_eq!(parse_cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_cpu_list("0"), [0]);
        assert_eq!(parse_cpu_list(""), [0u32; 0]);
        assert_eq!(parse_cpu_list("x-y,3"), [3]);
    }

    #[test]
    fn a_cpu_that_was_away_between_two_looks_is_told_once() {
        let mut presence = Presence::default();
        assert_eq!(presence.look(&[0, 1], |_| 7), []);
        assert_eq!(presence.look(&[0, 1], |cpu| if cpu == 1 { 8 } else { 7 }), [1]);
        assert_eq!(presence.look(&[0, 1], |cpu| if cpu == 1 { 8 } else { 7 }), []);
        // One that is gone is no news when it comes: who follows the CPUs has seen that.
        assert_eq!(presence.look(&[0], |_| 7), []);
        assert_eq!(presence.look(&[0, 1], |_| 9), [0]);
    }

    #[test]
    fn the_kernel_tells_something_of_each_cpu() {
        let online = online_cpus().unwrap();
        let mut presence = Presence::default();
        assert_eq!(presence.returned(&online), []);
        assert!(online.iter().all(|cpu| presence.seen.get(cpu).is_some_and(|&mark| mark != 0)), "{presence:?}");
    }
}
