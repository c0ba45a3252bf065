//! Control groups with names of others' containers, in a hierarchy that is delegated.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use profiler_need::{have, have_root};
use profiler_resource::{KubernetesSource, ProcessFacts, ResourceOptions, Resources};

use crate::{
    kubernetes::{container, options, pod, stats},
    servers::{Server, list, wait_until},
};

const CLAIMED: &str = "profiler.container.claimed";

/// A group of root's that everybody may make groups in, removed when dropped.
struct Delegated {
    folder: PathBuf,
}

impl Delegated {
    fn make(test: &str) -> Option<Self> {
        if !have_root(test) {
            return None;
        }
        let name = format!("profiler-{test}-{}", std::process::id());
        // Where they are mounted; a folder of anything else is no control group.
        let hierarchies = ["", "unified", "systemd", "memory"].map(|name| Path::new("/sys/fs/cgroup").join(name));
        let is_made = |folder: &PathBuf| fs::create_dir(folder).is_ok();
        let folder = hierarchies
            .into_iter()
            .filter(|hierarchy| hierarchy.join("cgroup.procs").exists())
            .map(|hierarchy| hierarchy.join(&name))
            .find(is_made);
        if !have(test, folder.is_some(), "control groups that can be made") {
            return None;
        }
        let group = Self { folder: folder? };
        fs::set_permissions(&group.folder, Permissions::from_mode(0o757)).unwrap();
        Some(group)
    }

    /// The path in its hierarchy of a group that bears the name of a container.
    fn claim(&self, id: &str) -> String {
        let name = format!("docker-{id}.scope");
        let _ = fs::create_dir(self.folder.join(&name));
        format!("/{}/{name}", self.folder.file_name().unwrap().to_string_lossy())
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A kubelet that knows container 1, and who asks it.
fn follow(max_bytes: usize) -> (Server, Resources) {
    let server = Server::start(|_| list("", &[pod(1, "", &container(1))]));
    let options = ResourceOptions { max_bytes, ..options(&server, KubernetesSource::Kubelet) };
    let resources = Resources::start(options).unwrap();
    wait_until("the list", || stats(&resources).last_success.is_some());
    (server, resources)
}

fn facts<'a>(container_id: &'a str, cgroup: &'a str) -> ProcessFacts<'a> {
    ProcessFacts {
        pid: std::process::id(),
        container_id: Some(container_id),
        cgroup: Some(cgroup),
        ..ProcessFacts::default()
    }
}

/// Asserts what is known of a process in container 1 and `cgroup`.
fn is_in_pod(resources: &Resources, cgroup: &str, expected: bool) {
    let found = resources.attributes(&facts(&container(1), cgroup));
    assert_eq!(found.get("k8s.pod.name").is_some(), expected, "{cgroup}");
    assert_eq!(found.text(CLAIMED) == Some("true"), !expected, "{cgroup}");
}

#[test]
fn root_a_claim_of_a_process_that_is_not_remembered_is_no_truth() {
    let Some(group) = Delegated::make("root_a_claim_of_a_process_that_is_not_remembered_is_no_truth") else { return };
    let claimed = group.claim(&container(1));
    for max_bytes in [0, 1 << 20] {
        let (_server, resources) = follow(max_bytes);
        // Never learnt.
        is_in_pod(&resources, &claimed, false);
        resources.learn(&facts(&container(1), &claimed));
        assert_eq!(resources.stats().processes, usize::from(max_bytes > 0));
        is_in_pod(&resources, &claimed, false);
        is_in_pod(&resources, "/kubepods/of-root", true);
    }
}

#[test]
fn root_a_process_that_was_learnt_elsewhere_cannot_claim_later() {
    let Some(group) = Delegated::make("root_a_process_that_was_learnt_elsewhere_cannot_claim_later") else { return };
    let claimed = group.claim(&container(1));
    let (_server, resources) = follow(1 << 20);
    resources.learn(&ProcessFacts { container_id: None, ..facts("", "/system.slice/ssh.service") });
    is_in_pod(&resources, &claimed, false);
}

#[test]
fn root_nobody_is_asked_for_a_container_that_is_claimed() {
    let Some(group) = Delegated::make("root_nobody_is_asked_for_a_container_that_is_claimed") else { return };
    let claimed = group.claim(&container(7));
    for max_bytes in [0, 1 << 20] {
        let (server, resources) = follow(max_bytes);
        for _ in 0..2 {
            resources.learn(&facts(&container(7), &claimed));
            let _ = resources.attributes(&facts(&container(7), &claimed));
        }
        // Ten times as long as from one question to the next.
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(server.seen().len(), 1, "asked for a claim");
        resources.learn(&facts(&container(8), "/kubepods/of-root"));
        wait_until("the question", || server.seen().len() == 2);
    }
}
