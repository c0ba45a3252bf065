//! From a process with a HotSpot library to what both halves need to know of it.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use super::blob::{Blob, BlobKind};
use super::heaps::{Heaps, HeapsError, MAX_HEAPS};
use super::layout::{Begin, Layout, Missing, Number};
use super::method::{Method, class_name};
use super::names::Names;
use super::symbols::Symbols;
use super::tables::{Tables, TablesError};
use crate::memory::Memory;

/// Bytes of `struct hotspot_instance`.
pub const INSTANCE_BYTES: usize = 80 + MAX_HEAPS * 24;
/// Bytes from a block's start that the kernel half reads: `HOTSPOT_HEADER_BYTES`.
const HEADER_BYTES: u16 = 352;
/// The first that there is a table of.
const OLDEST: u32 = 8;
/// Most methods of `java.lang.Object` that are looked at.
const CHECKED_METHODS: u64 = 32;
/// Most pieces of the interpreter; there are some 300.
const MAX_CODELETS: usize = 4096;
const MAX_DESCRIPTION: usize = 128;
const MAX_INTERPRETER: u64 = 16 << 20;

/// Why a JVM has no part in a process.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It is starting; ask again.
    #[error("jvm: not ready: {0}")]
    NotReady(String),
    /// It is not what is supported, or not what it should be.
    #[error("jvm: not supported: {0}")]
    NotSupported(String),
}

impl From<TablesError> for AttachError {
    fn from(error: TablesError) -> Self {
        match error {
            TablesError::Empty | TablesError::Read(_) => Self::NotReady(error.to_string()),
            TablesError::Wrong(_) => Self::NotSupported(error.to_string()),
        }
    }
}

impl From<Missing> for AttachError {
    fn from(error: Missing) -> Self {
        Self::NotSupported(error.to_string())
    }
}

impl From<HeapsError> for AttachError {
    fn from(error: HeapsError) -> Self {
        match error {
            HeapsError::None | HeapsError::Read(_) => Self::NotReady(error.to_string()),
            HeapsError::Wrong(_) => Self::NotSupported(error.to_string()),
        }
    }
}

impl From<io::Error> for AttachError {
    fn from(error: io::Error) -> Self {
        Self::NotReady(format!("its memory cannot be read: {error}"))
    }
}

/// A JVM that both halves know.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Attached {
    /// Where everything is.
    pub layout: Layout,
    /// Where its code is.
    pub heaps: Heaps,
    /// Where its interpreter is.
    pub interpreter: Interpreter,
}

/// The interpreter's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Interpreter {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// The blob that it is in.
    pub blob: u64,
    /// First address of the entries of methods.
    pub entries_start: u64,
    /// One past their last.
    pub entries_end: u64,
    /// Where the stub that calls Java goes on.
    pub call_stub_return: u64,
}

/// The JVM whose library `memory` has at `bias` (address minus ELF virtual address).
///
/// # Errors
/// It is not there yet, or is none that can be read.
pub fn attach(memory: &dyn Memory, symbols: &Symbols, bias: u64) -> Result<Attached, AttachError> {
    let tables = Tables::read(memory, symbols, bias)?;
    let layout = Layout::of(&tables, memory)?;
    if layout.version == 0 {
        return Err(AttachError::NotReady("the JVM has not set its version yet".to_owned()));
    }
    if layout.version < OLDEST {
        return Err(AttachError::NotSupported(format!("Java {} is older than {OLDEST}", layout.version)));
    }
    let heaps = Heaps::read(memory, &layout)?;
    let interpreter = interpreter(memory, &layout, &heaps)?;
    check(memory, &layout)?;
    let attached = Attached { layout, heaps, interpreter };
    attached.check_reach()?;
    Ok(attached)
}

/// Whether the offsets lead where they should: from the class of all objects to its methods, and from those back to it.
fn check(memory: &dyn Memory, layout: &Layout) -> Result<(), AttachError> {
    let class = memory.word(layout.object_class)?;
    if class == 0 {
        return Err(AttachError::NotReady("it has not loaded java.lang.Object yet".to_owned()));
    }
    let wrong = |what: &str| AttachError::NotSupported(format!("Java {}: {what}", layout.version));
    let name =
        class_name(memory, layout, class).map_err(|error| wrong(&format!("java.lang.Object has no name: {error}")))?;
    if name != "java/lang/Object" {
        return Err(wrong(&format!("java.lang.Object is named {name:?}")));
    }
    let methods = memory.word(class.wrapping_add(layout.class_methods.into()))?;
    if methods == 0 {
        return Err(AttachError::NotReady("java.lang.Object has no methods yet".to_owned()));
    }
    let count = u64::from(memory.half(methods)?).min(CHECKED_METHODS);
    let mut names = Vec::new();
    for i in 0..count {
        let address = memory.word(methods.wrapping_add(layout.methods_data.into()).wrapping_add(i * 8))?;
        let method = Method::read(memory, layout, address).map_err(|error| wrong(&error.to_string()))?;
        if method.class() != class {
            return Err(wrong("a method of java.lang.Object belongs to another class"));
        }
        names.push(method.name(memory, layout).map_err(|error| wrong(&error.to_string()))?);
    }
    if names.iter().any(|name| name == "java.lang.Object.hashCode") {
        Ok(())
    } else {
        Err(wrong(&format!("the methods of java.lang.Object are {}", names.join(", "))))
    }
}

fn interpreter(memory: &dyn Memory, layout: &Layout, heaps: &Heaps) -> Result<Interpreter, AttachError> {
    let not_yet = || AttachError::NotReady("the JVM has no interpreter yet".to_owned());
    let call_stub_return = memory.word(layout.call_stub_return)?;
    let queue = memory.word(layout.interpreter)?;
    if queue == 0 || call_stub_return == 0 {
        return Err(not_yet());
    }
    let start = memory.word(queue.wrapping_add(layout.queue_buffer.into()))?;
    let bytes = u64::from(memory.half(queue.wrapping_add(layout.queue_limit.into()))?);
    let wrong = |what: String| AttachError::NotSupported(format!("Java {}: {what}", layout.version));
    if start == 0 || bytes == 0 {
        return Err(not_yet());
    }
    if bytes > MAX_INTERPRETER {
        return Err(wrong(format!("an interpreter of {bytes} bytes")));
    }
    let end = start.saturating_add(bytes);
    let blob = heaps
        .blob_at(memory, layout, start)?
        .ok_or_else(|| wrong(format!("the interpreter at {start:#x} is in no code heap")))?;
    let found = Blob::read(memory, layout, blob)?;
    if found.as_ref().map(|blob| blob.kind) != Some(BlobKind::Interpreter) {
        return Err(wrong(format!("the interpreter is in a blob that is {found:?}")));
    }
    let (mut entries_start, mut entries_end) = (u64::MAX, 0);
    let mut codelet = start;
    for _ in 0..MAX_CODELETS {
        if codelet >= end {
            break;
        }
        let size = u64::from(memory.half(codelet.wrapping_add(layout.codelet_size.into()))?);
        if size < layout.codelet_bytes.into() || size > end - codelet {
            break;
        }
        let description = memory.word(codelet.wrapping_add(layout.codelet_description.into()))?;
        let description = memory.text(description, MAX_DESCRIPTION).unwrap_or_default();
        if description.starts_with(b"method entry point") {
            entries_start = entries_start.min(codelet);
            entries_end = entries_end.max(codelet + size);
        }
        codelet += size;
    }
    if entries_end == 0 {
        return Err(not_yet());
    }
    Ok(Interpreter { start, end, blob, entries_start, entries_end, call_stub_return })
}

impl Attached {
    /// What [`Self::parse`] reads.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        borsh::to_vec(self).unwrap_or_default()
    }

    /// Takes what [`Self::bytes`] gave off the front of `bytes`; none if it is not that.
    pub fn parse(bytes: &mut &[u8]) -> Option<Self> {
        Self::deserialize(bytes).ok()
    }

    /// Names frames, as long as `memory` is that of the process.
    #[must_use]
    pub fn names<'a>(&'a self, memory: &'a dyn Memory) -> Names<'a> {
        Names::of(memory, &self.layout, &self.heaps)
    }

    /// Whether all that the kernel half reads of a blob lies within what it reads.
    fn check_reach(&self) -> Result<(), AttachError> {
        let layout = &self.layout;
        let last = self.header_fields().into_iter().max().unwrap_or(0);
        if last > HEADER_BYTES - 8 || layout.method_const > 4096 {
            return Err(AttachError::NotSupported(format!(
                "Java {}: a blob's header has {last} bytes and more",
                layout.version
            )));
        }
        let numbers = [Some(layout.frame_complete), behind(layout.code_begin), behind(layout.deopt_handler)];
        if numbers.into_iter().flatten().any(|number| !number.signed || ![2, 4].contains(&number.width)) {
            return Err(AttachError::NotSupported(format!(
                "Java {}: a blob's offsets have another size",
                layout.version
            )));
        }
        Ok(())
    }

    /// As `struct hotspot_instance` has them, from `block_used` to `compile_id`.
    fn header_fields(&self) -> [u16; 8] {
        let layout = &self.layout;
        let of_blob = |at: u16| at.saturating_add(layout.block_bytes);
        [
            layout.block_used,
            of_blob(layout.blob_name),
            of_blob(layout.frame_size),
            of_blob(layout.frame_complete.at),
            of_blob(place(layout.code_begin)),
            of_blob(place(layout.deopt_handler)),
            of_blob(layout.orig_pc),
            of_blob(layout.compile_id),
        ]
    }

    /// `struct hotspot_instance` of `hotspot.h`.
    #[must_use]
    pub fn instance(&self) -> [u8; INSTANCE_BYTES] {
        let (layout, interpreter) = (&self.layout, &self.interpreter);
        let within = |address: u64| address.saturating_sub(interpreter.start) as u32;
        let mut bytes = Vec::with_capacity(INSTANCE_BYTES);
        for word in [interpreter.start, interpreter.blob, interpreter.call_stub_return] {
            bytes.extend(word.to_le_bytes());
        }
        for half in [within(interpreter.end), within(interpreter.entries_start), within(interpreter.entries_end)] {
            bytes.extend(half.to_le_bytes());
        }
        bytes.extend(layout.block_bytes.to_le_bytes());
        for short in self.header_fields() {
            bytes.extend(short.to_le_bytes());
        }
        bytes.extend(layout.method_const.to_le_bytes());
        bytes.extend(layout.const_method_bytes.to_le_bytes());
        bytes.extend([
            self.heaps.0.first().map_or(0, |heap| heap.shift),
            // Where the address of the bytecode is; from JDK 9 on the class's mirror has a word before it.
            if layout.version >= 9 { 8 } else { 7 },
            u8::from(layout.frame_complete.width == 2),
            u8::from(behind(layout.code_begin).is_some()),
            u8::from(behind(layout.deopt_handler).is_some()),
            0,
        ]);
        let code = self.heaps.0.first().map_or(0, |heap| heap.low);
        let code_end = self.heaps.0.last().map_or(0, |heap| heap.high);
        bytes.extend(code.to_le_bytes());
        bytes.extend((code_end.saturating_sub(code)).to_le_bytes());
        for heap in self.heaps.0.iter().take(MAX_HEAPS) {
            bytes.extend(heap.low.to_le_bytes());
            bytes.extend(heap.segmap.to_le_bytes());
            bytes.extend(((heap.high - heap.low) as u32).to_le_bytes());
            bytes.extend([0; 4]);
        }
        let mut instance = [0; INSTANCE_BYTES];
        for (to, from) in instance.iter_mut().zip(bytes) {
            *to = from;
        }
        instance
    }
}

const fn place(begin: Begin) -> u16 {
    match begin {
        Begin::Pointer(at) | Begin::Behind(Number { at, .. }) | Begin::Beyond(at, _) => at,
    }
}

const fn behind(begin: Begin) -> Option<Number> {
    match begin {
        Begin::Behind(number) => Some(number),
        _ => None,
    }
}
