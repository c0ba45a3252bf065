//! The prefix tree of all stacks, root first, that the viewer draws.
//!
//! A node is a call path of *frames*: function, module, kind, inlined or not, guessed or not. Frames that differ only in
//! line, address or tier share a node, as a flame graph's reader expects; which place in the function a node stands for is
//! kept beside it, and where the leaf was, exactly, is kept with the weights.
//!
//! ```text
//!  stacks (leaf first)      nodes in preorder, heaviest child first
//!  0: read  main  _start    depth 1  _start
//!  1: write main  _start          2    main
//!  2: exit  _start                3      write
//!                                 3      read
//!                                 2    exit
//! ```

use std::io;

use rustc_hash::FxHashMap;

use profiler_model::{FrameKind, LocationId, Profiles, StringId, Tier, frames::address_name};

/// What the viewer counts as one function: the lines of its table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Function {
    /// Name; of code without a symbol, its file and address.
    pub name: Name,
    /// Path of the executable, a string of the profile; 0 if unknown.
    pub module: StringId,
    /// Source file, a string of the profile; 0 if unknown.
    pub file: StringId,
    /// First line; 0 if unknown.
    pub line: u32,
}

/// The name of a [`Function`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// A string of the profile.
    Known(StringId),
    /// There is no symbol: file and address stand for the function. An index into [`Tree::addresses`].
    Address(u32),
}

/// What a node of the tree shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    /// Index into [`Tree::functions`].
    pub function: u32,
    /// What runs here.
    pub kind: FrameKind,
    /// The compiler inlined this function into its caller.
    pub inlined: bool,
    /// See [`profiler_model::Location::guessed`].
    pub guessed: bool,
}

/// A place in a frame's function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Index into [`Tree::frames`].
    pub frame: u32,
    /// Source line; 0 if unknown.
    pub line: u32,
    /// Address in the module's space; 0 if there is none.
    pub address: u64,
    /// How its runtime runs it.
    pub tier: Option<Tier>,
}

/// A node of the tree.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// 1 for the outermost frame of a stack.
    pub depth: u32,
    /// Index into [`Tree::places`]: one that holds the majority of the node's weight if there is such a place.
    pub place: u32,
    /// The node has other places too.
    pub several: bool,
    /// Among them some that run in another way.
    pub tiers: bool,
}

/// Weight of a node's own, not of its children.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Index into [`Tree::nodes`] plus one: 0 is the root, where a sample without a stack ends.
    pub node: u32,
    /// Index into [`Profiles::threads`] plus one; 0 if unknown.
    pub thread: u32,
    /// Index into [`Tree::places`] of the leaf; 0 for a row of the root.
    pub place: u32,
    /// One value for each of the sample types.
    pub values: Box<[u64]>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub functions: Vec<Function>,
    /// Names of code without a symbol, as all formats have them.
    pub addresses: Vec<String>,
    pub frames: Vec<Frame>,
    pub places: Vec<Place>,
    /// In preorder, the heaviest child first by the sample type shown first; without the root.
    pub nodes: Vec<Node>,
    /// By node.
    pub rows: Vec<Row>,
    /// Values below zero, as files of differences have them: no width can show them, and they are left out.
    pub negative: u64,
}

/// The samples of one stack in one thread, added up.
struct Weight {
    stack: u32,
    /// See [`Row::thread`].
    thread: u32,
    values: Box<[u64]>,
}

/// A location's places, outermost first.
type Places = Box<[u32]>;

/// A node while the tree grows.
struct Growing {
    parent: u32,
    place: u32,
    several: bool,
    tiers: bool,
    /// Boyer-Moore vote for `place`.
    vote: u64,
    total: u64,
}

fn missing(what: &str, index: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the profile refers to {what} {index}, which it does not have"))
}

fn index(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "more than 2^32 distinct frames"))
}

fn intern<T: Clone + Eq + std::hash::Hash>(
    table: &mut Vec<T>,
    ids: &mut FxHashMap<T, u32>,
    value: T,
) -> io::Result<u32> {
    if let Some(&id) = ids.get(&value) {
        return Ok(id);
    }
    let id = index(table.len())?;
    table.push(value.clone());
    ids.insert(value, id);
    Ok(id)
}

impl Tree {
    /// The tree of `profile`.
    pub fn of(profile: &Profiles) -> io::Result<Self> {
        let mut tree = Self::default();
        let weights = tree.weights(profile)?;
        let places = tree.places(profile)?;
        let (growing, leaves) = grow(profile, &weights, &places, &tree.places)?;
        let order = tree.order(&growing)?;
        tree.rows(profile, weights, &places, &leaves, &order)?;
        Ok(tree)
    }

    /// The samples of each stack and thread, added up; by stack, then thread.
    fn weights(&mut self, profile: &Profiles) -> io::Result<Vec<Weight>> {
        let measured = profile.measured();
        let mut sums: FxHashMap<(u32, u32), Box<[u64]>> = FxHashMap::default();
        for (position, part) in profile.profiles.iter().enumerate() {
            // Where each value of a sample goes, and what it is worth there.
            let columns: Vec<(usize, usize, u64)> = measured
                .iter()
                .enumerate()
                .flat_map(|(column, measured)| {
                    let of_part = measured.positions().filter(move |(at, _)| *at == position);
                    of_part.map(move |(_, index)| (index, column, measured.scale(position)))
                })
                .collect();
            for sample in &part.samples {
                if sample.stack as usize >= profile.stacks.len() {
                    return Err(missing("stack", sample.stack));
                }
                let thread = match sample.thread {
                    None => 0,
                    Some(thread) if (thread as usize) < profile.threads.len() => thread + 1,
                    Some(thread) => return Err(missing("thread", thread)),
                };
                let sum = sums.entry((sample.stack, thread)).or_insert_with(|| vec![0; measured.len()].into());
                for &(index, column, scale) in &columns {
                    let value = sample.values.as_slice().get(index).copied().unwrap_or(0);
                    match (u64::try_from(value), sum.get_mut(column)) {
                        (Ok(value), Some(sum)) => *sum = sum.saturating_add(value.saturating_mul(scale)),
                        _ => self.negative += 1,
                    }
                }
            }
        }
        let weights = sums.into_iter().map(|((stack, thread), values)| Weight { stack, thread, values });
        let mut weights: Vec<_> = weights.collect();
        weights.sort_unstable_by_key(|weight| (weight.stack, weight.thread));
        Ok(weights)
    }

    /// Each location of `profile` as places, outermost first.
    fn places(&mut self, profile: &Profiles) -> io::Result<Vec<Places>> {
        let (mut functions, mut frames, mut places) = Default::default();
        let mut addresses = FxHashMap::default();
        let mut by_location = Vec::with_capacity(profile.locations.len());
        for location in &profile.locations {
            let module = match location.mapping {
                None => 0,
                Some(id) => profile.mappings.get(id as usize).ok_or_else(|| missing("mapping", id))?.file,
            };
            let mut expanded = Vec::with_capacity(location.lines.len().max(1));
            let mut address = |tree: &mut Vec<String>| {
                intern(tree, &mut addresses, address_name(profile, location)).map(Name::Address)
            };
            let mut add = |function: Function, line: u32, inlined: bool| -> io::Result<()> {
                let function = intern(&mut self.functions, &mut functions, function)?;
                let frame = Frame { function, kind: location.kind, inlined, guessed: location.guessed };
                let frame = intern(&mut self.frames, &mut frames, frame)?;
                let place = Place { frame, line, address: location.address, tier: location.tier };
                expanded.push(intern(&mut self.places, &mut places, place)?);
                Ok(())
            };
            if location.lines.is_empty() {
                let name = address(&mut self.addresses)?;
                add(Function { name, module, file: 0, line: 0 }, 0, false)?;
            }
            for (nth, line) in location.lines.iter().rev().enumerate() {
                let function =
                    profile.functions.get(line.function as usize).ok_or_else(|| missing("function", line.function))?;
                let name = match function.name {
                    0 => address(&mut self.addresses)?,
                    known => Name::Known(known),
                };
                add(Function { name, module, file: function.file, line: function.start_line }, line.line, nth > 0)?;
            }
            by_location.push(expanded.into());
        }
        Ok(by_location)
    }

    /// Fills [`Self::nodes`]; gives each growing node's final index.
    fn order(&mut self, growing: &[Growing]) -> io::Result<Vec<u32>> {
        let frame_of = |node: &Growing| self.places.get(node.place as usize).map_or(0, |place| place.frame);
        // Heaviest last, since the stack below pops from the end; equal weights by frame, so that the order is one.
        let mut children: Vec<u32> = (1..index(growing.len())?).collect();
        let key = |&id: &u32| {
            let node = &growing[id as usize];
            (node.parent, node.total, std::cmp::Reverse(frame_of(node)))
        };
        children.sort_unstable_by_key(key);
        let mut first = vec![0_usize; growing.len() + 1];
        for node in growing.iter().skip(1) {
            first[node.parent as usize + 1] += 1;
        }
        for i in 1..first.len() {
            first[i] += first[i - 1];
        }
        let mut order = vec![0_u32; growing.len()];
        let mut nodes = Vec::with_capacity(growing.len());
        let mut pending = vec![(0_u32, 0_u32)];
        while let Some((id, depth)) = pending.pop() {
            if id > 0 {
                let node = &growing[id as usize];
                nodes.push(Node { depth, place: node.place, several: node.several, tiers: node.tiers });
                order[id as usize] = index(nodes.len())?;
            }
            let own = &children[first[id as usize]..first[id as usize + 1]];
            pending.extend(own.iter().map(|&child| (child, depth + 1)));
        }
        self.nodes = nodes;
        Ok(order)
    }

    /// Fills [`Self::rows`].
    fn rows(
        &mut self,
        profile: &Profiles,
        weights: Vec<Weight>,
        places: &[Places],
        leaves: &[u32],
        order: &[u32],
    ) -> io::Result<()> {
        let mut rows = Vec::with_capacity(weights.len());
        for Weight { stack, thread, values } in weights {
            let leaf = profile.stacks[stack as usize].first().and_then(|&location| places[location as usize].last());
            let node = order[leaves[stack as usize] as usize];
            rows.push(Row { node, thread, place: leaf.copied().unwrap_or(0), values });
        }
        rows.sort_unstable_by_key(|row| (row.node, row.thread, row.place));
        rows.dedup_by(|row, kept| {
            let same = (row.node, row.thread, row.place) == (kept.node, kept.thread, kept.place);
            if same {
                for (sum, value) in kept.values.iter_mut().zip(&row.values) {
                    *sum = sum.saturating_add(*value);
                }
            }
            same
        });
        self.rows = rows;
        Ok(())
    }
}

/// The tree of all stacks that have samples, in the order of growth, and the leaf of each stack; node 0 is the root.
fn grow(
    profile: &Profiles,
    weights: &[Weight],
    places: &[Places],
    table: &[Place],
) -> io::Result<(Vec<Growing>, Vec<u32>)> {
    let shown = profile.shown_first();
    let mut nodes = vec![Growing { parent: 0, place: 0, several: false, tiers: false, vote: 0, total: 0 }];
    let mut children: FxHashMap<(u32, u32), u32> = FxHashMap::default();
    let mut leaves = vec![0_u32; profile.stacks.len()];
    for group in weights.chunk_by(|a, b| a.stack == b.stack) {
        let stack = group[0].stack as usize;
        let weight = group.iter().fold(0_u64, |sum, one| sum.saturating_add(one.values[shown]));
        let mut at = 0_u32;
        for &location in profile.stacks[stack].iter().rev() {
            for &place in expanded(places, location)? {
                let next = index(nodes.len())?;
                let child = *children.entry((at, table[place as usize].frame)).or_insert(next);
                if child == next {
                    nodes.push(Growing { parent: at, place, several: false, tiers: false, vote: 0, total: 0 });
                }
                let node = &mut nodes[child as usize];
                node.total = node.total.saturating_add(weight);
                node.several |= node.place != place;
                node.tiers |= table[node.place as usize].tier != table[place as usize].tier;
                if node.place == place {
                    node.vote = node.vote.saturating_add(weight);
                } else if node.vote >= weight {
                    node.vote -= weight;
                } else {
                    node.place = place;
                    node.vote = weight - node.vote;
                }
                at = child;
            }
        }
        leaves[stack] = at;
    }
    Ok((nodes, leaves))
}

fn expanded(places: &[Places], location: LocationId) -> io::Result<&[u32]> {
    places.get(location as usize).map(|places| &**places).ok_or_else(|| missing("location", location))
}
