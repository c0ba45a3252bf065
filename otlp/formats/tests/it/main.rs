//! What the formats promise, from outside.

mod check;
mod collector;
mod foreign;
mod go_pprof;
mod json;
mod measures;
mod profiles;
mod round_trip;
mod split;
mod viewers;
