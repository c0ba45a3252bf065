//! Rows of unwind tables.

mod framehop;
mod gimli;
mod hostile;
mod live;
mod machine;
