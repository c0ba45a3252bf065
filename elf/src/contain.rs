//! What becomes of a panic.
//!
//! Parsers of foreign bytes are written not to panic, some of them by others. What they are given is contained: a panic costs the
//! file that caused it its names or rows, and is counted. Any other panic is a fault of ours in a thread that nobody can do without,
//! and ends the process at once, so that whoever keeps it (systemd, Kubernetes) starts it anew: a process of which a thread is gone
//! looks alive and is not.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs what parses foreign bytes; `None` if it panicked. What it changed before that is not to be trusted.
pub fn contain<T>(parse: impl FnOnce() -> T) -> Option<T> {
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(parse));
    DEPTH.set(DEPTH.get().saturating_sub(1));
    result.ok()
}

/// Makes every panic that is not within [`contain`] end the process, with the signal SIGABRT, after it was told.
pub fn end_process_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
            std::process::abort();
        }
    }));
}

/// Panics if `PROFILER_FAULT` names this place; in builds for debugging only, so that tests can see what becomes of it.
#[inline]
pub fn fault(place: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("PROFILER_FAULT").is_some_and(|at| at == place) {
        panic!("PROFILER_FAULT={place}");
    }
    #[cfg(not(debug_assertions))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_contained_once() {
        assert_eq!(contain(|| contain(|| panic!("within"))), Some(None::<()>));
        assert_eq!(DEPTH.get(), 0);
        assert_eq!(contain(|| 5), Some(5));
    }
}
