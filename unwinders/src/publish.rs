//! What publishes processes and their mappings to the kernel half; what unwinds them is a [runtime]'s.
//!
//! ```text
//!  process ── mappings (sorted range) ── each: rows of an executable, and whose code it is
//!     │ published on its first sample
//! ```
//!
//! The kernel half reads all this while it changes, so nothing that is published is rewritten while it may be read: a process whose
//! mappings change gets a new range, and the old one is used again only after a second.

mod pieces;
mod refusals;

use std::sync::Arc;

use profiler_address::{ElfVaddr, UserAddr};
use profiler_bpf::abi::{self, FrameKind, NO_EXECUTABLE};
use profiler_bpf::native::Walk;
use profiler_bpf::record::{Continuation, RuntimeFrame, UnwindEnd, UserFrame};
use profiler_bpf::{Error, ProcessTables, Tables};
use rustc_hash::FxHashMap;

use self::refusals::Refusals;
pub use self::refusals::Refused;
use crate::executable::{Executable, ExecutableId, Mapper};
use crate::maps::{Backing, FileId, Mapping};
use crate::native::{Native, find, kind_of, loop_of};
use crate::process::{AddressSpace, Process};
use crate::ranges::Ranges;
use crate::reading::Reading;
use crate::runtime::{self, Instance, Loader, MAX_FRAMES, MAX_PIECES, Named, RuntimeError, Runtimes};

/// A sample that saw a range before it was replaced has long left the kernel half after this time, ns.
const REUSE_AFTER_NS: u64 = 1_000_000_000;

/// User addresses are below this, with five-level page tables too.
const USER_END: u64 = 1 << 56;

/// Of one process, the kernel half gets this many mappings at most; what is in no other is unwound in user space.
const MAX_PUBLISHED: usize = abi::MAX_MAPPINGS / 4;
/// Anonymous mappings of one process that are compared with the file next to them: programs move their code in a few pieces.
const MAX_COMPARED: usize = 64;
/// Processes with more mappings than this have those joined that differ in nothing but a gap.
const JOIN_ABOVE: usize = 1024;
/// Runtimes of a kind in one process: a program that maps a thousand interpreters must not have a thousand requests made for each sample, nor
/// the places of all others.
const MAX_RUNTIMES: usize = 8;

/// What was published and loaded, and what could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Executables whose rows were loaded; again, if they had made room for others.
    pub loaded: u64,
    /// Rows of all of them.
    pub rows: u64,
    /// Executables whose rows made room for others.
    pub evicted: u64,
    /// Executables that could not be opened, read or understood; their code is unwound by frame pointer.
    pub failed: u64,
    /// Times that rows were left out because the byte budget or a table was full of what is in use.
    pub over_budget: u64,
    /// Times that rows, and the samples that need them, waited for memory that the kernel half can read.
    pub waited: u64,
    /// Times that a process's mappings did not all fit the kernel half's tables; what is in the others is unwound in user space.
    pub unpublished: u64,
    /// Times that a runtime was left out of a process: it has too many, or the kernel half's table was full.
    pub runtimes_left_out: u64,
}

/// How many entries of the kernel half's tables are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableUse {
    /// Processes, counted in the kernel.
    pub processes: usize,
    /// Mappings, those included that rest before they are used again.
    pub mappings: usize,
    /// Runtimes in processes, the same.
    pub runtimes: usize,
    /// The native unwinder's tables.
    pub native: crate::native::RowUse,
}

/// What the kernel half knows of one process.
#[derive(Debug)]
struct Published {
    serial: u32,
    version: u32,
    space: Option<AddressSpace>,
    /// For walks on this side; the kernel half may have fewer.
    mappings: Vec<abi::Mapping>,
    /// First and number of those that the kernel half has; none if it does not know the process.
    range: Option<(u32, u32)>,
    attached: Vec<Attached>,
    refusals: Refusals,
    /// Some of its files could not be opened for now, or a runtime was not ready: it is laid out anew then (`CLOCK_MONOTONIC`, ns).
    again_at: u64,
    /// That is so since a runtime was not ready.
    not_ready: bool,
}

/// What there is to be published of a process.
struct LaidOut {
    mappings: Vec<abi::Mapping>,
    attached: Vec<Attached>,
    refusals: Refusals,
    again_at: Option<u64>,
    not_ready: bool,
}

/// What a runtime has to do with an executable of a process.
#[derive(Debug)]
struct Attached {
    executable: ExecutableId,
    kind: FrameKind,
    /// None: it is not of this kind.
    instance: Option<Box<dyn Instance>>,
}

/// The same while a process is laid out.
type Instances = FxHashMap<(ExecutableId, FrameKind), Option<Box<dyn Instance>>>;

/// Owner of the kernel half's tables of processes and mappings.
#[derive(Debug)]
pub struct Publisher {
    tables: ProcessTables,
    native: Native,
    runtimes: Runtimes,
    loaders: Vec<Box<dyn Loader>>,
    processes: FxHashMap<u32, Published>,
    ranges: Ranges,
    next_version: u32,
    unopened: u64,
    unpublished: u64,
    runtimes_left_out: u64,
    refused: Refused,
}

impl Publisher {
    /// Fills `tables`, for all [`loaders`](runtime::loaders).
    #[must_use]
    pub fn new(tables: ProcessTables, native: Native, runtimes: Runtimes) -> Self {
        let loaders = runtime::loaders(&native, &runtimes);
        Self::with_loaders(tables, native, runtimes, loaders)
    }

    /// All of `tables` filled, with at most `row_budget` bytes of rows.
    ///
    /// # Errors
    /// The tables cannot be written.
    pub fn of(tables: Tables, row_budget: usize) -> Result<Self, Error> {
        let native = Native::new(tables.rows, row_budget)?;
        Ok(Self::new(tables.processes, native, Runtimes::new(tables.instances)))
    }

    /// Fills `tables`, for these loaders.
    #[must_use]
    pub fn with_loaders(
        tables: ProcessTables,
        native: Native,
        runtimes: Runtimes,
        loaders: Vec<Box<dyn Loader>>,
    ) -> Self {
        Self {
            tables,
            native,
            runtimes,
            loaders,
            processes: FxHashMap::default(),
            ranges: Ranges::new(abi::MAX_MAPPINGS as u32),
            next_version: 1,
            unopened: 0,
            unpublished: 0,
            runtimes_left_out: 0,
            refused: Refused::new(),
        }
    }

    /// What was done and what was not.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let native = self.native.stats();
        Stats {
            loaded: native.loaded,
            rows: native.rows,
            evicted: native.evicted,
            failed: native.failed + self.unopened,
            over_budget: native.over_budget,
            waited: native.waited,
            unpublished: self.unpublished,
            runtimes_left_out: self.runtimes_left_out,
        }
    }

    /// Runtimes that have no part in their process: each once for a process and reason.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// How full the tables are.
    #[must_use]
    pub fn table_use(&self) -> TableUse {
        TableUse {
            processes: self.tables.process_count(),
            mappings: abi::MAX_MAPPINGS - self.ranges.available() as usize,
            runtimes: self.runtimes.in_use(),
            native: self.native.table_use(),
        }
    }

    /// Runtimes other than that.
    #[must_use]
    pub fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// Processes that are to be published again by now, since a runtime of theirs was not ready.
    #[must_use]
    pub fn due(&self, now: u64) -> Vec<u32> {
        let due = self.processes.iter().filter(|(_, published)| published.not_ready && published.again_at <= now);
        due.map(|(&pid, _)| pid).collect()
    }

    /// The native unwinder.
    #[must_use]
    pub fn native(&self) -> &Native {
        &self.native
    }

    /// Bytes of what this side keeps, the native unwinder's included, to within some per cent.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let mappings: usize = self.processes.values().map(|published| published.mappings.capacity()).sum();
        let attached: usize = self.processes.values().map(|published| published.attached.capacity()).sum();
        let instances = |published: &Published| -> usize {
            let instances = published.attached.iter().filter_map(|attached| attached.instance.as_deref());
            instances.map(Instance::memory_bytes).sum::<usize>() + published.refusals.memory_bytes()
        };
        mappings * size_of::<abi::Mapping>()
            + self.processes.capacity() * (size_of::<(u32, Published)>() + 1)
            + attached * (size_of::<Attached>() + 32)
            + self.processes.values().map(instances).sum::<usize>()
            + self.native.memory_bytes()
    }

    /// Gives back what is no longer needed; to be called about once a second.
    pub fn tidy(&mut self, now: u64) {
        self.ranges.free_before(now.saturating_sub(REUSE_AFTER_NS));
        for loader in &mut self.loaders {
            loader.tidy(now);
        }
    }

    /// Makes what is known of `process` the kernel half's knowledge; nothing happens if it has that already.
    pub fn publish(&mut self, process: &Process, reading: &mut dyn Reading, now: u64) {
        if let Some(published) = self.processes.get(&process.pid)
            && published.serial == process.serial
            && published.version == process.mappings_version
            && published.space == process.address_space
            && now < published.again_at
        {
            return;
        }
        let mut kept = Instances::default();
        let (mut range, mut other_image, mut refusals) = (None, Vec::new(), Refusals::default());
        if let Some(before) = self.processes.remove(&process.pid) {
            range = before.range;
            if before.serial == process.serial {
                refusals = before.refusals;
                kept.extend(before.attached.into_iter().map(|a| ((a.executable, a.kind), a.instance)));
            } else {
                other_image = before.attached;
            }
        }
        let laid_out = self.lay_out(process, reading, (&mut kept, refusals), now);
        let LaidOut { mappings, attached, refusals, again_at, not_ready } = laid_out;
        detach(other_image.into_iter().filter_map(|a| a.instance).chain(kept.into_values().flatten()), now);
        if let Some((first, count)) = range {
            self.ranges.release(first, count, now);
        }
        let mut published = Published {
            serial: process.serial,
            version: process.mappings_version,
            space: process.address_space,
            range: None,
            mappings,
            attached,
            refusals,
            again_at: again_at.unwrap_or(u64::MAX),
            not_ready,
        };
        if process.address_space.is_some() && process.ended.is_none() {
            self.ranges.free_before(now.saturating_sub(REUSE_AFTER_NS));
            let most = self.most_useful(&published.mappings);
            self.unpublished += u64::from(most.is_some());
            let mappings = most.as_deref().unwrap_or(&published.mappings);
            match self.write_process(process, mappings) {
                Ok(first) => published.range = Some((first, mappings.len() as u32)),
                Err(error) => {
                    // What is known of it there is at a range that others will get.
                    self.tables.remove_process(process.pid);
                    self.unpublished += 1;
                    tracing::debug!(pid = process.pid, %error, "A process is unwound in user space.");
                }
            }
        } else if range.is_some() {
            // What the kernel half knows of it is at a range that others will get.
            self.tables.remove_process(process.pid);
        }
        self.processes.insert(process.pid, published);
    }

    /// If there are more mappings than the kernel half gets: those that hold code, and the larger of them first.
    fn most_useful(&self, mappings: &[abi::Mapping]) -> Option<Vec<abi::Mapping>> {
        if mappings.len() <= MAX_PUBLISHED {
            return None;
        }
        let mut most = mappings.to_vec();
        most.sort_by_cached_key(|mapping| {
            std::cmp::Reverse((self.native.has_code(mapping), mapping.end - mapping.start))
        });
        most.truncate(MAX_PUBLISHED);
        most.sort_unstable_by_key(|mapping| mapping.start);
        Some(most)
    }

    fn write_process(&mut self, process: &Process, mappings: &[abi::Mapping]) -> Result<u32, Error> {
        let count = mappings.len() as u32;
        let full = Error::TableFull { table: "mapping", capacity: abi::MAX_MAPPINGS };
        let first = self.ranges.allocate(count).ok_or(full)?;
        let version = self.next_version;
        self.next_version = self.next_version.checked_add(1).unwrap_or(1);
        let space = process.address_space.unwrap_or_default();
        let entry = abi::Process {
            start_code: space.start_code,
            start_stack: space.start_stack,
            version,
            first,
            count,
            pad: 0,
        };
        let written = self.tables.write_mappings(first as usize, mappings);
        written.and_then(|()| self.tables.set_process(process.pid, &entry)).inspect_err(|_| {
            self.ranges.release(first, count, 0);
        })?;
        Ok(first)
    }

    /// Forgets a process that has ended.
    pub fn forget(&mut self, pid: u32, now: u64) {
        if let Some(old) = self.processes.remove(&pid) {
            detach(old.attached.into_iter().filter_map(|a| a.instance), now);
            if let Some((first, count)) = old.range {
                self.ranges.release(first, count, now);
            }
        }
        self.tables.remove_process(pid);
    }

    /// All mappings as the kernel half wants them, and the runtimes that have a part in them: those of `kept`, which they are taken
    /// from, and new ones.
    fn lay_out(
        &mut self,
        process: &Process,
        reading: &mut dyn Reading,
        (kept, mut refusals): (&mut Instances, Refusals),
        now: u64,
    ) -> LaidOut {
        // The vsyscall page is an address of the kernel, which the unwinder's search takes for negative.
        let mapped: Vec<&Mapping> = process.mappings.iter().filter(|mapping| mapping.end.0 <= USER_END).collect();
        let (opened, mut again_at) = self.open(process, &mapped, reading);
        let mut all: Vec<abi::Mapping> = Vec::with_capacity(mapped.len());
        let mut own: FxHashMap<ExecutableId, (Arc<Executable>, Vec<&Mapping>)> = FxHashMap::default();
        for (mapping, executable) in mapped.into_iter().zip(opened) {
            all.push(abi::Mapping {
                start: mapping.start.0,
                end: mapping.end.0,
                bias: 0,
                executable: NO_EXECUTABLE,
                unwinder: u32::from(FrameKind::NATIVE.number()),
            });
            if let Some(executable) = executable {
                let entry = own.entry(executable.id).or_insert_with(|| (executable, Vec::new()));
                entry.1.push(mapping);
            }
        }
        refusals.keep(|id| own.contains_key(&id));
        for (executable, _) in own.values() {
            refusals.note(executable, &mut self.refused);
        }
        let mut not_ready = false;
        let mut left_out = 0;
        let mut attached = Vec::with_capacity(own.len() * self.loaders.len());
        for loader in &mut self.loaders {
            let kind = loader.kind();
            let mut runtimes = 0;
            for (&id, (executable, mappings)) in &own {
                if refusals.is_for_good(id, kind) {
                    continue;
                }
                if kind != FrameKind::NATIVE && executable.runtime == Some(kind) {
                    runtimes += 1;
                    if runtimes > MAX_RUNTIMES {
                        left_out += 1;
                        refusals.too_many(id, kind, &mut self.refused);
                        continue;
                    }
                }
                let mut instance = match kept.remove(&(id, kind)) {
                    Some(instance) => instance,
                    None => match loader.attach(executable, process, reading, now) {
                        Ok(instance) => {
                            refusals.forget(id, kind);
                            instance
                        }
                        Err(error) => {
                            let is_full = matches!(error, RuntimeError::TableFull(_));
                            left_out += u64::from(is_full && kind != FrameKind::NATIVE);
                            if let Some(pause) = refusals.refuse(id, kind, &error, &mut self.refused) {
                                let pause = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
                                let again = now.saturating_add(pause);
                                again_at = Some(again_at.unwrap_or(again).min(again));
                                not_ready = true;
                            }
                            let path = executable.path_text();
                            tracing::debug!(pid = process.pid, %path, ?kind, %error, "A runtime is left out for now.");
                            continue;
                        }
                    },
                };
                let pieces = match instance.as_mut() {
                    Some(instance) => instance.pieces(process, mappings, reading, now),
                    None => Vec::new(),
                };
                for piece in pieces.iter().take(MAX_PIECES) {
                    pieces::lay(&mut all, piece, kind);
                }
                attached.push(Attached { executable: id, kind, instance });
            }
        }
        self.runtimes_left_out += left_out;
        if process.mappings.len() > JOIN_ABOVE {
            join(&mut all);
        }
        LaidOut { mappings: all, attached, refusals, again_at, not_ready }
    }

    /// What each of `mapped` maps, and when to ask again if some of it was not told.
    fn open(
        &mut self,
        process: &Process,
        mapped: &[&Mapping],
        reading: &mut dyn Reading,
    ) -> (Vec<Option<Arc<Executable>>>, Option<u64>) {
        // Neighbours often map the same: they have one answer.
        let mut wanted: Vec<&Mapping> = Vec::new();
        let mut answers: Vec<Option<usize>> = Vec::with_capacity(mapped.len());
        let mut last: Option<(FileId, usize)> = None;
        let mut compared = 0;
        for &mapping in mapped {
            let file = mapping.file().map(|(file, _)| file);
            let is_copy = matches!(mapping.backing, Backing::Replaced(_));
            compared += usize::from(is_copy);
            let too_many = is_copy && compared > MAX_COMPARED;
            let answer = match last.filter(|(known, _)| Some(*known) == file) {
                Some((_, answer)) => Some(answer),
                None if too_many || matches!(mapping.backing, Backing::Anonymous | Backing::Vsyscall) => None,
                None => {
                    wanted.push(mapping);
                    Some(wanted.len() - 1)
                }
            };
            last = file.zip(answer);
            answers.push(answer);
        }
        if wanted.is_empty() {
            return (vec![None; mapped.len()], None);
        }
        let opened = reading.open(&Mapper::of(process), &wanted);
        let found: Vec<Option<Arc<Executable>>> = wanted
            .iter()
            .zip(opened.executables)
            .map(|(mapping, answer)| {
                answer
                    .inspect_err(|error| {
                        // JIT code may lie anywhere.
                        self.unopened += u64::from(!matches!(mapping.backing, Backing::Replaced(_)));
                        tracing::debug!(pid = process.pid, ?mapping, %error, "A mapped file cannot be opened.");
                    })
                    .ok()
            })
            .collect();
        let each = answers.into_iter().map(|answer| found.get(answer?).cloned().flatten()).collect();
        (each, opened.again_at)
    }

    /// Walks on from where the kernel half stopped; see [`Native::walk`].
    pub fn walk(
        &self,
        process: &Process,
        reading: &mut dyn Reading,
        walk: &mut Walk,
        from: (&Continuation, &[u8]),
        frames: &mut Vec<UserFrame>,
    ) -> UnwindEnd {
        match self.processes.get(&process.pid) {
            Some(published) => {
                let of = (process.pid, published.mappings.as_slice(), &self.runtimes);
                self.native.walk(of, reading, walk, from, frames)
            }
            None => UnwindEnd::UnknownProcess,
        }
    }

    /// Loads the rows of everything that `pid` maps and is published, so that its first sample finds them.
    pub fn preload(&self, pid: u32, reading: &mut dyn Reading) {
        if let Some(published) = self.processes.get(&pid) {
            self.native.preload(&published.mappings, reading);
        }
    }

    /// Makes ready for `process`, which is about to map `file`: its rows are loaded, and what it is of a runtime is found out, so that
    /// little is left to be done then. Returns what it is, if it is an executable.
    pub fn expect(
        &self,
        process: &Mapper<'_>,
        file: &Mapping,
        reading: &mut dyn Reading,
        now: u64,
    ) -> Option<Arc<Executable>> {
        let executable = reading.open(process, &[file]).executables.pop()?.ok()?;
        self.native.expect(&executable, reading, now);
        if executable.runtime.is_some() {
            // It is not mapped, so there is nothing to attach to yet; what its file says is kept for when it is.
            let _ = reading.attach(process, &executable, &[]);
        }
        Some(executable)
    }

    /// Whether anything is published of this pid.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// Whose code `address` is in a process that is published.
    #[must_use]
    pub fn unwinder(&self, pid: u32, address: UserAddr) -> FrameKind {
        let mapping = self.processes.get(&pid).and_then(|published| find(&published.mappings, address));
        mapping.map_or(FrameKind::NATIVE, |mapping| kind_of(&mapping))
    }

    /// The interpreter whose loop `address` is in, in a process that is published.
    #[must_use]
    pub fn eval_loop(&self, pid: u32, address: UserAddr) -> Option<runtime::EvalLoop> {
        loop_of(&find(&self.processes.get(&pid)?.mappings, address)?)
    }

    /// The executable and ELF address of `address` in a process that is published; its rows count as used.
    #[must_use]
    pub fn locate(&self, pid: u32, address: UserAddr, now: u64) -> Located {
        let Some(published) = self.processes.get(&pid) else { return Located::Nowhere };
        let Some(mapping) = find(&published.mappings, address) else { return Located::Nowhere };
        match self.native.locate(mapping.executable, now) {
            Some(executable) => Located::Executable(executable, ElfVaddr(address.0.wrapping_sub(mapping.bias))),
            None => Located::Other,
        }
    }

    /// The functions that each of `frames`, runtimes' frames in `pid`, stands for, or why nobody can tell (any more).
    #[must_use]
    pub fn names(&mut self, pid: u32, frames: &[RuntimeFrame], reading: &mut dyn Reading) -> Vec<Named> {
        let nobody: Named = Err(Arc::from("runtime: process gone"));
        let mut names = vec![nobody; frames.len()];
        let Some(published) = self.processes.get(&pid) else { return names };
        for attached in &published.attached {
            let Some(opaque) = attached.instance.as_ref().and_then(|instance| instance.opaque()) else { continue };
            // Two runtimes of a kind in one process: whoever knows the frame.
            let unnamed = frames.iter().zip(&names).enumerate().filter(|(_, (_, name))| name.is_err());
            let of_kind = |(place, (frame, _)): (usize, (&RuntimeFrame, &Named))| {
                (frame.kind == attached.kind).then_some((place, *frame))
            };
            let wanted: Vec<(usize, RuntimeFrame)> = unnamed.filter_map(of_kind).collect();
            for wanted in wanted.chunks(MAX_FRAMES) {
                let of: Vec<RuntimeFrame> = wanted.iter().map(|(_, frame)| *frame).collect();
                for ((place, _), named) in wanted.iter().zip(reading.names(pid, attached.kind, opaque, &of)) {
                    if let Some(slot) = names.get_mut(*place) {
                        *slot = named;
                    }
                }
            }
        }
        names
    }
}

fn detach(instances: impl Iterator<Item = Box<dyn Instance>>, now: u64) {
    instances.for_each(|instance| instance.detach(now));
}

/// Joins neighbours that differ in nothing but a gap: there nothing is executed, so nothing is looked up.
fn join(all: &mut Vec<abi::Mapping>) {
    all.dedup_by(|next, before| {
        let same = |mapping: &abi::Mapping| (mapping.executable, mapping.bias, mapping.unwinder);
        let joins = same(next) == same(before);
        if joins {
            before.end = next.end;
        }
        joins
    });
}

/// What lies at an address of a process.
#[derive(Clone, Debug)]
pub enum Located {
    /// Code of a file, at an ELF address.
    Executable(Arc<Executable>, ElfVaddr),
    /// Executable memory that is anonymous, made by a JIT most likely, or of a file that could not be opened.
    Other,
    /// No executable mapping that we know.
    Nowhere,
}
