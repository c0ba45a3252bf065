//! From a frame as the kernel half writes it to functions and lines.

use rustc_hash::FxHashMap;

use super::blob::{Blob, BlobKind};
use super::heaps::Heaps;
use super::layout::Layout;
use super::method::Method;
use super::scopes::scopes_at;
use crate::memory::Memory;

/// What the upper 8 of a frame's object's 56 bits say; twin of `enum hotspot_frame` in `hotspot.h`.
const INTERPRETED: u64 = 1;
const COMPILED: u64 = 2;
const COMPILED_LEAF: u64 = 3;
const STUB: u64 = 4;
const SUBTYPE_SHIFT: u32 = 48;
const MAX_KEPT: usize = 1 << 16;
/// Most bytes of line tables that are read in one pass; a large method has 2 kB.
const MAX_LINE_BYTES: usize = 8 << 20;

/// Which code a frame runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The interpreter.
    Interpreted,
    /// The client compiler (levels 1 to 3).
    C1,
    /// The server compiler, or what stands in its place (level 4).
    C2,
    /// The wrapper of a native method.
    Native,
    /// Code of the JVM itself.
    Stub,
}

impl Code {
    /// As users read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interpreted => "interpreted",
            Self::C1 => "C1",
            Self::C2 => "C2",
            Self::Native => "native",
            Self::Stub => "stub",
        }
    }
}

/// A frame as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it runs, of which the upper 8 of 56 bits say what that is.
    pub object: u64,
    /// Index of a bytecode, or offset in the code.
    pub position: u32,
    /// What tells it from another at the same address.
    pub cookie: u32,
}

impl Frame {
    /// Why it has no name, in words.
    #[must_use]
    pub const fn gone(&self) -> &'static str {
        match self.object >> SUBTYPE_SHIFT {
            INTERPRETED => "jvm: method gone",
            COMPILED | COMPILED_LEAF => "jvm: compiled method gone",
            _ => "jvm: stub gone",
        }
    }
}

/// A function that a frame stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// `com.acme.Shop.checkout`
    pub name: String,
    /// `Shop.java`; empty if unknown.
    pub file: String,
    /// 0 if unknown.
    pub line: u32,
}

/// Names frames of one process.
#[derive(Debug)]
pub struct Names<'a> {
    memory: &'a dyn Memory,
    layout: &'a Layout,
    heaps: &'a Heaps,
    /// Of one pass: names of methods and their files.
    methods: FxHashMap<u64, (Method, String, String)>,
    line_bytes_left: usize,
}

impl<'a> Names<'a> {
    /// For one pass: what was read is kept as long as this lives.
    #[must_use]
    pub fn of(memory: &'a dyn Memory, layout: &'a Layout, heaps: &'a Heaps) -> Self {
        Self { memory, layout, heaps, methods: FxHashMap::default(), line_bytes_left: MAX_LINE_BYTES }
    }

    /// What `frame` runs, innermost inlined function first; none if it is not what it was when it was sampled.
    pub fn name(&mut self, frame: Frame) -> Option<(Code, Vec<Function>)> {
        let object = frame.object & ((1 << SUBTYPE_SHIFT) - 1);
        match frame.object >> SUBTYPE_SHIFT {
            INTERPRETED => {
                let method = Method::read(self.memory, self.layout, object).ok()?;
                if method.const_method as u32 != frame.cookie || frame.position > method.code_size.into() {
                    return None;
                }
                Some((Code::Interpreted, vec![self.function(object, Some(frame.position))?]))
            }
            subtype @ (COMPILED | COMPILED_LEAF) => self.compiled(object, frame, subtype == COMPILED_LEAF),
            STUB => {
                let blob = self.blob(object)?;
                let name = format!("[{}]", if blob.kind == BlobKind::Vtable { "vtable stub" } else { &blob.name });
                Some((Code::Stub, vec![Function { name, file: String::new(), line: 0 }]))
            }
            _ => None,
        }
    }

    /// The blob at `address`, if the code heap has one that starts there.
    fn blob(&self, address: u64) -> Option<Blob> {
        let found = self.heaps.blob_at(self.memory, self.layout, address).ok()??;
        (found == address).then(|| Blob::read(self.memory, self.layout, address).ok().flatten()).flatten()
    }

    fn compiled(&mut self, object: u64, frame: Frame, interrupted: bool) -> Option<(Code, Vec<Function>)> {
        let blob = self.blob(object).filter(Blob::is_nmethod)?;
        let field = |at: u16| object.wrapping_add(at.into());
        let id = self.memory.half(field(self.layout.compile_id)).ok()?;
        if id != frame.cookie || u64::from(frame.position) > blob.code_end.saturating_sub(blob.code_begin) {
            return None;
        }
        let level = self.memory.byte(field(self.layout.compile_level)).ok()?;
        let tier = match (blob.kind, level) {
            (BlobKind::NativeWrapper, _) => Code::Native,
            (_, 1..=3) => Code::C1,
            _ => Code::C2,
        };
        let scopes = scopes_at(self.memory, self.layout, &blob, frame.position, interrupted).unwrap_or_default();
        let functions: Option<Vec<_>> = scopes.iter().map(|scope| self.function(scope.method, scope.bci)).collect();
        match functions {
            Some(functions) if !functions.is_empty() => Some((tier, functions)),
            _ => {
                // no debug information here: the method that was compiled, without a line
                let method = self.memory.word(field(self.layout.nmethod_method)).ok()?;
                Some((tier, vec![self.function(method, None)?]))
            }
        }
    }

    fn function(&mut self, address: u64, bci: Option<u32>) -> Option<Function> {
        if !self.methods.contains_key(&address) {
            let method = Method::read(self.memory, self.layout, address).ok()?;
            let name = method.name(self.memory, self.layout).ok()?;
            let file = method.file(self.memory, self.layout);
            if self.methods.len() >= MAX_KEPT {
                self.methods.clear();
            }
            self.methods.insert(address, (method, name, file));
        }
        let (method, name, file) = self.methods.get(&address)?;
        let line = bci.map_or(0, |bci| method.line(self.memory, self.layout, bci, &mut self.line_bytes_left));
        Some(Function { name: name.clone(), file: file.clone(), line })
    }
}
