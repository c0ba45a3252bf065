//! The row of each kernel, and the table of all.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::error::Error;

/// What was found on one kernel; "-" where nothing was.
#[derive(Debug, Default)]
pub struct Line {
    /// As on the command line.
    pub name: String,
    /// Of the package.
    pub version: String,
    /// Whether the programs load.
    pub loads: bool,
    /// Where registers come from in a system call.
    pub registers: String,
    /// Instructions that the verifier walked through, of the sampling program.
    pub instructions: Option<u64>,
    /// Samples of all recordings.
    pub samples: u64,
    /// Complete stacks and those that should be, of the same.
    pub complete: (u64, u64),
    /// Frames of the recursion that were asked for and found whole in every stack.
    pub depth: Option<usize>,
    /// A CPU that went and came was sampled again.
    pub hotplug: bool,
    /// Without CAP_SYS_ADMIN, at paranoid 2 and 3.
    pub paranoid: [&'static str; 2],
    /// The first assertion that failed.
    pub failure: Option<String>,
    /// The console's output, where it is kept.
    pub log: Option<PathBuf>,
}

impl Line {
    /// Of a kernel that could not be tried.
    pub fn failed(name: &str, error: &Error) -> Self {
        Self { name: name.into(), failure: Some(error.to_string()), ..Self::default() }
    }

    /// Passed, or the first assertion that failed.
    pub fn verdict(&self) -> String {
        let log = self.log.as_ref().map(|log| format!("\n  console: {}", log.display())).unwrap_or_default();
        match &self.failure {
            None => format!("{}: passed{log}", self.name),
            Some(failure) => format!("{}: FAILED: {failure}{log}", self.name),
        }
    }
}

/// The table in Markdown, as `docs/kernels.md` has it.
pub fn markdown(lines: &[Line]) -> String {
    let mut table = String::from(
        "| Kernel | Loads | Verifier instructions | User registers in system calls | Samples | Complete stacks | Recursion of 900 | CPU off and on | Without CAP_SYS_ADMIN, paranoid 2 / 3 | Result |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for line in lines {
        let or = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let (complete, all) = line.complete;
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} / {} | {} |",
            or(if line.version.is_empty() { &line.name } else { &line.version }),
            if line.loads { "yes" } else { "no" },
            line.instructions.map_or("not told".into(), |count| count.to_string()),
            or(&line.registers),
            line.samples,
            if all == 0 { "-".into() } else { format!("{:.2} %", complete as f64 * 100.0 / all as f64) },
            line.depth.map_or("-".into(), |depth| format!("{depth} frames")),
            if line.hotplug { "followed" } else { "-" },
            or(line.paranoid[0]),
            or(line.paranoid[1]),
            if line.failure.is_none() { "passed" } else { "FAILED" },
        );
    }
    table
}
