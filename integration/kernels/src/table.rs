//! What was found on each kernel, and the table of all.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::error::Error;

/// What was found on one kernel.
#[derive(Debug, Default)]
pub struct Column {
    /// As on the command line.
    pub name: String,
    /// Of the package, or of the kernel.
    pub version: String,
    /// Features and what was found of each, in the order in which they were looked at.
    pub facts: Vec<(String, String)>,
    /// The first assertion that failed.
    pub failure: Option<String>,
    /// The console's output, where it is kept.
    pub log: Option<PathBuf>,
}

impl Column {
    /// Of a kernel that could not be tried.
    #[must_use]
    pub fn failed(name: &str, error: &Error) -> Self {
        Self { name: name.into(), failure: Some(error.to_string()), ..Self::default() }
    }

    /// Adds what was found of a feature.
    pub fn fact(&mut self, feature: impl Into<String>, found: impl Into<String>) {
        self.facts.push((feature.into(), found.into()));
    }

    /// Passed, or the first assertion that failed.
    #[must_use]
    pub fn verdict(&self) -> String {
        let log = self.log.as_ref().map(|log| format!("\n  console: {}", log.display())).unwrap_or_default();
        match &self.failure {
            None => format!("{}: passed{log}", self.name),
            Some(failure) => format!("{}: FAILED: {failure}{log}", self.name),
        }
    }

    fn found(&self, feature: &str) -> &str {
        self.facts.iter().find(|(name, _)| *name == feature).map_or("-", |(_, found)| found)
    }
}

/// The table in Markdown, as `docs/kernels.md` has it: a column a kernel, "-" where nothing was found.
#[must_use]
pub fn markdown(columns: &[&Column]) -> String {
    let mut features: Vec<&str> = Vec::new();
    for (feature, _) in columns.iter().flat_map(|column| &column.facts) {
        if !features.contains(&feature.as_str()) {
            features.push(feature);
        }
    }
    let mut table = String::from("| |");
    for column in columns {
        let _ = write!(table, " {} |", if column.version.is_empty() { &column.name } else { &column.version });
    }
    let _ = writeln!(table, "\n|---|{}", "---|".repeat(columns.len()));
    for feature in features {
        let _ = write!(table, "| {feature} |");
        for column in columns {
            let _ = write!(table, " {} |", column.found(feature));
        }
        table.push('\n');
    }
    table.push_str("| Result |");
    for column in columns {
        let _ = write!(table, " {} |", if column.failure.is_none() { "passed" } else { "FAILED" });
    }
    table.push('\n');
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_failed_early_has_gaps() {
        let mut good = Column { version: "6.1".into(), ..Column::default() };
        good.fact("Loads", "yes");
        good.fact("Depth", "900");
        let bad = Column { name: "5.10".into(), failure: Some("no".into()), ..Column::default() };
        assert_eq!(
            markdown(&[&good, &bad]),
            "| | 6.1 | 5.10 |\n|---|---|---|\n| Loads | yes | - |\n| Depth | 900 | - |\n| Result | passed | FAILED |\n"
        );
    }
}
