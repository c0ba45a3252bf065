//! pprof -> Profiles.
//!
//! Two passes over the fields: one for the tables, which stand behind the samples in the file, one for the samples.

use profiler_model::{
    AttributeValue, FrameKind, Function, Label, LabelValue, Line, Location, LocationId, Mapping, Process, Profile,
    Profiles, Sample, StringId, Thread, ThreadId, Tier, ValueType, Values, builder::ProfileBuilder,
};
use rustc_hash::FxHashMap;

use super::{columns, comments::read_comment, key, proto};
use crate::{
    error::Error,
    labels::unescaped,
    texts::Texts,
    wire::{MAX_ENTRIES, MAX_FRAMES, MAX_LABELS, MAX_SAMPLES, Value, check_count, decompressed, fields, message},
};

/// Reads a pprof profile, gzipped or raw, of at most 512 MiB decompressed.
pub fn decode(bytes: &[u8]) -> Result<Profiles, Error> {
    decode_raw(&decompressed(bytes)?)
}

/// Reads a pprof profile that is not compressed.
pub(crate) fn decode_raw(bytes: &[u8]) -> Result<Profiles, Error> {
    let mut decoder = Decoder::default();
    let head = decoder.tables(bytes)?;
    decoder.head(&head)?;
    for field in fields(bytes, "pprof profile") {
        if let (2, Value::Bytes(sample)) = field? {
            check_count(decoder.builder.profile_mut().samples.len(), MAX_SAMPLES, "samples")?;
            decoder.sample(&message(sample, "pprof sample")?)?;
        }
    }
    let mut profile = decoder.builder.finish();
    let described = profile.comments.iter().filter_map(|comment| columns::described(comment)).collect();
    profile.comments.retain(|comment| !comment.starts_with(columns::MEASURE));
    columns::apart(&mut profile, described)?;
    profile.profiles.iter_mut().for_each(collapse_cpu_type);
    Ok(profile)
}

#[derive(Default)]
struct Decoder {
    builder: ProfileBuilder,
    texts: Texts,
    locations: FxHashMap<u64, LocationId>,
    /// Threads by the labels that name them, so that the labels of a million samples are looked at but not copied.
    threads: FxHashMap<Vec<(StringId, i64)>, ThreadId>,
    keys: Keys,
    /// Reused from sample to sample.
    stack: Vec<LocationId>,
}

/// The ids of the label keys that have a meaning.
#[derive(Clone, Copy, Default)]
struct Keys {
    pid: StringId,
    process: StringId,
    process_start: StringId,
    executable: StringId,
    container: StringId,
    tid: StringId,
    thread: StringId,
    cpu: StringId,
    timestamp: StringId,
}

impl Decoder {
    /// Reads all tables; returns the fields of the profile that are none.
    fn tables(&mut self, bytes: &[u8]) -> Result<proto::Profile, Error> {
        let mut head = proto::Profile::default();
        let (mut mappings, mut locations, mut functions) = (Vec::new(), Vec::new(), Vec::new());
        for field in fields(bytes, "pprof profile") {
            match field? {
                (1, Value::Bytes(kind)) => {
                    check_count(head.sample_type.len(), 1024, "sample types")?;
                    head.sample_type.push(message(kind, "pprof value type")?);
                }
                (3, Value::Bytes(mapping)) => mappings.push(mapping),
                (4, Value::Bytes(location)) => locations.push(location),
                (5, Value::Bytes(function)) => functions.push(function),
                (6, Value::Bytes(text)) => {
                    self.texts.push(text, &mut self.builder)?;
                }
                (9, Value::Varint(nanos)) => head.time_nanos = nanos as i64,
                (10, Value::Varint(nanos)) => head.duration_nanos = nanos as i64,
                (11, Value::Bytes(kind)) => head.period_type = Some(message(kind, "pprof period type")?),
                (12, Value::Varint(period)) => head.period = period as i64,
                (14, Value::Varint(name)) => head.default_sample_type = name as i64,
                (13, Value::Varint(comment)) => head.comment.push(comment as i64),
                (13, Value::Bytes(packed)) => {
                    // Decoded as the one field of a profile, since prost has no public way to read a bare packed list.
                    let mut wrapped = Vec::with_capacity(packed.len() + 11);
                    crate::wire::put_bytes(&mut wrapped, 13, packed);
                    head.comment.extend(message::<proto::Profile>(&wrapped, "pprof comments")?.comment);
                }
                _ => {}
            }
            check_count(mappings.len().max(locations.len()).max(functions.len()), MAX_ENTRIES, "table entries")?;
        }
        let mappings = self.mappings(&mappings)?;
        let functions = self.functions(&functions)?;
        for location in locations {
            let location: proto::Location = message(location, "pprof location")?;
            self.location(&location, &mappings, &functions)?;
        }
        Ok(head)
    }

    fn text(&self, what: &'static str, index: i64) -> Result<StringId, Error> {
        self.texts.get(what, index)
    }

    fn owned(&mut self, what: &'static str, index: i64) -> Result<String, Error> {
        let id = self.text(what, index)?;
        self.texts.copy(id, &mut self.builder)
    }

    fn value_type(&mut self, kind: &proto::ValueType) -> Result<ValueType, Error> {
        Ok(ValueType {
            kind: self.owned("the type of a pprof value", kind.r#type)?,
            unit: self.owned("the unit of a pprof value", kind.unit)?,
        })
    }

    fn head(&mut self, head: &proto::Profile) -> Result<(), Error> {
        let kinds: Vec<ValueType> =
            head.sample_type.iter().map(|kind| self.value_type(kind)).collect::<Result<_, _>>()?;
        let default = self.owned("the default sample type of a pprof profile", head.default_sample_type)?;
        let period_type = self.value_type(&head.period_type.unwrap_or_default())?;
        for &comment in &head.comment {
            let comment = self.owned("a pprof comment", comment)?;
            read_comment(&mut self.builder, &comment);
        }
        let profile = self.builder.profile_mut();
        profile.default_sample_type = kinds.iter().position(|kind| !default.is_empty() && kind.kind == default);
        profile.sample_types = kinds;
        profile.period_type = period_type;
        profile.period = head.period;
        profile.start_unix_nanos = unsigned(head.time_nanos);
        profile.duration_nanos = unsigned(head.duration_nanos);
        self.keys = Keys {
            pid: self.builder.string(key::PID),
            process: self.builder.string(key::PROCESS),
            process_start: self.builder.string(key::PROCESS_START),
            executable: self.builder.string(key::EXECUTABLE),
            container: self.builder.string(key::CONTAINER),
            tid: self.builder.string(key::TID),
            thread: self.builder.string(key::THREAD),
            cpu: self.builder.string(key::CPU),
            timestamp: self.builder.string(key::TIMESTAMP),
        };
        Ok(())
    }

    fn mappings(&mut self, mappings: &[&[u8]]) -> Result<FxHashMap<u64, u32>, Error> {
        let mut ids = FxHashMap::default();
        for mapping in mappings {
            let mapping: proto::Mapping = message(mapping, "pprof mapping")?;
            let id = self.builder.mapping(Mapping {
                start: mapping.memory_start,
                end: mapping.memory_limit,
                file_offset: mapping.file_offset,
                file: self.text("the file of a pprof mapping", mapping.filename)?,
                build_id_gnu: self.text("the build id of a pprof mapping", mapping.build_id)?,
                build_id_htlhash: self.text("the htlhash of a pprof mapping", mapping.build_id_htlhash)?,
                build_id_go: self.text("the Go build id of a pprof mapping", mapping.build_id_go)?,
            });
            ids.insert(mapping.id, id);
        }
        Ok(ids)
    }

    fn functions(&mut self, functions: &[&[u8]]) -> Result<FxHashMap<u64, u32>, Error> {
        let mut ids = FxHashMap::default();
        for function in functions {
            let function: proto::Function = message(function, "pprof function")?;
            let id = self.builder.function(Function {
                name: self.text("the name of a pprof function", function.name)?,
                system_name: self.text("the system name of a pprof function", function.system_name)?,
                file: self.text("the file of a pprof function", function.filename)?,
                start_line: narrowed(function.start_line),
            });
            ids.insert(function.id, id);
        }
        Ok(ids)
    }

    fn location(
        &mut self,
        location: &proto::Location,
        mappings: &FxHashMap<u64, u32>,
        functions: &FxHashMap<u64, u32>,
    ) -> Result<(), Error> {
        let mapping = match location.mapping_id {
            0 => None,
            id => Some(*mappings.get(&id).ok_or_else(|| Error::dangling("the mapping of a pprof location", id))?),
        };
        let mut lines = Vec::with_capacity(location.line.len());
        for line in &location.line {
            let function = functions.get(&line.function_id);
            lines.push(Line {
                function: *function.ok_or_else(|| Error::dangling("a line of a pprof location", line.function_id))?,
                line: narrowed(line.line),
                column: narrowed(line.column),
            });
        }
        let kind = match (location.frame_kind.checked_sub(1), location.frame_type) {
            (None, 0) => self.guessed_kind(mapping),
            (None, name) => FrameKind::Other(self.text("the kind of a pprof location", name)?),
            (Some(number), _) => FrameKind::of_number(number).unwrap_or_default(),
        };
        let tier = location.frame_tier.checked_sub(1).and_then(Tier::of_number);
        let model = Location { kind, mapping, address: location.address, lines, guessed: location.guessed, tier };
        let model = self.builder.location(model);
        self.locations.insert(location.id, model);
        Ok(())
    }

    /// The kind of a frame in the file of another producer.
    fn guessed_kind(&mut self, mapping: Option<u32>) -> FrameKind {
        let profile = self.builder.set();
        let mapping = mapping.and_then(|mapping| profile.mappings.get(mapping as usize));
        let file = mapping.map_or("", |mapping| profile.string(mapping.file));
        if file.starts_with("[kernel") || file.starts_with("[guest.kernel") || file.ends_with(".ko") {
            FrameKind::Kernel
        } else {
            FrameKind::Native
        }
    }

    fn sample(&mut self, sample: &proto::Sample) -> Result<(), Error> {
        if sample.location_id.len() > MAX_FRAMES {
            return Err(Error::TooLarge { what: "frames in one stack", limit: MAX_FRAMES });
        }
        self.stack.clear();
        for id in &sample.location_id {
            let location = self.locations.get(id);
            self.stack.push(*location.ok_or_else(|| Error::dangling("a pprof sample's location", *id))?);
        }
        let stack = self.builder.stack(&self.stack);
        let types = self.builder.profile_mut().sample_types.len();
        if sample.value.len() != types {
            let problem = format!("it has {} values where the profile has {types} sample types", sample.value.len());
            return Err(Error::malformed("a pprof sample", problem));
        }
        let values = match sample.value.as_slice() {
            [value] => Values::One(*value),
            values => Values::Many(values.into()),
        };
        let mut model = Sample { stack, values, ..Sample::default() };
        self.labels(&sample.label, &mut model)?;
        self.builder.profile_mut().samples.push(model);
        Ok(())
    }

    /// Sorts labels into what a sample has fields for, its thread, and others.
    fn labels(&mut self, labels: &[proto::Label], sample: &mut Sample) -> Result<(), Error> {
        if labels.len() > MAX_LABELS {
            return Err(Error::TooLarge { what: "labels on one sample", limit: MAX_LABELS });
        }
        let mut identity: Vec<(StringId, i64)> = Vec::new();
        let mut others = Vec::new();
        for label in labels {
            let key = self.text("the key of a pprof label", label.key)?;
            let text = self.text("the text of a pprof label", label.str)?;
            let keys = self.keys;
            let is_text = label.str != 0;
            let names_thread = match is_text {
                true if [keys.process, keys.thread, keys.container, keys.executable].contains(&key) => true,
                true => self.builder.set().string(key).starts_with(key::RESOURCE),
                false if key == keys.pid || key == keys.tid => u32::try_from(label.num).is_ok(),
                false => key == keys.process_start,
            };
            if key == keys.timestamp && !is_text && sample.time_unix_nanos.is_none() {
                sample.time_unix_nanos = Some(unsigned(label.num));
            } else if key == keys.cpu && sample.cpu.is_none() && self.cpu(label, text).is_some() {
                sample.cpu = self.cpu(label, text);
            } else if names_thread && identity.iter().all(|&(known, _)| known != key) {
                identity.push((key, if is_text { i64::from(text) } else { label.num }));
            } else {
                others.push(self.other(label, key, text)?);
            }
        }
        if !identity.is_empty() {
            sample.thread = Some(match self.threads.get(&identity) {
                Some(&thread) => thread,
                None => {
                    let thread = self.thread(&identity);
                    self.threads.insert(identity, thread);
                    thread
                }
            });
        }
        if !others.is_empty() {
            sample.labels = Some(Box::new(others));
        }
        Ok(())
    }

    fn cpu(&self, label: &proto::Label, text: StringId) -> Option<u32> {
        match label.str {
            0 => u32::try_from(label.num).ok(),
            _ => Some(self.builder.set().string(text)).filter(|text| text.len() <= 10)?.parse().ok(),
        }
    }

    fn other(&mut self, label: &proto::Label, key: StringId, text: StringId) -> Result<Label, Error> {
        let key = self.texts.derived(key, &mut self.builder, |key| unescaped(key).to_owned());
        let value = if label.str != 0 {
            LabelValue::Text(text)
        } else {
            LabelValue::Number(label.num, self.text("the unit of a pprof label", label.num_unit)?)
        };
        Ok(Label { key, value })
    }

    fn thread(&mut self, identity: &[(StringId, i64)]) -> ThreadId {
        let (mut process, mut tid, mut name) = (Process::default(), 0, 0);
        let keys = &self.keys;
        for &(key, value) in identity {
            // Texts were put in as string ids, numbers after a check of their range.
            let number = u32::try_from(value).unwrap_or(0);
            if key == keys.pid {
                process.pid = Some(number);
            } else if key == keys.tid {
                tid = number;
            } else if key == keys.process_start {
                process.start_unix_nanos = unsigned(value);
            } else if key == keys.process {
                process.name = number;
            } else if key == keys.thread {
                name = number;
            } else if key == keys.container {
                process.container_id = number;
            } else if key == keys.executable {
                process.executable = number;
            } else {
                let attribute = self
                    .texts
                    .derived(key, &mut self.builder, |key| key.strip_prefix(key::RESOURCE).unwrap_or(key).to_owned());
                process.attributes.push((attribute, AttributeValue::Text(number)));
            }
        }
        let process = self.builder.process(process);
        self.builder.thread(Thread { process, tid, name })
    }
}

/// Drops the second of pprof's two CPU sample types where it says nothing that count and period do not.
fn collapse_cpu_type(profile: &mut Profile) {
    let is = |kind: &ValueType, name: &str, unit: &str| kind.kind == name && kind.unit == unit;
    let computed = match profile.sample_types.as_slice() {
        [first, second] => {
            is(first, "samples", "count")
                && is(second, "cpu", "nanoseconds")
                && is(&profile.period_type, "cpu", "nanoseconds")
                && profile.period > 0
                && profile.samples.iter().all(|sample| match sample.values.as_slice() {
                    [count, nanos] => count.saturating_mul(profile.period) == *nanos,
                    _ => false,
                })
        }
        _ => false,
    };
    if computed {
        profile.sample_types.truncate(1);
        profile.default_sample_type = None;
        for sample in &mut profile.samples {
            sample.values = Values::One(sample.values.as_slice().first().copied().unwrap_or(0));
        }
    }
}

/// A time or duration, which pprof holds signed; negative ones mean nothing.
fn unsigned(nanos: i64) -> u64 {
    u64::try_from(nanos).unwrap_or(0)
}

/// A line or column; out of range is unknown.
fn narrowed(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
