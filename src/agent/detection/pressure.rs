//! The kernel's pressure stall information: the share of time in which something waited for CPU, memory or IO.
//!
//! `total` of `/proc/pressure/*` counts µs since boot, so that the mean between two looks is exact (Documentation/accounting/psi.rst).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// A file has two lines of some 60 bytes.
const MOST: usize = 512;

/// All files that this kernel has.
pub struct Pressure {
    files: Vec<Stalls>,
}

struct Stalls {
    file: File,
    /// Names of `some` and `full`.
    names: [String; 2],
    last: Option<(Instant, [Option<u64>; 2])>,
}

impl Pressure {
    /// Opens what is in `folder`; a kernel without `CONFIG_PSI`, or with `psi=0`, has nothing there.
    pub fn open(folder: &Path) -> Self {
        let files = ["cpu", "memory", "io"].into_iter().filter_map(|resource| {
            let file = File::open(folder.join(resource)).ok()?;
            let names = ["some", "full"].map(|kind| format!("{resource} ({kind})"));
            Some(Stalls { file, names, last: None })
        });
        Self { files: files.collect() }
    }

    /// Whether there is anything.
    pub fn is_there(&self) -> bool {
        !self.files.is_empty()
    }

    /// The share of time that was waited since the last look, by resource and kind: `some` task, or all (`full`).
    pub fn look(&mut self, now: Instant) -> Vec<(String, f64)> {
        let mut shares = Vec::new();
        for Stalls { file, names, last } in &mut self.files {
            let mut bytes = [0; MOST];
            let Ok(length) = file.read_at(&mut bytes, 0) else { continue };
            let totals = totals(bytes.get(..length).unwrap_or_default());
            let Some((then, before)) = last.replace((now, totals)) else { continue };
            let micros = now.saturating_duration_since(then).as_micros() as f64;
            for ((name, total), before) in names.iter().zip(totals).zip(before) {
                if let (Some(total), Some(before)) = (total, before)
                    && micros > 0.0
                {
                    // Stalls that last are counted when the kernel next looks at them.
                    shares.push((name.clone(), (total.saturating_sub(before) as f64 / micros).min(1.0)));
                }
            }
        }
        shares
    }
}

/// `total` of `some` and `full`. Of the whole host's CPU `full` is not defined, and constant.
fn totals(text: &[u8]) -> [Option<u64>; 2] {
    let text = String::from_utf8_lossy(text);
    ["some ", "full "].map(|kind| {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        line.split_once("total=")?.1.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_share_of_time_between_two_looks_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |some: u64, full: u64| {
            let line = |kind, total| format!("{kind} avg10=1.00 avg60=2.00 avg300=3.00 total={total}\n");
            fs::write(folder.path().join("io"), line("some", some) + &line("full", full)).expect("written");
        };
        write(1_000, 5);
        fs::write(folder.path().join("memory"), "nonsense \u{0} total=x").expect("written");
        let mut pressure = Pressure::open(folder.path());
        let now = Instant::now();
        assert!(pressure.is_there() && pressure.look(now).is_empty());
        write(2_501_000, 5);
        let shares = pressure.look(now + Duration::from_secs(5));
        assert_eq!(shares, [("io (some)".to_owned(), 0.5), ("io (full)".to_owned(), 0.0)]);
        // Counted late, and from the beginning.
        write(u64::MAX, 0);
        assert_eq!(pressure.look(now + Duration::from_secs(10))[0].1, 1.0);
        write(0, 0);
        assert_eq!(pressure.look(now + Duration::from_secs(15))[0].1, 0.0);
        assert!(!Pressure::open(&folder.path().join("missing")).is_there());
    }
}
