//! Exit codes, as `profiler record --help` documents them.

/// Something failed at run time.
pub const FAILURE: u8 = 1;
/// The command line asks for what cannot be; clap's own code for that.
pub const USAGE: u8 = 2;
/// The command exists but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the command.
pub const SIGNAL_BASE: i32 = 128;

/// An error in what the user wrote.
pub fn usage(error: impl std::fmt::Display) -> ExitError {
    ExitError { code: USAGE, message: error.to_string() }
}

/// An error that carries its own exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// What to exit with.
    pub code: u8,
    /// What to print.
    pub message: String,
}
