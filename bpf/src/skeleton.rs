//! The generated skeletons of the BPF objects.
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

#[cfg(feature = "feed")]
pub(crate) mod feed {
    include!(concat!(env!("OUT_DIR"), "/feed.skel.rs"));
}
