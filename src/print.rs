//! What is printed for whoever reads: who may have seen enough at any time, as `head` has.

use std::io::{self, ErrorKind, Write};

/// Prints `text` on standard output.
///
/// # Errors
/// Those of writing, but for [`until_enough`].
pub fn print(text: &str) -> io::Result<()> {
    until_enough(io::stdout().write_all(text.as_bytes()))
}

/// What became of writing; that nobody reads on is no failure.
///
/// # Errors
/// Those of `written`, but for a broken pipe.
pub fn until_enough(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_nobody_reads_on_is_no_failure_and_all_else_is() {
        let failed = |kind: ErrorKind| until_enough(Err(kind.into())).is_err();
        assert!(!failed(ErrorKind::BrokenPipe) && failed(ErrorKind::StorageFull));
        assert!(until_enough(Ok(())).is_ok());
    }
}
