//! Folded stacks: `process;root;...;leaf count`, the input of flame graph tools.
//!
//! Kernel frames end in `_[k]`, inlined ones in `_[i]`, run-time generated ones in `_[j]`, as the tools' palettes know them.

use std::io::{self, Write};

use profiler_model::{
    Family, Measured, Profiles, StackId, ThreadId,
    frames::{Frame, Frames},
};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::format::shown_first;

/// What a line begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// The name of the process.
    #[default]
    Process,
    /// The name of the process, then that of the thread with its id.
    Thread,
}

/// Writes what `profile` shows first to `out` as folded stacks, a line for each distinct one, sorted.
pub fn encode(profile: &Profiles, out: impl Write) -> io::Result<()> {
    encode_by(profile, &shown_first(profile), Root::Process, out)
}

/// As [`encode`], with a choice of what is counted and of what a line begins with.
pub fn encode_by(profile: &Profiles, shown: &Measured<'_>, root: Root, mut out: impl Write) -> io::Result<()> {
    let frames = Frames::new(profile);
    let names = Names::new(&frames);
    let (roots, counts) = by_root(profile, shown, root);
    // Stacks that differ in addresses alone read the same. Lines are compared by the ids of their names, which are a fraction of
    // the text and sort as it does.
    let line = |((root, stack), count)| -> (u32, Vec<u32>, u64) {
        (root, frames.stack(stack).map(|frame| names.id(frame)).collect(), count)
    };
    let mut lines: Vec<_> = counts.into_iter().map(line).collect();
    lines.sort_unstable();
    for lines in lines.chunk_by(|a, b| (a.0, &a.1) == (b.0, &b.1)) {
        let count = lines.iter().fold(0_u64, |sum, (.., count)| sum.saturating_add(*count));
        let Some((root, ids, _)) = lines.first().filter(|_| count > 0) else { continue };
        let root = Some(roots.get(*root as usize).map_or("", String::as_str)).filter(|root| !root.is_empty());
        let mut texts = root.into_iter().chain(ids.iter().map(|&id| names.text(id)));
        out.write_all(texts.next().unwrap_or("[no stack]").as_bytes())?;
        for text in texts {
            out.write_all(b";")?;
            out.write_all(text.as_bytes())?;
        }
        writeln!(out, " {count}")?;
    }
    out.flush()
}

/// What lines begin with, sorted, and the counts of samples by index in that and stack.
pub(crate) fn by_root(
    profile: &Profiles,
    shown: &Measured<'_>,
    root: Root,
) -> (Vec<String>, FxHashMap<(u32, StackId), u64>) {
    let mut counts: FxHashMap<_, u64> = FxHashMap::default();
    for (sample, value) in shown.samples() {
        let count = counts.entry((sample.thread, sample.stack)).or_default();
        *count = count.saturating_add(value);
    }
    let threads: FxHashSet<Option<ThreadId>> = counts.keys().map(|(thread, _)| *thread).collect();
    let names: FxHashMap<_, _> = threads.into_iter().map(|thread| (thread, root_name(profile, thread, root))).collect();
    let mut roots: Vec<String> = names.values().cloned().collect();
    roots.sort_unstable();
    roots.dedup();
    let id = |thread| names.get(thread).and_then(|name| roots.binary_search(name).ok()).map_or(0, |id| id as u32);
    let mut by_root: FxHashMap<_, u64> = FxHashMap::default();
    for ((thread, stack), count) in &counts {
        let sum = by_root.entry((id(thread), *stack)).or_default();
        *sum = sum.saturating_add(*count);
    }
    (roots, by_root)
}

/// What the lines of samples of `thread` begin with; "" if nothing is known of whose they are.
fn root_name(profile: &Profiles, thread: Option<ThreadId>, root: Root) -> String {
    let thread = thread.and_then(|id| profile.threads.get(id as usize));
    let process = thread.and_then(|thread| profile.process(thread.process));
    let mut name = process.map(|process| process_name(profile.process_label(process), process.pid)).unwrap_or_default();
    if let Some(thread) = thread.filter(|_| root == Root::Thread) {
        let thread = clean(&format!("{} ({})", profile.string(thread.name), thread.tid));
        name = if name.is_empty() { thread } else { format!("{name};{thread}") };
    }
    name
}

fn process_name(name: &str, pid: Option<u32>) -> String {
    match pid {
        Some(pid) if name.is_empty() => format!("[pid {pid}]"),
        None if name.is_empty() => String::new(),
        _ => clean(name),
    }
}

/// Names of frames with the marks of their kinds, in sorted order.
pub(crate) struct Names {
    /// Sorted.
    texts: Vec<String>,
    /// By name of the frame and mark.
    ids: FxHashMap<(u32, &'static str), u32>,
}

impl Names {
    pub(crate) fn new(frames: &Frames) -> Self {
        let mut texts: Vec<String> = Vec::new();
        let mut unsorted = FxHashMap::default();
        for frame in frames.all() {
            unsorted.entry((frame.name, mark(frame))).or_insert_with(|| {
                texts.push(format!("{}{}", clean(frames.name(frame)), mark(frame)));
                texts.len() - 1
            });
        }
        let mut sorted = texts.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let position = |index: &usize| {
            let text = texts.get(*index)?;
            sorted.binary_search(text).ok().map(|position| position as u32)
        };
        let ids = unsorted.iter().filter_map(|(key, index)| Some((*key, position(index)?))).collect();
        Self { texts: sorted, ids }
    }

    /// Position of the text of `frame`.
    pub(crate) fn id(&self, frame: &Frame) -> u32 {
        self.ids.get(&(frame.name, mark(frame))).copied().unwrap_or(0)
    }

    /// The text at a position.
    pub(crate) fn text(&self, id: u32) -> &str {
        self.texts.get(id as usize).map_or("", String::as_str)
    }
}

fn mark(frame: &Frame) -> &'static str {
    match frame.kind.family() {
        Family::Kernel => "_[k]",
        Family::Generated => "_[j]",
        _ if frame.inlined => "_[i]",
        _ => "",
    }
}

/// `name` as one field of a line: without what separates fields and lines, nothing that XML cannot hold, and no number at the
/// end that would read as a count.
fn clean(name: &str) -> String {
    let mut clean: String = name
        .trim()
        .chars()
        .map(|c| match c {
            ';' => ':',
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => '?',
            c if c.is_whitespace() => ' ',
            c => c,
        })
        .collect();
    if let Some((_, number)) = clean.rsplit_once(' ')
        && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        let space = clean.len() - number.len() - 1;
        clean.replace_range(space..=space, "_");
    }
    if clean.starts_with('#') {
        clean.insert(0, '_');
    }
    if clean.is_empty() { "[unnamed]".to_owned() } else { clean }
}
