//! Reading of a [`Profile`]'s tables without fear of an index that is out of range.

use std::borrow::Cow;

use super::{
    AttributeValue, Function, FunctionId, Location, LocationId, Process, ProcessId, Profile, Sample, StackId, StringId,
};

impl Profile {
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

    /// The process that `sample` belongs to, if the profile says.
    #[must_use]
    pub fn process_of(&self, sample: &Sample) -> Option<ProcessId> {
        let thread = self.threads.get(sample.thread? as usize)?;
        ((thread.process as usize) < self.processes.len()).then_some(thread.process)
    }

    /// What one unit of the first value weighs, and in which unit: a count of samples weighs the period (for CPU samples ns),
    /// anything else itself.
    #[must_use]
    pub fn weight(&self) -> (i64, &str) {
        match self.sample_types.first() {
            Some(kind) if kind.unit == "count" && self.period > 0 && !self.period_type.unit.is_empty() => {
                (self.period, &self.period_type.unit)
            }
            Some(kind) => (1, &kind.unit),
            None => (1, "count"),
        }
    }

    /// The number of samples that stand behind all values: the sum of the first value where that counts samples or events,
    /// the number of entries otherwise.
    #[must_use]
    pub fn sample_count(&self) -> u64 {
        let counts = self.sample_types.first().is_none_or(|kind| kind.unit == "count");
        self.samples
            .iter()
            .fold(0, |sum: u64, sample| sum.saturating_add(if counts { sample.first_value() } else { 1 }))
    }
}

impl Sample {
    /// The first value; 0 where it is missing or negative.
    #[must_use]
    pub fn first_value(&self) -> u64 {
        self.values.as_slice().first().map_or(0, |&value| u64::try_from(value).unwrap_or(0))
    }
}
