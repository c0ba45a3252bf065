//! Code blobs: what a piece of the code heap is.

use std::io;

use super::layout::Layout;
use crate::memory::Memory;

/// Most bytes of a blob's name.
const MAX_NAME: usize = 128;
/// Most bytes of a blob: of what the JVM compiles nothing comes near.
const MAX_BLOB: u64 = 64 << 20;

/// What a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// A compiled method.
    Compiled,
    /// The wrapper of a native method.
    NativeWrapper,
    /// The interpreter.
    Interpreter,
    /// Stubs of virtual calls.
    Vtable,
    /// All else that the JVM has made.
    Stub,
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Where it is.
    pub address: u64,
    /// What it is.
    pub kind: BlobKind,
    /// What HotSpot calls it.
    pub name: String,
    /// First address of its code.
    pub code_begin: u64,
    /// One past the last.
    pub code_end: u64,
}

impl Blob {
    /// The blob at `address`; none if there is nothing that could be one.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn read(memory: &dyn Memory, layout: &Layout, address: u64) -> io::Result<Option<Self>> {
        let size = memory.half(address.wrapping_add(layout.blob_size.into()))?.into();
        let code_begin = layout.code_begin.find(memory, address)?;
        let code_end = layout.code_end.find(memory, address)?;
        if size > MAX_BLOB || code_begin < address || code_end < code_begin || code_end > address.saturating_add(size) {
            return Ok(None);
        }
        let name = memory.word(address.wrapping_add(layout.blob_name.into()))?;
        let name = match name {
            0 => Vec::new(),
            at => memory.text(at, MAX_NAME)?,
        };
        // As of the kernel half: by what is long enough to tell, since the names of nmethods vary.
        let kind = match name.get(..4) {
            Some(b"nmet") => BlobKind::Compiled,
            Some(b"nati") => BlobKind::NativeWrapper,
            Some(b"Inte") => BlobKind::Interpreter,
            Some(b"vtab") => BlobKind::Vtable,
            _ => BlobKind::Stub,
        };
        Ok(Some(Self { address, kind, name: String::from_utf8_lossy(&name).into_owned(), code_begin, code_end }))
    }

    /// Whether it is a method's.
    #[must_use]
    pub const fn is_nmethod(&self) -> bool {
        matches!(self.kind, BlobKind::Compiled | BlobKind::NativeWrapper)
    }
}
