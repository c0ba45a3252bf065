//! What the kernel half needs to know to unwind a process: which processes there are, what they map, and how to step from a
//! frame of a mapped executable to its caller.
#![forbid(unsafe_code)]

pub mod executable;
pub mod hotspot;
pub mod maps;
pub mod memory;
pub mod native;
pub mod process;
pub mod publish;
pub mod python;
mod ranges;
pub mod reading;
pub mod rows;
pub mod runtime;
pub mod v8;
