//! speedscope (<https://www.speedscope.app/file-format-schema.json>).
//!
//! The first profiles of the file hold all samples of a measure each, added up by stack below the name of their process: what takes
//! the time. The others, if samples have times, hold one thread each in the order of time, heaviest first; where there are many threads, one
//! process each.

use std::io::{self, Write};

use rustc_hash::FxHashMap;
use serde_json::{Value, json, to_writer};

use profiler_model::{
    Family, Measured, Profiles, Sample, StackId,
    frames::{Frame, Frames},
    headline::{subtitle, title},
};

use crate::format::shown_first;

/// Threads above which profiles are by process.
const MAX_THREADS: usize = 100;
/// Frames of all samples in order of time, above which a file is too large to be opened, and has only the first profile.
const MAX_FRAMES_IN_TIME: usize = 30_000_000;

/// As [`encode_shown`], of what `profile` shows first.
pub fn encode(profile: &Profiles, out: impl Write) -> io::Result<()> {
    encode_shown(profile, &shown_first(profile), out)
}

/// Writes `profile` to `out` as speedscope JSON, `shown` opened first; weights are ns for CPU samples.
pub fn encode_shown(profile: &Profiles, shown: &Measured<'_>, mut out: impl Write) -> io::Result<()> {
    let frames = Frames::new(profile);
    let (table, of_frame) = frame_table(profile, &frames);
    let mut table = table;
    let roots = process_frames(profile, &mut table);
    let name = format!("{} ({})", title(profile, shown), subtitle(profile, shown));
    write!(out, r#"{{"$schema":"https://www.speedscope.app/file-format-schema.json","exporter":"#)?;
    to_writer(&mut out, &exporter(profile))?;
    write!(out, r#","name":"#)?;
    to_writer(&mut out, &name)?;
    let all = profile.measured();
    let active = all.iter().position(|measured| measured.name() == shown.name()).unwrap_or(0);
    write!(out, r#","activeProfileIndex":{active},"shared":{{"frames":"#)?;
    to_writer(&mut out, &table)?;
    write!(out, r#"}},"profiles":["#)?;
    for (nth, measured) in all.iter().enumerate() {
        let name = if all.len() == 1 { "All samples".to_owned() } else { format!("All {}", measured.name()) };
        if nth > 0 {
            write!(out, ",")?;
        }
        Writer { profile, shown: measured, frames: &frames, of_frame: &of_frame }.all(&name, &roots, &mut out)?;
    }
    let writer = Writer { profile, shown, frames: &frames, of_frame: &of_frame };
    for group in writer.in_time() {
        write!(out, ",")?;
        writer.group(&group, &mut out)?;
    }
    write!(out, "]}}")?;
    out.flush()
}

fn exporter(profile: &Profiles) -> String {
    if profile.origin.producer.is_empty() { "profiler".to_owned() } else { profile.origin.producer.clone() }
}

/// Distinct frames as speedscope has them, and which of them each frame is.
fn frame_table(profile: &Profiles, frames: &Frames) -> (Vec<Value>, Vec<u32>) {
    let mut table = Vec::new();
    let mut ids = FxHashMap::default();
    let id = |frame: &Frame| {
        let function = frame.line.and_then(|line| profile.function(line.function));
        let file = function.map_or("", |function| profile.string(function.file));
        let line = frame.line.map_or(0, |line| line.line);
        *ids.entry((frame.name, frame.kind, frame.inlined, file, line)).or_insert_with(|| {
            let mark = match frame.kind.family() {
                Family::Kernel => " [kernel]",
                Family::Generated => " [jit]",
                _ if frame.inlined => " [inlined]",
                _ => "",
            };
            let mut entry = json!({ "name": format!("{}{mark}", frames.name(frame)) });
            if let (Some(entry), false) = (entry.as_object_mut(), file.is_empty()) {
                entry.insert("file".to_owned(), file.into());
                if line > 0 {
                    entry.insert("line".to_owned(), line.into());
                }
            }
            table.push(entry);
            table.len() as u32 - 1
        })
    };
    let of_frame = frames.all().iter().map(id).collect();
    (table, of_frame)
}

/// A frame for each process of which anything is known, added to `table`; by position in the profile, the last for samples of none.
fn process_frames(profile: &Profiles, table: &mut Vec<Value>) -> Vec<Option<u32>> {
    let names = profile.processes.iter().map(|process| process_name(profile.process_label(process), process.pid));
    let names = names.chain(std::iter::once(String::new()));
    let push = |name: String| {
        if name.is_empty() {
            return None;
        }
        table.push(json!({ "name": name }));
        Some(table.len() as u32 - 1)
    };
    names.map(push).collect()
}

/// Name and id of a process or thread, as far as they are known.
fn process_name(name: &str, pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("{name} ({pid})").trim_start().to_owned(),
        None => name.to_owned(),
    }
}

/// Samples of one thread or process.
struct Group<'a> {
    name: String,
    samples: Vec<(&'a Sample, u64)>,
}

struct Writer<'a> {
    profile: &'a Profiles,
    shown: &'a Measured<'a>,
    frames: &'a Frames<'a>,
    of_frame: &'a [u32],
}

impl<'a> Writer<'a> {
    fn weight(&self, value: u64) -> u64 {
        let (weight, _) = self.shown.weight();
        value.saturating_mul(u64::try_from(weight).unwrap_or(1))
    }

    fn unit(&self) -> &'static str {
        match self.shown.weight().1 {
            "nanoseconds" => "nanoseconds",
            "microseconds" => "microseconds",
            "milliseconds" => "milliseconds",
            "seconds" => "seconds",
            "bytes" => "bytes",
            _ => "none",
        }
    }

    /// Groups of samples with times, heaviest first.
    fn in_time(&self) -> Vec<Group<'a>> {
        let profile = self.profile;
        let timed = self.shown.samples().filter(|(sample, value)| *value > 0 && sample.time_unix_nanos.is_some());
        let timed: Vec<(&Sample, u64)> = timed.collect();
        let depth: usize = timed.iter().map(|(sample, _)| profile.stack(sample.stack).len()).sum();
        if depth > MAX_FRAMES_IN_TIME {
            return Vec::new();
        }
        let mut threads: FxHashMap<_, Vec<(&Sample, u64)>> = FxHashMap::default();
        for &(sample, value) in &timed {
            threads.entry((profile.process_of(sample), sample.thread)).or_default().push((sample, value));
        }
        if threads.len() > MAX_THREADS {
            threads.clear();
            for &(sample, value) in &timed {
                threads.entry((profile.process_of(sample), None)).or_default().push((sample, value));
            }
        }
        let name = |process: Option<u32>, thread: Option<u32>| {
            let process = process.and_then(|id| profile.process(id));
            let thread = thread.and_then(|id| profile.threads.get(id as usize));
            let process = process.map(|process| process_name(profile.process_label(process), process.pid));
            let thread = thread.map(|thread| process_name(profile.string(thread.name), Some(thread.tid)));
            [process, thread].into_iter().flatten().collect::<Vec<_>>().join(" / ")
        };
        let mut groups: Vec<Group> = threads
            .into_iter()
            .map(|((process, thread), mut samples)| {
                samples.sort_by_key(|(sample, _)| sample.time_unix_nanos);
                Group { name: name(process, thread), samples }
            })
            .collect();
        groups.sort_by(|a, b| b.samples.len().cmp(&a.samples.len()).then_with(|| a.name.cmp(&b.name)));
        groups
    }

    /// All samples by process and stack.
    fn all(&self, name: &str, roots: &[Option<u32>], out: &mut impl Write) -> io::Result<()> {
        let mut sums: FxHashMap<(usize, StackId), u64> = FxHashMap::default();
        for (sample, value) in self.shown.samples().filter(|(_, value)| *value > 0) {
            let process = self.profile.process_of(sample).map_or(roots.len().saturating_sub(1), |id| id as usize);
            let sum = sums.entry((process, sample.stack)).or_default();
            *sum = sum.saturating_add(self.weight(value));
        }
        let mut stacks: Vec<_> = sums.into_iter().collect();
        stacks.sort_unstable();
        let samples =
            stacks.iter().map(|((process, stack), weight)| (roots.get(*process).copied().flatten(), *stack, *weight));
        self.sampled(name, samples, out)
    }

    fn group(&self, group: &Group, out: &mut impl Write) -> io::Result<()> {
        let samples = group.samples.iter().map(|(sample, value)| (None, sample.stack, self.weight(*value)));
        self.sampled(&group.name, samples, out)
    }

    /// One profile: each sample's root, stack and weight.
    fn sampled(
        &self,
        name: &str,
        samples: impl Iterator<Item = (Option<u32>, StackId, u64)> + Clone,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let end = samples.clone().fold(0_u64, |sum, (.., weight)| sum.saturating_add(weight));
        write!(out, r#"{{"type":"sampled","name":"#)?;
        to_writer(&mut *out, name)?;
        write!(out, r#","unit":"{}","startValue":0,"endValue":{end},"samples":["#, self.unit())?;
        for (index, (root, stack, _)) in samples.clone().enumerate() {
            out.write_all(if index == 0 { b"[" } else { b",[" })?;
            let locations = self.profile.stack(stack).iter().rev();
            let frames = locations.flat_map(|&location| self.frames.positions(location).rev());
            let frames = frames.filter_map(|position| self.of_frame.get(position).copied());
            for (depth, frame) in root.into_iter().chain(frames).enumerate() {
                out.write_all(if depth == 0 { b"" } else { b"," })?;
                write!(out, "{frame}")?;
            }
            out.write_all(b"]")?;
        }
        write!(out, r#"],"weights":["#)?;
        for (index, (.., weight)) in samples.enumerate() {
            out.write_all(if index == 0 { b"" } else { b"," })?;
            write!(out, "{weight}")?;
        }
        write!(out, "]}}")
    }
}
