//! Rules in order, and what becomes of their errors.

use std::{fmt, str::FromStr};

use crate::{
    context::Context,
    error::EvalError,
    program::{Condition, Statement},
};

/// What becomes of a rule's error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorMode {
    /// It ends the sequence.
    #[default]
    Propagate,
    /// It is told, and the next rule runs.
    Ignore,
    /// The next rule runs.
    Silent,
}

impl ErrorMode {
    /// All modes, as they are spelled.
    pub const NAMES: [&'static str; 3] = ["propagate", "ignore", "silent"];
}

impl FromStr for ErrorMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "propagate" => Ok(Self::Propagate),
            "ignore" => Ok(Self::Ignore),
            "silent" => Ok(Self::Silent),
            _ => Err(format!("an error mode is one of {}, not {name:?}", Self::NAMES.join(", "))),
        }
    }
}

/// The error of a rule of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Which rule, from 0.
    pub index: usize,
    /// The rule.
    pub text: String,
    /// What it failed on.
    pub error: EvalError,
}

impl std::error::Error for RuleError {}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (in `{}`)", self.error, self.text)
    }
}

/// What became of a rule on a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The condition held; a statement's editor ran.
    Matched,
    /// The condition did not hold.
    Passed,
    /// It failed.
    Failed,
}

/// Statements, run in order.
#[derive(Debug)]
pub struct Statements<C: Context> {
    statements: Vec<Statement<C>>,
    mode: ErrorMode,
}

impl<C: Context> Statements<C> {
    /// `statements` with `mode`.
    #[must_use]
    pub fn new(statements: Vec<Statement<C>>, mode: ErrorMode) -> Self {
        Self { statements, mode }
    }

    /// Runs all on `context`; errors that do not end it are told to `ignored`, those of [`ErrorMode::Silent`] are not.
    ///
    /// # Errors
    ///
    /// The first error under [`ErrorMode::Propagate`]; what earlier statements changed stays changed.
    pub fn execute(&self, context: &mut C, ignored: impl FnMut(RuleError)) -> Result<(), RuleError> {
        self.execute_observed(context, |_, _| {}, ignored)
    }

    /// As [`Statements::execute`]; `observe` is told what became of each that ran, by its place from 0.
    ///
    /// # Errors
    ///
    /// As [`Statements::execute`].
    pub fn execute_observed(
        &self,
        context: &mut C,
        mut observe: impl FnMut(usize, Outcome),
        mut ignored: impl FnMut(RuleError),
    ) -> Result<(), RuleError> {
        for (index, statement) in self.statements.iter().enumerate() {
            let result = statement.execute(context);
            observe(
                index,
                match &result {
                    Ok(true) => Outcome::Matched,
                    Ok(false) => Outcome::Passed,
                    Err(_) => Outcome::Failed,
                },
            );
            if let Err(error) = result {
                let error = || RuleError { index, text: statement.text().to_owned(), error: error.clone() };
                match self.mode {
                    ErrorMode::Propagate => return Err(error()),
                    ErrorMode::Ignore => ignored(error()),
                    ErrorMode::Silent => {}
                }
            }
        }
        Ok(())
    }
}

/// How conditions of a sequence go together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logic {
    /// One must hold.
    #[default]
    Any,
    /// All must hold; those that fail do not count, but one must hold.
    All,
}

/// Conditions, asked in order.
#[derive(Debug)]
pub struct Conditions<C: Context> {
    conditions: Vec<Condition<C>>,
    mode: ErrorMode,
    logic: Logic,
}

impl<C: Context> Conditions<C> {
    /// `conditions` of which, by `logic`, one or all must hold.
    #[must_use]
    pub fn new(conditions: Vec<Condition<C>>, mode: ErrorMode, logic: Logic) -> Self {
        Self { conditions, mode, logic }
    }

    /// Whether they hold for `context`. Without any condition they do not.
    ///
    /// # Errors
    ///
    /// The first error under [`ErrorMode::Propagate`].
    pub fn hold(&self, context: &C, ignored: impl FnMut(RuleError)) -> Result<bool, RuleError> {
        self.hold_observed(context, |_, _| {}, ignored)
    }

    /// As [`Conditions::hold`]; `observe` is told what became of each that was asked, by its place from 0.
    ///
    /// # Errors
    ///
    /// As [`Conditions::hold`].
    pub fn hold_observed(
        &self,
        context: &C,
        mut observe: impl FnMut(usize, Outcome),
        mut ignored: impl FnMut(RuleError),
    ) -> Result<bool, RuleError> {
        let mut held = false;
        for (index, condition) in self.conditions.iter().enumerate() {
            let result = condition.holds(context);
            observe(
                index,
                match &result {
                    Ok(true) => Outcome::Matched,
                    Ok(false) => Outcome::Passed,
                    Err(_) => Outcome::Failed,
                },
            );
            match result {
                Ok(true) if self.logic == Logic::Any => return Ok(true),
                Ok(true) => held = true,
                Ok(false) if self.logic == Logic::All => return Ok(false),
                Ok(false) => {}
                Err(error) => {
                    let error = RuleError { index, text: condition.text().to_owned(), error };
                    match self.mode {
                        ErrorMode::Propagate => return Err(error),
                        ErrorMode::Ignore => ignored(error),
                        ErrorMode::Silent => {}
                    }
                }
            }
        }
        Ok(held)
    }
}
