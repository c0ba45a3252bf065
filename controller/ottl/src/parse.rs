//! Tokens to syntax: the grammar, by recursive descent.
//!
//! Alternatives are tried in the order of the language's definition. What fails once at a place is not tried there again, and depth and work are
//! bounded, so that no rule takes long to refuse.

use std::collections::HashSet;

use crate::{
    error::CompileError,
    lexer::{self, Kind, Token},
    syntax::{
        Argument, ArgumentValue, Call, Comparison, Condition, Expression, ExpressionKind, Field, Key, Lambda,
        LambdaBody, Operator, Path, Place, Statement,
    },
};

/// The most bytes of a rule.
pub const MAX_LENGTH: usize = 64 * 1024;
/// How deep parentheses, lists, calls and keys may be in each other.
pub const MAX_DEPTH: usize = 64;
/// Steps of the parser for one rule.
const MAX_STEPS: usize = 200_000;

/// Parses an editor with its `where`.
///
/// # Errors
///
/// The place that does not fit the grammar, and what was expected there.
pub fn statement(text: &str) -> Result<Statement, CompileError> {
    whole(text, |parser| parser.statement())
}

/// Parses a condition.
///
/// # Errors
///
/// As [`statement`].
pub fn condition(text: &str) -> Result<Condition, CompileError> {
    whole(text, |parser| parser.disjunction())
}

/// Parses an expression.
///
/// # Errors
///
/// As [`statement`].
pub fn value(text: &str) -> Result<Expression, CompileError> {
    whole(text, |parser| parser.value())
}

fn whole<T>(text: &str, rule: fn(&mut Parser<'_>) -> Parsed<T>) -> Result<T, CompileError> {
    if text.len() > MAX_LENGTH {
        return Err(CompileError::new(text, 0..0, format!("a rule is at most {MAX_LENGTH} bytes long")));
    }
    let tokens = lexer::tokens(text)?;
    let mut parser = Parser { text, tokens, at: 0, depth: 0, steps: 0, furthest: None, hopeless: HashSet::new() };
    let result = rule(&mut parser).and_then(|parsed| parser.expect(Kind::End, "the end of the rule").map(|_| parsed));
    result.map_err(|failure| parser.explain(failure))
}

/// Why a production does not match.
enum Failure {
    /// Another alternative may; the furthest one is what is told.
    Mismatch,
    /// None will.
    Fatal(Box<CompileError>),
}

type Parsed<T> = Result<T, Failure>;

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    steps: usize,
    /// The token furthest on at which something else was expected, and what.
    furthest: Option<(usize, Vec<&'static str>)>,
    /// Parentheses that begin no arithmetic.
    hopeless: HashSet<usize>,
}

impl Parser<'_> {
    fn explain(&self, failure: Failure) -> CompileError {
        if let Failure::Fatal(error) = failure {
            return *error;
        }
        let (at, expected) = self.furthest.clone().unwrap_or((self.at, vec!["something else"]));
        let place = self.tokens.get(at).map_or(self.text.len()..self.text.len(), |token| token.place.clone());
        let found = match self.text.get(place.clone()) {
            Some("") | None => "the end of the rule".to_owned(),
            Some(found) => format!("`{found}`"),
        };
        let mut message = format!("expected {}, found {found}", expected.join(" or "));
        if found == "`=`" || found == "`=>`" {
            message.push_str("; equality is written `==`");
        }
        CompileError::new(self.text, place, message)
    }

    fn fatal<T>(&self, place: Place, message: impl Into<String>) -> Parsed<T> {
        Err(Failure::Fatal(Box::new(CompileError::new(self.text, place, message))))
    }

    fn miss<T>(&mut self, what: &'static str) -> Parsed<T> {
        match &mut self.furthest {
            Some((at, _)) if *at > self.at => {}
            Some((at, expected)) if *at == self.at => {
                if !expected.contains(&what) {
                    expected.push(what);
                }
            }
            _ => self.furthest = Some((self.at, vec![what])),
        }
        Err(Failure::Mismatch)
    }

    fn kind(&self) -> Kind {
        self.kind_at(self.at)
    }

    fn kind_at(&self, at: usize) -> Kind {
        self.tokens.get(at).map_or(Kind::End, |token| token.kind)
    }

    fn place(&self) -> Place {
        self.tokens.get(self.at).map_or(self.text.len()..self.text.len(), |token| token.place.clone())
    }

    fn spelled(&self) -> &str {
        self.text.get(self.place()).unwrap_or_default()
    }

    /// From the start of token `from` to the end of the last one taken.
    fn since(&self, from: usize) -> Place {
        let start = self.tokens.get(from).map_or(0, |token| token.place.start);
        let end = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(start, |token| token.place.end);
        start..end.max(start)
    }

    fn take(&mut self, kind: Kind) -> bool {
        let taken = self.kind() == kind;
        self.at += usize::from(taken);
        taken
    }

    fn expect(&mut self, kind: Kind, what: &'static str) -> Parsed<Place> {
        let place = self.place();
        if self.take(kind) { Ok(place) } else { self.miss(what) }
    }

    /// Runs `rule` one level deeper.
    fn deeper<T>(&mut self, rule: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.steps += 1;
        if self.depth >= MAX_DEPTH {
            return self.fatal(self.place(), format!("nested deeper than {MAX_DEPTH} levels"));
        }
        if self.steps > MAX_STEPS {
            return self.fatal(self.place(), "this rule is too tangled to parse");
        }
        self.depth += 1;
        let result = rule(self);
        self.depth -= 1;
        result
    }

    /// `rule`, or nothing if it does not match.
    fn attempt<T>(&mut self, rule: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<Option<T>> {
        let before = self.at;
        match rule(self) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(Failure::Mismatch) => {
                self.at = before;
                Ok(None)
            }
            Err(fatal) => Err(fatal),
        }
    }

    fn statement(&mut self) -> Parsed<Statement> {
        if self.kind() == Kind::Upper {
            let (name, place) = self.name();
            if self.kind() == Kind::Open {
                return self.fatal(place, format!("a statement begins with an editor, whose name begins with a small letter; {name} is a converter"));
            }
            return self.miss("an editor");
        }
        if self.kind() != Kind::Lower {
            return self.miss("an editor");
        }
        let editor = self.call()?;
        if !editor.keys.is_empty() {
            return self.fatal(
                editor.place.clone(),
                format!("only paths and converters may be indexed, and {} is an editor", editor.name),
            );
        }
        let condition = if self.kind() == Kind::Lower && self.spelled() == "where" {
            self.at += 1;
            Some(self.disjunction()?)
        } else {
            if self.kind() != Kind::End {
                return self.miss("`where`");
            }
            None
        };
        Ok(Statement { editor, condition })
    }

    /// A name: words side by side.
    fn name(&mut self) -> (String, Place) {
        let from = self.at;
        let mut name = String::new();
        while matches!(self.kind(), Kind::Upper | Kind::Lower) {
            name.push_str(self.spelled());
            self.at += 1;
        }
        (name, self.since(from))
    }

    /// A name, arguments, and keys behind them.
    fn call(&mut self) -> Parsed<Call> {
        self.deeper(|parser| {
            let from = parser.at;
            let (name, name_place) = parser.name();
            parser.expect(Kind::Open, "`(`")?;
            let mut arguments = Vec::new();
            if parser.kind() != Kind::Close {
                arguments.push(parser.argument()?);
                while parser.take(Kind::Comma) {
                    arguments.push(parser.argument()?);
                }
            }
            parser.expect(Kind::Close, "`)` or `,`")?;
            let keys = parser.keys()?;
            Ok(Call { name, name_place, arguments, keys, place: parser.since(from) })
        })
    }

    fn argument(&mut self) -> Parsed<Argument> {
        let from = self.at;
        let mut name = None;
        if self.kind() == Kind::Lower {
            let (spelled, _) = self.name();
            if self.take(Kind::Equal) {
                name = Some(spelled);
            } else {
                self.at = from;
            }
        }
        if let Some(value) = self.attempt(Self::value)? {
            let value = ArgumentValue::Expression(value);
            return Ok(Argument { name, value, place: self.since(from) });
        }
        if self.kind() == Kind::Upper {
            let (function, _) = self.name();
            return Ok(Argument { name, value: ArgumentValue::Function(function), place: self.since(from) });
        }
        self.miss("an argument")
    }

    fn keys(&mut self) -> Parsed<Vec<Key>> {
        let mut keys = Vec::new();
        while self.kind() == Kind::OpenBracket {
            // A list may follow a path in no place, so this is a key.
            keys.push(self.deeper(Self::key)?);
        }
        Ok(keys)
    }

    fn key(&mut self) -> Parsed<Key> {
        self.expect(Kind::OpenBracket, "`[`")?;
        let key = match self.kind() {
            Kind::Text => Key::Text(self.text_literal()?),
            Kind::Int => Key::Int(self.int_literal()?),
            _ => Key::Expression(self.math()?),
        };
        self.expect(Kind::CloseBracket, "`]`")?;
        Ok(key)
    }

    fn disjunction(&mut self) -> Parsed<Condition> {
        let mut all = vec![self.conjunction()?];
        while self.take(Kind::Or) {
            all.push(self.conjunction()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::Or(all) })
    }

    fn conjunction(&mut self) -> Parsed<Condition> {
        let mut all = vec![self.operand()?];
        while self.take(Kind::And) {
            all.push(self.operand()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::And(all) })
    }

    /// A comparison, a constant, a converter or parentheses, perhaps negated.
    fn operand(&mut self) -> Parsed<Condition> {
        self.deeper(|parser| {
            let negated = parser.take(Kind::Not);
            let condition = parser.operand_without_not()?;
            Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
        })
    }

    fn operand_without_not(&mut self) -> Parsed<Condition> {
        let from = self.at;
        if let Some(left) = self.attempt(Self::value)? {
            if let Some(comparison) = self.comparison() {
                let right = self.value()?;
                if self.kind() == Kind::Compare {
                    return self.fatal(self.place(), "comparisons do not chain; write `a < b and b < c`");
                }
                return Ok(Condition::Compare(Box::new((left, comparison, right))));
            }
            match left.kind {
                ExpressionKind::Bool(constant) => return Ok(Condition::Constant(constant)),
                ExpressionKind::Converter(call) => return Ok(Condition::Converter(call)),
                _ => {
                    let _ = self.miss::<()>("a comparison (`==`, `!=`, `<`, `<=`, `>`, `>=`)");
                }
            }
            self.at = from;
        }
        if self.take(Kind::Open) {
            let inner = self.disjunction()?;
            self.expect(Kind::Close, "`)`")?;
            return Ok(inner);
        }
        self.miss("a condition")
    }

    fn comparison(&mut self) -> Option<Comparison> {
        if self.kind() != Kind::Compare {
            return None;
        }
        let comparison = match self.spelled() {
            "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessEqual,
            ">" => Comparison::Greater,
            _ => Comparison::GreaterEqual,
        };
        self.at += 1;
        Some(comparison)
    }

    fn value(&mut self) -> Parsed<Expression> {
        self.deeper(Self::value_here)
    }

    fn value_here(&mut self) -> Parsed<Expression> {
        let from = self.at;
        let kind = match self.kind() {
            Kind::Nil => {
                self.at += 1;
                ExpressionKind::Nil
            }
            Kind::Bytes => {
                let digits = self.spelled().get(2..).unwrap_or_default().to_owned();
                if !digits.len().is_multiple_of(2) {
                    return self.fatal(self.place(), "bytes are written with an even number of hexadecimal digits");
                }
                self.at += 1;
                ExpressionKind::Bytes(crate::text::from_hex(&digits).unwrap_or_default())
            }
            Kind::Text => ExpressionKind::Text(self.text_literal()?),
            Kind::Bool => {
                let truth = self.spelled() == "true";
                self.at += 1;
                ExpressionKind::Bool(truth)
            }
            Kind::OpenBrace => self.map()?,
            Kind::OpenBracket => self.list()?,
            Kind::Open => match self.lambda_ahead() {
                true => ExpressionKind::Lambda(Box::new(self.lambda()?)),
                false => return self.math(),
            },
            Kind::Upper if self.is_symbol() => {
                let symbol = self.spelled().to_owned();
                self.at += 1;
                ExpressionKind::Enum(symbol)
            }
            _ => return self.math(),
        };
        Ok(Expression { kind, place: self.since(from) })
    }

    /// Whether what is here is one word of capitals that is not called.
    fn is_symbol(&self) -> bool {
        !matches!(self.kind_at(self.at + 1), Kind::Lower | Kind::Upper | Kind::Open)
    }

    /// Whether `(`, names and commas, `)`, `=>` follow.
    fn lambda_ahead(&self) -> bool {
        let mut at = self.at + 1;
        while matches!(self.kind_at(at), Kind::Lower | Kind::Underscore | Kind::Comma) {
            at += 1;
        }
        self.kind_at(at) == Kind::Close && self.kind_at(at + 1) == Kind::Arrow
    }

    fn lambda(&mut self) -> Parsed<Lambda> {
        self.expect(Kind::Open, "`(`")?;
        let mut parameters = Vec::new();
        if self.kind() != Kind::Close {
            parameters.push(self.parameter()?);
            while self.take(Kind::Comma) {
                parameters.push(self.parameter()?);
            }
        }
        self.expect(Kind::Close, "`)`")?;
        self.expect(Kind::Arrow, "`=>`")?;
        let body = self.at;
        if let Some(value) = self.attempt(Self::value)? {
            if !matches!(self.kind(), Kind::Or | Kind::And | Kind::Compare) {
                if matches!(value.kind, ExpressionKind::Lambda(_)) {
                    return self.fatal(value.place, "the body of a lambda may not be another lambda");
                }
                return Ok(Lambda { parameters, body: LambdaBody::Value(value) });
            }
            self.at = body;
        }
        Ok(Lambda { parameters, body: LambdaBody::Condition(self.disjunction()?) })
    }

    fn parameter(&mut self) -> Parsed<(Option<String>, Place)> {
        let place = self.place();
        let name = self.spelled().to_owned();
        if self.take(Kind::Underscore) {
            return Ok((None, place));
        }
        self.expect(Kind::Lower, "a parameter's name")?;
        Ok((Some(name), place))
    }

    fn list(&mut self) -> Parsed<ExpressionKind> {
        self.expect(Kind::OpenBracket, "`[`")?;
        let mut values = Vec::new();
        if self.kind() != Kind::CloseBracket {
            values.push(self.value()?);
            while self.take(Kind::Comma) {
                values.push(self.value()?);
            }
        }
        self.expect(Kind::CloseBracket, "`]` or `,`")?;
        Ok(ExpressionKind::List(values))
    }

    fn map(&mut self) -> Parsed<ExpressionKind> {
        self.expect(Kind::OpenBrace, "`{`")?;
        let mut entries: Vec<(String, Expression)> = Vec::new();
        while self.kind() == Kind::Text {
            let key = self.text_literal()?;
            self.expect(Kind::Colon, "`:`")?;
            let value = self.value()?;
            self.take(Kind::Comma);
            // The last of equal keys is what counts.
            entries.retain(|(known, _)| *known != key);
            entries.push((key, value));
        }
        self.expect(Kind::CloseBrace, "`}` or a key in quotes")?;
        Ok(ExpressionKind::Map(entries))
    }

    fn math(&mut self) -> Parsed<Expression> {
        self.deeper(|parser| {
            let from = parser.at;
            let mut left = parser.product()?;
            while parser.kind() == Kind::AddSub {
                let operator = if parser.spelled() == "+" { Operator::Add } else { Operator::Subtract };
                parser.at += 1;
                let right = parser.product()?;
                let kind = ExpressionKind::Math(Box::new(left), operator, Box::new(right));
                left = Expression { kind, place: parser.since(from) };
            }
            Ok(left)
        })
    }

    fn product(&mut self) -> Parsed<Expression> {
        let from = self.at;
        let mut left = self.factor()?;
        while self.kind() == Kind::MulDiv {
            let operator = if self.spelled() == "*" { Operator::Multiply } else { Operator::Divide };
            self.at += 1;
            let right = self.factor()?;
            let kind = ExpressionKind::Math(Box::new(left), operator, Box::new(right));
            left = Expression { kind, place: self.since(from) };
        }
        Ok(left)
    }

    /// A literal or parentheses, perhaps signed.
    fn factor(&mut self) -> Parsed<Expression> {
        let from = self.at;
        let sign = (self.kind() == Kind::AddSub).then(|| self.spelled().to_owned());
        self.at += usize::from(sign.is_some());
        let (inner, grouped) =
            if self.kind() == Kind::Open { (self.group()?, true) } else { (self.literal()?, sign.is_some()) };
        let number = match (&inner.kind, sign.as_deref(), self.tokens.get(from + 1).map(|token| token.kind)) {
            // The sign of a number is part of it; that of what is in parentheses is not.
            (ExpressionKind::Int(number), Some("-"), Some(Kind::Int)) => {
                Some(ExpressionKind::Int(number.wrapping_neg()))
            }
            (ExpressionKind::Float(number), Some("-"), Some(Kind::Float)) => Some(ExpressionKind::Float(-number)),
            _ => None,
        };
        let kind = match (number, sign.as_deref()) {
            (Some(number), _) => ExpressionKind::Group(Box::new(Expression { kind: number, place: self.since(from) })),
            (None, Some("-")) => ExpressionKind::Negate(Box::new(inner)),
            (None, _) if grouped => ExpressionKind::Group(Box::new(inner)),
            (None, _) => return Ok(inner),
        };
        Ok(Expression { kind, place: self.since(from) })
    }

    fn group(&mut self) -> Parsed<Expression> {
        let from = self.at;
        if self.hopeless.contains(&from) {
            return Err(Failure::Mismatch);
        }
        self.at += 1;
        let inner = self.math().and_then(|inner| self.expect(Kind::Close, "`)`").map(|_| inner));
        if inner.is_err() {
            self.hopeless.insert(from);
        }
        inner
    }

    /// A converter, a number or a path.
    fn literal(&mut self) -> Parsed<Expression> {
        let from = self.at;
        let kind = match self.kind() {
            Kind::Upper => {
                let (name, place) = self.name();
                if self.kind() != Kind::Open {
                    self.at = from;
                    if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
                        self.at += 1;
                        let _ = self.miss::<()>("a call of the function");
                        self.at = from;
                    }
                    return self.miss("a value");
                }
                let _ = place;
                self.at = from;
                ExpressionKind::Converter(self.call()?)
            }
            Kind::Lower => {
                let (name, place) = self.name();
                if self.kind() == Kind::Open {
                    return self
                        .fatal(place, format!("a converter's name begins with a capital letter, and {name} does not"));
                }
                self.at = from;
                ExpressionKind::Path(self.path()?)
            }
            Kind::Int => ExpressionKind::Int(self.int_literal()?),
            Kind::Float => {
                let Some(number) = self.spelled().parse::<f64>().ok().filter(|number| number.is_finite()) else {
                    return self.fatal(self.place(), "this number is too large for a float");
                };
                self.at += 1;
                ExpressionKind::Float(number)
            }
            _ => return self.miss("a value"),
        };
        Ok(Expression { kind, place: self.since(from) })
    }

    fn path(&mut self) -> Parsed<Path> {
        let from = self.at;
        let mut fields = Vec::new();
        loop {
            let name = self.spelled().to_owned();
            self.expect(Kind::Lower, "the name of a field")?;
            fields.push(Field { name, keys: self.keys()? });
            if !self.take(Kind::Dot) {
                break;
            }
        }
        Ok(Path { fields, place: self.since(from) })
    }

    fn text_literal(&mut self) -> Parsed<String> {
        let place = self.place();
        match lexer::unquote(self.spelled()) {
            Ok(text) => {
                self.at += 1;
                Ok(text)
            }
            Err(escape) => {
                let start = place.start + escape.start;
                let shown = self.text.get(start..).unwrap_or_default().chars().take(2).collect::<String>();
                self.fatal(start..start + shown.len(), format!("`{shown}` is no escape; a backslash is written `\\\\`"))
            }
        }
    }

    /// A number as Go reads it: with a leading zero it is octal.
    fn int_literal(&mut self) -> Parsed<i64> {
        let digits = self.spelled();
        let (octal, radix) = match digits.strip_prefix('0') {
            Some(rest) if !rest.is_empty() => (rest, 8),
            _ => (digits, 10),
        };
        match i64::from_str_radix(octal, radix) {
            Ok(number) => {
                self.at += 1;
                Ok(number)
            }
            Err(_) if radix == 8 => self.fatal(
                self.place(),
                "a number that begins with 0 is octal, and this one has other digits or is too large",
            ),
            Err(_) => self.fatal(self.place(), format!("this number is larger than {}", i64::MAX)),
        }
    }
}
