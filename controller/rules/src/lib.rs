//! Rules on OTLP profiles: the contexts `resource`, `scope`, `profile` and `profilesample` of the OpenTelemetry Transformation Language, and `stack` and
//! `frame`, which it does not have, over requests as they are sent.
//!
//! ```
//! use profiler_rules::{Dialect, Level, Request, Rules};
//!
//! let rules = Rules::statements(Some(Level::Resource), &[r#"set(attributes["team"], "web")"#], Default::default(), Dialect::default())?;
//! let mut request = Request::default();
//! request.resource_profiles.push(Default::default());
//! let (request, done) = rules.apply(request, |_| {})?;
//! assert_eq!(request.resource_profiles[0].resource.as_ref().unwrap().attributes[0].key, "team");
//! assert_eq!(done.contexts, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Rows of a dictionary are shared, so none is changed: what a rule writes is found there or added. Afterwards [`compact`] leaves only what is still
//! referred to, so that what a rule removed is in no table. [`Aggregate`] makes one of what has become equal. Not here: files, configurations, this profiler's own model.
#![forbid(unsafe_code)]

mod aggregate;
mod any;
mod changes;
mod compact;
mod cursor;
mod equal;
mod paths;
mod process;
mod run;

pub use aggregate::{Aggregate, Aggregated, OTHER, WHOLE};
pub use changes::changes;
pub use compact::compact;
pub use cursor::Cursor;
pub use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest as Request;
pub use paths::{Accessor, Level};
pub use process::{Varies, is_of_process};
pub use run::{Dialect, Done, RefusedRule, Rules, TIMED, Tally, innermost};
