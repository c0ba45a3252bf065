//! From samples to a profile: drain, put in time order with the side band, finish stacks, aggregate, name.

mod aggregate;
mod assemble;
mod chosen;
mod collect;
mod facts;
mod finish;
mod fold;
mod images;
mod learn;
pub mod losses;
mod memory;
mod names;
mod origin;
mod resolve;
mod ruled;
mod session;
mod span;
mod tap;
mod totals;
mod window;

pub use crate::rules::Early;
pub use aggregate::{Aggregate, Frame, Image, RawSample, Series};
pub use assemble::{alone, assemble};
pub use facts::{process_facts, sampled_facts};
pub use finish::{NameLosses, Naming, Sampled, finish};
pub use images::ImageFacts;
pub use learn::Learner;
pub use memory::{Budgets, MemoryUse, TableUse};
pub use names::{Files, Named, Names, files};
pub use origin::origin;
pub use session::{Session, SessionOptions};
pub use span::Span;
pub use tap::{Place, Tap, Tick, Unnamed};
pub use totals::{SourceTotals, Tallies, Tally, Totals};
