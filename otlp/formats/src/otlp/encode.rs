//! Profiles -> OTLP, one process after the other.

use std::io::{self, Write};

use opentelemetry_proto::tonic::profiles::v1development as proto;
use profiler_model::{Label, LabelValue, LinkId, ProcessId, Profile, Profiles, Sample, ThreadId, ValueType, attribute};
use prost::Message;
use rustc_hash::FxHashMap;

use super::{
    ExportProfilesServiceRequest, json,
    resource::{resource, scope},
    schema::{DICTIONARY, RESOURCE_PROFILES},
    tables::{Attribute, Tables},
};
use crate::{
    labels::escaped,
    wire::{put_length, put_message},
};

/// `profile` as the bytes of one `ExportProfilesServiceRequest`.
#[must_use]
pub fn encode(profile: &Profiles) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A vector takes whatever is written.
    let _ = encode_to(profile, &mut bytes);
    bytes
}

/// Writes `profile` to `out` as one `ExportProfilesServiceRequest`, a process at a time. Errors are those of `out`.
pub fn encode_to(profile: &Profiles, mut out: impl Write) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut field = |number: u32, message: &dyn Fn(&mut Vec<u8>), length: usize| {
        buffer.clear();
        put_length(&mut buffer, number, length);
        message(&mut buffer);
        out.write_all(&buffer)
    };
    let dictionary = Encoder::new(profile)
        .run(|resource| field(1, &|buffer| resource.encode_raw(buffer), resource.encoded_len()))?;
    field(2, &|buffer| dictionary.encode_raw(buffer), dictionary.encoded_len())?;
    out.flush()
}

/// Writes `profile` to `out` as one request in JSON and the end of a line. Errors are those of `out`.
pub fn encode_json_to(profile: &Profiles, mut out: impl Write) -> io::Result<()> {
    let mut before = r#"{"resourceProfiles":["#;
    let dictionary = Encoder::new(profile).run(|resource| {
        write!(out, "{before}")?;
        before = ",";
        json::write(&RESOURCE_PROFILES, &resource.encode_to_vec(), &mut out)
    })?;
    write!(out, r#"],"dictionary":"#)?;
    json::write(&DICTIONARY, &dictionary.encode_to_vec(), &mut out)?;
    writeln!(out, "}}")?;
    out.flush()
}

/// `profile` as one request in memory, for a client that sends it.
#[must_use]
pub fn request(profile: &Profiles) -> ExportProfilesServiceRequest {
    let mut resource_profiles = Vec::new();
    let dictionary = Encoder::new(profile).run(|resource| {
        resource_profiles.push(resource);
        Ok::<_, std::convert::Infallible>(())
    });
    match dictionary {
        Ok(dictionary) => ExportProfilesServiceRequest { resource_profiles, dictionary: Some(dictionary) },
        Err(never) => match never {},
    }
}

/// An identity as OTLP has it: the stack, the index of the set of attributes in [`Encoder::sets`], and the model's link.
type Identity = (i32, usize, LinkId);

/// A sample and the profile that it is in, an index into [`Profiles::profiles`].
pub(super) type Taken<'a> = (usize, &'a Sample);

/// Samples of one process, or of none that is known.
pub(super) type OfProcess<'a> = (Option<ProcessId>, Vec<Taken<'a>>);

/// The samples of `profile` by process, in order of first appearance.
pub(super) fn by_process(profile: &Profiles) -> Vec<OfProcess<'_>> {
    let mut processes: Vec<OfProcess<'_>> = Vec::new();
    let mut positions = FxHashMap::default();
    for (index, part) in profile.profiles.iter().enumerate() {
        for sample in &part.samples {
            let process = profile.process_of(sample);
            let position = *positions.entry(process).or_insert(processes.len());
            match processes.get_mut(position) {
                Some((_, samples)) => samples.push((index, sample)),
                None => processes.push((process, vec![(index, sample)])),
            }
        }
    }
    processes
}

/// The request that holds `part` of `profile` and the dictionary of that part alone; `windows` are those of its profiles.
pub(super) fn encode_part<'a>(profile: &'a Profiles, windows: &[(u64, u64)], part: &[OfProcess<'a>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::with_windows(profile, windows.to_vec());
    for (process, samples) in part {
        put_message(&mut bytes, 1, &encoder.resource(*process, samples));
    }
    put_message(&mut bytes, 2, &encoder.tables.finish());
    bytes
}

struct Encoder<'a> {
    profile: &'a Profiles,
    tables: Tables<'a>,
    /// Start and length of each profile, as all its messages say.
    windows: Vec<(u64, u64)>,
    /// Distinct sets of sample attributes.
    sets: Vec<Vec<i32>>,
    set_ids: FxHashMap<Vec<i32>, usize>,
    /// Sets of samples without labels.
    plain_sets: FxHashMap<(Option<ThreadId>, Option<u32>), usize>,
}

/// Samples of one identity.
#[derive(Default)]
struct Group<'a> {
    identity: Identity,
    samples: Vec<&'a Sample>,
}

impl<'a> Encoder<'a> {
    fn new(profile: &'a Profiles) -> Self {
        Self::with_windows(profile, windows(profile))
    }

    fn with_windows(profile: &'a Profiles, windows: Vec<(u64, u64)>) -> Self {
        Self {
            profile,
            tables: Tables::new(profile),
            windows,
            sets: Vec::new(),
            set_ids: FxHashMap::default(),
            plain_sets: FxHashMap::default(),
        }
    }

    /// Hands each process's profiles to `sink`; returns the dictionary that they refer to.
    fn run<E>(
        mut self,
        mut sink: impl FnMut(proto::ResourceProfiles) -> Result<(), E>,
    ) -> Result<proto::ProfilesDictionary, E> {
        let mut processes = by_process(self.profile);
        if processes.is_empty() {
            // Host and losses are worth a file even if there is no sample.
            processes.push((None, Vec::new()));
        }
        for (process, samples) in processes {
            let resource = self.resource(process, &samples);
            sink(resource)?;
        }
        Ok(self.tables.finish())
    }

    fn resource(&mut self, process: Option<ProcessId>, samples: &[Taken<'a>]) -> proto::ResourceProfiles {
        let mut by_profile: Vec<Vec<&'a Sample>> = vec![Vec::new(); self.profile.profiles.len()];
        for &(index, sample) in samples {
            if let Some(samples) = by_profile.get_mut(index) {
                samples.push(sample);
            }
        }
        let mut profiles = Vec::new();
        let of = self.profile;
        for ((part, of_part), window) in of.profiles.iter().zip(&by_profile).zip(self.windows.clone()) {
            if !of_part.is_empty() || samples.is_empty() {
                self.profile_messages(part, window, of_part, &mut profiles);
            }
        }
        if profiles.is_empty() {
            // A file of nothing is one that says so.
            self.profile_messages(&Profile::default(), (0, 0), &[], &mut profiles);
        }
        proto::ResourceProfiles {
            resource: Some(resource(self.profile, process)),
            scope_profiles: vec![proto::ScopeProfiles {
                scope: Some(scope(self.profile)),
                profiles,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    /// The messages of `samples` of `part`: one for each value, and for those with and without time.
    fn profile_messages(
        &mut self,
        part: &Profile,
        window: (u64, u64),
        samples: &[&'a Sample],
        profiles: &mut Vec<proto::Profile>,
    ) {
        let (timed, untimed): (Vec<&Sample>, Vec<&Sample>) =
            samples.iter().partition(|sample| sample.time_unix_nanos.is_some());
        let timed = self.groups(&timed);
        let untimed = self.groups(&untimed);
        for index in 0..part.sample_types.len().max(1) {
            if !timed.is_empty() {
                let samples = self.timed_samples(&timed, index);
                profiles.push(self.profile_message(part, window, index, samples));
            }
            if !untimed.is_empty() || timed.is_empty() {
                let samples = self.untimed_samples(&untimed, index);
                profiles.push(self.profile_message(part, window, index, samples));
            }
        }
    }

    fn profile_message(
        &mut self,
        part: &Profile,
        window: (u64, u64),
        kind: usize,
        samples: Vec<proto::Sample>,
    ) -> proto::Profile {
        let kind = part.sample_types.get(kind).cloned().unwrap_or_else(|| ValueType::new("samples", "count"));
        let comments = &self.profile.comments;
        let mut attribute_indices = Vec::new();
        if !part.source.is_empty() {
            let source = Attribute::Text(part.source.clone());
            attribute_indices.push(self.tables.attribute(attribute::SOURCE, source, ""));
        }
        if !comments.is_empty() {
            let texts = comments.iter().cloned().map(Attribute::Text).collect();
            attribute_indices.push(self.tables.attribute(attribute::COMMENT, Attribute::List(texts), ""));
        }
        proto::Profile {
            sample_type: Some(self.tables.value_type(&kind)),
            samples,
            time_unix_nano: window.0,
            duration_nano: window.1,
            period_type: Some(self.tables.value_type(&part.period_type)),
            period: part.period,
            attribute_indices,
            ..Default::default()
        }
    }

    /// `samples` by identity, in order of first appearance.
    fn groups(&mut self, samples: &[&'a Sample]) -> Vec<Group<'a>> {
        let mut groups: Vec<Group> = Vec::new();
        let mut positions = FxHashMap::default();
        for &sample in samples {
            self.tables.add_link(sample.link);
            let identity = (self.tables.stack(sample.stack), self.attribute_set(sample), sample.link);
            let position = *positions.entry(identity).or_insert(groups.len());
            match groups.get_mut(position) {
                Some(group) => group.samples.push(sample),
                None => groups.push(Group { identity, samples: vec![sample] }),
            }
        }
        groups
    }

    fn message(&self, (stack_index, set, link): Identity) -> proto::Sample {
        let attribute_indices = self.sets.get(set).cloned().unwrap_or_default();
        proto::Sample { stack_index, attribute_indices, link_index: self.tables.link(link), ..Default::default() }
    }

    /// The profile of value `index`; without values if each is 1, as receivers expect of CPU samples.
    fn timed_samples(&self, groups: &[Group], index: usize) -> Vec<proto::Sample> {
        let value = |sample: &Sample| sample.values.as_slice().get(index).copied().unwrap_or(0);
        let ones = groups.iter().all(|group| group.samples.iter().all(|sample| value(sample) == 1));
        let message = |group: &Group| {
            let mut pairs: Vec<(u64, i64)> =
                group.samples.iter().map(|sample| (timestamp(sample), value(sample))).collect();
            // Stable, so that samples of one time stay in step from sample type to sample type.
            pairs.sort_by_key(|(time, _)| *time);
            proto::Sample {
                values: if ones { Vec::new() } else { pairs.iter().map(|(_, value)| *value).collect() },
                timestamps_unix_nano: pairs.iter().map(|(time, _)| *time).collect(),
                ..self.message(group.identity)
            }
        };
        groups.iter().map(message).collect()
    }

    fn untimed_samples(&self, groups: &[Group], index: usize) -> Vec<proto::Sample> {
        let value = |sample: &Sample| sample.values.as_slice().get(index).copied().unwrap_or(0);
        let message = |group: &Group| {
            let sum = group.samples.iter().fold(0_i64, |sum, sample| sum.saturating_add(value(sample)));
            proto::Sample { values: vec![sum], ..self.message(group.identity) }
        };
        groups.iter().map(message).collect()
    }

    fn attribute_set(&mut self, sample: &Sample) -> usize {
        let plain = (sample.thread, sample.cpu);
        if sample.labels.is_none()
            && let Some(&known) = self.plain_sets.get(&plain)
        {
            return known;
        }
        let mut set = self.thread_attributes(sample);
        if let Some(labels) = &sample.labels {
            self.label_attributes(labels, &mut set);
        }
        set.sort_unstable();
        let next = self.sets.len();
        let id = *self.set_ids.entry(set).or_insert_with_key(|set| {
            self.sets.push(set.clone());
            next
        });
        if sample.labels.is_none() {
            self.plain_sets.insert(plain, id);
        }
        id
    }

    fn thread_attributes(&mut self, sample: &Sample) -> Vec<i32> {
        let profile = self.profile;
        let mut set = Vec::new();
        if let Some(thread) = sample.thread.and_then(|id| profile.threads.get(id as usize)) {
            // Thread 0 exists in process 0 alone; elsewhere it means that the thread is not known.
            if thread.tid != 0 || profile.process(thread.process).is_none_or(|process| process.pid == Some(0)) {
                set.push(self.tables.attribute(attribute::THREAD_ID, Attribute::Int(thread.tid.into()), ""));
            }
            let name = profile.string(thread.name);
            if !name.is_empty() {
                set.push(self.tables.attribute(attribute::THREAD_NAME, Attribute::Text(name.to_owned()), ""));
            }
        }
        if let Some(cpu) = sample.cpu {
            set.push(self.tables.attribute(attribute::CPU, Attribute::Int(cpu.into()), ""));
        }
        set
    }

    /// Labels as attributes. pprof allows a key twice, OTLP does not: the values become a list, in the unit of the first.
    fn label_attributes(&mut self, labels: &[Label], set: &mut Vec<i32>) {
        let profile = self.profile;
        let mut by_key: Vec<(&str, Vec<Attribute>, &str)> = Vec::new();
        let mut positions = FxHashMap::default();
        for label in labels {
            let (value, unit) = match label.value {
                LabelValue::Text(text) => (Attribute::Text(profile.string(text).to_owned()), ""),
                LabelValue::Number(number, unit) => (Attribute::Int(number), profile.string(unit)),
            };
            let key = profile.string(label.key);
            let position = *positions.entry(key).or_insert(by_key.len());
            match by_key.get_mut(position) {
                Some((_, values, _)) => values.push(value),
                None => by_key.push((key, vec![value], unit)),
            }
        }
        for (key, mut values, unit) in by_key {
            let value = match values.pop() {
                Some(only) if values.is_empty() => only,
                Some(last) => {
                    values.push(last);
                    Attribute::List(values)
                }
                None => continue,
            };
            set.push(self.tables.attribute(&escaped(key, attribute::SAMPLE), value, unit));
        }
    }
}

/// The time of a timed sample. The very last ns of 64 bits cannot lie in a half-open window.
fn timestamp(sample: &Sample) -> u64 {
    sample.time_unix_nanos.unwrap_or(0).min(u64::MAX - 1)
}

/// Start and length of each profile of `profile`, as wide as its samples need.
pub(super) fn windows(profile: &Profiles) -> Vec<(u64, u64)> {
    profile.profiles.iter().map(window).collect()
}

/// Start and length of a window that holds the profile's own and all its samples.
fn window(profile: &Profile) -> (u64, u64) {
    let mut start = profile.start_unix_nanos;
    let mut end = start.saturating_add(profile.duration_nanos);
    for sample in profile.samples.iter().filter(|sample| sample.time_unix_nanos.is_some()) {
        start = start.min(timestamp(sample));
        end = end.max(timestamp(sample) + 1);
    }
    (start, end - start)
}
