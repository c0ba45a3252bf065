//! The parts of the API's objects that are read (<https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>). Any
//! field can be absent, and `null` is the same as absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct List {
    #[serde(deserialize_with = "nullable")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub metadata: ListMeta,
    #[serde(deserialize_with = "nullable")]
    pub items: Vec<Pod>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ListMeta {
    #[serde(deserialize_with = "nullable")]
    pub resource_version: String,
    #[serde(rename = "continue", deserialize_with = "nullable")]
    pub next: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    #[serde(deserialize_with = "nullable")]
    pub metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub spec: Spec,
    pub status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    #[serde(deserialize_with = "nullable")]
    pub uid: String,
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub resource_version: String,
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub owner_references: Vec<Owner>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    #[serde(deserialize_with = "nullable")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub controller: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<Asked>,
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<Asked>,
    #[serde(deserialize_with = "nullable")]
    pub ephemeral_containers: Vec<Asked>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub image: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Status {
    #[serde(rename = "podIP", deserialize_with = "nullable")]
    pub pod_ip: String,
    #[serde(deserialize_with = "nullable")]
    pub container_statuses: Vec<Started>,
    #[serde(deserialize_with = "nullable")]
    pub init_container_statuses: Vec<Started>,
    #[serde(deserialize_with = "nullable")]
    pub ephemeral_container_statuses: Vec<Started>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Started {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(rename = "containerID", deserialize_with = "nullable")]
    pub container_id: String,
    #[serde(deserialize_with = "nullable")]
    pub image: String,
    #[serde(rename = "imageID", deserialize_with = "nullable")]
    pub image_id: String,
    pub state: Option<State>,
    pub last_state: Option<State>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub terminated: Option<Ended>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ended {
    #[serde(rename = "containerID", deserialize_with = "nullable")]
    pub container_id: String,
}

/// A line of a watch, by its kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EventKind {
    #[serde(rename = "type")]
    pub kind: String,
}

/// A line of a watch that carries a pod.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub object: Pod,
}

/// A line of a watch that says why it ends.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorEvent {
    pub object: Refusal,
}

/// The API's answer to what it refuses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    #[serde(deserialize_with = "nullable")]
    pub code: u16,
    #[serde(deserialize_with = "nullable")]
    pub message: String,
}
