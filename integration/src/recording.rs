//! Runs `profiler record` as a user does, and reads what it wrote.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_model::Profiles;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::children::{Finished, Running};
use crate::environment::profiler;
use crate::rows::{Row, rows};
use crate::truth::Truth;
use crate::{Error, children};

/// Patience with any one recording.
const PATIENCE: Duration = Duration::from_secs(90);
/// What a profiler says when it has begun to sample; from then on Ctrl-C ends the recording.
const BEGUN: &str = "Sampling ";
/// Longest time given to a profiler of a whole host to catch up.
const SETTLING: Duration = Duration::from_secs(10);
/// Between two looks at what it does.
const LOOK: Duration = Duration::from_millis(300);
/// CPU time of a program that has run for a while.
const WHILE: Duration = Duration::from_millis(200);

/// A finished recording.
#[derive(Debug)]
pub struct Recording {
    /// How the profiler ended and what it said.
    pub finished: Finished,
    /// What it wrote.
    pub profile: Profiles,
    /// The pprof file.
    pub file: PathBuf,
    /// Keeps the folder of `file`.
    _folder: TempDir,
}

/// `profiler record` with its output in a folder of its own.
#[derive(Debug)]
pub struct Recorder {
    folder: TempDir,
    command: Command,
    file: PathBuf,
}

/// An empty folder that is gone when dropped.
pub fn folder() -> Result<TempDir, Error> {
    tempfile::Builder::new().prefix("profiler-test-").tempdir().map_err(Error::file("create a folder in", "/tmp"))
}

impl Recorder {
    /// At `hertz`, into a pprof file.
    pub fn new(hertz: u32) -> Result<Self, Error> {
        let folder = folder()?;
        let file = folder.path().join("profile.pb.gz");
        let mut command = Command::new(profiler());
        // Under sudo the profiler gives its child the user's rights; the programs here are to have ours.
        command.env_remove("SUDO_UID").env_remove("SUDO_GID");
        command.current_dir(folder.path()).arg("record").arg("-F").arg(hertz.to_string()).arg("-o").arg(&file);
        Ok(Self { folder, command, file })
    }

    /// Adds an option.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Where further outputs may go.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Records `program` from its first instruction to its end.
    pub fn run<A: AsRef<OsStr>>(mut self, program: &Path, arguments: &[A]) -> Result<Recording, Error> {
        self.command.arg("--").arg(program).args(arguments);
        let finished = children::run_well(&mut self.command, PATIENCE)?;
        Self::read(self.folder, self.file, finished)
    }

    /// Starts to record, without a command; see [`Started::stop`].
    pub fn start(mut self) -> Result<Started, Error> {
        let running = children::start(&mut self.command)?;
        Ok(Started { running, folder: self.folder, file: self.file })
    }

    fn read(folder: TempDir, file: PathBuf, finished: Finished) -> Result<Recording, Error> {
        let bytes = fs::read(&file).map_err(Error::file("read", &file))?;
        let profile =
            profiler_formats::pprof::decode(&bytes).map_err(|source| Error::Profile { path: file.clone(), source })?;
        Ok(Recording { finished, profile, file, _folder: folder })
    }
}

/// A recording under way.
#[derive(Debug)]
pub struct Started {
    /// The profiler.
    pub running: Running,
    folder: TempDir,
    file: PathBuf,
}

impl Started {
    /// Waits until the profiler samples. One that cannot says so when it is stopped.
    pub fn attached(self) -> Result<Self, Error> {
        self.running.says(BEGUN, PATIENCE)?;
        Ok(self)
    }

    /// Waits until the profiler has caught up with all that ran when it began: of a whole host that is much, and meanwhile copies of stacks
    /// are cut short. On a host that starts processes all the time it never has, and is waited for some seconds only.
    pub fn settled(self) -> Result<Self, Error> {
        let started = self.attached()?;
        let used = || {
            let pid = started.running.pid();
            let readers = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let readers = readers.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
            readers.chain([pid]).filter_map(children::cpu_time).sum::<Duration>()
        };
        let until = Instant::now() + SETTLING;
        let mut before = used();
        while Instant::now() < until {
            sleep(LOOK);
            let now = used();
            if now.saturating_sub(before) < LOOK / 10 {
                break;
            }
            before = now;
        }
        Ok(started)
    }

    /// Ends it as Ctrl-C does, once it samples: before, that would end the profiler without a word.
    pub fn stop(self) -> Result<Recording, Error> {
        let started = self.attached()?;
        started.running.signal(Signal::INT);
        started.finish()
    }

    /// Waits for its own end.
    pub fn finish(self) -> Result<Recording, Error> {
        let finished = self.running.wait(PATIENCE)?;
        if !finished.status.success() {
            let Finished { command, status, stdout, stderr } = finished;
            return Err(Error::Failed { command, status: status.to_string(), output: format!("{stderr}\n{stdout}") });
        }
        Recorder::read(self.folder, self.file, finished)
    }
}

/// A recorded ground-truth program.
#[derive(Debug)]
pub struct Recorded {
    /// The recording.
    pub recording: Recording,
    /// Its rows, of all processes.
    pub rows: Vec<Row>,
    /// What the program says.
    pub truth: Truth,
}

impl Recorded {
    /// The rows of the program's process alone.
    #[must_use]
    pub fn own_rows(&self) -> Vec<Row> {
        let pid = self.truth.pid_on_host();
        self.rows.iter().filter(|row| row.pid == pid).cloned().collect()
    }
}

/// Records `program ARGUMENTS` with `profiler record -- ...`.
pub fn record_command(hertz: u32, program: &Path, arguments: &[&str]) -> Result<Recorded, Error> {
    let recording = Recorder::new(hertz)?.run(program, arguments)?;
    let truth = Truth::find(&program.display().to_string(), &recording.finished.stdout)?;
    Ok(Recorded { rows: rows(&recording.profile), recording, truth })
}

/// Records `program ARGUMENTS` with `profiler record -p PID`, attached when it has run for a while.
pub fn record_running(hertz: u32, program: &Path, arguments: &[&str]) -> Result<Recorded, Error> {
    let mut target = children::start(Command::new(program).args(arguments))?;
    if !target.works_for(WHILE, PATIENCE)? {
        let Finished { command, status, stdout, stderr } = target.wait(PATIENCE)?;
        return Err(Error::Failed { command, status: status.to_string(), output: format!("{stderr}\n{stdout}") });
    }
    let started = Recorder::new(hertz)?.arg("-p").arg(target.pid().to_string()).start()?;
    let output = target.wait(PATIENCE)?.stdout;
    let recording = started.stop()?;
    let truth = Truth { is_partial: true, ..Truth::find(&program.display().to_string(), &output)? };
    Ok(Recorded { rows: rows(&recording.profile), recording, truth })
}

/// Records the whole host with `profiler record -a` while `program ARGUMENTS` starts and ends.
pub fn record_host(hertz: u32, program: &Path, arguments: &[&str]) -> Result<Recorded, Error> {
    let started = Recorder::new(hertz)?.arg("-a").start()?.settled()?;
    let output = children::run_well(Command::new(program).args(arguments), PATIENCE)?.stdout;
    let recording = started.stop()?;
    let truth = Truth::find(&program.display().to_string(), &output)?;
    Ok(Recorded { rows: rows(&recording.profile), recording, truth })
}
