//! A profile as rows: each distinct stack of each thread with its count, names resolved.

use std::collections::HashMap;

use profiler_model::{FrameKind, LocationId, Profile, Profiles, Sample, Tier};

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What runs in it.
    pub kind: FrameKind,
    /// Function names, the innermost inlined one first; empty if nothing is known.
    pub functions: Vec<String>,
    /// Address in the space of the file; 0 if there is none.
    pub address: u64,
    /// File that the code is mapped from; "" if there is none.
    pub file: String,
    /// Found by a guess, not by unwind information.
    pub guessed: bool,
    /// How its runtime runs it, if that is told.
    pub tier: Option<Tier>,
}

/// A stack of one thread and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Samples.
    pub count: u64,
    /// Process id; 0 if the profile does not say.
    pub pid: u32,
    /// Process name.
    pub process: String,
    /// Thread id; 0 if it is not told.
    pub tid: u32,
    /// Thread name.
    pub thread: String,
    /// Leaf first.
    pub frames: Vec<Frame>,
}

impl Row {
    /// The frames that are not the kernel's.
    pub fn user_frames(&self) -> impl DoubleEndedIterator<Item = &Frame> {
        self.frames.iter().filter(|frame| frame.kind != FrameKind::Kernel)
    }

    /// The reason why the stack is not finished, if it is not.
    #[must_use]
    pub fn marker(&self) -> Option<&str> {
        let marker = self.frames.iter().find(|frame| frame.kind == FrameKind::Marker)?;
        Some(marker.functions.first().map_or("unnamed marker", String::as_str))
    }

    /// The stack in one line, leaf first, runs of one function shortened, for messages of failed tests.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut parts: Vec<(String, usize)> = Vec::new();
        for frame in &self.frames {
            let mut name = match frame.functions.as_slice() {
                [] => format!("{}+{:#x}", frame.file.rsplit('/').next().unwrap_or_default(), frame.address),
                functions => functions.join(" < "),
            };
            if frame.guessed {
                name.push('?');
            }
            match parts.last_mut() {
                Some((last, count)) if *last == name => *count += 1,
                _ => parts.push((name, 1)),
            }
        }
        let parts: Vec<_> =
            parts.into_iter().map(|(name, count)| if count > 1 { format!("{name} x{count}") } else { name }).collect();
        format!("{}x pid {} {}/{}: {}", self.count, self.pid, self.process, self.thread, parts.join("; "))
    }
}

/// All rows of what `profile` shows first, in order of their first sample.
#[must_use]
pub fn rows(profile: &Profiles) -> Vec<Row> {
    let shown = profile.shown(None);
    let parts = shown.iter().flat_map(|shown| shown.parts());
    laid_out(profile, parts.flat_map(|(part, index)| part.samples.iter().map(move |sample| (sample, index))))
}

/// All rows of `part`, a profile of `profile`, in order of their first sample.
#[must_use]
pub fn rows_of(profile: &Profiles, part: &Profile) -> Vec<Row> {
    laid_out(profile, part.samples.iter().map(|sample| (sample, 0)))
}

/// Rows of `samples`, each with the index of the value that counts.
fn laid_out<'a>(profile: &Profiles, samples: impl Iterator<Item = (&'a Sample, usize)>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut known: HashMap<(u32, Option<u32>), usize> = HashMap::new();
    for (sample, index) in samples {
        let at = *known.entry((sample.stack, sample.thread)).or_insert_with(|| {
            let thread = sample.thread.and_then(|id| profile.threads.get(id as usize));
            let process = thread.and_then(|thread| profile.processes.get(thread.process as usize));
            rows.push(Row {
                count: 0,
                pid: process.and_then(|process| process.pid).unwrap_or(0),
                process: process.map_or("", |process| profile.string(process.name)).to_owned(),
                tid: thread.map_or(0, |thread| thread.tid),
                thread: thread.map_or("", |thread| profile.string(thread.name)).to_owned(),
                frames: profile.stack(sample.stack).iter().filter_map(|&id| frame(profile, id)).collect(),
            });
            rows.len() - 1
        });
        if let Some(row) = rows.get_mut(at) {
            row.count = row.count.saturating_add(sample.value(index));
        }
    }
    rows
}

fn frame(profile: &Profiles, id: LocationId) -> Option<Frame> {
    let location = profile.location(id)?;
    let mapping = location.mapping.and_then(|id| profile.mappings.get(id as usize));
    let name = |function| profile.function(function).map(|function| profile.string(function.name).to_owned());
    Some(Frame {
        kind: location.kind,
        functions: location.lines.iter().filter_map(|line| name(line.function)).collect(),
        address: location.address,
        file: mapping.map_or("", |mapping| profile.string(mapping.file)).to_owned(),
        guessed: location.guessed,
        tier: location.tier,
    })
}

/// Samples in `rows`.
#[must_use]
pub fn total<'a>(rows: impl IntoIterator<Item = &'a Row>) -> u64 {
    rows.into_iter().map(|row| row.count).sum()
}

/// True if `name`, as a profiler prints it, is the function `wanted`: parameters, template arguments, return types,
/// namespaces, hashes and clone suffixes do not matter.
#[must_use]
pub fn is_function(name: &str, wanted: &str) -> bool {
    if name == wanted {
        return true;
    }
    let name = name.replace("(anonymous namespace)::", "");
    // Go writes methods as `main.(*counter).advance`: that bracket is part of the name.
    let end = name.char_indices().find(|&(at, c)| {
        c == '<' && at > 0 || c == '(' && at > 0 && !name.get(..at).is_some_and(|before| before.ends_with('.'))
    });
    let mut base = name.get(..end.map_or(name.len(), |(at, _)| at)).unwrap_or(&name);
    if let Some((before, hash)) = base.rsplit_once("::h")
        && hash.len() == 16
        && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        base = before;
    }
    for suffix in [".constprop", ".part", ".isra", ".cold", ".lto_priv"] {
        base = base.split_once(suffix).map_or(base, |(before, _)| before);
    }
    let base = base.trim_end_matches(" [clone").trim();
    base == wanted || base.strip_suffix(wanted).is_some_and(|before| before.ends_with("::") || before.ends_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_recognised_in_every_languages_spelling() {
        for (name, wanted) in [
            ("hot_a", "hot_a"),
            ("ground::by_sort(unsigned long)", "by_sort"),
            ("unsigned long ground::by_template<unsigned long, 7>(unsigned long)", "by_template"),
            ("ground::(anonymous namespace)::by_sort(int)", "by_sort"),
            ("shares::hot_map::h0123456789abcdef", "hot_map"),
            ("hot_c.constprop.0", "hot_c"),
            ("main.hotLoop", "main.hotLoop"),
            ("main.(*counter).advance", "main.(*counter).advance"),
        ] {
            assert!(is_function(name, wanted), "{name} is {wanted}");
        }
        for (name, wanted) in [
            ("hot_ab", "hot_a"),
            ("shares::hot_closure::{{closure}}", "hot_closure"),
            ("_hot_a", "hot_a"),
            ("ground::call(std::function<by_sort> const&)", "by_sort"),
        ] {
            assert!(!is_function(name, wanted), "{name} is not {wanted}");
        }
    }
}
