//! What the resource of a process says: one view of its attributes, by OpenTelemetry's keys, whether the model has a field for them or not.

use std::borrow::Cow;

use crate::{AttributeValue, Process, ProcessId, Profiles, attribute, rfc3339};

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
