//! The profile model and its encodings: OTLP, pprof, flame graphs, folded stacks, speedscope, Firefox Profiler.
#![forbid(unsafe_code)]
pub mod html;
pub mod model;
