//! Processes that tests start: none outlives its test, none can hang it.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// A running child, killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    stdout: Option<JoinHandle<io::Result<Vec<u8>>>>,
    stderr: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

/// A child as it was spawned, killed when dropped: of one whose input or output is the test's own business.
#[derive(Debug)]
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a child left behind.
#[derive(Debug)]
pub struct Finished {
    /// The command line.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, lossy.
    pub stdout: String,
    /// Its standard error, lossy.
    pub stderr: String,
}

/// Starts `command` with its output collected.
pub fn start(command: &mut Command) -> Result<Running, Error> {
    let text = describe(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| Error::Start { command: text.clone(), source })?;
    // Read from the start: a child that fills a pipe which nobody empties would stand still.
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    Ok(Running { child, command: text, stdout, stderr })
}

/// Runs `command` to its end, at most for `patience`.
pub fn run(command: &mut Command, patience: Duration) -> Result<Finished, Error> {
    start(command)?.wait(patience)
}

/// Like [`run`]; an exit status other than 0 is an error.
pub fn run_well(command: &mut Command, patience: Duration) -> Result<Finished, Error> {
    let finished = run(command, patience)?;
    if finished.status.success() {
        return Ok(finished);
    }
    let Finished { command, status, stdout, stderr } = finished;
    Err(Error::Failed { command, status: status.to_string(), output: format!("{stderr}\n{stdout}") })
}

/// Copies a program that is to be executed, in a process of its own: a file that is open for writing here is so in every child that
/// another test forks at that moment too, and nobody can execute it until those children's own exec (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) -> Result<(), Error> {
    run_well(Command::new("cp").args([from, to]), Duration::from_secs(60)).map(drop)
}

/// The command line as one would type it, without quotes.
#[must_use]
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map(|_| bytes)
    })
}

fn text(reader: Option<JoinHandle<io::Result<Vec<u8>>>>) -> String {
    let bytes = reader.and_then(|reader| reader.join().ok()).and_then(Result::ok).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Running {
    /// The child's pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`; the child may have ended already.
    pub fn signal(&self, signal: Signal) {
        // The child was not waited for, so its pid is still its own.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, at most for `patience`; kills it then.
    pub fn wait(mut self, patience: Duration) -> Result<Finished, Error> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    return Ok(Finished {
                        command: std::mem::take(&mut self.command),
                        status,
                        stdout: text(self.stdout.take()),
                        stderr: text(self.stderr.take()),
                    });
                }
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
                Ok(None) => {
                    let command = self.command.clone();
                    return Err(Error::Timeout { command, seconds: patience.as_secs() });
                }
                Err(source) => return Err(Error::Start { command: self.command.clone(), source }),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
