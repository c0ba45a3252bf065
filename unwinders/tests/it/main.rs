//! Processes and rows against what is real: `/proc`, the kernel's side band, other unwinders, running programs.
#![forbid(unsafe_code)]

mod hotspot;
mod process;
mod python;
mod recognised;
mod rows;
mod runtime;
