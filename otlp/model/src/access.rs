//! Reading of a [`Profiles`]' tables without fear of an index that is out of range.

use std::borrow::Cow;

use super::{
    AttributeValue, FrameKind, Function, FunctionId, Location, LocationId, Process, ProcessId, Profile, Profiles,
    Sample, StackId, StringId,
};
use super::{attribute::SERVICE_NAME, frames::file_name};

impl Profiles {
    /// The string `id`; "" if there is none.
    #[must_use]
    pub fn string(&self, id: StringId) -> &str {
        self.strings.get(id as usize).map_or("", String::as_str)
    }

    /// `value` as text, for formats that have nothing else: a list with commas.
    #[must_use]
    pub fn attribute_text(&self, value: &AttributeValue) -> Cow<'_, str> {
        match value {
            AttributeValue::Text(id) => self.string(*id).into(),
            AttributeValue::Integer(number) => number.to_string().into(),
            AttributeValue::Texts(ids) => ids.iter().map(|&id| self.string(id)).collect::<Vec<_>>().join(",").into(),
        }
    }

    /// What `kind` is called.
    #[must_use]
    pub fn kind_name(&self, kind: FrameKind) -> &str {
        match (kind, kind.names()) {
            (FrameKind::Other(name), _) if name != 0 => self.string(name),
            (_, names) => names.map_or("Other", |names| names.name),
        }
    }

    /// The locations of stack `id`, leaf first; empty if there is none.
    #[must_use]
    pub fn stack(&self, id: StackId) -> &[LocationId] {
        self.stacks.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// The location `id`.
    #[must_use]
    pub fn location(&self, id: LocationId) -> Option<&Location> {
        self.locations.get(id as usize)
    }

    /// The function `id`.
    #[must_use]
    pub fn function(&self, id: FunctionId) -> Option<&Function> {
        self.functions.get(id as usize)
    }

    /// The process `id`.
    #[must_use]
    pub fn process(&self, id: ProcessId) -> Option<&Process> {
        self.processes.get(id as usize)
    }

    /// What `process` is called: its name, else its program's, else its service's; "" if there is none.
    #[must_use]
    pub fn process_label(&self, process: &Process) -> &str {
        let service = process.attributes.iter().chain(&self.resource_attributes);
        let service = service.filter(|(key, _)| self.string(*key) == SERVICE_NAME).find_map(|(_, value)| match value {
            AttributeValue::Text(id) => Some(self.string(*id)),
            AttributeValue::Integer(_) | AttributeValue::Texts(_) => None,
        });
        let names = [self.string(process.name), file_name(self.string(process.executable)), service.unwrap_or("")];
        names.into_iter().find(|name| !name.is_empty()).unwrap_or("")
    }

    /// The process that `sample` belongs to, if the file says.
    #[must_use]
    pub fn process_of(&self, sample: &Sample) -> Option<ProcessId> {
        let thread = self.threads.get(sample.thread? as usize)?;
        ((thread.process as usize) < self.processes.len()).then_some(thread.process)
    }

    /// All samples, with the profile that each is in.
    pub fn samples(&self) -> impl Iterator<Item = (&Profile, &Sample)> + Clone {
        self.profiles.iter().flat_map(|profile| profile.samples.iter().map(move |sample| (profile, sample)))
    }

    /// The number of entries of all profiles' samples.
    #[must_use]
    pub fn sample_entries(&self) -> usize {
        self.profiles.iter().map(|profile| profile.samples.len()).sum()
    }

    /// The number of samples that stand behind all values: the sum of the first value where that counts samples or events,
    /// the number of entries otherwise.
    #[must_use]
    pub fn sample_count(&self) -> u64 {
        self.samples().fold(0, |sum: u64, (profile, sample)| {
            let counts = profile.sample_types.first().is_none_or(|kind| kind.unit == "count");
            sum.saturating_add(if counts { sample.first_value() } else { 1 })
        })
    }

    /// Start and end of all profiles, ns since the Unix epoch; 0 and 0 if there is none.
    #[must_use]
    pub fn window(&self) -> (u64, u64) {
        let start = self.profiles.iter().map(|profile| profile.start_unix_nanos).min();
        let end = self.profiles.iter().map(|profile| profile.start_unix_nanos.saturating_add(profile.duration_nanos));
        (start.unwrap_or(0), end.max().unwrap_or(0))
    }
}

impl Sample {
    /// The value `index`; 0 where it is missing or negative.
    #[must_use]
    pub fn value(&self, index: usize) -> u64 {
        self.values.as_slice().get(index).map_or(0, |&value| u64::try_from(value).unwrap_or(0))
    }

    /// The first value; 0 where it is missing or negative.
    #[must_use]
    pub fn first_value(&self) -> u64 {
        self.value(0)
    }
}
