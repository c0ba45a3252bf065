//! Files, lines and inlined functions from DWARF 2 to 5.
//!
//! ```text
//!  .debug_info ── index (once): address range -> unit
//!                    └─ unit (kept while memory allows): address range -> function entry, address -> line
//!                          └─ function (each lookup): the chain of inlined entries around the address, their names
//! ```
//!
//! Sections are read in 16 KiB chunks as they are needed, so a gigabyte of debug info costs the index (one pass over the unit
//! headers) and the units asked for. Every count is capped, every walk is iterative, and reads are counted against a limit
//! set anew for each lookup; a file that exceeds it loses its lines and keeps its symbol names.

mod bounds;
mod function;
mod index;
mod reader;
mod split;
mod unit;

use crate::frame::{Frame, LeftOut, Names, Texts};
use crate::native::Debug;
use crate::symbolizer::{Options, Stats};
use bounds::Bounds;
use function::{Described, Function};
use gimli::Section as _;
use index::Index;
use profiler_elf::{Bytes, Elf, Paged, SHT_NOBITS, decompress};
use reader::PagedReader;
use rustc_hash::FxHashMap;
use split::Splits;
use std::{rc::Rc, sync::Arc, time::Duration};
use unit::Unit;

type Sections = gimli::Dwarf<PagedReader>;

/// Reads allowed for one lookup, for each section. The largest units of large programs take a tenth of it.
const LOOKUP_WORK: u64 = 48 << 20;
/// Reads allowed for the index, for each section.
const INDEX_WORK: u64 = 512 << 20;
/// CPU time that a file's lookups may take before their cost is looked at, and then for each address on average.
const FREE_TIME: Duration = Duration::from_secs(4);
const TIME_EACH: Duration = Duration::from_millis(10);
/// Reads allowed where a read makes more memory than it costs: abbreviations for each unit, and file tables and lines.
const ABBREVIATION_WORK: u64 = 512 << 10;
const LINE_WORK: u64 = 16 << 20;

/// Why a file has no lines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DwarfError {
    #[error("no debug info")]
    Missing,
    #[error("{found} bytes of debug info where at most {limit} are looked into")]
    TooLarge { found: u64, limit: u64 },
    #[error("debug info cannot be read: {0}")]
    Elf(#[from] profiler_elf::Error),
    #[error("malformed debug info: {0}")]
    Malformed(#[from] gimli::Error),
    #[error("debug info takes too much work")]
    TooMuchWork,
}

impl DwarfError {
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Elf(profiler_elf::Error::TooLarge { .. }))
    }
}

/// The debug info of one file.
pub(crate) struct Dwarf {
    sections: Rc<Sections>,
    /// The sections that are read, to set limits and count memory.
    paged: Vec<(gimli::SectionId, Rc<Paged>)>,
    index: Index,
    /// What several files have in common, and where its units are.
    common: Option<(Rc<Sections>, Index)>,
    splits: Splits,
    units: FxHashMap<(File, usize), Cached>,
    bounds: Bounds,
    /// Of abbreviations that several units share, bytes, estimated.
    abbreviations_bytes: u64,
    functions: FxHashMap<(Home, usize), Option<Described>>,
    files: FxHashMap<Box<str>, Arc<str>>,
    texts_bytes: u64,
    /// Room for texts that were not given before.
    pub texts: Texts,
    clock: u64,
    addresses: u32,
    spent: Duration,
}

/// A file with units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum File {
    /// The one at hand.
    Own,
    /// The one that it has in common with others.
    Common,
}

/// What an offset of a function's entry counts from: a file's `.debug_info`, or that of the split unit whose skeleton is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Home {
    File(File),
    Split(usize),
}

/// Where a frame stands, by the numbers that debug info has.
#[derive(Clone, Copy, Default)]
struct Location {
    file: Option<u64>,
    line: u32,
    column: u32,
    /// The file's number is of the table of lines, not of that of functions.
    of_lines: bool,
}

impl From<unit::Line> for Location {
    fn from(line: unit::Line) -> Self {
        Self { file: Some(line.file), line: line.line, column: line.column, of_lines: true }
    }
}

struct Cached {
    unit: Rc<Unit>,
    used: u64,
}

impl Dwarf {
    /// Opens the debug info of a file and builds its index.
    pub fn open(debug: &Debug, stats: &mut Stats, options: &Options) -> Result<Self, DwarfError> {
        let (elf, place, started) = (&debug.elf, debug.place.as_ref(), cpu_time());
        let bounds = Bounds::of(options);
        let (found, limit) = (debug_bytes(elf), bounds.sections);
        if elf.section(".debug_info").or_else(|| elf.section(".zdebug_info")).is_none() {
            return Err(DwarfError::Missing);
        }
        if found > limit {
            return Err(DwarfError::TooLarge { found, limit });
        }
        let (mut paged, mut left, mut sections_left) = (Vec::new(), bounds.inflated, limit - found);
        let mut sections = Sections::load(|id| section(elf, id, &mut paged, &mut left))?;
        let common = match place.map(|(place, at)| place.supplement(elf, at)) {
            Some(Ok(Some(common))) if debug_bytes(&common) > sections_left => {
                stats.dwarf_too_large += 1;
                None
            }
            Some(Ok(Some(common))) => {
                sections_left -= debug_bytes(&common);
                let first = paged.len();
                sections.set_sup(Sections::load(|id| section(&common, id, &mut paged, &mut left))?);
                // The same sections again, for units that are read from there.
                let mut again = paged.get(first..).unwrap_or_default().to_vec().into_iter();
                let mut number = first;
                Some(Sections::load(|_| {
                    number += 1;
                    let section = again.next().map_or_else(|| Rc::new(Paged::empty()), |(_, section)| section);
                    Ok::<_, DwarfError>(PagedReader::new(section, number as u8))
                })?)
            }
            Some(Err(())) => {
                stats.supplement_missing += 1;
                None
            }
            _ => None,
        };
        paged.iter().for_each(|(_, section)| section.set_work(LOOKUP_WORK));
        let abbreviations_bytes = share_abbreviations(&mut sections, bounds.shared_abbreviations);
        let common = common.map(|common| (Rc::new(common), Index::default()));
        let mut dwarf = Self {
            sections: Rc::new(sections),
            paged,
            index: Index::default(),
            common,
            splits: Splits::new(place.map(|(place, _)| place.clone()), bounds, sections_left, left),
            units: FxHashMap::default(),
            bounds,
            abbreviations_bytes,
            functions: FxHashMap::default(),
            files: FxHashMap::default(),
            texts_bytes: 0,
            texts: Texts::default(),
            clock: 0,
            addresses: 0,
            spent: Duration::ZERO,
        };
        dwarf.allow(INDEX_WORK);
        let renew = || dwarf.renew(gimli::SectionId::DebugAbbrev, ABBREVIATION_WORK);
        let index = Index::build(&dwarf.sections, bounds, renew);
        let common = dwarf.common.as_ref().map(|(sections, _)| Index::of_units(sections));
        dwarf.index = index;
        if let (Some((_, index)), Some(units)) = (&mut dwarf.common, common) {
            *index = units;
        }
        if dwarf.out_of_work() {
            return Err(DwarfError::TooMuchWork);
        }
        if dwarf.index.is_full() {
            stats.dwarf_too_large += 1;
        }
        dwarf.spent = cpu_time().saturating_sub(started);
        Ok(dwarf)
    }

    /// Memory held, bytes, estimated.
    pub fn bytes(&self) -> u64 {
        let units: u64 = self.units.values().map(|cached| cached.unit.bytes()).sum();
        let common = self.common.as_ref().map_or(0, |(_, index)| index.bytes());
        units
            + common
            + self.splits.bytes()
            + self.paged.iter().map(|(_, p)| p.max_bytes()).sum::<u64>()
            + self.index.bytes()
            + self.abbreviations_bytes
            + self.texts_bytes
    }

    /// The functions at an address, innermost first; empty if debug info does not cover it. `symbol` is the name that symbol
    /// tables have for the address: it also names the outermost function, so that a function has one name in all profiles. Empty too
    /// if there was no room for one of the names: frames of others would say what is not so.
    pub fn frames(
        &mut self,
        address: u64,
        symbol: Result<Option<&Names>, LeftOut>,
        stats: &mut Stats,
    ) -> Result<Vec<Frame>, DwarfError> {
        if self.spent > FREE_TIME + TIME_EACH * self.addresses {
            return Err(DwarfError::TooMuchWork);
        }
        let started = cpu_time();
        self.allow(LOOKUP_WORK);
        let frames = self.look_up(address, symbol);
        self.splits.count(stats);
        self.addresses = self.addresses.saturating_add(1);
        self.spent += cpu_time().saturating_sub(started);
        self.shrink();
        if self.out_of_work() {
            return Err(DwarfError::TooMuchWork);
        }
        Ok(frames?)
    }

    fn allow(&self, work: u64) {
        for (id, section) in self.all_paged() {
            section.set_work(match id {
                gimli::SectionId::DebugAbbrev => ABBREVIATION_WORK,
                gimli::SectionId::DebugLine => work.min(LINE_WORK),
                _ => work,
            });
        }
    }

    fn all_paged(&self) -> impl Iterator<Item = &(gimli::SectionId, Rc<Paged>)> {
        let split = self.units.values().filter_map(|cached| cached.unit.split());
        self.paged.iter().chain(self.splits.paged()).chain(split.flat_map(|split| &split.paged))
    }

    fn renew(&self, of: gimli::SectionId, work: u64) {
        self.paged.iter().filter(|(id, _)| *id == of).for_each(|(_, section)| section.set_work(work));
    }

    fn out_of_work(&self) -> bool {
        self.all_paged().any(|(_, section)| section.work() == 0)
    }

    fn look_up(&mut self, address: u64, symbol: Result<Option<&Names>, LeftOut>) -> gimli::Result<Vec<Frame>> {
        let mut only_line = None;
        for offset in self.index.units_at(address) {
            let unit = self.unit(offset)?;
            let line = unit.lines()?.find(address);
            let Some(entry) = unit.functions()?.find(address) else {
                only_line = only_line.or(line.map(|line| (unit, line)));
                continue;
            };
            let mut location = line.map(Location::from);
            let home = if unit.split().is_some() { Home::Split(offset) } else { Home::File(File::Own) };
            let mut frames = Vec::new();
            for inlined in function::inlined_at(&unit, entry, address)?.iter().rev() {
                let Ok(described) = self.described(&unit, home, inlined.origin)? else { return Ok(Vec::new()) };
                frames.push(self.frame(&unit, described, location, None));
                location = Some(Location {
                    file: inlined.call_file,
                    line: inlined.call_line,
                    column: inlined.call_column,
                    of_lines: false,
                });
            }
            let described = self.described(&unit, home, Function::In(entry))?;
            let named = matches!(symbol, Ok(Some(_))) || matches!(described, Ok(Some(_)));
            if !named && (symbol.is_err() || described.is_err()) {
                return Ok(Vec::new());
            }
            let (described, symbol) = (described.ok().flatten(), symbol.ok().flatten());
            frames.push(self.frame(&unit, described, location, symbol));
            return Ok(frames);
        }
        // Assembly has lines and no functions.
        Ok(match (only_line, symbol) {
            (Some((unit, line)), Ok(Some(symbol))) => {
                vec![self.frame(&unit, None, Some(line.into()), Some(symbol))]
            }
            _ => Vec::new(),
        })
    }

    /// One frame; `symbol` beats the name that debug info has.
    fn frame(
        &mut self,
        unit: &Unit,
        described: Option<Described>,
        location: Option<Location>,
        symbol: Option<&Names>,
    ) -> Frame {
        let Location { file, line, column, of_lines } = location.unwrap_or_default();
        let names = symbol.cloned().or_else(|| described.as_ref().map(|d| d.names.clone()));
        let path = file.and_then(|file| unit.file(file, of_lines));
        let file = path.and_then(|path| {
            if let Some(known) = self.files.get(&*path) {
                return Some(known.clone());
            }
            let bytes = 2 * path.len() as u64 + 64;
            self.texts.take(bytes).ok()?;
            let shared: Arc<str> = path.as_str().into();
            self.texts_bytes += bytes;
            self.files.insert(path.into(), shared.clone());
            Some(shared)
        });
        let mut frame = Frame::named(names.unwrap_or_else(|| Names::plain("<unnamed function>")));
        frame.file = file;
        frame.line = line;
        frame.column = column;
        frame.start_line = described.map_or(0, |d| d.start_line);
        frame
    }

    fn unit(&mut self, offset: usize) -> gimli::Result<Rc<Unit>> {
        self.unit_of(File::Own, offset)
    }

    fn unit_of(&mut self, file: File, offset: usize) -> gimli::Result<Rc<Unit>> {
        self.clock += 1;
        if let Some(cached) = self.units.get_mut(&(file, offset)) {
            cached.used = self.clock;
            return Ok(cached.unit.clone());
        }
        let sections = match (file, &self.common) {
            (File::Common, Some((sections, _))) => sections,
            _ => &self.sections,
        };
        let mut unit = Unit::read(sections, offset, self.bounds)?;
        if file == File::Own
            && unit.skeleton().dwo_id.is_some()
            && let Some(split) = self.splits.find(&self.sections, unit.skeleton())
        {
            unit.set_split(split);
        }
        let unit = Rc::new(unit);
        self.units.insert((file, offset), Cached { unit: unit.clone(), used: self.clock });
        Ok(unit)
    }

    /// Name and first line of a function, following its references to its declaration, in this unit or another; none if it has no name.
    fn described(
        &mut self,
        unit: &Rc<Unit>,
        home: Home,
        function: Function,
    ) -> gimli::Result<Result<Option<Described>, LeftOut>> {
        let of = if matches!(function, Function::Common(_)) { Home::File(File::Common) } else { home };
        let Some(offset) = function.section_offset(unit) else { return Ok(Ok(None)) };
        let key = (of, offset);
        if let Some(known) = self.functions.get(&key) {
            return Ok(Ok(known.clone()));
        }
        let mut description = function::Description::default();
        let (mut unit, mut home) = (unit.clone(), home);
        let mut next = Some(function);
        // A chain is an inlined copy, its abstract instance and a declaration; a loop is hostile.
        for _ in 0..16 {
            let Some(function) = next.take() else { break };
            let entry = match function {
                Function::In(entry) => entry,
                Function::Elsewhere(offset) | Function::Common(offset) => {
                    if matches!(function, Function::Common(_)) {
                        home = Home::File(File::Common);
                    }
                    if let Home::File(file) = home {
                        let index = match (file, &self.common) {
                            (File::Common, Some((_, index))) => index,
                            (File::Common, None) => break,
                            (File::Own, _) => &self.index,
                        };
                        let Some(start) = index.unit_with(offset) else { break };
                        unit = self.unit_of(file, start)?;
                    }
                    // A split unit refers to itself only.
                    let Some(entry) = gimli::DebugInfoOffset(offset).to_unit_offset(&unit.info().1.header) else {
                        break;
                    };
                    entry
                }
            };
            next = description.add(&unit, entry)?;
        }
        let described = description.finish();
        let bytes = described.as_ref().map_or(0, |d| d.names.bytes()) + 64;
        if let Err(left_out) = self.texts.take(bytes) {
            return Ok(Err(left_out));
        }
        self.texts_bytes += bytes;
        self.functions.insert(key, described.clone());
        Ok(Ok(described))
    }

    /// Lets go of units, longest unused first, and of names, to stay within bounds of its own.
    fn shrink(&mut self) {
        let mut bytes: u64 = self.units.values().map(|cached| cached.unit.bytes()).sum();
        while bytes > self.bounds.units && self.units.len() > 1 {
            let oldest = self.units.iter().min_by_key(|(_, cached)| cached.used).map(|(unit, _)| *unit);
            let Some(cached) = oldest.and_then(|unit| self.units.remove(&unit)) else { return };
            bytes = bytes.saturating_sub(cached.unit.bytes());
            if let Some(split) = cached.unit.split() {
                self.splits.close(split);
            }
        }
        if self.texts_bytes > 16 << 20 {
            self.functions.clear();
            self.files.clear();
            self.texts_bytes = 0;
        }
    }
}

/// CPU time of this thread: on a busy machine the clock on the wall says little of the work done.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Bytes of a file's debug sections, as it has them.
fn debug_bytes(elf: &Elf) -> u64 {
    let sections = elf.sections().iter().filter(|s| s.kind != SHT_NOBITS);
    let debug = sections.filter(|s| s.name.starts_with(".debug_") || s.name.starts_with(".zdebug_"));
    debug.fold(0, |sum, s| sum.saturating_add(s.size))
}

/// Keeps abbreviations that several units share, as far as `work` goes; gives the bytes that they take. Where it does not go far enough each
/// unit reads its own.
fn share_abbreviations(sections: &mut Sections, work: u64) -> u64 {
    let work_left = |sections: &Sections| sections.debug_abbrev.reader().section().work();
    sections.debug_abbrev.reader().section().set_work(work);
    sections.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    let left = work_left(sections);
    if left == 0 {
        // Failures would be kept too.
        sections.abbreviations_cache = gimli::AbbreviationsCache::new();
        return 0;
    }
    (work - left) * bounds::ABBREVIATION_READ
}

/// A debug section as a reader. Compressed ones are unpacked into memory, others are read where they are.
fn section(
    elf: &Elf,
    id: gimli::SectionId,
    paged: &mut Vec<(gimli::SectionId, Rc<Paged>)>,
    inflated_left: &mut u64,
) -> Result<PagedReader, DwarfError> {
    section_named(elf, id, id.name(), paged, inflated_left)
}

fn section_named(
    elf: &Elf,
    id: gimli::SectionId,
    name: &str,
    paged: &mut Vec<(gimli::SectionId, Rc<Paged>)>,
    inflated_left: &mut u64,
) -> Result<PagedReader, DwarfError> {
    // 16 KiB each: units are read front to back, strings at random.
    let slots = match id {
        gimli::SectionId::DebugInfo | gimli::SectionId::DebugStr => 256,
        gimli::SectionId::DebugLine | gimli::SectionId::DebugRanges | gimli::SectionId::DebugRngLists => 64,
        gimli::SectionId::DebugAbbrev | gimli::SectionId::DebugAddr | gimli::SectionId::DebugStrOffsets => 32,
        gimli::SectionId::DebugLineStr | gimli::SectionId::DebugAranges | gimli::SectionId::DebugCuIndex => 16,
        // Not read, but a package must have what its index counts.
        _ if name.ends_with(".dwo") => 1,
        _ => 0,
    };
    let of_memory = |data: Vec<u8>| {
        let len = data.len() as u64;
        Paged::new(Bytes::Unpacked(data.into()), 0, len, 0)
    };
    let left = *inflated_left;
    let old_name = name.replacen(".debug_", ".zdebug_", 1);
    let content = match (elf.section(name), elf.section(&old_name)) {
        _ if slots == 0 => Paged::empty(),
        (Some(section), _) if section.is_compressed() => of_memory(elf.data(section, left)?),
        (Some(section), _) => elf.paged(section, slots),
        (None, Some(section)) => of_memory(decompress::gnu(elf.stream(section), left)?),
        (None, None) => Paged::empty(),
    };
    *inflated_left -= if content.is_memory() { content.len().min(left) } else { 0 };
    let content = Rc::new(content);
    paged.push((id, content.clone()));
    Ok(PagedReader::new(content, paged.len() as u8))
}

#[cfg(test)]
mod tests;
