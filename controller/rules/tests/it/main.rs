//! Tests of rules on requests, in one binary.

mod contexts;
mod dictionary;
mod made;
