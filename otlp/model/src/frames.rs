//! Stacks as people read them: one frame a function, inlined ones included, each with a name.

use std::{borrow::Cow, ops::Range};

use rustc_hash::FxHashMap;

use crate::{FrameKind, Line, Location, LocationId, Mapping, Profiles, StackId};

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

/// What an address without a function is called: `[file+0x...]`, as far as file and address are known.
///
/// The number is the address in the file: as an ELF file has it, where the profile says that; of an address in memory, as pprof files
/// of others have it, the offset in the file, so that it means the same in every run.
#[must_use]
pub fn address_name(profile: &Profiles, location: &Location) -> String {
    let mapping = location.mapping.and_then(|mapping| profile.mappings.get(mapping as usize));
    let path = mapping.map_or("", |mapping| profile.string(mapping.file));
    let address = mapping.filter(|_| is_file(path)).and_then(|mapping| file_offset(mapping, location.address));
    match (file_name(path), address.unwrap_or(location.address)) {
        ("", 0) => "[unknown]".to_owned(),
        ("", address) => format!("{address:#x}"),
        (file, _) if location.address == 0 => format!("[{}]", bare(file)),
        (file, address) => format!("[{}+{address:#x}]", bare(file)),
    }
}

/// Whether `path` is that of a file, not a name that stands for one (`[vdso]`, `[kernel.kallsyms]`, `//anon`).
fn is_file(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('[') && !path.starts_with("//")
}

/// Above all addresses that linkers give to files, and below all that systems choose for what may be anywhere: 64 GiB.
const MEMORY: u64 = 64 << 30;

/// The offset in the file of what is in memory at `address`; `None` if the mapping is not by addresses in memory.
fn file_offset(mapping: &Mapping, address: u64) -> Option<u64> {
    let is_inside = (mapping.start..mapping.end).contains(&address) && mapping.start >= MEMORY;
    is_inside.then(|| (address - mapping.start).saturating_add(mapping.file_offset))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::ProfileBuilder;

    #[test]
    fn an_address_is_called_by_file_and_by_what_is_the_same_in_every_run() {
        let name = |file: &str, (start, end, file_offset): (u64, u64, u64), address: u64| {
            let mut b = ProfileBuilder::new();
            let file = b.string(file);
            let mapping = b.mapping(Mapping { start, end, file_offset, file, ..Mapping::default() });
            let location = Location { mapping: Some(mapping), address, ..Location::default() };
            address_name(&b.finish(), &location)
        };
        // By addresses of the file, as this profiler and OpenTelemetry's have them.
        assert_eq!(name("/usr/lib/libc.so.6", (0x2_6000, 0x18_0000, 0x2_6000), 0x2_a000), "[libc.so.6+0x2a000]");
        assert_eq!(name("/opt/app", (0x40_1000, 0x80_0000, 0x1000), 0x40_1723), "[app+0x401723]");
        // By addresses in memory, as pprof files have them.
        let loaded = (0x55dc_41a0_0000, 0x55dc_41b0_0000, 0x1000);
        assert_eq!(name("/tmp/base", loaded, 0x55dc_41a0_00b0), "[base+0x10b0]");
        assert_eq!(name("/tmp/base", loaded, 0x55dc_41c0_00b0), "[base+0x55dc41c000b0]");
        // What is no file has no offset.
        let kernel = (0xffff_ffff_8100_0000, u64::MAX, 0);
        assert_eq!(name("[kernel.kallsyms]", kernel, 0xffff_ffff_8100_0010), "[kernel.kallsyms+0xffffffff81000010]");
        assert_eq!(name("//anon", (0x7f00_0000_0000, 0x7f00_0010_0000, 0), 0x7f00_0000_1000), "[anon+0x7f0000001000]");
        assert_eq!(name("", loaded, 0x55dc_41a0_00b0), "0x55dc41a000b0");
        assert_eq!(name("", (0, 0, 0), 0), "[unknown]");
    }
}
