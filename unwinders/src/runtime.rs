//! What a runtime is to the rest of the house: the contract that the native unwinder, and every interpreter or JIT compiler whose
//! frames are more than addresses, is behind.
//!
//! ```text
//!             one                     one an executable                one a process and executable
//!   Loader ───── load(executable) ──> Data ───── attach(process) ────> Instance
//!   knows its kind of executable      offsets, ranges, what was        what the kernel half needs to know of the process,
//!   by content                        read of the file once            and the names of its frames
//! ```
//!
//! A process is published on its first sample and again whenever its mappings change. Then the publisher
//!
//! 1. opens every mapped file, and asks each [`Loader`] whether the executable is of its kind. A loader judges by what is in
//!    the file, never by its name, and answers soon: it is asked once an executable and process. What it reads of a file it keeps,
//!    for the next process that maps it.
//! 2. attaches each [`Data`] to the process. An [`Instance`] may write to kernel tables of its own, which its loader brought.
//! 3. asks each instance for its [`Piece`]s: which addresses of the process are its code. Pieces lie over each other in the
//!    order of [`loaders`]: a runtime whose loop is a function of a library names only that function's addresses, and what is
//!    beneath (rows, bias) stays, since the way out of the loop is a native one. Memory of the process that is no mapping of the
//!    executable, such as a code cache, is named in the same way.
//! 4. detaches the instances of executables that are no longer mapped, and all of them when the image ends. From then on nothing of
//!    the process is asked any more; what the kernel half may still be reading must stay as it is until the loader's
//!    [`Loader::tidy`] comes more than a second later.
//!
//! A frame of a runtime is [`RuntimeFrame`]: kind, object, position and a cookie. It says nothing to anybody but its instance,
//! which is asked for its [names](Instance::names) when it is first seen, and only then: the object may be freed or reused, and the
//! process gone, when the profile is written. Everything that an instance reads of a process is the process's word: it is
//! bounded, and checked against the cookie before it is believed.
//!
//! To add a runtime: a folder with these three, a C file that steps over its frames, one row in [`loaders`], a number in
//! `enum frame_kind`, and tests.

use std::fmt;
use std::sync::Arc;

use profiler_address::UserAddr;
use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;

use crate::executable::Executable;
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::native::Native;
use crate::process::Process;
use crate::reading::Reading;

/// All runtimes; later ones lie over earlier ones.
#[must_use]
pub fn loaders(native: &Native) -> Vec<Box<dyn Loader>> {
    vec![Box::new(native.clone())]
}

/// Knows executables of its kind.
pub trait Loader: fmt::Debug + Send {
    /// Whose frames its code has.
    fn kind(&self) -> FrameKind;

    /// What is known of `executable`, if it is of this kind; by `reading` its bytes can be had.
    ///
    /// # Errors
    /// It is of this kind but cannot be used now; it is asked again when the process is published next.
    fn load(
        &mut self,
        executable: &Arc<Executable>,
        reading: &mut dyn Reading,
        now: u64,
    ) -> Result<Option<Box<dyn Data>>, RuntimeError>;

    /// Gives back what is no longer needed; called about once a second, at `now` (`CLOCK_MONOTONIC`, ns).
    fn tidy(&mut self, now: u64);
}

/// One executable of a runtime.
pub trait Data: fmt::Debug + Send {
    /// Makes it known of `process` that it runs this executable.
    ///
    /// # Errors
    /// The process is not (yet) what it should be; it is asked again when the process is published next.
    fn attach(self: Box<Self>, process: &Process) -> Result<Box<dyn Instance>, RuntimeError>;
}

/// One executable of a runtime in one image of one process.
pub trait Instance: fmt::Debug + Send {
    /// Which addresses are its code, now that `own` are the process's mappings of the executable; of those that are not its
    /// own it may look at all that `process` maps. Pieces of one instance do not overlap.
    fn pieces(&mut self, process: &Process, own: &[&Mapping]) -> Vec<Piece>;

    /// The functions that `frame` stands for, innermost inlined one first, read from `memory` now; empty if it has no name, or
    /// is no longer what it was when it was sampled.
    fn names(&mut self, frame: &RuntimeFrame, memory: &dyn Memory) -> Vec<FrameName>;

    /// The process has ended, is another program now, or does not map the executable any more.
    fn detach(self: Box<Self>, now: u64);
}

/// A range of a process's addresses that is a runtime's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First address.
    pub start: UserAddr,
    /// One past the last.
    pub end: UserAddr,
    /// The rows that hold there; `None` leaves those that lie beneath.
    pub rows: Option<RowsAt>,
}

/// Which rows hold at a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsAt {
    /// The kernel half's index of the executable.
    pub slot: u32,
    /// Address in the process minus ELF virtual address.
    pub bias: u64,
}

/// A function on a stack, as its runtime names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameName {
    /// The function.
    pub function: Arc<str>,
    /// Its source file; empty if unknown.
    pub file: Arc<str>,
    /// The line in it; 0 if unknown.
    pub line: u32,
}

/// Why a runtime has no part in a process.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A table is full of what is in use.
    #[error("the {0} table is full")]
    TableFull(&'static str),
    /// The process's memory is not, or not yet, what such a program has.
    #[error("{0}")]
    NotReady(String),
}
