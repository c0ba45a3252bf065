//! A running reader: started, asked, given up.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use profiler_confine::Role;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::channel;

/// A reader that neither runs nor waits for a CPU for so long stands still.
const STILL: Duration = Duration::from_millis(300);
/// The same while it starts: its program may have to be read from a disk.
const STILL_AT_START: Duration = Duration::from_secs(2);
/// A test's build is ten times slower.
const SLOWER: u32 = if cfg!(debug_assertions) { 6 } else { 1 };

/// What one request may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long it may neither run nor answer.
    still: Duration,
    /// CPU time.
    cpu: Duration,
    /// How long it may take all the same.
    wait: Duration,
}

impl Limits {
    /// Of who is waited for by who samples.
    pub(crate) const ROWS: Self = Self {
        still: STILL,
        cpu: Duration::from_secs(3 * SLOWER as u64),
        wait: Duration::from_secs(10 * SLOWER as u64),
    };
    /// Of who names: a large program's symbols take seconds, a slow disk takes its time, and only a window waits.
    pub(crate) const NAMES: Self = Self {
        still: Duration::from_secs(1),
        cpu: Duration::from_secs(15 * SLOWER as u64),
        wait: Duration::from_secs(30 * SLOWER as u64),
    };
    /// Of who names when nobody samples any more, and names are not asked for again.
    pub(crate) const PATIENT: Self =
        Self { still: Duration::from_secs(3), cpu: Duration::from_secs(300), wait: Duration::from_secs(600) };
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It neither runs nor answers.
    #[error("it stood still for {} ms", .0.still.as_millis())]
    Still(Limits),
    /// It would go on for too long.
    #[error("it used {} s of CPU time, or made others wait for {} s", .0.cpu.as_secs(), .0.wait.as_secs())]
    TooMuchWork(Limits),
    /// It is gone.
    #[error("it died")]
    Died,
    /// What it sends is no answer.
    #[error("it answered what is no answer")]
    Malformed,
    /// This side cannot go on.
    #[error("{0}")]
    Io(io::Error),
}

/// A running reader.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    socket: UnixStream,
    pub(crate) limits: Limits,
    /// The first request is answered.
    pub(crate) begun: bool,
}

impl Process {
    /// Starts `program` with `arguments`: nothing of our environment, a socket as its standard input.
    pub(crate) fn start(program: &Path, arguments: &[OsString], limits: Limits) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(program);
        command.arg0("profiler-reader").args(arguments).env_clear();
        // Tests ask development builds for faults (profiler_elf::contain).
        if cfg!(debug_assertions) {
            command.envs(std::env::var_os("PROFILER_FAULT").map(|place| ("PROFILER_FAULT", place)));
        }
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let child = profiler_confine::handed_down(Role::Reader.rights().kept(), || command.spawn())?;
        Ok(Self { child, socket: ours, limits, begun: false })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request and waits for its answer: body and what follows it, of which at most `max_rest` bytes.
    pub(crate) fn ask(&mut self, request: &[u8], max_rest: usize) -> Result<(Vec<u8>, Vec<u8>), Failed> {
        let mut limits = self.limits;
        if !self.begun {
            limits.still = limits.still.max(STILL_AT_START);
        }
        let mut watch = Watch::new(self.child.id(), limits);
        self.send(&channel::head(request.len(), 0).map_err(Failed::Io)?, &mut watch)?;
        self.send(request, &mut watch)?;
        let mut head = [0; channel::HEAD];
        self.receive(&mut head, &mut watch)?;
        let (body_length, rest_length) = channel::lengths(head, max_rest).ok_or(Failed::Malformed)?;
        let (mut body, mut rest) = (vec![0; body_length], vec![0; rest_length]);
        self.receive(&mut body, &mut watch)?;
        self.receive(&mut rest, &mut watch)?;
        self.begun = true;
        Ok((body, rest))
    }

    fn send(&mut self, mut bytes: &[u8], watch: &mut Watch) -> Result<(), Failed> {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::OUT, watch)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Failed::Died),
            }
        }
        Ok(())
    }

    fn receive(&mut self, mut into: &mut [u8], watch: &mut Watch) -> Result<(), Failed> {
        while !into.is_empty() {
            match self.socket.read(into) {
                Ok(0) => return Err(Failed::Died),
                Ok(read) => into = into.get_mut(read..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::IN, watch)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Failed::Died),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags, watch: &mut Watch) -> Result<(), Failed> {
        let mut fds = [PollFd::new(&self.socket, flags)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(STILL.subsec_nanos()) / 2 };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => watch.look(),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Failed::Io(error.into())),
        }
    }

    /// Whether it ended while nobody asked it for anything.
    pub(crate) fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }

    /// Kills it, if it can be killed; what is left is to be [reaped](reap).
    pub(crate) fn give_up(mut self) -> Child {
        let _ = self.child.kill();
        self.child
    }
}

/// Takes those that have ended out of `left`, without waiting.
pub(crate) fn reap(left: &mut Vec<Child>) {
    left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// Whether a reader gets on, by the CPU time that it uses and wants.
struct Watch {
    pid: u32,
    limits: Limits,
    begun: Instant,
    at_begin: Option<Duration>,
    seen: Option<Duration>,
    moved: Instant,
}

impl Watch {
    fn new(pid: u32, limits: Limits) -> Self {
        let now = Instant::now();
        Self { pid, limits, begun: now, at_begin: None, seen: None, moved: now }
    }

    fn look(&mut self) -> Result<(), Failed> {
        let now = Instant::now();
        let used = cpu_time(self.pid);
        self.at_begin = self.at_begin.or(used);
        if used.is_none() || used != self.seen || is_running(self.pid) {
            (self.seen, self.moved) = (used, now);
        }
        let since_begin = used.unwrap_or_default().saturating_sub(self.at_begin.unwrap_or_default());
        if now.duration_since(self.moved) >= self.limits.still {
            Err(Failed::Still(self.limits))
        } else if since_begin > self.limits.cpu || now.duration_since(self.begun) > self.limits.wait {
            Err(Failed::TooMuchWork(self.limits))
        } else {
            Ok(())
        }
    }
}

/// CPU time of the only thread of `pid`, which is a reader of ours.
fn cpu_time(pid: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    Some(Duration::from_nanos(text.split_ascii_whitespace().next()?.parse().ok()?))
}

/// Whether it runs, or would if there were a CPU.
fn is_running(pid: u32) -> bool {
    let text = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = text.iter().rposition(|&byte| byte == b')').and_then(|at| text.get(at + 2));
    after == Some(&b'R')
}
