//! Where a profile may be edited before it is encoded: attributes of resources, names, samples.
//!
//! The editor keeps the table of strings at hand, so that an edit costs what it touches. Attributes of a resource have one view,
//! by OpenTelemetry's keys, whether the model has a field for them or not: what is removed there is in no field either. When the
//! edit is finished, only what samples still refer to is left in the tables, so that no encoder can write what was removed.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    AttributeValue, FrameKind, Label, LabelValue, Line, Location, Loss, Process, ProcessId, Profile, Profiles, Sample,
    StringId, Thread, attribute, builder::ProfileBuilder, counts_samples, rfc3339,
};

/// Begins the reason of the loss of samples that a rule dropped; its name follows.
pub const DROPPED: &str = "dropped by rule: ";

/// The value of an attribute, spelled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// A number.
    Integer(i64),
    /// A list of texts.
    Texts(Vec<Cow<'a, str>>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl Value<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Integer(_) => false,
            Self::Texts(texts) => texts.is_empty(),
        }
    }
}

impl Profiles {
    /// What the resource of `process` says, or that of samples of no process: keys are unique and never empty, values never empty.
    /// What is said of the process comes before what is said of all, and that before the origin. The service name that stands in
    /// for one is not among them.
    #[must_use]
    pub fn resource<'a>(&'a self, process: Option<ProcessId>) -> Vec<(&'a str, Value<'a>)> {
        let mut all: Vec<(&'a str, Value<'a>)> = Vec::new();
        let process = process.and_then(|id| self.process(id));
        if let Some(process) = process {
            all.extend(self.fields(process));
            all.extend(process.attributes.iter().map(|(key, value)| (self.string(*key), self.spelled(value))));
        }
        all.extend(self.resource_attributes.iter().map(|(key, value)| (self.string(*key), self.spelled(value))));
        all.extend(self.origin_fields());
        let mut seen = rustc_hash::FxHashSet::default();
        all.retain(|(key, value)| !key.is_empty() && !value.is_empty() && seen.insert(*key));
        all
    }

    fn spelled<'a>(&'a self, value: &AttributeValue) -> Value<'a> {
        match value {
            AttributeValue::Text(id) => Value::Text(self.string(*id).into()),
            AttributeValue::Integer(number) => Value::Integer(*number),
            AttributeValue::Texts(ids) => Value::Texts(ids.iter().map(|&id| self.string(id).into()).collect()),
        }
    }

    /// What `process` has fields for.
    fn fields<'a>(&'a self, process: &Process) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let started = match process.start_unix_nanos {
            0 => String::new(),
            nanos => rfc3339::format(nanos),
        };
        let pid = process.pid.map(|pid| (attribute::PROCESS_PID, Value::Integer(pid.into())));
        let texts = [
            (attribute::PROCESS_CREATION_TIME, Cow::from(started)),
            (attribute::PROCESS_EXECUTABLE_NAME, self.string(process.name).into()),
            (attribute::PROCESS_EXECUTABLE_PATH, self.string(process.executable).into()),
            (attribute::CONTAINER_ID, self.string(process.container_id).into()),
        ];
        pid.into_iter().chain(texts.map(|(key, text)| (key, Value::Text(text))))
    }

    /// What the origin has fields for.
    fn origin_fields(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let os = if self.origin.kernel_release.is_empty() { "" } else { "linux" };
        let texts = [
            (attribute::HOST_NAME, self.origin.host_name.as_str()),
            (attribute::HOST_ARCH, self.origin.arch.as_str()),
            (attribute::OS_TYPE, os),
            (attribute::OS_BUILD_ID, self.origin.kernel_release.as_str()),
        ];
        texts.into_iter().map(|(key, text)| (key, text.into()))
    }
}

/// [`Profiles`] under edit.
#[derive(Debug)]
pub struct Editor {
    builder: ProfileBuilder,
    /// Samples that rules dropped, by the rule's name.
    dropped: BTreeMap<String, u64>,
}

impl Editor {
    /// An editor of what `builder` has built, with its interners.
    #[must_use]
    pub fn new(builder: ProfileBuilder) -> Self {
        Self { builder, dropped: BTreeMap::new() }
    }

    /// An editor of `set`, a file that was read.
    #[must_use]
    pub fn of(set: Profiles) -> Self {
        Self::new(ProfileBuilder::of(set))
    }

    /// What it is by now.
    #[must_use]
    pub fn set(&self) -> &Profiles {
        self.builder.set()
    }

    /// Sets the attribute `key` of the resource of `process`, or of all resources.
    pub fn set_attribute(&mut self, process: Option<ProcessId>, key: &str, value: &Value<'_>) {
        self.remove_attribute(process, key);
        let Some(id) = process else {
            let pair = self.pair(key, value);
            self.builder.set_mut().resource_attributes.push(pair);
            return;
        };
        let text = match value {
            Value::Text(text) => self.builder.string(text),
            Value::Integer(_) | Value::Texts(_) => 0,
        };
        let pair = self.pair(key, value);
        let Some(process) = self.builder.set_mut().processes.get_mut(id as usize) else { return };
        match (key, value) {
            (attribute::PROCESS_PID, Value::Integer(pid)) if u32::try_from(*pid).is_ok() => {
                process.pid = u32::try_from(*pid).ok();
            }
            (attribute::PROCESS_CREATION_TIME, Value::Text(time)) if rfc3339::parse(time).is_some() => {
                process.start_unix_nanos = rfc3339::parse(time).unwrap_or(0);
            }
            (attribute::PROCESS_EXECUTABLE_NAME, Value::Text(_)) => process.name = text,
            (attribute::PROCESS_EXECUTABLE_PATH, Value::Text(_)) => process.executable = text,
            (attribute::CONTAINER_ID, Value::Text(_)) => process.container_id = text,
            _ => process.attributes.push(pair),
        }
    }

    /// Removes the attribute `key` from the resource of `process`, or from all resources. What all resources share is kept by the other
    /// processes; samples of no process, and headers, do not say it any more.
    pub fn remove_attribute(&mut self, process: Option<ProcessId>, key: &str) {
        if process.is_some() {
            self.unshare(key);
        } else {
            self.take_shared(key);
        }
        let key_id = self.builder.string(key);
        let processes = &mut self.builder.set_mut().processes;
        for (_, process) in
            processes.iter_mut().enumerate().filter(|(at, _)| process.is_none_or(|id| id as usize == *at))
        {
            match key {
                attribute::PROCESS_PID => process.pid = None,
                attribute::PROCESS_CREATION_TIME => process.start_unix_nanos = 0,
                attribute::PROCESS_EXECUTABLE_NAME => process.name = 0,
                attribute::PROCESS_EXECUTABLE_PATH => process.executable = 0,
                attribute::CONTAINER_ID => process.container_id = 0,
                _ => {}
            }
            process.attributes.retain(|(known, _)| *known != key_id);
        }
    }

    /// Sets the label `key` of a sample: its profile, and its position there.
    pub fn set_label(&mut self, profile: usize, sample: usize, key: &str, value: LabelValue) {
        let key = self.builder.string(key);
        if let Some(sample) = self.sample(profile, sample) {
            let labels = sample.labels.get_or_insert_default();
            labels.retain(|label| label.key != key);
            labels.push(Label { key, value });
        }
    }

    /// Removes the label `key` of a sample.
    pub fn remove_label(&mut self, profile: usize, sample: usize, key: &str) {
        let key = self.builder.string(key);
        if let Some(sample) = self.sample(profile, sample)
            && let Some(labels) = &mut sample.labels
        {
            labels.retain(|label| label.key != key);
            if labels.is_empty() {
                sample.labels = None;
            }
        }
    }

    /// The id of `text`, for values of labels and names.
    pub fn string(&mut self, text: &str) -> StringId {
        self.builder.string(text)
    }

    /// Gives function `id` another name, in all stacks. The name of its symbol, which would tell the old one, goes.
    pub fn rename_function(&mut self, id: u32, name: &str) {
        let name = self.builder.string(name);
        if let Some(function) = self.builder.set_mut().functions.get_mut(id as usize) {
            (function.name, function.system_name) = (name, 0);
        }
    }

    /// Drops the samples that `keep` refuses, and counts them as a loss of the name of `rule`.
    pub fn retain(&mut self, rule: &str, mut keep: impl FnMut(&Profiles, &Profile, &Sample) -> bool) {
        let mut dropped = 0_u64;
        for index in 0..self.builder.set().profiles.len() {
            let set = self.builder.set_mut();
            let Some(profile) = set.profiles.get_mut(index) else { continue };
            let samples = std::mem::take(&mut profile.samples);
            let mut kept = Vec::with_capacity(samples.len());
            for sample in samples {
                let set = self.builder.set();
                let Some(profile) = set.profiles.get(index) else { continue };
                if keep(set, profile, &sample) {
                    kept.push(sample);
                } else {
                    let counts = profile.sample_types.first().is_none_or(counts_samples);
                    dropped = dropped.saturating_add(if counts { sample.first_value() } else { 1 });
                }
            }
            if let Some(profile) = self.builder.set_mut().profiles.get_mut(index) {
                profile.samples = kept;
            }
        }
        if dropped > 0 {
            let sum = self.dropped.entry(rule.to_owned()).or_default();
            *sum = sum.saturating_add(dropped);
        }
    }

    /// What was edited: only what samples refer to is in its tables, and what rules dropped is among its losses.
    #[must_use]
    pub fn finish(self) -> Profiles {
        let mut set = referred(&self.builder.finish());
        let losses = self.dropped.into_iter();
        set.losses.extend(losses.map(|(rule, count)| Loss { reason: format!("{DROPPED}{rule}"), count }));
        set
    }

    fn sample(&mut self, profile: usize, sample: usize) -> Option<&mut Sample> {
        self.builder.set_mut().profiles.get_mut(profile)?.samples.get_mut(sample)
    }

    fn pair(&mut self, key: &str, value: &Value<'_>) -> (StringId, AttributeValue) {
        let value = match value {
            Value::Text(text) => AttributeValue::Text(self.builder.string(text)),
            Value::Integer(number) => AttributeValue::Integer(*number),
            Value::Texts(texts) => AttributeValue::Texts(texts.iter().map(|text| self.builder.string(text)).collect()),
        };
        (self.builder.string(key), value)
    }

    /// Takes `key` away from what all resources share.
    fn take_shared(&mut self, key: &str) -> Option<AttributeValue> {
        let key_id = self.builder.string(key);
        let set = self.builder.set_mut();
        let mut shared = None;
        set.resource_attributes.retain(|(known, value)| {
            let is_it = *known == key_id;
            if is_it {
                shared.get_or_insert_with(|| value.clone());
            }
            !is_it
        });
        // A kernel release implies the system; without it, the release is an attribute like others.
        if key == attribute::OS_TYPE && !set.origin.kernel_release.is_empty() {
            let release = std::mem::take(&mut set.origin.kernel_release);
            let release = self.pair(attribute::OS_BUILD_ID, &Value::from(release.as_str()));
            if self.builder.set().resource_attributes.iter().all(|(key, _)| *key != release.0) {
                self.builder.set_mut().resource_attributes.push(release);
            }
            return shared.or_else(|| Some(AttributeValue::Text(self.builder.string("linux"))));
        }
        let field = match key {
            attribute::HOST_NAME => std::mem::take(&mut set.origin.host_name),
            attribute::HOST_ARCH => std::mem::take(&mut set.origin.arch),
            attribute::OS_BUILD_ID => std::mem::take(&mut set.origin.kernel_release),
            _ => String::new(),
        };
        // A kernel release implies the system; without it, that is said.
        if key == attribute::OS_BUILD_ID && !field.is_empty() {
            let os = self.pair(attribute::OS_TYPE, &Value::from("linux"));
            let known = self.builder.set().resource_attributes.iter().any(|(key, _)| *key == os.0);
            if !known {
                self.builder.set_mut().resource_attributes.push(os);
            }
        }
        shared.or_else(|| (!field.is_empty()).then(|| AttributeValue::Text(self.builder.string(&field))))
    }

    /// Gives each process a copy of what all resources say under `key`.
    fn unshare(&mut self, key: &str) {
        let Some(value) = self.take_shared(key) else { return };
        let key = self.builder.string(key);
        for process in &mut self.builder.set_mut().processes {
            if process.attributes.iter().all(|(known, _)| *known != key) {
                process.attributes.push((key, value.clone()));
            }
        }
    }
}

/// `set` with tables of what its samples refer to, and no more.
fn referred(set: &Profiles) -> Profiles {
    let mut kept = Referred {
        set,
        builder: ProfileBuilder::new(),
        stacks: vec![None; set.stacks.len()],
        locations: vec![None; set.locations.len()],
        threads: vec![None; set.threads.len()],
    };
    for profile in &set.profiles {
        let samples: Vec<Sample> = profile.samples.iter().map(|sample| kept.sample(sample)).collect();
        kept.builder.begin(Profile {
            samples,
            source: profile.source.clone(),
            sample_types: profile.sample_types.clone(),
            period_type: profile.period_type.clone(),
            ..*profile
        });
    }
    let shared = kept.attributes(&set.resource_attributes);
    let mut out = kept.builder.finish();
    out.resource_attributes = shared;
    out.origin = set.origin.clone();
    out.losses.clone_from(&set.losses);
    out.comments.clone_from(&set.comments);
    out
}

struct Referred<'a> {
    set: &'a Profiles,
    builder: ProfileBuilder,
    /// Where rows have gone.
    stacks: Vec<Option<u32>>,
    locations: Vec<Option<u32>>,
    threads: Vec<Option<u32>>,
}

impl Referred<'_> {
    fn text(&mut self, id: StringId) -> StringId {
        self.builder.string(self.set.string(id))
    }

    fn sample(&mut self, sample: &Sample) -> Sample {
        let set = self.set;
        let label = |kept: &mut Self, label: &Label| {
            let value = match label.value {
                LabelValue::Text(text) => LabelValue::Text(kept.text(text)),
                LabelValue::Number(number, unit) => LabelValue::Number(number, kept.text(unit)),
            };
            Label { key: kept.text(label.key), value }
        };
        let labels = sample.labels.as_ref();
        Sample {
            stack: self.stack(sample.stack),
            thread: sample.thread.and_then(|id| self.thread(id)),
            link: set.links.get(sample.link as usize).map_or(0, |link| self.builder.link(*link)),
            values: sample.values.clone(),
            labels: labels.map(|labels| Box::new(labels.iter().map(|one| label(self, one)).collect())),
            ..*sample
        }
    }

    fn stack(&mut self, id: u32) -> u32 {
        if let Some(Some(known)) = self.stacks.get(id as usize) {
            return *known;
        }
        let set = self.set;
        let locations: Vec<u32> = set.stack(id).iter().filter_map(|&id| self.location(id)).collect();
        let stack = self.builder.stack(&locations);
        if let Some(slot) = self.stacks.get_mut(id as usize) {
            *slot = Some(stack);
        }
        stack
    }

    fn location(&mut self, id: u32) -> Option<u32> {
        if let Some(Some(known)) = self.locations.get(id as usize) {
            return Some(*known);
        }
        let set = self.set;
        let location = set.location(id)?;
        let mapping = location.mapping.and_then(|id| set.mappings.get(id as usize)).map(|mapping| {
            let mut mapping = mapping.clone();
            for text in
                [&mut mapping.file, &mut mapping.build_id_gnu, &mut mapping.build_id_htlhash, &mut mapping.build_id_go]
            {
                *text = self.text(*text);
            }
            self.builder.mapping(mapping)
        });
        let mut lines = Vec::with_capacity(location.lines.len());
        for line in &location.lines {
            let mut function = set.function(line.function)?.clone();
            for text in [&mut function.name, &mut function.system_name, &mut function.file] {
                *text = self.text(*text);
            }
            lines.push(Line { function: self.builder.function(function), ..*line });
        }
        let kind = match location.kind {
            FrameKind::Other(name) => FrameKind::Other(self.text(name)),
            known => known,
        };
        let new = self.builder.location(Location { kind, mapping, lines, ..*location });
        if let Some(slot) = self.locations.get_mut(id as usize) {
            *slot = Some(new);
        }
        Some(new)
    }

    fn thread(&mut self, id: u32) -> Option<u32> {
        if let Some(Some(known)) = self.threads.get(id as usize) {
            return Some(*known);
        }
        let set = self.set;
        let thread = set.threads.get(id as usize)?;
        let process = set.process(thread.process)?;
        let process = Process {
            name: self.text(process.name),
            executable: self.text(process.executable),
            container_id: self.text(process.container_id),
            attributes: self.attributes(&process.attributes),
            ..*process
        };
        let process = self.builder.process(process);
        let name = self.text(thread.name);
        let new = self.builder.thread(Thread { process, name, ..*thread });
        if let Some(slot) = self.threads.get_mut(id as usize) {
            *slot = Some(new);
        }
        Some(new)
    }

    fn attributes(&mut self, pairs: &[(StringId, AttributeValue)]) -> Vec<(StringId, AttributeValue)> {
        let mut all = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let value = match value {
                AttributeValue::Text(id) => AttributeValue::Text(self.text(*id)),
                AttributeValue::Integer(number) => AttributeValue::Integer(*number),
                AttributeValue::Texts(ids) => AttributeValue::Texts(ids.iter().map(|&id| self.text(id)).collect()),
            };
            all.push((self.text(*key), value));
        }
        all
    }
}
