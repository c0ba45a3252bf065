//! Everything that is tested of this crate from outside.

mod go;
mod go_search;
mod parts;
mod restore;
