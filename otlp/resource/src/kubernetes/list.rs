//! A list of pods, read pod by pod: what is kept of one is little, and of pods there is a limit, whatever a few bytes of JSON
//! could stand for.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    client::Failure,
    json::{self, ListMeta},
    pod::Pod,
};

/// A page of a list, or all of one.
#[derive(Debug, Default)]
pub(super) struct List {
    kind: String,
    pub metadata: ListMeta,
    pub pods: Vec<Pod>,
    /// Pods for which there was no room.
    pub left_out: u64,
}

impl List {
    /// Reads a list of pods, of which `room` are kept, with their `labels`. Anything else that is JSON is not taken for an empty one.
    pub(super) fn parse(bytes: &[u8], labels: &[String], room: usize) -> Result<Self, Failure> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let list = Reading { labels, room }.deserialize(&mut reader);
        let list = list.and_then(|list| reader.end().map(|()| list));
        let list = list.map_err(|error| Failure::other(format!("the list cannot be read: {error}")))?;
        if list.kind == "PodList" || list.kind == "List" {
            return Ok(list);
        }
        Err(Failure::other(format!("the answer is no list of pods but {:?}", list.kind)))
    }
}

/// The way to a list.
struct Reading<'a> {
    labels: &'a [String],
    room: usize,
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = List;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<List, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pods")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List, A::Error> {
        let mut list = List::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "kind" => list.kind = map.next_value::<Option<String>>()?.unwrap_or_default(),
                "metadata" => list.metadata = map.next_value::<Option<ListMeta>>()?.unwrap_or_default(),
                "items" => map.next_value_seed(Items { reading: &self, list: &mut list })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(list)
    }
}

/// The way to the pods of a list, one after the other.
struct Items<'a> {
    reading: &'a Reading<'a>,
    list: &'a mut List,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pods")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while self.list.pods.len() < self.reading.room {
            match items.next_element::<json::Pod>()? {
                Some(pod) => self.list.pods.extend(Pod::of(pod, self.reading.labels)),
                None => return Ok(()),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {
            self.list.left_out += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, room: usize) -> Result<(Vec<String>, u64, String), String> {
        let list = List::parse(text.as_bytes(), &[], room).map_err(|failure| failure.to_string())?;
        Ok((list.pods.into_iter().map(|pod| pod.uid).collect(), list.left_out, list.metadata.next))
    }

    #[test]
    fn pods_are_kept_up_to_the_limit_and_the_rest_is_counted() {
        let pod = |uid: &str| format!(r#"{{"metadata":{{"uid":"{uid}"}}}}"#);
        let text = format!(
            r#"{{"x":[{{}}],"items":[{},{{}},{},{}],"metadata":{{"continue":"n"}},"kind":"PodList"}}"#,
            pod("a"),
            pod("b"),
            pod("c")
        );
        let owned = |uids: &[&str]| uids.iter().map(|&uid| uid.to_owned()).collect::<Vec<_>>();
        assert_eq!(parsed(&text, 9), Ok((owned(&["a", "b", "c"]), 0, "n".to_owned())));
        assert_eq!(parsed(&text, 2), Ok((owned(&["a", "b"]), 1, "n".to_owned())));
        assert_eq!(parsed(&text, 0), Ok((owned(&[]), 4, "n".to_owned())));
        for nothing in [r#"{"kind":"List"}"#, r#"{"kind":"List","items":null,"metadata":null}"#] {
            assert_eq!(parsed(nothing, 9), Ok((owned(&[]), 0, String::new())));
        }
        for (wrong, says) in [
            ("[]", "cannot be read"),
            (r#"{"kind":"List","items":{}}"#, "cannot be read"),
            (r#"{"kind":"List"} x"#, "cannot be read"),
            (r#"{"kind":"List","items":[{}"#, "cannot be read"),
            (r#"{"kind":"Status"}"#, "no list of pods but \"Status\""),
            ("{}", "no list of pods but \"\""),
        ] {
            assert!(parsed(wrong, 9).is_err_and(|error| error.contains(says)), "{wrong}");
        }
    }

    #[test]
    fn lists_within_a_pod_are_bounded() {
        let many = |item: &str| format!("[{}{item}]", format!("{item},").repeat(10_000));
        let labels: Vec<_> = (0..10_000).map(|number| format!(r#""{number}":"x""#)).collect();
        let text = format!(
            r#"{{"metadata":{{"uid":"u","labels":{{{}}},"ownerReferences":{}}},"spec":{{"containers":{}}},"status":{{"containerStatuses":{}}}}}"#,
            labels.join(","),
            many("{}"),
            many("{}"),
            many("{}")
        );
        let pod: json::Pod = serde_json::from_str(&text).unwrap();
        let status = pod.status.unwrap();
        assert_eq!(pod.metadata.labels.len(), json::MAX_ENTRIES);
        assert_eq!(pod.metadata.owner_references.len(), json::MAX_ENTRIES);
        assert_eq!(
            (pod.spec.containers.len(), status.container_statuses.len()),
            (json::MAX_ENTRIES, json::MAX_ENTRIES)
        );
    }
}
