//! The formats that a profile is written in and read from: OTLP, pprof, folded stacks, flame graphs, speedscope, the Firefox
//! Profiler and, by [`profiler_page`], a page for a browser; and two profiles beside each
//! other ([`differential`]).
//!
//! ```
//! use profiler_formats::format::{self, Format};
//! use profiler_model::builder::ProfileBuilder;
//!
//! let profile = ProfileBuilder::new().finish();
//! let mut file = Vec::new();
//! format::write(&profile, Format::Pprof, &mut file)?;
//! assert_eq!(format::read(&file)?.sample_entries(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reading is for pprof and OTLP (protobuf and JSON), of any producer, and total: whatever the bytes, it ends in bounded time and memory, with a
//! profile or an [`Error`]. Writing is for all formats, and its only errors are those of the output.
#![forbid(unsafe_code)]

pub mod differential;
pub mod firefox;
pub mod folded;
pub mod format;
pub mod otlp;
pub mod pprof;
pub mod speedscope;
pub mod svg;
pub mod wire;

mod error;
mod labels;
mod texts;

pub use error::Error;
