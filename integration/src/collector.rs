//! The real OpenTelemetry Collector as the other end of a test: started on loopback, stopped, killed, started again, and what it
//! wrote read back.

pub mod certificates;
mod json;
mod options;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_formats::otlp::ExportProfilesServiceRequest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::environment::{repository, target_folder};
use crate::recording::folder;
use crate::{Error, children};
pub use options::{CollectorOptions, Protocol, ServerTls};

/// Patience with a Collector that starts, stops or has to write: seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Patience with its build, which a first call does.
const BUILD: Duration = Duration::from_secs(1200);

/// The Collector's executable; built by its builder if this is the first use on this machine.
pub fn binary() -> Result<PathBuf, Error> {
    static BINARY: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut binary = BINARY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*binary {
        return Ok(known.clone());
    }
    let built = children::run_well(
        Command::new(repository().join("integration/collector/build")).env("CARGO_TARGET_DIR", target_folder()),
        BUILD,
    )?;
    Ok(binary.insert(PathBuf::from(built.stdout.trim())).clone())
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> Result<u16, Error> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
    bind().map(|address| address.port()).map_err(Error::file("find a free port on", "127.0.0.1"))
}

/// A Collector with a file exporter; killed when dropped.
#[derive(Debug)]
pub struct Collector {
    options: CollectorOptions,
    ports: Ports,
    folder: TempDir,
    child: Option<Child>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    grpc: u16,
    http: u16,
}

impl Ports {
    fn free() -> Result<Self, Error> {
        Ok(Self { grpc: free_port()?, http: free_port()? })
    }
}

impl Collector {
    /// A Collector that listens.
    pub fn start(options: CollectorOptions) -> Result<Self, Error> {
        let mut collector = Self::prepared(options)?;
        // A port that was free a moment ago may be another's now: the next ones then.
        for _ in 0..4 {
            if collector.try_start()? {
                return Ok(collector);
            }
            collector.ports = Ports::free()?;
        }
        collector.restart()?;
        Ok(collector)
    }

    /// A Collector that is not running yet but knows its address, for senders that come first. [`Self::restart`] starts it.
    pub fn prepared(options: CollectorOptions) -> Result<Self, Error> {
        binary()?;
        Ok(Self { options, ports: Ports::free()?, folder: folder()?, child: None })
    }

    /// Starts it again on the same ports; what it has written stays.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill();
        // The port may be an outgoing connection's for a while.
        for _ in 0..20 {
            if self.try_start()? {
                return Ok(());
            }
            sleep(Duration::from_millis(500));
        }
        Err(self.failed("its ports stay taken"))
    }

    /// True when it listens, false if a port is taken.
    fn try_start(&mut self) -> Result<bool, Error> {
        let configuration = self.folder.path().join("collector.yaml");
        let written = self.options.configuration(self.ports.grpc, self.ports.http, &self.file());
        fs::write(&configuration, written).map_err(Error::file("write", &configuration))?;
        let log = fs::File::create(self.log()).map_err(Error::file("write", self.log()))?;
        let errors = log.try_clone().map_err(Error::file("write", self.log()))?;
        let mut command = Command::new(binary()?);
        command.arg("--feature-gates=+service.profilesSupport").arg("--config");
        command.arg(self.options.shipped.as_ref().unwrap_or(&configuration));
        if self.options.shipped.is_some() {
            // What the file of the user leaves open: merged over it.
            command.arg("--config").arg(&configuration);
        }
        command.envs(self.options.environment.iter().cloned());
        command.envs([
            ("GRPC_LISTEN", format!("127.0.0.1:{}", self.ports.grpc)),
            ("HTTP_LISTEN", format!("127.0.0.1:{}", self.ports.http)),
        ]);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(log).stderr(errors);
        let text = children::describe(&command);
        let child = self.child.insert(command.spawn().map_err(|source| Error::Start { command: text, source })?);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !matches!(child.try_wait(), Ok(None)) {
                self.child = None;
                let said = self.said();
                if said.contains("address already in use") {
                    return Ok(false);
                }
                return Err(self.failed("it ended at once"));
            }
            if [self.ports.grpc, self.ports.http].into_iter().all(listens) {
                return Ok(true);
            }
            sleep(Duration::from_millis(20));
        }
        Err(self.failed("it does not listen"))
    }

    /// Ends it as a service manager does: it flushes.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            let until = Instant::now() + PATIENCE;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What a sender is given: `http://127.0.0.1:PORT`, or https where it has a certificate (which is for `localhost`).
    #[must_use]
    pub fn endpoint(&self, protocol: Protocol) -> String {
        let port = match protocol {
            Protocol::Grpc => self.ports.grpc,
            Protocol::Http => self.ports.http,
        };
        match self.options.tls {
            Some(_) => format!("https://localhost:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        }
    }

    /// The requests that it has written so far.
    pub fn requests(&self) -> Result<Vec<ExportProfilesServiceRequest>, Error> {
        let text = match fs::read_to_string(self.file()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("read", self.file())(error)),
        };
        // The last line may be under way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| json::request(line).map_err(|problem| self.failed(&problem))).collect()
    }

    /// The requests once they hold as many samples as `enough` wants, at most after `patience`; else what there is.
    pub fn requests_when(
        &self,
        patience: Duration,
        enough: impl Fn(&[ExportProfilesServiceRequest]) -> bool,
    ) -> Result<Vec<ExportProfilesServiceRequest>, Error> {
        let until = Instant::now() + patience;
        loop {
            let requests = self.requests()?;
            if enough(&requests) || Instant::now() > until {
                return Ok(requests);
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// What it said.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Its folder, for what belongs to it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What its file exporter writes.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("profiles.json")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("collector.log")
    }

    fn failed(&self, problem: &str) -> Error {
        Error::Collector { problem: problem.to_owned(), log: self.said() }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

/// True if something takes connections on the loopback port.
#[must_use]
pub fn listens(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

/// Runs a Go program of this repository: built once a process, since `go run` hides its pid.
pub fn go_program(package: &str) -> Result<PathBuf, Error> {
    static BUILT: OnceLock<Mutex<std::collections::HashMap<String, PathBuf>>> = OnceLock::new();
    let built = BUILT.get_or_init(Mutex::default);
    let mut built = built.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = built.get(package) {
        return Ok(file.clone());
    }
    let name = package.rsplit('/').next().unwrap_or(package);
    let folder = target_folder().join("collector");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    // Built under a name of this process and moved over the last one, which another test may be running.
    let (new, file) = (folder.join(format!("{name}-{}", std::process::id())), folder.join(name));
    let go = crate::environment::find("go").unwrap_or_else(|| "go".into());
    let mut build = Command::new(go);
    build.arg("build").arg("-o").arg(&new).arg(".").current_dir(repository().join(package));
    children::run_well(&mut build, Duration::from_secs(600))?;
    fs::rename(&new, &file).map_err(Error::file("move into place", &file))?;
    built.insert(package.to_owned(), file.clone());
    Ok(file)
}
