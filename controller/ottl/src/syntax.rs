//! What a rule says, before anything is known of its paths and functions.

use std::ops::Range;

/// Where a part is, in bytes of the rule.
pub(crate) type Place = Range<usize>;

/// An editor, and when it runs.
#[derive(Clone, Debug)]
pub struct Statement {
    pub(crate) editor: Call,
    pub(crate) condition: Option<Condition>,
}

/// Something true or false.
#[derive(Clone, Debug)]
pub enum Condition {
    #[doc(hidden)]
    Constant(bool),
    #[doc(hidden)]
    Converter(Call),
    #[doc(hidden)]
    Compare(Box<(Expression, Comparison, Expression)>),
    #[doc(hidden)]
    Not(Box<Condition>),
    #[doc(hidden)]
    And(Vec<Condition>),
    #[doc(hidden)]
    Or(Vec<Condition>),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    GreaterEqual,
    Greater,
}

/// An operator of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// A call of an editor or converter.
#[derive(Clone, Debug)]
pub struct Call {
    pub(crate) name: String,
    pub(crate) name_place: Place,
    pub(crate) arguments: Vec<Argument>,
    /// Index behind a converter's result.
    pub(crate) keys: Vec<Key>,
    pub(crate) place: Place,
}

/// An argument, perhaps by name.
#[derive(Clone, Debug)]
pub struct Argument {
    pub(crate) name: Option<String>,
    pub(crate) value: ArgumentValue,
    pub(crate) place: Place,
}

/// What is given as an argument.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub enum ArgumentValue {
    Expression(Expression),
    /// The bare name of a function.
    Function(String),
}

/// Something that has a value.
#[derive(Clone, Debug)]
pub struct Expression {
    pub(crate) kind: ExpressionKind,
    pub(crate) place: Place,
}

#[derive(Clone, Debug)]
#[doc(hidden)]
pub enum ExpressionKind {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Enum(String),
    Path(Path),
    Converter(Call),
    List(Vec<Expression>),
    Map(Vec<(String, Expression)>),
    Math(Box<Expression>, Operator, Box<Expression>),
    Negate(Box<Expression>),
    /// A sign or parentheses around a number: the same value, which is no literal to a parameter that must have one.
    Group(Box<Expression>),
    Lambda(Box<Lambda>),
}

/// `(parameters) => body`.
#[derive(Clone, Debug)]
pub struct Lambda {
    /// A name, or none for `_`.
    pub(crate) parameters: Vec<(Option<String>, Place)>,
    pub(crate) body: LambdaBody,
}

#[derive(Clone, Debug)]
#[doc(hidden)]
pub enum LambdaBody {
    Value(Expression),
    Condition(Condition),
}

/// A path, as written: names and keys.
#[derive(Clone, Debug)]
pub struct Path {
    pub(crate) fields: Vec<Field>,
    pub(crate) place: Place,
}

/// A name within a path, and what it is indexed by.
#[derive(Clone, Debug)]
pub struct Field {
    pub(crate) name: String,
    pub(crate) keys: Vec<Key>,
}

/// An index.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub enum Key {
    Text(String),
    Int(i64),
    Expression(Expression),
}

impl Path {
    fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|field| field.name.as_str()).collect()
    }

    /// The path without its keys.
    pub(crate) fn dotted(&self) -> String {
        self.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(".")
    }
}

/// What a visitor is told; lambdas' parameters are no paths.
enum Mention<'a> {
    Path(&'a Path),
    Call(&'a Call),
}

impl Statement {
    /// The first names of its paths, from which the context that it is for can be told.
    #[must_use]
    pub fn first_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.visit(&mut |mention| first_name(mention, &mut names));
        names
    }

    /// What it runs under; none: it always runs.
    #[must_use]
    pub fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    /// The names of each of its paths, that which it changes and those of its condition included.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<&str>> {
        let mut paths = Vec::new();
        self.visit(&mut |mention| names(mention, &mut paths));
        paths
    }

    /// The names of the path that it changes.
    #[must_use]
    pub fn target(&self) -> Vec<&str> {
        let mut arguments = self.editor.arguments.iter();
        let target = arguments.clone().find(|argument| argument.name.as_deref() == Some("target")).or(arguments.next());
        match target.map(|argument| &argument.value) {
            Some(ArgumentValue::Expression(Expression { kind: ExpressionKind::Path(path), .. })) => path.names(),
            _ => Vec::new(),
        }
    }

    /// The names of the functions that it calls, its editor first.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        let mut called = Vec::new();
        self.visit(&mut |mention| functions(mention, &mut called));
        called
    }

    fn visit<'a>(&'a self, see: &mut dyn FnMut(Mention<'a>)) {
        self.editor.visit(see, &mut Vec::new());
        if let Some(condition) = &self.condition {
            condition.visit(see, &mut Vec::new());
        }
    }
}

type Scopes<'a> = Vec<&'a str>;

fn first_name<'a>(mention: Mention<'a>, names: &mut Vec<&'a str>) {
    if let Mention::Path(path) = mention
        && let [first, _, ..] = path.fields.as_slice()
    {
        names.push(&first.name);
    }
}

fn names<'a>(mention: Mention<'a>, all: &mut Vec<Vec<&'a str>>) {
    if let Mention::Path(path) = mention {
        all.push(path.names());
    }
}

fn functions<'a>(mention: Mention<'a>, all: &mut Vec<&'a str>) {
    if let Mention::Call(call) = mention {
        all.push(&call.name);
        let names = call.arguments.iter().filter_map(|argument| match &argument.value {
            ArgumentValue::Function(name) => Some(name.as_str()),
            ArgumentValue::Expression(_) => None,
        });
        all.extend(names);
    }
}

impl Condition {
    /// The first names of its paths, from which the context that it is for can be told.
    #[must_use]
    pub fn first_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.visit(&mut |mention| first_name(mention, &mut names), &mut Vec::new());
        names
    }

    /// The names of each of its paths, without what they are indexed by.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<&str>> {
        let mut paths = Vec::new();
        self.visit(&mut |mention| names(mention, &mut paths), &mut Vec::new());
        paths
    }

    /// The names of the functions that it calls.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        let mut called = Vec::new();
        self.visit(&mut |mention| functions(mention, &mut called), &mut Vec::new());
        called
    }

    fn visit<'a>(&'a self, see: &mut dyn FnMut(Mention<'a>), locals: &mut Scopes<'a>) {
        match self {
            Self::Constant(_) => {}
            Self::Converter(call) => call.visit(see, locals),
            Self::Compare(parts) => {
                parts.0.visit(see, locals);
                parts.2.visit(see, locals);
            }
            Self::Not(inner) => inner.visit(see, locals),
            Self::And(all) | Self::Or(all) => all.iter().for_each(|one| one.visit(see, locals)),
        }
    }
}

impl Call {
    fn visit<'a>(&'a self, see: &mut dyn FnMut(Mention<'a>), locals: &mut Scopes<'a>) {
        see(Mention::Call(self));
        for argument in &self.arguments {
            if let ArgumentValue::Expression(expression) = &argument.value {
                expression.visit(see, locals);
            }
        }
        visit_keys(&self.keys, see, locals);
    }
}

fn visit_keys<'a>(keys: &'a [Key], see: &mut dyn FnMut(Mention<'a>), locals: &mut Scopes<'a>) {
    for key in keys {
        if let Key::Expression(expression) = key {
            expression.visit(see, locals);
        }
    }
}

impl Expression {
    fn visit<'a>(&'a self, see: &mut dyn FnMut(Mention<'a>), locals: &mut Scopes<'a>) {
        match &self.kind {
            ExpressionKind::Nil
            | ExpressionKind::Bool(_)
            | ExpressionKind::Int(_)
            | ExpressionKind::Float(_)
            | ExpressionKind::Text(_)
            | ExpressionKind::Bytes(_)
            | ExpressionKind::Enum(_) => {}
            ExpressionKind::Path(path) => {
                if path.fields.first().is_none_or(|field| !locals.contains(&field.name.as_str())) {
                    see(Mention::Path(path));
                }
                path.fields.iter().for_each(|field| visit_keys(&field.keys, see, locals));
            }
            ExpressionKind::Converter(call) => call.visit(see, locals),
            ExpressionKind::List(all) => all.iter().for_each(|one| one.visit(see, locals)),
            ExpressionKind::Map(all) => all.iter().for_each(|(_, one)| one.visit(see, locals)),
            ExpressionKind::Math(left, _, right) => {
                left.visit(see, locals);
                right.visit(see, locals);
            }
            ExpressionKind::Negate(inner) | ExpressionKind::Group(inner) => inner.visit(see, locals),
            ExpressionKind::Lambda(lambda) => {
                let outer = locals.len();
                locals.extend(lambda.parameters.iter().filter_map(|(name, _)| name.as_deref()));
                match &lambda.body {
                    LambdaBody::Value(value) => value.visit(see, locals),
                    LambdaBody::Condition(condition) => condition.visit(see, locals),
                }
                locals.truncate(outer);
            }
        }
    }
}
