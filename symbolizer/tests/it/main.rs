//! Everything that is tested of this crate from outside.

mod common;
mod differential;
mod jit_files;
