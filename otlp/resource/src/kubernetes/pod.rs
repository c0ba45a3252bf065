//! Pods as the API describes them, and the attributes that follow
//! (<https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes/>).

use std::collections::BTreeMap;

use super::{
    super::attributes::{Attributes, Value, clean, is_claimable},
    json,
};
use opentelemetry_semantic_conventions::attribute::{
    CONTAINER_IMAGE_ID, CONTAINER_IMAGE_NAME, CONTAINER_IMAGE_REPO_DIGESTS, CONTAINER_IMAGE_TAGS, CONTAINER_NAME,
    K8S_CONTAINER_NAME, K8S_CRONJOB_NAME, K8S_DAEMONSET_NAME, K8S_DEPLOYMENT_NAME, K8S_JOB_NAME, K8S_NAMESPACE_NAME,
    K8S_POD_IP, K8S_POD_LABEL, K8S_POD_NAME, K8S_POD_UID, K8S_REPLICASET_NAME, K8S_REPLICATIONCONTROLLER_NAME,
    K8S_STATEFULSET_NAME, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_VERSION,
};

/// Containers of a pod that are kept, those of earlier starts included.
const MAX_CONTAINERS: usize = 64;
/// Annotations of a pod that are kept.
const MAX_ANNOTATIONS: usize = 32;
/// Annotations that are attributes.
const ANNOTATION: &str = "resource.opentelemetry.io/";

/// A pod, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    pub uid: String,
    pub name: String,
    pub namespace: String,
    pub ip: String,
    /// Attributes that annotations ask for.
    annotations: Vec<(String, String)>,
    /// Attributes made of labels that the user chose.
    labels: Vec<(String, String)>,
    /// What the well-known labels say.
    label_name: Option<String>,
    label_version: Option<String>,
    /// Key and name of whoever made the pod, from the top down.
    owners: Vec<(&'static str, String)>,
    pub containers: Vec<Container>,
}

/// One start of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    /// As control groups name it, without the runtime's prefix.
    pub id: String,
    pub name: String,
    /// What the pod asks for.
    image: String,
    /// What runs.
    image_id: String,
}

impl Pod {
    /// Takes over what matters of `json`; `None` if it has no uid. `wanted` are the labels to keep.
    pub(super) fn of(json: json::Pod, wanted: &[String]) -> Option<Self> {
        let meta = json.metadata;
        if meta.uid.is_empty() {
            return None;
        }
        let attribute =
            |(key, value): (&String, &String)| Some((key.strip_prefix(ANNOTATION)?.to_owned(), clean(value)));
        let annotations = meta.annotations.iter().filter_map(attribute).take(MAX_ANNOTATIONS).collect();
        let label = |name: &String| Some((format!("{K8S_POD_LABEL}.{name}"), clean(meta.labels.get(name)?)));
        let first = |names: &[&str]| {
            let found = names.iter().filter_map(|&name| meta.labels.get(name)).find(|value| !value.is_empty());
            found.map(|value| clean(value))
        };
        let hash = meta.labels.get("pod-template-hash").map(String::as_str);
        let owner = meta.owner_references.iter().find(|owner| owner.controller);
        Some(Self {
            annotations,
            labels: wanted.iter().filter_map(label).collect(),
            label_name: first(&["app.kubernetes.io/name", "app"]),
            label_version: first(&["app.kubernetes.io/version"]),
            owners: owner.map(|owner| owners(&owner.kind, &owner.name, hash)).unwrap_or_default(),
            containers: containers(&json.spec, json.status.as_ref()),
            ip: clean(&json.status.map(|status| status.pod_ip).unwrap_or_default()),
            uid: clean(&meta.uid),
            name: clean(&meta.name),
            namespace: clean(&meta.namespace),
        })
    }

    /// Keeps containers of `before` that are not mentioned any more: processes of them may have been sampled.
    pub(super) fn keep_containers(&mut self, before: &Self) {
        for container in &before.containers {
            if self.containers.len() < MAX_CONTAINERS && self.containers.iter().all(|known| known.id != container.id) {
                self.containers.push(container.clone());
            }
        }
    }

    /// Who and where the pod and its container are: known better here than to any process in it.
    pub(super) fn identify(&self, container: Option<&Container>, into: &mut Attributes) {
        into.put(K8S_NAMESPACE_NAME, self.namespace.as_str());
        into.put(K8S_POD_NAME, self.name.as_str());
        into.put(K8S_POD_UID, self.uid.as_str());
        into.put(K8S_POD_IP, self.ip.as_str());
        for (key, name) in &self.owners {
            into.put(*key, name.as_str());
        }
        for (key, value) in &self.labels {
            into.put(key.clone(), value.as_str());
        }
        let Some(container) = container else { return };
        into.put(K8S_CONTAINER_NAME, container.name.as_str());
        into.put(CONTAINER_NAME, container.name.as_str());
        let Image { name, tag, .. } = Image::of(&container.image);
        into.put(CONTAINER_IMAGE_NAME, name);
        if let Some(tag) = tag {
            into.put(CONTAINER_IMAGE_TAGS, Value::Texts(vec![tag.to_owned()]));
        }
        let id = container.image_id.split_once("://").map_or(container.image_id.as_str(), |(_, id)| id);
        if id.contains('@') {
            into.put(CONTAINER_IMAGE_REPO_DIGESTS, Value::Texts(vec![id.to_owned()]));
        } else {
            into.put(CONTAINER_IMAGE_ID, id);
        }
    }

    /// What annotations and labels say of the service, and what follows from its place.
    pub(super) fn describe(&self, container: Option<&Container>, into: &mut Attributes) {
        for (key, value) in &self.annotations {
            if is_claimable(key) {
                into.put(key.clone(), value.as_str());
            }
        }
        let workload = self.owners.first().map(|(_, name)| name);
        let name = self.label_name.as_ref().or(workload).unwrap_or(&self.name);
        into.put(SERVICE_NAME, name.as_str());
        into.put(SERVICE_NAMESPACE, self.namespace.as_str());
        if let Some(version) = &self.label_version {
            into.put(SERVICE_VERSION, version.as_str());
        }
        let Some(container) = container else { return };
        if let Some(version) = Image::of(&container.image).version() {
            into.put(SERVICE_VERSION, version);
        }
        into.put(SERVICE_INSTANCE_ID, format!("{}.{}.{}", self.namespace, self.name, container.name));
    }
}

/// Whoever controls a pod, and who controls that as far as names tell, from the top down.
///
/// A Deployment calls its ReplicaSets by its own name and the hash of the template, which it also puts on their pods. A CronJob calls
/// its Jobs by its own name and the minutes since the epoch at which they were due.
fn owners(kind: &str, name: &str, template_hash: Option<&str>) -> Vec<(&'static str, String)> {
    let name = clean(name);
    match kind {
        "ReplicaSet" => {
            let deployment = template_hash.filter(|hash| !hash.is_empty());
            let deployment = deployment.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
            let deployment = deployment.filter(|name| !name.is_empty()).map(str::to_owned);
            let mut owners: Vec<_> = deployment.map(|name| (K8S_DEPLOYMENT_NAME, name)).into_iter().collect();
            owners.push((K8S_REPLICASET_NAME, name));
            owners
        }
        "Job" => {
            let is_time = |digits: &str| (8..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            let cronjob = name.rsplit_once('-').filter(|(name, time)| !name.is_empty() && is_time(time));
            let mut owners: Vec<_> = cronjob.map(|(name, _)| (K8S_CRONJOB_NAME, name.to_owned())).into_iter().collect();
            owners.push((K8S_JOB_NAME, name));
            owners
        }
        "StatefulSet" => vec![(K8S_STATEFULSET_NAME, name)],
        "DaemonSet" => vec![(K8S_DAEMONSET_NAME, name)],
        "ReplicationController" => vec![(K8S_REPLICATIONCONTROLLER_NAME, name)],
        _ => Vec::new(),
    }
}

/// Every start of every container that the status mentions.
fn containers(spec: &json::Spec, status: Option<&json::Status>) -> Vec<Container> {
    let mut containers: Vec<Container> = Vec::new();
    let Some(status) = status else { return containers };
    let asked: BTreeMap<&str, &str> = [&spec.containers, &spec.init_containers, &spec.ephemeral_containers]
        .into_iter()
        .flatten()
        .map(|container| (container.name.as_str(), container.image.as_str()))
        .collect();
    let all = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    for status in all.into_iter().flatten() {
        let ended = [&status.state, &status.last_state]
            .into_iter()
            .filter_map(|state| Some(state.as_ref()?.terminated.as_ref()?.container_id.as_str()));
        for id in std::iter::once(status.container_id.as_str()).chain(ended) {
            let id = clean(id.split_once("://").map_or(id, |(_, id)| id));
            if id.is_empty() || containers.len() >= MAX_CONTAINERS || containers.iter().any(|known| known.id == id) {
                continue;
            }
            let image = asked.get(status.name.as_str()).copied().filter(|image| !image.is_empty());
            containers.push(Container {
                id,
                name: clean(&status.name),
                image: clean(image.unwrap_or(&status.image)),
                image_id: clean(&status.image_id),
            });
        }
    }
    containers
}

/// A reference to an image: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
#[derive(Debug, PartialEq, Eq)]
struct Image<'a> {
    name: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Image<'a> {
    fn of(reference: &'a str) -> Self {
        let (rest, digest) = match reference.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (reference, None),
        };
        // A colon before the last slash is that of a port.
        match rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((name, tag)) => Self { name, tag: Some(tag), digest },
            None => Self { name: rest, tag: None, digest },
        }
    }

    /// What the semantic conventions take for the version of a service.
    fn version(&self) -> Option<String> {
        match (self.tag, self.digest) {
            (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
            (tag, digest) => digest.or(tag).map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    fn pod(json: Json) -> Pod {
        Pod::of(serde_json::from_value(json).unwrap(), &["team".to_owned()]).unwrap()
    }

    fn described(json: Json) -> Attributes {
        let mut found = Attributes::default();
        let pod = pod(json);
        pod.identify(pod.containers.first(), &mut found);
        pod.describe(pod.containers.first(), &mut found);
        found
    }

    #[test]
    fn owners_by_their_names() {
        let keys = |kind: &str, name: &str, hash: Option<&str>| -> Vec<String> {
            owners(kind, name, hash).into_iter().map(|(key, name)| format!("{key}={name}")).collect()
        };
        assert_eq!(
            keys("ReplicaSet", "shop-eu-7d4b9c5f6d", Some("7d4b9c5f6d")),
            ["k8s.deployment.name=shop-eu", "k8s.replicaset.name=shop-eu-7d4b9c5f6d"]
        );
        // Without the label of a Deployment, or of another one, it is a ReplicaSet of its own.
        assert_eq!(keys("ReplicaSet", "shop-7d4b9c5f6d", None), ["k8s.replicaset.name=shop-7d4b9c5f6d"]);
        assert_eq!(keys("ReplicaSet", "shop-x", Some("y")), ["k8s.replicaset.name=shop-x"]);
        assert_eq!(keys("ReplicaSet", "-y", Some("y")), ["k8s.replicaset.name=-y"]);
        assert_eq!(keys("Job", "backup-29384756", None), ["k8s.cronjob.name=backup", "k8s.job.name=backup-29384756"]);
        assert_eq!(keys("Job", "migrate-v2", None), ["k8s.job.name=migrate-v2"]);
        assert_eq!(keys("StatefulSet", "db", None), ["k8s.statefulset.name=db"]);
        assert_eq!(keys("DaemonSet", "logs", None), ["k8s.daemonset.name=logs"]);
        assert_eq!(keys("Node", "node-1", None), [""; 0]);
    }

    #[test]
    fn references_to_images() {
        for (reference, name, tag, digest, version) in [
            ("nginx", "nginx", None, None, None),
            ("nginx:1.25", "nginx", Some("1.25"), None, Some("1.25")),
            ("reg:5000/a/b", "reg:5000/a/b", None, None, None),
            ("reg:5000/a/b:c", "reg:5000/a/b", Some("c"), None, Some("c")),
            ("a@sha256:12", "a", None, Some("sha256:12"), Some("sha256:12")),
            ("reg:5000/a:c@sha256:12", "reg:5000/a", Some("c"), Some("sha256:12"), Some("c@sha256:12")),
            ("", "", None, None, None),
        ] {
            let image = Image::of(reference);
            assert_eq!((image.name, image.tag, image.digest), (name, tag, digest), "{reference}");
            assert_eq!(image.version().as_deref(), version, "{reference}");
        }
    }

    #[test]
    fn annotations_come_before_labels_and_those_before_owners() {
        let mut json = json!({"metadata": {
            "uid": "u", "name": "shop-0", "namespace": "store",
            "ownerReferences": [{"kind": "Node", "name": "n"}, {"kind": "StatefulSet", "name": "shop", "controller": true}]
        }});
        let name = |json: &Json| described(json.clone()).text("service.name").unwrap_or_default().to_owned();
        assert_eq!(name(&json), "shop");
        json["metadata"]["labels"] = json!({"app": "app"});
        assert_eq!(name(&json), "app");
        json["metadata"]["labels"]["app.kubernetes.io/name"] = json!("well-known");
        assert_eq!(name(&json), "well-known");
        json["metadata"]["annotations"] = json!({
            "resource.opentelemetry.io/service.name": "annotated",
            "resource.opentelemetry.io/team": "a",
            "resource.opentelemetry.io/host.name": "fake",
            "resource.opentelemetry.io/process.pid": "1",
            "resource.opentelemetry.io/k8s.pod.name": "fake",
            "other/service.name": "no",
        });
        let found = described(json.clone());
        assert_eq!((found.text("service.name"), found.text("team")), (Some("annotated"), Some("a")));
        assert_eq!((found.get("host.name"), found.text("k8s.pod.name")), (None, Some("shop-0")));
        json["metadata"]["ownerReferences"] = Json::Null;
        json["metadata"]["annotations"] = Json::Null;
        json["metadata"]["labels"] = Json::Null;
        assert_eq!(name(&json), "shop-0");
    }

    #[test]
    fn every_start_of_every_container_is_found() {
        let pod = pod(json!({
            "metadata": {"uid": "u"},
            "spec": {"initContainers": [{"name": "i", "image": "init:1"}], "containers": [{"name": "a", "image": "a:2"}]},
            "status": {
                "initContainerStatuses": [
                    {"name": "i", "containerID": "", "state": {"terminated": {"containerID": "cri-o://c1"}}}
                ],
                "containerStatuses": [
                    {"name": "a", "containerID": "containerd://c3", "lastState": {"terminated": {"containerID": "containerd://c2"}}},
                    {"name": "waiting", "state": {"waiting": {}}}
                ],
                "ephemeralContainerStatuses": [{"name": "debug", "containerID": "docker://c4", "image": "busybox"}]
            }
        }));
        let found: Vec<_> = pod.containers.iter().map(|c| (c.id.as_str(), c.name.as_str(), c.image.as_str())).collect();
        assert_eq!(found, [("c3", "a", "a:2"), ("c2", "a", "a:2"), ("c1", "i", "init:1"), ("c4", "debug", "busybox")]);
    }

    /// Any JSON, with keys that mean something.
    fn anything() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            ".{0,8}".prop_map(Json::from),
        ];
        let keys = proptest::sample::select(vec![
            "metadata",
            "spec",
            "status",
            "uid",
            "name",
            "labels",
            "annotations",
            "ownerReferences",
            "containers",
            "containerStatuses",
            "containerID",
            "image",
            "lastState",
            "terminated",
            "kind",
            "controller",
        ]);
        leaf.prop_recursive(5, 64, 8, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Json::from),
                proptest::collection::btree_map(keys.clone().prop_map(str::to_owned), inner, 0..8)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_the_json_it_is_a_pod_or_refused(json in anything()) {
            let wrapped = json!({"metadata": {"uid": "u"}, "spec": json, "status": json});
            for json in [json, wrapped] {
                if let Some(pod) = serde_json::from_value(json).ok().and_then(|json| Pod::of(json, &[])) {
                    prop_assert!(pod.containers.len() <= MAX_CONTAINERS);
                    let mut found = Attributes::default();
                    pod.identify(pod.containers.first(), &mut found);
                    pod.describe(pod.containers.first(), &mut found);
                }
            }
        }
    }
}
