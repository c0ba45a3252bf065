//! One function: what is inlined at an address, and what functions are called.

use super::{
    Sections,
    unit::{Ranges, Unit},
};
use crate::frame::Names;
use gimli::{AttributeValue, Reader, UnitOffset, constants as dw};

/// Deepest chain of inlined calls that is followed.
const MAX_DEPTH: usize = 256;

/// Where a function's entry is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Function {
    /// In the unit at hand.
    In(UnitOffset),
    /// At an offset in the `.debug_info` of the same file.
    Elsewhere(usize),
    /// At an offset in that of the file which several have in common.
    Common(usize),
}

impl Function {
    fn of<R: Reader<Offset = usize>>(value: AttributeValue<R>) -> Option<Self> {
        match value {
            AttributeValue::UnitRef(offset) => Some(Self::In(offset)),
            AttributeValue::DebugInfoRef(offset) => Some(Self::Elsewhere(offset.0)),
            AttributeValue::DebugInfoRefSup(offset) => Some(Self::Common(offset.0)),
            _ => None,
        }
    }

    /// The offset in `.debug_info`, unique in a file.
    pub fn section_offset(self, unit: &Unit) -> Option<usize> {
        match self {
            Self::In(entry) => entry.to_debug_info_offset(&unit.info().1.header).map(|offset| offset.0),
            Self::Elsewhere(offset) | Self::Common(offset) => Some(offset),
        }
    }
}

/// A call that was inlined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inlined {
    pub origin: Function,
    pub call_file: Option<u64>,
    pub call_line: u32,
    pub call_column: u32,
}

/// The inlined calls around an address within the function at `entry`, outermost first.
pub(super) fn inlined_at(of: &Unit, entry: UnitOffset, address: u64) -> gimli::Result<Vec<Inlined>> {
    let (sections, unit) = of.info();
    let mut chain = Vec::new();
    let mut entries = unit.entries_raw(Some(entry))?;
    let outermost = entries.next_depth();
    let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(chain) };
    entries.skip_attributes(abbreviation.attributes())?;
    // Within the innermost call found so far; and, if set, over entries deeper than a call that does not hold the address.
    let (mut inside, mut skip) = (outermost, None);
    // Calls that do not say where they are (DWARF 2 cannot, of scattered ones), around the entry at hand: on the chain if a call
    // within them is.
    let mut open: Vec<(isize, Inlined)> = Vec::new();
    // There, GCC gives a scattered call its first range, and a call within it another that is not in the first.
    let first_range_only = unit.header.version() < 3;
    while !entries.is_empty() {
        let depth = entries.next_depth();
        if depth <= inside {
            break;
        }
        if skip.is_some_and(|skip| depth <= skip) {
            skip = None;
        }
        while open.last().is_some_and(|(around, _)| depth <= *around) {
            open.pop();
        }
        let here = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        match abbreviation.tag() {
            dw::DW_TAG_inlined_subroutine if skip.is_none() => {
                let (place, inlined) =
                    read_call(sections, unit, &mut entries, abbreviation.attributes(), here, address)?;
                match place {
                    Place::Here if chain.len() + open.len() < MAX_DEPTH => {
                        chain.extend(open.drain(..).map(|(_, inlined)| inlined));
                        chain.push(inlined);
                        inside = depth;
                    }
                    Place::Unsaid if open.len() < MAX_DEPTH => open.push((depth, inlined)),
                    Place::Elsewhere if first_range_only && open.len() < MAX_DEPTH => open.push((depth, inlined)),
                    _ => skip = Some(depth),
                }
            }
            tag => {
                entries.skip_attributes(abbreviation.attributes())?;
                // A nested function has its own entry in the table of functions.
                if tag == dw::DW_TAG_subprogram && skip.is_none() && abbreviation.has_children() {
                    skip = Some(depth);
                }
            }
        }
    }
    Ok(chain)
}

/// Where an inlined call is, as seen from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here,
    Elsewhere,
    Unsaid,
}

/// Reads an inlined call; says whether it holds the address.
fn read_call(
    sections: &Sections,
    unit: &gimli::Unit<super::PagedReader>,
    entries: &mut gimli::EntriesRaw<'_, super::PagedReader>,
    specs: &[gimli::AttributeSpecification],
    here: UnitOffset,
    address: u64,
) -> gimli::Result<(Place, Inlined)> {
    let mut ranges = Ranges::default();
    let mut inlined = Inlined { origin: Function::In(here), call_file: None, call_line: 0, call_column: 0 };
    for spec in specs {
        let attribute = entries.read_attribute(*spec)?;
        let number = || attribute.udata_value().and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
        match attribute.name() {
            dw::DW_AT_abstract_origin => {
                inlined.origin = Function::of(attribute.value()).unwrap_or(inlined.origin);
            }
            dw::DW_AT_call_file => {
                let file = match attribute.value() {
                    AttributeValue::FileIndex(file) => file,
                    _ => number().into(),
                };
                // Before version 5, file 0 is none.
                inlined.call_file = Some(file).filter(|file| *file > 0 || unit.header.version() >= 5);
            }
            dw::DW_AT_call_line => inlined.call_line = number(),
            dw::DW_AT_call_column => inlined.call_column = number(),
            _ => ranges.add(attribute),
        }
    }
    let mut place = Place::Unsaid;
    ranges.each(sections, unit, |start, end| {
        if (start..end).contains(&address) {
            place = Place::Here;
        } else if place == Place::Unsaid {
            place = Place::Elsewhere;
        }
    })?;
    Ok((place, inlined))
}

/// What a frame says of its function.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub names: Names,
    pub start_line: u32,
}

/// Collects a function's name and first line over the entries that describe it.
#[derive(Debug, Default)]
pub(super) struct Description {
    linkage_name: Option<String>,
    name: Option<String>,
    start_line: u32,
}

impl Description {
    /// Takes what the entry says and the chain so far does not; gives the entry that says more.
    pub fn add(&mut self, unit: &Unit, entry: UnitOffset) -> gimli::Result<Option<Function>> {
        let (sections, unit) = unit.info();
        let mut entries = unit.entries_raw(Some(entry))?;
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
        let mut next = None;
        let text = |value| {
            let reader = sections.attr_string(unit, value).ok()?;
            Some(reader.to_string_lossy().ok()?.into_owned()).filter(|text| !text.is_empty())
        };
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            match attribute.name() {
                dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name if self.linkage_name.is_none() => {
                    self.linkage_name = text(attribute.value());
                }
                dw::DW_AT_name if self.name.is_none() => self.name = text(attribute.value()),
                dw::DW_AT_decl_line if self.start_line == 0 => {
                    self.start_line = attribute.udata_value().and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
                }
                dw::DW_AT_abstract_origin | dw::DW_AT_specification => next = Function::of(attribute.value()),
                _ => {}
            }
        }
        Ok(next)
    }

    pub fn finish(self) -> Option<Described> {
        let names = match (self.linkage_name, self.name) {
            (Some(linkage_name), _) => Names::demangled(&linkage_name),
            (None, Some(name)) => Names::plain(&name),
            (None, None) => return None,
        };
        Some(Described { names, start_line: self.start_line })
    }
}
