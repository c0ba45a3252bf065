//! The generated skeleton of the BPF object.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unsafe_op_in_unsafe_fn,
    dead_code,
    unused_imports,
    non_snake_case
)]

include!(concat!(env!("OUT_DIR"), "/profiler.skel.rs"));
