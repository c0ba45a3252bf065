//! `perf record` on the same run, as a second opinion.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profiler_model::FrameKind;
use tempfile::TempDir;

use crate::children::{self, Running};
use crate::rows::{Frame, Row};
use crate::{Error, recording};

/// A running `perf record` of one process.
#[derive(Debug)]
pub struct Perf {
    folder: TempDir,
    running: Running,
}

impl Perf {
    /// Records `pid` until it ends, with copies of the stack that user space unwinds later.
    pub fn attach(pid: u32, hertz: u32) -> Result<Self, Error> {
        let folder = recording::folder()?;
        let running = children::start(
            Command::new("perf")
                .args(["record", "-q", "-e", "cpu-clock", "-F", &hertz.to_string(), "--call-graph", "dwarf,40960"])
                .args(["-p", &pid.to_string(), "-o"])
                .arg(folder.path().join("perf.data")),
        )?;
        Ok(Self { folder, running })
    }

    /// Waits for the end of the process; the rows that perf saw.
    pub fn finish(self) -> Result<Vec<Row>, Error> {
        self.running.wait(Duration::from_secs(60))?;
        let script = children::run_well(
            Command::new("perf")
                .args(["script", "--no-inline", "-F", "comm,pid,tid,ip,sym,dso", "-i"])
                .arg(self.folder.path().join("perf.data")),
            Duration::from_secs(180),
        )?;
        Ok(parse(&script.stdout))
    }
}

/// Reads the output of `perf script -F comm,pid,tid,ip,sym,dso`: a line for the thread, one for each frame, an empty one.
fn parse(script: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for block in script.split("\n\n") {
        let mut lines = block.lines().filter(|line| !line.is_empty());
        let Some(head) = lines.next() else { continue };
        let words: Vec<&str> = head.split_whitespace().collect();
        let Some((comm, [ids])) = words.split_last_chunk::<1>() else { continue };
        let pid = ids.split('/').next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
        let frames = lines.filter_map(frame).collect();
        let name = comm.join(" ");
        rows.push(Row { count: 1, pid, process: name.clone(), tid: 0, thread: name, frames });
    }
    rows
}

/// `    55d0c8a0b1c3 hot_a (/tmp/shares)`
fn frame(line: &str) -> Option<Frame> {
    let (address, rest) = line.trim().split_once(' ')?;
    let (name, file) = rest.rsplit_once(" (").map_or((rest, ""), |(name, file)| (name, file.trim_end_matches(')')));
    let is_kernel = file.starts_with("[kernel")
        || file.starts_with('[') && Path::new(file).extension().is_none() && file != "[vdso]" && file != "[unknown]";
    Some(Frame {
        kind: if is_kernel { FrameKind::Kernel } else { FrameKind::Native },
        functions: if name == "[unknown]" { Vec::new() } else { vec![name.to_owned()] },
        address: u64::from_str_radix(address, 16).ok()?,
        file: file.to_owned(),
        guessed: false,
        tier: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_perfs_script() {
        let script = "two words 17/18 \n\tffffffff81000000 asm_sysvec ([kernel.kallsyms])\n\t    55d0c8a0b1c3 hot_a (/tmp/shares)\n\t 1 [unknown] ([unknown])\n\nx 3/3 \n\t 2 main (/tmp/shares)\n\n";
        let rows = parse(script);
        assert_eq!(rows.len(), 2);
        let row = rows.first().expect("two rows");
        assert_eq!((row.pid, row.thread.as_str(), row.frames.len()), (17, "two words", 3));
        assert_eq!(row.user_frames().next().map(|frame| frame.functions.clone()), Some(vec!["hot_a".to_owned()]));
    }
}
