//! A control group for tests that record one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use profiler_integration::children;

const PATIENCE: Duration = Duration::from_secs(60);

/// A control group of the v2 hierarchy, removed when dropped.
pub struct Group {
    /// Its folder.
    pub folder: PathBuf,
    /// Where the hierarchy was mounted for it.
    mounted: Option<PathBuf>,
}

impl Group {
    /// A group in the hierarchy as it is mounted, or, on hosts that use v1, as it can be.
    pub fn new(scratch: &Path) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let there = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let place = words.next()?;
            (words.next() == Some("cgroup2")).then(|| PathBuf::from(place))
        });
        let mounted = if there.is_some() { None } else { Some(scratch.join("cgroup2")) };
        if let Some(place) = &mounted {
            fs::create_dir(place).ok()?;
            children::run_well(Command::new("mount").args(["-t", "cgroup2", "none"]).arg(place), PATIENCE).ok()?;
        }
        let root = there.or_else(|| mounted.clone())?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("profiler-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let group = Self { folder: root.join(name), mounted };
        fs::create_dir(&group.folder).ok()?;
        Some(group)
    }

    /// Moves a process into it.
    pub fn enter(&self, pid: u32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).expect("it can be moved");
    }

    /// Moves a process out of it.
    pub fn leave(&self, pid: u32) {
        let root = self.folder.parent().expect("a hierarchy");
        fs::write(root.join("cgroup.procs"), pid.to_string()).expect("it can be moved back");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
        if let Some(place) = &self.mounted {
            let _ = Command::new("umount").arg(place).status();
        }
    }
}
