//! Senders from the other side: started, asked, given up.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use profiler_confine::{CapabilitySet, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::frame;
use crate::role::{Begin, Begun, SUBCOMMAND};

/// How long it may take until a sender has begun: its program may have to be read from a disk.
const START: Duration = Duration::from_secs(30);
/// Bytes of an error that a sender may tell.
const MAX_ERROR: usize = 2048;
/// What of the environment the libraries read that senders use: where certificate authorities are, how names are resolved.
const ENVIRONMENT: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "RES_OPTIONS", "LOCALDOMAIN"];

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// There can be no process.
    #[error("a process for it cannot be started: {0}; raise the limit of processes (ulimit -u, TasksMax=)")]
    Start(#[source] io::Error),
    /// It cannot be what it is to be; in its own words.
    #[error("{0}")]
    Wrong(String),
    /// It does not answer.
    #[error("the process that speaks to it did not answer within {0:?} and was given up")]
    Still(Duration),
    /// It is gone.
    #[error("the process that speaks to it has died")]
    Died,
    /// What it sends is no answer.
    #[error("the process that speaks to it answered what is no answer, and was given up")]
    Malformed,
}

impl Failed {
    /// Why a sender ended, in a word or two.
    fn ended(&self) -> &'static str {
        match self {
            Self::Start(_) => "not started",
            Self::Wrong(_) => "cannot begin",
            Self::Still(_) => "stood still",
            Self::Died => "died",
            Self::Malformed => "malformed answer",
        }
    }
}

/// A sender that runs.
#[derive(Clone, Debug)]
pub struct Member {
    /// Whose it is.
    pub name: String,
    /// Its pid.
    pub pid: u32,
    /// What it gave up.
    pub report: Report,
}

/// What became of senders since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processes started, by whose they are.
    pub started: BTreeMap<String, u64>,
    /// Processes that ended before they were asked to, and attempts to start one that failed, by whose they are and why.
    pub ended: BTreeMap<(String, &'static str), u64>,
}

/// How senders are started, and which there are. Clones are the same.
#[derive(Clone, Debug)]
pub struct Network {
    program: PathBuf,
    arguments: Vec<&'static str>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    next: u64,
    members: BTreeMap<u64, Member>,
    /// Killed, and not yet waited for.
    left: Vec<Child>,
    /// What was refused, by whose, and is said once.
    told: BTreeSet<(String, String)>,
    stats: Stats,
}

impl Network {
    /// Senders are this program.
    #[must_use]
    pub fn of_this_program() -> Self {
        Self::of_program("/proc/self/exe".into())
    }

    /// Senders are the profiler at `program`.
    #[must_use]
    pub fn of_program(program: PathBuf) -> Self {
        Self { program, arguments: vec![SUBCOMMAND], shared: Arc::default() }
    }

    /// Those that run now. Takes those that have ended out of the table of processes, so it is to be called now and then.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let mut shared = self.shared();
        shared.reap();
        shared.members.values().cloned().collect()
    }

    /// What became of them.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().stats.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Changes are of a few plain assignments.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a sender: nothing of our environment but for what libraries need, a socket as its standard input.
    fn start(&self, name: &str, largest: u64) -> io::Result<Running> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        let mut command = Command::new(&self.program);
        command.arg0("profiler-sender").args(&self.arguments).env_clear();
        command.envs(ENVIRONMENT.into_iter().filter_map(|key| Some((key, std::env::var_os(key)?))));
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        // It reads its files, of whichever user, before it gives this up.
        let child = profiler_confine::handed_down(CapabilitySet::DAC_READ_SEARCH, || command.spawn())?;
        let mut shared = self.shared();
        shared.reap();
        let id = shared.next;
        shared.next += 1;
        *shared.stats.started.entry(name.to_owned()).or_default() += 1;
        let member = Member { name: name.to_owned(), pid: child.id(), report: Report::default() };
        shared.members.insert(id, member);
        drop(shared);
        Ok(Running { id, child: Some(child), largest, socket, network: self.clone() })
    }
}

impl Shared {
    fn reap(&mut self) {
        self.left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

/// A running sender, killed when dropped.
#[derive(Debug)]
struct Running {
    id: u64,
    child: Option<Child>,
    /// Bytes of a request that it takes.
    largest: u64,
    socket: UnixStream,
    network: Network,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut shared = self.network.shared();
        shared.members.remove(&self.id);
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            // It may be held in the kernel by a file system that hangs: nobody waits for it.
            shared.left.push(child);
            shared.reap();
        }
    }
}

impl Running {
    /// Whether it ended, or says what nobody asked for.
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }

    async fn ask(&mut self, body: &[u8], rest: &[u8], limit: Duration) -> Result<Vec<u8>, Failed> {
        let exchange = async {
            frame::write(&mut self.socket, body, rest).await?;
            frame::read(&mut self.socket, 0).await
        };
        match timeout(limit, exchange).await {
            Ok(Ok(Some((body, _)))) => Ok(body),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(Failed::Malformed),
            Ok(Ok(None) | Err(_)) => Err(Failed::Died),
            Err(_) => Err(Failed::Still(limit)),
        }
    }
}

/// Whoever asks one sender after the other: there is none until it is asked or [prepared](Link::prepare), and never more than one.
#[derive(Debug)]
pub struct Link {
    network: Network,
    name: String,
    running: Option<Running>,
}

impl Link {
    /// For `name`, an exporter's.
    #[must_use]
    pub fn new(network: Network, name: &str) -> Self {
        Self { network, name: name.to_owned(), running: None }
    }

    /// Sends `body` and `rest`, of which `largest` bytes are usual and [`MAX_REST`](crate::MAX_REST) the most, and waits for the answer, for `limit` at most. If there is no sender, one is
    /// started first, as `begin` says. It has to be called by one and the same thread, since a sender ends with the one that started it.
    ///
    /// What is dropped in the middle ends the sender: its answer would be taken for the next one.
    ///
    /// # Errors
    /// There is no answer. The sender, if there was one, has been killed.
    pub async fn ask(
        &mut self,
        begin: impl FnOnce() -> Vec<u8>,
        (body, rest, largest): (&[u8], &[u8], u64),
        limit: Duration,
    ) -> Result<Vec<u8>, Failed> {
        let idle = match self.running.take() {
            Some(running) if running.is_gone() => {
                drop(running);
                self.count(&Failed::Died);
                None
            }
            idle => idle,
        };
        let largest = largest.max(rest.len() as u64);
        let idle = idle.filter(|running| largest <= running.largest);
        let mut running = match idle {
            Some(running) => running,
            None => self.begin(begin(), largest).await.inspect_err(|failed| self.count(failed))?,
        };
        let answer = running.ask(body, rest, limit).await.inspect_err(|failed| self.count(failed))?;
        self.running = Some(running);
        Ok(answer)
    }

    /// Starts a sender, if there is none, so that the first request need not wait for it. It has to be called by the thread that will ask.
    ///
    /// # Errors
    /// There is none, and the first request will try again.
    pub async fn prepare(&mut self, begin: impl FnOnce() -> Vec<u8>, largest: u64) -> Result<(), Failed> {
        if self.running.is_none() {
            self.running = Some(self.begin(begin(), largest).await.inspect_err(|failed| self.count(failed))?);
        }
        Ok(())
    }

    async fn begin(&self, what: Vec<u8>, largest: u64) -> Result<Running, Failed> {
        let begin = borsh::to_vec(&Begin { largest, what }).map_err(Failed::Start)?;
        let mut running = self.network.start(&self.name, largest).map_err(Failed::Start)?;
        let answer = running.ask(&begin, &[], START).await?;
        let begun: Begun = borsh::from_slice(&answer).map_err(|_| Failed::Malformed)?;
        let parts = begun.map_err(|mut error| {
            let end = (0..=MAX_ERROR.min(error.len())).rev().find(|&end| error.is_char_boundary(end));
            error.truncate(end.unwrap_or_default());
            Failed::Wrong(error)
        })?;
        let report = Report::from_parts(parts).ok_or(Failed::Malformed)?;
        for refused in report.refused() {
            if !self.network.shared().told.insert((self.name.clone(), refused.clone())) {
                continue;
            }
            tracing::warn!(
                exporter = self.name,
                "The kernel or the container refuses a part of the confinement of a sender, and it goes on without: {refused}."
            );
        }
        if let Some(member) = self.network.shared().members.get_mut(&running.id) {
            member.report = report;
        }
        Ok(running)
    }

    /// Ends the sender, because it is to be another.
    pub fn end(&mut self) {
        self.running = None;
    }

    /// Ends the sender, because its last answer was none.
    pub fn malformed(&mut self) -> Failed {
        self.running = None;
        self.count(&Failed::Malformed);
        Failed::Malformed
    }

    fn count(&self, failed: &Failed) {
        *self.network.shared().stats.ended.entry((self.name.clone(), failed.ended())).or_default() += 1;
    }
}
