//! The report that a ground-truth program ends with; see `programs/README.md`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Error;

/// What a program knows about its own run.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// Language and file (`c/shares`).
    pub program: String,
    /// Its pid, in its own pid namespace.
    pub pid: u32,
    /// Its pid on the host, where that is another one.
    #[serde(default)]
    pub host_pid: Option<u32>,
    /// CPU time of all groups, ns.
    pub cpu_ns: u64,
    /// CPU time by group, ns.
    pub shares: BTreeMap<String, u64>,
    /// True callers by group; see [`crate::pattern`].
    #[serde(default)]
    pub stacks: BTreeMap<String, Vec<String>>,
    /// CPU time by thread name, ns.
    #[serde(default)]
    pub threads: BTreeMap<String, u64>,
    /// CPU time by pid, ns.
    #[serde(default)]
    pub processes: BTreeMap<u32, u64>,
    /// Children that ran and ended.
    #[serde(default)]
    pub children: u64,
    /// CPU time in the kernel, ns.
    #[serde(default)]
    pub system_ns: u64,
    /// Functions that a runtime may compile: whether it has, as it says itself.
    #[serde(default)]
    pub compiled: BTreeMap<String, bool>,
    /// The recording did not cover the whole run: shares hold, but no number of samples is due.
    #[serde(skip)]
    pub is_partial: bool,
}

impl Truth {
    /// The report in `output`, which may hold other lines too.
    pub fn find(program: &str, output: &str) -> Result<Self, Error> {
        let fail = |problem: String| Error::NoTruth { program: program.into(), problem, output: output.into() };
        // What else writes to the same terminal may have left the cursor within a line.
        let line = output.lines().filter_map(|line| line.find("{\"").and_then(|at| line.get(at..))).next_back();
        let line = line.ok_or_else(|| fail("there is no JSON in it".into()))?;
        serde_json::from_str(line).map_err(|error| fail(error.to_string()))
    }

    /// The pid that a profiler on the host sees.
    #[must_use]
    pub fn pid_on_host(&self) -> u32 {
        self.host_pid.unwrap_or(self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_report_behind_other_output() {
        let output =
            "recording ...\r 50 % {\"program\":\"c/x\",\"pid\":7,\"cpu_ns\":9,\"shares\":{\"a\":9}}\nwrote x\n";
        let truth = Truth::find("x", output).expect("a report");
        assert_eq!((truth.pid, truth.shares.get("a")), (7, Some(&9)));
        assert!(Truth::find("x", "nothing").is_err());
    }
}
