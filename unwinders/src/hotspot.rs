//! HotSpot: the virtual machine that runs Java in nearly every JDK, version 8 and later.
//!
//! Its library exports tables for debuggers, `gHotSpotVMStructs` and their kin: where the fields of its structures are, how large
//! types are, what constants are worth. So nothing here is known by build: [`Tables`] are read from the living process, and
//! [`Layout`] takes from them what is needed, or says which part is missing. What is not exported is known by version: how the line
//! tables and scopes are coded, and what lies where in an interpreter's frame.
//!
//! ```text
//!   Symbols (of the file)  ── Tables ── Layout ── attach ──┬─> Instance: bytes for the kernel half, which finds frames
//!                                                          └─> Names: Method* and bci, or nmethod and offset, -> functions and lines
//!
//!   code heap     [ segment map: a byte for each 128 bytes ] ─> HeapBlock ─> CodeBlob: an nmethod, the interpreter, a stub
//!   nmethod       PcDesc (offset -> scope) ─> scope (method, bci, its caller's scope) ─> ...
//!   Method        ConstMethod (bytecodes, then the line table) ─> ConstantPool (names by index) ─> Klass (its name)
//! ```
//!
//! Everything that is read is the process's word: pointers are followed a bounded number of times, counts and lengths have limits, and a
//! value that cannot be is an error or an unnamed frame.

mod attach;
mod blob;
mod heaps;
mod layout;
mod line;
mod method;
mod names;
mod pages;
mod reading;
mod scopes;
mod symbols;
mod tables;

pub use attach::{AttachError, Attached, attach};
pub use blob::{Blob, BlobKind};
pub use heaps::{Heap, Heaps};
pub use layout::{Layout, Missing};
pub use method::{Method, MethodError};
pub use names::{Code, Frame, Function, Names};
pub use pages::Pages;
pub use reading::HotSpot;
pub use scopes::Scope;
pub use symbols::Symbols;
pub use tables::Tables;
