//! A Java method: who it is, where it was written.

use std::io;

use super::layout::{Layout, SourceFile, SymbolLength};
use super::line::Compressed;
use crate::memory::Memory;

/// Most bytes of a name that are read; HotSpot allows 65,535.
const MAX_NAME: usize = 1024;
/// Most bytes of a line table that are read.
const MAX_LINE_TABLE: usize = 64 << 10;
/// The line table is read in pieces, since most are short.
const LINE_PIECE: usize = 256;

/// A method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// `ConstMethod*`, which names it and has its bytecodes.
    pub const_method: u64,
    /// Bytes of its bytecodes.
    pub code_size: u16,
    has_lines: bool,
    class: u64,
    pool: u64,
    name: u16,
}

/// Why a method cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum MethodError {
    /// It is no method (any more).
    #[error("there is no method at {0:#x}")]
    None(u64),
    /// The memory cannot be read.
    #[error("the memory cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Method {
    /// The method at `address` (`Method*`).
    ///
    /// # Errors
    /// There is none, as far as can be seen.
    pub fn read(memory: &dyn Memory, layout: &Layout, address: u64) -> Result<Self, MethodError> {
        let none = || MethodError::None(address);
        if address == 0 || !address.is_multiple_of(8) {
            return Err(none());
        }
        let const_method = memory.word(address.wrapping_add(layout.method_const.into()))?;
        let field = |at: u16| memory.short(const_method.wrapping_add(at.into()));
        let pool = memory.word(const_method.wrapping_add(layout.const_constants.into()))?;
        let class = memory.word(pool.wrapping_add(layout.pool_holder.into()))?;
        if [const_method, pool, class].iter().any(|pointer| *pointer == 0 || !pointer.is_multiple_of(8)) {
            return Err(none());
        }
        let flags = layout.const_flags.read(memory, const_method)? as u32;
        Ok(Self {
            const_method,
            code_size: field(layout.const_code_size)?,
            has_lines: flags & layout.line_table_bit != 0,
            class,
            pool,
            name: field(layout.const_name_index)?,
        })
    }

    /// Its class's name and its own, as in `com.acme.Shop.checkout`.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn name(&self, memory: &dyn Memory, layout: &Layout) -> Result<String, MethodError> {
        let class = class_name(memory, layout, self.class)?;
        let name = constant(memory, layout, self.pool, self.name)?;
        Ok(format!("{}.{name}", readable(&class)))
    }

    /// The class that it belongs to (`InstanceKlass*`).
    #[must_use]
    pub const fn class(&self) -> u64 {
        self.class
    }

    /// The file that it was written in; empty if the class does not say.
    #[must_use]
    pub fn file(&self, memory: &dyn Memory, layout: &Layout) -> String {
        let index = match layout.source_file {
            SourceFile::Pool(at) => memory.short(self.pool.wrapping_add(at.into())),
            SourceFile::Class(at) => memory.short(self.class.wrapping_add(at.into())),
        };
        match index {
            Ok(1..) => constant(memory, layout, self.pool, index.unwrap_or(0)).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// The line of the bytecode at `bci`; 0 if unknown. `budget` is how many bytes of line tables may still be read.
    #[must_use]
    pub fn line(&self, memory: &dyn Memory, layout: &Layout, bci: u32, budget: &mut usize) -> u32 {
        if !self.has_lines {
            return 0;
        }
        let bytecodes = self.const_method.wrapping_add(layout.const_method_bytes.into());
        let start = bytecodes.wrapping_add(self.code_size.into());
        let mut table = Vec::new();
        while table.len() < MAX_LINE_TABLE {
            let mut piece = [0; LINE_PIECE];
            let Some(rest) = budget.checked_sub(LINE_PIECE) else { return 0 };
            *budget = rest;
            if memory.read(start.wrapping_add(table.len() as u64), &mut piece).is_err() {
                break;
            }
            table.extend_from_slice(&piece);
            if piece.contains(&0) {
                break;
            }
        }
        Compressed::new(&table, layout.version).line_of(bci)
    }
}

/// The name of a class as HotSpot keeps it: `com/acme/Shop$Cart`.
///
/// # Errors
/// It cannot be read.
pub fn class_name(memory: &dyn Memory, layout: &Layout, class: u64) -> Result<String, MethodError> {
    symbol(memory, layout, memory.word(class.wrapping_add(layout.class_name.into()))?)
}

/// A class's name as its source has it. Hidden classes have an address behind their name (`Shop$$Lambda$14+0x0000000800c03200`, until
/// JDK 14 `Shop$$Lambda$14/1234567`), and lambdas' a number, both of which differ from run to run: they are left out.
fn readable(class: &str) -> String {
    let (class, hidden) = match class.find("+0x") {
        Some(at) => (class.get(..at).unwrap_or(class), true),
        None => match class.rsplit_once('/') {
            Some((before, after)) if !after.is_empty() && after.bytes().all(|byte| byte.is_ascii_digit()) => {
                (before, true)
            }
            _ => (class, class.contains("$$Lambda$")),
        },
    };
    let class = match class.rsplit_once("$$Lambda$") {
        Some((before, number)) if hidden && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{before}$$Lambda")
        }
        _ => class.to_owned(),
    };
    class.replace('/', ".")
}

/// The symbol that is constant `index` of a pool.
fn constant(memory: &dyn Memory, layout: &Layout, pool: u64, index: u16) -> Result<String, MethodError> {
    let length = memory.half(pool.wrapping_add(layout.pool_length.into()))?;
    if u32::from(index) >= length {
        return Err(MethodError::None(pool));
    }
    let slot = pool.wrapping_add(layout.pool_bytes.into()).wrapping_add(u64::from(index) * 8);
    symbol(memory, layout, memory.word(slot)? & !1)
}

/// The text of a symbol: UTF-8, but for characters that no name should have.
fn symbol(memory: &dyn Memory, layout: &Layout, address: u64) -> Result<String, MethodError> {
    if address == 0 {
        return Err(MethodError::None(address));
    }
    let length = match layout.symbol_length {
        SymbolLength::Alone(at) => memory.short(address.wrapping_add(at.into()))?.into(),
        SymbolLength::Upper(at) => memory.half(address.wrapping_add(at.into()))? >> 16,
    };
    let mut text = vec![0; (length as usize).min(MAX_NAME)];
    memory.read(address.wrapping_add(layout.symbol_body.into()), &mut text)?;
    if text.is_empty() {
        return Err(MethodError::None(address));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn names_of_classes_are_those_of_their_source() {
        for (class, shown) in [
            ("java/lang/Object", "java.lang.Object"),
            ("com/acme/Shop$Cart", "com.acme.Shop$Cart"),
            ("Shop$$Lambda$14+0x0000000800c03200", "Shop$$Lambda"),
            ("com/acme/Shop$$Lambda+0x00007f1234567890", "com.acme.Shop$$Lambda"),
            ("Shop$$Lambda$14/1234567", "Shop$$Lambda"),
            ("java/lang/invoke/LambdaForm$MH+0x0000000800c03200", "java.lang.invoke.LambdaForm$MH"),
            ("Shop$1", "Shop$1"),
            ("Shop$$Lambda$x", "Shop$$Lambda$x"),
            ("", ""),
        ] {
            assert_eq!(readable(class), shown);
        }
    }
}
