//! Everything that is tested of this crate from outside.

mod common;
mod differential;
mod elsewhere;
mod hostile;
mod jit_files;
mod made;
