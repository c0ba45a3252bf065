//! The few figures that a recording ends with.

use rustc_hash::FxHashMap;

use crate::{
    FrameKind, Loss, Measured, ProcessId, Profiles,
    frames::{Frames, file_name},
};

/// Where the time went, and what is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Samples: the sum of all counts.
    pub samples: u64,
    /// Samples whose stack is finished: its last frame is no marker.
    pub complete: u64,
    /// Samples that were taken in the kernel.
    pub kernel: u64,
    /// Functions, most samples of their own first.
    pub functions: Vec<FunctionCount>,
    /// Processes, most samples first.
    pub processes: Vec<ProcessCount>,
    /// What was lost or not finished, as the profile says.
    pub losses: Vec<Loss>,
}

/// The samples of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCount {
    /// Name of the function, or file and address.
    pub name: String,
    /// File name of the mapping that it is in; "" if there is none.
    pub file: String,
    /// What it is.
    pub kind: FrameKind,
    /// Samples in the function itself.
    pub own: u64,
    /// Samples in it and in what it calls.
    pub total: u64,
}

/// The samples of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessCount {
    /// The process; `None` for samples that name none.
    pub process: Option<ProcessId>,
    /// Its pid, if it is known.
    pub pid: Option<u32>,
    /// Its name.
    pub name: String,
    /// Its samples.
    pub samples: u64,
}

impl Summary {
    /// The share of samples with a finished stack, 0 to 1; 0 if there is no sample: of nothing nothing is known.
    #[must_use]
    pub fn complete_share(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.complete as f64 / self.samples as f64 }
    }
}

/// The figures of what `profile` shows first.
#[must_use]
pub fn summary(profile: &Profiles) -> Summary {
    match profile.shown(None) {
        Ok(shown) => summary_of(profile, &shown),
        Err(_) => Summary { losses: profile.losses.clone(), ..Summary::default() },
    }
}

/// The figures of `shown`, a part of `profile`.
#[must_use]
pub fn summary_of(profile: &Profiles, shown: &Measured<'_>) -> Summary {
    let mut summary = Summary { losses: profile.losses.clone(), ..Summary::default() };
    let mut stacks = vec![0_u64; profile.stacks.len()];
    let mut processes: FxHashMap<Option<ProcessId>, u64> = FxHashMap::default();
    for (sample, count) in shown.samples() {
        summary.samples = summary.samples.saturating_add(count);
        let process = processes.entry(profile.process_of(sample)).or_default();
        *process = process.saturating_add(count);
        if let Some(stack) = stacks.get_mut(sample.stack as usize) {
            *stack = stack.saturating_add(count);
        }
    }
    functions(profile, &stacks, &mut summary);
    summary.processes = processes
        .into_iter()
        .map(|(id, samples)| {
            let process = id.and_then(|id| profile.process(id));
            let (pid, name) = process.map_or((None, ""), |process| (process.pid, profile.process_label(process)));
            ProcessCount { process: id, pid, name: name.to_owned(), samples }
        })
        .collect();
    summary.processes.sort_by(|a, b| b.samples.cmp(&a.samples).then(a.pid.cmp(&b.pid)).then(a.process.cmp(&b.process)));
    summary
}

/// Counts functions, and complete and kernel samples. A function that calls itself counts once a stack.
fn functions(profile: &Profiles, stacks: &[u64], summary: &mut Summary) {
    let frames = Frames::new(profile);
    // A function is its name, kind and mapping.
    let mut ids = FxHashMap::default();
    let mut counts: Vec<FunctionCount> = Vec::new();
    let of_frame: Vec<usize> = frames
        .all()
        .iter()
        .map(|frame| {
            let mapping = profile.location(frame.location).and_then(|location| location.mapping);
            *ids.entry((frame.name, frame.kind, mapping)).or_insert_with(|| {
                let file =
                    mapping.and_then(|id| profile.mappings.get(id as usize)).map_or("", |m| profile.string(m.file));
                let (name, file) = (frames.name(frame).to_owned(), file_name(file).to_owned());
                counts.push(FunctionCount { name, file, kind: frame.kind, own: 0, total: 0 });
                counts.len() - 1
            })
        })
        .collect();
    let mut seen_in = vec![usize::MAX; counts.len()];
    for (index, (stack, &count)) in profile.stacks.iter().zip(stacks).enumerate().filter(|(_, (_, count))| **count > 0)
    {
        let first = stack.first().and_then(|&id| profile.location(id));
        let last = stack.last().and_then(|&id| profile.location(id));
        if last.is_some_and(|location| location.kind != FrameKind::Marker) {
            summary.complete = summary.complete.saturating_add(count);
        }
        if first.is_some_and(|location| location.kind == FrameKind::Kernel) {
            summary.kernel = summary.kernel.saturating_add(count);
        }
        let mut leaf = true;
        for position in stack.iter().flat_map(|&location| frames.positions(location)) {
            let Some(&function) = of_frame.get(position) else { continue };
            let (Some(counted), Some(seen)) = (counts.get_mut(function), seen_in.get_mut(function)) else { continue };
            if std::mem::take(&mut leaf) {
                counted.own = counted.own.saturating_add(count);
            }
            if *seen != index {
                *seen = index;
                counted.total = counted.total.saturating_add(count);
            }
        }
    }
    counts.retain(|counted| counted.total > 0);
    counts.sort_by(|a, b| (b.own, b.total, &a.name, &a.file).cmp(&(a.own, a.total, &b.name, &b.file)));
    summary.functions = counts;
}
