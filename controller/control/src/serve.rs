//! The server as a process runs it: its folder, where it listens, TLS, and its end.

use std::{
    fs,
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, Instant, SystemTime},
};

use http::{Request, request::Parts};
use hyper::body::Incoming;
use profiler_opamp::{
    InstanceUid, Limits,
    server::{self, Event, Refusal, Registry},
    transport::{Application, Denial, Elsewhere, Server, ServerOptions},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, time::interval};
use tokio_rustls::rustls::{self, crypto::ring};

use crate::{
    Problem, api,
    core::{Core, MAX_AGENTS},
    store::Store,
    token::{self, Role},
};

/// How often rollouts are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Bytes of an agent's message: what [`crate::fleet::Member`] keeps of it is less.
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes of a message to an agent: a configuration and little more.
const MAX_ANSWER: usize = 2 << 20;
/// The token that is made at the first start.
const ADMIN_TOKEN: &str = "admin.token";

/// How the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What it keeps is in this folder, which is made if it is not there.
    pub folder: PathBuf,
    /// Where it listens, for agents and people.
    pub listen: SocketAddr,
    /// PEM files of its certificate chain and its private key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Listens without TLS also where others than this host's processes reach it.
    pub allow_plain_text: bool,
    /// Lets agents in without a token.
    pub allow_any_agent: bool,
    /// Makes another token of an admin, as at the first start: the one before was lost.
    pub new_admin_token: bool,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It would let anybody on the way read and change what is said.
    #[error(
        "{0} is reached from other hosts, and tokens would go there in plain text: give --tls-cert and --tls-key, \
         or ask for it by --allow-plain-text"
    )]
    PlainText(SocketAddr),
    /// A file or the folder.
    #[error("{path} cannot be {what}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// `read`, `written`, ...
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The certificate or the key.
    #[error("{path} cannot be used: {problem}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The address.
    #[error("{address} cannot be listened on: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// What is kept.
    #[error(transparent)]
    Kept(#[from] crate::Problem),
}

struct Control {
    core: Mutex<Core>,
    server: OnceLock<Weak<Server>>,
    allow_any_agent: bool,
}

/// What the transport asks.
struct Door(Arc<Control>);

/// ms since 1970, by the clock as it was at the start: one that is set does not end a soak.
fn now() -> i64 {
    static START: LazyLock<(Instant, Duration)> = LazyLock::new(|| {
        (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    });
    let (start, at) = *START;
    i64::try_from((at + start.elapsed()).as_millis()).unwrap_or(i64::MAX)
}

impl Control {
    /// The registry is taken first, always.
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Application for Door {
    fn admit(&self, head: &Parts, peer: SocketAddr) -> Result<u64, Denial> {
        let mut core = self.0.core();
        match token::bearer(&head.headers) {
            None if self.0.allow_any_agent => return Ok(0),
            None => {}
            Some(text) => {
                match core.token(text).cloned() {
                    Some(token) if token.role == Role::Agent => return Ok(u64::try_from(token.id).unwrap_or_default()),
                    // What belongs to people has no business on an agent's host.
                    Some(token) => {
                        let action = format!("agent.connect from {}", peer.ip());
                        core.forbidden(now(), &token, &action, "people's tokens are not let in by OpAMP");
                        return Err(Denial::Forbidden);
                    }
                    None => {}
                }
            }
        }
        core.unauthorized(now(), &format!("agent.connect from {}", peer.ip()));
        Err(Denial::Unauthorized)
    }

    fn may_speak(&self, uid: InstanceUid, principal: u64) -> Result<(), Refusal> {
        self.0.core().may_speak(uid, principal, self.0.allow_any_agent, now())
    }

    fn happened(&self, registry: &mut Registry, event: Event) {
        self.0.core().happened(registry, &event, now());
    }

    fn elsewhere(&self, request: Request<Incoming>, _peer: SocketAddr) -> Elsewhere<'_> {
        Box::pin(async move {
            let token = token::bearer(request.headers()).map(str::to_owned);
            let is_known =
                token.is_some_and(|text| self.0.core().token(&text).is_some_and(|token| token.role != Role::Agent));
            let ready = match api::read(request, is_known).await {
                Ok(ready) => ready,
                Err(problem) => return Some(api::response(Err(problem))),
            };
            let server = self.0.server.get().and_then(Weak::upgrade)?;
            let reply = server.with(|registry| api::answer(&mut self.0.core(), registry, ready, now()));
            Some(api::response(reply))
        })
    }
}

/// Serves until `end`. `started` is told the address, and where the admin's token is if it was made.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    options: &Options,
    started: impl FnOnce(SocketAddr, Option<&Path>),
    end: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    if !options.listen.ip().is_loopback() && options.tls.is_none() && !options.allow_plain_text {
        return Err(ServeError::PlainText(options.listen));
    }
    let tls = options.tls.as_ref().map(|(certificate, key)| server_config(certificate, key)).transpose()?;
    let folder = &options.folder;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder, "made"))?;
    let database = folder.join("control.sqlite");
    // SQLite would make it for everybody to read.
    let made = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&database);
    made.map_err(failed(&database, "written"))?;
    let mut core = Core::new(Store::open(&database)?, now())?;
    let token = first_token(&mut core, folder, options.new_admin_token)?;
    let listener = TcpListener::bind(options.listen).await;
    let listener = listener.map_err(|source| ServeError::Listen { address: options.listen, source })?;
    let address = listener.local_addr().map_err(|source| ServeError::Listen { address: options.listen, source })?;

    let control =
        Arc::new(Control { core: Mutex::new(core), server: OnceLock::new(), allow_any_agent: options.allow_any_agent });
    let limits = Limits { receive: MAX_MESSAGE, send: MAX_ANSWER };
    // Who has room is for the core to say, which knows whose they are.
    let agents = MAX_AGENTS + 1000;
    let registry = Registry::new(server::Options { limits, agents, ..server::Options::default() });
    // Beside as many agents as may be there is room for people.
    let transport = ServerOptions { connections: MAX_AGENTS + 1000, ..ServerOptions::default() };
    let server = Server::new(registry, Door(Arc::clone(&control)), transport);
    let _ = control.server.set(Arc::downgrade(&server));
    control.core().note(now(), "server", "server.start", &address.to_string(), Ok(env!("CARGO_PKG_VERSION")));
    started(address, token.as_deref());

    let serving = Arc::clone(&server).serve(listener, tls);
    tokio::pin!(serving, end);
    let mut ticks = interval(TICK);
    let mut is_ending = false;
    loop {
        tokio::select! {
            () = &mut serving => break,
            _ = ticks.tick() => server.with(|registry| control.core().tick(registry, now())),
            () = &mut end, if !is_ending => {
                is_ending = true;
                server.stop();
            }
        }
    }
    let mut core = control.core();
    core.keep();
    core.note(now(), "server", "server.stop", &address.to_string(), Ok(""));
    Ok(())
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    let path = path.to_owned();
    move |source| ServeError::File { path, what, source }
}

/// At the first start there is nobody yet who could make a token. It is in a file before it is good, so that there is none that nobody
/// has, and takes the place of the one before when it is: a server that is killed in between finishes that at its next start.
fn first_token(core: &mut Core, folder: &Path, is_wanted: bool) -> Result<Option<PathBuf>, ServeError> {
    let path = folder.join(ADMIN_TOKEN);
    let new = folder.join("admin.token.new");
    let settle = || fs::rename(&new, &path).and_then(|()| fs::File::open(folder)?.sync_all());
    let is_good = |text: &str| core.token(text.trim()).is_some_and(|token| token.role == Role::Admin);
    if fs::read_to_string(&new).is_ok_and(|text| is_good(&text)) {
        settle().map_err(failed(&path, "written"))?;
        return Ok(Some(path));
    }
    if !is_wanted && core.tokens().any(|token| token.role == Role::Admin && token.revoked.is_none()) {
        return Ok(None);
    }
    let write = |text: &str| {
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::File::open(folder)?.sync_all()
    };
    let give = |text: &str| {
        write(text).map_err(|error| Problem::Internal(format!("{} cannot be written: {error}", new.display())))
    };
    core.make_token_for(now(), "server", "admin", Role::Admin, give)?;
    settle().map_err(failed(&path, "written"))?;
    Ok(Some(path))
}

fn server_config(certificate: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, ServeError> {
    let wrong = |path: &Path, problem: String| ServeError::Certificate { path: path.to_owned(), problem };
    let text = fs::read(certificate).map_err(failed(certificate, "read"))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "it has no certificate in PEM".to_owned()));
    }
    let text = fs::read(key).map_err(failed(key, "read"))?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| wrong(key, error.to_string()))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    config.map(Arc::new).map_err(|error| wrong(certificate, format!("with {}: {error}", key.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(folder: &Path) -> Core {
        Core::new(Store::open(&folder.join("control.sqlite")).unwrap(), now()).unwrap()
    }

    fn is_good(folder: &Path) -> bool {
        let text = fs::read_to_string(folder.join(ADMIN_TOKEN)).unwrap_or_default();
        core(folder).token(text.trim()).is_some_and(|token| token.role == Role::Admin)
    }

    #[test]
    fn the_admins_token_is_in_its_file_whenever_the_server_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, new) = (folder.path(), folder.path().join("admin.token.new"));
        first_token(&mut core(folder), folder, false).unwrap().unwrap();
        let first = fs::read_to_string(folder.join(ADMIN_TOKEN)).unwrap();
        assert!(is_good(folder) && !new.exists());
        assert_eq!(first_token(&mut core(folder), folder, false).unwrap(), None);
        // Killed before the next token was good: the one before is as it was.
        fs::write(&new, "profctl_2_00\n").unwrap();
        assert_eq!(first_token(&mut core(folder), folder, false).unwrap(), None);
        assert!(is_good(folder) && fs::read_to_string(folder.join(ADMIN_TOKEN)).unwrap() == first);
        // Killed after that: the next start has it in its place.
        first_token(&mut core(folder), folder, true).unwrap().unwrap();
        let second = fs::read_to_string(folder.join(ADMIN_TOKEN)).unwrap();
        fs::rename(folder.join(ADMIN_TOKEN), &new).unwrap();
        fs::write(folder.join(ADMIN_TOKEN), first).unwrap();
        first_token(&mut core(folder), folder, false).unwrap().unwrap();
        assert!(is_good(folder) && !new.exists());
        assert_eq!(fs::read_to_string(folder.join(ADMIN_TOKEN)).unwrap(), second);
    }

    #[test]
    fn a_persons_token_on_an_agents_host_is_not_let_in_and_the_audit_log_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut core = core(folder.path());
        let (_, text) = core.make_token(now(), "test", "eyes", Role::Viewer).unwrap();
        let control = Control { core: Mutex::new(core), server: OnceLock::new(), allow_any_agent: true };
        let door = Door(Arc::new(control));
        let (head, ()) =
            Request::builder().header("authorization", format!("Bearer {text}")).body(()).unwrap().into_parts();
        let peer = "192.0.2.1:1".parse().unwrap();
        assert!(matches!(door.admit(&head, peer), Err(Denial::Forbidden)));
        let core = door.0.core();
        let newest = core.store().audit(i64::MAX, 1).unwrap();
        assert!(newest[0].who.contains("eyes") && newest[0].action.contains("192.0.2.1"), "{newest:?}");
        assert_eq!((core.counters.forbidden, core.counters.unauthorized), (1, 0));
    }
}
