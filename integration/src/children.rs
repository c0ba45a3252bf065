//! Processes that tests start: none outlives its test, none can hang it.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// A running child, killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    stdout: Option<Output>,
    stderr: Option<Output>,
}

/// What a child writes, read as it comes: a child that fills a pipe which nobody empties would stand still.
#[derive(Debug)]
struct Output {
    written: Arc<Written>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Written {
    so_far: Mutex<SoFar>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct SoFar {
    bytes: Vec<u8>,
    /// Nothing more will come.
    is_all: bool,
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

/// The children of the process `pid`, of whichever of its threads, that have not ended.
#[must_use]
pub fn of(pid: u32) -> Vec<u32> {
    // Each thread has its own.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids = texts.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>());
    pids.filter(|&pid| !matches!(state_of(pid), None | Some('Z' | 'X'))).collect()
}

/// The children of the agent `pid` that speak to receivers.
#[must_use]
pub fn senders_of(pid: u32) -> Vec<u32> {
    let is_sender =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"profiler-sender\n");
    of(pid).into_iter().filter(is_sender).collect()
}

/// What the process `pid` does, by the letter of `/proc`: `T`, stopped; `Z`, ended and not waited for. None if there is none.
#[must_use]
pub fn state_of(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// Starts `command` with its output collected.
pub fn start(command: &mut Command) -> Result<Running, Error> {
    let text = describe(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| Error::Start { command: text.clone(), source })?;
    let stdout = child.stdout.take().map(Output::of);
    let stderr = child.stderr.take().map(Output::of);
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

impl Output {
    fn of(from: impl Read + Send + 'static) -> Self {
        let written = Arc::new(Written::default());
        let shared = Arc::clone(&written);
        Self { written, reader: thread::spawn(move || shared.read(from)) }
    }

    /// All of it, once the child and those who have the pipe from it are done.
    fn text(self) -> String {
        let _ = self.reader.join();
        let so_far = self.written.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&so_far.bytes).into_owned()
    }
}

impl Written {
    fn read(&self, mut from: impl Read) {
        let mut room = [0; 8192];
        loop {
            let read = from.read(&mut room);
            let mut so_far = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => so_far.is_all = true,
                Ok(length) => so_far.bytes.extend(room.iter().take(length)),
            }
            self.news.notify_all();
            if so_far.is_all {
                return;
            }
        }
    }

    /// Waits until `text` is in it, or nothing more will come, at most for `patience`; whether it is, none if the time is up.
    fn wait_for(&self, text: &str, patience: Duration) -> Option<bool> {
        let has = |so_far: &SoFar| so_far.bytes.windows(text.len()).any(|part| part == text.as_bytes());
        let so_far = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        let awaited = self.news.wait_timeout_while(so_far, patience, |so_far| !so_far.is_all && !has(so_far));
        let (so_far, _) = awaited.unwrap_or_else(PoisonError::into_inner);
        let found = has(&so_far);
        (found || so_far.is_all).then_some(found)
    }
}

/// CPU time that a process has used, its children's not counted, in steps of a clock tick; none if it is not there.
#[must_use]
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything.
    let fields = stat.rsplit_once(") ")?.1.split(' ').skip(11).take(2);
    let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
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

    /// Waits until it has written `text` to standard error, at most for `patience`; false if it ended without.
    pub fn says(&self, text: &str, patience: Duration) -> Result<bool, Error> {
        let said = self.stderr.as_ref().map_or(Some(false), |stderr| stderr.written.wait_for(text, patience));
        said.ok_or_else(|| Error::Silent {
            command: self.command.clone(),
            text: text.to_owned(),
            seconds: patience.as_secs(),
        })
    }

    /// Waits until it has used so much CPU time ([`cpu_time`]), at most for `patience`; false if it ended before.
    pub fn works_for(&mut self, time: Duration, patience: Duration) -> Result<bool, Error> {
        let until = Instant::now() + patience;
        while self.is_running() {
            if cpu_time(self.pid()).is_some_and(|used| used >= time) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Err(Error::Timeout { command: self.command.clone(), seconds: patience.as_secs() });
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
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
                        stdout: self.stdout.take().map_or_else(String::new, Output::text),
                        stderr: self.stderr.take().map_or_else(String::new, Output::text),
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_child_says_is_awaited_and_none_that_ends_is() {
        let shell = |line: &str| start(Command::new("sh").args(["-c", line])).unwrap();
        let mut talking = shell("echo one >&2; read -r _ < /dev/null; echo two >&2; exec sleep 600");
        assert!(talking.says("two", PATIENCE).unwrap() && talking.is_running());
        assert!(talking.says("one\ntwo", PATIENCE).unwrap(), "what was said before counts");
        assert!(matches!(talking.says("three", Duration::from_millis(20)), Err(Error::Silent { .. })));
        assert!(!shell("echo one >&2").says("two", PATIENCE).unwrap(), "it has ended");
        let finished = shell("echo one; echo two >&2").wait(PATIENCE).unwrap();
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("one\n", "two\n"));
    }

    #[test]
    fn a_childs_work_is_awaited() {
        let spins = || start(Command::new("sh").args(["-c", "while :; do :; done"])).unwrap();
        assert!(spins().works_for(Duration::from_millis(20), PATIENCE).unwrap());
        assert!(!start(&mut Command::new("true")).unwrap().works_for(PATIENCE, PATIENCE).unwrap());
    }
}
