//! Rules, compiled: what runs on a context.

use std::{borrow::Cow, cell::Cell};

use crate::{
    compare::{calculate, compare, negate},
    context::{Context, Key},
    error::EvalError,
    functions::{Args, Function, Prepared, Run, Source},
    syntax::{Comparison, Operator},
    value::{Map, Value},
};

/// Calls of lambdas that one rule may make on one context.
pub const MAX_WORK: u32 = 1_000_000;

/// An expression over paths that are resolved.
#[derive(Clone, Debug)]
pub(crate) enum Expr<A> {
    Literal(Value<'static>),
    Path(Reference<A>),
    Local(Box<Local<A>>),
    Call(Box<Invocation<A>>),
    Math(Box<(Expr<A>, Operator, Expr<A>)>),
    Negate(Box<Expr<A>>),
    List(Vec<Expr<A>>),
    Map(Vec<(String, Expr<A>)>),
}

/// A path, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Reference<A> {
    pub accessor: A,
    pub keys: Vec<KeyExpr<A>>,
}

/// The parameter of a lambda.
#[derive(Clone, Debug)]
pub(crate) struct Local<A> {
    pub name: String,
    /// How many lambdas further out.
    pub outward: usize,
    pub at: usize,
    pub keys: Vec<KeyExpr<A>>,
}

#[derive(Clone, Debug)]
pub(crate) enum KeyExpr<A> {
    Text(String),
    Int(i64),
    Expr(Expr<A>),
}

/// A function with its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Invocation<A> {
    pub function: &'static Function,
    pub arguments: Vec<Argument<A>>,
    pub prepared: Prepared,
    pub keys: Vec<KeyExpr<A>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Argument<A> {
    Absent,
    Expr(Expr<A>),
    List(Vec<Expr<A>>),
    Function(&'static Function, Prepared),
    Lambda(Box<Lambda<A>>),
}

#[derive(Clone, Debug)]
pub(crate) enum Lambda<A> {
    Value(Expr<A>),
    Condition(Cond<A>),
}

#[derive(Clone, Debug)]
pub(crate) enum Cond<A> {
    Constant(bool),
    Converter(Invocation<A>),
    Compare(Box<(Expr<A>, Comparison, Expr<A>)>),
    Not(Box<Cond<A>>),
    And(Vec<Cond<A>>),
    Or(Vec<Cond<A>>),
}

/// What lambdas around an expression are called with.
struct Frame<'a> {
    values: &'a [Value<'a>],
    outer: Option<&'a Frame<'a>>,
}

/// What an expression is evaluated in.
pub(crate) struct Scope<'a, C> {
    context: &'a C,
    frame: Option<&'a Frame<'a>>,
    work: &'a Cell<u32>,
}

impl<C> Clone for Scope<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Scope<'_, C> {}

impl<'a, C: Context> Scope<'a, C> {
    pub(crate) fn new(context: &'a C, work: &'a Cell<u32>) -> Self {
        Self { context, frame: None, work }
    }
}

impl<A: Clone> Expr<A> {
    pub(crate) fn eval<'a, C: Context<Accessor = A>>(&'a self, scope: Scope<'a, C>) -> Result<Value<'a>, EvalError> {
        match self {
            Self::Literal(value) => Ok(value.borrowed()),
            Self::Path(reference) => reference.get(scope),
            Self::Local(local) => local.get(scope),
            Self::Call(call) => call.convert(scope),
            Self::Math(parts) => calculate(&parts.0.eval(scope)?, parts.1, &parts.2.eval(scope)?),
            Self::Negate(inner) => negate(&inner.eval(scope)?),
            Self::List(values) => Ok(Value::list(
                values.iter().map(|value| value.eval(scope).map(Value::into_owned)).collect::<Result<_, _>>()?,
            )),
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let value = value.eval(scope)?.into_owned();
                    value.storable()?;
                    map.push(key.clone(), value);
                }
                Ok(Value::map(map))
            }
        }
    }
}

impl<A: Clone> Reference<A> {
    fn get<'a, C: Context<Accessor = A>>(&'a self, scope: Scope<'a, C>) -> Result<Value<'a>, EvalError> {
        match self.keys.as_slice() {
            [] => scope.context.get(&self.accessor, &[]),
            [KeyExpr::Text(name)] => scope.context.get(&self.accessor, &[Key::Text(Cow::Borrowed(name))]),
            _ => scope.context.get(&self.accessor, &self.keys(scope)),
        }
    }

    /// The keys, which borrow from the rule alone.
    fn keys<C: Context<Accessor = A>>(&self, scope: Scope<'_, C>) -> Vec<Key<'_>> {
        self.keys
            .iter()
            .map(|key| match key {
                KeyExpr::Text(name) => Key::Text(Cow::Borrowed(name)),
                KeyExpr::Int(index) => Key::Int(*index),
                KeyExpr::Expr(expression) => expression.key(scope),
            })
            .collect()
    }
}

impl<A: Clone> Expr<A> {
    fn key<C: Context<Accessor = A>>(&self, scope: Scope<'_, C>) -> Key<'static> {
        match self.eval(scope) {
            Ok(Value::Text(name)) => Key::Text(Cow::Owned(name.into_owned())),
            Ok(Value::Int(index)) => Key::Int(index),
            Ok(other) => Key::Failed(EvalError::new(format!("a key is a string or an int, not {}", other.kind()))),
            Err(error) => Key::Failed(error),
        }
    }
}

/// What is behind `keys` of a value that is no path, where a key that is not there is an error.
fn index<'a, A: Clone, C: Context<Accessor = A>>(
    value: Value<'a>,
    keys: &'a [KeyExpr<A>],
    scope: Scope<'a, C>,
) -> Result<Value<'a>, EvalError> {
    let mut value = value;
    for key in keys {
        let key = match key {
            KeyExpr::Text(name) => Key::Text(Cow::Borrowed(name.as_str())),
            KeyExpr::Int(index) => Key::Int(*index),
            KeyExpr::Expr(expression) => expression.key(scope),
        };
        value = match (value, &key) {
            (_, Key::Failed(error)) => return Err(error.clone()),
            (Value::Map(map), Key::Text(name)) => {
                let found = match map {
                    Cow::Borrowed(map) => map.get(name).map(Value::borrowed),
                    Cow::Owned(mut map) => map.remove(name),
                };
                found.ok_or_else(|| EvalError::new(format!("key {name:?} is not in the map")))?
            }
            (Value::List(list), Key::Int(_)) => {
                let at = key.index(list.len())?;
                match list {
                    Cow::Borrowed(list) => list[at].borrowed(),
                    Cow::Owned(mut list) => list.swap_remove(at),
                }
            }
            (Value::Bytes(bytes), Key::Int(_)) => Value::Int(i64::from(bytes[key.index(bytes.len())?])),
            (other, Key::Text(_)) => {
                return Err(EvalError::new(format!("{} has no keys that are strings", other.kind())));
            }
            (other, Key::Int(_)) => return Err(EvalError::new(format!("{} has no keys that are ints", other.kind()))),
        };
    }
    Ok(value)
}

impl<A: Clone> Local<A> {
    fn get<'a, C: Context<Accessor = A>>(&'a self, scope: Scope<'a, C>) -> Result<Value<'a>, EvalError> {
        let mut frame = scope.frame;
        for _ in 0..self.outward {
            frame = frame.and_then(|frame| frame.outer);
        }
        let value = frame
            .and_then(|frame| frame.values.get(self.at))
            .ok_or_else(|| EvalError::new(format!("{} has no value here", self.name)))?;
        index(value.borrowed(), &self.keys, scope).map_err(|error| error.within(&self.name))
    }
}

/// A function's arguments, in a scope.
struct Bound<'a, C: Context> {
    arguments: &'a [Argument<C::Accessor>],
    scope: Scope<'a, C>,
}

impl<'a, C: Context> Source<'a> for Bound<'a, C> {
    fn value(&self, at: usize) -> Result<Value<'a>, EvalError> {
        match &self.arguments[at] {
            Argument::Expr(expression) => expression.eval(self.scope),
            Argument::List(values) => Ok(Value::list(
                values.iter().map(|value| value.eval(self.scope).map(Value::into_owned)).collect::<Result<_, _>>()?,
            )),
            _ => Ok(Value::Nil),
        }
    }

    fn given(&self, at: usize) -> bool {
        !matches!(self.arguments.get(at), None | Some(Argument::Absent))
    }

    fn count(&self, at: usize) -> Option<usize> {
        match &self.arguments[at] {
            Argument::List(values) => Some(values.len()),
            _ => None,
        }
    }

    fn item(&self, at: usize, index: usize) -> Result<Value<'a>, EvalError> {
        match &self.arguments[at] {
            Argument::List(values) => values.get(index).map_or(Ok(Value::Nil), |value| value.eval(self.scope)),
            _ => Ok(Value::Nil),
        }
    }

    fn lambda(&self, at: usize, values: &[Value<'_>]) -> Result<Value<'static>, EvalError> {
        let Argument::Lambda(lambda) = &self.arguments[at] else { return Ok(Value::Nil) };
        let left = self
            .scope
            .work
            .get()
            .checked_sub(1)
            .ok_or_else(|| EvalError::new(format!("more than {MAX_WORK} calls of lambdas")))?;
        self.scope.work.set(left);
        let frame = Frame { values, outer: self.scope.frame };
        let scope = Scope { context: self.scope.context, frame: Some(&frame), work: self.scope.work };
        match &**lambda {
            Lambda::Value(body) => body.eval(scope).map(Value::into_owned),
            Lambda::Condition(body) => body.eval(scope).map(Value::Bool),
        }
    }

    fn function(&self, at: usize, input: &str) -> Result<Value<'static>, EvalError> {
        match &self.arguments[at] {
            Argument::Function(function, prepared) => function.apply(prepared, input),
            _ => Ok(Value::text(input)),
        }
    }
}

impl<A: Clone> Invocation<A> {
    fn convert<'a, C: Context<Accessor = A>>(&'a self, scope: Scope<'a, C>) -> Result<Value<'a>, EvalError> {
        let Run::Convert(run) = self.function.run else { return Ok(Value::Nil) };
        let source = Bound { arguments: &self.arguments, scope };
        let value = run(&Args::new(&source, &self.prepared, self.function))
            .map_err(|error| error.within(self.function.name))?;
        if self.keys.is_empty() {
            Ok(value)
        } else {
            index(value, &self.keys, scope).map_err(|error| error.within(self.function.name))
        }
    }

    fn edit<C: Context<Accessor = A>>(&self, scope: Scope<'_, C>) -> Result<Option<Value<'static>>, EvalError> {
        let Run::Edit(run) = self.function.run else { return Ok(None) };
        let source = Bound { arguments: &self.arguments, scope };
        run(&Args::new(&source, &self.prepared, self.function))
    }
}

impl<A: Clone> Cond<A> {
    pub(crate) fn eval<'a, C: Context<Accessor = A>>(&'a self, scope: Scope<'a, C>) -> Result<bool, EvalError> {
        Ok(match self {
            Self::Constant(truth) => *truth,
            Self::Compare(parts) => compare(&parts.0.eval(scope)?, parts.1, &parts.2.eval(scope)?),
            Self::Converter(call) => match call.convert(scope)? {
                Value::Bool(truth) => truth,
                other => {
                    let message = format!("a condition is a bool, and this is {}", other.kind());
                    return Err(EvalError::new(message).within(call.function.name));
                }
            },
            Self::Not(inner) => !inner.eval(scope)?,
            Self::And(all) => {
                for one in all {
                    if !one.eval(scope)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Or(all) => {
                for one in all {
                    if one.eval(scope)? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }

    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Constant(truth) => Self::Constant(!truth),
            other => Self::Not(Box::new(other)),
        }
    }

    /// All of `parts`, or any: what is constant decides, or goes.
    pub(crate) fn joined(parts: Vec<Self>, decisive: bool) -> Self {
        if parts.iter().any(|part| matches!(part, Self::Constant(truth) if *truth == decisive)) {
            return Self::Constant(decisive);
        }
        let mut rest: Vec<Self> = parts.into_iter().filter(|part| !matches!(part, Self::Constant(_))).collect();
        match rest.len() {
            0 => Self::Constant(!decisive),
            1 => rest.remove(0),
            _ if decisive => Self::Or(rest),
            _ => Self::And(rest),
        }
    }
}

/// An editor and its condition, compiled.
pub struct Statement<C: Context> {
    pub(crate) text: String,
    pub(crate) call: Invocation<C::Accessor>,
    pub(crate) condition: Option<Cond<C::Accessor>>,
    pub(crate) pattern_bytes: usize,
}

/// A condition, compiled.
pub struct Condition<C: Context> {
    pub(crate) text: String,
    pub(crate) condition: Cond<C::Accessor>,
    pub(crate) pattern_bytes: usize,
}

/// An expression, compiled.
pub struct Expression<C: Context> {
    pub(crate) text: String,
    pub(crate) expression: Expr<C::Accessor>,
}

impl<C: Context> Statement<C> {
    /// The rule as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that its regular expressions count as, those that it makes while it runs included: [`MAX_PATTERNS`](crate::MAX_PATTERNS) at most.
    #[must_use]
    pub fn pattern_bytes(&self) -> usize {
        self.pattern_bytes
    }

    /// Runs it on `context`; whether its condition held.
    ///
    /// # Errors
    ///
    /// The condition or the editor failed; `context` is as it was, or as its own `set` leaves it.
    pub fn execute(&self, context: &mut C) -> Result<bool, EvalError> {
        let work = Cell::new(MAX_WORK);
        let scope = Scope::new(&*context, &work);
        if let Some(condition) = &self.condition
            && !condition.eval(scope)?
        {
            return Ok(false);
        }
        let new = self.call.edit(scope).map_err(|error| error.within(self.call.function.name))?;
        if let (Some(new), Some(Argument::Expr(Expr::Path(target)))) = (new, self.call.arguments.first()) {
            let keys = target.keys(scope);
            context.set(&target.accessor, &keys, new).map_err(|error| error.within(self.call.function.name))?;
        }
        Ok(true)
    }
}

impl<C: Context> Condition<C> {
    /// The rule as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that its regular expressions count as, those that it makes while it runs included: [`MAX_PATTERNS`](crate::MAX_PATTERNS) at most.
    #[must_use]
    pub fn pattern_bytes(&self) -> usize {
        self.pattern_bytes
    }

    /// Whether it holds for `context`.
    ///
    /// # Errors
    ///
    /// It could not be told.
    pub fn holds(&self, context: &C) -> Result<bool, EvalError> {
        self.condition.eval(Scope::new(context, &Cell::new(MAX_WORK)))
    }

    /// Its value, if it has the same one for every context.
    #[must_use]
    pub fn constant(&self) -> Option<bool> {
        match self.condition {
            Cond::Constant(truth) => Some(truth),
            _ => None,
        }
    }
}

impl<C: Context> Expression<C> {
    /// The rule as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its value for `context`.
    ///
    /// # Errors
    ///
    /// It could not be told.
    pub fn value(&self, context: &C) -> Result<Value<'static>, EvalError> {
        self.expression.eval(Scope::new(context, &Cell::new(MAX_WORK))).map(Value::into_owned)
    }
}

impl<C: Context> std::fmt::Debug for Statement<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Statement").field(&self.text).finish()
    }
}

impl<C: Context> std::fmt::Debug for Condition<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

impl<C: Context> std::fmt::Debug for Expression<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}
