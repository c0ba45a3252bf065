//! The data block of the page, before compression.
//!
//! ```text
//! u32, little-endian   bytes of JSON
//! JSON                 what is small or text: origin, losses, sample types, processes, threads, strings, counts
//! columns              each one LEB128 number an entry; "delta": zigzag of the difference to the entry before
//!   functions   name (delta) | module | file | line
//!   frames      function (delta) | flags: 1 inlined, 2 guessed, kind * 4
//!   places      frame (delta) | line | address, low 32 bits (delta) | high 32 bits (delta) | tier: its number + 1, 0 if not known
//!   nodes       depth | place * 4 + (has several) + 2 * (of several tiers)
//!   rows        node (delta) | thread | place (delta) | a value column for each sample type
//! ```
//!
//! The reader is `otlp/page/viewer/src/decode.js`.

use std::io::{self, Write};

use profiler_model::{Family, FrameKind, KindNames, Profiles, StringId, Tier};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::tree::{Name, Node, Tree};

/// The greatest integer that a JavaScript number holds exactly.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// Writes `profile` as the viewer reads it.
pub(super) fn write(profile: &Profiles, out: &mut impl Write) -> io::Result<()> {
    let tree = Tree::of(profile)?;
    let mut strings = Strings::new(profile);
    let mut columns = Columns::default();

    let functions = &tree.functions;
    let addresses: Vec<u32> = tree.addresses.iter().map(|name| strings.own(name.as_str())).collect();
    let mut names = Vec::with_capacity(functions.len());
    for function in functions {
        names.push(match function.name {
            Name::Known(id) => strings.of(id)?,
            Name::Address(index) => addresses.get(index as usize).copied().unwrap_or(0),
        });
    }
    columns.delta(names.iter().map(|&name| u64::from(name)));
    for function in functions {
        columns.number(strings.of(function.module)?.into());
    }
    for function in functions {
        columns.number(strings.of(function.file)?.into());
    }
    columns.plain(functions.iter().map(|function| function.line.into()));

    columns.delta(tree.frames.iter().map(|frame| frame.function.into()));
    for frame in &tree.frames {
        columns.number(u64::from(frame.inlined) | u64::from(frame.guessed) << 1 | u64::from(frame.kind.number()) << 2);
    }

    columns.delta(tree.places.iter().map(|place| place.frame.into()));
    columns.plain(tree.places.iter().map(|place| place.line.into()));
    columns.delta(tree.places.iter().map(|place| place.address & 0xffff_ffff));
    columns.delta(tree.places.iter().map(|place| place.address >> 32));
    columns.plain(tree.places.iter().map(|place| place.tier.map_or(0, |tier| u64::from(tier.number()) + 1)));

    columns.plain(tree.nodes.iter().map(|node| node.depth.into()));
    let flags = |node: &Node| u64::from(node.several) | u64::from(node.tiers) << 1;
    columns.plain(tree.nodes.iter().map(|node| u64::from(node.place) << 2 | flags(node)));

    columns.delta(tree.rows.iter().map(|row| row.node.into()));
    columns.plain(tree.rows.iter().map(|row| row.thread.into()));
    columns.delta(tree.rows.iter().map(|row| row.place.into()));
    for nth in 0..profile.measured().len() {
        columns.plain(tree.rows.iter().map(|row| row.values.get(nth).copied().unwrap_or(0).min(MAX_SAFE)));
    }

    let header = header(profile, &tree, &mut strings)?;
    let length = u32::try_from(header.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "names of more than 4 GiB"))?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&header)?;
    out.write_all(&columns.bytes)
}

/// The JSON part. Comes last, since it holds the strings that the columns use.
fn header(profile: &Profiles, tree: &Tree, strings: &mut Strings<'_>) -> io::Result<Vec<u8>> {
    let mut processes = Vec::with_capacity(profile.processes.len());
    for process in &profile.processes {
        let name = match strings.of(process.name)? {
            0 => strings.own(profile.process_label(process).to_owned()),
            name => name,
        };
        let (executable, container) = (strings.of(process.executable)?, strings.of(process.container_id)?);
        processes.push(json!([process.pid, name, executable, container]));
    }
    let mut threads = Vec::with_capacity(profile.threads.len());
    for thread in &profile.threads {
        if thread.process as usize >= profile.processes.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a thread names a process that is not there"));
        }
        threads.push(json!([thread.process, thread.tid, strings.of(thread.name)?]));
    }
    let measured = profile.measured();
    let types: Vec<Value> = measured
        .iter()
        .map(|measured| {
            let (kind, every) = (measured.sample_type(), measured.period_type());
            json!({
                "kind": kind.kind, "unit": kind.unit, "name": measured.name(), "title": measured.title(),
                "period": [every.kind, every.unit, measured.period()],
            })
        })
        .collect();
    let (start, end) = profile.window();
    let losses: Vec<Value> = profile.losses.iter().map(|loss| json!([loss.reason, loss.count.min(MAX_SAFE)])).collect();
    let origin = &profile.origin;
    let header = json!({
        "version": 4,
        "origin": {
            "host": origin.host_name, "kernel": origin.kernel_release, "arch": origin.arch, "cpus": origin.cpus,
            "frequency": origin.frequency, "target": origin.target, "producer": origin.producer,
        },
        "start_ms": start / 1_000_000,
        "duration_ns": end.saturating_sub(start).min(MAX_SAFE),
        "kinds": kinds(tree),
        "tiers": Tier::TABLE.iter().map(|tier| tier.name()).collect::<Vec<_>>(),
        "types": types,
        "shown": profile.shown_first(),
        "losses": losses,
        "comments": profile.comments,
        "negative": tree.negative,
        "processes": processes,
        "threads": threads,
        "strings": strings.table,
        "counts": {
            "functions": tree.functions.len(), "frames": tree.frames.len(), "places": tree.places.len(),
            "nodes": tree.nodes.len(), "rows": tree.rows.len(), "samples": profile.sample_entries(),
        },
    });
    Ok(serde_json::to_vec(&header)?)
}

/// What the viewer has to know of the kinds of frames: number, what it is painted as, name, meaning. Native frames and markers
/// are always among them, since the viewer tells inlined functions and incomplete stacks by them.
fn kinds(tree: &Tree) -> Vec<Value> {
    let mut used: Vec<FrameKind> = tree.frames.iter().map(|frame| frame.kind).collect();
    used.extend([FrameKind::Native, FrameKind::Marker]);
    used.sort_unstable();
    used.dedup();
    let known = used.iter().filter_map(|kind| kind.names());
    let row = |row: &KindNames| json!([row.kind.number(), paint(row.family), row.name, row.about]);
    let mut all: Vec<Value> = known.map(row).collect();
    if let Some(other) = used.iter().find(|kind| kind.names().is_none()) {
        all.push(json!([other.number(), paint(Family::Other), "Other", "code of a kind that is not known"]));
    }
    all
}

/// What `otlp/page/viewer/src/colors.js` calls the colour of `family`.
fn paint(family: Family) -> &'static str {
    match family {
        Family::Native => "native",
        Family::Kernel => "kernel",
        Family::Go => "go",
        Family::Generated => "jit",
        Family::Interpreted => "script",
        Family::Marker => "marker",
        Family::Other => "other",
    }
}

/// The strings that the page needs, in the order of their first use; 0 is "".
struct Strings<'a> {
    profile: &'a Profiles,
    ids: FxHashMap<StringId, u32>,
    table: Vec<std::borrow::Cow<'a, str>>,
}

impl<'a> Strings<'a> {
    fn new(profile: &'a Profiles) -> Self {
        Self { profile, ids: std::iter::once((0, 0)).collect(), table: vec!["".into()] }
    }

    /// The page's id for string `id` of the profile.
    fn of(&mut self, id: StringId) -> io::Result<u32> {
        if let Some(&known) = self.ids.get(&id) {
            return Ok(known);
        }
        let text = self.profile.strings.get(id as usize).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the profile refers to string {id}, which it does not have"),
            )
        })?;
        let new = self.own(text.as_str());
        self.ids.insert(id, new);
        Ok(new)
    }

    /// The page's id for a text that is no string of the profile.
    fn own(&mut self, text: impl Into<std::borrow::Cow<'a, str>>) -> u32 {
        self.table.push(text.into());
        (self.table.len() - 1) as u32
    }
}

/// The columns so far.
#[derive(Default)]
struct Columns {
    bytes: Vec<u8>,
}

impl Columns {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn plain(&mut self, values: impl Iterator<Item = u64>) {
        for value in values {
            self.number(value);
        }
    }

    /// Values below 2^53: their differences fit an `i64`.
    fn delta(&mut self, values: impl Iterator<Item = u64>) {
        let mut before = 0_i64;
        for value in values {
            let difference = (value as i64).wrapping_sub(before);
            self.number((difference << 1 ^ difference >> 63) as u64);
            before = value as i64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_leb128_and_deltas_zigzag() {
        let mut columns = Columns::default();
        columns.plain([0, 127, 128, MAX_SAFE].into_iter());
        assert_eq!(columns.bytes, [0, 127, 0x80, 1, 255, 255, 255, 255, 255, 255, 255, 15]);
        let mut columns = Columns::default();
        columns.delta([5, 3, 4].into_iter());
        assert_eq!(columns.bytes, [10, 3, 2]);
    }
}
