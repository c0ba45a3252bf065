//! `.gopclntab`: Go's table of functions (runtime/symtab.go, internal/abi/symtab.go, debug/gosym/pclntab.go of each version).

use profiler_elf::{Cursor, ElfImage};

use super::module;

/// Functions that have a word of flags say with this one that they are assembly (`abi.FuncFlagAsm`).
const ASSEMBLY: u8 = 4;

/// The layouts, by the magic number that each starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// Go 1.2 to 1.15
    V12,
    /// Go 1.16 and 1.17
    V116,
    /// Go 1.18 and 1.19
    V118,
    /// Go 1.20 and later
    V120,
}

/// The table, cut into its parts.
#[derive(Debug)]
pub(super) struct Pclntab<'a> {
    version: Version,
    /// What functions' entries count from: 0 where they have addresses.
    text: u64,
    /// Pairs of entry and offset in `records`.
    functions: &'a [u8],
    records: &'a [u8],
    names: &'a [u8],
    pc_tables: &'a [u8],
    count: u32,
}

/// What is read of a function's record.
#[derive(Debug)]
pub(super) struct FunctionEntry<'a> {
    pub(super) name: &'a [u8],
    pub(super) flags: u8,
    pub(super) assembly: bool,
    /// Offset of its stack deltas among the pc tables; 0 for none.
    pcsp: u32,
}

impl<'a> Pclntab<'a> {
    /// Finds the table by its section.
    pub(super) fn find(image: &ElfImage<'a>) -> Option<Self> {
        let section = [".gopclntab", ".data.rel.ro.gopclntab"].iter().find_map(|name| image.section(name))?;
        let bytes = image.section_bytes(section)?;
        let mut header = Cursor::new(bytes);
        let version = match header.u32()? {
            0xffff_fffb => Version::V12,
            0xffff_fffa => Version::V116,
            0xffff_fff0 => Version::V118,
            0xffff_fff1 => Version::V120,
            _ => return None,
        };
        // Two zeros, the smallest instruction (1 byte) and the size of pointers.
        if header.take(4)? != [0, 0, 1, 8] {
            return None;
        }
        let count = u32::try_from(header.u64()?).ok()?;
        let part = |offset: u64| bytes.get(usize::try_from(offset).ok()?..);
        let table = if version == Version::V12 {
            Self { version, text: 0, functions: header.rest(), records: bytes, names: bytes, pc_tables: bytes, count }
        } else {
            header.u64()?; // files
            let text = match version {
                Version::V116 => 0,
                // Zero where the linker left it to relocation, and from Go 1.26 on.
                _ => match header.u64()? {
                    0 => module::text_start(image, section.address)?,
                    text => text,
                },
            };
            let names = part(header.u64()?)?;
            header.skip(16)?; // compilation units, file names
            let pc_tables = part(header.u64()?)?;
            let functions = part(header.u64()?)?;
            Self { version, text, functions, records: functions, names, pc_tables, count }
        };
        // One more entry than functions: the end of the last.
        let fits = table.functions.len() / table.pair_size();
        let count = table.count.min(u32::try_from(fits.saturating_sub(1)).unwrap_or(0));
        Some(Self { count, ..table })
    }

    pub(super) const fn len(&self) -> u32 {
        self.count
    }

    const fn pair_size(&self) -> usize {
        if matches!(self.version, Version::V12 | Version::V116) { 16 } else { 8 }
    }

    fn pair(&self, index: u32) -> Option<(u64, u64)> {
        let at = (index as usize).checked_mul(self.pair_size())?;
        let mut cursor = Cursor::new(self.functions.get(at..)?);
        if self.pair_size() == 16 {
            let entry = cursor.u64()?;
            return Some((entry, cursor.u64().unwrap_or(0)));
        }
        let entry = self.text.checked_add(u64::from(cursor.u32()?))?;
        Some((entry, u64::from(cursor.u32().unwrap_or(0))))
    }

    /// Address of function number `index`; of the one after the last, the end of Go's code.
    pub(super) fn start(&self, index: u32) -> Option<u64> {
        self.pair(index).map(|(start, _)| start)
    }

    /// The record of function number `index`.
    pub(super) fn function(&self, index: u32) -> Option<FunctionEntry<'a>> {
        let (_, at) = self.pair(index)?;
        let mut record = Cursor::new(self.records.get(usize::try_from(at).ok()?..)?);
        record.skip(if self.pair_size() == 16 { 8 } else { 4 })?; // entry
        let name = record.u32()?;
        record.skip(8)?; // args, deferreturn
        let pcsp = record.u32()?;
        record.skip(match self.version {
            Version::V12 => 12, // pcfile, pcln, npcdata
            Version::V116 | Version::V118 => 16,
            Version::V120 => 20, // and startLine
        })?;
        record.u8()?; // funcID
        // Padding, and zero, before Go 1.17.
        let flags = if self.version == Version::V12 { 0 } else { record.u8()? };
        let name = self.names.get(name as usize..).and_then(|rest| Cursor::new(rest).c_string(64)).unwrap_or_default();
        Some(FunctionEntry { name, flags, assembly: flags & ASSEMBLY != 0, pcsp })
    }

    /// The stack deltas of a function: bytes that sp is below its value at entry, and for how many bytes of code.
    pub(super) fn stack_deltas(&self, function: &FunctionEntry<'_>) -> StackDeltas<'a> {
        let table = if function.pcsp == 0 { None } else { self.pc_tables.get(function.pcsp as usize..) };
        StackDeltas { table: Cursor::new(table.unwrap_or_default()), value: -1, first: true }
    }
}

/// Runs of one delta.
pub(super) struct StackDeltas<'a> {
    table: Cursor<'a>,
    value: i32,
    first: bool,
}

impl Iterator for StackDeltas<'_> {
    type Item = (i32, u64);

    fn next(&mut self) -> Option<(i32, u64)> {
        let step = u32::try_from(self.table.uleb()?).ok()?;
        if step == 0 && !self.first {
            return None;
        }
        self.first = false;
        // Zigzag: the sign is the lowest bit.
        let change = (step >> 1).cast_signed() ^ -((step & 1).cast_signed());
        self.value = self.value.checked_add(change)?;
        let length = self.table.uleb()?;
        (self.value >= 0 && length != 0).then_some((self.value, length))
    }
}
