//! From a process's control group to its container and systemd unit.
//!
//! Container runtimes put the container's id, 64 hexadecimal digits, into the name of its group, with a prefix of their own:
//!
//! ```text
//! 0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod4c0a.slice/cri-containerd-<id>.scope    Kubernetes, systemd
//! 0::/kubepods/besteffort/pod4c0a/<id>                                                                     Kubernetes, cgroupfs
//! 0::/system.slice/docker-<id>.scope             12:memory:/docker/<id>           0::/machine.slice/libpod-<id>.scope/container
//! 0::/ecs/8f0a/<32 hex digits>-<digits>          0::/lxc.payload.NAME             (the monitors, *-conmon-<id>, are no containers)
//! ```

use std::sync::Arc;

/// The control group of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Path beneath the root of the hierarchy: of cgroup v2, or of the v1 controller that names a container, else of systemd's.
    pub path: Arc<str>,
    /// The container that the path names.
    pub container_id: Option<Arc<str>>,
    /// The systemd unit (`NAME.service`, or `NAME.scope`) that the path names.
    pub systemd_unit: Option<Arc<str>>,
}

impl Cgroup {
    /// Reads the text of `/proc/PID/cgroup`: lines of `hierarchy:controllers:path`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut unified = None;
        let mut systemd = None;
        let mut other = None;
        let mut with_container = None;
        for line in text.split(|&byte| byte == b'\n').take(64) {
            let mut parts = line.splitn(3, |&byte| byte == b':');
            let (Some(hierarchy), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let path = String::from_utf8_lossy(path);
            // A group that was removed while a process is still in it.
            let path = path.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or_else(|| path.into_owned());
            if !path.starts_with('/') {
                continue;
            }
            if with_container.is_none() && container_id(&path).is_some() {
                with_container = Some(path.clone());
            }
            match (hierarchy, controllers) {
                (b"0", b"") => unified = Some(path),
                (_, b"name=systemd") => systemd = Some(path),
                _ if path != "/" => other = other.or(Some(path)),
                _ => {}
            }
        }
        let rooted = |path: &Option<String>| path.as_deref() == Some("/");
        let unified_elsewhere = if rooted(&unified) { None } else { unified.clone() };
        let path = with_container.or(unified_elsewhere).or(if rooted(&systemd) { None } else { systemd });
        Some(Self::of_path(&path.or(other).or(unified)?))
    }

    /// The group at `path`, and what that names.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        Self {
            container_id: container_id(path).map(Arc::from),
            systemd_unit: systemd_unit(path).map(Arc::from),
            path: Arc::from(path),
        }
    }
}

/// The id of the innermost container that a control group's path names.
#[must_use]
pub fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|name| {
        if name.starts_with("crio-conmon-") || name.starts_with("libpod-conmon-") {
            return None;
        }
        let name = name.strip_suffix(".scope").unwrap_or(name);
        if let Some(lxc) = name.strip_prefix("lxc.payload.") {
            return (!lxc.is_empty()).then_some(lxc);
        }
        let start = name.rfind([':', '-', '.']).map_or(0, |at| at + 1);
        let last = name.get(start..)?;
        if last.len() == 64 && is_hex(last) {
            return Some(last);
        }
        // Amazon ECS: a task's id and the container's number.
        let (task, number) = name.split_once('-')?;
        let ecs = task.len() == 32 && is_hex(task) && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        ecs.then_some(name)
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The systemd unit that a control group's path names: the innermost service, else the innermost scope.
#[must_use]
pub fn systemd_unit(path: &str) -> Option<&str> {
    let innermost = |suffix: &str| path.rsplit('/').find(|name| name.len() > suffix.len() && name.ends_with(suffix));
    innermost(".service").or_else(|| innermost(".scope"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f54a8cf1b1ba1f4bd5c2a1a4e8b2a34f5e1a6d07ab53a24a2e1e7d2d1e6a0b9";

    #[test]
    fn every_runtimes_way_of_naming_a_container() {
        for path in [
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod4c0a.slice/cri-containerd-ID.scope",
            "/kubepods/besteffort/pod4c0a/ID",
            "/kubepods-besteffort-pod4c0a.slice:cri-containerd:ID",
            "/system.slice/docker-ID.scope",
            "/docker/ID",
            "/docker/ID/init.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/kubepods.slice/crio-ID.scope",
            "/../../kubepods/pod1/ID",
            "/buildkit/ID",
            "/docker/1111111111111111111111111111111111111111111111111111111111111111/kubepods/pod1/ID",
        ] {
            assert_eq!(container_id(&path.replace("ID", ID)), Some(ID), "{path}");
        }
        assert_eq!(
            container_id("/ecs/8f0a/0123456789abcdef0123456789abcdef-1234567"),
            Some("0123456789abcdef0123456789abcdef-1234567")
        );
        assert_eq!(container_id("/lxc.payload.web-1/init.scope"), Some("web-1"));
    }

    #[test]
    fn what_is_no_container() {
        for path in
            ["/", "/system.slice/ssh.service", "/user.slice/user-0.slice/session-1.scope", "/crio-conmon-ID.scope"]
        {
            assert_eq!(container_id(&path.replace("ID", ID)), None, "{path}");
        }
        assert_eq!(container_id(&format!("/docker/{}", &ID[1..])), None);
        assert_eq!(container_id(&format!("/docker/a{ID}")), None);
        assert_eq!(container_id(&format!("/docker/{}", ID.to_uppercase())), None);
    }

    #[test]
    fn units() {
        assert_eq!(systemd_unit("/system.slice/ssh.service"), Some("ssh.service"));
        assert_eq!(systemd_unit("/user.slice/user-0.slice/user@0.service/app.slice/x.scope"), Some("user@0.service"));
        assert_eq!(systemd_unit("/user.slice/user-0.slice/session-1.scope"), Some("session-1.scope"));
        assert_eq!(systemd_unit("/a/.service"), None);
    }

    #[test]
    fn the_line_that_names_a_container_is_preferred() {
        let v1 = format!("12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n");
        let cgroup = Cgroup::parse(v1.as_bytes()).unwrap();
        assert_eq!(cgroup.container_id.as_deref(), Some(ID));
        let hybrid = Cgroup::parse(b"4:memory:/x\n1:name=systemd:/system.slice/a.service\n0::/\n").unwrap();
        assert_eq!(hybrid.systemd_unit.as_deref(), Some("a.service"));
        assert_eq!(&*Cgroup::parse(b"0::/\n").unwrap().path, "/");
        assert_eq!(&*Cgroup::parse(b"0::/a b (deleted)\n").unwrap().path, "/a b");
        assert_eq!(&*Cgroup::parse(b"0::/a:b\n").unwrap().path, "/a:b");
        assert_eq!(Cgroup::parse(b"nonsense\n0::relative\n"), None);
    }
}
