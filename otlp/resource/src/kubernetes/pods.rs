//! The pods of this node, by uid and by container.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::pod::{Container, Pod};

/// Pods that are kept.
pub(super) const MAX_PODS: usize = 2048;
/// How long a pod that is gone is still known: its last samples leave the agent a window later.
const GRACE: Duration = Duration::from_secs(600);
/// Containers that nobody knows are remembered up to this number.
const MAX_UNKNOWN: usize = 1024;
/// How often the kubelet is asked for the sake of one container that it does not know, one that is not of Kubernetes perhaps.
const ATTEMPTS: u32 = 5;

/// The pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_uid: FxHashMap<String, Arc<Pod>>,
    /// Uid of the pod by container id.
    by_container: FxHashMap<String, String>,
    /// Pods that are gone, the first to go first.
    gone: VecDeque<(Instant, String)>,
    /// Containers that were asked for in vain: how often, and in which round the last time.
    unknown: FxHashMap<String, (u32, u64)>,
    /// Counts changes of the table.
    round: u64,
    dropped: u64,
}

impl Pods {
    /// The pod of a container, and the container.
    pub(super) fn by_container(&self, id: &str) -> Option<(Arc<Pod>, Container)> {
        let pod = self.by_uid.get(self.by_container.get(id)?)?;
        let container = pod.containers.iter().find(|container| container.id == id)?;
        Some((pod.clone(), container.clone()))
    }

    /// The pod that a control group's path names: `kubepods...pod<uid>`, with `_` for `-` where systemd makes the groups.
    pub(super) fn by_cgroup(&self, path: &str) -> Option<Arc<Pod>> {
        let uid = path.split(['/', ':']).rev().find_map(|part| {
            let part = part.strip_suffix(".slice").unwrap_or(part);
            part.get(part.rfind("pod")? + 3..).filter(|uid| uid.len() >= 32)
        })?;
        self.by_uid.get(uid).or_else(|| self.by_uid.get(&uid.replace('_', "-"))).cloned()
    }

    /// Whether it is worth to ask for a container that is not known.
    pub(super) fn wants(&mut self, id: &str) -> bool {
        if let Some((attempts, round)) = self.unknown.get_mut(id) {
            if *round != self.round {
                (*attempts, *round) = (*attempts + 1, self.round);
            }
            return *attempts <= ATTEMPTS;
        }
        if self.unknown.len() >= MAX_UNKNOWN {
            self.unknown.clear();
        }
        self.unknown.insert(id.to_owned(), (1, self.round));
        true
    }

    /// All pods there are, but for those that were `left_out`: others are gone.
    pub(super) fn replace(&mut self, pods: Vec<Pod>, left_out: u64, now: Instant) {
        self.round += 1;
        self.dropped += left_out;
        let listed: FxHashSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        let left: Vec<String> = self.by_uid.keys().filter(|uid| !listed.contains(uid.as_str())).cloned().collect();
        for uid in left {
            self.remove(&uid, now);
        }
        for pod in pods {
            self.put(pod, now);
        }
    }

    /// A pod is new or has changed.
    pub(super) fn put(&mut self, mut pod: Pod, now: Instant) {
        self.expire(now);
        self.round += 1;
        if let Some(before) = self.by_uid.get(&pod.uid) {
            pod.keep_containers(before);
            // Gone, and there again.
            self.gone.retain(|(_, uid)| *uid != pod.uid);
        } else if self.by_uid.len() >= MAX_PODS {
            match self.gone.pop_front() {
                Some((_, uid)) => self.forget(&uid),
                None => {
                    self.dropped += 1;
                    return;
                }
            }
        }
        for container in &pod.containers {
            self.unknown.remove(&container.id);
            self.by_container.insert(container.id.clone(), pod.uid.clone());
        }
        self.by_uid.insert(pod.uid.clone(), Arc::new(pod));
    }

    /// A pod is gone.
    pub(super) fn remove(&mut self, uid: &str, now: Instant) {
        self.expire(now);
        if self.by_uid.contains_key(uid) && self.gone.iter().all(|(_, known)| known != uid) {
            self.gone.push_back((now, uid.to_owned()));
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.gone.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > GRACE) {
            if let Some((_, uid)) = self.gone.pop_front() {
                self.forget(&uid);
            }
        }
    }

    fn forget(&mut self, uid: &str) {
        if let Some(pod) = self.by_uid.remove(uid) {
            for container in &pod.containers {
                self.by_container.remove(&container.id);
            }
        }
    }

    /// Pods and containers that are known, and pods that there was no room for.
    pub(super) fn size(&self) -> (usize, usize, u64) {
        (self.by_uid.len(), self.by_container.len(), self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, container: &str) -> Pod {
        let json = serde_json::json!({
            "metadata": {"uid": uid, "name": uid},
            "status": {"containerStatuses": [{"name": "c", "containerID": format!("x://{container}")}]}
        });
        Pod::of(serde_json::from_value(json).unwrap(), &[]).unwrap()
    }

    #[test]
    fn a_pod_is_forgotten_ten_minutes_after_it_went() {
        let (mut pods, now) = (Pods::default(), Instant::now());
        pods.replace(vec![pod("a", "c1"), pod("b", "c2")], 0, now);
        pods.replace(vec![pod("b", "c2")], 0, now);
        pods.replace(vec![pod("b", "c2")], 0, now + GRACE);
        assert!(pods.by_container("c1").is_some());
        // It goes with the first change after that.
        pods.put(pod("b", "c3"), now + GRACE + Duration::from_secs(1));
        assert!(pods.by_container("c1").is_none());
        assert_eq!(pods.size(), (1, 2, 0));
        // A pod that is back is not forgotten for having been away.
        pods.remove("b", now + GRACE);
        pods.put(pod("b", "c3"), now + GRACE);
        pods.replace(vec![pod("b", "c3")], 0, now + 4 * GRACE);
        assert!(pods.by_container("c2").is_some(), "an earlier start");
    }

    #[test]
    fn room_is_made_by_pods_that_are_gone() {
        let (mut pods, now) = (Pods::default(), Instant::now());
        for index in 0..MAX_PODS {
            pods.put(pod(&format!("p{index}"), &format!("c{index}")), now);
        }
        pods.put(pod("late", "c-late"), now);
        assert_eq!(pods.size(), (MAX_PODS, MAX_PODS, 1));
        pods.remove("p7", now);
        pods.put(pod("late", "c-late"), now);
        assert!(pods.by_container("c-late").is_some() && pods.by_container("c7").is_none());
    }

    #[test]
    fn a_container_that_nobody_knows_is_asked_for_a_few_times() {
        let mut pods = Pods::default();
        let asks = |pods: &mut Pods| (0..100).filter(|_| pods.wants("x")).count();
        assert_eq!(asks(&mut pods), 100, "until there is an answer");
        let rounds = (0..20).filter(|_| {
            pods.replace(Vec::new(), 0, Instant::now());
            asks(&mut pods) > 0
        });
        assert_eq!(rounds.count() as u32, ATTEMPTS - 1);
        for index in 0..10_000 {
            pods.wants(&format!("{index}"));
        }
        assert!(pods.unknown.len() <= MAX_UNKNOWN);
    }
}
