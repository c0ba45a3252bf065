//! OTLP -> Profiles.
//!
//! The dictionary stands behind the profiles in the bytes, so it is read first, in a pass of its own. Attributes that the model
//! has no field for become labels of samples, or attributes of processes; values that are no text and no integer become text.

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value},
    profiles::v1development as proto,
    resource::v1::Resource,
};
use profiler_model::{
    AttributeValue, Label, LabelValue, LinkId, Origin, Process, ProcessId, Profile, Profiles, Sample, StackId,
    StringId, Thread, ThreadId, ValueType, Values, attribute, builder::ProfileBuilder, rfc3339,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    dictionary::Dictionary,
    json,
    resource::{fallback_service, shown_by_default},
    schema::REQUEST,
    scope::Losses,
    shared::Shared,
};
use crate::{
    error::Error,
    texts,
    wire::{MAX_LABELS, MAX_SAMPLES, Value, check_count, decompressed, fields, message},
};

/// Kinds of profiles (of other type, source, period or time) that a request may have.
const MAX_PROFILES: usize = 1 << 16;
/// Sample types that a request may have.
const MAX_TYPES: usize = 64;

/// Reads an `ExportProfilesServiceRequest` (or `ProfilesData`, which is the same), raw or gzipped, of at most 512 MiB.
pub fn decode(bytes: &[u8]) -> Result<Profiles, Error> {
    decode_raw(&decompressed(bytes)?)
}

/// Reads a request that is not compressed.
pub(crate) fn decode_raw(bytes: &[u8]) -> Result<Profiles, Error> {
    let mut decoder = Decoder::new();
    decoder.request(bytes)?;
    Ok(decoder.finish())
}

/// Reads requests in JSON, one or several of one stream, as [`decode`] does.
pub fn decode_json(text: &[u8]) -> Result<Profiles, Error> {
    decode_json_raw(&decompressed(text)?)
}

/// Reads requests in JSON that are not compressed.
pub(crate) fn decode_json_raw(text: &[u8]) -> Result<Profiles, Error> {
    let mut decoder = Decoder::new();
    json::read(text, |request| decoder.request(request))?;
    Ok(decoder.finish())
}

/// The messages at the end of a path of field numbers; iterative, so that depth costs nothing.
fn messages<'a>(bytes: &'a [u8], path: &'static [u64]) -> impl Iterator<Item = Result<&'a [u8], Error>> {
    let mut levels = vec![fields(bytes, "OTLP request")];
    std::iter::from_fn(move || {
        loop {
            let number = *path.get(levels.len().checked_sub(1)?)?;
            match levels.last_mut()?.next() {
                None => {
                    levels.pop();
                }
                Some(Err(error)) => {
                    levels.clear();
                    return Some(Err(error));
                }
                Some(Ok((found, Value::Bytes(inner)))) if found == number => {
                    if levels.len() == path.len() {
                        return Some(Ok(inner));
                    }
                    levels.push(fields(inner, "OTLP profiles"));
                }
                Some(Ok(_)) => {}
            }
        }
    })
}

/// What the attributes of a sample say.
#[derive(Clone, Default)]
struct Context {
    thread: Option<ThreadId>,
    cpu: Option<u32>,
    labels: Vec<Label>,
}

/// Type and unit.
type TypeIds = (StringId, StringId);

/// What makes the samples of several messages one profile.
#[derive(PartialEq, Eq, Hash)]
struct Head {
    sample_type: TypeIds,
    period_type: TypeIds,
    period: i64,
    source: StringId,
    start: u64,
    duration: u64,
}

/// What all samples of one message have.
#[derive(Clone, Copy)]
struct Of {
    profile: usize,
    stack: StackId,
    context: usize,
    link: LinkId,
}

#[derive(Default)]
pub(super) struct Decoder {
    pub(super) builder: ProfileBuilder,
    pub(super) dictionary: Dictionary,
    /// The profiles so far.
    profiles: FxHashMap<Head, usize>,
    /// Type, source and type of the period of all that the profiles count.
    types: FxHashSet<(TypeIds, StringId, TypeIds)>,
    /// What a scope says is to be shown first.
    pub(super) default_sample_type: Option<String>,
    /// Samples of all profiles.
    samples: usize,
    /// Attributes of samples by their indices, for the current resource.
    contexts: Vec<Context>,
    context_ids: FxHashMap<Vec<i32>, usize>,
    pub(super) losses: Losses,
    /// What resources say of the machine.
    shared: Shared,
    /// All labels so far.
    labels: usize,
}

impl Decoder {
    fn new() -> Self {
        Self { builder: ProfileBuilder::new(), ..Self::default() }
    }

    /// Reads one more request. Of several, each has its own dictionary, and losses of its own.
    fn request(&mut self, bytes: &[u8]) -> Result<(), Error> {
        REQUEST.check(bytes)?;
        self.dictionary = Dictionary::read(bytes, &mut self.builder, std::mem::take(&mut self.dictionary))?;
        self.losses.next();
        for resource in messages(bytes, &[1]) {
            self.resource(resource?)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Profiles {
        let default = self.default_sample_type.take();
        let mut profile = self.builder.finish();
        self.shared.finish(&mut profile);
        let position = default.and_then(|name| shown_by_default(&profile, &name));
        if let Some(part) = position.and_then(|position| profile.profiles.get_mut(position)) {
            part.default_sample_type = Some(0);
        }
        profile
    }

    fn value_type(&self, kind: Option<proto::ValueType>) -> Result<TypeIds, Error> {
        let kind = kind.unwrap_or_default();
        let name = self.dictionary.string("a value type", kind.type_strindex)?;
        Ok((name, self.dictionary.string("a value type's unit", kind.unit_strindex)?))
    }

    fn owned(&mut self, (kind, unit): TypeIds) -> Result<ValueType, Error> {
        Ok(ValueType {
            kind: self.dictionary.copy(kind, &mut self.builder)?,
            unit: self.dictionary.copy(unit, &mut self.builder)?,
        })
    }

    /// Reads all of a Profile message but its samples.
    fn head(&mut self, bytes: &[u8]) -> Result<proto::Profile, Error> {
        let mut head = proto::Profile::default();
        for field in fields(bytes, "OTLP profile") {
            match field? {
                (1, Value::Bytes(kind)) => head.sample_type = Some(message(kind, "OTLP sample type")?),
                (3, Value::Fixed64(time)) => head.time_unix_nano = time,
                (4, Value::Varint(duration)) => head.duration_nano = duration,
                (5, Value::Bytes(kind)) => head.period_type = Some(message(kind, "OTLP period type")?),
                (6, Value::Varint(period)) => head.period = period as i64,
                (11, Value::Varint(index)) => head.attribute_indices.push(index as i32),
                (11, Value::Bytes(packed)) => {
                    let mut wrapped = Vec::with_capacity(packed.len() + 11);
                    crate::wire::put_bytes(&mut wrapped, 11, packed);
                    let profile: proto::Profile = message(&wrapped, "attributes of an OTLP profile")?;
                    head.attribute_indices.extend(profile.attribute_indices);
                }
                _ => {}
            }
        }
        Ok(head)
    }

    /// The profile that a message with this head adds to.
    fn profile_of(&mut self, head: &proto::Profile) -> Result<usize, Error> {
        let mut source = 0;
        for &index in &head.attribute_indices {
            let found = self.dictionary.attribute("a profile", index)?;
            if let (attribute::SOURCE, Some(LabelValue::Text(text))) =
                (self.builder.set().string(found.key), found.values.first())
            {
                source = *text;
            }
            self.comments(index)?;
        }
        let key = Head {
            sample_type: self.value_type(head.sample_type)?,
            period_type: self.value_type(head.period_type)?,
            period: head.period,
            source,
            start: head.time_unix_nano,
            duration: head.duration_nano,
        };
        if let Some(&known) = self.profiles.get(&key) {
            return Ok(known);
        }
        check_count(self.profiles.len(), MAX_PROFILES, "profiles")?;
        if self.types.insert((key.sample_type, key.source, key.period_type)) {
            check_count(self.types.len() - 1, MAX_TYPES, "sample types")?;
        }
        let profile = Profile {
            start_unix_nanos: key.start,
            duration_nanos: key.duration,
            source: self.dictionary.copy(source, &mut self.builder)?,
            sample_types: vec![self.owned(key.sample_type)?],
            default_sample_type: None,
            period_type: self.owned(key.period_type)?,
            period: key.period,
            samples: Vec::new(),
        };
        let index = self.builder.begin(profile);
        self.profiles.insert(key, index);
        Ok(index)
    }

    /// Takes over the comments of a pprof file if attribute `index` of a profile has them and no earlier one did.
    fn comments(&mut self, index: i32) -> Result<(), Error> {
        let found = self.dictionary.attribute("a profile", index)?;
        let profile = self.builder.set_mut();
        if profile.string(found.key) != attribute::COMMENT || !profile.comments.is_empty() {
            return Ok(());
        }
        let texts = found.values.iter().filter_map(|value| match value {
            LabelValue::Text(text) => Some(*text),
            LabelValue::Number(..) => None,
        });
        for text in texts.collect::<Vec<_>>() {
            let text = self.dictionary.copy(text, &mut self.builder)?;
            self.builder.set_mut().comments.push(text);
        }
        Ok(())
    }

    fn resource(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut resource = Resource::default();
        for field in fields(bytes, "OTLP resource profiles") {
            if let (1, Value::Bytes(found)) = field? {
                resource = message(found, "OTLP resource")?;
            }
        }
        let process = self.process(&resource.attributes)?;
        self.contexts.clear();
        self.context_ids.clear();
        for scope in messages(bytes, &[2]) {
            let scope = scope?;
            for found in messages(scope, &[1]) {
                self.scope(&message(found?, "OTLP scope")?)?;
            }
            for profile in messages(scope, &[2]) {
                self.profile(profile?, process)?;
            }
        }
        Ok(())
    }

    /// Key and value of an attribute as text, and the value if it is a number.
    pub(super) fn pair(&mut self, pair: &KeyValue) -> Result<(StringId, StringId, Option<i64>), Error> {
        let key = match pair.key_strindex {
            0 => texts::intern(pair.key.as_bytes(), &mut self.builder),
            index => self.dictionary.string("an attribute's key", index)?,
        };
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        let integer = match value {
            Some(any_value::Value::IntValue(number)) => Some(*number),
            _ => None,
        };
        let text = match value {
            Some(value) => self.dictionary.text(value, &mut self.builder)?,
            None => 0,
        };
        Ok((key, text, integer))
    }

    /// The value of an attribute that the model has no field for: what is no number and no list of texts is text.
    fn value(&mut self, pair: &KeyValue, text: StringId) -> Result<AttributeValue, Error> {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        if let Some(any_value::Value::IntValue(number)) = value {
            return Ok(AttributeValue::Integer(*number));
        }
        let Some(any_value::Value::ArrayValue(list)) = value else { return Ok(AttributeValue::Text(text)) };
        let mut texts = Vec::with_capacity(list.values.len());
        for value in &list.values {
            match &value.value {
                Some(value @ (any_value::Value::StringValue(_) | any_value::Value::StringValueStrindex(_))) => {
                    texts.push(self.dictionary.text(value, &mut self.builder)?);
                }
                _ => return Ok(AttributeValue::Text(text)),
            }
        }
        Ok(AttributeValue::Texts(texts))
    }

    /// The process that a resource describes, if it describes one; what it says of the host goes to the profile.
    fn process(&mut self, attributes: &[KeyValue]) -> Result<Option<ProcessId>, Error> {
        let mut process = Process::default();
        let mut found = false;
        for pair in attributes {
            let (key, text, integer) = self.pair(pair)?;
            if self.of_origin(key, text)? {
                continue;
            }
            let profile = self.builder.set();
            let (name, value) = (profile.string(key), profile.string(text));
            found |= name.starts_with("process.") || name == attribute::CONTAINER_ID || name == attribute::SERVICE_NAME;
            match name {
                attribute::PROCESS_PID => process.pid = integer.and_then(|pid| pid.try_into().ok()),
                attribute::PROCESS_CREATION_TIME => process.start_unix_nanos = rfc3339::parse(value).unwrap_or(0),
                attribute::PROCESS_EXECUTABLE_NAME => process.name = text,
                attribute::PROCESS_EXECUTABLE_PATH => process.executable = text,
                attribute::CONTAINER_ID => process.container_id = text,
                _ => process.attributes.push((key, self.value(pair, text)?)),
            }
        }
        self.shared.add(self.builder.set(), &process.attributes);
        if !found {
            // Attributes of samples that belong to no process have no place in the model.
            return Ok(None);
        }
        let profile = self.builder.set_mut();
        let fallback = fallback_service(profile.string(process.executable), profile.string(process.name));
        process.attributes.retain(|(key, value)| {
            profile.string(*key) != attribute::SERVICE_NAME || profile.attribute_text(value) != fallback
        });
        Ok(Some(self.builder.process(process)))
    }

    /// Whether the attribute `key` is one that the origin has a field for, and says what that says.
    fn of_origin(&mut self, key: StringId, text: StringId) -> Result<bool, Error> {
        match self.builder.set().string(key) {
            attribute::HOST_NAME => self.host(|origin| &mut origin.host_name, text),
            attribute::HOST_ARCH => self.host(|origin| &mut origin.arch, text),
            attribute::OS_BUILD_ID => self.host(|origin| &mut origin.kernel_release, text),
            _ => Ok(false),
        }
    }

    /// Puts `text` into a field of the origin, unless that has a text; says whether it is what the field says now.
    pub(super) fn host(&mut self, field: impl Fn(&mut Origin) -> &mut String, text: StringId) -> Result<bool, Error> {
        if field(&mut self.builder.set_mut().origin).is_empty() {
            let text = self.dictionary.copy(text, &mut self.builder)?;
            *field(&mut self.builder.set_mut().origin) = text;
            return Ok(true);
        }
        let known = std::mem::take(field(&mut self.builder.set_mut().origin));
        let same = known == self.builder.set().string(text);
        *field(&mut self.builder.set_mut().origin) = known;
        Ok(same)
    }

    fn profile(&mut self, bytes: &[u8], process: Option<ProcessId>) -> Result<(), Error> {
        let head = self.head(bytes)?;
        let profile = self.profile_of(&head)?;
        for field in fields(bytes, "OTLP profile") {
            if let (2, Value::Bytes(sample)) = field? {
                self.sample(&message(sample, "OTLP sample")?, profile, process)?;
            }
        }
        Ok(())
    }

    fn sample(&mut self, sample: &proto::Sample, profile: usize, process: Option<ProcessId>) -> Result<(), Error> {
        let stack = self.dictionary.stack(sample.stack_index)?;
        let context = self.context(&sample.attribute_indices, process)?;
        let of = Of { profile, stack, context, link: self.dictionary.link(sample.link_index)? };
        let (values, times) = (&sample.values, &sample.timestamps_unix_nano);
        match (values.len(), times.len()) {
            (0, 0) => Err(Error::malformed("an OTLP sample", "it has neither a value nor a time")),
            (0, _) => times.iter().try_for_each(|&time| self.push(of, 1, Some(time))),
            (_, 0) => {
                let sum = values.iter().fold(0, |sum: i64, value| sum.saturating_add(*value));
                self.push(of, sum, None)
            }
            (one, other) if one == other => {
                let mut pairs = values.iter().zip(times);
                pairs.try_for_each(|(&value, &time)| self.push(of, value, Some(time)))
            }
            (values, times) => {
                let problem = format!("it has {values} values and {times} times, which should be as many");
                Err(Error::malformed("an OTLP sample", problem))
            }
        }
    }

    fn push(&mut self, of: Of, value: i64, time: Option<u64>) -> Result<(), Error> {
        check_count(self.samples, MAX_SAMPLES, "samples")?;
        self.samples += 1;
        let Context { thread, cpu, labels } = self.contexts.get(of.context).cloned().unwrap_or_default();
        self.labels += labels.len();
        check_count(self.labels, MAX_SAMPLES, "labels")?;
        let labels = (!labels.is_empty()).then(|| Box::new(labels));
        if let Some(profile) = self.builder.set_mut().profiles.get_mut(of.profile) {
            profile.samples.push(Sample {
                stack: of.stack,
                thread,
                cpu,
                time_unix_nanos: time,
                link: of.link,
                values: Values::One(value),
                labels,
            });
        }
        Ok(())
    }

    /// The index of what `indices` say of a sample of `process`.
    fn context(&mut self, indices: &[i32], process: Option<ProcessId>) -> Result<usize, Error> {
        if let Some(&known) = self.context_ids.get(indices) {
            return Ok(known);
        }
        if indices.len() > MAX_LABELS {
            return Err(Error::TooLarge { what: "attributes on one sample", limit: MAX_LABELS });
        }
        // Before 1.10 the values of samples stood where their attributes are now: several samples of one CPU tick look like this.
        if indices.iter().enumerate().any(|(nth, index)| indices.iter().take(nth).any(|other| other == index)) {
            return Err(Error::Version { what: "a list of a Sample's attributes, which has one twice,".to_owned() });
        }
        let (mut tid, mut name, mut cpu) = (None, None, None);
        let mut labels = Vec::new();
        for &index in indices {
            let found = self.dictionary.attribute("a sample", index)?;
            let number = match found.values.first() {
                Some(LabelValue::Number(number, _)) => u32::try_from(*number).ok(),
                _ => None,
            };
            match (self.builder.set().string(found.key), found.values.first()) {
                (attribute::THREAD_ID, _) if number.is_some() => tid = number,
                (attribute::CPU, _) if number.is_some() => cpu = number,
                (attribute::THREAD_NAME, Some(LabelValue::Text(text))) => name = Some(*text),
                _ => {
                    if labels.len() + found.values.len() > MAX_LABELS {
                        return Err(Error::TooLarge { what: "labels on one sample", limit: MAX_LABELS });
                    }
                    let key = found.label;
                    labels.extend(found.values.iter().map(|value| Label { key, value: value.clone() }));
                }
            }
        }
        let process = match process {
            None if tid.is_none() && name.is_none() => None,
            None => Some(self.builder.process(Process::default())),
            known => known,
        };
        let thread = process
            .map(|process| self.builder.thread(Thread { process, tid: tid.unwrap_or(0), name: name.unwrap_or(0) }));
        self.contexts.push(Context { thread, cpu, labels });
        self.context_ids.insert(indices.to_vec(), self.contexts.len() - 1);
        Ok(self.contexts.len() - 1)
    }
}
