//! How a HotSpot library is told from others: by the tables that it exports.

use borsh::{BorshDeserialize, BorshSerialize};
use profiler_elf::{Cursor, Elf};

/// Most bytes of a dynamic symbol table, and of its names; OpenJDK's have 30 kB.
const MAX_SYMBOLS: u64 = 4 << 20;
const SYMBOL_BYTES: usize = 24;

/// One of the exported arrays: the variable that points to it, and those that say what an entry looks like, as ELF virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Exported<const N: usize> {
    /// Holds the address of the first entry.
    pub array: u64,
    /// Holds the bytes of an entry.
    pub stride: u64,
    /// Hold where the fields of an entry are.
    pub fields: [u64; N],
}

impl<const N: usize> Default for Exported<N> {
    fn default() -> Self {
        Self { array: 0, stride: 0, fields: [0; N] }
    }
}

/// The variables that a HotSpot library exports, as ELF virtual addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Symbols {
    /// `gHotSpotVMStructs`: type, field, its type, whether it is static, offset, address.
    pub structs: Exported<6>,
    /// `gHotSpotVMTypes`: name, size.
    pub types: Exported<2>,
    /// `gHotSpotVMIntConstants`: name, value.
    pub ints: Exported<2>,
}

impl Symbols {
    /// Those of a file, if it is a HotSpot library.
    #[must_use]
    pub fn find(elf: &Elf) -> Option<Self> {
        let symbols = elf.section(".dynsym")?;
        let names = elf.sections().get(symbols.link as usize)?;
        let names = elf.data(names, MAX_SYMBOLS).ok()?;
        memchr::memmem::find(&names, b"\0gHotSpotVMStructs\0")?;
        let symbols = elf.data(symbols, MAX_SYMBOLS).ok()?;
        let mut found = Self::default();
        for symbol in symbols.chunks_exact(SYMBOL_BYTES) {
            let mut symbol = Cursor::new(symbol);
            let (Some(name), Some(()), Some(value)) = (symbol.u32(), symbol.skip(4), symbol.u64()) else { break };
            let name = names.get(name as usize..).unwrap_or_default();
            let Some(name) = name.strip_prefix(b"gHotSpotVM") else { continue };
            let end = memchr::memchr(0, name).unwrap_or(name.len());
            if let Some(place) = name.get(..end).and_then(|name| found.place(name)) {
                *place = value;
            }
        }
        found.is_whole().then_some(found)
    }

    fn place(&mut self, name: &[u8]) -> Option<&mut u64> {
        let [type_name, field_name, type_string, is_static, offset, address] = &mut self.structs.fields;
        let [name_of_type, size] = &mut self.types.fields;
        let [name_of_int, value] = &mut self.ints.fields;
        Some(match name {
            b"Structs" => &mut self.structs.array,
            b"StructEntryArrayStride" => &mut self.structs.stride,
            b"StructEntryTypeNameOffset" => type_name,
            b"StructEntryFieldNameOffset" => field_name,
            b"StructEntryTypeStringOffset" => type_string,
            b"StructEntryIsStaticOffset" => is_static,
            b"StructEntryOffsetOffset" => offset,
            b"StructEntryAddressOffset" => address,
            b"Types" => &mut self.types.array,
            b"TypeEntryArrayStride" => &mut self.types.stride,
            b"TypeEntryTypeNameOffset" => name_of_type,
            b"TypeEntrySizeOffset" => size,
            b"IntConstants" => &mut self.ints.array,
            b"IntConstantEntryArrayStride" => &mut self.ints.stride,
            b"IntConstantEntryNameOffset" => name_of_int,
            b"IntConstantEntryValueOffset" => value,
            _ => return None,
        })
    }

    fn is_whole(&self) -> bool {
        let arrays = [
            self.structs.array,
            self.structs.stride,
            self.types.array,
            self.types.stride,
            self.ints.array,
            self.ints.stride,
        ];
        let fields = self.structs.fields.iter().chain(&self.types.fields).chain(&self.ints.fields);
        arrays.iter().chain(fields).all(|address| *address != 0)
    }
}
