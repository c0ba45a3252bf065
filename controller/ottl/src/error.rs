//! What is said of a rule that does not parse, and of one that fails.

use std::{borrow::Cow, fmt, ops::Range};

/// Why a rule is refused, and where in its text.
///
/// ```
/// let error = profiler_ottl::parse::statement(r#"set(name."#).unwrap_err();
/// assert_eq!(error.column(), 10);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    message: String,
    text: String,
    place: Range<usize>,
}

impl std::error::Error for CompileError {}

impl CompileError {
    pub(crate) fn new(text: &str, place: Range<usize>, message: impl Into<String>) -> Self {
        Self { message: message.into(), text: text.to_owned(), place }
    }

    /// What is wrong, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where in the rule, in bytes.
    #[must_use]
    pub fn place(&self) -> Range<usize> {
        self.place.clone()
    }

    /// The line it begins in, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// The character in its line that it begins at, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.before().rsplit('\n').next().unwrap_or_default().chars().count() + 1
    }

    fn before(&self) -> &str {
        self.text.get(..self.place.start).unwrap_or(&self.text)
    }
}

impl fmt::Display for CompileError {
    /// The message and its place; then the line of the rule and marks below what is meant.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = (self.line(), self.column());
        match line {
            1 => writeln!(f, "{} (column {column})", self.message)?,
            _ => writeln!(f, "{} (line {line}, column {column})", self.message)?,
        }
        let shown: String = self.text.lines().nth(line - 1).unwrap_or_default().replace('\t', " ");
        let width = self
            .text
            .get(self.place.clone())
            .and_then(|part| part.lines().next())
            .map_or(1, |part| part.chars().count());
        let width = width.clamp(1, shown.chars().count().saturating_sub(column - 1).max(1));
        writeln!(f, "    {shown}")?;
        write!(f, "    {}{}", " ".repeat(column - 1), "^".repeat(width))
    }
}

/// Why a rule failed on what it was run on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    message: Cow<'static, str>,
}

impl EvalError {
    /// An error that says `message`.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into() }
    }

    /// This error, of what `place` names.
    #[must_use]
    pub(crate) fn within(self, place: &str) -> Self {
        Self { message: format!("{place}: {}", self.message).into() }
    }
}
