//! Names for code addresses, on the host that they were sampled on.
//!
//! [`Symbolizer`] turns (ELF file, address), kernel addresses and addresses of JIT code into functions and, where asked for,
//! files, lines and inlined callees. It is meant to be owned by one thread.
//!
//! Duties: all sources of names that a host has (symbol tables, separate debug files, mini debug info, Go's line tables, DWARF,
//! kallsyms, perf maps, jitdump); bounded memory and work; no trust in any file.
//!
//! Not done here: unwinding, fetching of debug files over the network, frames of interpreters, 32-bit programs.
#![forbid(unsafe_code)]

mod debug_files;
mod demangle;
mod dwarf;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod go;
mod jit;
mod kernel;
mod native;
mod object;
mod plt;
mod symbolizer;
mod symbols;

pub use frame::{Frame, Language, Symbolized};
pub use jit::{Generation, JitProcess, MapRead};
pub use kernel::KernelError;
pub use object::{Object, ObjectKey};
pub use symbolizer::{Options, Stats, Symbolizer};
