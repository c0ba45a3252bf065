//! Tests of the language, in one binary.

mod answers;
mod attributes;
mod document;
mod hostile;
mod messages;
mod sequences;
