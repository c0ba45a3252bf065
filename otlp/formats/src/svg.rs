//! Flame graph as SVG, drawn by inferno.

use std::io::{self, Write};

use inferno::flamegraph::{
    self, Options, TextTruncateDirection,
    color::{BackgroundColor, Color, PaletteMap},
};
use profiler_model::{
    Family, Measured, Profiles, ValueType,
    frames::Frames,
    headline::{subtitle, title},
};
use rustc_hash::FxHashMap;

use crate::{
    folded::{Names, Root, by_root},
    format::shown_first,
};

/// Frames narrower than this share of the whole are not drawn; inferno's own limit, in percent, is the same.
pub(crate) const MIN_SHARE: f64 = 0.0001;

/// In place of the name of a process of which nothing is known.
const NOBODY: u32 = u32::MAX;

/// A node of the call tree: a frame's text below its callers.
struct Node {
    parent: usize,
    /// Id in [`Names`]; for the first level, index of the root's name.
    name: u32,
    /// Samples in the node itself.
    own: u64,
    /// Samples in it and below it.
    total: u64,
}

/// As [`encode_shown`], of what `profile` shows first.
pub fn encode(profile: &Profiles, out: impl Write) -> io::Result<()> {
    encode_shown(profile, &shown_first(profile), out)
}

/// Writes `shown`, a part of `profile`, to `out` as a flame graph: processes at the bottom, kernel, native, inlined and run-time generated code told
/// apart by colour.
pub fn encode_shown(profile: &Profiles, shown: &Measured<'_>, out: impl Write) -> io::Result<()> {
    let frames = Frames::new(profile);
    let names = Names::new(&frames);
    let (roots, nodes) = tree(profile, shown, &frames, &names);
    let mut lines = lines(&nodes, &roots, &names);
    if lines.is_empty() {
        // inferno refuses to draw nothing, and a user who recorded nothing should see just that.
        lines.push("no samples 1".to_owned());
    }
    lines.sort_unstable();
    let mut palette = palette(&frames, &names);
    let mut options = Options::default();
    options.title = printable(&title(profile, shown));
    options.subtitle = Some(printable(&subtitle(profile, shown)));
    options.notes = "kernel orange, native red, inlined aqua, Go blue, generated at run time green, interpreted yellow, incomplete grey".to_owned();
    options.count_name = count_name(&shown.sample_type());
    options.palette_map = Some(&mut palette);
    options.bgcolors = Some(BackgroundColor::Flat(Color { r: 248, g: 248, b: 248 }));
    options.min_width = MIN_SHARE * 100.0;
    options.text_truncate_direction = TextTruncateDirection::Right;
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out)
}

/// What stands behind a number: the unit, or what is counted.
pub(crate) fn count_name(kind: &ValueType) -> String {
    let name = if kind.unit == "count" { &kind.kind } else { &kind.unit };
    if name.is_empty() { "samples".to_owned() } else { printable(name) }
}

/// The call tree of all samples, and the names of its first level. Children stand behind their parents.
fn tree(profile: &Profiles, shown: &Measured<'_>, frames: &Frames, names: &Names) -> (Vec<String>, Vec<Node>) {
    let (roots, counts) = by_root(profile, shown, Root::Process);
    let mut nodes: Vec<Node> = Vec::new();
    let mut ids: FxHashMap<(usize, u32), usize> = FxHashMap::default();
    for (&(root, stack), &count) in &counts {
        let mut parent = usize::MAX;
        // A frame stands at the first level where nothing is known of its process; told apart from the names of processes by its id.
        let whose = roots.get(root as usize).is_some_and(|name| !name.is_empty());
        let first = if whose { root } else { NOBODY };
        for name in std::iter::once(first).chain(frames.stack(stack).map(|frame| names.id(frame))) {
            let id = *ids.entry((parent, name)).or_insert_with(|| {
                nodes.push(Node { parent, name, own: 0, total: 0 });
                nodes.len() - 1
            });
            if let Some(node) = nodes.get_mut(id) {
                node.total = node.total.saturating_add(count);
            }
            parent = id;
        }
        if let Some(node) = nodes.get_mut(parent) {
            node.own = node.own.saturating_add(count);
        }
    }
    (roots, nodes)
}

/// Folded lines of the nodes that are wide enough to be drawn; what is not counts for its caller, which looks the same.
fn lines(nodes: &[Node], roots: &[String], names: &Names) -> Vec<String> {
    let whole = nodes.iter().filter(|node| node.parent == usize::MAX);
    let whole = whole.fold(0_u64, |sum, node| sum.saturating_add(node.total));
    let least = (whole as f64 * MIN_SHARE) as u64;
    // inferno adds counts up in 64 bits; no honest profile comes near.
    let sum: u128 = nodes.iter().map(|node| u128::from(node.own)).sum();
    let scale = u64::try_from(sum >> 62).unwrap_or(u64::MAX).saturating_add(1);
    let mut own: Vec<u64> = nodes.iter().map(|node| node.own / scale).collect();
    for (index, node) in nodes.iter().enumerate().rev() {
        if node.total < least && node.parent != usize::MAX {
            let moved = own.get_mut(index).map(std::mem::take).unwrap_or(0);
            if let Some(parent) = own.get_mut(node.parent) {
                *parent = parent.saturating_add(moved);
            }
        }
    }
    let line = |(mut index, count): (usize, &u64)| {
        let mut path = Vec::new();
        while let Some(node) = nodes.get(index) {
            let is_root = node.parent == usize::MAX;
            match (is_root, node.name) {
                (true, NOBODY) => {}
                (true, name) => path.push(roots.get(name as usize)?.as_str()),
                (false, name) => path.push(names.text(name)),
            }
            index = node.parent;
        }
        path.reverse();
        if path.is_empty() {
            path.push("[no stack]");
        }
        Some(format!("{} {count}", path.join(";")))
    };
    own.iter().enumerate().filter(|(_, count)| **count > 0).filter_map(line).collect()
}

/// A colour for each frame: its hue by kind, its shade by name.
fn palette(frames: &Frames, names: &Names) -> PaletteMap {
    let mut palette = PaletteMap::default();
    for frame in frames.all() {
        let text = names.text(names.id(frame));
        let shade = (text.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % 40) as u8;
        let (r, g, b) = match frame.kind.family() {
            Family::Kernel => (225 + shade / 2, 130 + shade, 40),
            Family::Generated => (80 + shade, 180 + shade, 80 + shade),
            Family::Interpreted => (200 + shade, 190 + shade, 70 + shade),
            Family::Marker => (150 + shade, 150 + shade, 150 + shade),
            Family::Go => (80 + shade, 170 + shade, 210 + shade),
            Family::Native if frame.inlined => (70 + shade, 180 + shade, 180 + shade),
            Family::Native => (215 + shade, 85 + shade, 75 + shade),
            Family::Other => (190 + shade, 150 + shade, 200 + shade),
        };
        palette.insert(text, Color { r, g, b });
    }
    palette
}

/// `text` without what XML cannot hold.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect()
}
