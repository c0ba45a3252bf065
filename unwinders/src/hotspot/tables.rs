//! The tables that HotSpot exports for debuggers, read from a living process (`vmStructs.hpp` of OpenJDK).

use std::io;

use rustc_hash::FxHashMap;

use super::pages::Pages;
use super::symbols::{Exported, Symbols};
use crate::memory::Memory;

/// Most entries of a table; OpenJDK 8 to 28 have 1,200 at most.
const MAX_ENTRIES: u64 = 8192;
/// Most bytes of an entry; they have 48.
const MAX_STRIDE: u64 = 256;
/// Most bytes of a name.
const MAX_NAME: usize = 256;

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this offset of each object.
    Offset(u64),
    /// At this address.
    Static(u64),
}

/// A field as the tables have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it is.
    pub place: Place,
    /// Its C++ type; empty where the tables leave it out.
    pub kind: Box<str>,
}

/// What the tables say.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    fields: FxHashMap<Box<str>, Field>,
    sizes: FxHashMap<Box<str>, u64>,
    ints: FxHashMap<Box<str>, i32>,
}

/// Why the tables cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// Their variables are still 0: the library is not initialised.
    #[error("the JVM has not filled its tables yet")]
    Empty,
    /// They are not what HotSpot has.
    #[error("its tables are not those of HotSpot: {0}")]
    Wrong(String),
    /// The memory cannot be read.
    #[error("its memory cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Tables {
    /// Those of the process whose `memory` has the library at `bias` (address minus ELF virtual address).
    ///
    /// # Errors
    /// They are not there yet, or not to be believed.
    pub fn read(memory: &dyn Memory, symbols: &Symbols, bias: u64) -> Result<Self, TablesError> {
        let memory = &Pages::of(memory);
        let mut tables = Self::default();
        each(
            memory,
            &symbols.structs,
            bias,
            |entry, [type_name, field_name, type_string, is_static, offset, address]| {
                let Some(kind) = name(memory, entry + type_name)? else { return Ok(false) };
                let Some(field) = name(memory, entry + field_name)? else {
                    return Err(TablesError::Wrong(format!("a field of {kind} has no name")));
                };
                let place = if memory.half(entry + is_static)? == 0 {
                    Place::Offset(memory.word(entry + offset)?)
                } else {
                    Place::Static(memory.word(entry + address)?)
                };
                let of = name(memory, entry + type_string)?.unwrap_or_default();
                tables.fields.insert(format!("{kind}::{field}").into(), Field { place, kind: of });
                Ok(true)
            },
        )?;
        each(memory, &symbols.types, bias, |entry, [type_name, size]| {
            let Some(kind) = name(memory, entry + type_name)? else { return Ok(false) };
            tables.sizes.insert(kind, memory.word(entry + size)?);
            Ok(true)
        })?;
        each(memory, &symbols.ints, bias, |entry, [constant, value]| {
            let Some(constant) = name(memory, entry + constant)? else { return Ok(false) };
            tables.ints.insert(constant, memory.half(entry + value)?.cast_signed());
            Ok(true)
        })?;
        Ok(tables)
    }

    /// The field `name`, as `Type::_field`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    /// Bytes of a type.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u64> {
        self.sizes.get(name).copied()
    }

    /// A constant.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i32> {
        self.ints.get(name).copied()
    }
}

/// Calls `take` with each entry's address and where its fields are, until it says that the table has ended.
fn each<const N: usize>(
    memory: &Pages<'_>,
    table: &Exported<N>,
    bias: u64,
    mut take: impl FnMut(u64, [u64; N]) -> Result<bool, TablesError>,
) -> Result<(), TablesError> {
    let variable = |address: u64| memory.word(bias.wrapping_add(address));
    let (first, stride) = (variable(table.array)?, variable(table.stride)?);
    if first == 0 || stride == 0 {
        return Err(TablesError::Empty);
    }
    let mut fields = [0; N];
    for (field, at) in fields.iter_mut().zip(table.fields) {
        *field = variable(at)?;
    }
    if stride > MAX_STRIDE || fields.iter().any(|field| *field >= stride) || first > u64::MAX / 2 {
        return Err(TablesError::Wrong(format!("entries of {stride} bytes with fields at {fields:?}")));
    }
    for entry in 0..MAX_ENTRIES {
        if !take(first + entry * stride, fields)? {
            return Ok(());
        }
    }
    Err(TablesError::Wrong(format!("a table of more than {MAX_ENTRIES} entries")))
}

/// The text that the pointer at `address` points to; none if it is null.
fn name(memory: &Pages<'_>, address: u64) -> Result<Option<Box<str>>, TablesError> {
    let at = memory.word(address)?;
    if at == 0 {
        return Ok(None);
    }
    let text = memory.text(at, MAX_NAME)?;
    let text = String::from_utf8(text).map_err(|_| TablesError::Wrong("a name that is no text".to_owned()))?;
    Ok(Some(text.into()))
}
