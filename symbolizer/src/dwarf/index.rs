//! Which unit an address is in.

use super::{Sections, bounds::Bounds, reader::PagedReader, unit};
use gimli::{AttributeValue, UnitHeader, constants as dw};
use rustc_hash::FxHashSet;
use std::rc::Rc;

const MAX_UNITS: usize = 1 << 20;
/// Bytes of an address range.
pub(super) const RANGE: usize = size_of::<Range>();
type Value = AttributeValue<PagedReader>;

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    /// Offset of the unit in `.debug_info`.
    unit: usize,
    /// The largest end up to here: where it is not above an address, no earlier range holds the address.
    reach: u64,
}

/// Address ranges of all units, by start, and where units begin.
#[derive(Debug, Default)]
pub(super) struct Index {
    ranges: Vec<Range>,
    /// Offsets and ends of units in `.debug_info`, in order.
    units: Vec<(usize, usize)>,
    /// Ranges that were left out, there being too many.
    full: bool,
}

impl Index {
    /// Reads all unit headers and the first entry of each, with `before_each` before it. A unit that cannot be read is left out,
    /// the others stay.
    pub fn build(sections: &Rc<Sections>, bounds: Bounds, before_each: impl Fn()) -> Self {
        let mut index = Self::default();
        let mut headers = sections.units();
        let mut without_list = FxHashSet::default();
        while let Ok(Some(header)) = headers.next() {
            let Some(offset) = header.debug_info_offset() else { continue };
            index.units.push((offset.0, offset.0.saturating_add(header.length_including_self())));
            if !matches!(header.type_(), gimli::UnitType::Compilation | gimli::UnitType::Skeleton(_)) {
                continue;
            }
            before_each();
            let mut add = |start: u64, end: u64| index.add(start, end, offset.0, bounds.ranges);
            let found = root_ranges(sections, &header, &mut add).unwrap_or(Found::List);
            if found != Found::List {
                without_list.insert(offset.0);
            }
            if found == Found::Nothing
                && let Ok(unit) = unit::Unit::read(sections, offset.0, bounds)
            {
                // No ranges given (assembly, some old compilers): those of its line table.
                if let Ok(lines) = unit.lines() {
                    lines.sequences().for_each(|(start, end)| add(start, end));
                }
            }
            if index.units.len() >= MAX_UNITS {
                break;
            }
        }
        // DWARF 2 has no lists of ranges: a unit gives one range, of several; the others are only here.
        if !without_list.is_empty() {
            let _ = index.add_aranges(sections, &without_list, bounds.ranges);
        }
        index.join();
        let mut reach = 0;
        for range in &mut index.ranges {
            reach = reach.max(range.end);
            range.reach = reach;
        }
        index.ranges.shrink_to_fit();
        index.units.shrink_to_fit();
        index
    }

    /// Where units begin and end, and nothing of their addresses.
    pub fn of_units(sections: &Sections) -> Self {
        let mut index = Self::default();
        let mut headers = sections.units();
        while let Ok(Some(header)) = headers.next() {
            let Some(offset) = header.debug_info_offset() else { continue };
            index.units.push((offset.0, offset.0.saturating_add(header.length_including_self())));
            if index.units.len() >= MAX_UNITS {
                break;
            }
        }
        index
    }

    fn add(&mut self, start: u64, end: u64, unit: usize, most: usize) {
        // 0 and the top addresses stand for functions that the linker dropped.
        if start == 0 || start >= end || start >= u64::MAX - 16 || self.full {
            return;
        }
        self.ranges.push(Range { start, end, unit, reach: 0 });
        if self.ranges.len() >= most {
            self.join();
            // Else it would be done at every few.
            self.full = self.ranges.len() >= most - most / 4;
        }
    }

    /// Sorts ranges, and makes one of functions of one unit that follow on each other.
    fn join(&mut self) {
        self.ranges.sort_unstable_by_key(|r| (r.start, r.end));
        self.ranges.dedup_by(|later, earlier| {
            let joined = later.unit == earlier.unit && later.start <= earlier.end;
            if joined {
                earlier.end = earlier.end.max(later.end);
            }
            joined
        });
    }

    /// Whether ranges were left out.
    pub const fn is_full(&self) -> bool {
        self.full
    }

    /// Takes the ranges of those units from `.debug_aranges`.
    fn add_aranges(&mut self, sections: &Sections, of: &FxHashSet<usize>, most: usize) -> gimli::Result<()> {
        let mut headers = sections.debug_aranges.headers();
        while let Some(header) = headers.next()? {
            let unit = header.debug_info_offset().0;
            if !of.contains(&unit) {
                continue;
            }
            let mut entries = header.entries();
            // An entry may be of nothing, and then malformed; the others stay.
            for entry in std::iter::from_fn(|| entries.next().transpose()).take(most).flatten() {
                self.add(entry.range().begin, entry.range().end, unit, most);
            }
        }
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        (self.ranges.capacity() * size_of::<Range>() + self.units.capacity() * 16) as u64
    }

    /// Offsets of the units whose ranges hold an address, the one with the closest start first.
    pub fn units_at(&self, address: u64) -> Vec<usize> {
        let next = self.ranges.partition_point(|r| r.start <= address);
        let before = self.ranges.get(..next).unwrap_or_default();
        let mut found = Vec::new();
        for range in before.iter().rev().take_while(|r| r.reach > address).take(1024) {
            if range.end > address && !found.contains(&range.unit) {
                found.push(range.unit);
                if found.len() == 4 {
                    break;
                }
            }
        }
        found
    }

    /// The unit that an offset into `.debug_info` is in.
    pub fn unit_with(&self, offset: usize) -> Option<usize> {
        let before = self.units.partition_point(|(start, _)| *start <= offset);
        let (start, end) = self.units.get(before.checked_sub(1)?)?;
        (offset < *end).then_some(*start)
    }
}

/// What a unit's first entry says of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A list of ranges, or that there is nothing to be had.
    List,
    /// One range; there may be others.
    One,
    Nothing,
}

/// Gives the ranges of a unit's first entry to `add`.
///
/// Not through [`gimli::Unit`]: that would read the file table of every unit.
fn root_ranges(
    sections: &Sections,
    header: &UnitHeader<PagedReader>,
    add: &mut impl FnMut(u64, u64),
) -> gimli::Result<Found> {
    let abbreviations = sections.abbreviations(header)?;
    let mut entries = header.entries_raw(&abbreviations, None)?;
    let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(Found::List) };
    if abbreviation.tag() != dw::DW_TAG_compile_unit && abbreviation.tag() != dw::DW_TAG_skeleton_unit {
        return Ok(Found::List);
    }
    let (mut low, mut high, mut ranges) = (None, None, None);
    let format = header.format();
    let version5 = header.version() >= 5;
    let mut address_base =
        gimli::DebugAddrBase(if version5 { if format == gimli::Format::Dwarf64 { 16 } else { 8 } } else { 0 });
    let mut lists_base =
        gimli::DebugRngListsBase::default_for_encoding_and_file(header.encoding(), gimli::DwarfFileType::Main);
    for spec in abbreviation.attributes() {
        let attribute = entries.read_attribute(*spec)?;
        match (attribute.name(), attribute.value()) {
            (dw::DW_AT_low_pc, value) => low = Some(value),
            (dw::DW_AT_high_pc, value) => high = Some(value),
            (dw::DW_AT_ranges, value) => ranges = Some(value),
            (dw::DW_AT_addr_base | dw::DW_AT_GNU_addr_base, Value::DebugAddrBase(base)) => address_base = base,
            (dw::DW_AT_rnglists_base, Value::DebugRngListsBase(base)) => lists_base = base,
            _ => {}
        }
    }
    let address = |value: Option<Value>| match value {
        Some(Value::Addr(address)) => Ok(Some(address)),
        Some(Value::DebugAddrIndex(index)) => {
            sections.debug_addr.get_address(header.address_size(), address_base, index).map(Some)
        }
        _ => Ok(None),
    };
    let start = address(low)?;
    let offset = match ranges {
        Some(Value::RangeListsRef(offset)) => Some(gimli::RangeListsOffset(offset.0)),
        Some(Value::DebugRngListsIndex(index)) => {
            Some(sections.ranges.get_offset(header.encoding(), lists_base, index)?)
        }
        _ => None,
    };
    if let Some(offset) = offset {
        let base = start.unwrap_or(0);
        let mut ranges = sections.ranges.ranges(offset, header.encoding(), base, &sections.debug_addr, address_base)?;
        let mut found = false;
        while let Some(range) = ranges.next()? {
            add(range.begin, range.end);
            found = true;
        }
        return Ok(if found { Found::List } else { Found::Nothing });
    }
    let end = match (start, high) {
        (Some(start), Some(Value::Udata(size))) => Some(start.wrapping_add(size)),
        (_, high) => address(high)?,
    };
    match (start, end) {
        (Some(start), Some(end)) => {
            add(start, end);
            Ok(Found::One)
        }
        _ => Ok(Found::Nothing),
    }
}
