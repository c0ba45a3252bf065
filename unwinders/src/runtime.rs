//! What a runtime is to the rest of the house: the contract that the native unwinder, and every interpreter or JIT compiler whose
//! frames are more than addresses, is behind.
//!
//! Who samples opens nothing of a target and parses nothing of it. So a runtime has two sides, and what goes between them is plain bytes:
//!
//! ```text
//!                one                      one an executable              one a process and executable
//!  reads    Runtime ─ recognises, load ─> Data ───────── attach ───────> Attached: bytes for the kernel half, which addresses are
//!           names: of frames, by `opaque`                                   │       its code, `opaque`: what naming needs
//!  ─────────────────────────────────────────────────────────────────────────┼───────────────────────────────────────────────────
//!  samples  Loader ──────────────────── attach ──────────────────────────> Instance: holds a place in the kernel half's table
//! ```
//!
//! A process is published on its first sample and again whenever its mappings change. Then the publisher
//!
//! 1. opens every mapped file. Which runtime an executable is was told with the answer: a [`Runtime`] judges by what is in the file, never
//!    by its name.
//! 2. asks each [`Loader`] to attach to each executable of its kind. All runtimes but the native one have the same loader
//!    ([`Runtimes`]): it asks the reading side, checks what it says, and publishes it to the kernel half. One that is not ready yet is
//!    asked again soon.
//! 3. asks each instance for its [`Piece`]s: which addresses of the process are its code. Pieces lie over each other in the
//!    order of [`loaders`]: a runtime whose loop is a function of a library names only that function's addresses, and what is
//!    beneath (rows, bias) stays, since the way out of the loop is a native one. Memory of the process that is no mapping of the
//!    executable, such as a code cache, is named in the same way.
//! 4. detaches the instances of executables that are no longer mapped, and all of them when the image ends. Their places in the kernel
//!    half's table stay as they are for more than a second, since it may be reading them.
//!
//! A frame of a runtime is [`RuntimeFrame`]: kind, object, position and a cookie. It says nothing to anybody but its runtime,
//! which is asked for its names within milliseconds of the first sample that has it, and only then: the object may be freed or reused, and
//! the process gone, when the profile is written. Everything that a runtime reads of a process is the process's word: it is bounded, and
//! checked against the cookie before it is believed. A frame that has no name has a reason instead.
//!
//! To add a runtime: a folder with a [`Runtime`] and its [`Data`], a row in [`all`], a number in `enum frame_kind` (`abi.h`), its C header
//! beside `unwind.h` with one `step_NAME`, an arm in the two `step_runtime`, a row in `abi::FrameKind` and in `KINDS` of the assembled profile, and tests.

mod attached;
mod recognise;
mod symbols;
mod unfollowed;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use profiler_address::UserAddr;
use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;
use profiler_elf::Elf;

pub use self::attached::Runtimes;
pub(crate) use self::recognise::recognise;
pub use self::symbols::{Symbol, Symbols};
pub use self::unfollowed::Unfollowed;
use crate::executable::{Executable, Executables, Mapper};
use crate::hotspot::HotSpot;
use crate::maps::Mapping;
use crate::memory::Memory;
use crate::native::Native;
use crate::process::Process;
use crate::python::Python;
use crate::reading::Reading;
use crate::v8::V8;

/// Most bytes that naming may need of an instance.
pub const MAX_OPAQUE: usize = 4096;
/// Pieces that one instance may have: V8's code is in chunks of 256 KiB of 512 MiB at most.
pub const MAX_PIECES: usize = 4096;
/// Frames named by one request.
pub const MAX_FRAMES: usize = 1024;
/// Functions that one frame can stand for: compilers inline no deeper.
pub const MAX_NAMES: usize = 64;
/// Longest name of a function or file, bytes.
pub const MAX_NAME: usize = 4096;
/// What cannot be read of a process or of its files is asked for again after this time.
pub(crate) const LATER: Duration = Duration::from_secs(2);
/// Longest reason why there is no name, or no runtime, bytes.
pub const MAX_REASON: usize = 256;

/// The reading side of all runtimes but the native one, of which each has a number of its own.
#[must_use]
pub fn all() -> &'static [&'static dyn Runtime] {
    &[&HotSpot, &Python, &V8]
}

/// The reading side of the runtime of this kind.
#[must_use]
pub fn of_kind(kind: FrameKind) -> Option<&'static dyn Runtime> {
    all().iter().copied().find(|runtime| runtime.kind() == kind)
}

/// The sampling side of all runtimes; later ones lie over earlier ones.
#[must_use]
pub fn loaders(native: &Native, runtimes: &Runtimes) -> Vec<Box<dyn Loader>> {
    let mut loaders: Vec<Box<dyn Loader>> = vec![Box::new(native.clone())];
    loaders.extend(all().iter().map(|runtime| Box::new(runtimes.loader(runtime.kind())) as Box<dyn Loader>));
    loaders
}

/// What reads a runtime: it runs where targets are read.
pub trait Runtime: fmt::Debug + Send + Sync {
    /// Whose frames its code has.
    fn kind(&self) -> FrameKind;

    /// What people call it: "CPython".
    fn name(&self) -> &'static str;

    /// What an executable defines that is of this kind, and no other: the name of a symbol.
    fn mark(&self) -> &'static str;

    /// What is known of an executable of this kind by its file. It is kept, for the next process that maps it.
    ///
    /// # Errors
    /// It is not one that can be used, in words.
    fn load(&self, elf: &Elf) -> Result<Arc<dyn Data>, AttachError>;

    /// Whether native functions are its own loop over what it interprets, as CPython's are; by default they are not.
    fn eval_loop(&self) -> Option<EvalLoop> {
        None
    }

    /// The bits of a frame's cookie that tell its object from another, where others say something of the place; by default all do.
    fn identity(&self) -> u32 {
        u32::MAX
    }

    /// The functions that each of `frames` stands for, innermost inlined one first, as `memory` says now. `opaque` is what
    /// [`Data::attach`] said, and as little to be believed as all else.
    fn names(&self, opaque: &[u8], memory: &dyn Memory, frames: &[RuntimeFrame]) -> Vec<Named>;
}

/// A runtime whose loop is a native function: its functions stand beside that one's frame, its other native functions between them, which
/// are not shown, and the list that it keeps of them is another one when a copy of the stack is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalLoop {
    /// Its kind.
    pub kind: FrameKind,
    /// The position of the frame, of no object, that stands for functions which were there before the runtime was known.
    pub too_early: u32,
}

/// [`Runtime::eval_loop`] of this kind.
#[must_use]
pub fn eval_loop(kind: FrameKind) -> Option<EvalLoop> {
    of_kind(kind)?.eval_loop()
}

/// What is known of an executable of a runtime.
pub trait Data: fmt::Debug + Send + Sync + Any {
    /// What the other side needs to know of a process that maps it.
    ///
    /// # Errors
    /// The process is not (yet) what it should be.
    fn attach(&self, target: &mut Target<'_>) -> Result<Attached, AttachError>;
}

/// A process that maps an executable of a runtime.
#[derive(Debug)]
pub struct Target<'a> {
    /// The process.
    pub process: Mapper<'a>,
    /// What it maps as code.
    pub mappings: &'a [Mapping],
    /// The executable.
    pub executable: &'a Arc<Executable>,
    /// Address in the process minus ELF virtual address of the executable.
    pub bias: u64,
    /// Where other files that it maps are opened.
    pub executables: &'a mut Executables,
    /// Its memory, as it is now.
    pub memory: &'a dyn Memory,
}

/// What the sampling side publishes of a runtime in a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// The runtime's C struct: at most [`profiler_bpf::abi::INSTANCE_BYTES`], the rest is 0.
    pub instance: Vec<u8>,
    /// Which addresses are its code: first, one past the last.
    pub pieces: Vec<(u64, u64)>,
    /// What naming needs; given back with each request.
    pub opaque: Vec<u8>,
    /// The pieces may be others when the process maps more: ask again then.
    pub grows: bool,
    /// What it is, for people: "CPython 3.12".
    pub about: String,
}

/// Why a runtime has no part in a process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Not yet; to be asked again after a while.
    #[error("{0}")]
    NotReady(String, Duration),
    /// It is none that can be used.
    #[error("{0}")]
    Unsupported(String),
}

/// A frame's functions, innermost first; or why there are none, in words that begin with the runtime's name.
pub type Named = Result<Vec<FrameName>, Arc<str>>;

/// The sampling side of a runtime.
pub trait Loader: fmt::Debug + Send {
    /// Whose frames its code has.
    fn kind(&self) -> FrameKind;

    /// Makes it known of `process` that it runs `executable`; none if that is not of this kind.
    ///
    /// # Errors
    /// It is of this kind but cannot be used now.
    fn attach(
        &mut self,
        executable: &Arc<Executable>,
        process: &Process,
        reading: &mut dyn Reading,
        now: u64,
    ) -> Result<Option<Box<dyn Instance>>, RuntimeError>;

    /// Gives back what is no longer needed; called about once a second, at `now` (`CLOCK_MONOTONIC`, ns).
    fn tidy(&mut self, now: u64);
}

/// One executable of a runtime in one image of one process.
pub trait Instance: fmt::Debug + Send {
    /// Which addresses are its code, now that `own` are the process's mappings of the executable; of those that are not its
    /// own it may look at all that `process` maps. Pieces of one instance do not overlap.
    fn pieces(&mut self, process: &Process, own: &[&Mapping], reading: &mut dyn Reading, now: u64) -> Vec<Piece>;

    /// What naming needs of it; none if its frames are named otherwise.
    fn opaque(&self) -> Option<&[u8]>;

    /// Bytes that it takes, to within some per cent.
    fn memory_bytes(&self) -> usize {
        0
    }

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
    /// Place of the instance in the kernel half's table; 0 for native code.
    pub instance: u32,
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
    /// The line at which the function begins; 0 if unknown.
    pub start_line: u32,
    /// How the frame's code runs, of runtimes that have several ways: the same for all functions of a frame.
    pub tier: Option<Tier>,
}

/// How a runtime runs a frame's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// By its interpreter.
    Interpreted,
    /// HotSpot's client compiler made it: levels 1 to 3.
    C1,
    /// HotSpot's server compiler, or what stands in its place: level 4.
    C2,
    /// V8's baseline compiler.
    Sparkplug,
    /// V8's compiler in the middle.
    Maglev,
    /// V8's optimizing compiler.
    Turbofan,
}

/// Why a runtime has no part in a process.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A table is full of what is in use.
    #[error("the {0} table is full")]
    TableFull(&'static str),
    /// The process's memory is not yet what such a program has; to be asked again after a while.
    #[error("{0}")]
    NotReady(String, Duration),
    /// It is none that can be used.
    #[error("{0}")]
    Unsupported(String),
}
