//! The control group to record.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Magic numbers of the file systems of both versions (linux/magic.h).
const V1: u64 = 0x0027_e0eb;
const V2: u64 = 0x6367_7270;

/// The folder of the cgroup `path`, in the v2 hierarchy.
///
/// # Errors
/// There is no such cgroup, or it is one of version 1 only.
pub fn open(path: &Path) -> anyhow::Result<File> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let candidates: Vec<PathBuf> = std::iter::once(path.to_owned())
        .chain(roots.iter().map(|root| Path::new(root).join(relative)))
        .filter(|path| path.join("cgroup.procs").exists())
        .collect();
    let of = |version: u64| candidates.iter().find(|path| magic(path) == Some(version));
    match (of(V2), of(V1)) {
        (Some(folder), _) => File::open(folder).with_context(|| format!("cannot open the cgroup {}", folder.display())),
        (None, Some(folder)) => anyhow::bail!("{}", old(folder)),
        (None, None) => anyhow::bail!(
            "{} is no cgroup: give a folder of the v2 hierarchy, as in /proc/PID/cgroup behind 0::",
            path.display()
        ),
    }
}

/// What to give in place of a cgroup of version 1.
fn old(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "{folder} is a cgroup of version 1, which the kernel cannot choose samples by: give the v2 path of the same processes, as in \
         /proc/PID/cgroup behind 0::, or the processes that are in it now: -p $(paste -sd, {folder}/cgroup.procs)"
    )
}

fn magic(path: &Path) -> Option<u64> {
    // The type differs between architectures.
    rustix::fs::statfs(path).ok().map(|found| found.f_type as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_of_version_1_is_refused_with_both_ways_out() {
        let said = old(Path::new("/sys/fs/cgroup/cpu/a"));
        assert!(said.contains("version 1") && said.contains("0::"), "{said}");
        assert!(said.contains("-p $(paste -sd, /sys/fs/cgroup/cpu/a/cgroup.procs)"), "{said}");
    }

    #[test]
    fn what_is_no_cgroup_is_refused() {
        for path in ["/nonexistent", "/etc", "no/such/group"] {
            let error = open(Path::new(path)).expect_err(path).to_string();
            assert!(error.contains("is no cgroup") && error.contains("0::"), "{error}");
        }
    }
}
