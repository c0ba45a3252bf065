//! The OpenTelemetry Transformation Language, on whatever has paths.
//!
//! A rule is text. [`Language`] compiles it, over the paths of one kind of [`Context`], to a [`Statement`] (an editor and its `where`), a
//! [`Condition`] or an [`Expression`]; those run on contexts, many at a time. What does not fit is told with its place:
//!
//! ```
//! # use profiler_ottl::{Language, Paths, PathError, Written, Context, Key, Value, EvalError};
//! # struct Nothing;
//! # impl Context for Nothing {
//! #     type Accessor = ();
//! #     fn get<'a>(&'a self, _: &'a (), _: &[Key<'_>]) -> Result<Value<'a>, EvalError> { Ok(Value::from("main")) }
//! #     fn set(&mut self, _: &(), _: &[Key<'_>], _: Value<'static>) -> Result<(), EvalError> { Ok(()) }
//! # }
//! # impl Paths for Nothing {
//! #     type Accessor = ();
//! #     fn resolve(&self, path: &Written<'_>) -> Result<(), PathError> { if path.names() == ["name"] { Ok(()) } else { Err(PathError::unknown()) } }
//! #     fn known(&self) -> Vec<String> { vec!["name".to_owned()] }
//! # }
//! let language = Language::new(&Nothing);
//! let condition = language.condition::<Nothing>(r#"HasPrefix(name, "ma") and Len(name) == 4"#)?;
//! assert!(condition.holds(&Nothing)?);
//!
//! let error = language.condition::<Nothing>(r#"HasPrefx(nam, "ma")"#).unwrap_err();
//! assert_eq!(error.message(), "there is no converter HasPrefx; did you mean HasPrefix?");
//! assert_eq!(error.column(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a rule means is what `pkg/ottl` of the Collector's contrib repository, version 0.161, does with it; where that is a defect, there is a clear
//! error or what its documentation says, and a line in `docs/ottl.md`.
//!
//! Rules may be hostile: their length, depth, patterns, results and the work of one run are bounded, and nothing panics. Not here: contexts, files,
//! configurations.
#![forbid(unsafe_code)]

mod compare;
mod compile;
mod context;
mod error;
mod functions;
mod gates;
mod glob;
mod key;
mod lexer;
mod pattern;
mod program;
mod sequence;
mod sprintf;
mod text;
mod time;
mod value;

pub mod parse;
pub mod reference;
pub mod syntax;

pub use compare::{calculate, compare};
pub use compile::Language;
pub use context::{Context, Key, MAX_LIST, PathError, Paths, Written, get_key, get_within, set_key, set_within};
pub use error::{CompileError, EvalError};
pub use functions::{Function, Parameter, Takes, groups};
pub use gates::Gates;
pub use key::HashKey;
pub use program::{Condition, Expression, MAX_WORK, Statement};
pub use sequence::{Conditions, ErrorMode, Logic, Outcome, RuleError, Statements};
pub use syntax::{Comparison, Operator};
pub use time::Time;
pub use value::{Id, Map, Opaque, Value};

/// The most bytes that the regular expressions of one rule may count as, compiled.
pub const MAX_PATTERNS: usize = pattern::MAX_OF_RULE;
/// The most bytes of a text that a function makes.
pub const MAX_TEXT: usize = 4 << 20;
