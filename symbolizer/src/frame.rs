//! What a lookup answers.

use std::sync::Arc;

/// What kind of code an address is in, which also says where its names came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Language {
    /// Compiled code of an ELF file, named by symbol tables or DWARF.
    #[default]
    Native,
    /// Go code, named by the program's own line table (pclntab), which survives stripping.
    Go,
    /// Code made at run time, named by a perf map or a jitdump.
    Jit,
    /// The kernel, its modules and its BPF programs.
    Kernel,
}

/// The answer for one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbolized {
    /// Functions at the address, the innermost inlined one first; empty if nothing is known.
    pub frames: Vec<Frame>,
    /// Where the names came from.
    pub language: Language,
    /// For the kernel: the module (`nf_tables`, `bpf`), none for the core kernel. None for all else.
    pub module: Option<Arc<str>>,
}

impl Symbolized {
    /// An answer that knows nothing, of the given language.
    #[must_use]
    pub fn unknown(language: Language) -> Self {
        Self { frames: Vec::new(), language, module: None }
    }
}

/// One function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The name as a person reads it: demangled.
    pub name: Arc<str>,
    /// The name as the symbol table or debug info has it; the same `Arc` as `name` where nothing was mangled.
    pub system_name: Arc<str>,
    /// Source file as the compiler recorded it; none if unknown.
    pub file: Option<Arc<str>>,
    /// Line of the address, or, in a frame that something was inlined into, of the call; 0 if unknown.
    pub line: u32,
    /// Column, 1 for the first; 0 if unknown.
    pub column: u32,
    /// Line at which the function starts; 0 if unknown.
    pub start_line: u32,
}

impl Frame {
    /// A frame of which only the name is known.
    pub(crate) fn named(names: Names) -> Self {
        Self { name: names.name, system_name: names.system_name, file: None, line: 0, column: 0, start_line: 0 }
    }
}

/// Both names of one function, shared by all the frames in it.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub name: Arc<str>,
    pub system_name: Arc<str>,
}

impl Names {
    /// Both names the same.
    pub fn plain(name: &str) -> Self {
        let name: Arc<str> = name.into();
        Self { system_name: name.clone(), name }
    }

    /// Demangles `system_name`.
    pub fn demangled(system_name: &str) -> Self {
        let system: Arc<str> = system_name.into();
        match crate::demangle::demangle(system_name) {
            Some(name) => Self { name: name.into(), system_name: system },
            None => Self { name: system.clone(), system_name: system },
        }
    }

    /// Bytes that the two strings take, roughly.
    pub fn bytes(&self) -> u64 {
        let both = if Arc::ptr_eq(&self.name, &self.system_name) { 0 } else { self.system_name.len() + 16 };
        (self.name.len() + 16 + both) as u64
    }
}

/// There is a name, and there was no room for it: not the same as that there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftOut;

/// What the names and paths of one file may still take at one call, since they stay with whoever asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Texts {
    left: u64,
    /// How many were left out.
    pub left_out: u64,
}

impl Texts {
    /// From here on so many bytes.
    pub fn renew(&mut self, bytes: u64) {
        self.left = bytes;
    }

    /// Takes the room of a text that was not given before; fails if there is too little.
    pub fn take(&mut self, bytes: u64) -> Result<(), LeftOut> {
        let left = self.left.checked_sub(bytes);
        self.left_out += u64::from(left.is_none());
        self.left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(LeftOut)
    }
}
