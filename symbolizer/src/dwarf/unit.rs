//! One compilation unit: where its functions are, and its lines.

use super::{
    Sections,
    bounds::{self, Bounds},
    reader::PagedReader,
    split::Split,
};
use gimli::{AttributeValue, Reader, Section, UnitOffset, constants as dw};
use std::{cell::OnceCell, rc::Rc};

/// Bytes of a row of lines, and of a function's range.
pub(super) const ROW: usize = size_of::<Row>();
pub(super) const FUNCTION: usize = size_of::<FunctionRange>();
/// Reads that one row of a line program may take: it lists files on the way as it likes.
const ROW_WORK: u64 = 64 << 10;

/// A unit whose tables are read when they are first needed.
pub(super) struct Unit {
    /// What the unit is in.
    sections: Rc<Sections>,
    unit: gimli::Unit<PagedReader>,
    /// Its functions, where they are in a file of their own; here are only addresses and lines then.
    split: Option<Split>,
    functions: OnceCell<Functions>,
    lines: OnceCell<Lines>,
    bounds: Bounds,
    /// Of its abbreviations and tables of files.
    header_bytes: u64,
}

impl Unit {
    pub fn read(sections: &Rc<Sections>, offset: usize, bounds: Bounds) -> gimli::Result<Self> {
        let header = sections.unit_header(gimli::DebugInfoOffset(offset))?;
        let abbreviations = sections.debug_abbrev.reader().section();
        let before = abbreviations.work();
        let unit = bounds::read_unit(sections, header, bounds.files)?;
        let header_bytes = before.saturating_sub(abbreviations.work()) * bounds::ABBREVIATION_READ + files_bytes(&unit);
        let (functions, lines) = (OnceCell::new(), OnceCell::new());
        Ok(Self { sections: sections.clone(), unit, split: None, functions, lines, bounds, header_bytes })
    }

    /// The unit as this file has it: of a split one, its addresses and lines.
    pub fn skeleton(&self) -> &gimli::Unit<PagedReader> {
        &self.unit
    }

    /// Takes the functions from elsewhere.
    pub fn set_split(&mut self, split: Split) {
        self.split = Some(split);
    }

    /// Sections of the other file.
    pub fn split(&self) -> Option<&Split> {
        self.split.as_ref()
    }

    /// What describes functions: sections and unit.
    pub fn info(&self) -> (&Sections, &gimli::Unit<PagedReader>) {
        match &self.split {
            Some(split) => (&split.sections, &split.unit),
            None => (&self.sections, &self.unit),
        }
    }

    pub fn functions(&self) -> gimli::Result<&Functions> {
        if let Some(functions) = self.functions.get() {
            return Ok(functions);
        }
        let (sections, unit) = self.info();
        let functions = Functions::read(sections, unit, self.bounds.functions)?;
        Ok(self.functions.get_or_init(|| functions))
    }

    pub fn lines(&self) -> gimli::Result<&Lines> {
        if let Some(lines) = self.lines.get() {
            return Ok(lines);
        }
        let lines = Lines::read(&self.sections, &self.unit, self.bounds)?;
        Ok(self.lines.get_or_init(|| lines))
    }

    /// Path of a file of the unit's table: its own, below its directory, below the compilation's. Lines and functions of a split unit
    /// have a table each; `of_lines` says which is meant.
    pub fn file(&self, index: u64, of_lines: bool) -> Option<String> {
        let (sections, unit) = match self.info() {
            // Before version 5 Clang numbers files by the program's own table.
            info if !of_lines && info.1.line_program.is_some() => info,
            _ => (&*self.sections, &self.unit),
        };
        let header = unit.line_program.as_ref()?.header();
        let file = header.file(index)?;
        let text = |value| {
            sections
                .attr_string(unit, value)
                .ok()
                .and_then(|r: PagedReader| Some(r.to_string_lossy().ok()?.into_owned()))
        };
        let mut path = text(file.path_name())?;
        if file.directory_index() != 0 || header.version() >= 5 {
            path = below(file.directory(header).and_then(text), path);
        }
        // Directory 0 of version 5 is the compilation's itself.
        if file.directory_index() == 0 && header.version() >= 5 {
            return Some(path);
        }
        let compiled_in = self
            .unit
            .comp_dir
            .as_ref()
            .or(unit.comp_dir.as_ref())
            .and_then(|dir| Some(dir.to_string_lossy().ok()?.into_owned()));
        Some(below(compiled_in, path))
    }

    /// Memory held, bytes, estimated.
    pub fn bytes(&self) -> u64 {
        let functions = self.functions.get().map_or(0, |f| f.0.capacity() * FUNCTION);
        let lines = self.lines.get().map_or(0, |l| l.rows.capacity() * ROW + l.sequences.capacity() * 24);
        (functions + lines + 4096) as u64 + self.header_bytes + self.split.as_ref().map_or(0, |split| split.bytes)
    }
}

/// Bytes that a unit's tables of files and directories take.
pub(super) fn files_bytes(unit: &gimli::Unit<PagedReader>) -> u64 {
    let entries = unit
        .line_program
        .as_ref()
        .map_or(0, |program| program.header().file_names().len() + program.header().include_directories().len());
    entries as u64 * bounds::FILE_ENTRY
}

fn below(directory: Option<String>, path: String) -> String {
    match directory {
        Some(directory) if !path.starts_with('/') && !directory.is_empty() => {
            format!("{}/{path}", directory.trim_end_matches('/'))
        }
        _ => path,
    }
}

#[derive(Clone, Copy)]
struct FunctionRange {
    start: u64,
    end: u64,
    entry: usize,
}

/// Address ranges of the unit's functions, by start.
pub(super) struct Functions(Vec<FunctionRange>);

impl Functions {
    fn read(sections: &Sections, unit: &gimli::Unit<PagedReader>, most: usize) -> gimli::Result<Self> {
        let mut found = Vec::new();
        let mut entries = unit.entries_raw(None)?;
        while !entries.is_empty() && found.len() < most {
            let entry = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            if abbreviation.tag() != dw::DW_TAG_subprogram {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let mut ranges = Ranges::default();
            for spec in abbreviation.attributes() {
                ranges.add(entries.read_attribute(*spec)?);
            }
            ranges.each(sections, unit, |start, end| {
                if start != 0 && found.len() < most {
                    found.push(FunctionRange { start, end, entry: entry.0 });
                }
            })?;
        }
        found.sort_unstable_by_key(|f| (f.start, f.end));
        found.shrink_to_fit();
        Ok(Self(found))
    }

    /// The entry of the innermost function at an address.
    pub fn find(&self, address: u64) -> Option<UnitOffset> {
        let next = self.0.partition_point(|f| f.start <= address);
        let before = self.0.get(..next)?;
        before.iter().rev().take(64).find(|f| f.end > address).map(|f| UnitOffset(f.entry))
    }
}

/// The attributes that say which addresses an entry covers.
#[derive(Default)]
pub(super) struct Ranges {
    low: Option<AttributeValue<PagedReader>>,
    high: Option<AttributeValue<PagedReader>>,
    ranges: Option<AttributeValue<PagedReader>>,
}

impl Ranges {
    pub fn add(&mut self, attribute: gimli::Attribute<PagedReader>) {
        match attribute.name() {
            dw::DW_AT_low_pc => self.low = Some(attribute.value()),
            dw::DW_AT_high_pc => self.high = Some(attribute.value()),
            dw::DW_AT_ranges => self.ranges = Some(attribute.value()),
            _ => {}
        }
    }

    pub fn each(
        self,
        sections: &Sections,
        unit: &gimli::Unit<PagedReader>,
        mut f: impl FnMut(u64, u64),
    ) -> gimli::Result<()> {
        if let Some(ranges) = self.ranges {
            let Some(offset) = sections.attr_ranges_offset(unit, ranges)? else { return Ok(()) };
            let mut ranges = sections.ranges(unit, offset)?;
            while let Some(range) = ranges.next()? {
                f(range.begin, range.end);
            }
            return Ok(());
        }
        let (Some(low), Some(high)) = (self.low, self.high) else { return Ok(()) };
        let Some(start) = sections.attr_address(unit, low)? else { return Ok(()) };
        let end = match high {
            AttributeValue::Udata(size) => Some(start.wrapping_add(size)),
            high => sections.attr_address(unit, high)?,
        };
        if let Some(end) = end.filter(|end| *end > start) {
            f(start, end);
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Row {
    address: u64,
    file: u32,
    line: u32,
    column: u32,
}

/// A place in the source.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub file: u64,
    pub line: u32,
    pub column: u32,
}

/// A run of rows without gaps.
#[derive(Clone, Copy)]
struct Sequence {
    start: u64,
    end: u64,
    first: u32,
    rows: u32,
}

/// The unit's line table.
#[derive(Default)]
pub(super) struct Lines {
    rows: Vec<Row>,
    sequences: Vec<Sequence>,
}

impl Lines {
    fn read(sections: &Sections, unit: &gimli::Unit<PagedReader>, bounds: Bounds) -> gimli::Result<Self> {
        let mut lines = Self::default();
        let Some(program) = unit.line_program.clone() else { return Ok(lines) };
        let (section, mut rows) = (sections.debug_line.reader().section(), program.rows());
        let mut left = section.work();
        let mut first = 0;
        loop {
            let step = left.min(ROW_WORK);
            section.set_work(step);
            let next = rows.next_row();
            let used_up = section.work() == 0;
            left -= step - section.work();
            section.set_work(if used_up { 0 } else { left });
            let Some((header, row)) = next? else { break };
            if header.file_names().len() as u64 > bounds.files {
                section.set_work(0);
                return Err(gimli::Error::Io);
            }
            if row.end_sequence() {
                lines.end_sequence(first, row.address(), unit);
                first = lines.rows.len();
                continue;
            }
            let new = Row {
                address: row.address(),
                file: u32::try_from(row.file_index()).unwrap_or(u32::MAX),
                line: row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0)),
                column: match row.column() {
                    gimli::ColumnType::LeftEdge => 0,
                    gimli::ColumnType::Column(column) => u32::try_from(column.get()).unwrap_or(0),
                },
            };
            // Of the rows of one address the last counts.
            match lines.rows.get_mut(first..).and_then(<[Row]>::last_mut) {
                Some(last) if last.address == new.address => *last = new,
                _ => lines.rows.push(new),
            }
            if lines.rows.len() >= bounds.rows {
                break;
            }
        }
        lines.sequences.sort_unstable_by_key(|s| s.start);
        lines.rows.shrink_to_fit();
        Ok(lines)
    }

    fn end_sequence(&mut self, first: usize, end: u64, unit: &gimli::Unit<PagedReader>) {
        let rows = self.rows.get_mut(first..).unwrap_or_default();
        // Rows of a sequence are in order by the standard; a search relies on it.
        if !rows.is_sorted_by_key(|row| row.address) {
            rows.sort_by_key(|row| row.address);
        }
        let start = rows.first().map_or(0, |row| row.address);
        if start == 0 || start >= end || unit.header.is_tombstone_address(start) {
            self.rows.truncate(first);
            return;
        }
        self.sequences.push(Sequence { start, end, first: first as u32, rows: rows.len() as u32 });
    }

    /// Start and end of each run of addresses.
    pub fn sequences(&self) -> impl Iterator<Item = (u64, u64)> {
        self.sequences.iter().map(|s| (s.start, s.end))
    }

    pub fn find(&self, address: u64) -> Option<Line> {
        let next = self.sequences.partition_point(|s| s.start <= address);
        let before = self.sequences.get(..next)?;
        let sequence = before.iter().rev().take(16).find(|s| s.end > address)?;
        let first = sequence.first as usize;
        let rows = self.rows.get(first..first.checked_add(sequence.rows as usize)?)?;
        let row = rows.get(rows.partition_point(|row| row.address <= address).checked_sub(1)?)?;
        Some(Line { file: row.file.into(), line: row.line, column: row.column })
    }
}
