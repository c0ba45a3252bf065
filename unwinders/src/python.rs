//! CPython, from 3.8 on.
//!
//! ```text
//!  file ── load ──> Interpreter: version, offsets (layout), where a thread keeps its state (thread), the evaluation loop (eval_loop)
//!                       │ attach: addresses of one process, its C library's slots (thread::slots)
//!                       ▼
//!                   kernel half (python.h): frames {code object, position, cookie}
//!                       │ names, within milliseconds
//!                       ▼
//!                   code: the object is read, checked by the cookie; lines: position -> line
//! ```
//!
//! Offsets come from the process itself where it publishes them (from 3.13 on), else from tables by version, which are checked against
//! what the file says of its own type of code objects. What does not fit is refused in words.

mod code;
mod eval_loop;
mod instance;
mod layout;
pub mod lines;
mod thread;
mod trampolines;

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;
use profiler_elf::{Elf, MACHINE_X86_64};

use self::layout::{Layout, Version};
use self::thread::Place;
use self::trampolines::Trampolines;
use crate::memory::Memory;
use crate::runtime::{AttachError, Attached, Data, EvalLoop, Named, Runtime, Symbols, Target};

/// The reading side of CPython.
#[derive(Clone, Copy, Debug)]
pub struct Python;

/// What is looked up in a file.
const SYMBOLS: [&str; 9] = [
    "_PyRuntime",
    "_PyEval_EvalFrameDefault",
    "PyGILState_GetThisThreadState",
    "PyCode_Type",
    "Py_Version",
    // By what each version has that the one before had not, where no symbol tells the version.
    "PyCode_NewWithPosOnlyArgs",
    "PyThreadState_GetID",
    "Py_NewRef",
    "__tls_get_addr",
];

impl Runtime for Python {
    fn kind(&self) -> FrameKind {
        FrameKind::CPYTHON
    }

    fn name(&self) -> &'static str {
        "CPython"
    }

    fn mark(&self) -> &'static str {
        "_PyRuntime"
    }

    fn eval_loop(&self) -> Option<EvalLoop> {
        Some(EvalLoop { kind: FrameKind::CPYTHON, too_early: code::TOO_EARLY })
    }

    fn load(&self, elf: &Elf) -> Result<Arc<dyn Data>, AttachError> {
        if elf.machine() != MACHINE_X86_64 {
            return Err(unsupported("CPython is followed on x86-64 only".to_owned()));
        }
        let symbols = Symbols::exported(elf, &SYMBOLS);
        let version = Version::of(elf, &symbols).map_err(unsupported)?;
        let refuse = |why: String| unsupported(format!("CPython {version}: {why}"));
        let layout = Layout::of(elf, &symbols, version).map_err(refuse)?;
        let thread = thread::find(elf, &symbols).map_err(refuse)?;
        let ranges = eval_loop::find(elf, &symbols).map_err(refuse)?;
        let code_type = symbols.get("PyCode_Type").map_or(0, |symbol| symbol.address.0);
        Ok(Arc::new(Interpreter { version, layout, thread, ranges, code_type }))
    }

    fn names(&self, opaque: &[u8], memory: &dyn Memory, frames: &[RuntimeFrame]) -> Vec<Named> {
        let Ok(naming) = borsh::from_slice::<Naming>(opaque) else {
            return vec![Err(Arc::from("python: not attached")); frames.len()];
        };
        let mut reader = code::Reader::new(&naming, memory);
        frames.iter().map(|frame| reader.name(frame)).collect()
    }
}

/// An interpreter: the program, or the library of one.
#[derive(Debug)]
struct Interpreter {
    version: Version,
    layout: Layout,
    thread: Place,
    /// ELF addresses of the evaluation loop: first, one past the last.
    ranges: Vec<(u64, u64)>,
    /// ELF address of the type of code objects.
    code_type: u64,
}

/// What naming needs.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
struct Naming {
    version: Version,
    layout: Layout,
    /// Its address in the process.
    code_type: u64,
}

impl Data for Interpreter {
    fn attach(&self, target: &mut Target<'_>) -> Result<Attached, AttachError> {
        let bias = target.bias;
        let place = thread::resolve(&self.thread, target)?;
        let code_type = self.code_type.wrapping_add(bias);
        let trampolines = Trampolines::find(target.mappings, target.memory);
        let naming = Naming { version: self.version, layout: self.layout.clone(), code_type };
        Ok(Attached {
            instance: instance::bytes(&self.layout, &place, &trampolines),
            pieces: self
                .ranges
                .iter()
                .map(|(from, to)| (from.wrapping_add(bias), to.wrapping_add(bias)))
                .chain(trampolines.ranges)
                .collect(),
            opaque: borsh::to_vec(&naming).map_err(|error| unsupported(error.to_string()))?,
            // Trampolines may be switched on at any time, and have new memory now and then.
            grows: true,
            about: format!("CPython {}", self.version),
        })
    }
}

fn unsupported(why: String) -> AttachError {
    AttachError::Unsupported(why)
}

/// Names any frames of memory that is any bytes: for fuzzing.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    code::fuzz(bytes);
}
