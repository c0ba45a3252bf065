//! Whether a control group's name can be believed.
//!
//! Containers and pods are known by the names of control groups, and who may make groups may give them any name. A name is a claim
//! if a group above the one that bears it belongs, or is open, to anybody but root: that is what it means to delegate a hierarchy.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Where hierarchies are mounted; those of the host, where the agent is in a container that sees the host's processes.
const MOUNTS: &[&str] = &["/proc/1/root/sys/fs/cgroup", "/sys/fs/cgroup"];
/// Hierarchies below: of cgroup v2 alone, beside others, and of version 1.
const HIERARCHIES: &[&str] = &["", "unified", "systemd", "memory", "cpu", "cpuset", "pids", "devices", "freezer"];
/// Characters of a pod's uid at least.
const POD_UID: usize = 32;

/// Whether the group that names `container`, or a pod, is in a hierarchy that is delegated. What cannot be looked at is believed.
pub(super) fn is_claimed(cgroup: &str, container: Option<&str>) -> bool {
    let mounts =
        MOUNTS.iter().flat_map(|mount| HIERARCHIES.iter().map(move |hierarchy| Path::new(mount).join(hierarchy)));
    mounts.into_iter().any(|mount| is_claimed_below(&mount, cgroup, container))
}

fn is_claimed_below(mount: &Path, cgroup: &str, container: Option<&str>) -> bool {
    let groups: Vec<&str> = cgroup.split('/').filter(|group| !group.is_empty() && *group != "..").collect();
    let names = |group: &&str| {
        let names_container = container.is_some_and(|id| group.contains(id));
        names_container || group.rsplit_once("pod").is_some_and(|(_, uid)| uid.len() >= POD_UID)
    };
    let Some(naming) = groups.iter().rposition(names) else { return false };
    let mut folder = mount.to_owned();
    groups.iter().take(naming).any(|group| {
        folder.push(group);
        fs::symlink_metadata(&folder).is_ok_and(|found| found.uid() != 0 || found.mode() & 0o022 != 0)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    const ID: &str = "0f54a8cf1b1ba1f4bd5c2a1a4e8b2a34f5e1a6d07ab53a24a2e1e7d2d1e6a0b9";

    #[test]
    fn what_is_below_a_group_that_others_may_change_is_a_claim() {
        let place = tempfile::tempdir().unwrap();
        let mount = place.path();
        let docker = format!("docker-{ID}.scope");
        let pod = "kubepods-pod4c0a0000_0000_0000_0000_000000000000.slice";
        let user = "user.slice/user-1000.slice/user@1000.service";
        for path in [format!("system.slice/{docker}/init.scope"), format!("{user}/{docker}"), format!("{user}/{pod}/x")]
        {
            fs::create_dir_all(mount.join(path)).unwrap();
        }
        let claimed = |path: &str, id| is_claimed_below(mount, path, id);
        let set_mode =
            |path: &str, mode| fs::set_permissions(mount.join(path), fs::Permissions::from_mode(mode)).unwrap();
        if fs::metadata(mount).unwrap().uid() != 0 {
            // Every folder is this user's, and so every name a claim.
            assert!(claimed(&format!("/system.slice/{docker}"), Some(ID)));
            return;
        }
        // A container's own group, and what is below, may belong to its user.
        set_mode(&format!("system.slice/{docker}"), 0o777);
        assert!(!claimed(&format!("/system.slice/{docker}"), Some(ID)));
        assert!(!claimed(&format!("/system.slice/{docker}/init.scope"), Some(ID)));
        // But who is in it may not name another one.
        let other = ID.replace('0', "1");
        assert!(claimed(&format!("/system.slice/{docker}/docker-{other}.scope"), Some(other.as_str())));
        for path in [format!("/{user}/{docker}"), format!("/{user}/{docker}/init.scope"), format!("/{user}/{pod}/x")] {
            let id = path.contains(ID).then_some(ID);
            assert!(!claimed(&path, id), "{path}");
            set_mode(user, 0o757);
            assert!(claimed(&path, id), "{path}");
            set_mode(user, 0o755);
            chown(mount.join("user.slice/user-1000.slice"), Some(1000), None).unwrap();
            assert!(claimed(&path, id), "{path}");
            chown(mount.join("user.slice/user-1000.slice"), Some(0), None).unwrap();
        }
        // Nothing is named, or nothing is there.
        set_mode(user, 0o777);
        assert!(!claimed(&format!("/{user}/app.scope"), None));
        assert!(!claimed(&format!("/elsewhere/{docker}"), Some(ID)));
    }
}
