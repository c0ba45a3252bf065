//! Tests of the detectors: bars, reference, what is defined for strange series, state.

mod bank;
mod bars;
mod kept;
mod reference;
mod series;
mod simulation;
