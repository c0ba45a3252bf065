//! OTLP requests as a list of all their samples with everything that is said of each, indices resolved: what two receivers of the
//! same profile have to agree on, however it was split and whatever its dictionaries look like.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::profiles::v1development::{Location, Profile, ProfilesDictionary, ValueType};
use profiler_formats::otlp::ExportProfilesServiceRequest;
use profiler_model::FrameKind;

use crate::rows::{Frame, Row};

/// Attributes by key. A value is its text with its kind in front (`s:` text, `i:` integer, ...), so that 1 and "1" differ.
pub type Attributes = BTreeMap<String, String>;

/// One occurrence of one sample.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// When, ns since the Unix epoch; 0 if it has no time.
    pub time: u64,
    /// Its value; 1 where the profile gives times alone.
    pub value: i64,
    /// The resource: the process, the host.
    pub resource: Attributes,
    /// Name and version of the scope.
    pub scope: String,
    /// Kind and unit of the value.
    pub sample_type: String,
    /// Kind and unit of the period.
    pub period_type: String,
    /// Distance between samples.
    pub period: i64,
    /// Thread, CPU, ...
    pub attributes: Attributes,
    /// The stack, leaf first.
    pub frames: Vec<SeenFrame>,
}

/// A frame of a [`Seen`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenFrame {
    /// Address in the space of the file.
    pub address: u64,
    /// Function, system name, file, first line, line, column: innermost inlined callee first.
    pub lines: Vec<(String, String, String, i64, i64, i64)>,
    /// Attributes of the location.
    pub attributes: Attributes,
    /// File, start, limit and offset of the mapping.
    pub mapping: (String, u64, u64, u64),
    /// Attributes of the mapping: build ids.
    pub mapping_attributes: Attributes,
}

/// All samples of `requests`, sorted.
#[must_use]
pub fn seen<'a>(requests: impl IntoIterator<Item = &'a ExportProfilesServiceRequest>) -> Vec<Seen> {
    let none = ProfilesDictionary::default();
    let mut all = Vec::new();
    for request in requests {
        let dictionary = Dictionary(request.dictionary.as_ref().unwrap_or(&none));
        for of_resource in &request.resource_profiles {
            let given = of_resource.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
            let resource = dictionary.inline(given);
            for of_scope in &of_resource.scope_profiles {
                let scope = of_scope.scope.as_ref().map_or(String::new(), |s| format!("{} {}", s.name, s.version));
                for profile in &of_scope.profiles {
                    dictionary.samples(profile, &resource, &scope, &mut all);
                }
            }
        }
    }
    all.sort_unstable();
    all
}

struct Dictionary<'a>(&'a ProfilesDictionary);

/// The entry at `index`. An index out of range is what `otlp::check` reports; here it reads as the null entry.
fn entry<T>(table: &[T], index: i32) -> Option<&T> {
    usize::try_from(index).ok().filter(|&index| index != 0).and_then(|index| table.get(index))
}

impl Dictionary<'_> {
    fn text(&self, index: i32) -> String {
        entry(&self.0.string_table, index).cloned().unwrap_or_default()
    }

    fn value(&self, value: Option<&AnyValue>) -> String {
        match value.and_then(|value| value.value.as_ref()) {
            None => "none".to_owned(),
            Some(any_value::Value::StringValue(text)) => format!("s:{text}"),
            Some(any_value::Value::StringValueStrindex(index)) => format!("s:{}", self.text(*index)),
            Some(any_value::Value::IntValue(number)) => format!("i:{number}"),
            Some(any_value::Value::BoolValue(flag)) => format!("b:{flag}"),
            Some(any_value::Value::DoubleValue(number)) => format!("d:{number}"),
            Some(any_value::Value::ArrayValue(list)) => {
                let items: Vec<_> = list.values.iter().map(|item| self.value(Some(item))).collect();
                format!("a:{items:?}")
            }
            Some(any_value::Value::KvlistValue(list)) => format!("m:{:?}", self.inline(&list.values)),
            Some(any_value::Value::BytesValue(bytes)) => format!("y:{bytes:?}"),
        }
    }

    fn inline(&self, attributes: &[KeyValue]) -> Attributes {
        let key = |of: &KeyValue| if of.key.is_empty() { self.text(of.key_strindex) } else { of.key.clone() };
        attributes.iter().map(|one| (key(one), self.value(one.value.as_ref()))).collect()
    }

    fn attributes(&self, indices: &[i32]) -> Attributes {
        let found = indices.iter().filter_map(|&index| entry(&self.0.attribute_table, index));
        found.map(|one| (self.text(one.key_strindex), self.value(one.value.as_ref()))).collect()
    }

    fn value_type(&self, kind: Option<&ValueType>) -> String {
        kind.map_or(String::new(), |of| format!("{}/{}", self.text(of.type_strindex), self.text(of.unit_strindex)))
    }

    fn frame(&self, location: &Location) -> SeenFrame {
        let mapping = entry(&self.0.mapping_table, location.mapping_index).cloned().unwrap_or_default();
        let line = |line: &opentelemetry_proto::tonic::profiles::v1development::Line| {
            let function = entry(&self.0.function_table, line.function_index).cloned().unwrap_or_default();
            (
                self.text(function.name_strindex),
                self.text(function.system_name_strindex),
                self.text(function.filename_strindex),
                function.start_line,
                line.line,
                line.column,
            )
        };
        SeenFrame {
            address: location.address,
            lines: location.lines.iter().map(line).collect(),
            attributes: self.attributes(&location.attribute_indices),
            mapping: (
                self.text(mapping.filename_strindex),
                mapping.memory_start,
                mapping.memory_limit,
                mapping.file_offset,
            ),
            mapping_attributes: self.attributes(&mapping.attribute_indices),
        }
    }

    fn samples(&self, profile: &Profile, resource: &Attributes, scope: &str, all: &mut Vec<Seen>) {
        for sample in &profile.samples {
            let stack = entry(&self.0.stack_table, sample.stack_index);
            let locations = stack.map_or(&[][..], |stack| &stack.location_indices);
            let frames = locations.iter().filter_map(|&index| entry(&self.0.location_table, index));
            let one = Seen {
                time: 0,
                value: 1,
                resource: resource.clone(),
                scope: scope.to_owned(),
                sample_type: self.value_type(profile.sample_type.as_ref()),
                period_type: self.value_type(profile.period_type.as_ref()),
                period: profile.period,
                attributes: self.attributes(&sample.attribute_indices),
                frames: frames.map(|location| self.frame(location)).collect(),
            };
            for at in 0..sample.timestamps_unix_nano.len().max(sample.values.len()) {
                let mut occurrence = one.clone();
                occurrence.time = sample.timestamps_unix_nano.get(at).copied().unwrap_or(0);
                occurrence.value = sample.values.get(at).copied().unwrap_or(1);
                all.push(occurrence);
            }
        }
    }
}

/// What `left` has and `right` has not, and the other way round, both sorted: empty lists if they are the same.
#[must_use]
pub fn difference<'a>(left: &'a [Seen], right: &'a [Seen]) -> (Vec<&'a Seen>, Vec<&'a Seen>) {
    let (mut only_left, mut only_right) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (None, None) => return (only_left, only_right),
            (Some(l), Some(r)) if l == r => {
                left.next();
                right.next();
            }
            (Some(l), Some(r)) if l < r => only_left.extend(left.next()),
            (None, Some(_)) | (Some(_), Some(_)) => only_right.extend(right.next()),
            (Some(_), None) => only_left.extend(left.next()),
        }
    }
}

/// The text of a [`Seen`]'s attribute without its kind; "" if it is absent.
#[must_use]
pub fn plain<'a>(attributes: &'a Attributes, key: &str) -> &'a str {
    attributes.get(key).and_then(|value| value.get(2..)).unwrap_or_default()
}

/// The samples as the rows that shares, callers and completeness are judged on.
#[must_use]
pub fn as_rows(seen: &[Seen]) -> Vec<Row> {
    seen.iter().map(row).collect()
}

fn row(seen: &Seen) -> Row {
    Row {
        count: u64::try_from(seen.value).unwrap_or(0),
        pid: plain(&seen.resource, "process.pid").parse().unwrap_or(0),
        process: plain(&seen.resource, "process.executable.name").to_owned(),
        tid: 0,
        thread: plain(&seen.attributes, "thread.name").to_owned(),
        frames: seen.frames.iter().map(frame).collect(),
    }
}

fn frame(seen: &SeenFrame) -> Frame {
    Frame {
        kind: match plain(&seen.attributes, "profile.frame.type") {
            "kernel" => FrameKind::Kernel,
            "go" => FrameKind::Go,
            "abort-marker" => FrameKind::Marker,
            _ => FrameKind::Native,
        },
        functions: seen.lines.iter().map(|line| line.0.clone()).collect(),
        address: seen.address,
        file: seen.mapping.0.clone(),
        guessed: false,
        tier: None,
    }
}
