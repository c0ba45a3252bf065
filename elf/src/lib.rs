//! The one reader of ELF files, for unwinding and for naming: headers, sections, notes, compressed content, Go's line table.
//!
//! A file belongs to the program that is profiled, which may write it while it is read. So files are read with `pread(2)` and never
//! mapped (who truncates a mapped file kills its reader), every count and size is checked against the file or a constant before
//! memory is taken for it, and what is damaged gives an [`Error`] or `None`, never a panic.
//!
//! ```text
//!  Bytes (a file, or memory) ── Elf: headers, notes ─┬─ Paged: one section, for many small reads        (names, DWARF)
//!                                                    ├─ Elf::data: a whole section, unpacked
//!                                                    └─ Pieces ── ElfParts: parts of the file in memory  (unwind rows)
//! ```
//!
//! A file that may not be read is [`restore`]d, as far as a process has it mapped.
//!
//! Only 64-bit little-endian files are read. Not here: symbols, DWARF, unwind rows.
#![forbid(unsafe_code)]

mod bytes;
pub mod contain;
mod cursor;
pub mod decompress;
mod file;
pub mod go;
mod headers;
pub mod le;
mod notes;
mod paged;
mod parts;
mod pieces;
mod restore;

pub use bytes::{Bytes, ReadError};
pub use cursor::Cursor;
pub use file::Elf;
pub use headers::{
    Error, Headers, MACHINE_AARCH64, MACHINE_X86_64, ProgramHeader, SHF_ALLOC, SHF_COMPRESSED, SHF_EXECINSTR,
    SHF_WRITE, SHT_DYNSYM, SHT_NOBITS, SHT_NOTE, SHT_RELA, SHT_SYMTAB, Section, Segment, Source,
};
pub use paged::Paged;
pub use parts::{EhFrame, ElfParts};
pub use pieces::Pieces;
pub use restore::{Restored, restore};
