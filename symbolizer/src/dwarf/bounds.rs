//! How much memory the debug info of one file may take, and how it is known before it is taken.
//!
//! gimli reads the table of files of a unit as a whole, however many it claims: an entry of a few bytes becomes [`FILE_ENTRY`]. So the
//! entries are counted first, and a unit that has too many costs its file its lines.

use super::{Sections, reader::PagedReader, unit};
use crate::symbolizer::Options;
use gimli::{AttributeValue, Format, Reader, Section, UnitHeader, constants as dw};

/// Bytes that an entry of a table of files, or of directories, takes.
pub(super) const FILE_ENTRY: u64 = 128;
/// Bytes that an abbreviation takes for each read that it cost, roughly: five reads make one of 112.
pub(super) const ABBREVIATION_READ: u64 = 24;

/// Limits of what is kept of one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Total of debug sections, as the file has them, bytes.
    pub sections: u64,
    /// Total of those that are compressed, once unpacked: they are held in memory, bytes.
    pub inflated: u64,
    /// Entries of one unit's tables of files and directories.
    pub files: u64,
    /// Rows of one unit's line table.
    pub rows: usize,
    /// Ranges of one unit's functions.
    pub functions: usize,
    /// Address ranges of all units.
    pub ranges: usize,
    /// Reads that may be spent on abbreviations that several units share.
    pub shared_abbreviations: u64,
    /// What units may take that were read, bytes.
    pub units: u64,
}

impl Bounds {
    pub fn of(options: &Options) -> Self {
        let entries = |bytes: u64, size: usize| usize::try_from(bytes / size as u64).unwrap_or(usize::MAX);
        Self {
            sections: options.dwarf_budget_bytes,
            inflated: options.share(1, 16 << 20).min(options.dwarf_budget_bytes),
            files: options.share(16, 2 << 20) / FILE_ENTRY,
            rows: entries(options.share(4, 16 << 20), unit::ROW),
            functions: entries(options.share(8, 8 << 20), unit::FUNCTION),
            ranges: entries(options.share(4, 16 << 20), super::index::RANGE),
            shared_abbreviations: options.share(4, 16 << 20) / ABBREVIATION_READ,
            units: options.share(4, 8 << 20).min(32 << 20),
        }
    }
}

/// Reads a unit, if its tables of files and directories have `most` entries at most. If not, nothing more can be read of lines.
pub(super) fn read_unit(
    sections: &Sections,
    header: UnitHeader<PagedReader>,
    most: u64,
) -> gimli::Result<gimli::Unit<PagedReader>> {
    let abbreviations = sections.abbreviations(&header)?;
    let mut entries = header.entries_raw(&abbreviations, None)?;
    let mut lines = None;
    if let Some(abbreviation) = entries.read_abbreviation()? {
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            if let (dw::DW_AT_stmt_list, AttributeValue::DebugLineRef(offset)) = (attribute.name(), attribute.value()) {
                lines = Some(offset);
            }
        }
    }
    if let Some(offset) = lines {
        check_files(sections, offset, most)?;
    }
    gimli::Unit::new_with_abbreviations(sections, header, abbreviations)
}

/// Whether the tables of files and directories of a line program have `most` entries at most.
pub(super) fn check_files(sections: &Sections, offset: gimli::DebugLineOffset, most: u64) -> gimli::Result<()> {
    let mut reader = sections.debug_line.reader().clone();
    reader.skip(offset.0)?;
    if files(reader, most)? > most {
        // As if the work that is allowed were used up.
        sections.debug_line.reader().section().set_work(0);
        return Err(gimli::Error::Io);
    }
    Ok(())
}

/// How many files and directories a line program's header lists; counted until they are more than `most`.
fn files(mut reader: PagedReader, most: u64) -> gimli::Result<u64> {
    let (length, format) = reader.read_initial_length()?;
    let mut rest = reader.split(length)?;
    let version = rest.read_u16()?;
    if version >= 5 {
        // Sizes of addresses and of segment selectors.
        rest.skip(2)?;
    }
    let header_length = rest.read_length(format)?;
    rest.truncate(header_length)?;
    // The length of instructions, how many operations, which are statements, base and range of lines.
    rest.skip(if version >= 4 { 5 } else { 4 })?;
    let opcodes = rest.read_u8()?;
    rest.skip(usize::from(opcodes.saturating_sub(1)))?;
    let mut found = 0;
    if version >= 5 {
        // Directories, then files.
        for _ in 0..2 {
            found += entries(&mut rest, format, most.saturating_sub(found))?;
            if found > most {
                break;
            }
        }
        return Ok(found);
    }
    while found <= most && !rest.read_null_terminated_slice()?.is_empty() {
        found += 1;
    }
    while found <= most && !rest.read_null_terminated_slice()?.is_empty() {
        // Directory, time, size.
        rest.read_uleb128()?;
        rest.read_uleb128()?;
        rest.read_uleb128()?;
        found += 1;
    }
    Ok(found)
}

/// Passes over a table of version 5, unless it has more than `most` entries; gives how many it has.
fn entries(rest: &mut PagedReader, format: Format, most: u64) -> gimli::Result<u64> {
    let mut forms = Vec::new();
    for _ in 0..rest.read_u8()? {
        let (_, form) = (rest.read_uleb128()?, rest.read_uleb128()?);
        forms.push(dw::DwForm(u16::try_from(form).map_err(|_| gimli::Error::BadUnsignedLeb128)?));
    }
    let count = rest.read_uleb128()?;
    for _ in 0..if count > most { 0 } else { count } {
        for form in &forms {
            skip(rest, *form, format)?;
        }
    }
    Ok(count)
}

fn skip(rest: &mut PagedReader, form: dw::DwForm, format: Format) -> gimli::Result<()> {
    let len = match form {
        dw::DW_FORM_data1 | dw::DW_FORM_strx1 | dw::DW_FORM_flag => 1,
        dw::DW_FORM_data2 | dw::DW_FORM_strx2 => 2,
        dw::DW_FORM_strx3 => 3,
        dw::DW_FORM_data4 | dw::DW_FORM_strx4 => 4,
        dw::DW_FORM_data8 => 8,
        dw::DW_FORM_data16 => 16,
        dw::DW_FORM_string => return rest.read_null_terminated_slice().map(|_| ()),
        dw::DW_FORM_udata | dw::DW_FORM_strx | dw::DW_FORM_sdata => return rest.read_uleb128().map(|_| ()),
        dw::DW_FORM_block => {
            let len = rest.read_uleb128()?;
            usize::try_from(len).map_err(|_| gimli::Error::UnsupportedOffset)?
        }
        dw::DW_FORM_block1 => rest.read_u8()?.into(),
        dw::DW_FORM_block2 => rest.read_u16()?.into(),
        dw::DW_FORM_block4 => rest.read_u32()? as usize,
        dw::DW_FORM_line_strp | dw::DW_FORM_strp | dw::DW_FORM_strp_sup | dw::DW_FORM_sec_offset => {
            usize::from(format.word_size())
        }
        _ => return Err(gimli::Error::UnknownForm(form)),
    };
    rest.skip(len)
}
