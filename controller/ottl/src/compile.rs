//! Syntax to programs: paths are resolved, functions found, arguments held against what is taken.

use std::collections::HashSet;

use crate::{
    compare::compare,
    context::{Context, PathError, Paths, Written},
    error::CompileError,
    functions::{self, Function, Literal, Literals, Prepared, Takes},
    gates::Gates,
    key::HashKey,
    parse,
    pattern::Patterns,
    program::{Argument, Cond, Condition, Expr, Expression, Invocation, KeyExpr, Lambda, Local, Reference, Statement},
    syntax::{self, ArgumentValue, ExpressionKind, LambdaBody, Place},
    value::{Map, Value},
};

/// Compiles rules for one kind of context. See [`Context`].
#[derive(Debug)]
pub struct Language<'p, P> {
    paths: &'p P,
    gates: Gates,
    key: Option<HashKey>,
}

impl<'p, P: Paths> Language<'p, P> {
    /// The language over `paths`.
    #[must_use]
    pub fn new(paths: &'p P) -> Self {
        Self { paths, gates: Gates::default(), key: None }
    }

    /// The same, with what `gates` open and close.
    #[must_use]
    pub fn with_gates(self, gates: Gates) -> Self {
        Self { gates, ..self }
    }

    /// The same, with a key for keyed hashes; rules that call for one are refused without.
    #[must_use]
    pub fn with_key(self, key: Option<HashKey>) -> Self {
        Self { key, ..self }
    }

    /// Compiles an editor with its `where`.
    ///
    /// # Errors
    ///
    /// It does not parse; a path or function that there is none of; an argument of the wrong kind.
    pub fn statement<C: Context<Accessor = P::Accessor>>(&self, text: &str) -> Result<Statement<C>, CompileError> {
        let parsed = parse::statement(text)?;
        let mut compiler = self.compiler(text);
        let call = compiler.call(&parsed.editor)?;
        let condition = match &parsed.condition {
            // What always holds need not be asked.
            Some(condition) => {
                Some(compiler.condition(condition)?).filter(|condition| !matches!(condition, Cond::Constant(true)))
            }
            None => None,
        };
        Ok(Statement { text: text.to_owned(), call, condition, pattern_bytes: compiler.patterns.taken() })
    }

    /// Compiles a condition.
    ///
    /// # Errors
    ///
    /// As [`Language::statement`].
    pub fn condition<C: Context<Accessor = P::Accessor>>(&self, text: &str) -> Result<Condition<C>, CompileError> {
        let parsed = parse::condition(text)?;
        let mut compiler = self.compiler(text);
        let condition = compiler.condition(&parsed)?;
        Ok(Condition { text: text.to_owned(), condition, pattern_bytes: compiler.patterns.taken() })
    }

    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// As [`Language::statement`].
    pub fn value<C: Context<Accessor = P::Accessor>>(&self, text: &str) -> Result<Expression<C>, CompileError> {
        let parsed = parse::value(text)?;
        Ok(Expression { text: text.to_owned(), expression: self.compiler(text).expression(&parsed)? })
    }

    fn compiler<'t>(&self, text: &'t str) -> Compiler<'_, 't, P> {
        let (locals, patterns) = (Vec::new(), Patterns::default());
        Compiler { text, paths: self.paths, gates: self.gates, key: self.key.as_ref(), locals, patterns }
    }
}

struct Compiler<'p, 't, P> {
    text: &'t str,
    paths: &'p P,
    gates: Gates,
    key: Option<&'p HashKey>,
    /// The parameters of the lambdas around.
    locals: Vec<Vec<Option<String>>>,
    patterns: Patterns,
}

type Compiled<T> = Result<T, CompileError>;

/// The function that needs a key, wherever it is named.
const KEYED: &str = "KeyedHash";

impl<P: Paths> Compiler<'_, '_, P> {
    fn error<T>(&self, place: &Place, message: impl Into<String>) -> Compiled<T> {
        Err(CompileError::new(self.text, place.clone(), message))
    }

    fn call(&mut self, call: &syntax::Call) -> Compiled<Invocation<P::Accessor>> {
        let editor = call.name.starts_with(|letter: char| letter.is_ascii_lowercase());
        let Some(function) = functions::named(&call.name).filter(|function| function.is_editor() == editor) else {
            return self.error(&call.name_place, unknown_function(&call.name, editor));
        };
        let arguments = self.arguments(call, function)?;
        let prepared =
            (function.prepare)(&literals(&arguments, &self.patterns, self.key)).or_else(|(at, message)| {
                let parameter = function.parameters.get(at).map_or("", |parameter| parameter.name);
                let named = |argument: &&syntax::Argument| {
                    argument.name.as_deref().is_some_and(|name| plain(name) == plain(parameter))
                };
                let given = call
                    .arguments
                    .iter()
                    .find(named)
                    .or_else(|| call.arguments.get(at).filter(|argument| argument.name.is_none()));
                self.error(
                    given.map_or(&call.place, |argument| &argument.place),
                    format!("{}: {message}", function.name),
                )
            })?;
        let prepared = if function.name == "set" && !self.gates.allow_nil { Prepared::SkipNil } else { prepared };
        let keys = self.keys(&call.keys)?;
        Ok(Invocation { function, arguments, prepared, keys })
    }

    fn arguments(&mut self, call: &syntax::Call, function: &'static Function) -> Compiled<Vec<Argument<P::Accessor>>> {
        let parameters = function.parameters;
        let mut arguments: Vec<Argument<P::Accessor>> = parameters.iter().map(|_| Argument::Absent).collect();
        let mut named = false;
        let mut given = HashSet::new();
        for (position, argument) in call.arguments.iter().enumerate() {
            let at = match &argument.name {
                Some(name) => {
                    named = true;
                    let Some(at) = parameters.iter().position(|parameter| plain(parameter.name) == plain(name)) else {
                        let all = parameters.iter().map(|parameter| parameter.name);
                        let hint = nearest(name, all).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                        return self.error(
                            &argument.place,
                            format!("{} has no parameter `{name}`{hint} It is {}", function.name, function.signature()),
                        );
                    };
                    at
                }
                None if named => {
                    return self.error(&argument.place, "an argument without a name may not follow one with a name");
                }
                None if position >= parameters.len() => {
                    return self.error(
                        &argument.place,
                        format!(
                            "{} takes {} at most: {}",
                            function.name,
                            counted(parameters.len()),
                            function.signature()
                        ),
                    );
                }
                None => position,
            };
            if !given.insert(at) {
                return self
                    .error(&argument.place, format!("{} is given `{}` twice", function.name, parameters[at].name));
            }
            arguments[at] = self.argument(argument, function, at)?;
        }
        for (at, parameter) in parameters.iter().enumerate() {
            if !parameter.optional && !given.contains(&at) {
                let message = format!(
                    "{} lacks `{}`, {}: {}",
                    function.name,
                    parameter.name,
                    parameter.takes.describe(),
                    function.signature()
                );
                return self.error(&call.place, message);
            }
        }
        Ok(arguments)
    }

    fn argument(
        &mut self,
        argument: &syntax::Argument,
        function: &Function,
        at: usize,
    ) -> Compiled<Argument<P::Accessor>> {
        let parameter = function.parameters[at];
        let wrong = |this: &Self, found: &str| {
            let message =
                format!("{}: {} must be {}, not {found}", function.name, parameter.name, parameter.takes.describe());
            this.error(&argument.place, message)
        };
        let expression = match &argument.value {
            ArgumentValue::Function(name) if parameter.takes == Takes::Function => {
                return self.function(name, &argument.place);
            }
            ArgumentValue::Function(name) => return wrong(self, &format!("the function {name}, which is not called")),
            ArgumentValue::Expression(expression) => expression,
        };
        match (parameter.takes, &expression.kind) {
            (Takes::Function, ExpressionKind::Enum(name)) => self.function(name, &argument.place),
            (Takes::Lambda(arity), ExpressionKind::Lambda(lambda)) => self.lambda(lambda, arity, &argument.place),
            (Takes::Function | Takes::Lambda(_), _) => wrong(self, describe(expression)),
            (_, ExpressionKind::Lambda(_)) => wrong(self, "a lambda"),
            (Takes::Target | Takes::MapTarget | Takes::ListTarget, ExpressionKind::Path(path)) => {
                if self.local(path).is_some() {
                    return wrong(self, "the parameter of a lambda");
                }
                Ok(Argument::Expr(self.path(path, true)?))
            }
            (Takes::Target | Takes::MapTarget | Takes::ListTarget, _) => wrong(self, describe(expression)),
            (Takes::LiteralText, ExpressionKind::Text(_))
            | (Takes::LiteralInt, ExpressionKind::Int(_))
            | (Takes::LiteralBool, ExpressionKind::Bool(_)) => Ok(Argument::Expr(self.expression(expression)?)),
            (Takes::LiteralText | Takes::LiteralInt | Takes::LiteralBool, _) => wrong(self, describe(expression)),
            (Takes::Values | Takes::Texts | Takes::LiteralTexts | Takes::TextLikes, ExpressionKind::List(values)) => {
                let mut list = Vec::with_capacity(values.len());
                for value in values {
                    if parameter.takes == Takes::LiteralTexts && !matches!(value.kind, ExpressionKind::Text(_)) {
                        return wrong(self, &format!("a list with {}", describe(value)));
                    }
                    let compiled = self.expression(value)?;
                    if let (Takes::Texts, Expr::Literal(literal)) = (parameter.takes, &compiled)
                        && !matches!(literal, Value::Text(_))
                    {
                        return wrong(self, &format!("a list with {}", literal.kind()));
                    }
                    list.push(compiled);
                }
                Ok(Argument::List(list))
            }
            (Takes::Values | Takes::Texts | Takes::LiteralTexts, _) => wrong(self, describe(expression)),
            (takes, _) => {
                let compiled = self.expression(expression)?;
                if let Expr::Literal(value) = &compiled
                    && let Err(message) = functions::check(takes, value)
                {
                    return self.error(&argument.place, format!("{}: {} {message}", function.name, parameter.name));
                }
                Ok(Argument::Expr(compiled))
            }
        }
    }

    fn function(&self, name: &str, place: &Place) -> Compiled<Argument<P::Accessor>> {
        let Some(function) = functions::named(name).filter(|function| !function.is_editor()) else {
            return self.error(place, unknown_function(name, false));
        };
        if let [only] = function.parameters
            && only.takes != Takes::Text
        {
            return self.error(
                place,
                format!("{name} takes {}, and here one is needed that takes a string", only.takes.describe()),
            );
        }
        // What is hashed is not known, and under which key is.
        let of = Literals { values: vec![Literal::Dynamic], patterns: &self.patterns, key: self.key };
        let prepared = if function.name == KEYED { (function.prepare)(&of) } else { Ok(Prepared::Nothing) };
        match prepared {
            Ok(prepared) => Ok(Argument::Function(function, prepared)),
            Err((_, message)) => self.error(place, format!("{name}: {message}")),
        }
    }

    fn lambda(&mut self, lambda: &syntax::Lambda, arity: usize, place: &Place) -> Compiled<Argument<P::Accessor>> {
        if !self.gates.lambda {
            return self.error(place, format!("lambdas need the feature gate {}", Gates::LAMBDA));
        }
        let mut names = HashSet::new();
        for (name, place) in &lambda.parameters {
            if let Some(name) = name
                && !names.insert(name)
            {
                return self.error(place, format!("two parameters of a lambda are called `{name}`"));
            }
        }
        if lambda.parameters.len() != arity {
            return self.error(
                place,
                format!("this lambda must have {}, and has {}", parameters(arity), lambda.parameters.len()),
            );
        }
        self.locals.push(lambda.parameters.iter().map(|(name, _)| name.clone()).collect());
        let body = match &lambda.body {
            LambdaBody::Value(value) => self.expression(value).map(Lambda::Value),
            LambdaBody::Condition(condition) => self.condition(condition).map(Lambda::Condition),
        };
        self.locals.pop();
        Ok(Argument::Lambda(Box::new(body?)))
    }

    fn condition(&mut self, condition: &syntax::Condition) -> Compiled<Cond<P::Accessor>> {
        Ok(match condition {
            syntax::Condition::Constant(truth) => Cond::Constant(*truth),
            syntax::Condition::Converter(call) => Cond::Converter(self.call(call)?),
            syntax::Condition::Compare(parts) => {
                let (left, right) = (self.expression(&parts.0)?, self.expression(&parts.2)?);
                match (&left, &right) {
                    (Expr::Literal(left), Expr::Literal(right)) => Cond::Constant(compare(left, parts.1, right)),
                    _ => Cond::Compare(Box::new((left, parts.1, right))),
                }
            }
            syntax::Condition::Not(inner) => self.condition(inner)?.negated(),
            syntax::Condition::And(all) => {
                Cond::joined(all.iter().map(|one| self.condition(one)).collect::<Compiled<_>>()?, false)
            }
            syntax::Condition::Or(all) => {
                Cond::joined(all.iter().map(|one| self.condition(one)).collect::<Compiled<_>>()?, true)
            }
        })
    }

    fn expression(&mut self, expression: &syntax::Expression) -> Compiled<Expr<P::Accessor>> {
        Ok(match &expression.kind {
            ExpressionKind::Nil => Expr::Literal(Value::Nil),
            ExpressionKind::Bool(truth) => Expr::Literal(Value::Bool(*truth)),
            ExpressionKind::Int(number) => Expr::Literal(Value::Int(*number)),
            ExpressionKind::Float(number) => Expr::Literal(Value::Float(*number)),
            ExpressionKind::Text(text) => Expr::Literal(Value::text(text.as_str())),
            ExpressionKind::Bytes(bytes) => Expr::Literal(Value::Bytes(bytes.clone().into())),
            ExpressionKind::Enum(symbol) => match self.paths.symbol(symbol) {
                Some(number) => Expr::Literal(Value::Int(number)),
                None => return self.error(&expression.place, format!("{symbol} is no symbol that there is here")),
            },
            ExpressionKind::Path(path) => self.path(path, false)?,
            ExpressionKind::Converter(call) => Expr::Call(Box::new(self.call(call)?)),
            ExpressionKind::List(values) => {
                let values = values.iter().map(|value| self.expression(value)).collect::<Compiled<Vec<_>>>()?;
                match values.iter().map(literal).collect::<Option<Vec<_>>>() {
                    Some(literals) => Expr::Literal(Value::list(literals)),
                    None => Expr::List(values),
                }
            }
            ExpressionKind::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), self.expression(value)?)))
                    .collect::<Compiled<Vec<_>>>()?;
                match entries.iter().map(|(key, value)| Some((key.clone(), literal(value)?))).collect::<Option<Map>>() {
                    Some(literals) => Expr::Literal(Value::map(literals)),
                    None => Expr::Map(entries),
                }
            }
            ExpressionKind::Math(left, operator, right) => {
                Expr::Math(Box::new((self.expression(left)?, *operator, self.expression(right)?)))
            }
            ExpressionKind::Negate(inner) => Expr::Negate(Box::new(self.expression(inner)?)),
            ExpressionKind::Group(inner) => self.expression(inner)?,
            ExpressionKind::Lambda(_) => {
                return self.error(&expression.place, "a lambda may only be the argument of a function that takes one");
            }
        })
    }

    fn keys(&mut self, keys: &[syntax::Key]) -> Compiled<Vec<KeyExpr<P::Accessor>>> {
        keys.iter()
            .map(|key| {
                Ok(match key {
                    syntax::Key::Text(name) => KeyExpr::Text(name.clone()),
                    syntax::Key::Int(index) => KeyExpr::Int(*index),
                    syntax::Key::Expression(expression) => match self.expression(expression)? {
                        Expr::Literal(Value::Int(index)) => KeyExpr::Int(index),
                        other => KeyExpr::Expr(other),
                    },
                })
            })
            .collect()
    }

    /// Which parameter of which lambda `path` is.
    fn local(&self, path: &syntax::Path) -> Option<(usize, usize)> {
        let name = &path.fields.first()?.name;
        self.locals.iter().rev().enumerate().find_map(|(outward, names)| {
            let at = names.iter().position(|known| known.as_ref() == Some(name))?;
            Some((outward, at))
        })
    }

    fn path(&mut self, path: &syntax::Path, target: bool) -> Compiled<Expr<P::Accessor>> {
        let (Some(first), Some(last)) = (path.fields.first(), path.fields.last()) else {
            return self.error(&path.place, "a path without names");
        };
        if let Some((outward, at)) = self.local(path) {
            if path.fields.len() > 1 {
                return self.error(
                    &path.place,
                    format!(
                        "`{}` is the parameter of a lambda, which has keys in brackets but no fields behind a point",
                        first.name
                    ),
                );
            }
            return Ok(Expr::Local(Box::new(Local {
                name: first.name.clone(),
                outward,
                at,
                keys: self.keys(&first.keys)?,
            })));
        }
        let inner = path.fields.iter().rev().skip(1).find(|field| !field.keys.is_empty());
        if let Some(field) = inner {
            return self.error(
                &path.place,
                format!("`{}` has keys, and then a point: keys stand at the end of a path", field.name),
            );
        }
        let names: Vec<&str> = path.fields.iter().map(|field| field.name.as_str()).collect();
        let written = Written { names, indexed: !last.keys.is_empty(), target };
        let accessor = match self.paths.resolve(&written) {
            Ok(accessor) => accessor,
            Err(PathError { message: Some(message) }) => return self.error(&path.place, message),
            Err(PathError { message: None }) => {
                let known = self.paths.known();
                let hint = nearest(&path.dotted(), known.iter().map(String::as_str))
                    .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                return self.error(&path.place, format!("there is no path `{}`{hint}", path.dotted()));
            }
        };
        Ok(Expr::Path(Reference { accessor, keys: self.keys(&last.keys)? }))
    }
}

fn literal<A>(expression: &Expr<A>) -> Option<Value<'static>> {
    borrowed(expression).cloned()
}

fn borrowed<A>(expression: &Expr<A>) -> Option<&Value<'static>> {
    match expression {
        Expr::Literal(value) => Some(value),
        _ => None,
    }
}

fn literals<'l, A>(arguments: &'l [Argument<A>], patterns: &'l Patterns, key: Option<&'l HashKey>) -> Literals<'l> {
    let values = arguments
        .iter()
        .map(|argument| match argument {
            Argument::Absent => Literal::Absent,
            Argument::Expr(expression) => borrowed(expression).map_or(Literal::Dynamic, Literal::Value),
            Argument::List(values) => Literal::List(values.iter().map(borrowed).collect()),
            Argument::Function(..) | Argument::Lambda(_) => Literal::Dynamic,
        })
        .collect();
    Literals { values, patterns, key }
}

fn describe(expression: &syntax::Expression) -> &'static str {
    match &expression.kind {
        ExpressionKind::Nil => "nil",
        ExpressionKind::Bool(_) => "a bool",
        ExpressionKind::Int(_) => "an int",
        ExpressionKind::Float(_) => "a float",
        ExpressionKind::Text(_) => "a string",
        ExpressionKind::Bytes(_) => "bytes",
        ExpressionKind::Enum(_) => "a symbol",
        ExpressionKind::Path(_) => "a path",
        ExpressionKind::Converter(_) => "what a converter returns",
        ExpressionKind::List(_) => "a list",
        ExpressionKind::Map(_) => "a map",
        ExpressionKind::Math(..) | ExpressionKind::Negate(_) | ExpressionKind::Group(_) => "an expression",
        ExpressionKind::Lambda(_) => "a lambda",
    }
}

fn counted(count: usize) -> String {
    match count {
        0 => "no arguments".to_owned(),
        1 => "one argument".to_owned(),
        _ => format!("{count} arguments"),
    }
}

fn parameters(count: usize) -> String {
    match count {
        0 => "no parameters".to_owned(),
        _ => format!("{count} parameters"),
    }
}

/// A name without what tells its spellings apart.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| *letter != '_').map(|letter| letter.to_ascii_lowercase()).collect()
}

fn unknown_function(name: &str, editor: bool) -> String {
    let of_kind = functions::groups()
        .into_iter()
        .flat_map(|(_, functions)| functions)
        .filter(|function| function.is_editor() == editor);
    let hint = nearest(name, of_kind.map(|function| function.name))
        .map_or(String::new(), |near| format!("; did you mean {near}?"));
    format!("there is no {} {name}{hint}", if editor { "editor" } else { "converter" })
}

/// The name that is most like `name`, if one is like it.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let distance = |other: &str| strsim::damerau_levenshtein(&plain(name), &plain(other));
    // What is far longer than any name is like none.
    if name.len() > 200 {
        return None;
    }
    known
        .map(|other| (distance(other), other))
        .filter(|(distance, other)| *distance <= other.len().max(name.len()) / 3)
        .min()
        .map(|(_, other)| other)
}
