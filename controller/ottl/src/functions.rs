//! The standard functions: what they take, and what they do.

use std::{borrow::Cow, fmt};

use crate::{
    error::EvalError,
    pattern::Patterns,
    text,
    value::{Map, Value},
};

mod collections;
mod editors;
mod formats;
mod grok;
#[cfg(feature = "hashes")]
mod hashes;
mod ids;
mod lambdas;
mod network;
mod replacing;
mod strings;
mod times;
mod types;

/// A function of the language.
pub struct Function {
    /// What rules call it. Editors begin with a small letter, converters with a capital one.
    pub name: &'static str,
    /// What it takes, in order.
    pub parameters: &'static [Parameter],
    /// What a converter returns.
    pub returns: &'static str,
    /// What it does.
    pub summary: &'static str,
    pub(crate) prepare: fn(&Literals<'_>) -> Result<Prepared, (usize, String)>,
    pub(crate) run: Run,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.name).finish()
    }
}

/// What a function takes.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name, as rules may give it.
    pub name: &'static str,
    /// What is taken.
    pub takes: Takes,
    /// Whether it may be left out.
    pub optional: bool,
}

/// Kinds of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Takes {
    Any,
    /// A path, which the editor changes.
    Target,
    MapTarget,
    ListTarget,
    Text,
    Int,
    Map,
    List,
    Time,
    Duration,
    /// Converted if it is something else.
    TextLike,
    IntLike,
    FloatLike,
    BoolLike,
    BytesLike,
    /// Written out, no expression.
    LiteralText,
    LiteralInt,
    LiteralBool,
    /// A list that is written out.
    Values,
    Texts,
    LiteralTexts,
    /// A list of texts, written out or not.
    TextLikes,
    /// The name of a converter of one string.
    Function,
    /// A lambda of so many parameters.
    Lambda(usize),
}

impl Takes {
    /// As messages and the table of functions have it.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::Target => "a path",
            Self::MapTarget => "a path of a map",
            Self::ListTarget => "a path of a list",
            Self::Text => "a string",
            Self::Int => "an int",
            Self::Map => "a map",
            Self::List => "a list",
            Self::Time => "a time",
            Self::Duration => "a duration",
            Self::TextLike => "a string or what converts to one",
            Self::IntLike => "an int or what converts to one",
            Self::FloatLike => "a float or what converts to one",
            Self::BoolLike => "a bool or what converts to one",
            Self::BytesLike => "bytes or what converts to them",
            Self::LiteralText => "a string that is written out",
            Self::LiteralInt => "an int that is written out",
            Self::LiteralBool => "true or false",
            Self::Values => "a list that is written out",
            Self::Texts => "a list of strings that is written out",
            Self::LiteralTexts => "a list of strings that are written out",
            Self::TextLikes => "a list of what converts to strings",
            Self::Function => "the name of a converter of one string",
            Self::Lambda(0) => "a lambda without parameters",
            Self::Lambda(2) => "a lambda of two parameters",
            Self::Lambda(_) => "a lambda of three parameters",
        }
    }
}

type Edit = for<'a> fn(&Args<'_, 'a>) -> Result<Option<Value<'static>>, EvalError>;
type Convert = for<'a> fn(&Args<'_, 'a>) -> Result<Value<'a>, EvalError>;

/// What a function does.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// Makes the target's new value, or leaves it.
    Edit(Edit),
    Convert(Convert),
}

/// What can be made of literal arguments once, when a rule is compiled.
#[derive(Clone, Debug, Default)]
pub(crate) enum Prepared {
    #[default]
    Nothing,
    /// `set` leaves the target as it is if the value is nil.
    SkipNil,
    Regex(regex::Regex),
    Glob(crate::glob::Glob),
    Format(crate::time::strptime::Format),
    Clock(crate::time::strptime::Format, crate::time::Place),
    Networks(Vec<network::Network>),
    Severity(Result<Vec<formats::Level>, String>),
    Id(crate::value::Id),
    Grok(Box<grok::Grok>),
    #[cfg(feature = "hashes")]
    Key(crate::key::HashKey),
}

/// The arguments of a call that are literal.
pub(crate) struct Literals<'l> {
    pub values: Vec<Literal<'l>>,
    /// Those of the whole rule.
    pub patterns: &'l Patterns,
    /// That of keyed hashes.
    pub key: Option<&'l crate::key::HashKey>,
}

pub(crate) enum Literal<'l> {
    Absent,
    Value(&'l Value<'static>),
    /// Values of a list, where they are literal.
    List(Vec<Option<&'l Value<'static>>>),
    Dynamic,
}

impl<'l> Literals<'l> {
    pub fn get(&self, at: usize) -> Option<&'l Value<'static>> {
        match self.values.get(at) {
            Some(Literal::Value(value)) => Some(value),
            _ => None,
        }
    }

    pub fn text(&self, at: usize) -> Option<&'l str> {
        match self.get(at) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub fn int(&self, at: usize) -> Option<i64> {
        match self.get(at) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn absent(&self, at: usize) -> bool {
        matches!(self.values.get(at), None | Some(Literal::Absent))
    }

    /// The values of a list, if all are literal.
    pub fn list(&self, at: usize) -> Option<Vec<&'l Value<'static>>> {
        match self.values.get(at) {
            Some(Literal::List(values)) => values.iter().copied().collect(),
            _ => None,
        }
    }
}

/// Where a function's arguments come from.
pub(crate) trait Source<'a> {
    fn value(&self, at: usize) -> Result<Value<'a>, EvalError>;
    fn given(&self, at: usize) -> bool;
    /// The length of a list that is written out.
    fn count(&self, at: usize) -> Option<usize>;
    fn item(&self, at: usize, index: usize) -> Result<Value<'a>, EvalError>;
    fn lambda(&self, at: usize, values: &[Value<'_>]) -> Result<Value<'static>, EvalError>;
    fn function(&self, at: usize, input: &str) -> Result<Value<'static>, EvalError>;
}

/// The arguments of a call, evaluated when they are asked for.
pub(crate) struct Args<'b, 'a> {
    source: &'b dyn Source<'a>,
    pub prepared: &'a Prepared,
    function: &'static Function,
}

impl<'b, 'a> Args<'b, 'a> {
    pub fn new(source: &'b dyn Source<'a>, prepared: &'a Prepared, function: &'static Function) -> Self {
        Self { source, prepared, function }
    }

    pub fn value(&self, at: usize) -> Result<Value<'a>, EvalError> {
        self.source.value(at)
    }

    pub fn given(&self, at: usize) -> bool {
        self.source.given(at)
    }

    fn wrong(&self, at: usize, value: &Value<'_>) -> EvalError {
        let parameter = &self.function.parameters[at];
        EvalError::new(format!("{} must be {}, not {}", parameter.name, parameter.takes.describe(), value.kind()))
    }

    pub fn text(&self, at: usize) -> Result<Cow<'a, str>, EvalError> {
        match self.value(at)? {
            Value::Text(text) => Ok(text),
            other => Err(self.wrong(at, &other)),
        }
    }

    /// The text of an optional argument, or `default`.
    pub fn text_or(&self, at: usize, default: &'static str) -> Result<Cow<'a, str>, EvalError> {
        if self.given(at) { self.text(at) } else { Ok(Cow::Borrowed(default)) }
    }

    pub fn int(&self, at: usize) -> Result<i64, EvalError> {
        match self.value(at)? {
            Value::Int(number) => Ok(number),
            other => Err(self.wrong(at, &other)),
        }
    }

    pub fn bool_or(&self, at: usize, default: bool) -> Result<bool, EvalError> {
        match self.value(at)? {
            Value::Bool(truth) if self.given(at) => Ok(truth),
            _ => Ok(default),
        }
    }

    pub fn map(&self, at: usize) -> Result<Cow<'a, Map>, EvalError> {
        match self.value(at)? {
            Value::Map(map) => Ok(map),
            other => Err(self.wrong(at, &other)),
        }
    }

    pub fn list(&self, at: usize) -> Result<Cow<'a, [Value<'static>]>, EvalError> {
        match self.value(at)? {
            Value::List(list) => Ok(list),
            other => Err(self.wrong(at, &other)),
        }
    }

    pub fn time(&self, at: usize) -> Result<crate::time::Time, EvalError> {
        match self.value(at)? {
            Value::Time(time) => Ok(time),
            other => Err(self.wrong(at, &other)),
        }
    }

    pub fn duration(&self, at: usize) -> Result<i64, EvalError> {
        match self.value(at)? {
            Value::Duration(nanos) => Ok(nanos),
            other => Err(self.wrong(at, &other)),
        }
    }

    /// Text, or what converts to it; nothing for nil.
    pub fn text_like(&self, at: usize) -> Result<Option<Cow<'a, str>>, EvalError> {
        converted(self.value(at)?)
    }

    pub fn int_like(&self, at: usize) -> Result<Option<i64>, EvalError> {
        types::to_int(&self.value(at)?)
    }

    pub fn float_like(&self, at: usize) -> Result<Option<f64>, EvalError> {
        types::to_float(&self.value(at)?)
    }

    pub fn bool_like(&self, at: usize) -> Result<Option<bool>, EvalError> {
        types::to_bool(&self.value(at)?)
    }

    pub fn bytes_like(&self, at: usize) -> Result<Option<Cow<'a, [u8]>>, EvalError> {
        types::to_bytes(self.value(at)?)
    }

    /// The values of a list argument, one after the other.
    pub fn items(&self, at: usize) -> Result<Vec<Value<'a>>, EvalError> {
        match self.source.count(at) {
            Some(count) => (0..count).map(|index| self.source.item(at, index)).collect(),
            None => match self.value(at)? {
                Value::List(Cow::Borrowed(list)) => Ok(list.iter().map(Value::borrowed).collect()),
                Value::List(Cow::Owned(list)) => Ok(list),
                Value::Nil => Ok(Vec::new()),
                other => Err(self.wrong(at, &other)),
            },
        }
    }

    /// As [`Args::items`], until `found` has what it looks for.
    pub fn find_item(
        &self,
        at: usize,
        mut found: impl FnMut(&Value<'a>) -> bool,
    ) -> Result<Option<Value<'a>>, EvalError> {
        for index in 0..self.source.count(at).unwrap_or_default() {
            let value = self.source.item(at, index)?;
            if found(&value) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    pub fn texts(&self, at: usize) -> Result<Vec<Cow<'a, str>>, EvalError> {
        let text = |value| match value {
            Value::Text(text) => Ok(text),
            other => Err(EvalError::new(format!(
                "{} must have strings, not {}",
                self.function.parameters[at].name,
                other.kind()
            ))),
        };
        self.items(at)?.into_iter().map(text).collect()
    }

    pub fn lambda(&self, at: usize, values: &[Value<'_>]) -> Result<Value<'static>, EvalError> {
        self.source.lambda(at, values)
    }

    /// What a lambda of a condition says.
    pub fn holds(&self, at: usize, values: &[Value<'_>]) -> Result<bool, EvalError> {
        match self.lambda(at, values)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(EvalError::new(format!("the lambda must return a bool, not {}", other.kind()))),
        }
    }

    pub fn function(&self, at: usize, input: &str) -> Result<Value<'static>, EvalError> {
        self.source.function(at, input)
    }
}

fn converted(value: Value<'_>) -> Result<Option<Cow<'_, str>>, EvalError> {
    match value {
        Value::Text(text) => Ok(Some(text)),
        other => Ok(text::converted(&other)?.map(|text| Cow::Owned(text.into_owned()))),
    }
}

/// Whether `value` can be given where `takes` is taken; for literals, when a rule is compiled.
pub(crate) fn check(takes: Takes, value: &Value<'static>) -> Result<(), String> {
    let fits = match takes {
        Takes::Text => matches!(value, Value::Text(_)),
        Takes::Int => matches!(value, Value::Int(_)),
        Takes::Map => matches!(value, Value::Map(_)),
        Takes::List => matches!(value, Value::List(_)),
        Takes::Time => matches!(value, Value::Time(_)),
        Takes::Duration => matches!(value, Value::Duration(_)),
        Takes::TextLike => return text::converted(value).map(|_| ()).map_err(|error| error.to_string()),
        Takes::IntLike => return types::to_int(value).map(|_| ()).map_err(|error| error.to_string()),
        Takes::FloatLike => return types::to_float(value).map(|_| ()).map_err(|error| error.to_string()),
        Takes::BoolLike => return types::to_bool(value).map(|_| ()).map_err(|error| error.to_string()),
        Takes::BytesLike => return types::to_bytes(value.borrowed()).map(|_| ()).map_err(|error| error.to_string()),
        _ => true,
    };
    if fits { Ok(()) } else { Err(format!("must be {}, not {}", takes.describe(), value.kind())) }
}

/// One text for all parameters.
struct One<'a>(&'a str);

impl<'a> Source<'a> for One<'a> {
    fn value(&self, _: usize) -> Result<Value<'a>, EvalError> {
        Ok(Value::from(self.0))
    }
    fn given(&self, at: usize) -> bool {
        at == 0
    }
    fn count(&self, _: usize) -> Option<usize> {
        None
    }
    fn item(&self, _: usize, _: usize) -> Result<Value<'a>, EvalError> {
        Ok(Value::Nil)
    }
    fn lambda(&self, _: usize, _: &[Value<'_>]) -> Result<Value<'static>, EvalError> {
        Ok(Value::Nil)
    }
    fn function(&self, _: usize, _: &str) -> Result<Value<'static>, EvalError> {
        Ok(Value::Nil)
    }
}

impl Function {
    /// Whether it is an editor.
    #[must_use]
    pub fn is_editor(&self) -> bool {
        matches!(self.run, Run::Edit(_))
    }

    /// What it makes of one string; `prepared` is of a call whose argument is not known.
    pub(crate) fn apply(&'static self, prepared: &Prepared, input: &str) -> Result<Value<'static>, EvalError> {
        let Run::Convert(run) = self.run else { return Ok(Value::Nil) };
        if self.parameters.len() != 1 {
            return Err(EvalError::new(format!("{} takes {} arguments, not one", self.name, self.parameters.len())));
        }
        run(&Args::new(&One(input), prepared, self)).map(Value::into_owned)
    }
}

const fn needs(name: &'static str, takes: Takes) -> Parameter {
    Parameter { name, takes, optional: false }
}

const fn may(name: &'static str, takes: Takes) -> Parameter {
    Parameter { name, takes, optional: true }
}

fn nothing(_: &Literals<'_>) -> Result<Prepared, (usize, String)> {
    Ok(Prepared::Nothing)
}

/// A converter that prepares nothing.
const fn converter(
    name: &'static str,
    parameters: &'static [Parameter],
    returns: &'static str,
    summary: &'static str,
    run: Convert,
) -> Function {
    Function { name, parameters, returns, summary, prepare: nothing, run: Run::Convert(run) }
}

const fn editor(name: &'static str, parameters: &'static [Parameter], summary: &'static str, run: Edit) -> Function {
    Function { name, parameters, returns: "", summary, prepare: nothing, run: Run::Edit(run) }
}

impl Function {
    const fn prepared(self, prepare: fn(&Literals<'_>) -> Result<Prepared, (usize, String)>) -> Self {
        Self { prepare, ..self }
    }
}

/// All functions by what they are for.
#[must_use]
pub fn groups() -> Vec<(&'static str, &'static [Function])> {
    vec![
        ("Editors", editors::ALL),
        ("Replacing", replacing::ALL),
        ("Strings", strings::ALL),
        ("Types", types::ALL),
        ("Lists and maps", collections::ALL),
        ("Lambdas", lambdas::ALL),
        ("Times and durations", times::ALL),
        #[cfg(feature = "hashes")]
        ("Hashes", hashes::ALL),
        #[cfg(feature = "hashes")]
        ("Not in the Collector", hashes::OWN),
        ("Ids", ids::ALL),
        ("Formats", formats::ALL),
        ("Patterns", grok::ALL),
        ("Network", network::ALL),
    ]
}

/// The function of that name.
pub(crate) fn named(name: &str) -> Option<&'static Function> {
    groups().into_iter().flat_map(|(_, functions)| functions).find(|function| function.name == name)
}
