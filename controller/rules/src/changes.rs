//! What is other in a request after rules, as text for people.

use std::fmt;

use opentelemetry_proto::tonic::profiles::v1development::{
    Profile, ProfilesDictionary, ResourceProfiles, Sample, ScopeProfiles, ValueType,
};
use profiler_ottl::Value;

use crate::{Request, any};

/// Names of fields and what is in them. Indices are looked up: they mean nothing in another dictionary.
type Fields = Vec<(String, String)>;

/// Tells `line` in which resources, scopes, profiles and samples `after` differs from `before`: each in a line of its own by its place before,
/// then a line that begins with `-` for what was there, and one with `+` for what is there instead. In the place of what is gone is all that it was.
pub fn changes(before: &Request, after: &Request, mut line: impl FnMut(fmt::Arguments<'_>)) {
    let (none, other) = (ProfilesDictionary::default(), ProfilesDictionary::default());
    let mut pair = Pair {
        before: before.dictionary.as_ref().unwrap_or(&none),
        after: after.dictionary.as_ref().unwrap_or(&other),
        line: &mut line,
    };
    pair.resources(&before.resource_profiles, &after.resource_profiles);
}

struct Pair<'a> {
    before: &'a ProfilesDictionary,
    after: &'a ProfilesDictionary,
    line: &'a mut dyn FnMut(fmt::Arguments<'_>),
}

/// Which of `after` each of `before` became. Where as many are left, each is itself; where some are gone, what is equal is what is left.
fn partners(before: &[Fields], after: &[Fields]) -> Vec<Option<usize>> {
    if before.len() == after.len() {
        return (0..before.len()).map(Some).collect();
    }
    let mut next = 0;
    let mut same = |fields: &Fields| {
        let found = after.get(next).is_some_and(|other| other == fields);
        next += usize::from(found);
        found.then(|| next - 1)
    };
    before.iter().map(&mut same).collect()
}

impl Pair<'_> {
    /// Tells what differs among `before` and `after`; those that are in both.
    fn level<T>(
        &mut self,
        place: &str,
        name: &str,
        before: &[T],
        after: &[T],
        fields: impl Fn(&T, &ProfilesDictionary) -> Fields,
    ) -> Vec<(String, usize, usize)> {
        let was: Vec<Fields> = before.iter().map(|one| fields(one, self.before)).collect();
        let is: Vec<Fields> = after.iter().map(|one| fields(one, self.after)).collect();
        let mut both = Vec::new();
        for (at, partner) in partners(&was, &is).into_iter().enumerate() {
            let here = format!("{place}{name} {at}");
            match partner {
                Some(partner) => {
                    self.fields(&here, &was[at], &is[partner]);
                    both.push((format!("{here}, "), at, partner));
                }
                None => {
                    (self.line)(format_args!("{here} is gone"));
                    was[at].iter().for_each(|(name, value)| (self.line)(format_args!("- {name} = {value}")));
                }
            }
        }
        both
    }

    fn fields(&mut self, place: &str, was: &Fields, is: &Fields) {
        let value_in = |fields: &Fields, name: &str| {
            fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let mut names: Vec<&String> = was.iter().map(|(name, _)| name).collect();
        names.extend(is.iter().map(|(name, _)| name).filter(|name| value_in(was, name).is_none()));
        let mut told = false;
        for name in names {
            let (old, new) = (value_in(was, name), value_in(is, name));
            if old == new {
                continue;
            }
            if !std::mem::replace(&mut told, true) {
                (self.line)(format_args!("{place}"));
            }
            for (sign, value) in [('-', old), ('+', new)] {
                if let Some(value) = value {
                    (self.line)(format_args!("{sign} {name} = {value}"));
                }
            }
        }
    }

    fn resources(&mut self, before: &[ResourceProfiles], after: &[ResourceProfiles]) {
        for (place, was, is) in self.level("", "resource", before, after, resource) {
            let (before, after) = (&before[was].scope_profiles, &after[is].scope_profiles);
            for (place, was, is) in self.level(&place, "scope", before, after, scope) {
                let (before, after) = (&before[was].profiles, &after[is].profiles);
                for (place, was, is) in self.level(&place, "profile", before, after, profile) {
                    self.level(&place, "sample", &before[was].samples, &after[is].samples, sample);
                }
            }
        }
    }
}

fn push(fields: &mut Fields, name: &str, value: impl fmt::Display) {
    fields.push((name.to_owned(), value.to_string()));
}

/// A field that is only there if it says something.
fn push_text(fields: &mut Fields, name: &str, text: &str) {
    if !text.is_empty() {
        push(fields, name, format_args!("{text:?}"));
    }
}

fn push_number(fields: &mut Fields, name: &str, number: impl fmt::Display + Default + PartialEq) {
    if number != Default::default() {
        push(fields, name, number);
    }
}

fn push_map(fields: &mut Fields, map: &profiler_ottl::Map) {
    map.iter().for_each(|(key, value)| push(fields, &format!("attributes[{key:?}]"), shown(value)));
}

fn resource(of: &ResourceProfiles, dictionary: &ProfilesDictionary) -> Fields {
    let mut fields = Fields::new();
    if let Some(resource) = &of.resource {
        push_map(&mut fields, &any::map(&resource.attributes, &dictionary.string_table));
        push_number(&mut fields, "dropped_attributes_count", resource.dropped_attributes_count);
    }
    push_text(&mut fields, "schema_url", &of.schema_url);
    fields
}

fn scope(of: &ScopeProfiles, dictionary: &ProfilesDictionary) -> Fields {
    let mut fields = Fields::new();
    if let Some(scope) = &of.scope {
        push_text(&mut fields, "name", &scope.name);
        push_text(&mut fields, "version", &scope.version);
        push_map(&mut fields, &any::map(&scope.attributes, &dictionary.string_table));
        push_number(&mut fields, "dropped_attributes_count", scope.dropped_attributes_count);
    }
    push_text(&mut fields, "schema_url", &of.schema_url);
    fields
}

fn profile(of: &Profile, dictionary: &ProfilesDictionary) -> Fields {
    let mut fields = Fields::new();
    let mut values = |name: &str, of: Option<ValueType>| {
        let of = of.unwrap_or_default();
        push_text(&mut fields, &format!("{name}.type"), string(of.type_strindex, dictionary));
        push_text(&mut fields, &format!("{name}.unit"), string(of.unit_strindex, dictionary));
    };
    values("sample_type", of.sample_type);
    values("period_type", of.period_type);
    push_number(&mut fields, "time_unix_nano", of.time_unix_nano);
    push_number(&mut fields, "duration_unix_nano", of.duration_nano);
    push_number(&mut fields, "period", of.period);
    push_text(&mut fields, "profile_id", &hex(&of.profile_id));
    attributes(&mut fields, &of.attribute_indices, dictionary);
    push_number(&mut fields, "dropped_attributes_count", of.dropped_attributes_count);
    push_text(&mut fields, "original_payload_format", &of.original_payload_format);
    if !of.original_payload.is_empty() {
        push(&mut fields, "original_payload", format_args!("{} bytes", of.original_payload.len()));
    }
    fields
}

fn sample(of: &Sample, dictionary: &ProfilesDictionary) -> Fields {
    let mut fields = Fields::new();
    push_text(&mut fields, "stack", &stack(of.stack_index, dictionary));
    if !of.values.is_empty() {
        push(&mut fields, "values", format_args!("{:?}", of.values));
    }
    attributes(&mut fields, &of.attribute_indices, dictionary);
    let link = row(&dictionary.link_table, of.link_index).filter(|_| of.link_index != 0);
    match link {
        Some(link) => push(&mut fields, "link", format_args!("{}/{}", hex(&link.trace_id), hex(&link.span_id))),
        None => push_number(&mut fields, "link_index", of.link_index),
    }
    if !of.timestamps_unix_nano.is_empty() {
        push(&mut fields, "timestamps_unix_nano", format_args!("{:?}", of.timestamps_unix_nano));
    }
    fields
}

fn row<T>(table: &[T], index: i32) -> Option<&T> {
    table.get(usize::try_from(index).ok()?)
}

fn string(index: i32, dictionary: &ProfilesDictionary) -> &str {
    row(&dictionary.string_table, index).map_or("", String::as_str)
}

fn attributes(fields: &mut Fields, indices: &[i32], dictionary: &ProfilesDictionary) {
    for index in indices {
        let Some(found) = row(&dictionary.attribute_table, *index) else {
            push(fields, &format!("attribute {index}"), "of no table");
            continue;
        };
        let value = shown(&any::value(found.value.as_ref(), &dictionary.string_table));
        let unit = string(found.unit_strindex, dictionary);
        let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
        push(
            fields,
            &format!("attributes[{:?}]", string(found.key_strindex, dictionary)),
            format_args!("{value}{unit}"),
        );
    }
}

/// The functions of a stack from its root, or where they have no names, what is known of the place.
fn stack(index: i32, dictionary: &ProfilesDictionary) -> String {
    let indices = row(&dictionary.stack_table, index).map_or(&[][..], |stack| &stack.location_indices);
    let mut frames: Vec<String> = Vec::with_capacity(indices.len());
    for index in indices.iter().rev() {
        let Some(location) = row(&dictionary.location_table, *index) else { continue };
        for line in location.lines.iter().rev() {
            let function = row(&dictionary.function_table, line.function_index);
            frames.push(function.map_or("", |function| string(function.name_strindex, dictionary)).to_owned());
        }
        if location.lines.is_empty() {
            let mapping = row(&dictionary.mapping_table, location.mapping_index);
            let file = mapping.map_or("", |mapping| string(mapping.filename_strindex, dictionary));
            frames.push(format!("{file}+{:#x}", location.address));
        }
    }
    frames.join(";")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as a rule would write it.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes) => format!("0x{}", hex(bytes)),
        Value::List(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Map(map) => {
            let entries: Vec<_> = map.iter().map(|(key, value)| format!("{key:?}: {}", shown(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        // Nothing else is in a request.
        _ => "nil".to_owned(),
    }
}
