//! The parts of the API's objects that are read (<https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>). Any
//! field can be absent, and `null` is the same as absent. Of lists and maps the first entries are kept: an object of three bytes takes
//! a hundred in memory.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Entries of a list or map within a pod that are kept.
pub(super) const MAX_ENTRIES: usize = 512;

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The first entries of a list.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Few<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut kept = Vec::new();
            while kept.len() < MAX_ENTRIES {
                match items.next_element()? {
                    Some(item) => kept.push(item),
                    None => return Ok(kept),
                }
            }
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(kept)
        }
    }
    deserializer.deserialize_any(Few(PhantomData))
}

/// The first entries of a map.
fn few_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of texts")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut kept = BTreeMap::new();
            while kept.len() < MAX_ENTRIES {
                match map.next_entry()? {
                    Some((key, value)) => drop(kept.insert(key, value)),
                    None => return Ok(kept),
                }
            }
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(kept)
        }
    }
    deserializer.deserialize_any(Few)
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
    #[serde(deserialize_with = "few_texts")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "few_texts")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "few")]
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
    #[serde(deserialize_with = "few")]
    pub containers: Vec<Asked>,
    #[serde(deserialize_with = "few")]
    pub init_containers: Vec<Asked>,
    #[serde(deserialize_with = "few")]
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
    #[serde(deserialize_with = "few")]
    pub container_statuses: Vec<Started>,
    #[serde(deserialize_with = "few")]
    pub init_container_statuses: Vec<Started>,
    #[serde(deserialize_with = "few")]
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
