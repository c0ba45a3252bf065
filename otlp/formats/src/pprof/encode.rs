//! Profiles -> pprof.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use profiler_model::{FrameKind, Label, LabelValue, Location, Mapping, Profiles, Sample, StringId, Thread, ValueType};
use rustc_hash::FxHashMap;

use super::{columns::Columns, comments::comments, key, proto};
use crate::{
    labels::escaped,
    wire::{put_bytes, put_length, put_message, put_varint},
};

/// Bytes gathered before they go to the compressor.
const CHUNK: usize = 64 << 10;

/// Writes `profile` to `out` as gzipped pprof. Errors are those of `out`.
///
/// Samples without time that agree in stack, thread, CPU and labels become one.
pub fn encode(profile: &Profiles, out: impl Write) -> io::Result<()> {
    let mut encoder = Encoder {
        profile,
        strings: Strings::new(profile.strings.len()),
        out: GzEncoder::new(out, Compression::new(4)),
        buffer: Vec::with_capacity(2 * CHUNK),
        columns: Columns::of(profile),
        used_stacks: vec![false; profile.stacks.len()],
    };
    encoder.head()?;
    encoder.samples()?;
    encoder.tables()?;
    encoder.strings_table()?;
    encoder.flush()?;
    encoder.out.finish()?.flush()
}

/// The string table under construction.
struct Strings {
    table: Vec<String>,
    ids: FxHashMap<String, i64>,
    /// Ids of the model's strings; 0 if not yet known.
    of_model: Vec<i64>,
}

impl Strings {
    fn new(model: usize) -> Self {
        Self { table: vec![String::new()], ids: FxHashMap::default(), of_model: vec![0; model] }
    }

    fn text(&mut self, text: &str) -> i64 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        let id = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.ids.insert(text.to_owned(), id);
        id
    }

    fn model(&mut self, profile: &Profiles, id: StringId) -> i64 {
        if let Some(&known) = self.of_model.get(id as usize).filter(|&&known| known != 0) {
            return known;
        }
        let text = self.text(profile.string(id));
        if let Some(slot) = self.of_model.get_mut(id as usize) {
            *slot = text;
        }
        text
    }
}

struct Encoder<'a, W: Write> {
    profile: &'a Profiles,
    strings: Strings,
    out: GzEncoder<W>,
    buffer: Vec<u8>,
    columns: Columns,
    used_stacks: Vec<bool>,
}

impl<W: Write> Encoder<'_, W> {
    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn put(&mut self, number: u32, message: &impl prost::Message) -> io::Result<()> {
        put_message(&mut self.buffer, number, message);
        self.flush_if_full()
    }

    fn value_type(&mut self, kind: &ValueType) -> proto::ValueType {
        proto::ValueType { r#type: self.strings.text(&kind.kind), unit: self.strings.text(&kind.unit) }
    }

    fn head(&mut self) -> io::Result<()> {
        let profile = self.profile;
        let (start, end) = profile.window();
        let types = self.columns.types.clone();
        let head = proto::Profile {
            sample_type: types.iter().map(|kind| self.value_type(kind)).collect(),
            time_nanos: clamped(start),
            duration_nanos: clamped(end.saturating_sub(start)),
            period_type: Some(self.value_type(&self.columns.period_type.clone())),
            period: self.columns.period,
            default_sample_type: self.columns.default.clone().map_or(0, |name| self.strings.text(&name)),
            comment: comments(profile)
                .iter()
                .chain(&self.columns.comment(profile))
                .map(|comment| self.strings.text(comment))
                .collect(),
            ..proto::Profile::default()
        };
        prost::Message::encode_raw(&head, &mut self.buffer);
        self.flush_if_full()
    }

    fn samples(&mut self) -> io::Result<()> {
        let profile = self.profile;
        let mut threads: Vec<Option<Vec<u8>>> = vec![None; profile.threads.len()];
        let mut body = Vec::new();
        for (sample, values) in merged(profile, &self.columns) {
            self.sample(sample, &values, &mut threads, &mut body)?;
        }
        Ok(())
    }

    fn sample(
        &mut self,
        sample: &Sample,
        values: &[i64],
        threads: &mut [Option<Vec<u8>>],
        body: &mut Vec<u8>,
    ) -> io::Result<()> {
        body.clear();
        let profile = self.profile;
        if let Some(used) = self.used_stacks.get_mut(sample.stack as usize) {
            *used = true;
        }
        let ids = profile.stack(sample.stack).iter().map(|&location| u64::from(location) + 1);
        put_packed(body, 1, ids.filter(|&id| id <= profile.locations.len() as u64));
        put_packed(body, 2, values.iter().map(|&value| value as u64));

        if let Some(thread) = sample.thread.and_then(|id| profile.threads.get(id as usize)) {
            let labels = sample.thread.and_then(|id| threads.get_mut(id as usize));
            match labels {
                Some(Some(labels)) => body.extend_from_slice(labels),
                Some(slot) => {
                    let labels = thread_labels(profile, thread, &mut self.strings);
                    body.extend_from_slice(&labels);
                    *slot = Some(labels);
                }
                None => {}
            }
        }
        if let Some(cpu) = sample.cpu {
            let (key, str) = (self.strings.text(key::CPU), self.strings.text(&cpu.to_string()));
            put_message(body, 3, &proto::Label { key, str, ..Default::default() });
        }
        if let Some(time) = sample.time_unix_nanos {
            put_message(body, 3, &nanos_label(&mut self.strings, key::TIMESTAMP, time));
        }
        if let Some(link) = profile.links.get(sample.link as usize).filter(|_| sample.link != 0) {
            for (key, id) in [(key::TRACE, &link.trace_id[..]), (key::SPAN, &link.span_id[..])] {
                put_message(body, 3, &text_label(&mut self.strings, key, &hex(id)));
            }
        }
        for label in sample.labels.iter().flat_map(|labels| labels.iter()) {
            let label = user_label(profile, label, &mut self.strings);
            put_message(body, 3, &label);
        }
        put_bytes(&mut self.buffer, 2, body);
        self.flush_if_full()
    }

    /// Mappings, locations and functions that a written sample refers to. An id is one more than the model's index.
    fn tables(&mut self) -> io::Result<()> {
        let profile = self.profile;
        let mut used_locations = vec![false; profile.locations.len()];
        for (stack, _) in profile.stacks.iter().zip(&self.used_stacks).filter(|(_, used)| **used) {
            for &location in stack {
                if let Some(used) = used_locations.get_mut(location as usize) {
                    *used = true;
                }
            }
        }
        let mut used_functions = vec![false; profile.functions.len()];
        let mut mappings = vec![MappingUse::default(); profile.mappings.len()];
        for (index, location) in profile.locations.iter().enumerate() {
            if used_locations.get(index) == Some(&true) {
                self.location(index as u64 + 1, location, &mut used_functions, &mut mappings)?;
            }
        }
        for index in self.mapping_order(&mappings) {
            if let (Some(mapping), Some(usage)) = (profile.mappings.get(index), mappings.get(index)) {
                let mapping = self.mapping(index as u64 + 1, mapping, usage);
                self.put(3, &mapping)?;
            }
        }
        for (index, function) in profile.functions.iter().enumerate() {
            if used_functions.get(index) == Some(&true) {
                let function = proto::Function {
                    id: index as u64 + 1,
                    name: self.strings.model(profile, function.name),
                    system_name: self.strings.model(profile, function.system_name),
                    filename: self.strings.model(profile, function.file),
                    start_line: i64::from(function.start_line),
                };
                self.put(5, &function)?;
            }
        }
        Ok(())
    }

    fn location(
        &mut self,
        id: u64,
        location: &Location,
        used_functions: &mut [bool],
        mappings: &mut [MappingUse],
    ) -> io::Result<()> {
        let profile = self.profile;
        let mut usage = MappingUse { used: true, inlined: location.lines.len() > 1, ..MappingUse::default() };
        let mut lines = Vec::with_capacity(location.lines.len());
        for line in &location.lines {
            let Some(used) = used_functions.get_mut(line.function as usize) else { continue };
            *used = true;
            usage.functions = true;
            usage.files |= profile.function(line.function).is_some_and(|function| function.file != 0);
            usage.lines |= line.line != 0;
            lines.push(proto::Line {
                function_id: u64::from(line.function) + 1,
                line: i64::from(line.line),
                column: i64::from(line.column),
            });
        }
        let (frame_kind, frame_type) = match location.kind {
            FrameKind::Other(name) => (0, self.strings.model(profile, name)),
            known => (known.number() + 1, 0),
        };
        let mapping = location.mapping.and_then(|mapping| mappings.get_mut(mapping as usize));
        let message = proto::Location {
            id,
            mapping_id: mapping.as_ref().and(location.mapping).map_or(0, |mapping| u64::from(mapping) + 1),
            address: location.address,
            line: lines,
            is_folded: false,
            frame_kind,
            frame_type,
            guessed: location.guessed,
            frame_tier: location.tier.map_or(0, |tier| tier.number() + 1),
        };
        if let Some(mapping) = mapping {
            mapping.merge(&usage);
        }
        self.put(4, &message)
    }

    /// Indices of the used mappings. pprof takes the first for the main program: the executable that samples came from, if
    /// they came from one process; else nothing can be right, and a program is still better than a library or the kernel.
    fn mapping_order(&self, mappings: &[MappingUse]) -> Vec<usize> {
        let profile = self.profile;
        let mut order: Vec<usize> =
            mappings.iter().enumerate().filter(|(_, usage)| usage.used).map(|(index, _)| index).collect();
        let mut weights: FxHashMap<&str, u64> = FxHashMap::default();
        for (_, sample) in profile.samples() {
            if let Some(process) = profile.process_of(sample).and_then(|id| profile.process(id)) {
                *weights.entry(profile.string(process.executable)).or_default() += 1;
            }
        }
        weights.remove("");
        let file = |index: &usize| profile.mappings.get(*index).map_or("", |mapping| profile.string(mapping.file));
        let main = order
            .iter()
            .enumerate()
            .filter_map(|(position, index)| Some((weights.get(file(index))?, std::cmp::Reverse(position))))
            .max();
        if let Some((_, std::cmp::Reverse(position))) = main {
            let main = order.remove(position);
            order.insert(0, main);
        }
        order
    }

    fn mapping(&mut self, id: u64, mapping: &Mapping, usage: &MappingUse) -> proto::Mapping {
        let profile = self.profile;
        proto::Mapping {
            id,
            memory_start: mapping.start,
            memory_limit: mapping.end,
            file_offset: mapping.file_offset,
            filename: self.strings.model(profile, mapping.file),
            build_id: self.strings.model(profile, mapping.build_id_gnu),
            has_functions: usage.functions,
            has_filenames: usage.files,
            has_line_numbers: usage.lines,
            has_inline_frames: usage.inlined,
            build_id_htlhash: self.strings.model(profile, mapping.build_id_htlhash),
            build_id_go: self.strings.model(profile, mapping.build_id_go),
        }
    }

    fn strings_table(&mut self) -> io::Result<()> {
        for text in std::mem::take(&mut self.strings.table) {
            put_bytes(&mut self.buffer, 6, text.as_bytes());
            self.flush_if_full()?;
        }
        Ok(())
    }
}

/// What the used locations of a mapping have.
#[derive(Clone, Default)]
struct MappingUse {
    used: bool,
    functions: bool,
    files: bool,
    lines: bool,
    inlined: bool,
}

impl MappingUse {
    fn merge(&mut self, other: &Self) {
        self.used |= other.used;
        self.functions |= other.functions;
        self.files |= other.files;
        self.lines |= other.lines;
        self.inlined |= other.inlined;
    }
}

/// All samples as rows of `columns`, equal ones without time added up, in order of first appearance. Samples of several profiles
/// that agree in all, time included, are one row, each in its own columns.
fn merged<'a>(profile: &'a Profiles, columns: &Columns) -> Vec<(&'a Sample, Vec<i64>)> {
    let mut merged: Vec<(&Sample, Vec<i64>)> = Vec::new();
    let mut ids: FxHashMap<_, (usize, usize)> = FxHashMap::default();
    let alone = profile.profiles.len() == 1;
    for (position, part) in profile.profiles.iter().enumerate() {
        for sample in &part.samples {
            let identity = (
                sample.stack,
                sample.thread,
                sample.cpu,
                sample.link,
                sample.labels.as_deref(),
                sample.time_unix_nanos,
            );
            let is_timed = sample.time_unix_nanos.is_some();
            if is_timed && alone {
                merged.push((sample, columns.values(position, sample)));
                continue;
            }
            // A sample with a time is never added to another of its own profile.
            let (id, last) = *ids.entry(identity).or_insert((merged.len(), usize::MAX));
            match merged.get_mut(id).filter(|_| !is_timed || last != position) {
                Some((_, values)) => {
                    for (sum, value) in values.iter_mut().zip(columns.values(position, sample)) {
                        *sum = sum.saturating_add(value);
                    }
                    ids.insert(identity, (id, position));
                }
                None => {
                    ids.insert(identity, (merged.len(), position));
                    merged.push((sample, columns.values(position, sample)));
                }
            }
        }
    }
    merged
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The encoded labels that all samples of `thread` have.
fn thread_labels(profile: &Profiles, thread: &Thread, strings: &mut Strings) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut put = |label: proto::Label| {
        if label.str != 0 || label.num != 0 {
            put_message(&mut labels, 3, &label);
        }
    };
    let process = profile.process(thread.process).cloned().unwrap_or_default();
    // A pid is written even if it is 0: it tells a sample of the idle process from one that says nothing.
    let pid = process.pid.map(|pid| number_label(strings, key::PID, pid));
    put(text_label(strings, key::PROCESS, profile.string(process.name)));
    put(number_label(strings, key::TID, thread.tid));
    put(text_label(strings, key::THREAD, profile.string(thread.name)));
    put(text_label(strings, key::CONTAINER, profile.string(process.container_id)));
    put(text_label(strings, key::EXECUTABLE, profile.string(process.executable)));
    if process.start_unix_nanos != 0 {
        put(nanos_label(strings, key::PROCESS_START, process.start_unix_nanos));
    }
    for (name, value) in &process.attributes {
        let name = format!("{}{}", key::RESOURCE, profile.string(*name));
        put(text_label(strings, &name, &profile.attribute_text(value)));
    }
    if let Some(pid) = pid {
        put_message(&mut labels, 3, &pid);
    }
    labels
}

fn text_label(strings: &mut Strings, key: &str, text: &str) -> proto::Label {
    proto::Label { key: strings.text(key), str: strings.text(text), ..Default::default() }
}

fn number_label(strings: &mut Strings, key: &str, number: u32) -> proto::Label {
    proto::Label { key: strings.text(key), num: i64::from(number), ..Default::default() }
}

fn nanos_label(strings: &mut Strings, key: &str, nanos: u64) -> proto::Label {
    let num_unit = strings.text("nanoseconds");
    proto::Label { key: strings.text(key), num: clamped(nanos), num_unit, ..Default::default() }
}

fn user_label(profile: &Profiles, label: &Label, strings: &mut Strings) -> proto::Label {
    let text = profile.string(label.key);
    // "resource.x" would come back as an attribute of the process.
    let key = if text.starts_with(key::RESOURCE) {
        strings.text(&escaped(text, &[text]))
    } else {
        strings.text(&escaped(text, key::RESERVED))
    };
    match label.value {
        LabelValue::Text(text) => proto::Label { key, str: strings.model(profile, text), ..Default::default() },
        LabelValue::Number(num, unit) => {
            proto::Label { key, num, num_unit: strings.model(profile, unit), ..Default::default() }
        }
    }
}

/// Appends a packed list of variable-length integers as field `number`.
fn put_packed(buffer: &mut Vec<u8>, number: u32, values: impl Iterator<Item = u64> + Clone) {
    let length: usize = values.clone().map(varint_length).sum();
    if length > 0 {
        put_length(buffer, number, length);
        values.for_each(|value| put_varint(buffer, value));
    }
}

/// Bytes that `value` takes as a variable-length integer.
fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// pprof's times are signed.
fn clamped(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}
