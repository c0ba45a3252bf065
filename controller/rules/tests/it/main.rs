//! Tests of rules on requests, in one binary.

mod aggregate;
mod contexts;
mod dictionary;
mod frames;
mod made;
