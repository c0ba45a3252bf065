//! Pods as the API describes them, and the attributes that follow
//! (<https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes/>).

use std::collections::BTreeMap;

use super::{
    super::attributes::{Attributes, Value, clean},
    json,
};
use opentelemetry_semantic_conventions::attribute::{
    CONTAINER_ID, CONTAINER_IMAGE_ID, CONTAINER_IMAGE_NAME, CONTAINER_IMAGE_REPO_DIGESTS, CONTAINER_IMAGE_TAGS,
    CONTAINER_NAME, K8S_CONTAINER_NAME, K8S_CRONJOB_NAME, K8S_DAEMONSET_NAME, K8S_DEPLOYMENT_NAME, K8S_JOB_NAME,
    K8S_NAMESPACE_NAME, K8S_POD_IP, K8S_POD_LABEL, K8S_POD_NAME, K8S_POD_UID, K8S_REPLICASET_NAME,
    K8S_REPLICATIONCONTROLLER_NAME, K8S_STATEFULSET_NAME, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE,
    SERVICE_VERSION,
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
            // The container is the runtime's to name.
            if key != CONTAINER_ID {
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
