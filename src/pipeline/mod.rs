//! From samples to a profile: drain, put in time order with the side band, finish stacks, aggregate, name.

mod aggregate;
mod assemble;
mod collect;
pub mod losses;
mod names;
mod origin;
mod session;

pub use aggregate::{Aggregate, Frame, Image};
pub use assemble::assemble;
pub use names::{Files, Names, files};
pub use origin::origin;
pub use session::{Session, SessionOptions, Totals};
