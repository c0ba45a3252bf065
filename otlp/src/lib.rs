//! The profile model and its encodings: OTLP, pprof, flame graphs, folded stacks, speedscope, Firefox Profiler.
//!
//! ```
//! use profiler_otlp::{format::{self, Format}, model::builder::ProfileBuilder};
//!
//! let profile = ProfileBuilder::new().finish();
//! let mut file = Vec::new();
//! format::write(&profile, Format::Pprof, &mut file)?;
//! assert_eq!(format::read(&file)?.samples.len(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reading is for pprof and OTLP, of any producer, and total: whatever the bytes, it ends in bounded time and memory, with a
//! profile or an [`Error`]. Writing is for all formats, and its only errors are those of the output.
#![forbid(unsafe_code)]

pub mod export;
pub mod firefox;
pub mod folded;
pub mod format;
pub mod frames;
pub mod html;
pub mod model;
pub mod otlp;
pub mod pprof;
pub mod resource;
pub mod speedscope;
pub mod spool;
pub mod svg;

mod error;
mod headline;
mod labels;
mod rfc3339;
mod summary;
mod texts;
mod wire;

pub use error::Error;
pub use summary::{FunctionCount, ProcessCount, Summary, summary};
