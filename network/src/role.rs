//! The sender itself: becomes what it is told to be, and answers one request after the other.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use profiler_confine::Rights;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::frame;

/// Name of the hidden subcommand that becomes a sender.
pub const SUBCOMMAND: &str = "__network";

/// Bytes that it may take beside thrice what it sends at once: certificates, connections, stacks of threads that resolve names.
const OWN: u64 = 64 << 20;

/// What answers requests.
pub trait Served {
    /// The answer to `body` and what followed it.
    fn answer(&mut self, body: Vec<u8>, rest: Bytes) -> impl Future<Output = Vec<u8>>;
}

/// The first message.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Begin {
    /// Bytes of the largest request.
    pub largest: u64,
    /// What it is to be: the caller's.
    pub what: Vec<u8>,
}

/// The answer to it: what the sender gave up, in parts, or why it cannot be what it is to be.
pub(crate) type Begun = Result<Vec<(u8, u8, String)>, String>;

/// Becomes a sender: what it is told on standard input to be is made by `become_it`, which may still open files and says what is kept from then
/// on. Answers until the other end is closed.
///
/// # Errors
/// Standard input is no socket, or what comes is no request.
pub fn serve<S: Served>(become_it: impl FnOnce(&[u8]) -> Result<(S, Rights), String>) -> io::Result<()> {
    prepare()?;
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut head = [0; frame::HEAD];
    socket.read_exact(&mut head)?;
    let (length, _) = frame::lengths(head, 0).ok_or_else(|| io::Error::other("a message is too large"))?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    let Begin { largest, what } = borsh::from_slice(&body)?;
    drop(body);
    let become_it = become_it(&what);
    drop(what);
    let become_it = become_it.and_then(|made| limit_memory(largest).map(|()| made).map_err(|error| error.to_string()));
    // Who listens on this host is told there. A domain knows files by what is open: the kernel could forget this one, and have another by its name.
    let _own = File::open("/proc/self");
    // Nobody has been spoken to yet, and no thread is there.
    let made = become_it.map(|(served, rights)| (served, profiler_confine::process(&rights)));
    let begun: Begun = made.as_ref().map(|(_, report)| report.to_parts()).map_err(Clone::clone);
    socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served: io::Result<()> = runtime.block_on(async {
        let mut socket = tokio::net::UnixStream::from_std(socket)?;
        frame::write(&mut socket, &borsh::to_vec(&begun)?, &[]).await?;
        let Ok((mut served, _)) = made else { return Ok(()) };
        let largest = usize::try_from(largest).unwrap_or(usize::MAX);
        while let Some((body, rest)) = frame::read(&mut socket, largest).await? {
            let answer = served.answer(body, rest).await;
            frame::write(&mut socket, &answer, &[]).await?;
        }
        Ok(())
    });
    // A name that is being resolved is not waited for.
    runtime.shutdown_background();
    served
}

/// What is allocated, and not the program. What there is less of already stays so.
fn limit_memory(largest: u64) -> io::Result<()> {
    let memory = OWN.saturating_add(largest.saturating_mul(3));
    let memory = getrlimit(Resource::Data).maximum.map_or(memory, |inherited| inherited.min(memory));
    Ok(setrlimit(Resource::Data, Rlimit { current: Some(memory), maximum: Some(memory) })?)
}

fn prepare() -> io::Result<()> {
    // However the one that started it ends.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let _ = rustix::thread::set_name(c"profiler-sender");
    // They are meant for the one that started it, which ends its senders itself.
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        signal_hook::flag::register(signal.as_raw(), Arc::default())?;
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Another sender, of the same user, must not read this one's key and headers.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
