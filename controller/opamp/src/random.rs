//! Randomness, so that tests can give their own.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A source of random numbers: of jitter, and of new identities.
pub trait Random: Send {
    /// 64 random bits.
    fn bits(&mut self) -> u64;

    /// A number in `[0, 1)`.
    fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl<F: FnMut() -> u64 + Send> Random for F {
    fn bits(&mut self) -> u64 {
        self()
    }
}

/// The operating system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn bits(&mut self) -> u64 {
        // Where the system has none (it always has), the standard library's keys are.
        getrandom::u64().unwrap_or_else(|_| RandomState::new().build_hasher().finish())
    }
}
