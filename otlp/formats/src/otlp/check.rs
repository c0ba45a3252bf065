//! The rules that a profiles request has to keep, as OpenTelemetry's `profcheck` has them
//! (open-telemetry/sig-profiling, d2ab6d5), in its numbering here: 1 nesting, 2 indices, 3 keys, 4 times, 5 shapes of samples,
//! 6 null entries, 7 ranges, 8 links, 9 duplicates, 10 orphans. Rules 9 and 10 hold for all seven tables.
//!
//! Where profcheck is wrong this is not: an absent dictionary is a violation and no crash, and a string that only a reference
//! attribute (`key_strindex`, `string_value_strindex`) uses is no orphan.

use std::{collections::HashSet, fmt};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    profiles::v1development::{
        Function, KeyValueAndUnit, Link, Location, Mapping, Profile, ProfilesDictionary, Sample, Stack, ValueType,
    },
};
use prost::Message;

use super::ExportProfilesServiceRequest;

/// Violations that are reported; a broken request has one at every entry.
const MAX_VIOLATIONS: usize = 1000;
/// Bytes that a request to be checked may have, eight times what receivers accept by default.
const MAX_BYTES: usize = 512 << 20;

/// A rule that a request breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Number of the rule, 1 to 10; 0 if the bytes are no request at all.
    pub rule: u8,
    /// What breaks it, and where.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {}", self.rule, self.what)
    }
}

/// The rules that `request`, an `ExportProfilesServiceRequest` or `ProfilesData`, breaks: at most the first 1,000.
#[must_use]
pub fn check(request: &[u8]) -> Vec<Violation> {
    let no_request = |what: String| vec![Violation { rule: 0, what }];
    if request.len() > MAX_BYTES {
        return no_request(format!("{} bytes are more than the {MAX_BYTES} that are checked", request.len()));
    }
    match ExportProfilesServiceRequest::decode(request) {
        Ok(request) => check_message(&request),
        Err(error) => no_request(format!("not an ExportProfilesServiceRequest: {error}")),
    }
}

/// As [`check`], of a request in memory.
#[must_use]
pub fn check_message(request: &ExportProfilesServiceRequest) -> Vec<Violation> {
    let empty = ProfilesDictionary::default();
    let dictionary = request.dictionary.as_ref().unwrap_or(&empty);
    let mut checker = Checker { dictionary, violations: Vec::new(), used: Used::new(dictionary) };
    checker.null_entries();
    checker.tables();
    checker.profiles(request);
    checker.duplicates();
    checker.orphans();
    checker.violations
}

/// Which entries of the tables something refers to.
struct Used {
    mappings: Vec<bool>,
    locations: Vec<bool>,
    functions: Vec<bool>,
    links: Vec<bool>,
    strings: Vec<bool>,
    attributes: Vec<bool>,
    stacks: Vec<bool>,
}

impl Used {
    fn new(dictionary: &ProfilesDictionary) -> Self {
        Self {
            mappings: vec![false; dictionary.mapping_table.len()],
            locations: vec![false; dictionary.location_table.len()],
            functions: vec![false; dictionary.function_table.len()],
            links: vec![false; dictionary.link_table.len()],
            strings: vec![false; dictionary.string_table.len()],
            attributes: vec![false; dictionary.attribute_table.len()],
            stacks: vec![false; dictionary.stack_table.len()],
        }
    }
}

/// Marks entry `index` as used; whether it exists and was not marked before, or `Err` if there is none.
fn mark(used: &mut [bool], index: i32) -> Result<bool, ()> {
    let slot = usize::try_from(index).ok().and_then(|index| used.get_mut(index)).ok_or(())?;
    Ok(!std::mem::replace(slot, true))
}

struct Checker<'a> {
    dictionary: &'a ProfilesDictionary,
    violations: Vec<Violation>,
    used: Used,
}

impl Checker<'_> {
    fn report(&mut self, rule: u8, what: impl FnOnce() -> String) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { rule, what: what() });
        }
    }

    /// Rule 2 for one index of a string.
    fn string(&mut self, what: &str, index: i32) {
        if mark(&mut self.used.strings, index).is_err() {
            self.report(2, || format!("{what}: there is no string {index}"));
        }
    }

    fn value_type(&mut self, what: &str, kind: Option<ValueType>) {
        if let Some(kind) = kind {
            self.string(what, kind.type_strindex);
            self.string(what, kind.unit_strindex);
        }
    }

    /// Rule 6: every table begins with the null entry.
    fn null_entries(&mut self) {
        let d = self.dictionary;
        let null = [
            ("mapping", d.mapping_table.first().map(|entry| *entry == Mapping::default())),
            ("location", d.location_table.first().map(|entry| *entry == Location::default())),
            ("function", d.function_table.first().map(|entry| *entry == Function::default())),
            ("link", d.link_table.first().map(|entry| *entry == Link::default())),
            ("string", d.string_table.first().map(String::is_empty)),
            ("attribute", d.attribute_table.first().map(|entry| *entry == KeyValueAndUnit::default())),
            ("stack", d.stack_table.first().map(|entry| *entry == Stack::default())),
        ];
        for (table, is_null) in null {
            match is_null {
                None => self.report(6, || format!("the {table} table is empty")),
                Some(false) => self.report(6, || format!("entry 0 of the {table} table is not null")),
                Some(true) => {}
            }
        }
    }

    /// Rules 7 and 8, which look at entries alone.
    fn tables(&mut self) {
        let dictionary = self.dictionary;
        for (index, mapping) in dictionary.mapping_table.iter().enumerate() {
            let (start, limit) = (mapping.memory_start, mapping.memory_limit);
            if start >= limit && (start, limit) != (0, 0) {
                self.report(7, || format!("mapping {index} reaches from {start:#x} to {limit:#x}"));
            }
        }
        for (index, location) in dictionary.location_table.iter().enumerate() {
            if location.lines.iter().any(|line| line.line < 0 || line.column < 0) {
                self.report(7, || format!("location {index} has a negative line or column"));
            }
        }
        for (index, function) in dictionary.function_table.iter().enumerate() {
            if function.start_line < 0 {
                self.report(7, || format!("function {index} starts in a negative line"));
            }
        }
        for (index, link) in dictionary.link_table.iter().enumerate().skip(1) {
            if (link.trace_id.len(), link.span_id.len()) != (16, 8) {
                self.report(8, || {
                    format!("link {index} has ids of {} and {} bytes", link.trace_id.len(), link.span_id.len())
                });
            }
        }
    }

    /// Rules 1 to 5, from the request to all that it refers to.
    fn profiles(&mut self, request: &ExportProfilesServiceRequest) {
        if request.resource_profiles.is_empty() {
            self.report(1, || "there are no resource profiles".to_owned());
        }
        for (index, resource) in request.resource_profiles.iter().enumerate() {
            let at = format!("resource {index}");
            self.pairs(&at, resource.resource.iter().flat_map(|resource| &resource.attributes));
            if resource.scope_profiles.is_empty() {
                self.report(1, || format!("{at} has no scope profiles"));
            }
            for scope in &resource.scope_profiles {
                self.pairs(&at, scope.scope.iter().flat_map(|scope| &scope.attributes));
                if scope.profiles.is_empty() {
                    self.report(1, || format!("a scope of {at} has no profiles"));
                }
                for (number, profile) in scope.profiles.iter().enumerate() {
                    self.profile(&format!("{at}, profile {number}"), profile);
                }
            }
        }
    }

    /// Strings that inline attributes refer to.
    fn pairs<'p>(&mut self, at: &str, pairs: impl Iterator<Item = &'p KeyValue>) {
        for pair in pairs {
            self.string(at, pair.key_strindex);
            self.any_value(at, pair.value.as_ref());
        }
    }

    fn any_value(&mut self, at: &str, value: Option<&AnyValue>) {
        let mut waiting = vec![value];
        while let Some(value) = waiting.pop() {
            match value.and_then(|value| value.value.as_ref()) {
                Some(any_value::Value::StringValueStrindex(index)) => self.string(at, *index),
                Some(any_value::Value::ArrayValue(list)) => waiting.extend(list.values.iter().map(Some)),
                Some(any_value::Value::KvlistValue(list)) => {
                    list.values.iter().for_each(|pair| self.string(at, pair.key_strindex));
                    waiting.extend(list.values.iter().map(|pair| pair.value.as_ref()));
                }
                _ => {}
            }
        }
    }

    fn profile(&mut self, at: &str, profile: &Profile) {
        self.value_type(at, profile.sample_type);
        self.value_type(at, profile.period_type);
        self.attributes(at, &profile.attribute_indices);
        let mut shapes = HashSet::new();
        for (index, sample) in profile.samples.iter().enumerate() {
            let at = || format!("{at}, sample {index}");
            self.sample(&at, sample);
            let end = profile.time_unix_nano.saturating_add(profile.duration_nano);
            for &time in &sample.timestamps_unix_nano {
                if time < profile.time_unix_nano || time >= end {
                    self.report(4, || format!("{}: time {time} is not in [{}, {end})", at(), profile.time_unix_nano));
                }
            }
            let (values, times) = (sample.values.len(), sample.timestamps_unix_nano.len());
            match (values, times) {
                (0, 0) => self.report(5, || format!("{} has neither values nor times", at())),
                (0, _) | (1, 0) => {}
                (_, 0) => self.report(5, || format!("{} has {values} values and no times", at())),
                _ if values != times => self.report(5, || format!("{} has {values} values, {times} times", at())),
                _ => {}
            }
            shapes.insert((values > 0, times > 0));
        }
        if shapes.len() > 1 {
            self.report(5, || format!("{at}: its samples have several shapes"));
        }
    }

    fn sample(&mut self, at: &impl Fn() -> String, sample: &Sample) {
        match mark(&mut self.used.stacks, sample.stack_index) {
            Err(()) => self.report(2, || format!("{}: there is no stack {}", at(), sample.stack_index)),
            Ok(new) => {
                if new {
                    self.stack(sample.stack_index);
                }
            }
        }
        if mark(&mut self.used.links, sample.link_index).is_err() {
            self.report(2, || format!("{}: there is no link {}", at(), sample.link_index));
        }
        if !sample.attribute_indices.is_empty() {
            self.attributes(&at(), &sample.attribute_indices);
        }
    }

    /// Rules 2 and 3 for a list of attributes.
    fn attributes(&mut self, at: &str, indices: &[i32]) {
        let mut keys = HashSet::new();
        let dictionary = self.dictionary;
        for &index in indices {
            match mark(&mut self.used.attributes, index) {
                Err(()) => self.report(2, || format!("{at}: there is no attribute {index}")),
                Ok(new) => {
                    let Some(attribute) = dictionary.attribute_table.get(index as usize) else { continue };
                    if new {
                        let at = format!("attribute {index}");
                        self.string(&at, attribute.key_strindex);
                        self.string(&at, attribute.unit_strindex);
                        self.any_value(&at, attribute.value.as_ref());
                    }
                    let key = usize::try_from(attribute.key_strindex).ok();
                    let key = key.and_then(|key| dictionary.string_table.get(key));
                    if key.is_some_and(|key| !keys.insert(key)) {
                        self.report(3, || format!("{at} has two attributes {:?}", key.map_or("", String::as_str)));
                    }
                }
            }
        }
    }

    fn stack(&mut self, index: i32) {
        let Some(stack) = self.dictionary.stack_table.get(index as usize) else { return };
        for &location in &stack.location_indices {
            match mark(&mut self.used.locations, location) {
                Err(()) => self.report(2, || format!("stack {index}: there is no location {location}")),
                Ok(true) => self.location(location),
                Ok(false) => {}
            }
        }
    }

    fn location(&mut self, index: i32) {
        let Some(location) = self.dictionary.location_table.get(index as usize) else { return };
        let at = format!("location {index}");
        self.attributes(&at, &location.attribute_indices);
        match mark(&mut self.used.mappings, location.mapping_index) {
            Err(()) => self.report(2, || format!("{at}: there is no mapping {}", location.mapping_index)),
            Ok(true) => {
                if let Some(mapping) = self.dictionary.mapping_table.get(location.mapping_index as usize) {
                    let at = format!("mapping {}", location.mapping_index);
                    self.string(&at, mapping.filename_strindex);
                    self.attributes(&at, &mapping.attribute_indices);
                }
            }
            Ok(false) => {}
        }
        for line in &location.lines {
            match mark(&mut self.used.functions, line.function_index) {
                Err(()) => self.report(2, || format!("{at}: there is no function {}", line.function_index)),
                Ok(true) => {
                    if let Some(function) = self.dictionary.function_table.get(line.function_index as usize) {
                        let at = format!("function {}", line.function_index);
                        self.string(&at, function.name_strindex);
                        self.string(&at, function.system_name_strindex);
                        self.string(&at, function.filename_strindex);
                    }
                }
                Ok(false) => {}
            }
        }
    }

    /// Rule 9.
    fn duplicates(&mut self) {
        let dictionary = self.dictionary;
        self.unique("mapping", &dictionary.mapping_table, Message::encode_to_vec);
        self.unique("location", &dictionary.location_table, Message::encode_to_vec);
        self.unique("function", &dictionary.function_table, Message::encode_to_vec);
        self.unique("link", &dictionary.link_table, Message::encode_to_vec);
        self.unique("string", &dictionary.string_table, |text| text.as_bytes().to_vec());
        self.unique("attribute", &dictionary.attribute_table, Message::encode_to_vec);
        self.unique("stack", &dictionary.stack_table, Message::encode_to_vec);
    }

    fn unique<T>(&mut self, table: &str, entries: &[T], bytes: impl Fn(&T) -> Vec<u8>) {
        let mut seen = HashSet::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            if !seen.insert(bytes(entry)) {
                self.report(9, || format!("{table} {index} is there twice"));
            }
        }
    }

    /// Rule 10; entry 0 has to be there whether or not it is used.
    fn orphans(&mut self) {
        let used = &self.used;
        let tables = [
            ("mapping", &used.mappings),
            ("location", &used.locations),
            ("function", &used.functions),
            ("link", &used.links),
            ("string", &used.strings),
            ("attribute", &used.attributes),
            ("stack", &used.stacks),
        ];
        let orphans: Vec<(&str, usize)> = tables
            .into_iter()
            .flat_map(|(table, used)| {
                used.iter().enumerate().skip(1).filter(|(_, used)| !**used).map(move |(index, _)| (table, index))
            })
            .take(MAX_VIOLATIONS)
            .collect();
        for (table, index) in orphans {
            self.report(10, || format!("nothing refers to {table} {index}"));
        }
    }
}
