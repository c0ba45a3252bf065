//! Stacks as people read them: one frame a function, inlined ones included, each with a name.

use std::{borrow::Cow, ops::Range};

use rustc_hash::FxHashMap;

use crate::{FrameKind, Line, Location, LocationId, Profiles, StackId};

/// A function on a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Index into [`Frames::names`].
    pub name: u32,
    /// What runs here.
    pub kind: FrameKind,
    /// Whether the compiler put this function into its caller.
    pub inlined: bool,
    /// The location that it is part of.
    pub location: LocationId,
    /// Its line, if it has one.
    pub line: Option<Line>,
}

/// All locations of a profile, expanded into frames with names.
#[derive(Debug)]
pub struct Frames<'a> {
    profile: &'a Profiles,
    /// Distinct names.
    pub names: Vec<Cow<'a, str>>,
    frames: Vec<Frame>,
    /// Location `i` has the frames from `starts[i]` to `starts[i + 1]`.
    starts: Vec<usize>,
}

impl<'a> Frames<'a> {
    /// The frames of `profile`.
    #[must_use]
    pub fn new(profile: &'a Profiles) -> Self {
        let mut frames = Self {
            profile,
            names: Vec::new(),
            frames: Vec::new(),
            starts: Vec::with_capacity(profile.locations.len()),
        };
        let mut ids = FxHashMap::default();
        for (index, location) in profile.locations.iter().enumerate() {
            frames.starts.push(frames.frames.len());
            let mut push = |name: Cow<'a, str>, line: Option<Line>, inlined: bool| {
                let id = *ids.entry(name).or_insert_with_key(|name: &Cow<'a, str>| {
                    frames.names.push(name.clone());
                    frames.names.len() as u32 - 1
                });
                let frame = Frame { name: id, kind: location.kind, inlined, location: index as LocationId, line };
                frames.frames.push(frame);
            };
            for (depth, line) in location.lines.iter().enumerate() {
                push(function_name(profile, location, line), Some(*line), depth + 1 < location.lines.len());
            }
            if location.lines.is_empty() {
                push(address_name(profile, location).into(), None, false);
            }
        }
        frames.starts.push(frames.frames.len());
        frames
    }

    /// The frames of all locations.
    #[must_use]
    pub fn all(&self) -> &[Frame] {
        &self.frames
    }

    /// The frames of location `id`, innermost inlined callee first.
    #[must_use]
    pub fn location(&self, id: LocationId) -> &[Frame] {
        self.frames.get(self.positions(id)).unwrap_or(&[])
    }

    /// Where the frames of location `id` are in [`Frames::all`].
    #[must_use]
    pub fn positions(&self, id: LocationId) -> Range<usize> {
        let start = self.starts.get(id as usize).copied().unwrap_or(0);
        start..self.starts.get(id as usize + 1).copied().unwrap_or(start)
    }

    /// The frames of stack `id`, root first.
    pub fn stack(&self, id: StackId) -> impl Iterator<Item = &Frame> {
        self.profile.stack(id).iter().rev().flat_map(|&location| self.location(location).iter().rev())
    }

    /// The innermost frame of stack `id`.
    #[must_use]
    pub fn leaf(&self, id: StackId) -> Option<&Frame> {
        self.profile.stack(id).iter().find_map(|&location| self.location(location).first())
    }

    /// The name of `frame`.
    #[must_use]
    pub fn name(&self, frame: &Frame) -> &str {
        self.names.get(frame.name as usize).map_or("", |name| name)
    }
}

fn function_name<'a>(profile: &'a Profiles, location: &Location, line: &Line) -> Cow<'a, str> {
    let function = profile.function(line.function);
    let names =
        function.map_or([""; 2], |function| [profile.string(function.name), profile.string(function.system_name)]);
    match names.into_iter().find(|name| !name.is_empty()) {
        Some(name) => name.into(),
        None => address_name(profile, location).into(),
    }
}

/// What an address without a function is called: file and address, as far as they are known.
fn address_name(profile: &Profiles, location: &Location) -> String {
    let mapping = location.mapping.and_then(|mapping| profile.mappings.get(mapping as usize));
    let file = file_name(mapping.map_or("", |mapping| profile.string(mapping.file)));
    match (file, location.address) {
        ("", 0) => "[unknown]".to_owned(),
        ("", address) => format!("{address:#x}"),
        (file, 0) => format!("[{}]", bare(file)),
        (file, address) => format!("[{}+{address:#x}]", bare(file)),
    }
}

/// `[vdso]` without its brackets.
fn bare(file: &str) -> &str {
    file.strip_prefix('[').and_then(|file| file.strip_suffix(']')).unwrap_or(file)
}

/// The last part of a path.
#[must_use]
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
}
